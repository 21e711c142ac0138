//! Scrapes over HTTP: whole servers beside each other, a connection each time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::PrometheusBuilder;
use qbus::{Kind, Producer, Record};
use qbus_aggregate::{Aggregator, AggregatorOptions};

use crate::programs::{Programs, run_ns, status_mib};
use crate::report::{Section, short};
use crate::rounds::spread;
use crate::series::{COUNTS, ManySeries};

pub const QBUS: &str = "qbus serve";
pub const QBUS_GZIP: &str = "qbus serve, gzip";
pub const METRICS: &str = "metrics-exporter-prometheus";
/// Scrapers at once.
const SCRAPERS: usize = 16;

/// A server, and what makes its page another one.
pub struct Server<'a> {
    name: &'static str,
    /// The same, asked for a packed page; where it has one.
    packed: Option<&'static str>,
    pub address: SocketAddr,
    process: Option<Ended>,
    renew: Box<dyn FnMut() + 'a>,
    /// A scrape takes seconds.
    is_slow: bool,
}

impl Server<'_> {
    /// `qbus serve` on a bus of its own.
    pub fn of_qbus<'a>(many: &'a ManySeries, program: &Path) -> Server<'a> {
        qbus(many, program)
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.0.id())
    }

    /// Makes its page another one.
    pub fn renew(&mut self) {
        (self.renew)();
    }
}

/// A process that ends with its guard.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn section(quick: bool, programs: &Programs) -> Section {
    let columns = &["1k", "10k", "100k", "p99 1", "p99 16"];
    let mut section = Section::new("scrape", "a scrape over HTTP, ms", columns);
    let mut rows: Vec<(&'static str, [f64; 5])> = Vec::new();
    for (at, count) in COUNTS.into_iter().enumerate() {
        let many = ManySeries::create("scrape", count);
        let mut servers = servers(&many, programs, count);
        for server in &mut servers {
            let before = memory(server);
            for packed in [None, server.packed]
                .into_iter()
                .take(1 + usize::from(server.packed.is_some()))
            {
                let name = packed.unwrap_or(server.name);
                let row = rows.iter().position(|(known, _)| *known == name);
                let row = row.unwrap_or_else(|| {
                    rows.push((name, [f64::NAN; 5]));
                    rows.len() - 1
                });
                let rounds = if quick || server.is_slow { 3 } else { 25 };
                rows[row].1[at] = alone(server, packed.is_some(), rounds, 0.5);
                // The size of most pages.
                if count == COUNTS[1] && !server.is_slow {
                    rows[row].1[3] = alone(server, packed.is_some(), 4 * rounds, 0.99);
                    rows[row].1[4] = together(server, packed.is_some(), rounds.min(20));
                }
            }
            if count == COUNTS[2] && server.name == QBUS {
                let page = scrape(server.address, false).1 as f64 / 1048576.0;
                let grown = memory(server) - before;
                section.notes.push(format!(
                    "the server has {} MiB more of its own with scrapes of 100k series, {} times a \
                    page of {}",
                    short(grown),
                    short(grown / page),
                    short(page)
                ));
            }
        }
        if count == COUNTS[1] {
            if let Some(server) = servers.iter().find(|server| server.name == QBUS) {
                section.notes.extend(idle(server, quick));
            }
            section.notes.extend(emitter(&many, &mut servers, quick));
        }
    }
    for (name, figures) in rows {
        section.row(name, figures);
    }
    if let Some(node) = node_exporter() {
        let mut node = node;
        let page = scrape(node.address, false).1;
        section.row(
            "node_exporter, its own page",
            [alone(&mut node, false, 10, 0.5)],
        );
        section
            .notes
            .push(format!("node_exporter's page has {} KiB", page / 1024));
    }
    section.notes.push(
        "half counters, half gauges, two labels each, another value each time; p99 at 10k, of one \
         scraper and of 16 at once"
            .to_owned(),
    );
    section
}

/// Asks for the page on a connection of its own: how long it took, and how many bytes came.
fn scrape(address: SocketAddr, gzip: bool) -> (Duration, usize) {
    let encoding = if gzip { "gzip" } else { "identity" };
    scrape_as(address, "text/plain;version=0.0.4", encoding)
}

/// The same, in a format and an encoding.
pub fn scrape_as(address: SocketAddr, accept: &str, encoding: &str) -> (Duration, usize) {
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\
         Accept-Encoding: {encoding}\r\nConnection: close\r\n\r\n"
    );
    let start = Instant::now();
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(request.as_bytes()).expect("it is sent");
    let mut page = Vec::with_capacity(1 << 20);
    stream.read_to_end(&mut page).expect("it answers");
    let took = start.elapsed();
    assert!(page.starts_with(b"HTTP/1.1 200") || page.starts_with(b"HTTP/1.0 200"));
    (took, page.len())
}

/// Milliseconds of a scrape by one scraper: the quantile of so many.
fn alone(server: &mut Server<'_>, gzip: bool, rounds: usize, quantile: f64) -> f64 {
    let took = (0..rounds).map(|_| {
        (server.renew)();
        scrape(server.address, gzip).0
    });
    nth(took.collect(), quantile)
}

/// The 99th percentile of scrapes that begin together.
fn together(server: &mut Server<'_>, gzip: bool, rounds: usize) -> f64 {
    let (barrier, address) = (&Barrier::new(SCRAPERS), server.address);
    let mut all = Vec::new();
    for _ in 0..rounds {
        (server.renew)();
        thread::scope(|scope| {
            let one = || {
                barrier.wait();
                scrape(address, gzip).0
            };
            let scrapers: Vec<_> = (0..SCRAPERS).map(|_| scope.spawn(one)).collect();
            all.extend(
                scrapers
                    .into_iter()
                    .map(|one| one.join().expect("no panic")),
            );
        });
    }
    nth(all, 0.99)
}

fn nth(mut took: Vec<Duration>, quantile: f64) -> f64 {
    took.sort_unstable();
    let at = ((took.len() - 1) as f64 * quantile).round() as usize;
    took[at].as_secs_f64() * 1e3
}

fn memory(server: &Server<'_>) -> f64 {
    server
        .pid()
        .and_then(|pid| status_mib(pid, "RssAnon"))
        .unwrap_or(f64::NAN)
}

/// What a server that nobody asks costs.
fn idle(server: &Server<'_>, quick: bool) -> Option<String> {
    let pid = server.pid()?;
    let time = Duration::from_secs(if quick { 1 } else { 5 });
    let before = run_ns(pid)?;
    thread::sleep(time);
    let share = (run_ns(pid)? - before) / time.as_nanos() as f64;
    Some(format!(
        "a server that nobody asks: {} % of a core",
        short(share * 100.0)
    ))
}

/// What an emitter does while the page is asked for ten times a second.
fn emitter(many: &ManySeries, servers: &mut [Server<'_>], quick: bool) -> Option<String> {
    let server = servers.iter_mut().find(|server| server.name == QBUS)?;
    let counter = many.bus.counter("bench_scraped_total").register().ok()?;
    // By the time that its thread ran: whoever else is on this machine is not the server's doing.
    let cost = || {
        let (begun, mut calls) = (Instant::now(), 0_u64);
        let cpu = thread_ns();
        while begun.elapsed() < Duration::from_millis(if quick { 200 } else { 1000 }) {
            for _ in 0..100_000 {
                counter.inc();
            }
            calls += 100_000;
        }
        (thread_ns() - cpu) / calls as f64
    };
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..if quick { 2 } else { 7 } {
        without.push(cost());
        let (stop, stopped) = mpsc::channel::<()>();
        let address = server.address;
        let scraper = thread::spawn(move || {
            while stopped
                .recv_timeout(Duration::from_millis(100))
                .is_err_and(|error| error == mpsc::RecvTimeoutError::Timeout)
            {
                scrape(address, false);
            }
        });
        with.push(cost());
        drop(stop);
        scraper.join().expect("no panic");
    }
    let [without, ..] = spread(&mut without);
    let [with, ..] = spread(&mut with);
    Some(format!(
        "Counter::inc, ns of its thread: {} alone, {} while 10k series are scraped ten times a \
        second",
        short(without),
        short(with)
    ))
}

/// Nanoseconds that this thread has run.
fn thread_ns() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

fn servers<'a>(many: &'a ManySeries, programs: &Programs, count: usize) -> Vec<Server<'a>> {
    let mut servers = Vec::new();
    if let Some(program) = &programs.qbus {
        servers.push(qbus(many, program));
    }
    servers.push(metrics_exporter(count));
    if let Some(python) = &programs.python {
        servers.push(multiprocess(python, count));
    }
    servers
}

fn qbus<'a>(many: &'a ManySeries, program: &Path) -> Server<'a> {
    let options = AggregatorOptions {
        history: 1,
        ..AggregatorOptions::default()
    };
    let mut aggregator = Aggregator::open(&many.bus, &options).expect("the only aggregator");
    let producer = many.bus.producer().expect("a lane");
    for (at, &(series, is_counter)) in many.series.iter().enumerate() {
        let kind = if is_counter {
            Kind::Increment
        } else {
            Kind::Set
        };
        while producer
            .emit(Record::new(1, series, kind, at as f64 * 1.25))
            .is_err()
        {
            aggregator.round();
        }
    }
    aggregator.finish();
    let mut command = Command::new(program);
    command
        .args([
            "serve",
            "--max-age",
            "off",
            "--listen",
            "127.0.0.1:0",
            "--bus",
        ])
        .arg(many.bus.address().to_string())
        .stderr(Stdio::piped());
    let (process, said) = started(&mut command, |child| {
        child
            .stderr
            .take()
            .map(|pipe| Box::new(pipe) as Box<dyn Read>)
    });
    let (_, address) = said.split_once("http://").expect("it says where");
    let one = many.series[0].0;
    Server {
        name: QBUS,
        packed: Some(QBUS_GZIP),
        address: address.trim_end_matches('/').parse().expect("an address"),
        process: Some(process),
        renew: Box::new(move || renew(&producer, &mut aggregator, one)),
        is_slow: false,
    }
}

/// Another epoch: the page of the last one is of no use any more.
fn renew(producer: &Producer, aggregator: &mut Aggregator, series: qbus::SeriesId) {
    producer
        .emit(Record::new(1, series, Kind::Increment, 1.0))
        .expect("room");
    aggregator.finish();
}

/// Its listener, with as many series, on a thread of this process.
fn metrics_exporter(count: usize) -> Server<'static> {
    let (send, listens) = mpsc::channel();
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("an address");
    drop(port);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async move {
            let builder = PrometheusBuilder::new().with_http_listener(address);
            let (recorder, listener) = builder.build().expect("it listens");
            let metadata = Metadata::new(module_path!(), Level::INFO, None);
            for at in 0..count {
                let labels = ManySeries::labels(at).map(|(name, value)| Label::new(name, value));
                if at % 2 == 0 {
                    let key = Key::from_parts("bench_requests_total", labels.to_vec());
                    recorder
                        .register_counter(&key, &metadata)
                        .increment(at as u64);
                } else {
                    let key = Key::from_parts("bench_level", labels.to_vec());
                    recorder
                        .register_gauge(&key, &metadata)
                        .set(at as f64 * 1.25);
                }
            }
            send.send(recorder.handle()).expect("it is waited for");
            let _recorder = recorder;
            let _ = listener.await;
        });
    });
    let handle = listens.recv().expect("it starts");
    Server {
        name: METRICS,
        packed: None,
        address,
        process: None,
        renew: Box::new(move || handle.run_upkeep()),
        is_slow: false,
    }
}

fn multiprocess(python: &Path, count: usize) -> Server<'static> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("multiprocess_server.py");
    let mut command = Command::new(python);
    command
        .arg(script)
        .arg(count.to_string())
        .env("PROMETHEUS_MULTIPROC_DIR", folder.path())
        .stdout(Stdio::piped());
    let (process, said) = started(&mut command, |child| {
        child
            .stdout
            .take()
            .map(|pipe| Box::new(pipe) as Box<dyn Read>)
    });
    Server {
        name: "prometheus_client multiprocess",
        packed: Some("prometheus_client multiprocess, gzip"),
        address: format!("127.0.0.1:{said}").parse().expect("a port"),
        process: Some(process),
        renew: Box::new(move || {
            let _is_kept = folder.path();
        }),
        is_slow: true,
    }
}

fn node_exporter() -> Option<Server<'static>> {
    let port = std::net::TcpListener::bind("127.0.0.1:0").ok()?;
    let address = port.local_addr().ok()?;
    drop(port);
    let mut command = Command::new("prometheus-node-exporter");
    command
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let process = Ended(command.spawn().ok()?);
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "node_exporter does not listen"
        );
        thread::sleep(Duration::from_millis(20));
    }
    Some(Server {
        name: "node_exporter",
        packed: None,
        address,
        process: Some(process),
        renew: Box::new(|| {}),
        is_slow: false,
    })
}

/// Starts a program; its first line.
fn started(
    command: &mut Command,
    pipe: impl Fn(&mut Child) -> Option<Box<dyn Read>>,
) -> (Ended, String) {
    let mut process = Ended(command.spawn().expect("it starts"));
    let mut line = String::new();
    let pipe = pipe(&mut process.0).expect("a pipe");
    BufReader::new(pipe)
        .read_line(&mut line)
        .expect("it says where it is");
    (process, line.trim().to_owned())
}
