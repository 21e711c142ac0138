//! The native half of the Python package `qbus`. What Python code sees of it is typed in
//! `python/qbus/_qbus.pyi`.

// The docs of classes and methods are Python's docstrings.
#![allow(missing_docs)]
#![allow(
    clippy::disallowed_types,
    reason = "no atomic of this crate lies in shared memory"
)]

mod calls;
mod collector;
mod convert;
mod doors;
mod ending;
mod error;
mod handle;
mod known;
mod long;
mod metric;
mod metrics;
mod page;
mod serving;
mod snapshot;
mod timing;
mod values;
mod waiting;

use std::ffi::OsString;
use std::path::PathBuf;

use pyo3::prelude::*;

/// Runs the `qbus` command; its exit code.
#[pyfunction]
fn run_command(py: Python<'_>, program: PathBuf, typed: Vec<OsString>) -> u8 {
    ending::detach(py, || qbus_cli::run(&program, typed))
}

/// Imports what native code needs of Python code: to be called when all of the package is imported.
#[pyfunction]
fn prepare(py: Python<'_>) -> PyResult<()> {
    error::prepare(py)?;
    timing::starts(py)?;
    Ok(())
}

// Builds of the interpreter without a lock are not made to take one: what threads share here is
// atomic, or has a lock of its own.
#[pymodule(gil_used = false)]
mod _qbus {
    #[pymodule_export]
    use super::collector::{MetricsCollector, bus_exists, without_bus};
    #[pymodule_export]
    use super::doors::{MetricsPusher, StatsdServer, listen, push};
    #[pymodule_export]
    use super::ending::{end, forked};
    #[pymodule_export]
    use super::error::tell;
    #[pymodule_export]
    use super::metric::{Metric, rebuild_metric};
    #[pymodule_export]
    use super::metrics::{Counter, Gauge, Histogram, Summary};
    #[pymodule_export]
    use super::page::Page;
    #[pymodule_export]
    use super::serving::{MetricsServer, serve};
    #[pymodule_export]
    use super::snapshot::{Snapshot, read_snapshot, rebuild_snapshot};
    #[pymodule_export]
    use super::timing::{ExceptionCounter, InprogressTracker, Timer};
    #[pymodule_export]
    use super::values::{Observations, Value, known_child};
    #[pymodule_export]
    use super::{prepare, run_command};

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "as Python has it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
