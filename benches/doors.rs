//! What the doors out and in cost: encoding for remote write and OTLP, and metrics of StatsD.
#![allow(clippy::print_stdout)]

use std::fs;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Bus, BusOptions, FamilyDefinition, Geometry, MetricType};
use qbus_agent::listen::{ListenOptions, Listeners};
use qbus_agent::push::{Destination, Protocol, PushOptions, Pusher};
use qbus_aggregate::export::{
    OtlpOptions, RemoteWriteOptions, RemoteWriteVersion, Request, otlp, remote_write,
};
use qbus_aggregate::{ReadOptions, Reader, Series, Value};
use qbus_benches::{is_measured, print_machine, start, start_with};

fn main() {
    print_machine("doors out and in");
    let many = series(if is_measured() { 100_000 } else { 1_000 });
    println!(
        "\n{:<44} {:>8} {:>8}",
        format!("{} series", many.len()),
        "ms",
        "MB"
    );
    encoding(&many);
    pushing(if is_measured() { 10_000 } else { 100 });
    statsd(Duration::from_millis(if is_measured() { 3000 } else { 50 }));
    emitters(if is_measured() { 9 } else { 1 });
}

/// Counters and gauges of a hundred families, with three labels each.
fn series(number: usize) -> Vec<Series> {
    let families: Vec<Arc<FamilyDefinition>> = (0..100)
        .map(|family| {
            let is_counter = family % 2 == 0;
            let name = format!("demo_requests_{family:02}_total");
            let metric_type = match is_counter {
                true => MetricType::Counter,
                false => MetricType::Gauge,
            };
            Arc::new(FamilyDefinition {
                help: "Requests answered.".to_owned(),
                ..FamilyDefinition::new(&name, metric_type)
            })
        })
        .collect();
    let one = |at: usize| {
        let family = families[at * 100 / number].clone();
        let value = match family.metric_type {
            MetricType::Counter => Value::Counter((at as f64).into()),
            _ => Value::Gauge(at as f64 / 7.0),
        };
        Series {
            family,
            labels: vec![
                ("endpoint".to_owned(), format!("/api/v1/predict/{:05}", at)),
                ("model".to_owned(), "qwen3-vl".to_owned()),
                ("worker".to_owned(), (at % 64).to_string()),
            ],
            value,
            timestamp_ns: NOW_NS,
            start_ns: NOW_NS,
            records: 1,
            history: Vec::new(),
            exemplars: Vec::new(),
        }
    };
    (0..number).map(one).collect()
}

const NOW_NS: u64 = 1_700_000_000_000_000_000;

/// Seconds that this thread was on a core: what a neighbour takes is not among them.
fn on_core() -> f64 {
    let said = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = said
        .split(' ')
        .next()
        .and_then(|text| text.parse::<f64>().ok());
    nanoseconds.expect("a number") / 1e9
}

/// The least of a few, with what came out.
fn least(what: &str, mut run: impl FnMut() -> usize) {
    let mut best = f64::INFINITY;
    let mut bytes = 0;
    for _ in 0..if is_measured() { 15 } else { 1 } {
        let start = on_core();
        bytes = run();
        best = best.min((on_core() - start) * 1e3);
    }
    println!("{what:<44} {best:>8.1} {:>8.1}", bytes as f64 / 1e6);
}

fn encoding(series: &[Series]) {
    let labels = [("instance", "gpu-7"), ("job", "inference")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for (name, version) in [
        ("remote write 1.0", RemoteWriteVersion::One),
        ("remote write 2.0", RemoteWriteVersion::Two),
    ] {
        let options = RemoteWriteOptions {
            version,
            time_ms: NOW_NS / 1_000_000,
            labels: &labels,
            native: false,
            metadata: false,
            exemplars_since_ns: 0,
            is_end: false,
        };
        let run = |pack: &dyn Fn(&[u8]) -> usize| {
            let mut bytes = 0;
            remote_write(series, &options, &mut |request: Request| {
                bytes += pack(&request.message)
            });
            bytes
        };
        least(name, || run(&|message| black_box(message).len()));
        least(&format!("{name}, and Snappy"), || {
            run(&|message| {
                snap::raw::Encoder::new()
                    .compress_vec(message)
                    .expect("room")
                    .len()
            })
        });
    }
    let options = OtlpOptions {
        time_ns: NOW_NS,
        resource: &labels,
        exemplars_since_ns: 0,
        is_end: false,
    };
    let run = |pack: &dyn Fn(&[u8]) -> usize| {
        let mut bytes = 0;
        otlp(series, &options, &mut |request: Request| {
            bytes += pack(&request.message)
        });
        bytes
    };
    least("OTLP", || run(&|message| black_box(message).len()));
    least("OTLP, and gzip", || {
        run(&|message| {
            let level = flate2::Compression::fast();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(message).expect("room");
            encoder.finish().expect("room").len()
        })
    });
}

/// What a push takes of a core, every ten seconds: to read the snapshot, to encode and to pack.
fn pushing(number: u64) {
    let geometry = Geometry {
        series: 20_000,
        ..Geometry::default()
    };
    let options = BusOptions {
        geometry: geometry.with_arena(),
        max_series_per_family: 0,
        ..BusOptions::default()
    };
    let stage = start_with("doors", &options, false);
    let bus: &Bus = stage.bus();
    for at in 0..number {
        let counter = bus
            .counter("requests_total")
            .label("endpoint", &at.to_string());
        counter.register().expect("room").inc();
    }
    bus.flush(Duration::from_secs(10)).expect("it is committed");
    let mut reader = Reader::open(&bus.address().snapshot()).expect("a snapshot");
    let options = RemoteWriteOptions {
        version: RemoteWriteVersion::One,
        time_ms: NOW_NS / 1_000_000,
        labels: &[],
        native: false,
        metadata: true,
        exemplars_since_ns: 0,
        is_end: false,
    };
    let mut best = f64::INFINITY;
    for _ in 0..if is_measured() { 9 } else { 1 } {
        let start = on_core();
        let snapshot = reader.read(&ReadOptions::default()).expect("a commit");
        let send = &mut |request: Request| {
            let packed = snap::raw::Encoder::new().compress_vec(&request.message);
            black_box(packed.expect("room"));
        };
        remote_write(&snapshot.series, &options, send);
        best = best.min(on_core() - start);
    }
    println!(
        "\n{:<44} {:>8.1} ms, {:.2} % of a core every 10 s",
        format!("read, encode and pack {number} series"),
        best * 1e3,
        best / 10.0 * 100.0
    );
}

/// Values of StatsD, as fast as another thread sends them.
fn statsd(time: Duration) {
    for (name, lines) in [("forty lines a datagram", 40), ("a line a datagram", 1)] {
        let stage = start("statsd", false);
        let options = ListenOptions {
            statsd: vec!["127.0.0.1:0".parse().expect("an address")],
            ..ListenOptions::default()
        };
        let listeners = Listeners::start(stage.bus(), &options).expect("it listens");
        let to = listeners.addresses()[0].clone();
        let sent = send(&to, lines, time);
        // It says how it fares once a second, and at its end.
        thread::sleep(Duration::from_millis(if is_measured() {
            1500
        } else {
            300
        }));
        let core = core_seconds();
        drop(listeners);
        stage
            .bus()
            .flush(Duration::from_secs(10))
            .expect("it is committed");
        let mut reader = Reader::open(&stage.bus().address().snapshot()).expect("a snapshot");
        let snapshot = reader.read(&ReadOptions::default()).expect("a commit");
        let total = |name: &str| -> f64 {
            let all = snapshot
                .series
                .iter()
                .filter(|series| series.family.name == name);
            all.map(|series| match &series.value {
                Value::Counter(sum) => sum.value(),
                _ => 0.0,
            })
            .sum()
        };
        let values = total("qbus_statsd_values_total");
        assert_eq!(
            values,
            total("page_views"),
            "each that the kernel delivered"
        );
        println!(
            "\nStatsD, {name:<36} {:>8.2} M/s of a core, {:.0} of {sent} datagrams dropped by the \
            kernel",
            values / core / 1e6,
            total("qbus_statsd_kernel_drops_total"),
        );
    }
}

/// What it takes an emitter that all series are sent on ten times a second, and that the aggregator
/// takes 50,000 values of StatsD a second: nothing, where it has a core of its own.
fn emitters(rounds: usize) {
    let options = BusOptions {
        max_series_per_family: 0,
        ..BusOptions::default()
    };
    let stage = start_with("emitters", &options, false);
    let bus = stage.bus();
    for at in 0..if is_measured() { 10_000 } else { 100 } {
        let counter = bus
            .counter("requests_total")
            .label("endpoint", &at.to_string());
        counter.register().expect("room").inc();
    }
    let counter = bus.counter("emitted_total").register().expect("room");
    let nanoseconds = || {
        let incs = if is_measured() { 20_000_000 } else { 1000 };
        let start = on_core();
        (0..incs).for_each(|_| counter.inc());
        (on_core() - start) * 1e9 / f64::from(incs)
    };
    let receiver = TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = format!("http://{}/", receiver.local_addr().expect("an address"));
    thread::spawn(move || {
        receiver
            .incoming()
            .flatten()
            .for_each(|stream| drop(take_all(stream)))
    });
    let (mut alone, mut pushed, mut listened) = (Vec::new(), Vec::new(), Vec::new());
    // In turn, so that a neighbour on this machine takes from all of them.
    for _ in 0..rounds {
        alone.push(nanoseconds());
        let options = PushOptions {
            destinations: vec![
                Destination::parse(&to, Protocol::RemoteWrite).expect("a destination"),
            ],
            interval: Duration::from_millis(100),
            ..PushOptions::default()
        };
        let snapshot = bus.address().snapshot();
        let pusher = Pusher::start(bus, snapshot, options, drop).expect("threads");
        pushed.push(nanoseconds());
        pusher.stop();
        let options = ListenOptions {
            statsd: vec!["127.0.0.1:0".parse().expect("an address")],
            ..ListenOptions::default()
        };
        let listeners = Listeners::start(bus, &options).expect("it listens");
        let to = listeners.addresses()[0].clone();
        let (stop, stopped) = mpsc::channel::<()>();
        let sender = thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
            let lines = "page.views:1|c|#region:east\n".repeat(50);
            while stopped
                .recv_timeout(Duration::from_millis(1))
                .is_err_and(|end| end == RecvTimeoutError::Timeout)
            {
                let _ = socket.send_to(lines.as_bytes(), &to);
            }
        });
        listened.push(nanoseconds());
        drop(stop);
        sender.join().expect("no panic");
    }
    let median = |all: &mut Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    println!(
        "\nCounter::inc, median of {rounds}: {:.2} ns alone, {:.2} while 10,000 series are sent on \
         every 100 ms, {:.2} beside 50,000 values of StatsD a second",
        median(&mut alone),
        median(&mut pushed),
        median(&mut listened)
    );
}

/// Answers that all is well, until the connection ends.
fn take_all(stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let (mut line, mut len) = (String::new(), 0);
        while reader.read_line(&mut line)? > 2 {
            if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                len = text.trim().parse().unwrap_or(0);
            }
            line.clear();
        }
        if len == 0 {
            return Ok(());
        }
        std::io::copy(&mut (&mut reader).take(len), &mut std::io::sink())?;
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    }
}

fn send(to: &str, lines: usize, time: Duration) -> u64 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.connect(to).expect("an address");
    let line = |at: usize| format!("page.views:1|c|#region:east,worker:{}\n", at % 16);
    let datagram: String = (0..lines).map(line).collect();
    let (start, mut sent) = (Instant::now(), 0);
    while start.elapsed() < time {
        for _ in 0..100 {
            // Refused where nobody listens any more.
            sent += u64::from(socket.send(datagram.as_bytes()).is_ok());
        }
    }
    sent
}

/// Processor time of the thread that listens.
fn core_seconds() -> f64 {
    let tasks = fs::read_dir("/proc/self/task").expect("threads").flatten();
    let ticks = tasks.filter_map(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let (head, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ').skip(11);
        let time = |text: Option<&str>| text?.parse::<f64>().ok();
        let total = time(fields.next())? + time(fields.next())?;
        head.ends_with("qbus-statsd").then_some(total)
    });
    // The kernel counts in hundredths of a second.
    ticks.sum::<f64>().max(1.0) / 100.0
}
