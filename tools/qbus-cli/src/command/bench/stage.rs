//! The bench's own bus and its aggregator.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use qbus::{Address, Bus, Removal};
use qbus_aggregate::{Aggregator, AggregatorOptions, Reader};
use rustix::time::{ClockId, clock_gettime};

use super::interrupted;
use crate::error::{Doing, Error};

/// What an aggregator takes, at most, to commit a few records, on any machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A bus, and an aggregator on a thread of this process, so that nothing is left when it is killed but
/// the file; all of it goes with the stage, also on an error.
pub(super) struct Stage<'a> {
    bus: Bus,
    address: Address,
    /// Whether the user wants to go.
    stop: &'a AtomicBool,
    aggregator: Option<Aggregating>,
}

struct Aggregating {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Stage<'_> {
    /// Makes a bus as `qbus agg` would.
    pub(super) fn create(stop: &AtomicBool) -> Result<Stage<'_>, Error> {
        let address: Address = format!("bench-{}", std::process::id())
            .parse()
            .map_err(Error::failed)?;
        let bus = Bus::create(&address, &qbus::BusOptions::default()).map_err(Error::failed)?;
        Ok(Stage {
            bus,
            address,
            stop,
            aggregator: None,
        })
    }

    pub(super) fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Starts an aggregator, after the one before.
    pub(super) fn aggregate(&mut self, spin: bool) -> Result<(), Error> {
        self.end_aggregator();
        let mut aggregator =
            Aggregator::open(&self.bus, &AggregatorOptions::default()).map_err(Error::failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let aggregate = move || {
            // A handful of series: its snapshot has no need to grow.
            aggregator.run(spin, &|| stopped.load(Ordering::Relaxed), &mut |_| {});
            let time = clock_gettime(ClockId::ThreadCPUTime);
            Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
        };
        let thread = thread::Builder::new().name("aggregator".to_owned());
        let thread = thread.spawn(aggregate).doing("start the aggregator")?;
        self.aggregator = Some(Aggregating { stop, thread });
        Ok(())
    }

    /// Ends the aggregator; the processor time that it took.
    pub(super) fn end_aggregator(&mut self) -> Duration {
        let Some(aggregating) = self.aggregator.take() else {
            return Duration::ZERO;
        };
        aggregating.stop.store(true, Ordering::Relaxed);
        aggregating.thread.join().unwrap_or_default()
    }

    pub(super) fn reader(&self) -> Result<Reader, Error> {
        Reader::open(&self.address.snapshot())
            .map_err(|error| Error::reading(&self.address, &error))
    }

    /// An error when the user wants to go.
    pub(super) fn interrupted(&self) -> Result<(), Error> {
        interrupted(self.stop)
    }

    /// Waits until nothing is left in the lanes.
    pub(super) fn settle(&self) -> Result<(), Error> {
        let start = Instant::now();
        while self.bus.lanes().iter().any(|lane| lane.fill > 0) {
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

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        self.end_aggregator();
        let _ = Bus::remove(&self.address, Removal::Forced);
    }
}
