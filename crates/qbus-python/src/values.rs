//! Values of `qbus.prometheus_client`: what this process counted, kept here, and emitted for all
//! others.
//!
//! A program of `prometheus_client` reads its values back (`_value.get()`, its own page), so each
//! is kept in the process as well. Without a bus that is all there is, and the program goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use qbus::{Clock, Kind};

use crate::calls::{self, Arguments};
use crate::convert::{Amount, number, trace_id};
use crate::handle::Handle;
use crate::metrics::{Counter, Gauge, Histogram, Summary};

/// The child of these label values, if it is known, and they are strings and nothing else: a member
/// of an enum is equal to a string that it is not shown as.
#[pyfunction]
pub(crate) fn known_child<'py>(
    children: &Bound<'py, PyDict>,
    values: &Bound<'py, PyTuple>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    if values
        .iter()
        .all(|value| value.is_exact_instance_of::<PyString>())
    {
        return children.get_item(values);
    }
    Ok(None)
}

/// A float that any thread adds to.
struct Float(AtomicU64);

impl Float {
    fn zero() -> Float {
        Float(AtomicU64::new(0))
    }

    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    /// Gives what was there before.
    fn set(&self, value: f64) -> f64 {
        f64::from_bits(self.0.swap(value.to_bits(), Ordering::Relaxed))
    }

    /// Sets a sum that only grows, and says by how much it did: what is less than before began
    /// anew.
    fn advance_to(&self, value: f64) -> f64 {
        let before = self.set(value);
        if value < before {
            value
        } else {
            value - before
        }
    }

    #[inline]
    fn add(&self, amount: f64) {
        let add = |bits| Some((f64::from_bits(bits) + amount).to_bits());
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

/// The handle inside one of this module's classes; `None` for None.
fn handle_of(given: &Bound<'_, PyAny>) -> PyResult<Option<Arc<Handle>>> {
    if given.is_none() {
        return Ok(None);
    }
    if let Ok(counter) = given.cast::<Counter>() {
        return Ok(Some(counter.get().handle().clone()));
    }
    if let Ok(gauge) = given.cast::<Gauge>() {
        return Ok(Some(gauge.get().handle().clone()));
    }
    if let Ok(summary) = given.cast::<Summary>() {
        return Ok(Some(summary.get().handle().clone()));
    }
    Ok(Some(given.cast::<Histogram>()?.get().handle().clone()))
}

/// A number, or a text that is one.
#[inline]
fn number_or_text(argument: &str, found: &Bound<'_, PyAny>) -> PyResult<f64> {
    if found.is_instance_of::<PyString>() {
        return found.py().get_type::<PyFloat>().call1((found,))?.extract();
    }
    number(argument, found)
}

/// Calls what keeps exemplars, if one is given.
#[inline]
fn keep<'py>(
    keep_exemplar: &Option<Py<PyAny>>,
    exemplar: Option<&Bound<'py, PyAny>>,
    arguments: impl Arguments<'py>,
) -> PyResult<()> {
    let (Some(keep_exemplar), Some(exemplar)) = (keep_exemplar, exemplar) else {
        return Ok(());
    };
    if exemplar.is_none() {
        return Ok(());
    }
    let py = exemplar.py();
    calls::call(keep_exemplar.bind(py), arguments).map(drop)
}

/// The trace of an exemplar: other labels of it stay in the process.
#[inline]
fn trace_id_if_any(exemplar: Option<&Bound<'_, PyAny>>) -> u128 {
    exemplar.map_or(0, |exemplar| trace_id(Some(exemplar)).unwrap_or_default())
}

/// The value of a counter or gauge.
#[pyclass(module = "qbus._qbus")]
pub(crate) struct Value {
    handle: Option<Arc<Handle>>,
    is_counter: bool,
    value: Float,
    /// Called with an exemplar and the amount that it stands for.
    keep_exemplar: Option<Py<PyAny>>,
}

#[pymethods]
impl Value {
    #[new]
    fn new(
        handle: &Bound<'_, PyAny>,
        is_counter: bool,
        keep_exemplar: Py<PyAny>,
    ) -> PyResult<Value> {
        Ok(Value {
            handle: handle_of(handle)?,
            is_counter,
            value: Float::zero(),
            keep_exemplar: Some(keep_exemplar),
        })
    }

    /// Adds an amount; 1 if none is given.
    #[pyo3(
        signature = (amount=Amount::One, exemplar=None),
        text_signature = "($self, amount=1, exemplar=None)"
    )]
    fn inc(
        &self,
        py: Python<'_>,
        amount: Amount<'_>,
        exemplar: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let amount = amount.number()?;
        if self.is_counter && amount < 0.0 {
            return Err(PyValueError::new_err(
                "Counters can only be incremented by non-negative amounts.",
            ));
        }
        self.add(py, amount, trace_id_if_any(exemplar))?;
        keep(&self.keep_exemplar, exemplar, (exemplar, amount))
    }

    /// Subtracts an amount; 1 if none is given.
    #[pyo3(signature = (amount=Amount::One), text_signature = "($self, amount=1)")]
    fn dec(&self, py: Python<'_>, amount: Amount<'_>) -> PyResult<()> {
        self.add(py, -amount.number()?, 0)
    }

    /// Sets the value: a number, or a text of one. On the bus, a counter adds what is more than
    /// before.
    #[pyo3(signature = (value, timestamp=None))]
    fn set(
        &self,
        py: Python<'_>,
        value: &Bound<'_, PyAny>,
        timestamp: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = timestamp;
        let value = number_or_text("value", value)?;
        if self.is_counter {
            let amount = self.value.advance_to(value);
            return match &self.handle {
                Some(handle) if amount > 0.0 => {
                    handle.emit(py, Clock::Coarse, Kind::Increment, amount, 0)
                }
                _ => Ok(()),
            };
        }
        self.value.set(value);
        match &self.handle {
            Some(handle) => handle.emit(py, Clock::Precise, Kind::Set, value, 0),
            None => Ok(()),
        }
    }

    /// Takes it off the page of all processes; the next emit brings it back.
    fn forget(&self, py: Python<'_>) {
        if let Some(handle) = &self.handle {
            handle.forget(py);
        }
    }

    /// What this process counted.
    fn get(&self) -> f64 {
        self.value.get()
    }

    /// Emits to another series from now on, as a forked child does; and begins at 0, if that is
    /// wanted.
    fn rebind(&mut self, handle: &Bound<'_, PyAny>, at_zero: bool) -> PyResult<()> {
        self.handle = handle_of(handle)?;
        if at_zero {
            self.value.set(0.0);
        }
        Ok(())
    }

    /// What keeps exemplars is a method of who has this: a circle, as a rule.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.keep_exemplar)
    }

    fn __clear__(&mut self) {
        self.keep_exemplar = None;
    }
}

impl Value {
    #[inline]
    fn add(&self, py: Python<'_>, amount: f64, trace_id: u128) -> PyResult<()> {
        self.value.add(amount);
        let Some(handle) = &self.handle else {
            return Ok(());
        };
        if self.is_counter {
            handle.emit(py, Clock::Coarse, Kind::Increment, amount, trace_id)
        } else {
            handle.emit(py, Clock::Precise, Kind::Adjust, amount, 0)
        }
    }
}

/// The observations of a histogram, or of a summary, which has one bucket.
#[pyclass(module = "qbus._qbus")]
pub(crate) struct Observations {
    handle: Option<Arc<Handle>>,
    /// Ascending, the last one infinite.
    bounds: Vec<f64>,
    counts: Vec<Float>,
    sum: Float,
    /// What was added to the sum alone, and waits for the bucket that it belongs to.
    unplaced: Float,
    /// Called with an exemplar, the observation that it stands for and the bucket.
    keep_exemplar: Option<Py<PyAny>>,
}

#[pymethods]
impl Observations {
    #[new]
    fn new(
        handle: &Bound<'_, PyAny>,
        bounds: Vec<f64>,
        keep_exemplar: Py<PyAny>,
    ) -> PyResult<Observations> {
        Ok(Observations {
            handle: handle_of(handle)?,
            counts: bounds.iter().map(|_| Float::zero()).collect(),
            bounds,
            sum: Float::zero(),
            unplaced: Float::zero(),
            keep_exemplar: Some(keep_exemplar),
        })
    }

    /// Adds an observation.
    #[pyo3(signature = (amount, exemplar=None))]
    fn observe(
        &self,
        py: Python<'_>,
        amount: &Bound<'_, PyAny>,
        exemplar: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let amount = number("amount", amount)?;
        self.sum.add(amount);
        let bucket = self.bucket(amount);
        if let Some(count) = self.counts.get(bucket) {
            count.add(1.0);
        }
        if let Some(handle) = &self.handle {
            let trace_id = trace_id_if_any(exemplar);
            handle.emit(py, Clock::Precise, Kind::Observe, amount, trace_id)?;
        }
        keep(&self.keep_exemplar, exemplar, (exemplar, amount, bucket))
    }

    /// Adds to the sum alone: the first half of many observations at once.
    fn add_sum(&self, amount: f64) {
        self.sum.add(amount);
        self.unplaced.add(amount);
    }

    /// Adds to the count of one bucket alone: the second half.
    fn add_count(&self, py: Python<'_>, bucket: usize, count: f64) -> PyResult<()> {
        let Some(known) = self.counts.get(bucket) else {
            return Ok(());
        };
        known.add(count);
        self.place(py, bucket, count)
    }

    /// Sets the sum alone; what is more than before waits for the bucket that it belongs to.
    fn set_sum(&self, value: f64) {
        self.unplaced.add(self.sum.advance_to(value));
    }

    /// Sets the count of one bucket alone.
    fn set_count(&self, py: Python<'_>, bucket: usize, count: f64) -> PyResult<()> {
        let Some(known) = self.counts.get(bucket) else {
            return Ok(());
        };
        self.place(py, bucket, known.advance_to(count))
    }

    /// How many observations this process made in each bucket.
    fn counts(&self) -> Vec<f64> {
        self.counts.iter().map(Float::get).collect()
    }

    /// Their sum.
    fn sum(&self) -> f64 {
        self.sum.get()
    }

    /// Takes them off the page of all processes; the next observation brings them back.
    fn forget(&self, py: Python<'_>) {
        if let Some(handle) = &self.handle {
            handle.forget(py);
        }
    }

    /// Begins at 0, as a forked child does.
    fn reset(&self) {
        self.sum.set(0.0);
        self.unplaced.set(0.0);
        for count in &self.counts {
            count.set(0.0);
        }
    }

    /// What keeps exemplars is a method of who has this: a circle, as a rule.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.keep_exemplar)
    }

    fn __clear__(&mut self) {
        self.keep_exemplar = None;
    }
}

impl Observations {
    /// Emits observations of a bucket, with what was added to the sum before.
    fn place(&self, py: Python<'_>, bucket: usize, count: f64) -> PyResult<()> {
        let (Some(handle), true) = (&self.handle, count >= 1.0) else {
            return Ok(());
        };
        let total = self.unplaced.set(0.0);
        let mean = total / count;
        // What does not lie in its bucket came by another way: the count is what must be right.
        let value = if self.bucket(mean) == bucket {
            mean
        } else if self.bounds[bucket].is_finite() {
            self.bounds[bucket]
        } else {
            bucket
                .checked_sub(1)
                .map_or(0.0, |last| self.bounds[last] * 2.0)
        };
        handle.emit_many(py, Kind::Observe, value, count as u64)
    }

    /// The first bucket whose bound is not below the amount; NaN has none.
    #[inline]
    fn bucket(&self, amount: f64) -> usize {
        if amount.is_nan() {
            return self.bounds.len();
        }
        self.bounds.partition_point(|bound| *bound < amount)
    }
}
