//! Gauges.

use super::Handle;
use crate::error::EmitError;
use crate::lane::cell::{CellOp, Keep, Unit};
use crate::record::{Kind, SeriesId};

handle! {
    /// A value that goes up and down; the last one of all processes counts.
    ///
    /// Each change is an event of its own, with a time. Where the lane is full, the last value and
    /// the sum of differences get through as state, and the points between are missing.
    Gauge {
        level: |handle: &Handle| Unit::level(handle.series()),
        sum: |handle: &Handle| Unit::sum(handle.series())
    }
}

impl Gauge {
    /// States the value.
    #[inline]
    pub fn set(&self, value: f64) {
        let _ = self.try_set(value);
    }

    /// Adds to the value.
    #[inline]
    pub fn add(&self, difference: f64) {
        let _ = self.try_add(difference);
    }

    /// Subtracts from the value.
    #[inline]
    pub fn sub(&self, difference: f64) {
        self.add(-difference);
    }

    /// States the value.
    ///
    /// # Errors
    ///
    /// It was not accepted, and is counted as dropped.
    #[inline]
    pub fn try_set(&self, value: f64) -> Result<(), EmitError> {
        self.try_set_at(self.handle.clock.now_ns(), value)
    }

    /// States the value as of a time, in nanoseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// It was not accepted, and is counted as dropped.
    pub fn try_set_at(&self, timestamp_ns: u64, value: f64) -> Result<(), EmitError> {
        let keep = Keep::State(&self.level, CellOp::Level(value, timestamp_ns));
        self.handle
            .emit_or_keep(timestamp_ns, Kind::Set, value, keep)
    }

    /// Adds a number to the value, which may be negative.
    ///
    /// # Errors
    ///
    /// It was not accepted, and is counted as dropped.
    #[inline]
    pub fn try_add(&self, difference: f64) -> Result<(), EmitError> {
        let keep = Keep::State(&self.sum, CellOp::Sum(difference));
        let now_ns = self.handle.clock.now_ns();
        self.handle
            .emit_or_keep(now_ns, Kind::Adjust, difference, keep)
    }
}
