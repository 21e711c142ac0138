//! Performance trackers: how long something took, and what memory it left.

use std::collections::HashMap;
use std::fs;
use std::sync::Mutex;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant, SystemTime};

use qbus_agent::Metric;

use crate::collector::{Collector, lock};
use crate::error::TrackError;

/// What a performance tracker found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Performance {
    /// How long it ran.
    pub duration: Duration,
    /// Resident memory of the process at the end, less that at the start, in bytes.
    pub memory_delta: i64,
}

#[derive(Debug)]
struct Tracker {
    thread: ThreadId,
    start: Start,
    memory_bytes: u64,
}

#[derive(Debug)]
enum Start {
    Now(Instant),
    /// As the caller said, on the clock that can be set.
    At(SystemTime),
}

/// Running trackers by name; those of a name as they were started.
#[derive(Debug, Default)]
pub(crate) struct Trackers(Mutex<HashMap<String, Vec<Tracker>>>);

impl Trackers {
    pub(crate) fn len(&self) -> usize {
        lock(&self.0).map_or(0, |trackers| trackers.values().map(Vec::len).sum())
    }

    /// The one of this thread that was started last, else the last one of any thread: a task may
    /// end on another thread than it began.
    fn take(&self, name: &str) -> Option<Tracker> {
        let mut trackers = lock(&self.0)?;
        let of_name = trackers.get_mut(name)?;
        let own = of_name
            .iter()
            .rposition(|tracker| tracker.thread == thread::current().id());
        let taken = of_name.remove(own.unwrap_or(of_name.len() - 1));
        if of_name.is_empty() {
            trackers.remove(name);
        }
        Some(taken)
    }
}

impl Collector {
    /// Starts to track an operation: from now, or from a given time and resident memory in bytes.
    /// Each thread can track the same name, and a name can be tracked within itself.
    ///
    /// # Examples
    ///
    /// ```
    /// # use qbus_collector::{Collector, CollectorOptions};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let collector = Collector::new(&CollectorOptions::default())?;
    /// collector.add_performance_tracker("model_inference", None, None);
    /// let found = collector.end_performance_tracker("model_inference")?;
    /// assert!(found.duration.as_secs() < 60);
    /// # Ok(()) }
    /// ```
    pub fn add_performance_tracker(
        &self,
        name: &str,
        start_time: Option<SystemTime>,
        start_memory: Option<u64>,
    ) {
        let tracker = Tracker {
            thread: thread::current().id(),
            memory_bytes: start_memory.unwrap_or_else(resident_bytes),
            start: start_time.map_or_else(|| Start::Now(Instant::now()), Start::At),
        };
        if let Some(mut trackers) = lock(&self.trackers.0) {
            trackers.entry(name.to_owned()).or_default().push(tracker);
        }
    }

    /// Ends the tracker of that name, this thread's last one first. Its result goes into the
    /// summary `performance_duration_seconds` and the gauge `performance_memory_delta_bytes` as
    /// well, with the label `operation`.
    ///
    /// # Errors
    ///
    /// None of that name runs.
    pub fn end_performance_tracker(&self, name: &str) -> Result<Performance, TrackError> {
        let unknown = || TrackError::Unknown {
            name: name.to_owned(),
        };
        let tracker = self.trackers.take(name).ok_or_else(unknown)?;
        let duration = match tracker.start {
            Start::Now(start) => start.elapsed(),
            Start::At(start) => start.elapsed().unwrap_or_default(),
        };
        let memory_delta = resident_bytes().cast_signed() - tracker.memory_bytes.cast_signed();
        let labels: &[_] = &[("operation", name)];
        // A name that is no label value, or a full lane, spoils no result.
        let _ = self.queue_metric(&Metric {
            labels,
            description: "Time that tracked operations took.",
            ..Metric::summary("performance_duration_seconds", duration.as_secs_f64())
        });
        let _ = self.queue_metric(&Metric {
            labels,
            description: "Change of resident memory over the last run of a tracked operation.",
            ..Metric::gauge("performance_memory_delta_bytes", memory_delta as f64)
        });
        Ok(Performance {
            duration,
            memory_delta,
        })
    }
}

/// Resident memory of this process; 0 where `/proc` does not say. See proc_pid_statm(5).
fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0_u64) * rustix::param::page_size() as u64
}
