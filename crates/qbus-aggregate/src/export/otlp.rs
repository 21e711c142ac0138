//! The OpenTelemetry protocol: `ExportMetricsServiceRequest`, as it is sent over HTTP.

use std::borrow::Cow;

use qbus::MetricType;

use super::LeftOut;
use super::Request;
use super::exposition::{Sound, has_growing_sum, in_families, labels};
use super::protobuf::{NATIVE_BUCKETS_MAX, total};
use super::wire::{Field, Message};
use crate::distribution::{Distribution, Exponential};
use crate::series::{Exemplar, Family, HistogramValue, Series, Value};
use crate::sum::Sum;

/// A request is sent once it has so many bytes: receivers take 4 MiB and more by default.
const REQUEST_BYTES: usize = 3 << 20;

/// What is sent of each series.
#[derive(Clone, Copy, Debug)]
pub struct OtlpOptions<'a> {
    /// The time of all points, in nanoseconds since the Unix epoch.
    pub time_ns: u64,
    /// Attributes of the resource: what the points are of.
    pub resource: &'a [(String, String)],
    /// Exemplars that are newer than this, in nanoseconds since the Unix epoch.
    pub exemplars_since_ns: u64,
    /// Say that there is nothing recorded any more, instead of the values.
    pub is_end: bool,
}

/// Encodes series as OTLP, and hands each request to `send`.
///
/// `series` is sorted by name, as in a [`Snapshot`](crate::Snapshot).
///
/// * A counter is a cumulative, monotonic sum, which says since when it counts: a time that moves
///   only when the counter begins anew. A gauge is a gauge.
/// * A histogram has its own bounds. A summary, and a native histogram, is an exponential histogram
///   of at most 160 buckets a side.
/// * Names are as registered, units are UCUM's where the registered one has a symbol (`seconds` is
///   `s`, `bytes` is `By`).
///
/// Left out is a series that does not fit its family, as on a page.
///
/// # Examples
///
/// ```
/// use qbus_aggregate::export::{OtlpOptions, otlp};
///
/// let options = OtlpOptions {
///     time_ns: 1_700_000_000_000_000_000,
///     resource: &[("service.name".to_owned(), "inference".to_owned())],
///     exemplars_since_ns: 0,
///     is_end: false,
/// };
/// otlp(&[], &options, &mut |_| unreachable!("there is nothing to send"));
/// ```
pub fn otlp(
    series: &[Series],
    options: &OtlpOptions<'_>,
    send: &mut dyn FnMut(Request),
) -> LeftOut {
    let mut left_out = LeftOut::default();
    let mut request = Building {
        options,
        send,
        metrics: Message::default(),
        points: 0,
    };
    for all in in_families(series) {
        let mut sound = Sound::new(all);
        let mut rest = sound.by_ref().peekable();
        while rest.peek().is_some() {
            request.metric(all.family(), &mut rest);
        }
        left_out.series += sound.left_out();
    }
    request.finish();
    left_out
}

// Fields of all kinds of points.
const START: Field = Field(2);
const TIME: Field = Field(3);
/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: u64 = 2;
/// `DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK`.
const NO_RECORDED_VALUE: u64 = 1;

/// A request in the making.
struct Building<'a> {
    options: &'a OtlpOptions<'a>,
    send: &'a mut dyn FnMut(Request),
    metrics: Message,
    points: u64,
}

impl Building<'_> {
    /// A `Metric` with the series that come, until the request is full.
    fn metric<'s>(
        &mut self,
        family: &Family,
        all: &mut std::iter::Peekable<impl Iterator<Item = Cow<'s, Series>>>,
    ) {
        const METRICS: Field = Field(2);
        const NAME: Field = Field(1);
        const DESCRIPTION: Field = Field(2);
        const UNIT: Field = Field(3);
        const GAUGE: Field = Field(5);
        const SUM: Field = Field(7);
        const HISTOGRAM: Field = Field(9);
        const EXPONENTIAL: Field = Field(10);
        const POINTS: Field = Field(1);
        const TEMPORALITY: Field = Field(2);
        const IS_MONOTONIC: Field = Field(3);
        let data = match family.metric_type {
            MetricType::Counter => SUM,
            MetricType::Gauge | MetricType::Untyped => GAUGE,
            MetricType::Histogram if !family.native => HISTOGRAM,
            MetricType::Histogram | MetricType::Summary => EXPONENTIAL,
        };
        let data_is_cumulative = data.0 != GAUGE.0;
        let (options, mut points) = (self.options, 0);
        self.metrics.message(METRICS, |metric| {
            metric.text(NAME, &family.name);
            if !family.help.is_empty() {
                metric.text(DESCRIPTION, &family.help);
            }
            let unit = ucum(&family.unit);
            if !unit.is_empty() {
                metric.text(UNIT, &unit);
            }
            metric.message(data, |data| {
                while data.len() < REQUEST_BYTES
                    && let Some(series) = all.next()
                {
                    points += 1;
                    data.message(POINTS, |point| encode_point(point, &series, options));
                }
                if data_is_cumulative {
                    data.unsigned(TEMPORALITY, CUMULATIVE);
                }
                if family.metric_type == MetricType::Counter {
                    data.unsigned(IS_MONOTONIC, 1);
                }
            });
        });
        self.points += points;
        if self.metrics.len() >= REQUEST_BYTES {
            self.pass_on();
        }
    }

    fn pass_on(&mut self) {
        const RESOURCE_METRICS: Field = Field(1);
        const RESOURCE: Field = Field(1);
        const SCOPE_METRICS: Field = Field(2);
        const SCOPE: Field = Field(1);
        const ATTRIBUTES: Field = Field(1);
        const NAME: Field = Field(1);
        const VERSION: Field = Field(2);
        let metrics = std::mem::take(&mut self.metrics);
        let mut message = Message::with_capacity(metrics.len() + 4096);
        message.message(RESOURCE_METRICS, |all| {
            all.message(RESOURCE, |resource| {
                for (name, value) in self.options.resource {
                    attribute(resource, ATTRIBUTES, name, value);
                }
            });
            all.message(SCOPE_METRICS, |all| {
                all.message(SCOPE, |scope| {
                    scope.text(NAME, "qbus");
                    scope.text(VERSION, env!("CARGO_PKG_VERSION"));
                });
                all.encoded(metrics.as_bytes());
            });
        });
        (self.send)(Request {
            message: message.into_bytes(),
            samples: std::mem::take(&mut self.points),
        });
    }

    fn finish(mut self) {
        if self.points > 0 {
            self.pass_on();
        }
    }
}

fn encode_point(point: &mut Message, series: &Series, options: &OtlpOptions<'_>) {
    let is_level = matches!(series.value, Value::Gauge(_));
    if !is_level {
        point.fixed(START, series.start_ns.min(options.time_ns));
    }
    point.fixed(TIME, options.time_ns);
    // Each kind of point numbers what follows in its own way.
    let (attributes, flags, exemplars) = match &series.value {
        Value::Counter(_) | Value::Gauge(_) => (Field(7), Field(8), Field(5)),
        Value::Histogram(_) if !series.family.native => (Field(9), Field(10), Field(8)),
        Value::Histogram(_) | Value::Summary(_) => (Field(1), Field(10), Field(11)),
    };
    for (name, value) in labels(series) {
        attribute(point, attributes, name, value);
    }
    if options.is_end {
        return point.unsigned(flags, NO_RECORDED_VALUE);
    }
    match &series.value {
        Value::Counter(sum) => point.double(Field(4), sum.value()),
        Value::Gauge(value) => point.double(Field(4), *value),
        Value::Histogram(value) => match &value.distribution {
            Some(distribution) if series.family.native => {
                exponential(point, distribution, value.sum, [value.min, value.max]);
            }
            _ if series.family.native => point.unsigned(flags, NO_RECORDED_VALUE),
            _ => explicit(point, series, value),
        },
        Value::Summary(value) => {
            exponential(
                point,
                &value.distribution,
                value.sum,
                [value.min, value.max],
            );
        }
    }
    let new = series.exemplars.iter();
    for exemplar in new.filter(|one| one.timestamp_ns > options.exemplars_since_ns) {
        point.message(exemplars, |message| encode_exemplar(message, exemplar));
    }
}

fn explicit(point: &mut Message, series: &Series, value: &HistogramValue) {
    const COUNT: Field = Field(4);
    const SUM: Field = Field(5);
    const COUNTS: Field = Field(6);
    const BOUNDS: Field = Field(7);
    const EXTREMES: [Field; 2] = [Field(11), Field(12)];
    point.fixed(COUNT, value.count);
    if has_growing_sum(&series.family) {
        point.double(SUM, value.sum.value());
    }
    point.message(COUNTS, |row| {
        let mut before = 0;
        for &cumulative in &value.cumulative {
            row.packed_fixed(cumulative.saturating_sub(before));
            before = cumulative;
        }
    });
    point.message(BOUNDS, |row| {
        for bound in &series.family.buckets {
            row.packed_fixed(bound.to_bits());
        }
    });
    extremes(point, EXTREMES, value.count, [value.min, value.max]);
}

/// The smallest and the largest observation, where there was any.
fn extremes(point: &mut Message, fields: [Field; 2], count: u64, values: [f64; 2]) {
    if count > 0 && values.iter().all(|value| !value.is_nan()) {
        for (field, value) in fields.into_iter().zip(values) {
            point.double(field, value);
        }
    }
}

fn exponential(point: &mut Message, of: &Distribution, sum: Sum, values: [f64; 2]) {
    const COUNT: Field = Field(4);
    const SUM: Field = Field(5);
    const SCALE: Field = Field(6);
    const ZERO_COUNT: Field = Field(7);
    const POSITIVE: Field = Field(8);
    const NEGATIVE: Field = Field(9);
    const EXTREMES: [Field; 2] = [Field(12), Field(13)];
    const ZERO_THRESHOLD: Field = Field(14);
    let buckets = of
        .exponential(NATIVE_BUCKETS_MAX)
        .spanning(NATIVE_BUCKETS_MAX);
    let count = total(&buckets);
    point.fixed(COUNT, count);
    if values[0] >= 0.0 || count == 0 {
        point.double(SUM, sum.value());
    }
    point.signed(SCALE, i64::from(buckets.schema));
    point.fixed(ZERO_COUNT, buckets.zeros);
    for (field, side) in [(POSITIVE, &buckets.positive), (NEGATIVE, &buckets.negative)] {
        if !side.is_empty() {
            point.message(field, |message| dense(message, side));
        }
    }
    extremes(point, EXTREMES, count, values);
    point.double(ZERO_THRESHOLD, f64::MIN_POSITIVE);
}

/// All buckets from the first to the last one that has observations.
fn dense(message: &mut Message, side: &[(i32, u64)]) {
    const OFFSET: Field = Field(1);
    const COUNTS: Field = Field(2);
    let first = side[0].0;
    // Bucket i of Prometheus is bucket i − 1 of OpenTelemetry.
    message.signed(OFFSET, i64::from(first - 1));
    message.message(COUNTS, |row| {
        let mut next = first;
        for &(index, count) in side {
            (next..index).for_each(|_| row.packed_unsigned(0));
            row.packed_unsigned(count);
            next = index + 1;
        }
    });
}

fn attribute(message: &mut Message, field: Field, name: &str, value: &str) {
    const KEY: Field = Field(1);
    const VALUE: Field = Field(2);
    const TEXT: Field = Field(1);
    message.message(field, |pair| {
        pair.text(KEY, name);
        pair.message(VALUE, |any| any.text(TEXT, value));
    });
}

fn encode_exemplar(message: &mut Message, exemplar: &Exemplar) {
    const VALUE: Field = Field(3);
    const TRACE: Field = Field(5);
    message.fixed(TIME_OF_EXEMPLAR, exemplar.timestamp_ns);
    message.double(VALUE, exemplar.value);
    message.bytes(TRACE, &exemplar.trace_id.to_be_bytes());
}

const TIME_OF_EXEMPLAR: Field = Field(2);

/// A unit as UCUM has it; one that it does not know as an annotation.
fn ucum(unit: &str) -> String {
    let symbol = match unit {
        "" => "",
        "seconds" => "s",
        "milliseconds" => "ms",
        "microseconds" => "us",
        "nanoseconds" => "ns",
        "minutes" => "min",
        "hours" => "h",
        "days" => "d",
        "bytes" => "By",
        "kibibytes" => "KiBy",
        "mebibytes" => "MiBy",
        "gibibytes" => "GiBy",
        "bits" => "bit",
        "ratio" => "1",
        "percent" => "%",
        "celsius" => "Cel",
        "volts" => "V",
        "amperes" => "A",
        "watts" => "W",
        "joules" => "J",
        "hertz" => "Hz",
        "meters" => "m",
        "grams" => "g",
        other => {
            // An annotation is of ASCII without braces.
            let plain = |c: char| c.is_ascii_graphic() && c != '{' && c != '}';
            let word: String = other.chars().filter(|c| plain(*c)).collect();
            return if word.is_empty() {
                word
            } else {
                format!("{{{word}}}")
            };
        }
    };
    symbol.to_owned()
}

impl Exponential {
    /// The same in a schema in which neither side spans more than so many buckets, the empty ones
    /// between them among them; or in the coarsest that there is.
    fn spanning(self, buckets_max: usize) -> Exponential {
        let span = |side: &[(i32, u64)]| match side {
            [first, .., last] => (last.0 - first.0) as usize + 1,
            short => short.len(),
        };
        let mut buckets = self;
        while span(&buckets.negative).max(span(&buckets.positive)) > buckets_max
            && buckets.coarsen()
        {}
        buckets
    }
}

#[cfg(test)]
mod tests;
