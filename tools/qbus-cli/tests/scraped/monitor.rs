//! Prometheus and VictoriaMetrics as they are packaged: started on a free port, asked over HTTP.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use qbus_tests::{LIMIT, Process, command, until};
use serde_json::Value;

/// A monitoring system that scrapes, or is sent to.
pub(crate) struct Monitor {
    pub(crate) port: u16,
    log: PathBuf,
    /// As it is typed.
    line: String,
    /// A path that answers once it is ready.
    ready: &'static str,
    process: Option<Process>,
}

/// A port that nobody has at the moment, and that no outgoing connection is given meanwhile.
fn free_port() -> u16 {
    // Each once: what it is for takes a while to listen there.
    static NEXT: Mutex<u32> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    // Tests of several checkouts begin at different ones.
    let first = std::process::id() % 12_000;
    loop {
        let port = 20_000 + ((first + *next) % 12_000) as u16;
        *next += 1;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
        assert!(*next < 12_000, "no port is free");
    }
}

/// Whether a program is there; says so aloud when a test is skipped for want of it.
pub(crate) fn is_installed(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let is_there = found.is_ok();
    assert!(
        is_there || std::env::var_os("QBUS_REQUIRE_PROMETHEUS").is_none(),
        "no {program}, and QBUS_REQUIRE_PROMETHEUS is set"
    );
    if !is_there {
        // Not captured, as `eprintln!` would be.
        let _ = writeln!(std::io::stderr(), "SKIPPED, there is no {program}");
    }
    is_there
}

/// A Prometheus with its configuration and its data in that folder, as it is typed.
fn prometheus(folder: &Path, name: &str, port: u16) -> String {
    let (file, data) = (folder.join(format!("{name}.yml")), folder.join(name));
    format!(
        "prometheus --config.file={} --storage.tsdb.path={} --web.listen-address=127.0.0.1:{port}",
        file.display(),
        data.display()
    )
}

impl Monitor {
    /// Starts a Prometheus with a configuration, which the name tells from others.
    pub(crate) fn prometheus(folder: &Path, name: &str, config: &str, features: &str) -> Monitor {
        let file = folder.join(format!("{name}.yml"));
        fs::write(&file, config).expect("room");
        let port = free_port();
        let line = format!(
            "{} --enable-feature={features}",
            prometheus(folder, name, port)
        );
        Monitor::start(folder, name, port, line, "/-/ready")
    }

    /// Starts a VictoriaMetrics with a configuration of Prometheus.
    pub(crate) fn victoria(folder: &Path, config: &str) -> Monitor {
        let file = folder.join("victoria.yml");
        fs::write(&file, config).expect("room");
        let port = free_port();
        // Without an offset, which would hide the last half minute. And what was taken while its
        // sender was killed comes again: the same sample is one.
        let line = format!(
            "victoria-metrics -promscrape.config={} -storageDataPath={} \
             -httpListenAddr=127.0.0.1:{port} -search.latencyOffset=0s \
             -memory.allowedBytes=64MB -dedup.minScrapeInterval=1ms",
            file.display(),
            folder.join("victoria").display()
        );
        Monitor::start(folder, "victoria", port, line, "/health")
    }

    /// Starts a Prometheus that scrapes nobody, and takes what it is sent.
    pub(crate) fn receiving(folder: &Path) -> Monitor {
        let file = folder.join("receiving.yml");
        fs::write(&file, "global: {}\n").expect("room");
        let port = free_port();
        let line = format!(
            "{} --web.enable-remote-write-receiver \
             --enable-feature=native-histograms,exemplar-storage",
            prometheus(folder, "receiving", port)
        );
        Monitor::start(folder, "receiving", port, line, "/-/ready")
    }

    fn start(folder: &Path, name: &str, port: u16, line: String, ready: &'static str) -> Monitor {
        let mut monitor = Monitor {
            port,
            log: folder.join(format!("{name}.log")),
            line,
            ready,
            process: None,
        };
        File::create(&monitor.log).expect("room");
        monitor.again();
        monitor
    }

    /// Starts it, with what it has on disk.
    pub(crate) fn again(&mut self) {
        let log = File::options().append(true).open(&self.log);
        let mut command = command(&self.line);
        command.stderr(log.expect("a log"));
        self.process = Some(Process::spawn(command));
        until(&format!("{} to be ready", self.line), || {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            assert!(!said.contains("\tfatal\t"), "{said}");
            self.get(self.ready)
                .is_some_and(|(status, _)| status == 200)
        });
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.take().expect("it runs").kill();
    }

    /// What it says of a path.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(LIMIT)).ok()?;
        // By the older version, so that the body comes in one piece.
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut said = String::new();
        stream.read_to_string(&mut said).ok()?;
        let (head, body) = said.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// The `data` of an answer of its API.
    pub(crate) fn api(&self, path: &str) -> Value {
        let (status, body) = self
            .get(path)
            .unwrap_or_else(|| panic!("no answer to {path}"));
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(
            (status, &answer["status"]),
            (200, &"success".into()),
            "{path}: {body}"
        );
        answer["data"].clone()
    }

    /// The labels and values that an expression has now.
    pub(crate) fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let data = self.api(&format!("/api/v1/query?query={}", encoded(expression)));
        if data["resultType"] == "scalar" {
            return vec![(Value::Null, number(&data["result"][1]))];
        }
        let found = data["result"].as_array().expect("a vector");
        let pair = |one: &Value| (one["metric"].clone(), number(&one["value"][1]));
        found.iter().map(pair).collect()
    }

    /// The only value of an expression; `None` where there is none, or are several.
    pub(crate) fn value(&self, expression: &str) -> Option<f64> {
        match self.query(expression)[..] {
            [(_, value)] => Some(value),
            _ => None,
        }
    }

    /// Waits until an expression has one value that is as it should be; the value.
    pub(crate) fn await_value(&self, expression: &str, is_it: impl Fn(f64) -> bool) -> f64 {
        let mut last = None;
        until(&format!("{expression}, which was {last:?} last"), || {
            last = self.value(expression);
            last.is_some_and(&is_it)
        });
        last.expect("it came")
    }

    /// Ends it as a supervisor does; what it had to complain of.
    pub(crate) fn complaints(self) -> Vec<String> {
        let process = self.process.expect("it runs");
        process.signal(rustix::process::Signal::TERM);
        process.end_well();
        let log = fs::read_to_string(&self.log).expect("a log");
        let is_complaint = |line: &&str| {
            ["level=warn", "level=error", "\twarn\t", "\terror\t"]
                .iter()
                .any(|level| line.contains(level))
        };
        log.lines()
            .filter(is_complaint)
            .map(str::to_owned)
            .collect()
    }
}

fn number(value: &Value) -> f64 {
    value
        .as_str()
        .expect("a number as text")
        .parse()
        .expect("a number")
}

/// Of a query, percent-encoded.
pub(crate) fn encoded(text: &str) -> String {
    let byte = |byte: u8| {
        if byte.is_ascii_alphanumeric() {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(byte).collect()
}
