//! What an emit costs the one who emits, and what an aggregator sustains.
//!
//! Emit cost is measured in runs that fit into a lane, so that no record is refused; between two
//! runs the aggregator catches up. The clock's own cost stands beside it, since it is part of most
//! emits.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use qbus::{BusOptions, Clock, Geometry, Kind, Record};
use qbus_aggregate::{ReadOptions, Reader};
use qbus_benches::{Stage, is_measured, print_machine, quantile, start, start_with, unused};

/// Records of a run: half a lane.
const RUN: u32 = 2048;

fn main() {
    let runs = if is_measured() { 2000 } else { 3 };
    print_machine("emit cost in ns a record, one producer, an aggregator draining on another core");
    println!("{:<34} {:>7} {:>7} {:>7}", "", "median", "p90", "p99");
    clock_row("clock alone, coarse", Clock::Coarse, runs);
    clock_row("clock alone, precise", Clock::Precise, runs);
    let mut bench = start("emit", false);
    let bus = bench.bus();
    let failed = "a new bus takes it";
    let counter = bus.counter("bench_total").register().expect(failed);
    let precise = bus
        .counter("bench_precise_total")
        .clock(Clock::Precise)
        .register()
        .expect(failed);
    let gauge = bus.gauge("bench_level").register().expect(failed);
    let histogram = bus.histogram("bench_seconds").register().expect(failed);
    let summary = bus
        .summary("bench_summary_seconds")
        .register()
        .expect(failed);
    row("Counter::inc (coarse clock)", runs, |_| counter.inc());
    row("Counter::inc (precise clock)", runs, |_| precise.inc());
    row("Gauge::set", runs, |n| gauge.set(f64::from(n)));
    row("Histogram::observe", runs, |n| {
        histogram.observe(f64::from(n) / 1000.0)
    });
    row("Summary::observe", runs, |n| {
        summary.observe(f64::from(n) / 1000.0)
    });
    let record = Record::new(
        Clock::Precise.now_ns(),
        counter.series(),
        Kind::Increment,
        1.0,
    );
    let own = bus.producer().expect("a free lane");
    row("Producer::emit, own lane, no clock", runs, |_| {
        let _ = own.emit(record);
    });
    let shared = bus.shared_producer().expect("a shared lane");
    row("Producer::emit, shared lane, no clock", runs, |_| {
        let _ = shared.emit(record);
    });
    edges(&bench, runs);
    sustained(&bench, runs);
    bench.end_aggregator();
}

/// What is not an emit in a loop: timers, two buses in turn, a lane that is new, a registry that is
/// full.
fn edges(bench: &Stage, runs: u32) {
    let bus = bench.bus();
    let histogram = bus.histogram("bench_seconds").register().expect("known");
    row("two reads of Instant", runs, |_| {
        let start = Instant::now();
        std::hint::black_box(start.elapsed());
    });
    row("Histogram::start_timer and its end", runs, |_| {
        drop(histogram.start_timer());
    });
    let mut other = start("other", false);
    let counters = [bus, other.bus()].map(|bus| bus.counter("bench_total").register());
    let counters = counters.map(|counter| counter.expect("it fits"));
    row("Counter::inc, one bus", runs, |_| counters[0].inc());
    row("Counter::inc, two buses in turn", runs, |n| {
        counters[n as usize % 2].inc();
    });
    other.end_aggregator();
    first_laps(runs.min(50));
    let options = BusOptions {
        geometry: Geometry {
            series: 16,
            ..Geometry::default()
        },
        ..BusOptions::default()
    };
    let mut full = start_with("full", &options, false);
    let register = |value: &str| {
        full.bus()
            .counter("bench_total")
            .label("user", value)
            .register()
    };
    for user in 0..16 {
        register(&user.to_string()).expect("room");
    }
    row("a refused registration, again", runs.min(200), |_| {
        assert!(register("one too many").is_err());
    });
    full.end_aggregator();
}

/// The first and the second lap of a lane that this process never wrote to, without an aggregator
/// in the way.
fn first_laps(runs: u32) {
    let mut laps = [Vec::new(), Vec::new()];
    let mut leases = Vec::new();
    for _ in 0..runs {
        let bench = Stage::create(&unused("lap"), &BusOptions::default()).expect("room");
        let series = bench.bus().gauge("bench_level").register().expect("room");
        let record = Record::new(1, series.series(), Kind::Set, 1.0);
        let start = Instant::now();
        let own = bench.bus().producer().expect("a free lane");
        leases.push(start.elapsed().as_nanos() as f64);
        for lap in &mut laps {
            let start = Instant::now();
            for _ in 0..RUN {
                let _ = own.emit(record);
            }
            lap.push(start.elapsed().as_nanos() as f64 / f64::from(RUN));
        }
    }
    let [first, second] = laps.map(|mut lap| quantile(&mut lap, 0.5));
    let lease = quantile(&mut leases, 0.5);
    println!(
        "a join and a lease: {lease:.0} ns; then, of a new lane, half a lap and the other half:"
    );
    println!(
        "{:<38} {first:>7.1} {second:>7.1}",
        "Producer::emit, untouched pages"
    );
}

fn clock_row(name: &str, clock: Clock, runs: u32) {
    row(name, runs, |_| {
        std::hint::black_box(clock.now_ns());
    });
}

fn row(name: &str, runs: u32, mut emit: impl FnMut(u32)) {
    let mut measured = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        for n in 0..RUN {
            emit(n);
        }
        measured.push(start.elapsed().as_nanos() as f64 / f64::from(RUN));
        // Long enough for a napping aggregator to drain half a lane.
        std::thread::sleep(Duration::from_micros(300));
    }
    let [median, p90, p99] = [0.5, 0.9, 0.99].map(|q| quantile(&mut measured, q));
    println!("{name:<38} {median:>7.1} {p90:>7.1} {p99:>7.1}");
}

/// As fast as the aggregator folds: a producer that waits while its lane is full.
fn sustained(bench: &Stage, runs: u32) {
    let records = u64::from(runs) * 5000;
    let producer = bench.bus().producer().expect("a free lane");
    println!("\nsustained, emitted to committed, one producer that waits for a full lane");
    for (name, kind, series) in [
        (
            "counter",
            Kind::Increment,
            bench
                .bus()
                .counter("bench_total")
                .register()
                .map(|handle| handle.series()),
        ),
        (
            "gauge",
            Kind::Set,
            bench
                .bus()
                .gauge("bench_level")
                .register()
                .map(|handle| handle.series()),
        ),
        (
            "histogram",
            Kind::Observe,
            bench
                .bus()
                .histogram("bench_seconds")
                .register()
                .map(|handle| handle.series()),
        ),
        (
            "summary",
            Kind::Observe,
            bench
                .bus()
                .summary("bench_summary_seconds")
                .register()
                .map(|h| h.series()),
        ),
    ] {
        let series = series.expect("registered before");
        let start = Instant::now();
        for n in 0..records {
            let record = Record::new(
                Clock::Coarse.now_ns(),
                series,
                kind,
                (n % 1000) as f64 / 1000.0,
            );
            producer
                .emit_or_wait(record, Duration::from_secs(10))
                .expect("the aggregator runs");
        }
        let ns = start.elapsed().as_nanos() as f64 / records as f64;
        println!("{name:<38} {ns:>7.1} ns a record, {:>6.1} M/s", 1000.0 / ns);
    }
    let snapshot = Reader::open(&bench.bus().address().snapshot())
        .and_then(|mut reader| reader.read(&ReadOptions::default()));
    assert!(snapshot.is_ok_and(|snapshot| !snapshot.series.is_empty()));
}
