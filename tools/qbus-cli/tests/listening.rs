//! What StatsD clients send, as it is on the page.

use std::fs;
use std::io::Write;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use cadence::prelude::*;
use cadence::{StatsdClient, UdpMetricSink};
use qbus_tests::{Place, Process, Random, TestBus, run, until};
use rustix::process::Signal;

use crate::support::{qbus, typed};

/// An aggregator that listens.
struct Listening {
    bus: TestBus,
    agg: Process,
    port: u16,
    folder: tempfile::TempDir,
}

impl Listening {
    fn start(args: &str) -> Listening {
        let bus = TestBus::reserve(Place::Named);
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let unix = format!("unix:{}", folder.path().join("statsd").display());
        let name = bus.address();
        let mut command = typed(&format!(
            "agg --no-host --no-gpu --statsd 127.0.0.1:0 --statsd {unix} -b {name} {args}"
        ));
        command.stderr(fs::File::create(&log).expect("room"));
        let agg = Process::spawn(command);
        let mut port = 0;
        until("a listener", || {
            let said = fs::read_to_string(&log).expect("a log");
            let found = said.split_once("StatsD at 127.0.0.1:");
            let found = found.and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
            port = found.unwrap_or(0);
            said.contains("StatsD at unix:")
        });
        Listening {
            bus,
            agg,
            port,
            folder,
        }
    }

    fn send(&self, datagram: impl AsRef<[u8]>) {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let sent = socket.send_to(datagram.as_ref(), ("127.0.0.1", self.port));
        sent.expect("the kernel takes it");
    }

    fn page(&self) -> String {
        qbus(&self.bus, "dump").out
    }

    /// The value of a sample.
    fn value(&self, sample: &str) -> Option<f64> {
        let page = self.page();
        let line = page.lines().find(|line| {
            line.rsplit_once(' ')
                .is_some_and(|(name, _)| name == sample)
        });
        line?.rsplit_once(' ')?.1.parse().ok()
    }

    fn awaits(&self, sample: &str, expected: f64) {
        let mut last = None;
        until(&format!("{sample} {expected}, which is {last:?}"), || {
            last = self.value(sample);
            last == Some(expected)
        });
    }

    /// Of its UDP socket.
    fn own(&self, name: &str, label: &str) -> Option<f64> {
        self.value(&format!(
            "{name}{{listener=\"127.0.0.1:{}\"{label}}}",
            self.port
        ))
    }
}

#[test]
fn all_types_and_extensions_are_on_the_page() {
    let listening = Listening::start("");
    listening.send(
        "page.views:1|c\npage.views:2:3|c|@0.5|#region:east,bare\r\n\
         fuel:0.5|g\nfuel:-5|g\nlatency:320|ms|@0.1\nsize:7:9|h|#le:x\nsize_d:3|d\nusers:a|s\n\
         users:b|s\nusers:a|s\n\
         later:1|c|c:ci-1|T1656581400|e:it-x|card:low|new:section\n_e{1,1}:a|b\n_sc|a|0",
    );
    listening.awaits("page_views", 1.0);
    listening.awaits("page_views{bare=\"true\",region=\"east\"}", 10.0);
    // As DogStatsD has it: a value.
    listening.awaits("fuel", -5.0);
    listening.awaits("latency_count", 10.0);
    listening.awaits("latency_bucket{le=\"0.5\"}", 10.0);
    listening.awaits("latency_bucket{le=\"0.25\"}", 0.0);
    listening.awaits("size_sum{tag_le=\"x\"}", 16.0);
    listening.awaits("size_d_count", 1.0);
    listening.awaits("later", 1.0);
    // By the other door: it is the same metric.
    let socket = UnixDatagram::unbound().expect("a socket");
    let path = listening.folder.path().join("statsd");
    socket
        .send_to(b"page.views:41|c", &path)
        .expect("it listens");
    listening.awaits("page_views", 42.0);
    until("what is no metric to be counted", || {
        listening.own("qbus_statsd_skipped_lines_total", ",kind=\"event\"") == Some(1.0)
            && listening.own("qbus_statsd_skipped_lines_total", ",kind=\"service_check\"")
                == Some(1.0)
    });
    // Sets say what they have when it ends, at the latest.
    let Listening { bus, agg, .. } = listening;
    agg.signal(Signal::TERM);
    agg.end_well();
    let page = qbus(&bus, "dump").out;
    assert!(page.contains("\nusers 2\n"), "{page}");
    assert!(!path.exists());
}

#[test]
fn a_mapping_and_changes_of_gauges() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("mapping.yml");
    let mapping = "mappings:\n- match: 'api.*.requests'\n  name: api_requests_total\n  labels: \
                   {route: $1}\n\
                   - match: 'debug.*'\n  action: drop\n";
    fs::write(&file, mapping).expect("room");
    let file = file.display().to_string();
    let listening = Listening::start(&format!("--statsd-mapping {file} --statsd-gauge-deltas"));
    listening.send(
        "api.login.requests:3|c|#region:east\ndebug.x:1|c\nlevel:10|g\nlevel:+5|g\nlevel:-3|g",
    );
    listening.awaits("api_requests_total{region=\"east\",route=\"login\"}", 3.0);
    listening.awaits("level", 12.0);
    // It is the bus that knows where a gauge stands, and not the listener.
    let other = qbus(&listening.bus, "emit level 100 --type gauge");
    assert_eq!(other.code, Some(0), "{other:?}");
    listening.awaits("level", 100.0);
    listening.send("level:+1|g");
    listening.awaits("level", 101.0);
    assert!(!listening.page().contains("debug"));
    fs::write(folder.path().join("mapping.yml"), "mappings: [{mach: a}]").expect("room");
    let refused = qbus(
        &listening.bus,
        &format!("agg --statsd 127.0.0.1:0 --statsd-mapping {file}"),
    );
    assert_eq!(refused.code, Some(2), "{refused:?}");
}

#[test]
fn nothing_that_comes_stops_it() {
    let listening = Listening::start("");
    listening.send(b"\xff\xfe:1|c\n:1|c\na:x|c\na:1|k\na:1|c|@7\na:-1|c\nb:1|c\nb:1|g\na:NaN|c\n");
    let own = |cause: &str| {
        listening.own(
            "qbus_statsd_bad_lines_total",
            &format!(",cause=\"{cause}\""),
        )
    };
    for (cause, expected) in [
        ("encoding", 1.0),
        ("name", 1.0),
        ("value", 3.0),
        ("type", 1.0),
        ("rate", 1.0),
        ("refused", 1.0),
    ] {
        until(&format!("{cause} {expected}"), || {
            own(cause) == Some(expected)
        });
    }
    let mut random = Random::new(7);
    for _ in 0..2000 {
        let len = random.below(300) as usize;
        let alphabet = b"ab.:|@#,cgmshd01-+eT\n\0\xff_{}";
        let bytes: Vec<u8> = (0..len)
            .map(|_| alphabet[random.below(alphabet.len() as u64) as usize])
            .collect();
        listening.send(bytes);
    }
    listening.send(vec![b'a'; 60_000]);
    listening.send([b"long:1|c|#".as_slice(), &vec![b'x'; 50_000]].concat());
    listening.send("");
    listening.send("alive:1|c");
    listening.awaits("alive", 1.0);
}

#[test]
fn what_the_kernel_has_no_room_for_is_counted() {
    let listening = Listening::start("");
    listening.send("burst:1|c");
    listening.awaits("burst", 1.0);
    listening.agg.signal(Signal::STOP);
    until("a stop", || listening.agg.is_stopped());
    let large = format!("burst:1|c\n{}", "x".repeat(60_000));
    let sent = 1000;
    (0..sent).for_each(|_| listening.send(&large));
    listening.agg.signal(Signal::CONT);
    until("all to be accounted for", || {
        let of = |name| listening.own(name, "").unwrap_or(0.0);
        let dropped = of("qbus_statsd_kernel_drops_total");
        dropped > 0.0 && of("qbus_statsd_datagrams_total") + dropped == f64::from(sent) + 1.0
    });
    let taken = listening.own("qbus_statsd_datagrams_total", "");
    assert_eq!(
        listening.value("burst"),
        taken,
        "each that the kernel delivered"
    );
}

#[test]
fn real_clients_are_understood() {
    let listening = Listening::start("");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let sink = UdpMetricSink::from(("127.0.0.1", listening.port), socket).expect("a sink");
    let client = StatsdClient::from_sink("cadence", sink);
    client
        .count_with_tags("jobs", 7)
        .with_tag("model", "llama")
        .send();
    client.gauge("level", 3.5).expect("it is sent");
    client.time("took", 20).expect("it is sent");
    client.distribution("size", 5).expect("it is sent");
    listening.awaits("cadence_jobs{model=\"llama\"}", 7.0);
    listening.awaits("cadence_level", 3.5);
    listening.awaits("cadence_took_bucket{le=\"0.025\"}", 1.0);
    listening.awaits("cadence_size_count", 1.0);
    hot_shots(&listening);
    let has_clients = |python: &std::ffi::OsString| {
        let mut import = Command::new(python);
        run(import.args(["-c", "import datadog, statsd"]), "").code == Some(0)
    };
    let Some(python) = std::env::var_os("QBUS_PYTHON").filter(has_clients) else {
        // Not captured, as `eprintln!` would be.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED, QBUS_PYTHON names no Python with datadog and statsd"
        );
        return;
    };
    let program = "import sys\nport = int(sys.argv[1])\npath = sys.argv[2]\n\
        from datadog.dogstatsd.base import DogStatsd\n\
        d = DogStatsd(host='127.0.0.1', port=port, disable_telemetry=True)\n\
        d.increment('dog.jobs', 5, tags=['model:llama', 'bare'])\n\
        d.gauge('dog.level', -5)\nd.histogram('dog.size', 4)\nd.set('dog.users', 'a')\n\
        d.timing('dog.took', 20)\n\
        d.event('title', 'text')\nd.flush()\n\
        u = DogStatsd(socket_path='unixgram://' + path, disable_telemetry=True)\n\
        u.increment('dog.unix', 3)\nu.flush()\n\
        import statsd\n\
        c = statsd.StatsClient('127.0.0.1', port, prefix='plain')\n\
        c.incr('jobs', 2)\nc.gauge('level', -7)\nc.timing('took', 20)\n\
        with c.pipeline() as p:\n    p.incr('packed')\n    p.incr('packed')\n";
    let mut command = Command::new(python);
    command
        .args(["-c", program, &listening.port.to_string()])
        .arg(listening.folder.path().join("statsd"))
        .stdin(Stdio::null());
    let finished = run(&mut command, "");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    listening.awaits("dog_jobs{bare=\"true\",model=\"llama\"}", 5.0);
    listening.awaits("dog_level", -5.0);
    listening.awaits("dog_unix", 3.0);
    listening.awaits("dog_size_count", 1.0);
    listening.awaits("dog_took_bucket{le=\"0.025\"}", 1.0);
    listening.awaits("plain_jobs", 2.0);
    // It sends 0 and then the value, so that neither reading of the sign misleads.
    listening.awaits("plain_level", -7.0);
    listening.awaits("plain_took_count", 1.0);
    listening.awaits("plain_packed", 2.0);
}

/// The client of Node.js, if the environment says where its packages are.
fn hot_shots(listening: &Listening) {
    let Some(modules) = std::env::var_os("QBUS_NODE_MODULES") else {
        // Not captured, as `eprintln!` would be.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED, QBUS_NODE_MODULES names no folder with hot-shots"
        );
        return;
    };
    let program = "const StatsD = require('hot-shots');\n\
        const port = Number(process.argv[1]);\n\
        const host = '127.0.0.1';\n\
        const tagged = new StatsD({host, port, prefix: 'hot.', globalTags: {model: 'llama'}});\n\
        tagged.increment('jobs', 5, ['bare']);\n\
        const c = new StatsD({host, port, prefix: 'hot.', maxBufferSize: 1400, \
        bufferFlushInterval: 10});\n\
        for (let at = 0; at < 100; at++) c.increment('packed');\n\
        c.gauge('level', -5);\n\
        c.timing('took', 20);\n\
        c.histogram('size', 4);\n\
        c.distribution('spread', 4, {zone: 'b'});\n\
        c.set('users', 'a');\n\
        c.event('title', 'text');\n\
        c.check('service', c.CHECKS.OK);\n\
        tagged.close(() => c.close(() => {}));\n";
    let mut command = Command::new("node");
    command
        .args(["-e", program, "--", &listening.port.to_string()])
        .env("NODE_PATH", modules)
        .stdin(Stdio::null());
    let finished = run(&mut command, "");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    listening.awaits("hot_jobs{bare=\"true\",model=\"llama\"}", 5.0);
    listening.awaits("hot_packed", 100.0);
    listening.awaits("hot_level", -5.0);
    listening.awaits("hot_took_bucket{le=\"0.025\"}", 1.0);
    listening.awaits("hot_size_count", 1.0);
    listening.awaits("hot_spread_count{zone=\"b\"}", 1.0);
}
