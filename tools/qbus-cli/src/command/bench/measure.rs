//! What is measured, and how.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Address, Bus, BusOptions, Clock, Counter, Kind, Record};
use qbus_aggregate::Reader;
use serde::Serialize;

use crate::error::Error;
use crate::stage::{Stage, quantile};

/// Emits of a run: half a default lane, so that none is refused.
const RUN: u32 = 2048;
/// Records a second for which the aggregator's cost is stated.
const PACE: f64 = 100_000.0;
/// How long one emit may take to become visible, and an aggregator to commit a few, on any machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// The bench's stage, until the user wants to go.
pub(super) struct Measuring<'a> {
    stage: Stage,
    stop: &'a AtomicBool,
}

impl Measuring<'_> {
    /// Makes a bus as `qbus agg` would.
    pub(super) fn start(stop: &AtomicBool) -> Result<Measuring<'_>, Error> {
        let name = format!("bench-{}", std::process::id());
        let address: Address = name.parse().map_err(Error::failed)?;
        let stage = Stage::create(&address, &BusOptions::default()).map_err(Error::failed)?;
        Ok(Measuring { stage, stop })
    }

    pub(super) fn bus(&self) -> &Bus {
        self.stage.bus()
    }

    /// Starts an aggregator, after the one before.
    pub(super) fn aggregate(&mut self, spin: bool) -> Result<(), Error> {
        self.stage.aggregate(spin).map_err(Error::failed)
    }

    fn reader(&self) -> Result<Reader, Error> {
        let address = self.bus().address();
        Reader::open(&address.snapshot()).map_err(|error| Error::reading(address, &error))
    }

    /// An error when the user wants to go.
    fn interrupted(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::Failed(
                "interrupted; the bench's bus is gone".to_owned(),
            ));
        }
        Ok(())
    }

    /// Waits until nothing is left in the lanes.
    fn settle(&self) -> Result<(), Error> {
        let start = Instant::now();
        while self.bus().lanes().iter().any(|lane| lane.fill > 0) {
            self.interrupted()?;
            if start.elapsed() > PATIENCE {
                return Err(Error::Failed(
                    "the aggregator does not keep up: nothing was committed for 10 s".to_owned(),
                ));
            }
            thread::sleep(Duration::from_micros(50));
        }
        Ok(())
    }
}

/// Nanoseconds that a call takes, over many runs.
#[derive(Debug, Serialize)]
pub(super) struct Cost {
    pub(super) name: &'static str,
    pub(super) median_ns: f64,
    pub(super) p10_ns: f64,
    pub(super) p90_ns: f64,
}

/// Microseconds from an emit until a reader sees it, over many emits.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    pub(super) name: &'static str,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// What one producer emitted as fast as it could, and what became of it.
#[derive(Debug, Serialize)]
pub(super) struct Load {
    pub(super) name: &'static str,
    pub(super) attempted: u64,
    pub(super) dropped: u64,
    pub(super) committed_per_second: f64,
}

impl Load {
    pub(super) fn dropped_ratio(&self) -> f64 {
        self.dropped as f64 / self.attempted.max(1) as f64
    }
}

/// The names of the rows that advice is derived from.
pub(super) const CLOCK_COARSE: &str = "clock alone, coarse";
pub(super) const CLOCK_PRECISE: &str = "clock alone, precise";
pub(super) const OWN_LANE: &str = "Producer::emit, own lane, coarse";
pub(super) const SHARED_LANE: &str = "Producer::emit, shared lane, coarse";

struct Case<'a> {
    name: &'static str,
    run: Box<dyn FnMut() -> f64 + 'a>,
    measured: Vec<f64>,
}

/// A call that is made [`RUN`] times; the loop is compiled with it.
fn case<'a>(name: &'static str, mut call: impl FnMut(u32) + 'a) -> Case<'a> {
    let run = move || {
        let start = Instant::now();
        for n in 0..RUN {
            call(n);
        }
        start.elapsed().as_nanos() as f64 / f64::from(RUN)
    };
    Case {
        name,
        run: Box::new(run),
        measured: Vec::new(),
    }
}

/// What an emit costs. The cases take turns, so that noise hits them alike.
pub(super) fn emit(measuring: &Measuring<'_>, time: Duration) -> Result<Vec<Cost>, Error> {
    let (bus, failed) = (measuring.bus(), Error::failed);
    let counter = bus.counter("bench_total").register().map_err(failed)?;
    let gauge = bus.gauge("bench_level").register().map_err(failed)?;
    let histogram = bus.histogram("bench_seconds").register().map_err(failed)?;
    let summary = bus
        .summary("bench_summary_seconds")
        .register()
        .map_err(failed)?;
    let own = bus.producer().map_err(Error::failed)?;
    let shared = bus.shared_producer().map_err(Error::failed)?;
    let record = |clock: Clock| Record::new(clock.now_ns(), counter.series(), Kind::Increment, 1.0);
    let emit = |producer: &qbus::Producer, clock| {
        let _ = producer.emit(record(clock));
    };
    let value = |n: u32| f64::from(n) / 1000.0;
    let mut cases = [
        case(CLOCK_COARSE, |_| {
            black_box(Clock::Coarse.now_ns());
        }),
        case(CLOCK_PRECISE, |_| {
            black_box(Clock::Precise.now_ns());
        }),
        case("Counter::inc", |_| counter.inc()),
        case("Gauge::set (precise clock)", |n| gauge.set(value(n))),
        case("Histogram::observe", |n| histogram.observe(value(n))),
        case("Summary::observe (precise clock)", |n| {
            summary.observe(value(n))
        }),
        case(OWN_LANE, |_| emit(&own, Clock::Coarse)),
        case("Producer::emit, own lane, precise", |_| {
            emit(&own, Clock::Precise)
        }),
        case(SHARED_LANE, |_| emit(&shared, Clock::Coarse)),
    ];
    let start = Instant::now();
    while start.elapsed() < time || cases[0].measured.is_empty() {
        for case in &mut cases {
            // The first run finds caches and a napping aggregator as the case before left them.
            (case.run)();
            measuring.settle()?;
            case.measured.push((case.run)());
            measuring.settle()?;
        }
    }
    let cost = |mut case: Case<'_>| {
        let [median_ns, p10_ns, p90_ns] = [0.5, 0.1, 0.9].map(|q| quantile(&mut case.measured, q));
        Cost {
            name: case.name,
            median_ns,
            p10_ns,
            p90_ns,
        }
    };
    Ok(cases.into_iter().map(cost).collect())
}

/// Between two emits while a bus is in use: different times, so that naps are met at every point.
pub(super) fn in_use(n: u64) -> Duration {
    Duration::from_micros(n * 7919 % 10_000)
}

/// Between two emits on a bus that has fallen idle.
pub(super) fn idle(n: u64) -> Duration {
    Duration::from_millis(100) + in_use(n)
}

/// How long after an emit a reader sees it; the emits are `apart` by what they ask for.
pub(super) fn visible(
    measuring: &Measuring<'_>,
    name: &'static str,
    apart: fn(u64) -> Duration,
    time: Duration,
) -> Result<Latency, Error> {
    let level = measuring.bus().gauge("bench_level").clock(Clock::Coarse);
    let level = level.register().map_err(Error::failed)?;
    let reader = measuring.reader()?;
    measuring.settle()?;
    let (start, mut measured) = (Instant::now(), Vec::new());
    while start.elapsed() < time || measured.is_empty() {
        thread::sleep(apart(measured.len() as u64));
        let before = reader.globals().records;
        let emitted = Instant::now();
        level.set(measured.len() as f64);
        while reader.globals().records == before {
            measuring.interrupted()?;
            if emitted.elapsed() > PATIENCE {
                return Err(Error::Failed(
                    "a record was not visible after 10 s".to_owned(),
                ));
            }
            spin_loop();
        }
        measured.push(emitted.elapsed().as_nanos() as f64 / 1000.0);
    }
    let [p50_us, p99_us] = [0.5, 0.99].map(|q| quantile(&mut measured, q));
    Ok(Latency {
        name,
        p50_us,
        p99_us,
    })
}

/// A record, and not the state that the counter's handle keeps: that has no lane to fill, and
/// nothing to drain.
fn increment(counter: &Counter) -> Record {
    Record::new(
        Clock::Coarse.now_ns(),
        counter.series(),
        Kind::Increment,
        1.0,
    )
}

/// One producer as fast as it goes: one that waits while its lane is full, and one that never
/// waits.
pub(super) fn sustained(measuring: &Measuring<'_>, time: Duration) -> Result<Vec<Load>, Error> {
    let counter = measuring.bus().counter("bench_total");
    let counter = counter.register().map_err(Error::failed)?;
    let producer = measuring.bus().producer().map_err(Error::failed)?;
    let waiting = load(
        measuring,
        "waits while its lane is full",
        time.mul_f64(0.75),
        || producer.emit_or_wait(increment(&counter), PATIENCE).is_ok(),
    )?;
    let never = load(measuring, "never waits", time.mul_f64(0.25), || {
        producer.emit(increment(&counter)).is_ok()
    })?;
    Ok(vec![waiting, never])
}

/// Emits for that time; the rate is that of what was committed, until all of it was.
fn load(
    measuring: &Measuring<'_>,
    name: &'static str,
    time: Duration,
    mut emit: impl FnMut() -> bool,
) -> Result<Load, Error> {
    measuring.settle()?;
    let (start, mut attempted, mut accepted) = (Instant::now(), 0, 0_u64);
    while start.elapsed() < time {
        measuring.interrupted()?;
        for _ in 0..RUN {
            accepted += u64::from(emit());
        }
        attempted += u64::from(RUN);
    }
    measuring.settle()?;
    Ok(Load {
        name,
        attempted,
        dropped: attempted - accepted,
        committed_per_second: accepted as f64 / start.elapsed().as_secs_f64(),
    })
}

/// Emits [`PACE`] records a second, in small bursts; the rate, and the share of a core that the
/// aggregator took, which is ended by this.
pub(super) fn paced(measuring: &mut Measuring<'_>, time: Duration) -> Result<(f64, f64), Error> {
    let counter = measuring.bus().counter("bench_total");
    let counter = counter.register().map_err(Error::failed)?;
    let producer = measuring.bus().producer().map_err(Error::failed)?;
    let (start, mut emitted) = (Instant::now(), 0.0);
    while start.elapsed() < time || emitted == 0.0 {
        measuring.interrupted()?;
        thread::sleep(Duration::from_millis(1));
        while emitted < start.elapsed().as_secs_f64() * PACE {
            let _ = producer.emit_or_wait(increment(&counter), PATIENCE);
            emitted += 1.0;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let used = measuring.stage.end_aggregator();
    Ok((emitted / seconds, used.as_secs_f64() / seconds))
}
