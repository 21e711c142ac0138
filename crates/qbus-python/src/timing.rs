//! What handles give as context managers and decorators.
//!
//! Entering and leaving run no Python code, so they are safe while the interpreter ends; what a
//! decorator wraps a function in is Python (`qbus._timing`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;
use qbus::{Clock, Kind};

use crate::calls::{self, Arguments};
use crate::handle::Handle;

/// Nanoseconds since this process, or its parent, asked first; never 0.
pub(crate) fn monotonic_ns() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64 + 1
}

/// Wraps a function of any kind in a context manager.
fn decorate<'py>(
    around: &Bound<'py, PyAny>,
    function: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    static DECORATE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let decorate = DECORATE.import(around.py(), "qbus._timing", "decorate")?;
    calls::call(decorate, (around, function))
}

/// What `async with` asks for: a function of `qbus._timing` with the context manager, and with what
/// was raised.
fn later<'py>(
    py: Python<'py>,
    function: &str,
    arguments: impl Arguments<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let function = py.import("qbus._timing")?.getattr(function)?;
    calls::call(&function, arguments)
}

/// Another process makes it anew, from the same handle.
fn reduce<'py>(
    py: Python<'py>,
    owner: &Py<PyAny>,
    method: &str,
    arguments: Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyTuple>> {
    let again = py.import("qbus._timing")?.getattr("again")?;
    (again, (owner.clone_ref(py), method, arguments)).into_pyobject(py)
}

/// Hands the seconds of a block to its handle: `with h.time(): …`. Also a decorator.
///
/// One object can be used any number of times at once: each use has a time of its own.
#[pyclass(frozen, module = "qbus._qbus")]
pub(crate) struct Timer {
    handle: Arc<Handle>,
    owner: Py<PyAny>,
    kind: Kind,
    /// When the block began that entered first; 0 when there is none. Blocks that are entered while
    /// there is one keep their starts in the context of their task.
    start_ns: AtomicU64,
    /// Seconds of the last block, as bits.
    duration: AtomicU64,
}

impl Timer {
    pub(crate) fn new(handle: &Arc<Handle>, owner: Py<PyAny>, kind: Kind) -> Timer {
        Timer {
            handle: handle.clone(),
            owner,
            kind,
            start_ns: AtomicU64::new(0),
            duration: AtomicU64::new(f64::NAN.to_bits()),
        }
    }

    fn take(&self, py: Python<'_>, start_ns: u64) -> PyResult<()> {
        let seconds = monotonic_ns().saturating_sub(start_ns) as f64 / 1e9;
        self.duration.store(seconds.to_bits(), Ordering::Relaxed);
        self.handle.emit(py, Clock::Precise, self.kind, seconds, 0)
    }
}

/// The one context variable that holds the starts of blocks within blocks: a chain of tuples
/// (timer, start, rest).
pub(crate) fn starts(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static STARTS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    STARTS.import(py, "qbus._timing", "STARTS")
}

/// The chain without its first entry of that timer, and the start that was in it.
fn unchain<'py>(
    chain: &Bound<'py, PyAny>,
    timer: &Bound<'py, PyAny>,
) -> PyResult<Option<(u64, Bound<'py, PyAny>)>> {
    let mut passed = Vec::new();
    let mut at = chain.clone();
    let (found, mut rest) = loop {
        let Ok(entry) = at.cast_into::<PyTuple>() else {
            return Ok(None);
        };
        let (of, start, rest) = (entry.get_item(0)?, entry.get_item(1)?, entry.get_item(2)?);
        if of.is(timer) {
            break (start.extract()?, rest);
        }
        passed.push((of, start));
        at = rest;
    };
    while let Some((of, start)) = passed.pop() {
        rest = PyTuple::new(chain.py(), [of, start, rest])?.into_any();
    }
    Ok(Some((found, rest)))
}

#[pymethods]
impl Timer {
    fn __enter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let now = monotonic_ns();
        let timer = slf.get();
        let first = timer
            .start_ns
            .compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        if first.is_err() {
            let starts = starts(slf.py())?;
            let chain = starts.call_method0("get")?;
            starts.call_method1("set", ((slf, now, chain),))?;
        }
        Ok(slf.clone())
    }

    fn __exit__(
        slf: &Bound<'_, Self>,
        _class: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let (py, timer) = (slf.py(), slf.get());
        let starts = starts(py)?;
        let chain = starts.call_method0("get")?;
        if !chain.is_none()
            && let Some((start, rest)) = unchain(&chain, slf.as_any())?
        {
            starts.call_method1("set", (rest,))?;
            return timer.take(py, start);
        }
        match timer.start_ns.swap(0, Ordering::Relaxed) {
            0 => Ok(()),
            start => timer.take(py, start),
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("{}.time()", calls::repr(self.owner.bind(py))?))
    }

    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        later(slf.py(), "enter", (slf,))
    }

    fn __aexit__<'py>(
        slf: &Bound<'py, Self>,
        class: &Bound<'py, PyAny>,
        error: &Bound<'py, PyAny>,
        trace: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        later(slf.py(), "leave", (slf, class, error, trace))
    }

    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        function: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        decorate(slf.as_any(), function)
    }

    /// Seconds of the block that ended last; None before.
    #[getter]
    fn duration(&self) -> Option<f64> {
        let seconds = f64::from_bits(self.duration.load(Ordering::Relaxed));
        (!seconds.is_nan()).then_some(seconds)
    }

    /// For one more call of a function.
    fn _again(&self, py: Python<'_>) -> Timer {
        Timer::new(&self.handle, self.owner.clone_ref(py), self.kind)
    }

    /// Has `__exit__` count nothing.
    fn _abandon(&self) {
        self.start_ns.store(0, Ordering::Relaxed);
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        reduce(py, &self.owner, "time", PyTuple::empty(py))
    }
}

/// Adds 1 for as long as a block or function runs.
#[pyclass(frozen, module = "qbus._qbus")]
pub(crate) struct InprogressTracker {
    handle: Arc<Handle>,
    owner: Py<PyAny>,
}

impl InprogressTracker {
    pub(crate) fn new(handle: &Arc<Handle>, owner: Py<PyAny>) -> InprogressTracker {
        InprogressTracker {
            handle: handle.clone(),
            owner,
        }
    }

    fn add(&self, py: Python<'_>, difference: f64) -> PyResult<()> {
        self.handle
            .emit(py, Clock::Precise, Kind::Adjust, difference, 0)
    }
}

#[pymethods]
impl InprogressTracker {
    fn __enter__(&self, py: Python<'_>) -> PyResult<()> {
        self.add(py, 1.0)
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _class: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.add(py, -1.0)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let owner = calls::repr(self.owner.bind(py))?;
        Ok(format!("{owner}.track_inprogress()"))
    }

    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        later(slf.py(), "enter", (slf,))
    }

    fn __aexit__<'py>(
        slf: &Bound<'py, Self>,
        class: &Bound<'py, PyAny>,
        error: &Bound<'py, PyAny>,
        trace: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        later(slf.py(), "leave", (slf, class, error, trace))
    }

    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        function: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        decorate(slf.as_any(), function)
    }

    /// For one more call of a function.
    fn _again(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// Has `__exit__` count nothing.
    fn _abandon(&self) {}

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        reduce(py, &self.owner, "track_inprogress", PyTuple::empty(py))
    }
}

/// Counts the exceptions of a block or function, and lets them go on.
#[pyclass(frozen, module = "qbus._qbus")]
pub(crate) struct ExceptionCounter {
    handle: Arc<Handle>,
    owner: Py<PyAny>,
    exception: Py<PyAny>,
}

impl ExceptionCounter {
    pub(crate) fn new(
        handle: &Arc<Handle>,
        owner: Py<PyAny>,
        exception: Py<PyAny>,
    ) -> ExceptionCounter {
        ExceptionCounter {
            handle: handle.clone(),
            owner,
            exception,
        }
    }
}

#[pymethods]
impl ExceptionCounter {
    fn __enter__(&self) {}

    fn __exit__(
        &self,
        py: Python<'_>,
        _class: &Bound<'_, PyAny>,
        error: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        // A metaclass may answer in Python.
        if !error.is_none() && calls::is_instance(error, self.exception.bind(py))? {
            self.handle
                .emit(py, Clock::Coarse, Kind::Increment, 1.0, 0)?;
        }
        Ok(())
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let owner = calls::repr(self.owner.bind(py))?;
        let exception = calls::repr(self.exception.bind(py))?;
        Ok(format!("{owner}.count_exceptions({exception})"))
    }

    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        later(slf.py(), "enter", (slf,))
    }

    fn __aexit__<'py>(
        slf: &Bound<'py, Self>,
        class: &Bound<'py, PyAny>,
        error: &Bound<'py, PyAny>,
        trace: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        later(slf.py(), "leave", (slf, class, error, trace))
    }

    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        function: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        decorate(slf.as_any(), function)
    }

    /// For one more call of a function.
    fn _again(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// Has `__exit__` count nothing.
    fn _abandon(&self) {}

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let arguments = PyTuple::new(py, [self.exception.clone_ref(py)])?;
        reduce(py, &self.owner, "count_exceptions", arguments)
    }
}
