//! What `qbus agg` with its sampler costs beside node_exporter that is scraped as often.
//!
//! Whole processes: processor time per tick and peak resident memory, from /proc, with collectors of
//! the same subjects. Ours also drains a bus, commits a snapshot, and samples itself, the attached
//! processes and the control groups; theirs also formats a page and sends it over HTTP.
#![allow(clippy::print_stdout)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use qbus::{Address, Bus, Removal};
use qbus_benches::{is_measured, print_machine};

/// What node_exporter is to collect: the subjects of our default sources.
const COLLECTORS: [&str; 16] = [
    "cpu",
    "cpufreq",
    "diskstats",
    "filefd",
    "filesystem",
    "hwmon",
    "loadavg",
    "meminfo",
    "netdev",
    "netstat",
    "os",
    "pressure",
    "stat",
    "thermal_zone",
    "uname",
    "vmstat",
];

fn main() {
    let ticks = if is_measured() { 30 } else { 2 };
    print_machine("sampler: a tick a second, whole process");
    println!("{:<34} {:>12} {:>14}", "", "CPU ms/tick", "peak RSS KiB");
    let ours = qbus(ticks);
    let theirs = node_exporter(ticks);
    if let (Some((our_cpu, our_rss)), Some((their_cpu, their_rss))) = (ours, theirs) {
        println!(
            "{:<34} {:>12.2} {:>14.2}",
            "ratio, ours to theirs",
            our_cpu / their_cpu,
            our_rss / their_rss
        );
    }
}

/// Ended when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn spawn(command: &mut Command) -> Option<Process> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()
            .map(Process)
    }

    /// Processor time in milliseconds (user and system, in ticks of 10 ms) and peak memory in KiB.
    fn cost(&self) -> Option<(f64, f64)> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).ok()?;
        let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
        let ticks: f64 =
            fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).ok()?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let peak = peak.split_whitespace().next()?.parse().ok()?;
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        Some((ticks * 1000.0 / per_second, peak))
    }
}

fn qbus(ticks: u32) -> Option<(f64, f64)> {
    let Some(program) = program() else {
        println!(
            "skipped: target/release/qbus is not there; build it with `cargo build --release --bin qbus`"
        );
        return None;
    };
    let address: Address = format!("bench-sampler-{}", std::process::id())
        .parse()
        .expect("a name");
    let bus = ["--bus", &address.to_string()].map(str::to_owned);
    let mut results = None;
    for (name, interval) in [
        ("qbus agg, sampling each second", "1s"),
        ("of which the aggregator alone", "1h"),
    ] {
        let process = Process::spawn(
            Command::new(&program)
                .arg("agg")
                .args(&bus)
                .args(["--interval", interval]),
        )?;
        let cost = measure(&process, ticks, || true);
        drop(process);
        let _ = Bus::remove(&address, Removal::Forced);
        let (cpu, rss) = cost?;
        println!("{name:<34} {cpu:>12.2} {rss:>14.0}");
        results.get_or_insert((cpu, rss));
    }
    results
}

fn node_exporter(ticks: u32) -> Option<(f64, f64)> {
    // The kernel finds a free port; nobody else on loopback is likely to take it in between.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").ok()?;
    let at = listener.local_addr().ok()?;
    drop(listener);
    let mut command = Command::new("prometheus-node-exporter");
    command
        .arg("--collector.disable-defaults")
        .arg(format!("--web.listen-address={at}"));
    command.args(COLLECTORS.map(|name| format!("--collector.{name}")));
    let Some(process) = Process::spawn(&mut command) else {
        println!("skipped: prometheus-node-exporter is not installed");
        return None;
    };
    let scrape = || {
        let Ok(mut stream) = TcpStream::connect(at) else {
            return false;
        };
        let mut page = Vec::new();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").is_ok()
            && stream.read_to_end(&mut page).is_ok()
    };
    let start = Instant::now();
    while !scrape() {
        if start.elapsed() > Duration::from_secs(10) {
            println!("skipped: prometheus-node-exporter does not answer");
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let (cpu, rss) = measure(&process, ticks, scrape)?;
    println!(
        "{:<34} {cpu:>12.2} {rss:>14.0}",
        "node_exporter, scraped each second"
    );
    Some((cpu, rss))
}

/// Processor milliseconds per tick, without the start, and peak memory.
fn measure(process: &Process, ticks: u32, tick: impl Fn() -> bool) -> Option<(f64, f64)> {
    std::thread::sleep(Duration::from_millis(1500));
    let (before, _) = process.cost()?;
    let start = Instant::now();
    for n in 1..=ticks {
        assert!(tick(), "the process answers");
        std::thread::sleep(
            (start + Duration::from_secs(1) * n).saturating_duration_since(Instant::now()),
        );
    }
    let (after, peak) = process.cost()?;
    Some(((after - before) / f64::from(ticks), peak))
}

/// The release build of the command, which lies beside this benchmark's own folder.
fn program() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let program = own.parent()?.parent()?.join("qbus");
    program.exists().then_some(program)
}
