//! Emits, and writes a journal: `test-victim BUS JOURNAL LANE WORKER RECORDS`.
//!
//! It joins, registers, emits until so many records were accepted, waits until its input is closed,
//! gives its lane back, and leaves. The environment says at which test point it dies or stops.

use std::error::Error;
use std::io::{self, Read};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Bus, Clock, Kind, Record};
use qbus_tests::{Journal, Lane};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bus, journal, lane, worker, records] = args.as_slice() else {
        return Err("expected BUS JOURNAL LANE WORKER RECORDS".into());
    };
    let (bus, journal) = (Bus::open(&bus.parse()?)?, Journal::open(Path::new(journal)));
    let records: u64 = records.parse()?;
    let register = |part: &str, help: &str| {
        let counter = bus.counter("test_victim").label("worker", worker);
        counter.help(help).label("part", part).register()
    };
    let counter = register("all", "")?;
    // More of them, so that a later registration can be the one that is cut short. What is
    // forgotten comes back when it is registered again. The last help text counts.
    for part in ["a", "b", "c"] {
        register(part, "")?.forget();
        register(part, &format!("Of part {part}."))?;
    }
    let is_lane = |known: Lane| *lane == format!("{known:?}");
    let producer = match () {
        // The thread's own, with its cells.
        () if is_lane(Lane::Handle) => None,
        () if is_lane(Lane::Shared) => Some(bus.shared_producer()?),
        () => Some(bus.producer()?),
    };
    let (mut accepted, mut last, mut gap) = (0, Instant::now(), Duration::ZERO);
    while accepted < records {
        let now_ns = Clock::Precise.now_ns();
        let record = Record::new(now_ns, counter.series(), Kind::Increment, 1.0);
        let emit = || match &producer {
            Some(producer) => producer.emit(record),
            None => counter.try_add(1.0),
        };
        if journal.emit(emit) {
            accepted += 1;
            gap = gap.max(last.elapsed());
            last = Instant::now();
        } else {
            thread::sleep(Duration::from_micros(200));
        }
    }
    journal.finish(gap.as_nanos() as u64);
    io::stdin().read_to_end(&mut Vec::new())?;
    drop(producer);
    drop(counter);
    drop(bus);
    Ok(())
}
