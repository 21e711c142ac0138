//! What windows of summaries cost: a record that is folded, the rounds in which the steps of very
//! many series end, and the bytes that they take in the snapshot.
#![allow(clippy::print_stdout)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Bus, BusOptions, Clock, Geometry, Kind, Record, Removal, SeriesId};
use qbus_aggregate::{Aggregator, AggregatorOptions};
use qbus_benches::{is_measured, print_machine, quantile};

/// Records between two rounds: less than a round drains of a lane.
const BURST: usize = 1000;
/// Steps of a window.
const STEPS: u32 = 5;
/// Where a snapshot says how much of it is in use (`docs/format.md`).
const AT_ALLOCATED: u64 = 48 * 8;

fn main() {
    print_machine("windows: summaries over the last minutes");
    let few = |many: usize| if is_measured() { many } else { many / 100 };
    for series in [1, 100] {
        fold(series, few(2000));
    }
    rounds(few(16_384));
    for series in [1000, 10_000] {
        for observations in [3, 100, 1000] {
            size(few(series), observations);
        }
    }
}

/// Runs with a bus of its own, of which so many summaries have a window of that length.
fn with_bus(
    series: usize,
    length: Duration,
    history: usize,
    run: impl FnOnce(&Bus, &mut Aggregator, &[SeriesId]),
) {
    let name = format!("bench-windows-{}", std::process::id());
    let address = name.parse().expect("a legal name");
    let geometry = Geometry::default();
    let options = BusOptions {
        geometry,
        max_series_per_family: 0,
        ..BusOptions::default()
    };
    let bus = Bus::create(&address, &options).expect("a new bus");
    let options = AggregatorOptions {
        history,
        ..AggregatorOptions::default()
    };
    let mut aggregator = Aggregator::open(&bus, &options).expect("the only one");
    let register = |n: usize| {
        let summary = bus.summary("wait_seconds").label("n", &n.to_string());
        let summary = summary.window(length, STEPS).register();
        summary.expect("room").series()
    };
    let all: Vec<SeriesId> = (0..series).map(register).collect();
    while !aggregator.round().is_idle() {}
    run(&bus, &mut aggregator, &all);
    drop(aggregator);
    drop(bus);
    Bus::remove(&address, Removal::Forced).expect("the bus of this bench");
}

/// Some values as latencies are: of three octaves for the most part.
fn values() -> Vec<f64> {
    let uniform = |n: u32| f64::from(n * 7919 % 9973) / 9973.0;
    let normal = |n: u32| (0..12).map(|k| uniform(n + k * 811)).sum::<f64>() - 6.0;
    (0..9973).map(|n| 0.02 * (0.5 * normal(n)).exp()).collect()
}

/// Nanoseconds that a round takes for a record, of so many series in turn.
fn fold(series: usize, bursts: usize) {
    with_bus(
        series,
        Duration::from_secs(600),
        1000,
        |bus, aggregator, all| {
            let producer = bus.producer().expect("a lane");
            let values = values();
            let mut took = Vec::new();
            for burst in 0..bursts.max(10) {
                for n in 0..BURST {
                    let value = values[(burst * BURST + n) % values.len()];
                    let id = all[n % all.len()];
                    let record = Record::new(Clock::Coarse.now_ns(), id, Kind::Observe, value);
                    producer.emit(record).expect("a lane that was drained");
                }
                let began = Instant::now();
                assert_eq!(aggregator.round().drained, BURST as u64);
                took.push(began.elapsed().as_secs_f64() * 1e9 / BURST as f64);
            }
            let [median, low] = [0.5, 0.1].map(|q| quantile(&mut took, q));
            println!(
                "a record of {series} summaries: {median:.1} ns a round and record (10 %: {low:.1})"
            );
        },
    );
}

/// So many observations of each series.
fn observe(bus: &Bus, aggregator: &mut Aggregator, all: &[SeriesId], each: usize) {
    let producer = bus.producer().expect("a lane");
    let values = values();
    let mut waiting = 0;
    for n in 0..each * all.len() {
        let (id, value) = (all[n / each], values[n * 31 % values.len()]);
        let record = Record::new(Clock::Coarse.now_ns(), id, Kind::Observe, value);
        producer.emit(record).expect("a lane that was drained");
        waiting += 1;
        if waiting == BURST {
            waiting = 0;
            aggregator.round();
        }
    }
    aggregator.round();
}

/// How long rounds take while the steps of so many series end.
fn rounds(series: usize) {
    let step = Duration::from_millis(if is_measured() { 8000 } else { 200 });
    with_bus(series, step * STEPS, 0, |bus, aggregator, all| {
        let mut took = Vec::new();
        for _ in 0..3 {
            let began = Instant::now();
            observe(bus, aggregator, all, 60);
            let rest = step.saturating_sub(began.elapsed());
            assert!(
                !is_measured() || !rest.is_zero(),
                "all of it is of one step"
            );
            thread::sleep(rest);
            loop {
                let began = Instant::now();
                let round = aggregator.round();
                if round.is_idle() {
                    break;
                }
                took.push(began.elapsed().as_secs_f64() * 1e6);
                thread::sleep(Duration::from_micros(1200));
            }
        }
        if took.is_empty() && !is_measured() {
            // As a test, in a slow build, steps may end while there are observations.
            return;
        }
        let rounds = took.len();
        let [median, p99, most] = [0.5, 0.99, 1.0].map(|q| quantile(&mut took, q));
        println!(
            "{rounds} rounds in which steps of {series} summaries end: median {median:.0} µs, p99 \
             {p99:.0} µs, the longest {most:.0} µs  bar 1,000"
        );
    });
}

/// Bytes of the snapshot, without histories, when each step of the window has so many observations.
fn size(series: usize, observations: usize) {
    let step = Duration::from_secs(if is_measured() { 4 } else { 1 });
    with_bus(series, step * STEPS, 0, |bus, aggregator, all| {
        // The next free word of the heap: the file itself grows by megabytes.
        let bytes = |aggregator: &Aggregator| {
            let (mut word, file) = ([0; 8], File::open(aggregator.snapshot()));
            let file = file.expect("a snapshot");
            file.read_exact_at(&mut word, AT_ALLOCATED)
                .expect("a whole file");
            u64::from_le_bytes(word) as f64 * 8.0
        };
        let before = bytes(aggregator);
        for _ in 0..if is_measured() { STEPS + 2 } else { 1 } {
            let began = Instant::now();
            observe(bus, aggregator, all, observations);
            while began.elapsed() < step && is_measured() {
                aggregator.round();
                thread::sleep(Duration::from_millis(1));
            }
        }
        let each = (bytes(aggregator) - before) / series as f64;
        println!(
            "{series} summaries, {observations} observations a step: the snapshot grew by \
             {each:.0} bytes each"
        );
    });
}
