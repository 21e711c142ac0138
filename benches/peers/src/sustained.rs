//! What goes from producers to a snapshot: processes that emit as fast as they can.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Address, Bus, BusOptions, Clock, Geometry, Kind, Producer, Record};
use qbus_aggregate::Reader;
use qbus_benches::quantile;

use crate::emit::{RUN, settle};
use crate::report::Section;
use crate::rounds::spread;

pub const ONE_WAITS: &str = "1 process, waits for a full lane";
pub const ONE_LANE: &str = "1 thread, a lane of its own";
pub const TWO_LANES: &str = "2 threads, a lane each";

/// What a producer process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Emitting {
    shared: bool,
    waits: bool,
}

pub fn section(quick: bool) -> Section {
    let columns = &["median", "q1", "q3", "dropped %"];
    let title = "emitted until committed, M counter records/s";
    let mut section = Section::new("sustained", title, columns);
    let own = |waits| Emitting {
        shared: false,
        waits,
    };
    let shared = Emitting {
        shared: true,
        waits: true,
    };
    let cases = [
        (ONE_WAITS, 1, own(true)),
        ("2 processes, they wait", 2, own(true)),
        ("4 processes, they wait", 4, own(true)),
        ("8 processes, they wait", 8, own(true)),
        ("1 process, never waits", 1, own(false)),
        ("2 processes, never wait", 2, own(false)),
        ("4 processes, never wait", 4, own(false)),
        ("8 processes, never wait", 8, own(false)),
        ("1 process, a shared lane", 1, shared),
        ("2 processes, one shared lane", 2, shared),
        ("4 processes, one shared lane", 4, shared),
    ];
    let (rounds, time) = if quick { (1, 0.1) } else { (7, 0.4) };
    let mut measured = vec![(Vec::new(), Vec::new()); cases.len()];
    for _ in 0..rounds {
        for ((_, processes, emitting), (rates, dropped)) in cases.iter().zip(&mut measured) {
            let (rate, drops) = sustain(*processes, *emitting, time);
            rates.push(rate / 1e6);
            dropped.push(drops * 100.0);
        }
    }
    for ((name, ..), (rates, dropped)) in cases.iter().zip(&mut measured) {
        let dropped = quantile(dropped, 0.5);
        section.row(*name, spread(rates).into_iter().chain([dropped]));
    }
    section
}

/// How emitting alone scales, in bursts that lanes hold: the aggregator takes no core meanwhile.
pub fn scaling(quick: bool) -> Section {
    let columns = &["median", "q1", "q3"];
    let title = "bursts without clock, M records/s, all threads";
    let mut section = Section::new("scaling", title, columns);
    let bench = qbus_benches::start_with("scaling", &one_shared_lane(), false);
    let (own, shared) = (
        || bench.bus().producer().expect("a free lane"),
        || bench.bus().shared_producer().expect("a shared lane"),
    );
    let counter = bench.bus().counter("bench_total").register();
    let series = counter.expect("a new bus takes it").series();
    let record = Record::new(Clock::Precise.now_ns(), series, Kind::Increment, 1.0);
    let mut cases = [
        (ONE_LANE, vec![own()], Vec::new()),
        (TWO_LANES, vec![own(), own()], Vec::new()),
        ("1 thread, a shared lane", vec![shared()], Vec::new()),
        (
            "2 threads, one shared lane",
            vec![shared(), shared()],
            Vec::new(),
        ),
    ];
    for _ in 0..if quick { 100 } else { 500 } {
        for (_, producers, rates) in &mut cases {
            let records = producers.len() as u32 * RUN / 2;
            rates.push(f64::from(records) * 1e3 / burst(producers, record));
            settle(bench.bus());
        }
    }
    for (name, _, rates) in &mut cases {
        section.row(*name, spread(rates));
    }
    section.notes.push(
        "what lanes hold, while the aggregator sleeps; threads that begin together".to_owned(),
    );
    section
}

/// Half a run from each producer, on threads that begin together; nanoseconds of the slowest.
fn burst(producers: &mut [Producer], record: Record) -> f64 {
    let barrier = Barrier::new(producers.len());
    let emit = |producer: &Producer| {
        barrier.wait();
        // A thread that was woken later than another begins with it all the same.
        let begin = Clock::Precise.now_ns() / 50_000 * 50_000 + 100_000;
        while Clock::Precise.now_ns() < begin {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        for _ in 0..RUN / 2 {
            let _ = producer.emit(record);
        }
        start.elapsed().as_nanos() as f64
    };
    thread::scope(|scope| {
        let emit = &emit;
        let threads: Vec<_> = producers
            .iter_mut()
            .map(|producer| scope.spawn(move || emit(producer)))
            .collect();
        let took = threads.into_iter().map(|thread| thread.join());
        took.map(|took| took.expect("an emit does not panic"))
            .fold(0.0, f64::max)
    })
}

fn one_shared_lane() -> BusOptions {
    BusOptions {
        geometry: Geometry {
            lanes: 16,
            shared_lanes: 1,
            ..Geometry::default()
        },
        ..BusOptions::default()
    }
}

/// Records a second that were committed, and the share of those emitted that were dropped.
fn sustain(processes: usize, emitting: Emitting, seconds: f64) -> (f64, f64) {
    let bench = qbus_benches::start_with("sustained", &one_shared_lane(), false);
    let reader = Reader::open(&bench.bus().address().snapshot()).expect("an aggregator runs");
    let address = bench.bus().address();
    let mut workers: Vec<_> = (0..processes)
        .map(|_| Worker::start(address, emitting, seconds))
        .collect();
    for worker in &mut workers {
        assert_eq!(worker.line(), "ready");
    }
    let start = Instant::now();
    for worker in &mut workers {
        worker.input = None;
    }
    let mut sum = [0; 2];
    for worker in &mut workers {
        let line = worker.line();
        let counts = line
            .split(' ')
            .map(|count| count.parse::<u64>().expect("a count"));
        for (sum, count) in sum.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    let [attempted, accepted] = sum;
    while reader.globals().records < accepted {
        thread::sleep(Duration::from_micros(20));
    }
    let rate = accepted as f64 / start.elapsed().as_secs_f64();
    (rate, (attempted - accepted) as f64 / attempted as f64)
}

/// A producer process; ended when it is dropped.
struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Worker {
    fn start(address: &Address, emitting: Emitting, seconds: f64) -> Worker {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .arg("worker")
            .arg(address.to_string())
            .args([emitting.shared, emitting.waits].map(|flag| flag.to_string()))
            .arg(seconds.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a worker starts");
        let (input, output) = (child.stdin.take(), child.stdout.take());
        Worker {
            child,
            input,
            output: BufReader::new(output.expect("a piped output")),
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a worker reports");
        line.trim_end().to_owned()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A worker's life: attach, say so, wait for the others, emit for so many seconds, report.
pub fn work(args: &[String]) {
    let [address, shared, waits, seconds] = args else {
        panic!("a worker has four arguments, not {args:?}");
    };
    let bus = Bus::from_str(address).expect("the bus of the bench");
    let counter = bus.counter("bench_total").register().expect("it fits");
    let producer = match shared.as_str() {
        "true" => bus.shared_producer().expect("a shared lane"),
        _ => bus.producer().expect("a lane"),
    };
    let patience = match waits.as_str() {
        "true" => Some(Duration::from_secs(10)),
        _ => None,
    };
    println!("ready");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    let time = Duration::from_secs_f64(seconds.parse().expect("seconds"));
    let (start, mut attempted, mut accepted) = (Instant::now(), 0, 0_u64);
    while start.elapsed() < time {
        for _ in 0..RUN {
            let now = Clock::Coarse.now_ns();
            let record = Record::new(now, counter.series(), Kind::Increment, 1.0);
            let emitted = match patience {
                Some(patience) => producer.emit_or_wait(record, patience),
                None => producer.emit(record),
            };
            accepted += u64::from(emitted.is_ok());
        }
        attempted += u64::from(RUN);
    }
    println!("{attempted} {accepted}");
}
