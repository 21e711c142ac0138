//! What people send to, as it is packaged: Prometheus, VictoriaMetrics, and a receiver of OTLP.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use qbus::{Bus, BusOptions};
use qbus_tests::{Place, Process, TestBus, command, run, until};
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use crate::monitor::{Monitor, encoded, is_installed};
use crate::{pushing, python_with, stop, typed};

/// A bus of a host, and its aggregator.
struct Sent {
    bus: TestBus,
    opened: Bus,
    args: String,
    agg: Option<Process>,
    jobs: f64,
}

impl Sent {
    fn again(&mut self) {
        self.agg = Some(pushing(&self.bus, &self.args));
    }

    fn work(&mut self, jobs: u32) {
        let done = self
            .opened
            .counter("jobs_total")
            .help("Jobs done.")
            .register();
        let done = done.expect("room");
        let took = self
            .opened
            .histogram("job_seconds")
            .unit("seconds")
            .register();
        let took = took.expect("room");
        let first = self
            .opened
            .summary("first_token_seconds")
            .register()
            .expect("room");
        for n in 0..jobs {
            done.inc();
            took.observe_traced(0.03, 0xabc0 + u128::from(n));
            first.observe(0.02 + f64::from(n % 21) / 1000.0);
        }
        self.jobs += f64::from(jobs);
    }
}

/// The example of the guide: three hosts, one server. (A second server hears all of it too.)
#[test]
fn three_buses_send_to_one_prometheus() {
    if !is_installed("prometheus") || !is_installed("victoria-metrics") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut prometheus = Monitor::receiving(folder.path());
    let victoria = Monitor::victoria(folder.path(), "scrape_configs: []\n");
    let queue = folder.path().join("queue").display().to_string();
    let mut hosts: Vec<Sent> = ["gpu-1", "gpu-2", "gpu-3"]
        .into_iter()
        .map(|host| {
            let bus = TestBus::reserve(Place::Named);
            let opened = Bus::create(bus.address(), &BusOptions::default()).expect("a new bus");
            let to = |port, path| format!("http://127.0.0.1:{port}{path}");
            let (one, other) = (
                to(prometheus.port, "/api/v1/write,native"),
                to(victoria.port, "/api/v1/write"),
            );
            let args = format!(
                "--remote-write {one} --remote-write {other} --label instance={host} \
                 --label job=inference --push-queue {queue}"
            );
            let mut sent = Sent {
                bus,
                opened,
                args,
                agg: None,
                jobs: 0.0,
            };
            sent.again();
            sent
        })
        .collect();
    hosts.iter_mut().for_each(|host| host.work(500));
    await_totals(&hosts, &[&prometheus, &victoria]);
    prometheus.await_value(
        "histogram_quantile(0.5, sum(first_token_seconds{quantile=''}))",
        |median| (0.029..0.031).contains(&median),
    );
    prometheus.await_value("count(job_seconds_bucket{le='+Inf'})", |series| {
        series == 3.0
    });
    let now = qbus::Clock::Precise.now_ns() / 1_000_000_000;
    let query = encoded("job_seconds_bucket");
    let path = format!(
        "/api/v1/query_exemplars?start={}&end={}&query={query}",
        now - 60,
        now + 60
    );
    until("exemplars", || {
        let found = prometheus.api(&path);
        found.as_array().is_some_and(|series| series.len() == 3)
    });
    what_is_forgotten_ends_at_once(&hosts[0], &prometheus);

    // Whoever is killed, and whenever: nothing is missing, and nothing looks reset.
    prometheus.kill();
    hosts.iter_mut().for_each(|host| host.work(300));
    hosts[0].agg.take().expect("it runs").kill();
    hosts[1].agg.take().expect("it runs").kill();
    hosts[0].again();
    hosts.iter_mut().for_each(|host| host.work(200));
    prometheus.again();
    hosts[1].again();
    await_totals(&hosts, &[&prometheus, &victoria]);
    let refused = "sum(qbus_push_samples_total{outcome!='sent'})";
    assert_eq!(prometheus.value(refused), Some(0.0));
    let resets = "sum(resets(jobs_total[5m]))";
    assert_eq!(prometheus.value(resets), Some(0.0));
    for host in hosts {
        stop(host.agg.expect("it runs"));
    }
    let complaints = prometheus.complaints();
    let is_other = |line: &&String| !line.contains("SIGTERM");
    assert_eq!(
        complaints.iter().filter(is_other).count(),
        0,
        "{complaints:#?}"
    );
}

fn await_totals(hosts: &[Sent], monitors: &[&Monitor]) {
    for monitor in monitors {
        for (at, host) in hosts.iter().enumerate() {
            let of =
                |metric: &str| format!("{metric}{{job='inference',instance='gpu-{}'}}", at + 1);
            for metric in [
                "jobs_total",
                "job_seconds_count",
                "first_token_seconds_count",
            ] {
                monitor.await_value(&of(metric), |jobs| jobs == host.jobs);
            }
        }
    }
}

fn what_is_forgotten_ends_at_once(host: &Sent, prometheus: &Monitor) {
    let here = || prometheus.query("experiment_loss").len();
    let loss = host
        .opened
        .gauge("experiment_loss")
        .register()
        .expect("room");
    loss.set(0.5);
    until("a series", || here() == 1);
    let forget = format!("forget 'experiment_*' --yes -b {}", host.bus.address());
    assert_eq!(run(&mut typed(&forget), "").code, Some(0));
    // Without a marker it would be there for five minutes.
    until("a series that is gone", || here() == 0);
    loss.set(0.25);
    until("a series that is there again", || here() == 1);
}

#[test]
fn a_guarded_prometheus_takes_it_from_who_knows_the_password() {
    if !is_installed("prometheus") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("room");
        path.display().to_string()
    };
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    let ca = write("tls.crt", &certificate);
    write("tls.key", &key.serialize_pem());
    let hash = bcrypt::hash("secret", 4).expect("a hash");
    let web = format!(
        "tls_server_config: {{cert_file: tls.crt, key_file: tls.key}}\n\
         basic_auth_users: {{alice: {hash}}}\n"
    );
    let web = write("web.yml", &web);
    let config = write("prometheus.yml", "global: {}\n");
    let port = free_port();
    let data = folder.path().join("data");
    let mut prometheus = command(&format!(
        "prometheus --config.file={config} --storage.tsdb.path={} \
         --web.listen-address=127.0.0.1:{port} --web.config.file={web} \
         --web.enable-remote-write-receiver",
        data.display()
    ));
    prometheus.stderr(Stdio::null());
    let prometheus = Process::spawn(prometheus);
    until("Prometheus", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });

    let bus = TestBus::small(Place::Named);
    bus.open()
        .counter("jobs_total")
        .register()
        .expect("room")
        .inc();
    let right = write("right", "alice:secret\n");
    let wrong = write("wrong", "alice:guess");
    let once = |options: &str| {
        let (name, to) = (bus.address(), format!("localhost:{port}/api/v1/write"));
        let line =
            format!("agg --push-once --remote-write https://{to},timeout=2{options} -b {name}");
        run(&mut typed(&line), "")
    };
    until("Prometheus to take it", || {
        once(&format!(",ca={ca},basic={right}")).code == Some(0)
    });
    let refused = once(&format!(",ca={ca},basic={wrong}"));
    assert_eq!(refused.code, Some(2));
    assert!(refused.err.contains("401"), "{}", refused.err);
    prometheus.kill();
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

#[test]
fn a_receiver_of_otlp_reads_all_of_it() {
    let Some(python) = python_with("oteltap") else {
        return;
    };
    let port = free_port();
    let python = python.display();
    let mut receiver = command(&format!("{python} -u -m oteltap --port {port}"));
    receiver.stderr(Stdio::null());
    let receiver = Process::spawn(receiver);
    until("the receiver", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let bus = TestBus::small(Place::Named);
    let opened = bus.open();
    let jobs = opened
        .counter("jobs_total")
        .label("model", "llama")
        .register()
        .expect("room");
    let took = opened
        .histogram("job_seconds")
        .unit("seconds")
        .buckets([0.1, 1.0])
        .register();
    let took = took.expect("room");
    let first = opened
        .summary("first_token_seconds")
        .register()
        .expect("room");
    let depth = opened.gauge("depth").register().expect("room");
    for _ in 0..10 {
        jobs.inc();
        took.observe_traced(0.5, 0xabc);
        first.observe(0.25);
    }
    depth.set(3.0);
    // It reads no gzip; a receiver of this test's own reads that.
    let url = format!("http://127.0.0.1:{port},plain");
    let agg = pushing(&bus, &format!("--otlp {url} --no-self"));
    let mut found = std::collections::BTreeMap::new();
    until("all metrics", || {
        let line = receiver.line();
        // It says first that it listens, on the same line.
        if let Some(at) = line.find('{')
            && let Ok(metric) = serde_json::from_str::<Value>(&line[at..])
        {
            found.insert(metric["name"].as_str().expect("a name").to_owned(), metric);
        }
        ["jobs_total", "job_seconds", "first_token_seconds", "depth"]
            .iter()
            .all(|name| found.contains_key(*name))
            && found["jobs_total"]["sum"]["dataPoints"][0]["asDouble"] == 10.0
            && found["job_seconds"]["histogram"]["dataPoints"][0]["count"] == "10"
            && found["first_token_seconds"]["exponentialHistogram"]["dataPoints"][0]["count"]
                == "10"
    });
    let sum = &found["jobs_total"]["sum"];
    assert_eq!(
        (&sum["isMonotonic"], &sum["aggregationTemporality"]),
        (&true.into(), &2.into())
    );
    assert_eq!(
        sum["dataPoints"][0]["attributes"][0]["value"]["stringValue"],
        "llama"
    );
    let histogram = &found["job_seconds"]["histogram"]["dataPoints"][0];
    assert_eq!(found["job_seconds"]["unit"], "s");
    assert_eq!(histogram["bucketCounts"].to_string(), r#"["0","10","0"]"#);
    let exponential = &found["first_token_seconds"]["exponentialHistogram"]["dataPoints"][0];
    assert_eq!(
        (&exponential["scale"], &exponential["positive"]["offset"]),
        (&5.into(), &(-65).into())
    );
    assert_eq!(found["depth"]["gauge"]["dataPoints"][0]["asDouble"], 3.0);
    stop(agg);
    receiver.kill();
}
