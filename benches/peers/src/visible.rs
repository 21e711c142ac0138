//! How long after an emit somebody else knows of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qbus::Clock;
use qbus_aggregate::Reader;
use qbus_benches::quantile;

use crate::others;
use crate::report::Section;
use crate::rounds::Cores;

pub const NAPPING: &str = "qbus, a reader of the snapshot";
pub const SPINNING: &str = "qbus with --spin, the same";

pub fn section(quick: bool) -> Section {
    let columns = &["p50", "p99", "max"];
    let mut section = Section::new("visible", "from an emit until it is visible, µs", columns);
    let cases: [Case; 4] = [
        (NAPPING, || qbus(false)),
        (SPINNING, || qbus(true)),
        ("iceoryx2, a subscriber that spins", iceoryx2),
        ("statsd, a server on a Unix socket", statsd),
    ];
    let mut measured = cases.map(|_| Vec::new());
    for _ in 0..if quick { 2 } else { 20 } {
        for ((_, emits), measured) in cases.iter().zip(&mut measured) {
            measured.extend(emits());
        }
    }
    for ((name, _), mut measured) in cases.into_iter().zip(measured) {
        section.row(name, [0.5, 0.99, 1.0].map(|q| quantile(&mut measured, q)));
    }
    section.notes.push(
        "0 to 10 ms between emits, after a few that nobody counts; ours is folded and committed, \
        theirs is received; who waits spins, on a core of its own"
            .to_owned(),
    );
    section
}

/// What is measured, and a round of it.
type Case = (&'static str, fn() -> Vec<f64>);

/// Emits of a round.
const EMITS: u64 = 50;
/// Emits before, which join, place the series and fault memory in.
const WARM_UP: u64 = 8;

/// Calls `emit` again and again, and waits until `known` has changed.
fn measure(emit: impl Fn(u64), known: impl Fn() -> u64) -> Vec<f64> {
    let mut measured = Vec::new();
    for n in 1..=WARM_UP + EMITS {
        // Apart by different times, so that naps are met at every point.
        thread::sleep(Duration::from_micros(n * 7919 % 10_000));
        let before = known();
        let start = Instant::now();
        emit(n);
        while known() == before {
            assert!(start.elapsed() < Duration::from_secs(10), "nothing comes");
            std::hint::spin_loop();
        }
        measured.push(start.elapsed().as_nanos() as f64 / 1000.0);
    }
    measured.drain(..WARM_UP as usize);
    measured
}

fn qbus(spin: bool) -> Vec<f64> {
    let cores = Cores::for_consumers();
    let bench = qbus_benches::start("visible", spin);
    let gauge = bench.bus().gauge("bench_level").clock(Clock::Coarse);
    let gauge = gauge.register().expect("a new bus takes it");
    let reader = Reader::open(&bench.bus().address().snapshot()).expect("an aggregator runs");
    cores.for_emitter();
    measure(|n| gauge.set(n as f64), || reader.globals().records)
}

/// A word that tells what a thread has received.
#[derive(Clone, Default)]
struct Received(Arc<AtomicU64>);

impl Received {
    fn one_more(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    fn so_far(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

fn iceoryx2() -> Vec<f64> {
    let received = Received::default();
    let tell = received.clone();
    let cores = Cores::for_consumers();
    let _receiving = others::Receiving::start("visible", true, move |_| tell.one_more());
    let publisher = others::publisher("visible");
    cores.for_emitter();
    measure(
        |n| others::publish(&publisher, [n; 8]),
        || received.so_far(),
    )
}

fn statsd() -> Vec<f64> {
    let received = Received::default();
    let tell = received.clone();
    let cores = Cores::for_consumers();
    let statsd = others::Statsd::start(move |packet| {
        // As much as a server has to do at least: find the name and the value.
        let line = std::str::from_utf8(packet).unwrap_or_default();
        let value = line
            .split_once(':')
            .and_then(|(_, rest)| rest.split_once('|'));
        if value.is_some_and(|(value, _)| value.parse::<f64>().is_ok()) {
            tell.one_more();
        }
    });
    cores.for_emitter();
    measure(|_| statsd.count(1), || received.so_far())
}
