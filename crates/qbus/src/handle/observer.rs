//! Histograms and summaries, and the timers that observe for them.

use std::fmt;
use std::time::Instant;

use super::Handle;
use crate::error::EmitError;
use crate::lane::cell::{CellOp, Keep, Unit};
use crate::record::{Kind, SeriesId};

macro_rules! observer {
    ($name:ident) => {
        impl $name {
            /// Adds an observation. Infinities count in the first or the last bucket and in the
            /// sum, as Prometheus has them; NaN is rejected, and counted as such.
            #[inline]
            pub fn observe(&self, value: f64) {
                let _ = self.try_observe(value);
            }

            /// Adds an observation. Infinities count in the first or the last bucket and in the
            /// sum, as Prometheus has them; NaN is rejected, and counted as such.
            ///
            /// # Errors
            ///
            /// It was not accepted, and is counted as dropped.
            #[inline]
            pub fn try_observe(&self, value: f64) -> Result<(), EmitError> {
                self.put(value)
            }

            /// Adds an observation that belongs to a trace: pages show it as the exemplar of its
            /// bucket.
            #[inline]
            pub fn observe_traced(&self, value: f64, trace_id: u128) {
                let _ = self.try_observe_traced(value, trace_id);
            }

            /// Adds an observation that belongs to a trace: pages show it as the exemplar of its
            /// bucket.
            ///
            /// # Errors
            ///
            /// It was not accepted, and is counted as dropped.
            pub fn try_observe_traced(&self, value: f64, trace_id: u128) -> Result<(), EmitError> {
                self.handle.emit_traced(Kind::Observe, value, trace_id)
            }

            /// Observes the seconds until the guard is dropped.
            pub fn start_timer(&self) -> Timer<'_> {
                Timer {
                    observer: Some(self),
                    start: Instant::now(),
                }
            }
        }
    };
}

handle! {
    /// Observations counted in buckets.
    ///
    /// They go to this thread's cells in shared memory, as a [`Counter`](crate::Counter)'s
    /// increments do: nothing is lost.
    Histogram {
        unit: |handle: &Handle| Unit::histogram(handle.series(), handle.bounds.len() + 1)
    }
}
observer!(Histogram);

impl Observer for Histogram {
    #[inline(always)]
    fn put(&self, value: f64) -> Result<(), EmitError> {
        if !value.is_finite() || self.handle.is_native {
            return self.put_record(value);
        }
        let op = CellOp::Observe(bucket_of(&self.handle.bounds, value), value);
        if self.handle.put_at_once(&self.unit, op) {
            return Ok(());
        }
        self.observe_slowly(value)
    }
}

handle! {
    /// Observations whose quantiles, of the last ten minutes unless its registration says
    /// otherwise, are kept within 1.1 %.
    ///
    /// Each is an event of its own. Where the lane is full, they are counted by bucket as state:
    /// nothing is lost but their points.
    Summary {
        unit: |handle: &Handle| Unit::summary(handle.series())
    }
}
observer!(Summary);

impl Observer for Summary {
    #[inline(always)]
    fn put(&self, value: f64) -> Result<(), EmitError> {
        let now_ns = self.handle.clock.now_ns();
        let keep = Keep::State(&self.unit, CellOp::Summarize(value, now_ns));
        self.handle.emit_or_keep(now_ns, Kind::Observe, value, keep)
    }
}

impl Histogram {
    #[inline(never)]
    fn put_record(&self, value: f64) -> Result<(), EmitError> {
        let op = CellOp::Observe(bucket_of(&self.handle.bounds, value), value);
        let keep = match value.is_finite() {
            true => Keep::State(&self.unit, op),
            false => Keep::Nothing,
        };
        let now_ns = self.handle.clock.now_ns();
        self.handle.emit_or_keep(now_ns, Kind::Observe, value, keep)
    }

    #[cold]
    fn observe_slowly(&self, value: f64) -> Result<(), EmitError> {
        let op = CellOp::Observe(bucket_of(&self.handle.bounds, value), value);
        self.handle.put(&self.unit, op, Kind::Observe, value)
    }
}

/// What a timer reports to.
trait Observer: fmt::Debug {
    fn put(&self, value: f64) -> Result<(), EmitError>;
}

/// Observes how many seconds it lived when it is dropped.
#[derive(Debug)]
#[must_use = "a timer that is dropped at once measures nothing"]
pub struct Timer<'a> {
    observer: Option<&'a dyn Observer>,
    start: Instant,
}

impl Timer<'_> {
    /// Observes now; the seconds.
    pub fn stop(mut self) -> f64 {
        let seconds = self.start.elapsed().as_secs_f64();
        if let Some(observer) = self.observer.take() {
            let _ = observer.put(seconds);
        }
        seconds
    }

    /// Observes nothing.
    pub fn discard(mut self) {
        self.observer = None;
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        if let Some(observer) = self.observer.take() {
            let _ = observer.put(self.start.elapsed().as_secs_f64());
        }
    }
}

/// With no more bounds than this, comparing with all of them beats a search, each step of which
/// waits for the one before.
const FEW_BOUNDS: usize = 64;

/// The bucket that an observation belongs to: the first whose upper bound is not below it; behind
/// the last bound there is `+Inf`.
#[inline(always)]
pub fn bucket_of(bounds: &[f64], value: f64) -> usize {
    if bounds.len() > FEW_BOUNDS {
        bounds.partition_point(|bound| *bound < value)
    } else {
        bounds.iter().filter(|bound| **bound < value).count()
    }
}
