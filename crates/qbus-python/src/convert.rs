//! From Python's values to Rust's. An error names the argument, what it is and what was expected.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple};
use qbus::MetricType;

use crate::{calls, ending, error};

/// As many labels are looked at without an allocation.
const FEW: usize = 8;

fn wrong(argument: &str, found: &Bound<'_, PyAny>, expected: &str) -> PyErr {
    let shown = match calls::repr(found) {
        Ok(shown) => shown.to_string_lossy().chars().take(60).collect(),
        Err(error) if error.is_instance_of::<PyException>(found.py()) => "?".to_owned(),
        // An interrupt is the program's.
        Err(error) => return error,
    };
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
    calls::float(found).map_err(|error| not_a(argument, found, "a number", error))
}

/// A TypeError becomes one that names the argument; whatever else `__float__` raises is the
/// caller's.
#[cold]
fn not_a(argument: &str, found: &Bound<'_, PyAny>, expected: &str, cause: PyErr) -> PyErr {
    let py = found.py();
    // What looks into an exception may give the interpreter up.
    ending::python(py, || {
        if !cause.is_instance_of::<PyTypeError>(py) {
            return cause;
        }
        let error = wrong(argument, found, expected);
        error.set_cause(py, Some(cause));
        error
    })
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
    let Ok(text) = found.cast::<PyString>() else {
        return Err(wrong(argument, found, "a string"));
    };
    text.to_str().map_err(|_| {
        let found = text.to_string_lossy();
        let found = format_args!("argument {argument:?} is {found:?}, with characters replaced");
        error::metric(
            text.py(),
            format_args!("{found}, expected what is a text in UTF-8"),
        )
    })
}

/// What describes something, if it is given. What is no text in it is replaced.
pub(crate) fn description<'a>(found: Option<&'a Bound<'_, PyAny>>) -> PyResult<Cow<'a, str>> {
    let Some(found) = found.filter(|found| !found.is_none()) else {
        return Ok(Cow::Borrowed(""));
    };
    match found.cast::<PyString>() {
        Ok(text) => Ok(text.to_string_lossy()),
        Err(_) => Err(wrong("description", found, "a string")),
    }
}

/// A member of the enum `MetricType`, which is a string, or its value.
#[inline]
pub(crate) fn metric_type(found: &Bound<'_, PyAny>) -> PyResult<MetricType> {
    let expected = "a MetricType, or 'counter', 'gauge', 'histogram', 'summary' or 'untyped'";
    let name = found
        .cast::<PyString>()
        .map_err(|_| wrong("metric_type", found, expected))?;
    MetricType::from_name(name.to_str()?).ok_or_else(|| {
        let shown = calls::repr(found).map(|shown| shown.to_string());
        let found = shown.unwrap_or_default();
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
    let not_one = |error| not_a("timestamp", found, expected, error);
    let name = intern!(found.py(), "timestamp");
    let no_number = match calls::float(found) {
        Ok(seconds) => return Ok(Some(seconds)),
        Err(error) => error,
    };
    let Ok(timestamp) = calls::attribute(found, name) else {
        return Err(not_one(no_number));
    };
    let seconds = calls::call_without(&timestamp).and_then(|seconds| calls::float(&seconds));
    seconds.map(Some).map_err(not_one)
}

/// The trace of an exemplar: its `trace_id`, 32 hexadecimal digits; 0 without one.
pub(crate) fn trace_id(exemplar: Option<&Bound<'_, PyAny>>) -> PyResult<u128> {
    let Some(exemplar) = exemplar.filter(|exemplar| !exemplar.is_none()) else {
        return Ok(0);
    };
    let expected = "a dict with trace_id, up to 32 hexadecimal digits";
    let wrong = || wrong("exemplar", exemplar, expected);
    let exemplar = dict(exemplar).map_err(|_| wrong())?;
    let id = |name| exemplar.get_item(name).ok().flatten();
    let id = id("trace_id").or_else(|| id("TraceID")).ok_or_else(wrong)?;
    let digits = text("exemplar", &id)?;
    let is_hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let parsed = u128::from_str_radix(digits, 16).ok();
    parsed.filter(|_| is_hexadecimal).ok_or_else(wrong)
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
    let labels = match found.cast::<PyDict>() {
        Ok(labels) => labels,
        Err(_) => {
            found
                .cast::<PyMapping>()
                .map_err(|_| wrong("labels", found, "a dict of strings, or None"))?;
            &dict(found)?
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
            calls::str(&value)?
        }
    };
    // The hash of a class of one's own is Python code, which would be asked for it.
    if value.is_exact_instance_of::<PyString>() && value.to_str().is_ok() {
        return Ok(value);
    }
    Ok(PyString::new(value.py(), &value.to_string_lossy()))
}

/// Whether it is what an exception can be one of: a class, or a tuple of classes.
pub(crate) fn check_classes(argument: &str, found: &Bound<'_, PyAny>) -> PyResult<()> {
    let asked = calls::is_instance(found, found);
    asked.map(drop).map_err(|error| {
        not_a(
            argument,
            found,
            "an exception class, or a tuple of them",
            error,
        )
    })
}

/// All that something gives that can be iterated.
pub(crate) fn tuple<'py>(found: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    let class = found.py().get_type::<PyTuple>().into_any();
    Ok(calls::call(&class, (found,))?.cast_into()?)
}

/// A path: a string, bytes, or what has one.
pub(crate) struct FilePath(pub(crate) PathBuf);

impl<'a, 'py> FromPyObject<'a, 'py> for FilePath {
    type Error = PyErr;

    fn extract(given: Borrowed<'a, 'py, PyAny>) -> PyResult<FilePath> {
        static FSPATH: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let fspath = FSPATH.import(given.py(), "os", "fspath")?;
        let path = calls::call(fspath, (given,))?;
        let path = match path.cast::<PyBytes>() {
            Ok(bytes) => PathBuf::from(OsStr::from_bytes(bytes.as_bytes())),
            Err(_) => path.extract()?,
        };
        Ok(FilePath(path))
    }
}

/// A mapping as a dict.
fn dict<'py>(found: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    match found.cast_exact::<PyDict>() {
        Ok(dict) => Ok(dict.clone()),
        Err(_) => {
            let class = found.py().get_type::<PyDict>().into_any();
            Ok(calls::call(&class, (found,))?.cast_into()?)
        }
    }
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
