//! Exceptions and warnings: the classes of `qbus._errors`.

use std::ffi::CString;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use qbus::EmitError;
use qbus_aggregate::ReadError;
use qbus_collector::{AddError, ExportError, MetricError, ResetError, StartError};

macro_rules! classes {
    ($($(#[$docs:meta])* $function:ident = $class:literal;)*) => {
        $($(#[$docs])*
        pub(crate) fn $function(py: Python<'_>, message: impl Display) -> PyErr {
            static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
            match CLASS.import(py, "qbus._errors", $class) {
                Ok(class) => PyErr::from_type(class.clone(), message.to_string()),
                Err(error) => error,
            }
        })*
    };
}

classes! {
    /// A metric that cannot be: a ValueError.
    metric = "MetricError";
    /// A value of the wrong type: a TypeError.
    argument = "ArgumentError";
    /// A bus or a file that cannot be used: an OSError.
    bus = "BusError";
    /// A tracker that does not run: a ValueError and a KeyError.
    tracker = "TrackerError";
}

pub(crate) fn missing(key: &str) -> PyErr {
    PyKeyError::new_err(key.to_owned())
}

pub(crate) fn start(py: Python<'_>, error: &StartError) -> PyErr {
    match error {
        StartError::Address(_) => metric(py, error),
        _ => bus(py, error),
    }
}

pub(crate) fn export(py: Python<'_>, error: &ExportError) -> PyErr {
    match error {
        ExportError::Disabled | ExportError::NotText { .. } => metric(py, error),
        _ => bus(py, error),
    }
}

pub(crate) fn reset(py: Python<'_>, error: &ResetError) -> PyErr {
    bus(py, error)
}

pub(crate) fn read(py: Python<'_>, error: &ReadError) -> PyErr {
    bus(py, error)
}

/// What becomes of a metric that was not added: a mistake is an exception; a lack of room is told once
/// in the life of a process, and `false` from then on.
pub(crate) fn refused(py: Python<'_>, error: &AddError) -> PyResult<bool> {
    if !error.is_refusal() {
        return Err(metric(py, error));
    }
    match error {
        AddError::Metric(MetricError::Emit { source, .. }) => not_emitted(py, *source)?,
        _ => no_room(py, error)?,
    }
    Ok(false)
}

/// A record that was not accepted: a mistake is an exception, all else is told once.
pub(crate) fn not_emitted(py: Python<'_>, error: EmitError) -> PyResult<()> {
    static FULL: AtomicBool = AtomicBool::new(false);
    static GONE: AtomicBool = AtomicBool::new(false);
    match error {
        EmitError::Value { .. } => Err(metric(py, error)),
        EmitError::Full => warn_once(py, &FULL, error),
        _ => warn_once(py, &GONE, error),
    }
}

/// A series for which there is no room: told once.
pub(crate) fn no_room(py: Python<'_>, error: &dyn Display) -> PyResult<()> {
    static SERIES: AtomicBool = AtomicBool::new(false);
    warn_once(py, &SERIES, error)
}

fn warn_once(py: Python<'_>, told: &AtomicBool, what: impl Display) -> PyResult<()> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    if told.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let class = CLASS.import(py, "qbus._errors", "RefusedWarning")?;
    let message =
        format!("{what}. This is said once; get_statistics() counts what is refused and dropped");
    let message = CString::new(message).unwrap_or_default();
    PyErr::warn(py, class, &message, 1)
}
