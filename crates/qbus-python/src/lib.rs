//! The native half of the Python package `qbus`. What Python code sees of it is typed in
//! `python/qbus/_qbus.pyi`.

// The docs of classes and methods are Python's docstrings.
#![allow(missing_docs)]

mod collector;
mod convert;
mod error;
mod handle;
mod metric;
mod snapshot;

use std::ffi::OsString;
use std::path::PathBuf;

use pyo3::prelude::*;

/// Runs the `qbus` command; its exit code.
#[pyfunction]
fn run_command(py: Python<'_>, program: PathBuf, typed: Vec<OsString>) -> u8 {
    py.detach(|| qbus_cli::run(&program, typed))
}

#[pymodule]
mod _qbus {
    #[pymodule_export]
    use super::collector::MetricsCollector;
    #[pymodule_export]
    use super::handle::{Counter, Gauge, Histogram, Summary};
    #[pymodule_export]
    use super::metric::Metric;
    #[pymodule_export]
    use super::run_command;
    #[pymodule_export]
    use super::snapshot::{Snapshot, read_snapshot};
}
