//! What a collector says of itself.

use std::sync::Mutex;
use std::time::Duration;

use qbus_aggregate::{Ledger, Reader};

use crate::collector::{Collector, lock};

/// Counters of this process that nobody else sees.
#[expect(clippy::disallowed_types, reason = "private to this process")]
type Count = std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// What this process has counted and noticed.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    refused: Count,
    invalid: Count,
    notes: Count,
    last_note: Mutex<Option<String>>,
}

impl Counts {
    pub(crate) fn failed(&self, is_refusal: bool) {
        let count = if is_refusal {
            &self.refused
        } else {
            &self.invalid
        };
        count.fetch_add(1, Relaxed);
    }

    /// Something went wrong in the background, and the rest goes on.
    pub(crate) fn note(&self, what: String) {
        self.notes.fetch_add(1, Relaxed);
        if let Some(mut last) = lock(&self.last_note) {
            *last = Some(what);
        }
    }
}

/// The state of a collector and of its bus.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Statistics {
    /// The bus.
    pub bus: String,
    /// Whether it is private to this collector.
    pub is_embedded: bool,
    /// Whether somebody aggregates it.
    pub has_aggregator: bool,
    /// Whether [`Collector::start_collection`] was called last.
    pub is_collecting: bool,
    /// Since the collector was made.
    pub uptime: Duration,
    /// Registered names.
    pub families: u64,
    /// Registered series.
    pub series: u64,
    /// Series that can be registered.
    pub series_capacity: u64,
    /// Records that arrived at the aggregator, of all processes.
    pub delivered: u64,
    /// Records that met a full lane or had a value that cannot be, of all processes.
    pub dropped: u64,
    /// Records that a kill tore, of all processes.
    pub torn: u64,
    /// Records of processes that were stopped inside an emit.
    pub revoked: u64,
    /// Records for whose series the snapshot had no room, of all processes.
    pub unplaced: u64,
    /// Records on their way to the aggregator: the queue.
    pub queued: u64,
    /// Records that one lane of the queue holds.
    pub lane_capacity: u64,
    /// Records in the buffer.
    pub buffered: u64,
    /// Metrics of this process that were refused: no room for the record or for its series.
    pub refused: u64,
    /// Metrics of this process that cannot be, or did not pass their rule.
    pub invalid: u64,
    /// Rules that were registered in this process.
    pub validation_rules: usize,
    /// Performance trackers that run.
    pub active_trackers: usize,
    /// What went wrong in the background of this process.
    pub background_errors: u64,
    /// The last of that.
    pub last_background_error: Option<String>,
}

impl Collector {
    /// The state of the collector and its bus.
    pub fn get_statistics(&self) -> Statistics {
        let bus = self.present();
        let counts = bus.counts();
        let mut reader = Reader::open(&bus.address().snapshot()).ok();
        let ledger = Ledger::read(&bus, reader.as_ref()).unwrap_or_default();
        let buffered = reader.as_mut().map_or(0, |reader| reader.recent().len());
        Statistics {
            bus: bus.address().to_string(),
            is_embedded: self.is_embedded(),
            has_aggregator: bus.aggregator().is_some_and(|aggregator| aggregator.alive),
            is_collecting: self.is_collecting.load(Relaxed),
            uptime: self.started.elapsed(),
            families: counts.families,
            series: counts.series,
            series_capacity: bus.geometry().series,
            delivered: ledger.total.delivered,
            dropped: ledger.dropped(),
            torn: ledger.total.torn,
            revoked: ledger.total.revoked,
            unplaced: ledger.total.unplaced,
            queued: bus.lanes().iter().map(|lane| lane.fill).sum(),
            lane_capacity: bus.geometry().slots,
            buffered: buffered as u64,
            refused: self.counts.refused.load(Relaxed),
            invalid: self.counts.invalid.load(Relaxed),
            validation_rules: self.rules.len(),
            active_trackers: self.trackers.len(),
            background_errors: self.counts.notes.load(Relaxed),
            last_background_error: lock(&self.counts.last_note).and_then(|last| last.clone()),
        }
    }
}
