//! What series cost that come and go: a registration after very many were freed, how long a round
//! takes in which thousands are met, retired or freed, and for how long a reset of as many keeps
//! the lanes waiting.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use qbus::{Bus, BusOptions, Clock, Counter, Geometry, Handle, Removal};
use qbus_aggregate::{Aggregator, AggregatorOptions, Spare};
use qbus_benches::{is_measured, print_machine, quantile};

/// Series that live at once.
const LIVING: u32 = 10_000;

fn main() {
    let freed = if is_measured() { 1_000_000 } else { 20_000 };
    let name = format!("bench-lifecycle-{}", std::process::id());
    let address = name.parse().expect("a legal name");
    // Half of it may be kept.
    let geometry = Geometry {
        series: u64::from(LIVING) * 4,
        ..Geometry::default()
    };
    let options = BusOptions {
        geometry: geometry.with_arena(),
        max_series_per_family: 0,
        ..BusOptions::default()
    };
    let bus = Bus::create(&address, &options).expect("a new bus");
    run(&bus, freed);
    Bus::remove(&address, Removal::Forced).expect("the bus of this bench");
}

fn run(bus: &Bus, freed: u32) {
    let options = AggregatorOptions::default();
    let mut aggregator = Aggregator::open(bus, &options).expect("the only one");
    print_machine("lifecycle: series that come and go");
    let first = bus.counter("lifecycle_total").register().expect("room");
    let family = bus
        .series(first.series())
        .and_then(|found| bus.family(found.family));
    let family = family.expect("what was registered");
    let (mut met, mut rounds) = (Vec::new(), Vec::new());
    let mut made = Vec::new();
    let mut known = Vec::new();
    for first in (0..freed).step_by(LIVING as usize) {
        let handles: Vec<Counter> = (first..first + LIVING)
            .map(|n| {
                let labels = labels(n);
                let id = timed(&mut made, || bus.intern(&family, &labels)).expect("room");
                Counter::from(Handle::new(bus, id, Clock::Coarse, &[]))
            })
            .collect();
        if first + LIVING >= freed {
            for n in first..first + LIVING {
                let labels = labels(n);
                timed(&mut known, || bus.intern(&family, &labels)).expect("it is there");
            }
        } else {
            made.clear();
        }
        handles.iter().for_each(Counter::inc);
        settle(&mut aggregator, &mut met);
        // All at once.
        handles.iter().for_each(Counter::forget);
        settle(&mut aggregator, &mut rounds);
    }
    let line = |what: &str, all: &mut [f64], at: f64, bar: &str| {
        println!("{what:<58} {:>10.2} µs  {bar}", quantile(all, at) * 1e6);
    };
    println!("after {freed} series were forgotten, and freed as their places were needed:");
    line(
        "registration of a new series, median",
        &mut made,
        0.5,
        "bar 2",
    );
    line(
        "registration of a known one, median",
        &mut known,
        0.5,
        "bar 0.3",
    );
    let coming = "a round in which 10,000 come, p99";
    line(coming, &mut met, 0.99, "bar 1,000");
    line("the same, the longest", &mut met, 1.0, "");
    line(
        "a round in which 10,000 leave, median",
        &mut rounds,
        0.5,
        "",
    );
    line("the same, p99", &mut rounds, 0.99, "bar 1,000");
    line("the same, the longest", &mut rounds, 1.0, "");
    let (mut before, mut exchanges) = (Vec::new(), Vec::new());
    let handles: Vec<Counter> = (0..LIVING)
        .map(|n| bus.intern(&family, &labels(n)).expect("room"))
        .map(|id| Counter::from(Handle::new(bus, id, Clock::Coarse, &[])))
        .collect();
    for _ in 0..if is_measured() { 100 } else { 3 } {
        handles.iter().for_each(Counter::inc);
        settle(&mut aggregator, &mut Vec::new());
        // Before and after the exchange it takes the time of whoever asked.
        let spare = timed(&mut before, || Spare::make(bus, &options));
        let mut spare = spare.expect("room for two snapshots");
        let exchanged = timed(&mut exchanges, || aggregator.begin_anew(&mut spare));
        exchanged.expect("a snapshot that can be renamed");
    }
    println!("resets of 10,000 series:");
    line(
        "a new snapshot, made beside the rounds, median",
        &mut before,
        0.5,
        "",
    );
    line(
        "it takes the old one's place, median",
        &mut exchanges,
        0.5,
        "",
    );
    line("the same, the longest", &mut exchanges, 1.0, "bar 1,000");
}

fn labels(n: u32) -> Vec<(String, String)> {
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    vec![label("set", &n.to_string()), label("model", "qwen3-vl")]
}

fn timed<T>(times: &mut Vec<f64>, what: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let made = what();
    times.push(start.elapsed().as_secs_f64());
    made
}

/// Rounds until nothing is left to do.
fn settle(aggregator: &mut Aggregator, rounds: &mut Vec<f64>) {
    let mut idle = 0;
    while idle < 3 {
        let round = timed(rounds, || aggregator.round());
        idle = if round.is_idle() { idle + 1 } else { 0 };
        if idle > 0 {
            // Walks for forgotten series begin 20 ms apart.
            std::thread::sleep(Duration::from_millis(21));
        }
    }
}
