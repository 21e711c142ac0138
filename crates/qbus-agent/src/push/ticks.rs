//! Reads the snapshot every so often, and fills the queues.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use qbus::{Bus, Clock};
use qbus_aggregate::{ReadError, ReadOptions, Reader, Series, Snapshot};

use super::batch::{Batches, Saying};
use super::ended::ended;
use super::metrics::Metrics;
use super::queue::Queue;
use super::{PushOptions, Report};
use crate::view::{Source, Unready};

/// Type, help and unit of each family are sent again after this.
const METADATA_EVERY: Duration = Duration::from_secs(60);
/// Records wait for their commit: an exemplar can be a little older than the reading that missed
/// it.
const LATE_NS: u64 = 1_000_000_000;

pub(super) struct Ticks {
    source: Source,
    interval: Duration,
    lanes: Vec<(Batches, Arc<Queue>)>,
    metrics: Option<Metrics>,
    report: Report,
    /// What the last reading found.
    before: Vec<Series>,
    time_ns: u64,
    described: Option<Instant>,
    is_unready: bool,
}

impl Ticks {
    pub(super) fn new(
        bus: &Bus,
        snapshot: PathBuf,
        options: &PushOptions,
        lanes: Vec<(Batches, Arc<Queue>)>,
        report: Report,
    ) -> Ticks {
        let shown = options
            .destinations
            .iter()
            .map(|one| one.shown().to_owned());
        let queues = lanes.iter().map(|(_, queue)| queue.clone());
        let metrics = options
            .self_metrics
            .then(|| Metrics::new(bus, shown.zip(queues).collect()));
        // Time goes on from what a process before has left.
        let newest_ms = lanes.iter().map(|(_, queue)| queue.newest_ms()).max();
        Ticks {
            source: Source::new(snapshot, None),
            interval: options.interval,
            lanes,
            metrics,
            report,
            before: Vec::new(),
            time_ns: newest_ms.unwrap_or(0) * 1_000_000,
            described: None,
            is_unready: false,
        }
    }

    /// Until `stop` has nobody at its other end; then once more.
    pub(super) fn run(mut self, stop: &Receiver<()>) {
        let mut next = Instant::now() + self.interval;
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
        // A clock that was set back must not make samples that are refused as old.
        let (last_ns, now_ns) = (self.time_ns, Clock::Precise.now_ns());
        self.time_ns = now_ns.max(last_ns + 1_000_000);
        let is_described = self
            .described
            .is_some_and(|at| at.elapsed() < METADATA_EVERY);
        if !is_described {
            self.described = Some(Instant::now());
        }
        let saying = Saying {
            time_ns: self.time_ns,
            exemplars_since_ns: last_ns.saturating_sub(LATE_NS),
            metadata: !is_described,
            is_end: false,
        };
        let ended = ended(std::mem::take(&mut self.before), &snapshot.series);
        for (batches, queue) in &self.lanes {
            let proven = queue.is_proven();
            for batch in batches.encode(&snapshot.series, &saying, proven) {
                queue.push(batch);
            }
            if !ended.is_empty() {
                let end = Saying {
                    metadata: false,
                    is_end: true,
                    ..saying
                };
                for batch in batches.encode(&ended, &end, proven) {
                    queue.push(batch);
                }
            }
        }
        self.before = snapshot.series;
    }
}
