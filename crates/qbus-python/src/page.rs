//! Pages of `qbus.prometheus_client`: lines where there is nothing to escape in names.

use std::fmt::Write;
use std::mem;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::{calls, ending, long};

/// As many bytes are kept in a row: who makes room for more copies no more than these.
const PART: usize = 16 * 1024;

/// A page in the making.
#[pyclass(frozen, module = "qbus._qbus")]
#[derive(Default)]
pub(crate) struct Page {
    parts: Mutex<Vec<String>>,
}

#[pymethods]
impl Page {
    #[new]
    fn new() -> Page {
        Page::default()
    }

    /// Adds a text.
    fn write(&self, text: &str) {
        self.add(|parts| room(parts).push_str(text));
    }

    /// Adds samples as lines of the Prometheus text format; nothing, and says False, when one of
    /// them needs more than this knows.
    fn write_samples(&self, samples: &Bound<'_, PyList>) -> PyResult<bool> {
        let mut parts = Vec::new();
        for (at, sample) in samples.iter().enumerate() {
            if !sample_line(&sample, room(&mut parts))? {
                return Ok(false);
            }
            ending::share(samples.py(), at)?;
        }
        self.add(|all| all.append(&mut parts));
        Ok(true)
    }

    /// What was written, which is taken out.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        long::bytes(py, self.add(mem::take))
    }
}

impl Page {
    /// Nobody has the lock for longer than this, or gives the interpreter up meanwhile.
    fn add<R>(&self, add: impl FnOnce(&mut Vec<String>) -> R) -> R {
        add(&mut self.parts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The last part, if there is room for a line.
fn room(parts: &mut Vec<String>) -> &mut String {
    let is_full = |part: &String| part.len() > PART - PART / 8;
    if parts.last().is_none_or(is_full) {
        parts.push(String::with_capacity(PART));
    }
    let last = parts.len() - 1;
    &mut parts[last]
}

/// Whether it could be written.
fn sample_line(sample: &Bound<'_, PyAny>, page: &mut String) -> PyResult<bool> {
    let Ok(sample) = sample.cast::<PyTuple>() else {
        return Ok(false);
    };
    let (name, labels) = (sample.get_item(0)?, sample.get_item(1)?);
    let (value, timestamp) = (sample.get_item(2)?, sample.get_item(3)?);
    let (Ok(name), Ok(labels)) = (name.cast_exact::<PyString>(), labels.cast_exact::<PyDict>())
    else {
        return Ok(false);
    };
    let name = name.to_str()?;
    if !timestamp.is_none() || !qbus::is_metric_name(name) {
        return Ok(false);
    }
    page.push_str(name);
    if !write_labels(labels, page)? {
        return Ok(false);
    }
    page.push(' ');
    let is_written = write_value(&value, page)?;
    page.push('\n');
    Ok(is_written)
}

fn write_labels(labels: &Bound<'_, PyDict>, page: &mut String) -> PyResult<bool> {
    let mut pairs = Vec::with_capacity(labels.len());
    for (name, value) in labels.iter() {
        let (Ok(name), Ok(value)) = (
            name.cast_into_exact::<PyString>(),
            value.cast_into_exact::<PyString>(),
        ) else {
            return Ok(false);
        };
        pairs.push((name, value));
    }
    let mut texts = Vec::with_capacity(pairs.len());
    for (name, value) in &pairs {
        let name = name.to_str()?;
        if name.contains(':') || !qbus::is_metric_name(name) {
            return Ok(false);
        }
        texts.push((name, value.to_str()?));
    }
    texts.sort_unstable();
    for (at, (name, value)) in texts.iter().enumerate() {
        page.push(if at == 0 { '{' } else { ',' });
        page.push_str(name);
        page.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => page.push_str("\\\\"),
                '\n' => page.push_str("\\n"),
                '"' => page.push_str("\\\""),
                c => page.push(c),
            }
        }
        page.push('"');
    }
    if !texts.is_empty() {
        page.push('}');
    }
    Ok(true)
}

/// A number as Go writes it: whole ones below a million are all that differ in nothing but the
/// point.
fn write_value(value: &Bound<'_, PyAny>, page: &mut String) -> PyResult<bool> {
    let is_number =
        value.is_exact_instance_of::<PyFloat>() || value.is_exact_instance_of::<PyInt>();
    if !is_number {
        return Ok(false);
    }
    let number: f64 = value.extract()?;
    if number.fract() == 0.0 && (0.0..1e6).contains(&number) && number.is_sign_positive() {
        let _ = write!(page, "{number:.1}");
        return Ok(true);
    }
    let py = value.py();
    let write = py
        .import("qbus.prometheus_client.utils")?
        .getattr("floatToGoString")?;
    let text = calls::call(&write, (number,))?;
    page.push_str(text.cast::<PyString>()?.to_str()?);
    Ok(true)
}
