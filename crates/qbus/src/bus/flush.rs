//! Waits until what was emitted is committed.

use std::time::{Duration, Instant};

use super::Bus;
use crate::doorbell;
use crate::error::FlushError;
use crate::lane::cell::Fate;

/// Between two looks at the lanes, at first; then longer.
const NAP: Duration = Duration::from_micros(20);
const NAP_MAX: Duration = Duration::from_millis(1);
/// Between two looks whether there is an aggregator at all.
const ASK_EVERY: Duration = Duration::from_millis(50);

impl Bus {
    /// Waits until all that was emitted before this call, by any process, is committed to the
    /// snapshot: `patience` at most. Wakes the aggregator if it sleeps.
    ///
    /// # Errors
    ///
    /// There is no aggregator, it was not done in time, or there is no room for some series.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let address = format!("doc-flush-{}", std::process::id()).parse()?;
    /// # let bus = qbus::Bus::create(&address, &qbus::BusOptions::default())?;
    /// use std::time::Duration;
    /// bus.counter("tokens_total").register()?.inc();
    /// let flushed = bus.flush(Duration::from_secs(1));
    /// assert_eq!(flushed, Err(qbus::FlushError::NoAggregator));
    /// # qbus::Bus::remove(&address, qbus::Removal::Forced)?;
    /// # Ok(()) }
    /// ```
    pub fn flush(&self, patience: Duration) -> Result<(), FlushError> {
        let lanes = 0..self.mapped.geometry.lanes as usize;
        let goal = |lane| (lane, self.end(lane), self.mapped.bank(lane).pulses());
        let mut waiting: Vec<_> = lanes.map(goal).collect();
        let start = Instant::now();
        let (mut nap, mut asked, mut without_room) = (NAP, None, 0);
        loop {
            // A lane's head, and what its cells have seen, is stored after the commit.
            waiting.retain(|(lane, end, pulses)| {
                let fate = self.mapped.bank(*lane).fate(pulses);
                let is_done = self.mapped.lane(*lane).head() >= *end && fate != Fate::Unread;
                without_room += usize::from(is_done && fate == Fate::NoRoom);
                !is_done
            });
            if waiting.is_empty() {
                return match without_room {
                    0 => Ok(()),
                    lanes => Err(FlushError::NoRoom { lanes }),
                };
            }
            let waited = start.elapsed();
            if asked.is_none_or(|asked| waited - asked >= ASK_EVERY) {
                asked = Some(waited);
                if !self.aggregator().is_some_and(|aggregator| aggregator.alive) {
                    return Err(FlushError::NoAggregator);
                }
            }
            if waited >= patience {
                return Err(FlushError::TimedOut {
                    lanes: waiting.len(),
                });
            }
            self.wake_aggregator();
            std::thread::sleep(nap);
            nap = (nap * 2).min(NAP_MAX);
        }
    }

    /// Wakes the aggregator if it sleeps, so that it sees what was just emitted.
    pub fn wake_aggregator(&self) {
        doorbell::ring(&self.mapped.header().doorbell);
    }

    /// Where a lane ends: all positions below were claimed.
    pub(super) fn end(&self, lane: usize) -> u64 {
        let ring = self.mapped.lane(lane);
        if lane < self.mapped.geometry.shared_lanes as usize {
            ring.frontier()
        } else {
            // What a lane cannot hold is garbage.
            ring.tail().min(ring.head().saturating_add(ring.capacity()))
        }
    }
}
