//! What a snapshot says, as plain data: the exporters read this and nothing else.

use std::sync::Arc;
use std::time::Duration;

use qbus::{Clock, MetricType};

use crate::distribution::Distribution;
use crate::sum::Sum;

/// A metric name with its type, help, unit and buckets: as it was registered.
pub use qbus::FamilyDefinition as Family;

/// The quantiles that a snapshot states of a summary.
pub const QUANTILES: [f64; 5] = [0.5, 0.9, 0.95, 0.99, 0.999];

/// One point of a series' history.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When the record was emitted, in nanoseconds since the Unix epoch.
    pub timestamp_ns: u64,
    /// A counter's sum so far; the value of any other record.
    pub value: f64,
}

/// An observation or an increment that belongs to a trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// The observation, or the increment.
    pub value: f64,
    /// When it was emitted, in nanoseconds since the Unix epoch.
    pub timestamp_ns: u64,
    /// The trace; not 0.
    pub trace_id: u128,
}

/// A family with labels, and what its records add up to.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Shared by all series of the family.
    pub family: Arc<Family>,
    /// Name and value, in the order in which they were first registered. No name occurs twice.
    pub labels: Vec<(String, String)>,
    /// The folded value.
    pub value: Value,
    /// When the last record was emitted, in nanoseconds since the Unix epoch.
    pub timestamp_ns: u64,
    /// When the first record was emitted, in nanoseconds since the Unix epoch.
    pub start_ns: u64,
    /// How many records were folded into this series: exact for observations; what came to a
    /// counter or a gauge as state counts once a round.
    pub records: u64,
    /// The last points, oldest first. Empty unless the reader asked for them.
    pub history: Vec<Point>,
    /// The last record with a trace: of a counter, of each bucket of a histogram, and of a summary
    /// by magnitude (powers of four). By value, ascending; a gauge has none.
    pub exemplars: Vec<Exemplar>,
}

impl Series {
    /// A series of which nothing is known but what it is called: without any value, for saying
    /// that it has ended.
    pub fn named(family: Arc<Family>, labels: Vec<(String, String)>) -> Series {
        Series {
            value: Value::empty(&family),
            family,
            labels,
            timestamp_ns: 0,
            start_ns: 0,
            records: 0,
            history: Vec::new(),
            exemplars: Vec::new(),
        }
    }

    pub(crate) fn add_labels(&mut self, labels: &[(String, String)]) {
        for (name, value) in labels {
            if !self.labels.iter().any(|(own, _)| own == name) {
                self.labels.push((name.clone(), value.clone()));
            }
        }
    }
}

/// What the records of a series add up to, by type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// The sum of the increments.
    Counter(Sum),
    /// The last value by timestamp, then by arrival. May be NaN or infinite.
    Gauge(f64),
    /// Counts by bucket.
    Histogram(HistogramValue),
    /// Quantiles.
    Summary(SummaryValue),
}

impl Value {
    /// What no record at all adds up to; a gauge is NaN then.
    fn empty(family: &Family) -> Value {
        let sum = Sum::from(0.0);
        match family.metric_type {
            MetricType::Counter => Value::Counter(sum),
            MetricType::Gauge | MetricType::Untyped => Value::Gauge(f64::NAN),
            MetricType::Histogram => Value::Histogram(HistogramValue {
                last: f64::NAN,
                count: 0,
                sum,
                min: f64::NAN,
                max: f64::NAN,
                cumulative: vec![0; family.buckets.len() + 1],
                distribution: family.native.then(Distribution::default),
            }),
            MetricType::Summary => Value::Summary(SummaryValue {
                last: f64::NAN,
                count: 0,
                sum,
                min: f64::NAN,
                max: f64::NAN,
                quantiles: QUANTILES.map(|quantile| (quantile, f64::NAN)).to_vec(),
                distribution: Distribution::default(),
            }),
        }
    }
}

/// The observations of a histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramValue {
    /// The last observation.
    pub last: f64,
    /// How many observations there were; the same as the last cumulative count.
    pub count: u64,
    /// Their sum.
    pub sum: Sum,
    /// The smallest observation; NaN when there was none.
    pub min: f64,
    /// The largest observation; NaN when there was none.
    pub max: f64,
    /// Cumulative counts: one for each bound of [`Family::buckets`], then one for `+Inf`.
    pub cumulative: Vec<u64>,
    /// Of a native histogram ([`Family::native`]): how many observations each finer bucket has.
    pub distribution: Option<Distribution>,
}

/// The observations of a summary: of all time, but for the quantiles.
#[derive(Clone, Debug, PartialEq)]
pub struct SummaryValue {
    /// The last observation.
    pub last: f64,
    /// How many observations there were.
    pub count: u64,
    /// Their sum.
    pub sum: Sum,
    /// The smallest observation; NaN when there was none.
    pub min: f64,
    /// The largest observation; NaN when there was none.
    pub max: f64,
    /// Quantile (0 to 1) and its value, ascending: of the observations in the window of the family
    /// ([`Family::window`](qbus::FamilyDefinition::window)) as of the commit; the value is NaN when
    /// there was none.
    pub quantiles: Vec<(f64, f64)>,
    /// How many observations each bucket has, of all time.
    pub distribution: Distribution,
}

/// All series at one commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Counts the commits of the aggregator, over its restarts.
    pub epoch: u64,
    /// When the commit was made, in nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// Whether all series show exactly this epoch. A series that two further commits overtook while
    /// the snapshot was read is newer, though whole in itself.
    pub consistent: bool,
    /// Sorted by family name, then by labels: the series of a family are adjacent.
    pub series: Vec<Series>,
}

impl Snapshot {
    /// Adds labels that say where all of it comes from (`host`, say) behind those of each series. A
    /// series that has a label of the name keeps its own, as with Prometheus' external labels.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use qbus_aggregate::{Family, Series, Snapshot, Value};
    /// # let family = Arc::new(Family::new("load", qbus::MetricType::Gauge));
    /// # let load = Series { family, labels: vec![], value: Value::Gauge(0.5), timestamp_ns: 0,
    /// #     start_ns: 0, records: 1, history: vec![], exemplars: vec![] };
    /// # let series = vec![load];
    /// # let mut snapshot = Snapshot { epoch: 1, unix_ns: 0, consistent: true, series };
    /// snapshot.add_labels(&[("host".to_owned(), "a7".to_owned())]);
    /// assert_eq!(snapshot.series[0].labels, [("host".to_owned(), "a7".to_owned())]);
    /// ```
    pub fn add_labels(&mut self, labels: &[(String, String)]) {
        for series in &mut self.series {
            series.add_labels(labels);
        }
    }

    /// How long ago the commit was made. An idle bus has none for as long as nothing is emitted:
    /// the sampler of `qbus agg` sees to one a second.
    pub fn age(&self) -> Duration {
        Duration::from_nanos(Clock::Precise.now_ns().saturating_sub(self.unix_ns))
    }
}
