//! What an emit costs the one who emits: ours in all its forms, beside peers.

use std::hint::black_box;
use std::time::Duration;

use qbus::{Bus, Clock, Kind, Producer, Record};

use crate::others;
use crate::report::Section;
use crate::rounds::{Case, Cores, take_turns};

/// Emits of a run: half a default lane, so that none is refused.
pub const RUN: u32 = 2048;

pub const COUNTER: &str = "Counter::inc";
pub const COUNTER_ADD: &str = "Counter::add(0.25)";
pub const GAUGE: &str = "Gauge::set (precise clock)";
pub const HISTOGRAM: &str = "Histogram::observe";
pub const SUMMARY: &str = "Summary::observe (precise clock)";
pub const OWN_LANE: &str = "Producer::emit, own lane, no clock";
pub const OWN_LANE_PRECISE: &str = "Producer::emit, own lane, precise";
pub const CLOCK_PRECISE: &str = "clock alone, precise";

/// Waits until the aggregator has committed all that lies in lanes.
pub fn settle(bus: &Bus) {
    while bus.lanes().iter().any(|lane| lane.fill > 0) {
        std::thread::sleep(Duration::from_micros(20));
    }
}

pub fn section(quick: bool) -> Section {
    let cores = Cores::for_consumers();
    let bench = qbus_benches::start("emit", false);
    let columns = &["median", "q1", "q3", "to ours"];
    let mut section = Section::new("emit", "emit cost, one producer, ns", columns);
    let mut cases = ours(bench.bus());
    cases.extend(others::cases());
    cores.for_emitter();
    take_turns(&mut cases, if quick { 100 } else { 600 });
    let measured: Vec<_> = cases
        .iter_mut()
        .map(|case| (case.name, case.beside, case.spread()))
        .collect();
    for (name, beside, spread) in &measured {
        let ours = measured.iter().find(|(name, ..)| Some(*name) == *beside);
        let ratio = ours.map(|(.., ours)| spread[0] / ours[0]);
        section.row(*name, spread.iter().copied().chain(ratio));
    }
    section.notes.push(format!(
        "runs of {RUN} emits in turns; q1 to q3 hold half of the runs; to ours: times the cost of \
        our handle"
    ));
    section
}

fn ours(bus: &Bus) -> Vec<Case<'_>> {
    let failed = "a new bus takes it";
    let counter = bus.counter("bench_total").label("endpoint", "/predict");
    let counter = counter.register().expect(failed);
    let fractions = bus.counter("bench_fractions_total");
    let fractions = fractions.register().expect(failed);
    let gauge = bus.gauge("bench_level").register().expect(failed);
    let stated = gauge.clone();
    let histogram = bus.histogram("bench_seconds").register().expect(failed);
    let summary = bus
        .summary("bench_summary_seconds")
        .register()
        .expect(failed);
    let series = counter.series();
    let record = move |timestamp| Record::new(timestamp, series, Kind::Increment, 1.0);
    let value = |n: u32| f64::from(n) / 1000.0;
    let batch = [record(1); 64];
    let many = producer(bus);
    let emit = |name, make: fn(&Bus) -> Producer, clock: Option<Clock>| {
        let producer = make(bus);
        // A loop for each clock: none of them asks which it is.
        match clock {
            None => Case::new(name, RUN, move |_| {
                let _ = producer.emit(record(1));
            }),
            Some(Clock::Coarse) => Case::new(name, RUN, move |_| {
                let _ = producer.emit(record(Clock::Coarse.now_ns()));
            }),
            Some(Clock::Precise) => Case::new(name, RUN, move |_| {
                let _ = producer.emit(record(Clock::Precise.now_ns()));
            }),
        }
    };
    let cases = vec![
        Case::new("clock alone, coarse", RUN, |_| {
            black_box(Clock::Coarse.now_ns());
        }),
        Case::new(CLOCK_PRECISE, RUN, |_| {
            black_box(Clock::Precise.now_ns());
        }),
        Case::new(COUNTER, RUN, move |_| counter.inc()),
        Case::new(COUNTER_ADD, RUN, move |_| fractions.add(0.25)),
        Case::new(GAUGE, RUN, move |n| gauge.set(value(n))),
        Case::new("Gauge::try_set_at (no clock)", RUN, move |n| {
            let _ = stated.try_set_at(1, value(n));
        }),
        Case::new(HISTOGRAM, RUN, move |n| histogram.observe(value(n))),
        Case::new(SUMMARY, RUN, move |n| summary.observe(value(n))),
        emit(OWN_LANE, producer, None),
        emit(
            "Producer::emit, own lane, coarse",
            producer,
            Some(Clock::Coarse),
        ),
        emit(OWN_LANE_PRECISE, producer, Some(Clock::Precise)),
        Case::new("Producer::emit_many, 64 at once", RUN, move |n| {
            if n % 64 == 0 {
                let _ = many.emit_many(&batch);
            }
        }),
        emit("Producer::emit, shared lane, no clock", shared, None),
        emit(
            "Producer::emit, shared lane, coarse",
            shared,
            Some(Clock::Coarse),
        ),
        emit(
            "Producer::emit, shared lane, precise",
            shared,
            Some(Clock::Precise),
        ),
    ];
    cases
        .into_iter()
        .map(|case| case.settled_by(|| settle(bus)))
        .collect()
}

fn producer(bus: &Bus) -> Producer {
    let producer = bus.producer().expect("a free lane");
    assert!(producer.is_exclusive(), "a new bus has lanes for all");
    producer
}

fn shared(bus: &Bus) -> Producer {
    bus.shared_producer().expect("a shared lane")
}
