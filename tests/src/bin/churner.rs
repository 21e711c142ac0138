//! Goes through label sets: `test-churner BUS WORKER SETS WINDOW`.
//!
//! Of each set it registers a series, emits to it, and forgets it when so many later ones live. It
//! keeps some handles of forgotten ones, and emits to them much later. In the end it says what the
//! living ones have, a line each, and stays until its input is closed.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, Read, Write};
use std::thread::sleep;
use std::time::Duration;

use qbus::{Bus, Counter, EmitError, Histogram, RegisterError};
use qbus_aggregate::Reader;

/// Of so many sets one is a histogram's.
const HISTOGRAM: u64 = 5;
/// One in so many handles is kept past its series' end, ...
const KEPT: u64 = 997;

enum Living {
    Counter(Counter),
    Histogram(Histogram),
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bus, worker, sets, window] = args.as_slice() else {
        return Err("expected BUS WORKER SETS WINDOW".into());
    };
    let bus = Bus::open(&bus.parse()?)?;
    let (sets, window): (u64, usize) = (sets.parse()?, window.parse()?);
    writeln!(io::stdout(), "ready")?;
    let mut living = VecDeque::new();
    let mut kept: VecDeque<(u64, Counter)> = VecDeque::new();
    for set in 0..sets {
        let series = register(&bus, worker, set)?;
        emit(&series, calls(set));
        living.push_back((set, series));
        if living.len() > window
            && let Some((old, series)) = living.pop_front()
        {
            match series {
                Living::Histogram(histogram) => histogram.forget(),
                Living::Counter(counter) => {
                    counter.forget();
                    if old % KEPT == 0 {
                        kept.push_back((old, counter));
                    }
                }
            }
        }
    }
    // Long after others had their places: they register again by themselves.
    let mut out = io::stdout().lock();
    let mut reader = Reader::open(&bus.address().snapshot())?;
    for (set, counter) in kept {
        // What is emitted before the aggregator has seen that it is forgotten may count as earlier.
        while reader.series(counter.series(), false).is_some() {
            sleep(Duration::from_millis(1));
        }
        for _ in 0..2 {
            // Refused while the registry is full, as a registration is.
            while counter.try_add(1.0) == Err(EmitError::Unregistered) {
                sleep(Duration::from_millis(1));
            }
        }
        writeln!(out, "kept {set} {}", calls(set))?;
    }
    for (set, series) in &living {
        emit(series, 1);
        let name = match series {
            Living::Counter(_) => "counter",
            Living::Histogram(_) => "histogram",
        };
        writeln!(out, "{name} {set} {}", calls(*set) + 1)?;
    }
    writeln!(out, "done")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// How often a set is emitted to.
fn calls(set: u64) -> u64 {
    set % 7 + 1
}

fn emit(series: &Living, calls: u64) {
    for _ in 0..calls {
        match series {
            Living::Counter(counter) => counter.inc(),
            Living::Histogram(histogram) => histogram.observe(0.5),
        }
    }
}

/// Waits while the registry is full: the aggregator may be dead.
fn register(bus: &Bus, worker: &str, set: u64) -> Result<Living, RegisterError> {
    // Of several lengths: definitions of several sizes.
    let text = format!("{set}{}", "-".repeat(set as usize % 3 * 60));
    let labels = [("worker", worker), ("set", &text)];
    loop {
        let registered = if set.is_multiple_of(HISTOGRAM) {
            let histogram = bus.histogram("churn_seconds").buckets([0.1, 1.0]);
            histogram.labels(labels).register().map(Living::Histogram)
        } else {
            let counter = bus.counter("churn_total").labels(labels);
            counter.register().map(Living::Counter)
        };
        match registered {
            Err(RegisterError::Full { .. }) => sleep(Duration::from_millis(1)),
            other => return other,
        }
    }
}
