//! From Python's values to Rust's. An error names the argument, what it is and what was expected.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyInt, PyList, PyMapping, PyString};
use qbus::MetricType;

use crate::ending;
use crate::error;

/// As many labels are looked at without an allocation.
const FEW: usize = 8;

fn wrong(argument: &str, found: &Bound<'_, PyAny>, expected: &str) -> PyErr {
    let shown = found.repr().map_or_else(
        |_| "?".to_owned(),
        |shown| shown.to_string_lossy().chars().take(60).collect(),
    );
    let class = found
        .get_type()
        .name()
        .map_or_else(|_| "?".to_owned(), |name| name.to_string());
    error::argument(
        found.py(),
        format_args!("argument {argument:?} is {shown} ({class}), expected {expected}"),
    )
}

/// A number: a float, an int, or what turns itself into a float (numpy, torch, Decimal).
#[inline]
pub(crate) fn number(argument: &str, found: &Bound<'_, PyAny>) -> PyResult<f64> {
    // The value of a float and of an int is no Python code.
    if let Ok(float) = found.cast::<PyFloat>() {
        return Ok(float.value());
    }
    if found.is_exact_instance_of::<PyInt>() {
        // Most are small: that is a third of what the general way costs.
        return match found.extract::<i64>() {
            Ok(int) => Ok(int as f64),
            Err(_) => found.extract::<f64>(),
        };
    }
    let extracted = ending::python(found.py(), || found.extract::<f64>());
    extracted.map_err(|error| not_a(argument, found, "a number", error))
}

/// A TypeError becomes one that names the argument; whatever else `__float__` raises is the
/// caller's.
#[cold]
fn not_a(argument: &str, found: &Bound<'_, PyAny>, expected: &str, cause: PyErr) -> PyErr {
    let py = found.py();
    if !cause.is_instance_of::<PyTypeError>(py) {
        return cause;
    }
    let error = wrong(argument, found, expected);
    error.set_cause(py, Some(cause));
    error
}

/// How much to add: a number, or 1 when none was given. `None` is no number.
pub(crate) enum Amount<'py> {
    One,
    Given(Bound<'py, PyAny>),
}

impl<'a, 'py> FromPyObject<'a, 'py> for Amount<'py> {
    type Error = PyErr;

    fn extract(given: Borrowed<'a, 'py, PyAny>) -> PyResult<Amount<'py>> {
        Ok(Amount::Given(given.to_owned()))
    }
}

impl Amount<'_> {
    #[inline]
    pub(crate) fn number(&self) -> PyResult<f64> {
        match self {
            Amount::One => Ok(1.0),
            Amount::Given(given) => number("amount", given),
        }
    }
}

#[inline]
pub(crate) fn text<'a>(argument: &str, found: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    match found.cast::<PyString>() {
        Ok(text) => text.to_str(),
        Err(_) => Err(wrong(argument, found, "a string")),
    }
}

/// A text that may be left out.
pub(crate) fn optional_text<'a>(
    argument: &str,
    found: Option<&'a Bound<'_, PyAny>>,
) -> PyResult<&'a str> {
    found
        .filter(|found| !found.is_none())
        .map_or(Ok(""), |found| text(argument, found))
}

/// A member of the enum `MetricType`, which is a string, or its value.
#[inline]
pub(crate) fn metric_type(found: &Bound<'_, PyAny>) -> PyResult<MetricType> {
    let expected = "a MetricType, or 'counter', 'gauge', 'histogram', 'summary' or 'untyped'";
    let name = found
        .cast::<PyString>()
        .map_err(|_| wrong("metric_type", found, expected))?;
    MetricType::from_name(name.to_str()?).ok_or_else(|| {
        let found = found
            .repr()
            .map(|shown| shown.to_string())
            .unwrap_or_default();
        error::metric(
            name.py(),
            format_args!("argument \"metric_type\" is {found}, expected {expected}"),
        )
    })
}

/// Seconds since the Unix epoch: a number, or a datetime.
pub(crate) fn timestamp(found: Option<&Bound<'_, PyAny>>) -> PyResult<Option<f64>> {
    let Some(found) = found.filter(|found| !found.is_none()) else {
        return Ok(None);
    };
    let expected = "seconds since 1970 or a datetime";
    ending::python(found.py(), || {
        if let Ok(seconds) = found.extract::<f64>() {
            return Ok(Some(seconds));
        }
        let Some(timestamp) = found.getattr_opt("timestamp")? else {
            return Err(wrong("timestamp", found, expected));
        };
        let seconds = timestamp
            .call0()
            .and_then(|seconds| seconds.extract::<f64>());
        seconds
            .map(Some)
            .map_err(|error| not_a("timestamp", found, expected, error))
    })
}

/// The trace of an exemplar: its `trace_id`, 32 hexadecimal digits; 0 without one.
pub(crate) fn trace_id(exemplar: Option<&Bound<'_, PyAny>>) -> PyResult<u128> {
    let Some(exemplar) = exemplar.filter(|exemplar| !exemplar.is_none()) else {
        return Ok(0);
    };
    let expected = "a dict with trace_id, up to 32 hexadecimal digits";
    let id = ending::python(exemplar.py(), || {
        exemplar
            .get_item("trace_id")
            .or_else(|_| exemplar.get_item("TraceID"))
    });
    let id = id.map_err(|_| wrong("exemplar", exemplar, expected))?;
    u128::from_str_radix(text("exemplar", &id)?, 16)
        .map_err(|_| wrong("exemplar", exemplar, expected))
}

/// Hands the labels of a dict, or of nothing, to `use_labels`. Values that are no strings become
/// what `str()` makes of them.
#[inline]
pub(crate) fn with_labels<R>(
    found: Option<&Bound<'_, PyAny>>,
    use_labels: impl FnOnce(&[(&str, &str)]) -> R,
) -> PyResult<R> {
    let Some(found) = found.filter(|found| !found.is_none()) else {
        return Ok(use_labels(&[]));
    };
    let copied;
    let labels = match found.cast::<PyDict>() {
        Ok(labels) => labels,
        Err(_) => {
            copied = PyDict::new(found.py());
            let mapping = found
                .cast::<PyMapping>()
                .map_err(|_| wrong("labels", found, "a dict of strings, or None"))?;
            ending::python(found.py(), || copied.update(mapping))?;
            &copied
        }
    };
    if labels.len() > FEW {
        let held = labels.iter().map(held).collect::<PyResult<Vec<_>>>()?;
        let texts = held.iter().map(texts).collect::<PyResult<Vec<_>>>()?;
        return Ok(use_labels(&texts));
    }
    let mut all: [Option<HeldLabel<'_>>; FEW] = [const { None }; FEW];
    let mut len = 0;
    for label in labels.iter() {
        // A dict that grows while it is iterated raises before it gets here.
        all[len.min(FEW - 1)] = Some(held(label)?);
        len += 1;
    }
    let mut few = [("", ""); FEW];
    for (text, label) in few.iter_mut().zip(all.iter().flatten()) {
        *text = texts(label)?;
    }
    Ok(use_labels(&few[..len.min(FEW)]))
}

/// Name and value of a label, kept alive.
type HeldLabel<'py> = (Bound<'py, PyString>, Bound<'py, PyString>);

#[inline]
fn held<'py>((name, value): (Bound<'py, PyAny>, Bound<'py, PyAny>)) -> PyResult<HeldLabel<'py>> {
    let name = name
        .cast_into::<PyString>()
        .map_err(|error| wrong("labels", &error.into_inner(), "strings as names"))?;
    Ok((name, label_value(value)?))
}

/// A label's value as a string. What is no text in it (a file's name with bytes that are not UTF-8,
/// say) is replaced: a page is UTF-8, and a request is not to fail for it.
#[inline]
pub(crate) fn label_value<'py>(value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
    let value = match value.cast_into::<PyString>() {
        Ok(value) => value,
        Err(error) => {
            let value = error.into_inner();
            ending::python(value.py(), || value.str())?
        }
    };
    if value.to_str().is_ok() {
        return Ok(value);
    }
    Ok(PyString::new(value.py(), &value.to_string_lossy()))
}

/// A list of many objects, in the making of which other threads have their turns.
pub(crate) fn list<'py, T: IntoPyObject<'py>>(
    py: Python<'py>,
    items: impl Iterator<Item = PyResult<T>>,
) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for (at, item) in items.enumerate() {
        list.append(item?)?;
        ending::share(py, at)?;
    }
    Ok(list)
}

#[inline]
fn texts<'a>((name, value): &'a HeldLabel<'_>) -> PyResult<(&'a str, &'a str)> {
    Ok((name.to_str()?, value.to_str()?))
}
