//! How long single emits take while a consumer drains: the tail, and not only the mean.

use std::hint::{black_box, spin_loop};

use hdrhistogram::Histogram;
use qbus::{Clock, Kind, Record};
use quanta::Clock as Cycles;

use crate::others;
use crate::report::Section;
use crate::rounds::Cores;

/// Cycles between two emits, at least: an emitter that has something else to do, too.
const APART: u64 = 1000;

type Call<'a> = (&'static str, Box<dyn FnMut(u32) + 'a>);

pub fn section(quick: bool) -> Section {
    let columns = &["p50", "p99", "p99.9", "max"];
    let title = "single emits while a consumer drains, ns";
    let mut section = Section::new("single", title, columns);
    let cores = Cores::for_consumers();
    let bench = qbus_benches::start("single", false);
    let bus = bench.bus();
    let failed = "a new bus takes it";
    let counter = bus.counter("bench_total").register().expect(failed);
    let gauge = bus.gauge("bench_level").register().expect(failed);
    let series = counter.series();
    let [own, shared] = [bus.producer(), bus.shared_producer()].map(|lane| lane.expect(failed));
    let record = Record::new(Clock::Precise.now_ns(), series, Kind::Increment, 1.0);
    let prometheus_client = others::prometheus_client_counter();
    let publisher = others::publisher("single");
    let subscribed = others::Receiving::start("single", false, |payload| {
        black_box(payload);
    });
    let statsd = others::Statsd::start(|_| {});
    let calls: Vec<Call<'_>> = vec![
        ("nothing: what measuring adds", Box::new(|_| {})),
        ("Counter::inc (coarse clock)", Box::new(|_| counter.inc())),
        (
            "Gauge::set (precise clock)",
            Box::new(|n| gauge.set(f64::from(n))),
        ),
        (
            "Producer::emit, own lane, no clock",
            Box::new(|_| {
                let _ = own.emit(record);
            }),
        ),
        (
            "Producer::emit, shared lane, no clock",
            Box::new(|_| {
                let _ = shared.emit(record);
            }),
        ),
        (
            "prometheus-client Counter::inc",
            Box::new(prometheus_client),
        ),
        (
            "iceoryx2 publish, 64 bytes",
            Box::new(|n| others::publish(&publisher, [u64::from(n); 8])),
        ),
        ("cadence count, Unix socket", Box::new(|_| statsd.count(1))),
    ];
    let rounds = if quick { 20 } else { 150 };
    let cycles = Cycles::new();
    let mut measured: Vec<_> = calls
        .into_iter()
        .map(|(name, call)| (name, call, Histogram::<u64>::new(3).expect("3 digits")))
        .collect();
    cores.for_emitter();
    for _ in 0..rounds {
        for (_, call, histogram) in &mut measured {
            measure(&cycles, 1000, call, histogram);
        }
    }
    for (name, _, histogram) in &measured {
        let ns = |cycles_taken| {
            // Of a million, so that less than a nanosecond is told apart.
            cycles.delta_as_nanos(0, cycles_taken * 1_000_000) as f64 / 1e6
        };
        let quantiles = [0.5, 0.99, 0.999, 1.0];
        section.row(*name, quantiles.map(|q| ns(histogram.value_at_quantile(q))));
    }
    drop(subscribed);
    section.notes.push(format!(
        "{} emits each; differences of the cycle counter, which goes in steps of {:.1} ns; the \
        first row is part of all others",
        rounds * 1000,
        step_ns(&cycles)
    ));
    section
}

/// By how much the counter differs from one reading to the next, mostly.
fn step_ns(cycles: &Cycles) -> f64 {
    let readings: Vec<u64> = (0..1000).map(|_| cycles.raw()).collect();
    let mut steps: Vec<u64> = readings.windows(2).map(|pair| pair[1] - pair[0]).collect();
    steps.retain(|step| *step > 0);
    steps.sort_unstable();
    let median = steps.get(steps.len() / 2).copied().unwrap_or(0);
    cycles.delta_as_nanos(0, median * 1_000_000) as f64 / 1e6
}

fn measure(cycles: &Cycles, calls: u32, call: &mut dyn FnMut(u32), taken: &mut Histogram<u64>) {
    for n in 0..calls {
        let start = cycles.raw();
        call(n);
        let end = cycles.raw();
        let _ = taken.record(end.saturating_sub(start));
        while cycles.raw() - end < APART {
            spin_loop();
        }
    }
}
