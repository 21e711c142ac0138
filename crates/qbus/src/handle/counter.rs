//! Counters.

use super::Handle;
use crate::error::EmitError;
use crate::lane::cell::{CellOp, Unit};
use crate::record::{Kind, SeriesId};

handle! {
    /// A sum that only grows.
    ///
    /// Increments go to this thread's cells in shared memory, which cannot be full: nothing is
    /// lost, with or without an aggregator. A bus whose cells are used up takes them as records.
    Counter {
        count: |handle: &Handle| Unit::count(handle.series()),
        sum: |handle: &Handle| Unit::sum(handle.series())
    }
}

impl Counter {
    /// Adds 1.
    #[inline]
    pub fn inc(&self) {
        let _ = self.try_count(1);
    }

    /// Adds an increment, finite and not negative.
    #[inline]
    pub fn add(&self, increment: f64) {
        let _ = self.try_add(increment);
    }

    /// Adds an increment, finite and not negative.
    ///
    /// # Errors
    ///
    /// It was not accepted, and is counted as dropped.
    #[inline]
    pub fn try_add(&self, increment: f64) -> Result<(), EmitError> {
        // Saturating; what is not whole, or too large for it, comes back as something else.
        let whole = increment as i64;
        if whole > 0 && whole as f64 == increment {
            return self.try_count(whole as u64);
        }
        // A cell to which nothing is added says nothing: 0 is a record, which shows the series.
        if increment > 0.0 && Kind::Increment.takes(increment) {
            if self.handle.put_at_once(&self.sum, CellOp::Sum(increment)) {
                return Ok(());
            }
            return self.sum_slowly(increment);
        }
        self.handle.emit(Kind::Increment, increment)
    }

    /// Adds a whole number.
    #[inline(always)]
    fn try_count(&self, n: u64) -> Result<(), EmitError> {
        if self.handle.put_at_once(&self.count, CellOp::Count(n)) {
            return Ok(());
        }
        self.count_slowly(n)
    }

    // What is passed to a call is made there: on the way to the cells it would be stores for
    // nothing.
    #[cold]
    fn count_slowly(&self, n: u64) -> Result<(), EmitError> {
        let op = CellOp::Count(n);
        self.handle.put(&self.count, op, Kind::Increment, n as f64)
    }

    #[cold]
    fn sum_slowly(&self, increment: f64) -> Result<(), EmitError> {
        let op = CellOp::Sum(increment);
        self.handle.put(&self.sum, op, Kind::Increment, increment)
    }

    /// Adds an increment that belongs to a trace: pages show it as the counter's exemplar.
    #[inline]
    pub fn add_traced(&self, increment: f64, trace_id: u128) {
        let _ = self.try_add_traced(increment, trace_id);
    }

    /// Adds an increment that belongs to a trace: pages show it as the counter's exemplar.
    ///
    /// # Errors
    ///
    /// It was not accepted, and is counted as dropped.
    pub fn try_add_traced(&self, increment: f64, trace_id: u128) -> Result<(), EmitError> {
        self.handle
            .emit_traced(Kind::Increment, increment, trace_id)
    }

    /// States the sum, for a source that keeps it itself (a kernel's counter). Only one process may
    /// do so for a series.
    ///
    /// # Errors
    ///
    /// It was not accepted, and is counted as dropped.
    pub fn try_set_total(&self, total: f64) -> Result<(), EmitError> {
        self.handle.emit(Kind::Total, total)
    }
}
