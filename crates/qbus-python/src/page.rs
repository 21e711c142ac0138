//! The lines of a page of `qbus.prometheus_client`, where there is nothing to escape in names.

use std::fmt::Write;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::ending;

/// Samples as lines of the Prometheus text format; None when one of them needs more than this
/// knows.
#[pyfunction]
pub(crate) fn sample_lines(samples: &Bound<'_, PyList>) -> PyResult<Option<String>> {
    let mut page = String::with_capacity(samples.len() * 64);
    for (at, sample) in samples.iter().enumerate() {
        if !sample_line(&sample, &mut page)? {
            return Ok(None);
        }
        ending::share(samples.py(), at)?;
    }
    Ok(Some(page))
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
    let text = py
        .import("qbus.prometheus_client.utils")?
        .getattr("floatToGoString")?
        .call1((number,))?;
    page.push_str(text.cast::<PyString>()?.to_str()?);
    Ok(true)
}
