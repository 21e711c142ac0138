//! All that a collector has as a text, for Python or for a file.

use std::fs;
use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use qbus_aggregate::export::Options;
use qbus_collector::{ExportError, Format};

use super::MetricsCollector;
use crate::convert::FilePath;
use crate::long::{self, Text};
use crate::snapshot::export_text;
use crate::{ending, error};

/// The snapshot of a bus that is not there.
pub(super) fn nothing() -> qbus_aggregate::Snapshot {
    qbus_aggregate::Snapshot {
        epoch: 0,
        unix_ns: 0,
        consistent: true,
        series: Vec::new(),
    }
}

impl MetricsCollector {
    fn exported(
        &self,
        format: Format,
        options: &Options,
        path: Option<PathBuf>,
    ) -> Result<String, ExportError> {
        let Some(collector) = &self.collector else {
            return Ok(export_text(&nothing(), format, options));
        };
        if let Some(path) = path {
            collector.export_to_file(format, options, &path)?;
            return fs::read_to_string(&path).map_err(|source| ExportError::Write { path, source });
        }
        collector.export(format, options)
    }

    /// An export as a string; written to a file as well if there is a path.
    pub(super) fn to_file_or_text<'py>(
        &self,
        py: Python<'py>,
        format: Format,
        options: &Options,
        path: Option<FilePath>,
    ) -> PyResult<Bound<'py, PyString>> {
        let path = path.map(|FilePath(path)| path);
        let exported = ending::detach(py, || self.exported(format, options, path).map(Text::from));
        let text = exported.map_err(|error| error::export(py, &error))?;
        text.into_python(py)
    }

    /// The page of `generate_latest()`.
    pub(super) fn page<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let options = Options::default();
        let exported = ending::detach(py, || self.exported(Format::Prometheus, &options, None));
        let page = exported.map_err(|error| error::export(py, &error))?;
        long::bytes(py, vec![page])
    }
}
