//! What is added, and what history and buffer give back.

use std::sync::Arc;

use qbus::MetricType;
use qbus_aggregate::Family;

/// A metric to add: a value with its name, type and labels.
///
/// # Examples
///
/// ```
/// use qbus_collector::Metric;
///
/// let metric = Metric {
///     labels: &[("endpoint", "/api/predict")],
///     description: "Number of requests to prediction endpoint",
///     ..Metric::counter("request_count", 1.0)
/// };
/// assert_eq!(metric.labels.len(), 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric<'a> {
    /// `[a-zA-Z_:][a-zA-Z0-9_:]*`, at most 255 bytes.
    pub name: &'a str,
    /// Counter: an increment, finite and not negative. Gauge: the value. Histogram and summary: a
    /// finite observation.
    pub value: f64,
    /// What becomes of the values of a name; fixed by the first of them.
    pub metric_type: MetricType,
    /// Name and value of each label, at most 32; their order makes no other series.
    pub labels: &'a [(&'a str, &'a str)],
    /// What the metric means, for people; the first one of a name counts.
    pub description: &'a str,
    /// Seconds since the Unix epoch; now, if `None`. A gauge shows the value with the latest time.
    pub timestamp: Option<f64>,
}

impl<'a> Metric<'a> {
    /// A metric without labels and description, of this moment.
    pub fn new(name: &'a str, value: f64, metric_type: MetricType) -> Metric<'a> {
        Metric {
            name,
            value,
            metric_type,
            labels: &[],
            description: "",
            timestamp: None,
        }
    }

    /// An increment of a counter.
    pub fn counter(name: &'a str, increment: f64) -> Metric<'a> {
        Metric::new(name, increment, MetricType::Counter)
    }

    /// The value of a gauge.
    pub fn gauge(name: &'a str, value: f64) -> Metric<'a> {
        Metric::new(name, value, MetricType::Gauge)
    }

    /// An observation of a histogram, in buckets of [`qbus::DEFAULT_BUCKETS`] unless the name is
    /// registered with others.
    pub fn histogram(name: &'a str, value: f64) -> Metric<'a> {
        Metric::new(name, value, MetricType::Histogram)
    }

    /// An observation of a summary.
    pub fn summary(name: &'a str, value: f64) -> Metric<'a> {
        Metric::new(name, value, MetricType::Summary)
    }
}

/// One value of a series at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Name, type and description.
    pub family: Arc<Family>,
    /// Name and value of each label.
    pub labels: Vec<(String, String)>,
    /// In a history a counter's sum so far, and in the buffer its increment; else the value as it was
    /// added.
    pub value: f64,
    /// Nanoseconds since the Unix epoch.
    pub timestamp_ns: u64,
}
