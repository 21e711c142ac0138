//! What the aggregator costs under a steady load, how soon it shows, and what it loses: nothing.
#![allow(clippy::print_stdout)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Bus, Clock};
use qbus_aggregate::{Ledger, Reader, Value};
use qbus_benches::{is_measured, print_machine, quantile, start};

const WORKERS: u32 = 8;
/// Workers emit what is due and sleep for so long.
const TICK: Duration = Duration::from_millis(1);
/// Nobody else's record shows sooner than it is looked for.
const LOOK: Duration = Duration::from_micros(20);

/// What workers emit.
#[derive(Clone, Copy, Debug)]
enum Load {
    Counters,
    Gauges,
    Histograms,
}

/// Shares of a core in percent, and microseconds.
struct Bars {
    core: f64,
    p99_us: f64,
}

fn main() {
    let seconds = if is_measured() { 5.0 } else { 0.1 };
    print_machine("the aggregator under the load of 8 workers");
    println!(
        "{:<34} {:>9} {:>9} {:>9} {:>9} {:>8}",
        "", "% core", "p50 µs", "p99 µs", "dropped", ""
    );
    for load in [Load::Counters, Load::Gauges, Load::Histograms] {
        let bars = Bars {
            core: 1.5,
            p99_us: 2000.0,
        };
        steady(load, 100_000, seconds, &bars);
    }
    for load in [Load::Counters, Load::Histograms] {
        let bars = Bars {
            core: 4.0,
            p99_us: 2000.0,
        };
        steady(load, 1_000_000, seconds, &bars);
    }
    full_speed(seconds);
}

/// Workers that emit so many records a second, and a reader that looks how soon a gauge shows.
fn steady(load: Load, rate: u32, seconds: f64, bars: &Bars) {
    let mut stage = start("load", false);
    let bus = stage.bus().clone();
    let is_over = AtomicBool::new(false);
    let begin = Instant::now();
    let mut seen = thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (bus, is_over) = (&bus, &is_over);
            scope.spawn(move || work(bus, load, worker, rate / WORKERS, is_over));
        }
        let seen = look(&bus, Duration::from_secs_f64(seconds));
        is_over.store(true, Ordering::Relaxed);
        seen
    });
    let took = begin.elapsed();
    let used = stage.end_aggregator();
    let reader = Reader::open(&bus.address().snapshot()).expect("a snapshot");
    let ledger = Ledger::read(&bus, Some(&reader)).expect("the locks answer");
    let core = used.as_secs_f64() / took.as_secs_f64() * 100.0;
    let [median, p99] = [0.5, 0.99].map(|q| quantile(&mut seen, q));
    let is_met = core <= bars.core && p99 <= bars.p99_us && ledger.dropped() == 0;
    println!(
        "{:<34} {core:>9.2} {median:>9.0} {p99:>9.0} {:>9} {:>8}",
        format!("{load:?}, {rate}/s"),
        ledger.dropped(),
        if is_met { "met" } else { "not met" }
    );
}

fn work(bus: &Bus, load: Load, worker: u32, rate: u32, is_over: &AtomicBool) {
    let label = worker.to_string();
    let counter = bus
        .counter("bench_total")
        .label("worker", &label)
        .register();
    let gauge = bus.gauge("bench_level").label("worker", &label).register();
    let histogram = bus.histogram("bench_seconds").label("worker", &label);
    let histogram = histogram.buckets((0..11).map(f64::from)).register();
    let (counter, gauge) = (counter.expect("room"), gauge.expect("room"));
    let histogram = histogram.expect("room");
    let (begin, mut emitted) = (Instant::now(), 0_u64);
    while !is_over.load(Ordering::Relaxed) {
        let due = (begin.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        for n in emitted..due {
            match load {
                Load::Counters => counter.inc(),
                Load::Gauges => gauge.set(n as f64),
                Load::Histograms => histogram.observe((n % 12) as f64),
            }
        }
        emitted = due.max(emitted);
        thread::sleep(TICK);
    }
}

/// How long it took each time until a gauge showed, in microseconds.
fn look(bus: &Bus, time: Duration) -> Vec<f64> {
    let gauge = bus.gauge("bench_seen").clock(Clock::Coarse).register();
    let gauge = gauge.expect("room");
    let mut reader = Reader::open(&bus.address().snapshot()).expect("an aggregator runs");
    let (begin, mut seen) = (Instant::now(), Vec::new());
    for n in 1_u64.. {
        if begin.elapsed() >= time && !seen.is_empty() {
            break;
        }
        // Apart by different times, so that naps are met at every point.
        thread::sleep(Duration::from_micros(1000 + n * 7919 % 5000));
        let emitted = Instant::now();
        gauge.set(n as f64);
        let shows = Value::Gauge(n as f64);
        while reader
            .series(gauge.series(), false)
            .map(|series| series.value)
            != Some(shows.clone())
        {
            thread::sleep(LOOK);
        }
        seen.push(emitted.elapsed().as_nanos() as f64 / 1000.0);
    }
    seen
}

/// One producer that emits as fast as the aggregator lets it: records a second that are committed.
fn full_speed(seconds: f64) {
    let mut stage = start("speed", false);
    let bus = stage.bus().clone();
    let counter = bus.counter("bench_total").register().expect("a new bus");
    let begin = Instant::now();
    let mut emitted = 0_u64;
    while begin.elapsed().as_secs_f64() < seconds {
        for _ in 0..1000 {
            while counter.try_add(1.0).is_err() {
                std::hint::spin_loop();
            }
            emitted += 1;
        }
    }
    stage.end_aggregator();
    let rate = emitted as f64 / begin.elapsed().as_secs_f64() / 1e6;
    println!("\none producer at full speed: {rate:.1} million records/s committed, none lost");
}
