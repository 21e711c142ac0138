//! A storm: producers join, emit, fork, become daemons, are interrupted, lose descriptors, leave,
//! are killed, stopped and continued at random, the aggregator is killed and restarted, and a
//! reader dumps all the time. No dump is unreadable, nothing is ever counted back, nobody ends who
//! was not to, and in the end all adds up. In one storm the bus is removed and made anew as well:
//! what a removed one has taken is on its page, or lies in it unread, and counts as delivered
//! nowhere.
//!
//! `QBUS_STORM_SECONDS` says how long it lasts, `QBUS_SEED` replays what was decided.

mod accounts;

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use accounts::{Accounts, journal, sum};
use qbus::{Bus, Clock, Geometry, OpenError, Removal};
use qbus_aggregate::export::{self, Format};
use qbus_aggregate::{Aggregator, AggregatorOptions, ReadError, ReadOptions, Reader};
use qbus_tests::{Life, Place, Process, Random, TestBus};
use rustix::process::Signal;
use tempfile::TempDir;

const AGGREGATOR: &str = env!("CARGO_BIN_EXE_test-aggregator");
const STORMER: &str = env!("CARGO_BIN_EXE_test-stormer");
const GEOMETRY: Geometry = Geometry {
    lanes: 6,
    shared_lanes: 2,
    slots: 64,
    owners: 128,
    families: 4,
    series: 2048,
    arena_words: 1 << 15,
    cells: 256,
};
const WORKERS_MAX: usize = 6;
/// Set in the storm that another one has started in a place of its own.
const INSIDE: &str = "QBUS_STORM_INSIDE";
/// How large its /dev/shm is: less than the histories of a minute take.
const SHM: &str = "64m";

/// What the storm has done.
#[derive(Debug, Default)]
struct Done {
    started: u64,
    killed: u64,
    stopped: u64,
    aggregators_killed: u64,
    made_anew: u64,
}

/// A bus that was removed, as those have it who are late to notice.
struct Removed {
    bus: Bus,
    reader: Reader,
    /// Unless it ended before.
    aggregator: Option<Process>,
}

struct Storm<'a> {
    test: &'a TestBus,
    folder: &'a Path,
    random: Random,
    /// By name.
    workers: Vec<(String, Process)>,
    ended: Vec<Process>,
    killed: HashSet<String>,
    aggregator: Option<Process>,
    /// What was removed, and when the bus is next; `None` in a storm that leaves it alone.
    removed: Option<(Vec<Removed>, Instant)>,
    done: Done,
}

impl Storm<'_> {
    fn step(&mut self) {
        let among = self.workers.len() as u64;
        match self.random.below(16) {
            0..5 if self.workers.len() < WORKERS_MAX => self.start(),
            5..7 if among > 0 => {
                let (name, worker) = &self.workers[self.random.below(among) as usize];
                self.killed.insert(name.clone());
                worker.signal(Signal::KILL);
                self.done.killed += 1;
            }
            7..9 if among > 0 => {
                let at = self.random.below(among) as usize;
                self.workers[at].1.signal(Signal::STOP);
                self.done.stopped += 1;
            }
            9..13 if among > 0 => {
                let at = self.random.below(among) as usize;
                self.workers[at].1.signal(Signal::CONT);
            }
            13 => {
                if let Some(aggregator) = self.aggregator.take() {
                    aggregator.kill();
                    self.done.aggregators_killed += 1;
                }
                self.aggregator = Some(Process::ready(AGGREGATOR, self.test.address(), &[]));
            }
            _ => {}
        }
        if self
            .removed
            .as_ref()
            .is_some_and(|(_, next)| Instant::now() >= *next)
        {
            self.make_anew();
        }
        // Dead ones make room; their children go on for themselves.
        for at in (0..self.workers.len()).rev() {
            if self.workers[at].1.status().is_some() {
                self.ended.push(self.workers.swap_remove(at).1);
            }
        }
        thread::sleep(Duration::from_micros(self.random.below(20_000)));
    }

    /// Removes the bus under all who have it, or has its file unlinked, and makes another one. Some
    /// have no aggregator any more: what is emitted to them from then on is read by nobody.
    fn make_anew(&mut self) {
        let (bus, reader) = (self.test.open(), self.test.reader());
        assert_eq!(reader.instance(), bus.instance());
        let mut aggregator = self.aggregator.take();
        if self.random.below(3) == 0
            && let Some(last) = aggregator.take()
        {
            last.end_well();
            thread::sleep(Duration::from_micros(self.random.below(20_000)));
        }
        if self.random.below(2) == 0 {
            Bus::remove(self.test.address(), Removal::Forced).expect("it is there");
        } else {
            std::fs::remove_file(self.test.address().file()).expect("it is there");
        }
        self.test.make(GEOMETRY);
        self.aggregator = Some(Process::ready(AGGREGATOR, self.test.address(), &[]));
        let pause = Duration::from_millis(100 + self.random.below(400));
        if let Some((removed, at)) = &mut self.removed {
            *at = Instant::now() + pause;
            removed.push(Removed {
                bus,
                reader,
                aggregator,
            });
        }
        self.done.made_anew += 1;
    }

    fn start(&mut self) {
        self.done.started += 1;
        let name = format!("w{}", self.done.started);
        let folder = self.folder.display().to_string();
        let args = [folder, name.clone(), self.random.word().to_string()];
        let worker = Process::start(STORMER, self.test.address(), &args);
        self.workers.push((name, worker));
    }
}

/// Dumps until it is told to end; how many dumps there were.
fn dump(path: &Path, is_made_anew: bool, stop: &AtomicBool) -> u64 {
    let (mut dumps, mut epoch, mut counted) = (0, 0, HashMap::<String, f64>::new());
    let mut instance = [0, 0];
    while !stop.load(Ordering::Relaxed) {
        let mut reader = match Reader::open(path) {
            Err(ReadError::Open(OpenError::Absent { .. } | OpenError::Unfinished { .. }))
                if is_made_anew =>
            {
                continue;
            }
            opened => opened.expect("the snapshot opens"),
        };
        if reader.instance() != instance {
            assert!(is_made_anew || dumps == 0, "another bus");
            (instance, epoch) = (reader.instance(), 0);
            counted.clear();
        }
        // Often with a mapping of before a growth.
        for _ in 0..20 {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let snapshot = match reader.read(&ReadOptions::default()) {
                Err(ReadError::Empty) => continue,
                read => read.expect("a dump"),
            };
            assert!(snapshot.epoch >= epoch, "{} after {epoch}", snapshot.epoch);
            epoch = snapshot.epoch;
            for series in &snapshot.series {
                let (journal, sum) = (journal(series), sum(series));
                let before = counted.insert(journal.clone(), sum).unwrap_or(0.0);
                assert!(
                    sum >= before,
                    "{journal} counted back from {before} to {sum}"
                );
            }
            let mut page = Vec::new();
            export::export(
                &snapshot,
                Format::Json,
                &export::Options::default(),
                &mut page,
            )
            .expect("memory takes it");
            serde_json::from_slice::<serde_json::Value>(&page).expect("a JSON document");
            dumps += 1;
        }
    }
    dumps
}

/// Has everything drained and repaired, by a successor.
fn settle(bus: &Bus) {
    let mut aggregator =
        Aggregator::open(bus, &AggregatorOptions::default()).expect("the only one");
    aggregator.finish();
    // What the reaper found in the first pass.
    aggregator.finish();
}

/// Stops the dumps when the storm ends, also by a panic: the scope waits for them.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// In a container's /dev/shm: histories find no room there, totals do. Here descriptors are closed,
/// too.
#[test]
fn a_storm_in_a_small_shm_leaves_every_count_exact() {
    if std::env::var_os(INSIDE).is_some() {
        return;
    }
    let root = rustix::process::geteuid().is_root();
    let user: &[&str] = if root {
        &[]
    } else {
        &["--user", "--map-root-user"]
    };
    let unshare = |then: &str| {
        let mut command = Command::new("unshare");
        let mount = format!("mount -t tmpfs -o size={SHM} x /dev/shm; {then}");
        command
            .args(user)
            .args(["--mount", "sh", "-ec", &mount, "sh"]);
        command
    };
    let tried = unshare("true").output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        let _ = writeln!(std::io::stderr(), "SKIPPED: no /dev/shm of one's own here");
        return;
    }
    let mut storm = unshare("exec \"$@\"");
    storm.arg(std::env::current_exe().expect("this test"));
    storm.args(["--exact", "a_storm_leaves_every_count_exact", "--nocapture"]);
    let done = storm.env(INSIDE, "1").output().expect("it starts");
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    write!(std::io::stdout(), "in a /dev/shm of {SHM}: {out}").expect("an output");
    assert!(
        done.status.success() && out.contains("1 passed"),
        "{}: {out}{err}",
        done.status
    );
}

#[test]
fn a_storm_leaves_every_count_exact() {
    storm(false);
}

#[test]
fn a_storm_over_buses_made_anew_leaves_every_count_exact() {
    storm(true);
}

/// With `is_made_anew`, the bus is removed and made anew under those who have it.
fn storm(is_made_anew: bool) {
    let number = |variable: &str| -> Option<u64> {
        let set = std::env::var(variable).ok();
        set.map(|text| text.parse().expect("a number"))
    };
    let seed = number("QBUS_SEED").unwrap_or_else(|| Clock::Precise.now_ns() & 0xffff_ffff);
    let lasts = Duration::from_secs(number("QBUS_STORM_SECONDS").unwrap_or(8));
    let mut out = std::io::stdout();
    writeln!(out, "storm: QBUS_SEED={seed}").expect("an output");

    let (test, folder) = (
        TestBus::create(Place::Named, GEOMETRY),
        TempDir::new().expect("a temporary folder"),
    );
    for name in ["journals", "lives", "failures"] {
        std::fs::create_dir(folder.path().join(name)).expect("room");
    }
    if std::env::var_os(INSIDE).is_some() {
        std::fs::create_dir(folder.path().join("closes")).expect("room");
    }
    let go = folder.path().join("go");
    std::fs::write(&go, "").expect("room");
    let mut storm = Storm {
        test: &test,
        folder: folder.path(),
        random: Random::new(seed),
        workers: Vec::new(),
        ended: Vec::new(),
        killed: HashSet::new(),
        aggregator: Some(Process::ready(AGGREGATOR, test.address(), &[])),
        removed: is_made_anew.then(|| (Vec::new(), Instant::now())),
        done: Done::default(),
    };
    let (stop, start) = (AtomicBool::new(false), Instant::now());
    let dumps = thread::scope(|scope| {
        let dumps = scope.spawn(|| dump(&test.address().snapshot(), is_made_anew, &stop));
        let stop = StopOnDrop(&stop);
        while start.elapsed() < lasts && !dumps.is_finished() {
            storm.step();
        }
        drop(stop);
        dumps.join().expect("every dump is good")
    });
    std::fs::remove_file(&go).expect("it was there");
    for (_, worker) in &storm.workers {
        worker.signal(Signal::CONT);
    }
    let workers = storm.workers.iter().map(|(_, worker)| worker);
    workers.chain(&storm.ended).for_each(Process::await_silence);
    // Also of those who were killed before they ended by it.
    let failures = std::fs::read_dir(folder.path().join("failures")).expect("a folder");
    let read = |failure: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(failure.expect("an entry").path()).expect("a text")
    };
    let failures: Vec<String> = failures.map(read).collect();
    assert!(failures.is_empty(), "workers failed: {failures:?}");
    let mut lost = Life::lost(&folder.path().join("lives"));
    lost.retain(|name| !storm.killed.contains(name));
    assert!(
        lost.is_empty(),
        "ended, though nobody told them to: {lost:?}"
    );
    if let Some(aggregator) = storm.aggregator.take() {
        aggregator.end_well();
    }
    let mut accounts = Accounts::default();
    for mut removed in storm
        .removed
        .take()
        .map_or(Vec::new(), |(removed, _)| removed)
    {
        // Ended already, unless nothing told it yet.
        if let Some(aggregator) = removed.aggregator.take() {
            aggregator.end_well();
        }
        accounts.add(&removed.bus, &mut removed.reader, true);
    }
    let bus = test.open();
    settle(&bus);
    assert_eq!(bus.counts().violations, 0);
    let closes = std::fs::read_dir(folder.path().join("closes")).map_or(0, Iterator::count);
    accounts.add(&bus, &mut test.reader(), false);
    let attempted = accounts.check(&folder.path().join("journals"), closes as u64);
    let held = |lane: &qbus::LaneView| lane.holder.is_some();
    assert!(!bus.lanes().iter().any(held), "{:?}", bus.lanes());
    let done = &storm.done;
    let summary = format!(
        "{done:?}, {dumps} dumps, {attempted} records, {} unread",
        accounts.unread
    );
    writeln!(out, "storm: {summary}").expect("an output");
}
