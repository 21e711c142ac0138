//! A metric as Python reads it.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyTuple};
use qbus::MetricType;
use qbus_aggregate::export::seconds;
use qbus_aggregate::{Exemplar, Family, HistogramValue, Point, Series, SummaryValue, Value};
use qbus_collector::Reading;

use crate::convert::list;
use crate::{calls, ending, error};

/// A value with its name, type, labels and time.
///
/// >>> import qbus
/// >>> collector = qbus.MetricsCollector()
/// >>> collector.add_metric("temperature", 21.5, "gauge", {"room": "lab"})
/// True
/// >>> metric = collector.get_metric("temperature", {"room": "lab"})
/// >>> metric.name, metric.value, metric.labels
/// ('temperature', 21.5, {'room': 'lab'})
/// >>> collector.close()
#[pyclass(frozen, module = "qbus")]
pub(crate) struct Metric {
    pub(crate) series: Series,
}

impl From<Series> for Metric {
    fn from(series: Series) -> Metric {
        Metric { series }
    }
}

impl From<Reading> for Metric {
    fn from(reading: Reading) -> Metric {
        let value = match reading.family.metric_type {
            MetricType::Counter => Value::Counter(reading.value.into()),
            // One observation has neither buckets nor quantiles.
            _ => Value::Gauge(reading.value),
        };
        Metric {
            series: Series {
                family: reading.family,
                labels: reading.labels,
                value,
                timestamp_ns: reading.timestamp_ns,
                start_ns: reading.timestamp_ns,
                records: 1,
                history: Vec::new(),
                exemplars: Vec::new(),
            },
        }
    }
}

/// What there is to say of observations as a whole.
#[derive(Clone, Copy, Default)]
pub(crate) struct Observations {
    pub(crate) count: u64,
    pub(crate) sum: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// The observations of a histogram or summary.
pub(crate) fn observations(series: &Series) -> Option<Observations> {
    let (count, sum, min, max) = match &series.value {
        Value::Counter(_) | Value::Gauge(_) => return None,
        Value::Histogram(value) => (value.count, &value.sum, value.min, value.max),
        Value::Summary(value) => (value.count, &value.sum, value.min, value.max),
    };
    Some(Observations {
        count,
        sum: sum.value(),
        min,
        max,
    })
}

/// A counter's sum, a gauge's value, the last observation of a histogram or summary.
pub(crate) fn value(series: &Series) -> f64 {
    match &series.value {
        Value::Counter(sum) => sum.value(),
        Value::Gauge(value) => *value,
        Value::Histogram(value) => value.last,
        Value::Summary(value) => value.last,
    }
}

/// Label names and values, in the order in which they were first given.
pub(crate) fn labels<'py>(py: Python<'py>, series: &Series) -> PyResult<Bound<'py, PyDict>> {
    let labels = PyDict::new(py);
    for (name, value) in &series.labels {
        labels.set_item(name, value)?;
    }
    Ok(labels)
}

/// Of each bucket the last record that had a trace.
pub(crate) fn exemplars<'py>(
    py: Python<'py>,
    series: &Series,
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let dict = |exemplar: &Exemplar| {
        let dict = PyDict::new(py);
        dict.set_item("trace_id", format!("{:032x}", exemplar.trace_id))?;
        dict.set_item("value", exemplar.value)?;
        dict.set_item("timestamp", seconds(exemplar.timestamp_ns))?;
        Ok(dict)
    };
    series.exemplars.iter().map(dict).collect()
}

/// A histogram's upper bounds, each with the count of observations up to it, the last one infinite.
pub(crate) fn buckets(series: &Series) -> Option<Vec<(f64, u64)>> {
    let Value::Histogram(value) = &series.value else {
        return None;
    };
    let bounds = series.family.buckets.iter().copied();
    let bounds = bounds.chain([f64::INFINITY]);
    Some(bounds.zip(value.cumulative.iter().copied()).collect())
}

#[pymethods]
impl Metric {
    /// The metric's name.
    #[getter]
    fn name(&self) -> &str {
        &self.series.family.name
    }

    /// A counter's sum, a gauge's value, the last observation of a histogram or summary.
    #[getter]
    fn value(&self) -> f64 {
        value(&self.series)
    }

    /// A member of MetricType.
    #[getter]
    fn metric_type<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let class = CLASS.import(py, "qbus._types", "MetricType")?;
        calls::call(class, (self.series.family.metric_type.as_str(),))
    }

    /// The same as metric_type.
    #[getter]
    fn r#type<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.metric_type(py)
    }

    /// Label names and values, in the order in which they were first given.
    #[getter]
    fn labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        labels(py, &self.series)
    }

    /// What the metric means.
    #[getter]
    fn description(&self) -> &str {
        &self.series.family.help
    }

    /// The base unit; may be empty.
    #[getter]
    fn unit(&self) -> &str {
        &self.series.family.unit
    }

    /// When the last value was emitted, in seconds since the Unix epoch.
    #[getter]
    fn timestamp(&self) -> f64 {
        seconds(self.series.timestamp_ns)
    }

    /// The same time as a datetime in UTC.
    #[getter]
    fn datetime<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let module = py.import("datetime")?;
        let utc = module.getattr("timezone")?.getattr("utc")?;
        module
            .getattr("datetime")?
            .call_method1("fromtimestamp", (self.timestamp(), utc))
    }

    /// How many values were folded into this one.
    #[getter]
    fn records(&self) -> u64 {
        self.series.records
    }

    /// How many observations there were; None for counters and gauges.
    #[getter]
    fn count(&self) -> Option<u64> {
        observations(&self.series).map(|of| of.count)
    }

    /// The sum of the observations; None for counters and gauges.
    #[getter]
    fn sum(&self) -> Option<f64> {
        observations(&self.series).map(|of| of.sum)
    }

    /// The smallest observation; None for counters and gauges.
    #[getter]
    fn min(&self) -> Option<f64> {
        observations(&self.series).map(|of| of.min)
    }

    /// The largest observation; None for counters and gauges.
    #[getter]
    fn max(&self) -> Option<f64> {
        observations(&self.series).map(|of| of.max)
    }

    /// A histogram's upper bounds, each with the count of observations up to it, the last one
    /// infinite.
    #[getter]
    fn buckets(&self) -> Option<Vec<(f64, u64)>> {
        buckets(&self.series)
    }

    /// A summary's quantiles (0 to 1), each with its value: of the observations of the last
    /// window_seconds, NaN when there was none.
    #[getter]
    fn quantiles(&self) -> Option<Vec<(f64, f64)>> {
        match &self.series.value {
            Value::Summary(value) => Some(value.quantiles.clone()),
            _ => None,
        }
    }

    /// Of how many seconds a summary's quantiles are; None where they are of all time. Count, sum,
    /// min and max are of all time.
    #[getter]
    fn window_seconds(&self) -> Option<f64> {
        let Family {
            metric_type,
            window,
            ..
        } = &*self.series.family;
        let is_sliding = *metric_type == MetricType::Summary && !window.is_all_time();
        is_sliding.then_some(window.length.as_secs_f64())
    }

    /// The last values as pairs of time and value, oldest first; empty unless asked for.
    #[getter]
    fn history<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let points = self.series.history.iter();
        let pairs = points.map(|point| Ok((seconds(point.timestamp_ns), point.value)));
        list(py, pairs)
    }

    /// Of each bucket the last record that had a trace, as dicts with trace_id, value and
    /// timestamp.
    #[getter]
    fn exemplars<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        exemplars(py, &self.series)
    }

    /// The members as a dict, as the JSON export has them; those that do not apply are left out.
    fn to_dict<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(slf.py());
        for name in [
            "name",
            "value",
            "type",
            "labels",
            "description",
            "timestamp",
        ] {
            dict.set_item(name, slf.getattr(name)?)?;
        }
        dict.set_item("type", slf.get().series.family.metric_type.as_str())?;
        dict.set_item(
            "datetime",
            slf.getattr("datetime")?.call_method0("isoformat")?,
        )?;
        for name in [
            "count",
            "sum",
            "min",
            "max",
            "buckets",
            "quantiles",
            "window_seconds",
        ] {
            let value = slf.getattr(name)?;
            if !value.is_none() {
                dict.set_item(name, value)?;
            }
        }
        if !slf.get().series.exemplars.is_empty() {
            dict.set_item("exemplars", slf.getattr("exemplars")?)?;
        }
        Ok(dict)
    }

    fn __getitem__<'py>(slf: &Bound<'py, Self>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        Self::to_dict(slf)?
            .get_item(name)?
            .ok_or_else(|| error::missing(name))
    }

    fn __repr__(&self) -> String {
        format!(
            "Metric({} = {}, {})",
            series_name(&self.series),
            self.value(),
            self.series.family.metric_type
        )
    }

    /// Another process makes the same of these.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        // Who pickles a list of them gives nobody a turn.
        ending::pause(py)?;
        let Series {
            family,
            labels,
            timestamp_ns,
            start_ns,
            records,
            history,
            exemplars,
            ..
        } = &self.series;
        let of = observations(&self.series).unwrap_or_default();
        let (counts, quantiles) = match &self.series.value {
            Value::Counter(_) | Value::Gauge(_) => (Vec::new(), Vec::new()),
            Value::Histogram(value) => (value.cumulative.clone(), Vec::new()),
            Value::Summary(value) => (Vec::new(), value.quantiles.clone()),
        };
        let definition = (
            &family.name,
            family.metric_type.as_str(),
            &family.help,
            &family.unit,
            family.buckets.clone(),
            (family.window.length.as_secs_f64(), family.window.steps),
        );
        let points: Vec<_> = history
            .iter()
            .map(|point| (point.timestamp_ns, point.value))
            .collect();
        let value = self.value();
        let observed = (value, of.count, of.sum, of.min, of.max, counts, quantiles);
        let exemplars: Vec<_> = exemplars
            .iter()
            .map(|exemplar| (exemplar.timestamp_ns, exemplar.value, exemplar.trace_id))
            .collect();
        let times = (*timestamp_ns, *start_ns, *records, points, exemplars);
        let rebuild = py.import("qbus._qbus")?.getattr("rebuild_metric")?;
        (rebuild, (definition, labels.clone(), observed, times)).into_pyobject(py)
    }

    fn __eq__(&self, other: &Metric) -> bool {
        self.series == other.series
    }
}

/// Name, type, help, unit, buckets, and seconds and steps of the window of a pickled metric.
type Definition = (String, String, String, String, Vec<f64>, (f64, u32));
/// Its value, count, sum, minimum, maximum, cumulative counts and quantiles.
type Observed = (f64, u64, f64, f64, f64, Vec<u64>, Vec<(f64, f64)>);
/// When it was emitted last and first, how many records it is of, its history, and its exemplars.
type Times = (u64, u64, u64, Vec<(u64, f64)>, Vec<(u64, f64, u128)>);

/// What a pickled metric becomes.
#[pyfunction]
pub(crate) fn rebuild_metric(
    py: Python<'_>,
    definition: Definition,
    labels: Vec<(String, String)>,
    observed: Observed,
    times: Times,
) -> PyResult<Metric> {
    ending::pause(py)?;
    let (name, type_name, help, unit, buckets, (seconds, steps)) = definition;
    let metric_type = MetricType::from_name(&type_name)
        .ok_or_else(|| error::metric(py, format_args!("{type_name:?} is no metric type")))?;
    let (last, count, sum, min, max, cumulative, quantiles) = observed;
    let value = match metric_type {
        MetricType::Counter => Value::Counter(last.into()),
        MetricType::Gauge | MetricType::Untyped => Value::Gauge(last),
        MetricType::Histogram => Value::Histogram(HistogramValue {
            last,
            count,
            sum: sum.into(),
            min,
            max,
            cumulative,
            // Only the exporters of a whole page use it.
            distribution: None,
        }),
        MetricType::Summary => Value::Summary(SummaryValue {
            last,
            count,
            sum: sum.into(),
            min,
            max,
            quantiles,
            // Only the exporters of a whole page use it.
            distribution: Default::default(),
        }),
    };
    let (timestamp_ns, start_ns, records, points, exemplars) = times;
    let family = Family {
        name,
        metric_type,
        help,
        unit,
        buckets,
        native: false,
        merge: qbus::Merge::Last,
        window: qbus::Window {
            length: Duration::try_from_secs_f64(seconds).unwrap_or_default(),
            steps,
        },
    };
    let point = |(timestamp_ns, value)| Point {
        timestamp_ns,
        value,
    };
    let exemplar = |(timestamp_ns, value, trace_id)| Exemplar {
        value,
        timestamp_ns,
        trace_id,
    };
    Ok(Metric::from(Series {
        family: Arc::new(family),
        labels,
        value,
        timestamp_ns,
        start_ns,
        records,
        history: points.into_iter().map(point).collect(),
        exemplars: exemplars.into_iter().map(exemplar).collect(),
    }))
}

/// A series as Prometheus writes it: `name{label="value"}`.
pub(crate) fn series_name(series: &Series) -> String {
    let labels: Vec<_> = series
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    let name = &series.family.name;
    if labels.is_empty() {
        name.clone()
    } else {
        format!("{name}{{{}}}", labels.join(","))
    }
}
