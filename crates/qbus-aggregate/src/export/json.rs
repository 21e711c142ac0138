//! JSON (RFC 8259).

use std::io::{self, BufWriter, Write};

use qbus::Window;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::number::{push_datetime, push_float, seconds, word};
use super::{Exported, Options};
use crate::series::{Exemplar, HistogramValue, Series, SummaryValue, Value};
use crate::snapshot::reader::Named;
use crate::sum::Sum;

/// Counts the incompatible changes of the document. New members may come without one.
pub const SCHEMA_VERSION: u32 = 2;

/// Writes series as one JSON document (RFC 8259) on one line, and flushes `out`.
///
/// ```json
/// {
///   "schema_version": 2,
///   "epoch": 7,
///   "consistent": true,
///   "timestamp": "2023-10-01T12:00:00.000000000Z",
///   "unix_ns": 1696161600000000000,
///   "metrics": [
///     {
///       "name": "model_inference_latency",
///       "value": 0.125,
///       "type": "gauge",
///       "labels": {"model": "qwen3-vl", "input_size": "large"},
///       "description": "Model inference latency in seconds",
///       "timestamp": 1696161600.0,
///       "datetime": "2023-10-01T12:00:00.000000000Z"
///     }
///   ],
///   "history": {
///     "model_inference_latency": [
///       {
///         "labels": {"model": "qwen3-vl", "input_size": "large"},
///         "value": 0.125,
///         "timestamp": 1696161600.0,
///         "datetime": "2023-10-01T12:00:00.000000000Z"
///       }
///     ]
///   }
/// }
/// ```
///
/// * `epoch`, `consistent` and `unix_ns` are those of [`Snapshot`](crate::Snapshot). `unix_ns` is
///   an integer above 2^53: a reader that turns all numbers into doubles loses up to 128 ns of it.
///   `timestamp` of the document says the same time as text.
/// * `timestamp` of a metric is in seconds since the Unix epoch, as a double (to about 0.2 µs);
///   `datetime` is the same time in full, in UTC (RFC 3339, always with nine decimals).
/// * `value` is a counter's sum, a gauge's value, and the last observation of a histogram or
///   summary. Those two also have `count`, `sum`, `min` and `max`, and a histogram `buckets` (a
///   list of `le`, a string as in Prometheus, and the *cumulative* `count`; the last `le` is
///   `"+Inf"`), a summary `quantiles` (a list of `quantile` and `value`) and `window_seconds`: the
///   quantiles are of that time (`null`: of all time), where nothing was observed in it they are
///   `null`. All else is of all time.
/// * `unit` is there where the family has one.
/// * `exemplars` is there where records had traces: of each bucket the last one, with `trace_id`
///   (32 hexadecimal digits), `value` and times.
/// * A sum of integers beyond 2^53 has all its digits. A reader that turns it into a double rounds
///   it.
/// * JSON has no word for NaN and the infinities: they are `null`, as also the `min` of a histogram
///   without observations is, so that a column of numbers is one for every reader. Where the
///   `value` of a metric is none of JSON's numbers, `not_finite` says which: `"NaN"`, `"+Inf"` or
///   `"-Inf"`.
/// * `labels` keep the order of the series and hold its empty values as well.
/// * `history` maps a name to the points of all its series, each with its labels, oldest first
///   within a series. It is empty unless [`Options::history`] asks for it, and a name without
///   points is not in it.
///
/// Series are written one by one; the document is never held in memory.
///
/// # Errors
///
/// The first error of `out`, as it is.
pub fn json<'a>(
    what: impl Into<Exported<'a>>,
    options: &Options,
    out: &mut dyn Write,
) -> io::Result<()> {
    let what = what.into();
    let mut out = BufWriter::with_capacity(64 * 1024, out);
    let document = Document {
        schema_version: SCHEMA_VERSION,
        epoch: what.epoch(),
        consistent: what.is_consistent(),
        timestamp: Datetime(what.unix_ns()),
        unix_ns: what.unix_ns(),
        metrics: Metrics(what),
        history: History(options.history.then_some(what)),
    };
    serde_json::to_writer(&mut out, &document)?;
    out.write_all(b"\n")?;
    out.flush()
}

#[derive(serde::Serialize)]
struct Document<'a> {
    schema_version: u32,
    epoch: u64,
    consistent: bool,
    timestamp: Datetime,
    unix_ns: u64,
    metrics: Metrics<'a>,
    history: History<'a>,
}

struct Metrics<'a>(Exported<'a>);

impl Serialize for Metrics<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut metrics = serializer.serialize_seq(None)?;
        for series in self.0.names().iter().flat_map(Named::iter) {
            metrics.serialize_element(&Metric::new(&series))?;
        }
        metrics.end()
    }
}

#[derive(serde::Serialize)]
struct Metric<'a> {
    name: &'a str,
    value: Number,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_finite: Option<&'static str>,
    #[serde(rename = "type")]
    metric_type: &'static str,
    labels: Labels<'a>,
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    unit: &'a str,
    timestamp: f64,
    datetime: Datetime,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    observations: Option<Observations<'a>>,
    #[serde(skip_serializing_if = "Exemplars::is_none")]
    exemplars: Exemplars<'a>,
}

impl<'a> Metric<'a> {
    fn new(series: &'a Series) -> Metric<'a> {
        let family = &*series.family;
        let (value, observations) = match &series.value {
            Value::Counter(sum) => (Number::Sum(*sum), None),
            Value::Gauge(value) => (Number::Float(*value), None),
            Value::Histogram(value) => (
                Number::Float(value.last),
                Some(Observations::histogram(value, &family.buckets)),
            ),
            Value::Summary(value) => (
                Number::Float(value.last),
                Some(Observations::summary(value, family.window)),
            ),
        };
        Metric {
            name: &family.name,
            not_finite: value.word(),
            value,
            metric_type: family.metric_type.as_str(),
            labels: Labels(&series.labels),
            description: &family.help,
            unit: &family.unit,
            timestamp: seconds(series.timestamp_ns),
            datetime: Datetime(series.timestamp_ns),
            observations,
            exemplars: Exemplars(&series.exemplars),
        }
    }
}

struct Exemplars<'a>(&'a [Exemplar]);

impl Exemplars<'_> {
    fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Exemplars<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Entry {
            trace_id: String,
            value: Float,
            timestamp: f64,
            datetime: Datetime,
        }
        serializer.collect_seq(self.0.iter().map(|exemplar| Entry {
            trace_id: format!("{:032x}", exemplar.trace_id),
            value: Float(exemplar.value),
            timestamp: seconds(exemplar.timestamp_ns),
            datetime: Datetime(exemplar.timestamp_ns),
        }))
    }
}

/// The members that only histograms and summaries have.
#[derive(serde::Serialize)]
struct Observations<'a> {
    count: u64,
    sum: Number,
    min: Float,
    max: Float,
    #[serde(skip_serializing_if = "Option::is_none")]
    buckets: Option<Buckets<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantiles: Option<Quantiles<'a>>,
    /// NaN where the quantiles are of all time.
    #[serde(skip_serializing_if = "Option::is_none")]
    window_seconds: Option<Float>,
}

impl<'a> Observations<'a> {
    fn histogram(value: &'a HistogramValue, bounds: &'a [f64]) -> Observations<'a> {
        Observations {
            count: value.count,
            sum: Number::Sum(value.sum),
            min: Float(value.min),
            max: Float(value.max),
            buckets: Some(Buckets {
                bounds,
                cumulative: &value.cumulative,
            }),
            quantiles: None,
            window_seconds: None,
        }
    }

    fn summary(value: &'a SummaryValue, window: Window) -> Observations<'a> {
        let seconds = match window.is_all_time() {
            true => f64::NAN,
            false => window.length.as_secs_f64(),
        };
        Observations {
            count: value.count,
            sum: Number::Sum(value.sum),
            min: Float(value.min),
            max: Float(value.max),
            buckets: None,
            quantiles: Some(Quantiles(&value.quantiles)),
            window_seconds: Some(Float(seconds)),
        }
    }
}

struct Buckets<'a> {
    bounds: &'a [f64],
    cumulative: &'a [u64],
}

impl Serialize for Buckets<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Bucket {
            le: String,
            count: u64,
        }
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        serializer.collect_seq(bounds.zip(self.cumulative).map(|(bound, &count)| {
            let mut le = String::new();
            push_float(&mut le, bound);
            Bucket { le, count }
        }))
    }
}

struct Quantiles<'a>(&'a [(f64, f64)]);

impl Serialize for Quantiles<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Quantile {
            quantile: Float,
            value: Float,
        }
        serializer.collect_seq(self.0.iter().map(|&(quantile, value)| Quantile {
            quantile: Float(quantile),
            value: Float(value),
        }))
    }
}

/// By name, the points of all series of the name.
/// Of what; of nothing where nobody asks for it.
struct History<'a>(Option<Exported<'a>>);

impl Serialize for History<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut names = serializer.serialize_map(None)?;
        for all in self.0.map_or(Vec::new(), |what| what.names()) {
            if all.iter().any(|series| !series.history.is_empty()) {
                names.serialize_entry(&all.family().name, &Points(all))?;
            }
        }
        names.end()
    }
}

struct Points<'a>(Named<'a>);

impl Serialize for Points<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        struct Entry<'a> {
            labels: Labels<'a>,
            value: Float,
            timestamp: f64,
            datetime: Datetime,
        }
        let mut points = serializer.serialize_seq(None)?;
        for series in self.0.iter() {
            for point in &series.history {
                points.serialize_element(&Entry {
                    labels: Labels(&series.labels),
                    value: Float(point.value),
                    timestamp: seconds(point.timestamp_ns),
                    datetime: Datetime(point.timestamp_ns),
                })?;
            }
        }
        points.end()
    }
}

/// Labels as an object, in the order of the series.
struct Labels<'a>(&'a [(String, String)]);

impl Serialize for Labels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// A number, or null for what JSON cannot say as one: serde_json writes it so.
#[derive(serde::Serialize)]
#[serde(transparent)]
struct Float(f64);

/// A number that is a sum, or not.
enum Number {
    Float(f64),
    Sum(Sum),
}

impl Number {
    /// The word for what JSON cannot say as a number.
    fn word(&self) -> Option<&'static str> {
        match self {
            Number::Float(value) => word(*value),
            Number::Sum(sum) => word(sum.value()),
        }
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Number::Float(value) => Float(*value).serialize(serializer),
            Number::Sum(sum) => match sum.beyond_double() {
                Some(integer) => serializer.serialize_i128(integer),
                None => Float(sum.value()).serialize(serializer),
            },
        }
    }
}

/// Nanoseconds since the Unix epoch, as an RFC 3339 string in UTC.
struct Datetime(u64);

impl Serialize for Datetime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(30);
        push_datetime(&mut text, self.0);
        serializer.serialize_str(&text)
    }
}

#[cfg(test)]
mod tests;
