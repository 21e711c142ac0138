//! What a collector is made with, from Python's arguments.

use std::collections::BTreeMap;
use std::time::Duration;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use qbus::Address;
use qbus_collector::SamplerOptions;

use crate::convert::text;
use crate::{calls, ending, error};

/// A bus by its name or path.
pub(super) fn address(py: Python<'_>, bus: Option<&str>) -> PyResult<Option<Address>> {
    let parsed = bus.map(str::parse).transpose();
    parsed.map_err(|error| error::metric(py, error))
}

/// Seconds above 0.
pub(super) fn interval(py: Python<'_>, seconds: f64) -> PyResult<Duration> {
    let interval = Duration::try_from_secs_f64(seconds).ok();
    interval
        .filter(|interval| !interval.is_zero())
        .ok_or_else(|| {
            let found = format_args!("argument \"collection_interval\" is {seconds}");
            error::metric(py, format_args!("{found}, expected seconds above 0"))
        })
}

/// A size by the name of its argument, or the default.
pub(super) fn size_or(
    (argument, default): (&str, usize),
    given: Option<&Bound<'_, PyAny>>,
) -> PyResult<usize> {
    given.map_or(Ok(default), |given| size(argument, given))
}

/// A size: an int, 0 or more.
pub(super) fn size(argument: &str, given: &Bound<'_, PyAny>) -> PyResult<usize> {
    given.extract::<usize>().map_err(|cause| {
        let py = given.py();
        let shown = calls::repr(given).map_or_else(|_| "?".to_owned(), |shown| shown.to_string());
        let message = format!("argument {argument:?} is {shown}, expected an int from 0 to 2**63");
        let error = if cause.is_instance_of::<PyTypeError>(py) {
            error::argument(py, message)
        } else {
            error::metric(py, message)
        };
        error.set_cause(py, Some(cause));
        error
    })
}

/// What is sampled: the usual, but for arguments with strings or truths.
pub(super) fn sampling(
    py: Python<'_>,
    usual: SamplerOptions,
    arguments: BTreeMap<String, Bound<'_, PyAny>>,
) -> PyResult<SamplerOptions> {
    let mut texts = Vec::with_capacity(arguments.len());
    for (name, value) in arguments {
        let text = match value.extract::<bool>() {
            Ok(truth) => truth.to_string(),
            Err(_) => text("sampler", &value)?.to_owned(),
        };
        texts.push((name, text));
    }
    // Its filters are compiled.
    let options = ending::detach(py, move || {
        let mut options = usual;
        let mut all = texts.iter();
        let set = all.try_for_each(|(name, text)| options.set_argument(name, text));
        set.map(|()| options)
    });
    options.map_err(|error| error::metric(py, format_args!("argument \"sampler\": {error}")))
}
