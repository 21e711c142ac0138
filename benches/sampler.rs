//! What `qbus agg` with its sampler costs beside node_exporter that is scraped as often, and what a
//! large host costs.
//!
//! Beside node_exporter: whole processes, processor time per tick and peak resident memory, from
//! /proc. With the subjects of our default sources, then with all default collectors of
//! node_exporter. The sampler alone formats a page, as node_exporter does, which also sends it over
//! HTTP. `qbus agg` also drains a bus and commits a snapshot.
//!
//! A large host: the sampler alone in this process, over trees of files with 2,500 mounts, 1,000
//! network devices and 256 CPUs. The trees lie in a real file system, whose files cost less to read
//! than those of /proc and more to open.
#![allow(clippy::print_stdout)]

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use qbus::{Address, Bus, Removal};
use qbus_benches::{is_measured, print_machine, quantile};
use qbus_sampler::{Names, Sampler, SamplerOptions, Source};
use rustix::fs::{major, minor, stat};
use rustix::time::{ClockId, clock_gettime};

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
    if let Some(names) = std::env::args().skip_while(|arg| arg != "--alone").nth(1) {
        alone(&names);
    }
    let ticks = if is_measured() { 30 } else { 2 };
    print_machine("sampler: a tick a second, whole process");
    println!("{:<44} {:>12} {:>14}", "", "CPU ms/tick", "peak RSS KiB");
    let only = COLLECTORS.map(|name| format!("--collector.{name}"));
    let only = [
        vec!["--collector.disable-defaults".to_owned()],
        only.to_vec(),
    ]
    .concat();
    for (what, names, collectors) in [
        ("our default subjects", "qbus", only.as_slice()),
        ("its default subjects", "node", &[]),
    ] {
        println!("{what}");
        let _ = qbus(ticks, names);
        let ours = sampler_alone(ticks, names);
        let theirs = node_exporter(ticks, collectors);
        if let (Some((our_cpu, our_rss)), Some((their_cpu, their_rss))) = (ours, theirs) {
            println!(
                "  {:<42} {:>12.2} {:>14.2}",
                "ratio, sampler to theirs (at most 0.5)",
                our_cpu / their_cpu,
                our_rss / their_rss
            );
        }
    }
    large_host();
}

/// Formats what the sampler reads, each second, until it is ended.
fn alone(names: &str) -> ! {
    let names = match names {
        "node" => Names::Node,
        _ => Names::Qbus,
    };
    let mut sampler = Sampler::new(SamplerOptions {
        names,
        sources: Source::defaults(names),
        ..SamplerOptions::default()
    });
    let (attached, start, mut page) = ([].into(), Instant::now(), String::new());
    for tick in 1.. {
        page.clear();
        sampler.sample(Instant::now(), &attached, &mut |sample| {
            let _ = write!(page, "{}{{", sample.metric.name);
            for (name, value) in sample.labels {
                let _ = write!(page, "{name}={value:?},");
            }
            let _ = writeln!(page, "}} {}", sample.value);
        });
        std::hint::black_box(&page);
        let next = start + Duration::from_secs(1) * tick;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    unreachable!("a tick each second for ever")
}

fn sampler_alone(ticks: u32, names: &str) -> Option<(f64, f64)> {
    let own = std::env::current_exe().ok()?;
    let process = Process::spawn(Command::new(own).args(["--alone", names]))?;
    let (cpu, rss) = measure(&process, ticks, || true)?;
    println!(
        "  {:<42} {cpu:>12.2} {rss:>14.0}",
        "the sampler alone, with a page"
    );
    Some((cpu, rss))
}

/// A tick of each second over a tree of files of a large host.
fn large_host() {
    let (mounts, devices, cpus, ticks) = match is_measured() {
        true => (2500, 1000, 256, 60),
        false => (25, 10, 4, 3),
    };
    println!(
        "\na large host, the sampler alone (at most 50 ms a tick)\n{:<44} {:>8} {:>10} {:>10} \
        {:>12}",
        "", "samples", "p50 ms", "max ms", "CPU ms/tick"
    );
    let cases: [(&str, &[Source]); 4] = [
        ("CPUs", &[Source::Cpu, Source::Stat]),
        ("network devices", &[Source::Network, Source::Netclass]),
        ("mounts", &[Source::Filesystem]),
        (
            "all of it, node_exporter's defaults",
            &Source::defaults(Names::Node),
        ),
    ];
    let host = tempfile::tempdir().expect("a temporary folder");
    write_large_host(host.path(), mounts, devices, cpus);
    for (what, sources) in cases {
        let mut sampler = Sampler::new(large_host_options(host.path(), sources));
        let (attached, start) = ([].into(), Instant::now());
        let (mut took, mut samples) = (Vec::new(), 0);
        let cpu = cpu_ms();
        for tick in 0..ticks {
            let begun = Instant::now();
            let now = start + Duration::from_secs(tick);
            let outcomes = sampler.sample(now, &attached, &mut |_| ());
            samples = outcomes.iter().map(|outcome| outcome.samples).sum();
            took.push(begun.elapsed().as_secs_f64() * 1e3);
            // Those that have a thread of their own go on between two ticks.
            std::thread::sleep(Duration::from_millis(if is_measured() { 100 } else { 1 }));
        }
        println!(
            "  {what:<42} {samples:>8} {:>10.2} {:>10.2} {:>12.2}",
            quantile(&mut took, 0.5),
            quantile(&mut took, 1.0),
            (cpu_ms() - cpu) / ticks as f64
        );
    }
}

fn large_host_options(host: &Path, sources: &[Source]) -> SamplerOptions {
    let mut options = SamplerOptions {
        sources: sources.to_vec(),
        names: Names::Node,
        ..SamplerOptions::default()
    };
    options.roots.root = host.to_owned();
    options.roots.proc = host.join("proc");
    options.roots.sys = host.join("sys");
    options.roots.udev = host.join("udev");
    options
}

fn write_large_host(host: &Path, mounts: u32, devices: u32, cpus: u32) {
    let put = |path: &str, text: &str| {
        let path = host.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("room");
        fs::write(path, text).expect("room");
    };
    let own = stat(host).expect("it is there").st_dev;
    let device = format!("{}:{}", major(own), minor(own));
    let (mut table, mut stat, mut net) = (String::new(), String::new(), "a\nb\n".to_owned());
    for mount in 0..mounts {
        let point = format!("mnt/volume-{mount:04}");
        fs::create_dir_all(host.join(&point)).expect("room");
        let _ = writeln!(
            table,
            "{mount} 1 {device} / /{point} rw shared:1 - ext4 /dev/sd{mount} rw"
        );
    }
    stat += "cpu  1 2 3 4 5 6 7 8 9 10\n";
    for cpu in 0..cpus {
        let _ = writeln!(
            stat,
            "cpu{cpu} 224123 1332 131234 9123456 3234 0 1234 0 0 0"
        );
    }
    stat += "intr 1\nctxt 2\nbtime 1700000000\nprocesses 3\nprocs_running 1\nprocs_blocked 0\n";
    for device in 0..devices {
        let name = format!("veth{device:04}");
        let _ = writeln!(net, "{name}: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16");
        for file in [
            "ifindex",
            "iflink",
            "mtu",
            "flags",
            "carrier",
            "tx_queue_len",
            "type",
            "speed",
        ] {
            put(&format!("sys/class/net/{name}/{file}"), "1500\n");
        }
        put(&format!("sys/class/net/{name}/operstate"), "up\n");
    }
    put("proc/1/mountinfo", &table);
    put("proc/stat", &stat);
    put("proc/1/net/dev", &net);
    put(
        "proc/meminfo",
        "MemTotal: 8 kB\nMemFree: 1 kB\nMemAvailable: 2 kB\n",
    );
}

/// Processor time of this process.
fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
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

fn qbus(ticks: u32, names: &str) -> Option<(f64, f64)> {
    let Some(program) = program() else {
        println!(
            "skipped: target/release/qbus is not there; build it with `cargo build --release --bin \
            qbus`"
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
        let process = Process::spawn(Command::new(&program).arg("agg").args(&bus).args([
            "--interval",
            interval,
            "--names",
            names,
        ]))?;
        let cost = measure(&process, ticks, || true);
        drop(process);
        let _ = Bus::remove(&address, Removal::Forced);
        let (cpu, rss) = cost?;
        println!("  {name:<42} {cpu:>12.2} {rss:>14.0}");
        results.get_or_insert((cpu, rss));
    }
    results
}

fn node_exporter(ticks: u32, collectors: &[String]) -> Option<(f64, f64)> {
    // The kernel finds a free port; nobody else on loopback is likely to take it in between.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").ok()?;
    let at = listener.local_addr().ok()?;
    drop(listener);
    let mut command = Command::new("prometheus-node-exporter");
    command
        .arg(format!("--web.listen-address={at}"))
        .args(collectors);
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
        "  {:<42} {cpu:>12.2} {rss:>14.0}",
        "node_exporter, scraped each second"
    );
    Some((cpu, rss))
}

/// Processor milliseconds per tick, without the start, and peak memory.
fn measure(process: &Process, ticks: u32, tick: impl Fn() -> bool) -> Option<(f64, f64)> {
    // As a test it only has to run.
    let second = Duration::from_millis(if is_measured() { 1000 } else { 20 });
    std::thread::sleep(second * 3 / 2);
    let (before, _) = process.cost()?;
    let start = Instant::now();
    for n in 1..=ticks {
        assert!(tick(), "the process answers");
        std::thread::sleep((start + second * n).saturating_duration_since(Instant::now()));
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
