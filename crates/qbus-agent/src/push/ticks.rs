//! Reads the snapshot every so often, and fills the queues.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use qbus::{Bus, Clock};
use qbus_aggregate::{ReadError, ReadOptions, Reader, Series, Snapshot};

use super::batch::{Batches, Saying};
use super::ended::{are_same, ended};
use super::metrics::Metrics;
use super::queue::Queue;
use super::{Log, PushOptions};
use crate::view::{SnapshotSource, Unready};

/// Type, help and unit of each family are sent again after this.
const METADATA_EVERY: Duration = Duration::from_secs(60);
/// Records wait for their commit: an exemplar can be a little older than the reading that missed
/// it.
const LATE_NS: u64 = 1_000_000_000;
/// The first reading is no later than this: a successor speaks before anybody misses its
/// predecessor.
const FIRST: Duration = Duration::from_secs(1);
/// What a predecessor told of may be made anew: by the sampler, by workers that start as well. What
/// is not there after this, and two intervals, has ended.
const SETTLED: Duration = Duration::from_secs(3);
/// A clock that was set back by more is believed, although receivers may refuse what is old.
const AHEAD_MAX_NS: u64 = 3_600_000_000_000;
/// What ended is said to have done so a moment before the values of what is there.
const MOMENT_NS: u64 = 1_000_000;

/// Nothing is sent on more seldom.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

pub(super) struct Ticks {
    source: SnapshotSource,
    interval: Duration,
    routes: Vec<Route>,
    metrics: Option<Metrics>,
    report: Log,
    /// What the last reading found.
    before: Vec<Series>,
    time_ns: u64,
    started: Instant,
    described: Option<Instant>,
    is_unready: bool,
}

/// A destination.
struct Route {
    batches: Batches,
    queue: Arc<Queue>,
    /// What a process before this one told of, and was not seen since.
    inherited: Vec<Series>,
}

impl Ticks {
    pub(super) fn new(
        bus: &Bus,
        snapshot: PathBuf,
        options: &PushOptions,
        routes: Vec<(String, Batches, Arc<Queue>)>,
        report: Log,
    ) -> Ticks {
        let queues = routes
            .iter()
            .map(|(shown, _, queue)| (shown.clone(), queue.clone()));
        let metrics = options
            .self_metrics
            .then(|| Metrics::new(bus, queues.collect()));
        // Time goes on from what a process before has left.
        let newest_ms = routes.iter().map(|(.., queue)| queue.newest_ms()).max();
        let route = |(_, batches, queue): (String, Batches, Arc<Queue>)| Route {
            inherited: queue.said(),
            batches,
            queue,
        };
        Ticks {
            source: SnapshotSource::new(snapshot, None),
            // However short it is, others have a core too; and no clock goes on for ever.
            interval: options.interval.clamp(Duration::from_millis(1), LONGEST),
            routes: routes.into_iter().map(route).collect(),
            metrics,
            report,
            before: Vec::new(),
            time_ns: newest_ms.unwrap_or(0).saturating_mul(1_000_000),
            started: Instant::now(),
            described: None,
            is_unready: false,
        }
    }

    /// Until `stop` has nobody at its other end; then once more.
    pub(super) fn run(mut self, stop: &Receiver<()>) {
        let mut next = Instant::now() + self.interval.min(FIRST);
        loop {
            let wait = next.saturating_duration_since(Instant::now());
            let is_over = stop.recv_timeout(wait) != Err(RecvTimeoutError::Timeout);
            if let Some(metrics) = &mut self.metrics {
                metrics.emit();
            }
            self.tick();
            if is_over {
                return;
            }
            // A tick that took too long is not made up for.
            next = (next + self.interval).max(Instant::now());
        }
    }

    fn tick(&mut self) {
        let read = |reader: &mut Reader| reader.read(&ReadOptions::default());
        let snapshot = match self.source.read(read) {
            Ok(snapshot) => snapshot,
            // The first commit is a moment away.
            Err(Unready::Read(ReadError::Empty)) => return,
            Err(error) => {
                if !std::mem::replace(&mut self.is_unready, true) {
                    (self.report)(format!("nothing can be sent on: {error}"));
                }
                return;
            }
        };
        self.is_unready = false;
        self.send(snapshot);
    }

    fn send(&mut self, snapshot: Snapshot) {
        let last_ns = self.time_ns;
        self.time_ns = next_ns(last_ns, Clock::Precise.now_ns());
        let is_described = self
            .described
            .is_some_and(|at| at.elapsed() < METADATA_EVERY);
        if !is_described {
            self.described = Some(Instant::now());
        }
        let saying = Saying {
            time_ns: self.time_ns,
            exemplars_since_ns: last_ns.min(self.time_ns).saturating_sub(LATE_NS),
            metadata: !is_described,
            is_end: false,
        };
        let now = snapshot.series;
        let is_changed = !are_same(&self.before, &now);
        let ended = ended(std::mem::take(&mut self.before), &now);
        let is_settled = self.started.elapsed() >= SETTLED.max(2 * self.interval);
        for route in &mut self.routes {
            route.say(&now, &ended, &saying, is_changed, is_settled);
        }
        self.before = now;
    }
}

impl Route {
    /// Fills the queue with what is there now, and with the end of what is not any more.
    fn say(
        &mut self,
        now: &[Series],
        ended_now: &[Series],
        saying: &Saying,
        is_changed: bool,
        is_settled: bool,
    ) {
        // From now on what is there again is this process's to tell of.
        self.inherited = ended(std::mem::take(&mut self.inherited), now);
        let over = if is_settled {
            std::mem::take(&mut self.inherited)
        } else {
            Vec::new()
        };
        let proven = self.queue.is_proven();
        let is_changed = is_changed || !over.is_empty();
        let mut ends: Vec<Series> = ended_now.iter().cloned().chain(over).collect();
        ends.sort_by(|a, b| a.family.name.cmp(&b.family.name));
        if is_changed {
            // First: whoever is killed has told of no more than is known to its successor.
            let all = now.iter().chain(&ends).chain(&self.inherited);
            self.queue.note_said(all);
        }
        if !ends.is_empty() {
            let end = Saying {
                time_ns: saying.time_ns.saturating_sub(MOMENT_NS),
                metadata: false,
                is_end: true,
                ..*saying
            };
            self.push(&ends, &end, proven);
        }
        self.push(now, saying, proven);
        if !ends.is_empty() {
            self.queue.note_said(now.iter().chain(&self.inherited));
        }
    }

    fn push(&self, series: &[Series], saying: &Saying, proven: bool) {
        for batch in self.batches.encode(series, saying, proven) {
            self.queue.push(batch);
        }
    }
}

/// The time of the next samples. A clock that was set back a little must not make samples that are
/// refused as old; and there is a moment between this time and the last.
fn next_ns(last_ns: u64, now_ns: u64) -> u64 {
    if last_ns > now_ns.saturating_add(AHEAD_MAX_NS) {
        return now_ns;
    }
    now_ns.max(last_ns.saturating_add(2 * MOMENT_NS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_over_steps_of_the_clock() {
        let hour = AHEAD_MAX_NS;
        let now = 1_000 * hour;
        assert_eq!(next_ns(0, now), now);
        assert_eq!(next_ns(now - 10 * MOMENT_NS, now), now);
        // Set back by a moment, and by an hour.
        assert_eq!(next_ns(now + 1, now), now + 1 + 2 * MOMENT_NS);
        assert_eq!(next_ns(now + hour, now), now + hour + 2 * MOMENT_NS);
        // What a broken file says, or a clock that was years ahead.
        assert_eq!(next_ns(now + hour + 1, now), now);
        assert_eq!(next_ns(u64::MAX, now), now);
        assert_eq!(next_ns(u64::MAX, u64::MAX), u64::MAX);
    }
}
