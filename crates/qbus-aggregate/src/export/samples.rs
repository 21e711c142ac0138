//! Snapshots for the tests of the writers: a few by hand, and arbitrary ones.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use qbus::MetricType;

use crate::distribution::Distribution;
use crate::series::{
    Exemplar, Family, HistogramValue, Point, Series, Snapshot, SummaryValue, Value,
};

/// 2023-10-01T12:00:00Z.
pub(super) const NOON_NS: u64 = 1_696_161_600_000_000_000;

pub(super) fn snapshot(series: Vec<Series>) -> Snapshot {
    Snapshot {
        epoch: 7,
        unix_ns: NOON_NS,
        consistent: true,
        series,
    }
}

/// A series with the help `Help.`, and for a histogram the bounds 0.1 and 1.
pub(super) fn series(name: &str, labels: &[(&str, &str)], value: Value) -> Series {
    let (metric_type, buckets) = match &value {
        Value::Counter(_) => (MetricType::Counter, vec![]),
        Value::Gauge(_) => (MetricType::Gauge, vec![]),
        Value::Histogram(_) => (MetricType::Histogram, vec![0.1, 1.0]),
        Value::Summary(_) => (MetricType::Summary, vec![]),
    };
    let family = Family {
        help: "Help.".into(),
        buckets,
        ..Family::new(name, metric_type)
    };
    Series {
        family: Arc::new(family),
        labels: labels
            .iter()
            .map(|&(name, value)| (name.into(), value.into()))
            .collect(),
        value,
        timestamp_ns: NOON_NS,
        start_ns: NOON_NS,
        records: 1,
        history: Vec::new(),
        exemplars: Vec::new(),
    }
}

/// The same series with its family changed.
pub(super) fn with_family(mut series: Series, change: impl FnOnce(&mut Family)) -> Series {
    change(Arc::make_mut(&mut series.family));
    series
}

/// Observations 0.05, 0.5 and 2.
pub(super) fn histogram() -> Value {
    Value::Histogram(HistogramValue {
        last: 2.0,
        count: 3,
        sum: 2.55.into(),
        min: 0.05,
        max: 2.0,
        cumulative: vec![1, 2, 3],
        distribution: None,
    })
}

pub(super) fn empty_summary() -> Value {
    Value::Summary(SummaryValue {
        last: f64::NAN,
        count: 0,
        sum: 0.0.into(),
        min: f64::NAN,
        max: f64::NAN,
        quantiles: vec![(0.5, f64::NAN), (0.99, f64::NAN)],
        distribution: Distribution::default(),
    })
}

/// The sample of the three formats in the documentation.
pub(super) fn latency() -> Series {
    let labels = [("model", "qwen3-vl"), ("input_size", "large")];
    let latency = series("model_inference_latency", &labels, Value::Gauge(0.125));
    with_family(latency, |family| {
        family.help = "Model inference latency in seconds".into()
    })
}

/// A series of each type, one with history.
pub(super) fn each_type() -> Snapshot {
    let mut requests = series("requests_total", &[], Value::Counter(3.0.into()));
    requests.history = vec![
        Point {
            timestamp_ns: NOON_NS - 1,
            value: 1.0,
        },
        Point {
            timestamp_ns: NOON_NS,
            value: 3.0,
        },
    ];
    let wait = series("wait_seconds", &[("op", "r,\"w\"")], histogram());
    snapshot(vec![
        latency(),
        requests,
        series("size_bytes", &[], empty_summary()),
        with_family(wait, |family| family.unit = "seconds".into()),
    ])
}

/// Families of all types with names and helps that `promtool` has no remark about, and everything
/// else as wild as it comes. Label sets may repeat within a family.
pub(super) fn snapshots() -> impl Strategy<Value = Snapshot> {
    let families = vec(family_and_series(), 0..6);
    (any::<u64>(), any::<u64>(), any::<bool>(), families).prop_map(
        |(epoch, unix_ns, consistent, families)| {
            let mut all = Vec::new();
            for (at, (mut family, series)) in families.into_iter().enumerate() {
                let total = if family.metric_type == MetricType::Counter {
                    "_total"
                } else {
                    ""
                };
                family.name = format!("qbus_{at}_things{total}");
                let family = Arc::new(family);
                all.extend(series.into_iter().map(|mut series| {
                    series.family = Arc::clone(&family);
                    series
                }));
            }
            Snapshot {
                epoch,
                unix_ns,
                consistent,
                series: all,
            }
        },
    )
}

fn family_and_series() -> impl Strategy<Value = (Family, Vec<Series>)> {
    let bounds = vec(
        any::<f64>().prop_filter("finite", |bound| bound.is_finite()),
        0..5,
    );
    (
        prop::sample::select(&MetricType::ALL[..]),
        text(),
        text(),
        bounds,
    )
        .prop_flat_map(|(metric_type, help, unit, mut buckets)| {
            buckets.sort_by(f64::total_cmp);
            buckets.dedup();
            if metric_type != MetricType::Histogram {
                buckets.clear();
            }
            let family = Family {
                help: format!("Help {help}"),
                unit,
                buckets,
                ..Family::new("", metric_type)
            };
            let shared = Arc::new(family.clone());
            let value = value(metric_type, family.buckets.len() + 1);
            let parts = (
                labels(),
                value,
                any::<u64>(),
                vec(point(), 0..3),
                vec(exemplar(), 0..4),
            );
            let series = parts.prop_map(
                move |(labels, value, timestamp_ns, history, mut exemplars)| {
                    exemplars.sort_by(|a, b| a.value.total_cmp(&b.value));
                    Series {
                        family: Arc::clone(&shared),
                        labels,
                        value,
                        timestamp_ns,
                        start_ns: timestamp_ns,
                        records: 1,
                        history,
                        exemplars,
                    }
                },
            );
            (Just(family), vec(series, 1..5))
        })
}

fn point() -> impl Strategy<Value = Point> {
    (any::<u64>(), float()).prop_map(|(timestamp_ns, value)| Point {
        timestamp_ns,
        value,
    })
}

/// As a reader has them: of any value, but none that is NaN.
fn exemplar() -> impl Strategy<Value = Exemplar> {
    let value = float().prop_filter("a number", |value| !value.is_nan());
    (value, any::<u64>(), 1..=u128::MAX).prop_map(|(value, timestamp_ns, trace_id)| Exemplar {
        value,
        timestamp_ns,
        trace_id,
    })
}

fn labels() -> impl Strategy<Value = Vec<(String, String)>> {
    let names = prop::sample::subsequence(vec!["model", "input_size", "op", "_x9"], 0..4);
    names.prop_shuffle().prop_flat_map(|names| {
        let values = vec(text(), names.len());
        values.prop_map(move |values| {
            names
                .iter()
                .map(|name| name.to_string())
                .zip(values)
                .collect()
        })
    })
}

fn text() -> impl Strategy<Value = String> {
    let special = prop::sample::select(
        "\"\\\n\r\t\0,;'={}#[] nN+-@é\u{85}\u{2028}\u{feff}😀"
            .chars()
            .collect::<Vec<_>>(),
    );
    vec(prop_oneof![3 => special, 1 => any::<char>()], 0..8)
        .prop_map(|chars| chars.into_iter().collect())
}

/// Any double: NaN, infinities, zeros of both signs, the smallest and the largest.
fn float() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (-2_000_000i32..2_000_000).prop_map(f64::from),
        (-1e7..1e7),
        prop::sample::select(vec![
            0.0,
            -0.0,
            1e6,
            999_999.0,
            1e-4,
            9.9e-5,
            5e-324,
            f64::MAX,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
        ]),
    ]
}

fn value(metric_type: MetricType, buckets: usize) -> BoxedStrategy<Value> {
    match metric_type {
        MetricType::Counter => float().prop_map(|sum| Value::Counter(sum.into())).boxed(),
        MetricType::Gauge | MetricType::Untyped => float().prop_map(Value::Gauge).boxed(),
        MetricType::Histogram => (vec(0u64..1 << 50, buckets), any::<bool>(), vec(float(), 4))
            .prop_map(|(mut cumulative, empty, floats)| {
                let mut count = 0;
                for bucket in &mut cumulative {
                    count += if empty { 0 } else { *bucket };
                    *bucket = count;
                }
                let [last, sum, min, max] = observed(count == 0, &floats);
                Value::Histogram(HistogramValue {
                    last,
                    count,
                    sum: sum.into(),
                    min,
                    max,
                    cumulative,
                    distribution: None,
                })
            })
            .boxed(),
        MetricType::Summary => (prop_oneof![Just(0), any::<u64>()], vec(float(), 7))
            .prop_map(|(count, floats)| {
                let [last, sum, min, max] = observed(count == 0, &floats);
                let quantile = |at: usize| if count == 0 { f64::NAN } else { floats[at] };
                let quantiles = vec![(0.5, quantile(4)), (0.9, quantile(5)), (1.0, quantile(6))];
                Value::Summary(SummaryValue {
                    last,
                    count,
                    sum: sum.into(),
                    min,
                    max,
                    quantiles,
                    distribution: distribution(count),
                })
            })
            .boxed(),
    }
}

/// So many observations, of both signs and of none.
fn distribution(count: u64) -> Distribution {
    let mut distribution = Distribution::default();
    distribution.observe(0.0, count / 4);
    distribution.observe(-3.0, count / 4);
    distribution.observe(0.1, count - count / 4 * 2);
    distribution
}

/// Last, sum, smallest and largest; as they are without observations, if `empty`.
fn observed(empty: bool, floats: &[f64]) -> [f64; 4] {
    if empty {
        [f64::NAN, 0.0, f64::NAN, f64::NAN]
    } else {
        [floats[0], floats[1], floats[2], floats[3]]
    }
}

/// Whether two doubles are the same one, where all NaN are one.
pub(super) fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// A pipe whose reader is gone.
pub(super) struct ClosedPipe;

impl std::io::Write for ClosedPipe {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
