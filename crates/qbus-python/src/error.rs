//! Exceptions and warnings: the classes of `qbus._errors`.

use std::ffi::CString;
use std::fmt::{self, Display};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::{PyException, PyKeyError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use qbus::{Bus, EmitError};
use qbus_aggregate::ReadError;
use qbus_collector::{AddError, ExportError, MetricError, ResetError, StartError};

use crate::{calls, ending};

macro_rules! classes {
    ($($(#[$docs:meta])* $function:ident = $class:literal;)*) => {
        $($(#[$docs])*
        pub(crate) fn $function(py: Python<'_>, message: impl Display) -> PyErr {
            match class(py, $class) {
                Ok(class) => PyErr::from_type(class.clone(), message.to_string()),
                Err(error) => error,
            }
        })*

        /// The class of that name.
        fn class<'py>(py: Python<'py>, name: &str) -> PyResult<&'py Bound<'py, PyType>> {
            $(if name == $class {
                static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
                return CLASS.import(py, "qbus._errors", $class);
            })*
            unreachable!("all classes are in the list")
        }

        /// Imports all classes: later, in a thread that meets the end of the interpreter, it would
        /// be too late.
        pub(crate) fn prepare(py: Python<'_>) -> PyResult<()> {
            $(class(py, $class)?;)*
            warning(py)?;
            Ok(())
        }
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

/// What becomes of a metric that was not added: a mistake is an exception; what is data (a value
/// that is not finite) or a lack of room is told once in the life of a process, and `false` from
/// then on.
pub(crate) fn refused(py: Python<'_>, error: &AddError, bus: &Bus) -> PyResult<bool> {
    match error {
        AddError::Metric(MetricError::Emit { metric, source }) => match source {
            EmitError::Value { found, .. } if found.is_finite() => {
                return Err(self::metric(py, error));
            }
            source => not_emitted(py, metric, *source, Some(bus))?,
        },
        error if error.is_refusal() => no_room(py, error)?,
        error => return Err(metric(py, error)),
    }
    Ok(false)
}

/// A record that was not accepted: told once for each cause.
pub(crate) fn not_emitted(
    py: Python<'_>,
    metric: &str,
    error: EmitError,
    bus: Option<&Bus>,
) -> PyResult<()> {
    static FULL: AtomicBool = AtomicBool::new(false);
    static REJECTED: AtomicBool = AtomicBool::new(false);
    static NOT_JOINED: AtomicBool = AtomicBool::new(false);
    static GONE: AtomicBool = AtomicBool::new(false);
    match error {
        EmitError::Full => warn_once(py, &FULL, error),
        EmitError::Value { .. } => {
            warn_once(py, &REJECTED, format_args!("metric {metric}: {error}"))
        }
        EmitError::NotJoined => warn_once(py, &NOT_JOINED, NotJoined { error, bus }),
        _ => warn_once(py, &GONE, error),
    }
}

/// Why a process could not join its bus, and what to do about it.
struct NotJoined<'a> {
    error: EmitError,
    bus: Option<&'a Bus>,
}

impl Display for NotJoined<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        let Some(bus) = self.bus else {
            return Ok(());
        };
        // To join once more says why.
        if let Err(why) = bus.producer() {
            write!(f, ": {why}")?;
        }
        let process = fs::metadata("/proc/self");
        if let (Ok(file), Ok(process)) = (fs::metadata(bus.address().file()), process)
            && (file.uid() != process.uid() || file.gid() != process.gid())
        {
            write!(
                f,
                ". The bus {} belongs to uid {} and gid {} (mode {:04o}), and this process runs as \
                 uid {} and gid {}: import qbus after privileges are dropped, or make the bus for \
                 a group that both are in (`qbus create --mode 0660`) and name it in the \
                 environment's QBUS",
                bus.address(),
                file.uid(),
                file.gid(),
                file.mode() & 0o7777,
                process.uid(),
                process.gid(),
            )?;
        }
        Ok(())
    }
}

/// A series for which there is no room: told once.
pub(crate) fn no_room(py: Python<'_>, error: &dyn Display) -> PyResult<()> {
    static SERIES: AtomicBool = AtomicBool::new(false);
    warn_once(py, &SERIES, error)
}

/// A series that is counted in another one: told once a metric.
pub(crate) fn overflow(py: Python<'_>, told: &AtomicBool, what: impl Display) -> PyResult<()> {
    warn(py, told, format!("{what}. This is said once"))
}

fn warn_once(py: Python<'_>, told: &AtomicBool, what: impl Display) -> PyResult<()> {
    let counted = "get_statistics() counts what is refused and dropped";
    warn(py, told, format!("{what}. This is said once; {counted}"))
}

fn warn(py: Python<'_>, told: &AtomicBool, message: String) -> PyResult<()> {
    if told.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    tell(py, &message, 1)
}

/// Warns of something that is lost, as of the caller at that level.
///
/// # Errors
///
/// See [`tell_as`].
#[pyfunction]
pub(crate) fn tell(py: Python<'_>, message: &str, level: isize) -> PyResult<()> {
    tell_as(warning(py)?, message, level)
}

/// Warns with a class of warnings. Where warnings are made exceptions it is one that Python shows
/// and goes on: none ends a program.
///
/// # Errors
///
/// An interrupt that came meanwhile.
pub(crate) fn tell_as(class: &Bound<'_, PyType>, message: &str, level: isize) -> PyResult<()> {
    let py = class.py();
    // When the process ends there is nobody to read it.
    if ending::has_begun() {
        return Ok(());
    }
    let message = CString::new(message.replace('\0', "?")).unwrap_or_default();
    let told = calls::warn(class, &message, level);
    ending::python(py, || match told {
        Err(error) if error.is_instance_of::<PyException>(py) => {
            error.write_unraisable(py, None);
            Ok(())
        }
        told => told,
    })
}

/// The class of all warnings.
fn warning(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "qbus._errors", "RefusedWarning")
}
