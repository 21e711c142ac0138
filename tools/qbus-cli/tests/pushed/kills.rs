//! Receivers that are away for long, and kills of everybody: each sample once, in order, none
//! missing.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use qbus::{Bus, BusOptions, Counter, Histogram};
use qbus_tests::{Place, Process, Random, TestBus, run, until};
use tempfile::TempDir;

use crate::monitor::{Monitor, encoded, is_installed};
use crate::receiver::{Act, Receiver};
use crate::wire::samples;
use crate::{pushing, stop, typed};

/// A bus that is sent on to three receivers: the test's own, and two of those that people have.
struct Scene {
    bus: TestBus,
    jobs: Counter,
    took: Histogram,
    done: f64,
    own: Receiver,
    prometheus: Monitor,
    victoria: Monitor,
    args: String,
    agg: Option<Process>,
    /// Each may have been between two receivers.
    kills: usize,
    /// It goes last.
    folder: TempDir,
}

const BUSY: Act = Act::Say("503 Service Unavailable", "Retry-After: 0\r\n", b"");
const TAKEN: Act = Act::Say("204 No Content", "", b"");

impl Scene {
    fn set(interval: &str) -> Scene {
        let folder = tempfile::tempdir().expect("a folder");
        let own = Receiver::start(&[]);
        let prometheus = Monitor::receiving(folder.path());
        let victoria = Monitor::victoria(folder.path(), "scrape_configs: []\n");
        let bus = TestBus::reserve(Place::Named);
        let opened = Bus::create(bus.address(), &BusOptions::default()).expect("a new bus");
        let jobs = opened.counter("jobs_total").register().expect("room");
        let took = opened.histogram("took_seconds").buckets([0.1, 1.0]);
        let to = |port| format!("http://127.0.0.1:{port}/api/v1/write");
        let queue = folder.path().join("queue").display().to_string();
        let mut args = format!("--push-queue {queue} --push-interval {interval} --label job=x");
        for url in [own.url("/own"), to(prometheus.port), to(victoria.port)] {
            args += &format!(" --remote-write {url}");
        }
        let mut scene = Scene {
            took: took.register().expect("room"),
            jobs,
            bus,
            done: 0.0,
            own,
            prometheus,
            victoria,
            args,
            agg: None,
            kills: 0,
            folder,
        };
        scene.aggregate();
        scene
    }

    fn aggregate(&mut self) {
        self.agg = Some(pushing(&self.bus, &self.args));
    }

    fn kill(&mut self) {
        self.agg.take().expect("it runs").kill();
        self.kills += 1;
    }

    fn work(&mut self) {
        self.jobs.inc();
        self.took.observe(0.5);
        self.done += 1.0;
    }

    /// Waits until all know all; then all is as it should be.
    fn end(mut self) {
        self.work();
        let done = self.done;
        for monitor in [&self.prometheus, &self.victoria] {
            monitor.await_value("jobs_total", |jobs| jobs == done);
            monitor.await_value("took_seconds_count", |count| count == done);
        }
        stop(self.agg.take().expect("it runs"));
        // It does not wait for ever for who is slow; its successor goes on.
        for _ in 0..10 {
            if !self.waits() {
                break;
            }
            self.aggregate();
            stop(self.agg.take().expect("it runs"));
        }
        let dump = format!("dump --match 'jobs_*' -b {}", self.bus.address());
        let finished = run(&mut typed(&dump), "");
        assert!(
            finished.out.contains(&format!("\njobs_total {done}\n")),
            "{}",
            finished.out
        );
        let refused = "sum(qbus_push_samples_total{outcome!='sent'})";
        assert_eq!(
            self.prometheus.value(refused),
            Some(0.0),
            "nothing is refused or dropped"
        );
        let own = self.of_own();
        assert_eq!(own.values().last(), Some(&done));
        // What they took last is found after a moment.
        let newest = own.keys().last().copied();
        let has_newest = |found: Vec<(u64, f64)>| found.last().map(|last| last.0) >= newest;
        until("the last sample", || {
            has_newest(of_prometheus(&self.prometheus)) && has_newest(of_victoria(&self.victoria))
        });
        for (name, theirs) in [
            ("Prometheus", of_prometheus(&self.prometheus)),
            ("VictoriaMetrics", of_victoria(&self.victoria)),
        ] {
            // In order, and none twice.
            assert!(
                theirs.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1),
                "{name}: {theirs:?}"
            );
            let theirs: BTreeMap<u64, f64> = theirs.into_iter().collect();
            let differ = own
                .iter()
                .filter(|(time, value)| theirs.get(time) != Some(value));
            let more = theirs.iter().filter(|(time, _)| !own.contains_key(time));
            let differ: Vec<_> = differ.chain(more).collect();
            assert!(
                differ.len() <= self.kills,
                "{name}: {differ:?} of {} samples, {} kills",
                own.len(),
                self.kills
            );
        }
    }

    /// Whether anything waits in a queue.
    fn waits(&self) -> bool {
        let queues = fs::read_dir(self.folder.path().join("queue")).expect("a folder");
        let files = queues
            .flatten()
            .flat_map(|queue| fs::read_dir(queue.path()));
        let mut files = files.flatten().flatten();
        files.any(|file| file.path().extension().is_some_and(|it| it == "push"))
    }

    /// What the test's own receiver has taken, in the order in which it came.
    fn of_own(&self) -> BTreeMap<u64, f64> {
        let mut found = BTreeMap::new();
        for request in self.own.taken() {
            for (labels, value, time) in samples(&request) {
                if !labels.contains(&"__name__=jobs_total".to_owned()) {
                    continue;
                }
                let newest = found.last_key_value().map(|(time, _)| *time);
                // What was taken without an answer comes again as it was.
                if newest == Some(time) {
                    assert_eq!(found.get(&time), Some(&value));
                }
                assert!(newest <= Some(time), "{newest:?} {time}");
                found.insert(time, value);
            }
        }
        assert!(found.values().is_sorted());
        found
    }
}

fn of_prometheus(monitor: &Monitor) -> Vec<(u64, f64)> {
    let path = format!("/api/v1/query?query={}", encoded("jobs_total[1h]"));
    let found = monitor.api(&path);
    let pairs = found["result"][0]["values"]
        .as_array()
        .expect("samples")
        .clone();
    let pair = |pair: &serde_json::Value| {
        let seconds = pair[0].as_f64().expect("a time");
        let value = pair[1]
            .as_str()
            .expect("a value")
            .parse()
            .expect("a number");
        ((seconds * 1000.0).round() as u64, value)
    };
    pairs.iter().map(pair).collect()
}

fn of_victoria(monitor: &Monitor) -> Vec<(u64, f64)> {
    // What it took last is found by searches only after a moment, unless it is told to.
    monitor.get("/internal/force_flush");
    let (_, body) = monitor
        .get("/api/v1/export?match[]=jobs_total")
        .expect("an answer");
    let mut found = Vec::new();
    for line in body.lines() {
        let block: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let times = block["timestamps"].as_array().expect("times").iter();
        let values = block["values"].as_array().expect("values").iter();
        let pairs = times.zip(values).map(|(time, value)| {
            (
                time.as_u64().expect("a time"),
                value.as_f64().expect("a value"),
            )
        });
        found.extend(pairs);
    }
    found.sort_by_key(|one| one.0);
    found
}

/// As many readings as an hour has at the usual interval; only the time between them is shorter.
#[test]
fn an_hour_without_receivers_is_caught_up_with() {
    if !is_installed("prometheus") || !is_installed("victoria-metrics") {
        return;
    }
    let readings = 360;
    let mut scene = Scene::set("10ms");
    scene.own.usually(BUSY);
    scene.prometheus.kill();
    scene.victoria.kill();
    let waiting = |scene: &Scene| {
        let name = scene.bus.address();
        let dump = format!("dump --match qbus_push_queue_requests -b {name}");
        let page = run(&mut typed(&dump), "");
        let line = page.out.lines().find(|line| line.contains("/own"));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        value.unwrap_or(0.0)
    };
    for part in 1..=3 {
        let wanted = f64::from(readings * part / 3);
        until("readings that wait", || {
            scene.work();
            waiting(&scene) >= wanted
        });
        if part < 3 {
            scene.kill();
            scene.aggregate();
        }
    }
    scene.prometheus.again();
    scene.victoria.again();
    scene.own.usually(TAKEN);
    let own = |scene: &Scene| scene.own.taken().len();
    until("all of it", || own(&scene) >= readings as usize);
    scene.end();
}

/// For eight seconds, or as many as `QBUS_STORM_SECONDS` says.
#[test]
fn whoever_is_killed_whenever_nothing_is_missing_and_nothing_comes_twice() {
    if !is_installed("prometheus") || !is_installed("victoria-metrics") {
        return;
    }
    let seconds = std::env::var("QBUS_STORM_SECONDS").ok();
    let seconds = seconds.map_or(8, |text| text.parse().expect("seconds"));
    let mut scene = Scene::set("50ms");
    let mut random = Random::new(17);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut restarts, mut moods) = (0, 0);
    while Instant::now() < end {
        for _ in 0..random.below(200) {
            scene.work();
            std::thread::sleep(Duration::from_millis(random.below(5)));
        }
        match random.below(4) {
            0 | 1 => {
                scene.kill();
                scene.aggregate();
            }
            2 => {
                scene.prometheus.kill();
                (0..random.below(100)).for_each(|_| scene.work());
                scene.prometheus.again();
                restarts += 1;
            }
            _ => {
                let moods_of = [
                    BUSY,
                    Act::Reset,
                    Act::Garbage,
                    Act::TakeSilently,
                    Act::Say("500 Internal Server Error", "", b"\xff"),
                    TAKEN,
                ];
                scene
                    .own
                    .usually(moods_of[random.below(moods_of.len() as u64) as usize]);
                moods += 1;
            }
        }
    }
    scene.own.usually(TAKEN);
    let done = scene.done + 1.0;
    // Not captured, as `eprintln!` would be.
    let _ = writeln!(
        std::io::stderr(),
        "{seconds} s, {} kills of the aggregator, {restarts} of Prometheus, {moods} moods of the \
         receiver, {done} jobs",
        scene.kills
    );
    scene.end();
}
