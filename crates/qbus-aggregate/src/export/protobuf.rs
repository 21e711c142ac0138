//! The delimited protobuf format of Prometheus: the only one with native histograms.

use std::io::{self, Write};

use qbus::MetricType;

use super::exposition::{CHUNK_BYTES, Exemplars, Names, Sound, has_growing_sum, labels};
use super::prometheus::suffixes;
use super::wire::{Field, Message, push_varint};
use super::{Exported, LeftOut, Options};
use crate::distribution::{CLASSIC_BOUNDS, CLASSIC_POWERS, Exponential};
use crate::scratch::Scratch;
use crate::series::{Exemplar, Family, HistogramValue, Series, SummaryValue, Value};

/// The media type to serve a protobuf page with.
pub const PROTOBUF_CONTENT_TYPE: &str = "application/vnd.google.protobuf; \
     proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// The most buckets that a native histogram is written with: what OpenTelemetry and Prometheus' own
/// client keep by default.
pub(super) const NATIVE_BUCKETS_MAX: usize = 160;

/// How much of a family gathers in one piece.
const PIECE_BYTES: usize = 64 * 1024;

// The numbers of `io.prometheus.client.MetricType`.
const COUNTER: u64 = 0;
const GAUGE: u64 = 1;
const UNTYPED: u64 = 3;
const HISTOGRAM: u64 = 4;

/// Writes series as messages `io.prometheus.client.MetricFamily`, each after its length, and
/// flushes `out`. To be sent only to who asks for it.
///
/// It says what the page of [`prometheus()`](super::prometheus()) says, and leaves out the same;
/// but
///
/// * a summary is a native histogram of at most 160 buckets, beside classic buckets at powers of
///   four, all of all time, for scrapers that take those instead. What it has no place for are the
///   quantiles:
///   `histogram_quantile()` answers those, over all instances, as no sum of quantiles does;
/// * a native histogram ([`Family::native`]) has such buckets beside its own;
/// * each counter and histogram says since when it counts.
///
/// # Errors
///
/// The first error of `out`, as it is. Part of the page may have been written by then.
pub fn protobuf<'a>(
    what: impl Into<Exported<'a>>,
    options: &Options,
    out: &mut dyn Write,
) -> io::Result<LeftOut> {
    let mut names = Names::default();
    let mut left_out = LeftOut::default();
    let mut page = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4);
    let mut message = Message::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
    for all in what.into().names() {
        let family = all.family();
        if !names.claim(&family.name, suffixes(family.metric_type)) {
            left_out.family(&all);
            continue;
        }
        // The length of a family comes before it: what has gathered by then is kept in pieces.
        let mut pieces: Vec<Scratch> = Vec::new();
        let mut sound = Sound::new(all);
        message.clear();
        head(&mut message, family);
        let bare = message.len();
        for series in sound.by_ref() {
            metric(&mut message, &series, options);
            if message.len() >= PIECE_BYTES {
                let mut piece = Scratch::of(message.len());
                piece.bytes_mut().copy_from_slice(message.as_bytes());
                pieces.push(piece);
                message.clear();
            }
        }
        left_out.series += sound.left_out();
        if pieces.is_empty() && message.len() == bare {
            continue;
        }
        let before: usize = pieces.iter().map(|piece| piece.bytes().len()).sum();
        push_varint(&mut page, (before + message.len()) as u64);
        for piece in pieces {
            out.write_all(&page)?;
            page.clear();
            out.write_all(piece.bytes())?;
        }
        page.extend_from_slice(message.as_bytes());
        pass_on(&mut page, out)?;
    }
    out.write_all(&page)?;
    out.flush()?;
    Ok(left_out)
}

/// Writes out what has gathered, once it is much.
fn pass_on(page: &mut Vec<u8>, out: &mut dyn Write) -> io::Result<()> {
    if page.len() >= CHUNK_BYTES {
        out.write_all(page)?;
        page.clear();
    }
    Ok(())
}

/// What a `MetricFamily` has beside its metrics.
fn head(message: &mut Message, family: &Family) {
    const NAME: Field = Field(1);
    const HELP: Field = Field(2);
    const TYPE: Field = Field(3);
    const UNIT: Field = Field(5);
    message.text(NAME, &family.name);
    if !family.help.is_empty() {
        message.text(HELP, &family.help);
    }
    let metric_type = match family.metric_type {
        MetricType::Counter => COUNTER,
        MetricType::Gauge => GAUGE,
        MetricType::Untyped => UNTYPED,
        MetricType::Histogram | MetricType::Summary => HISTOGRAM,
    };
    message.unsigned(TYPE, metric_type);
    if !family.unit.is_empty() {
        message.text(UNIT, &family.unit);
    }
}

/// Adds a `Metric` to its family.
fn metric(family: &mut Message, series: &Series, options: &Options) {
    const METRIC: Field = Field(4);
    const LABEL: Field = Field(1);
    const LABEL_NAME: Field = Field(1);
    const LABEL_VALUE: Field = Field(2);
    const GAUGE: Field = Field(2);
    const COUNTER: Field = Field(3);
    const UNTYPED: Field = Field(5);
    const HISTOGRAM: Field = Field(7);
    const TIMESTAMP_MS: Field = Field(6);
    const VALUE: Field = Field(1);
    const COUNTER_EXEMPLAR: Field = Field(2);
    const CREATED: Field = Field(3);
    family.message(METRIC, |metric| {
        for (name, value) in labels(series) {
            metric.message(LABEL, |label| {
                label.text(LABEL_NAME, name);
                label.text(LABEL_VALUE, value);
            });
        }
        match &series.value {
            Value::Gauge(value) => {
                let field = match series.family.metric_type {
                    MetricType::Untyped => UNTYPED,
                    _ => GAUGE,
                };
                metric.message(field, |level| level.double(VALUE, *value));
            }
            Value::Counter(sum) => metric.message(COUNTER, |counter| {
                counter.double(VALUE, sum.value());
                if let Some(last) = series.exemplars.first() {
                    exemplar(counter, COUNTER_EXEMPLAR, last);
                }
                counter.message(CREATED, |time| timestamp(time, series.start_ns));
            }),
            Value::Histogram(value) => metric.message(HISTOGRAM, |histogram| {
                classic(histogram, series, value);
                created(histogram, series);
            }),
            Value::Summary(value) => metric.message(HISTOGRAM, |histogram| {
                summary(histogram, series, value);
                created(histogram, series);
            }),
        }
        if options.timestamps {
            metric.unsigned(TIMESTAMP_MS, series.timestamp_ns / 1_000_000);
        }
    });
}

// Fields of a `Histogram`.
const SAMPLE_COUNT: Field = Field(1);
const SAMPLE_SUM: Field = Field(2);
const BUCKET: Field = Field(3);
const SCHEMA: Field = Field(5);
const ZERO_THRESHOLD: Field = Field(6);
const ZERO_COUNT: Field = Field(7);
const NEGATIVE: [Field; 2] = [Field(9), Field(10)];
const POSITIVE: [Field; 2] = [Field(12), Field(13)];
const CREATED: Field = Field(15);

fn created(histogram: &mut Message, series: &Series) {
    histogram.message(CREATED, |time| timestamp(time, series.start_ns));
}

fn classic(histogram: &mut Message, series: &Series, value: &HistogramValue) {
    let family = &series.family;
    let mut exemplars = Exemplars(&series.exemplars);
    histogram.unsigned(SAMPLE_COUNT, value.count);
    if has_growing_sum(family) {
        histogram.double(SAMPLE_SUM, value.sum.value());
    }
    let bounds = family.buckets.iter().copied().chain([f64::INFINITY]);
    for (bound, &count) in bounds.zip(&value.cumulative) {
        bucket(histogram, bound, count, exemplars.within(bound));
    }
    if let Some(distribution) = &value.distribution {
        let exponential = distribution.exponential(NATIVE_BUCKETS_MAX);
        // A scraper refuses a histogram whose buckets do not add up to its count.
        if total(&exponential) == value.count {
            native(histogram, &exponential);
        }
    }
}

fn bucket(histogram: &mut Message, bound: f64, cumulative: u64, last: Option<&Exemplar>) {
    const CUMULATIVE_COUNT: Field = Field(1);
    const UPPER_BOUND: Field = Field(2);
    const EXEMPLAR: Field = Field(3);
    histogram.message(BUCKET, |bucket| {
        bucket.unsigned(CUMULATIVE_COUNT, cumulative);
        bucket.double(UPPER_BOUND, bound);
        if let Some(last) = last {
            exemplar(bucket, EXEMPLAR, last);
        }
    });
}

/// The number of the field is the parent's.
fn exemplar(parent: &mut Message, field: Field, exemplar: &Exemplar) {
    const LABEL: Field = Field(1);
    const NAME: Field = Field(1);
    const TEXT: Field = Field(2);
    const VALUE: Field = Field(2);
    const TIMESTAMP: Field = Field(3);
    parent.message(field, |message| {
        message.message(LABEL, |label| {
            label.text(NAME, "trace_id");
            label.text(TEXT, &format!("{:032x}", exemplar.trace_id));
        });
        message.double(VALUE, exemplar.value);
        message.message(TIMESTAMP, |time| timestamp(time, exemplar.timestamp_ns));
    });
}

fn summary(histogram: &mut Message, series: &Series, value: &SummaryValue) {
    let exponential = value.distribution.exponential(NATIVE_BUCKETS_MAX);
    let count = total(&exponential);
    histogram.unsigned(SAMPLE_COUNT, count);
    histogram.double(SAMPLE_SUM, value.sum.value());
    let mut exemplars = Exemplars(&series.exemplars);
    powers_of_four(histogram, value, &mut exemplars);
    let last = exemplars.within(f64::INFINITY);
    bucket(histogram, f64::INFINITY, count, last);
    native(histogram, &exponential);
}

/// How many observations all buckets have.
pub(super) fn total(exponential: &Exponential) -> u64 {
    let sides = exponential.negative.iter().chain(&exponential.positive);
    sides.fold(exponential.zeros, |sum, (_, count)| {
        sum.saturating_add(*count)
    })
}

/// What makes a histogram a native one.
fn native(histogram: &mut Message, exponential: &Exponential) {
    histogram.signed(SCHEMA, i64::from(exponential.schema));
    histogram.double(ZERO_THRESHOLD, f64::MIN_POSITIVE);
    histogram.unsigned(ZERO_COUNT, exponential.zeros);
    buckets(histogram, NEGATIVE, &exponential.negative);
    buckets(histogram, POSITIVE, &exponential.positive);
    if exponential.negative.is_empty() && exponential.positive.is_empty() {
        // Without any span it would be taken for a classic histogram.
        span(histogram, POSITIVE[0], 0, 0);
    }
}

/// Classic buckets for those who take no native ones: whole octaves, so that their counts are
/// exact, and always the same ones, so that none appears later.
fn powers_of_four(histogram: &mut Message, value: &SummaryValue, exemplars: &mut Exemplars<'_>) {
    let finest = value.distribution.exponential(usize::MAX);
    let negative = finest.negative.iter();
    let below = negative.fold(finest.zeros, |sum, (_, count)| sum.saturating_add(*count));
    let octave = 1 << finest.schema;
    let mut buckets = finest.positive.iter().peekable();
    let mut cumulative = below;
    for (power, bound) in CLASSIC_POWERS.zip(CLASSIC_BOUNDS) {
        while let Some((_, count)) = buckets.next_if(|(index, _)| *index <= 2 * power * octave) {
            cumulative = cumulative.saturating_add(*count);
        }
        bucket(histogram, bound, cumulative, exemplars.within(bound));
    }
}

/// Runs of buckets, each as its distance and length, and of each bucket what it has more than the
/// one before.
fn buckets(histogram: &mut Message, [spans, deltas]: [Field; 2], side: &[(i32, u64)]) {
    let mut next = 0;
    let mut before = 0;
    for run in side.chunk_by(|a, b| a.0 + 1 == b.0) {
        span(histogram, spans, i64::from(run[0].0 - next), run.len());
        next = run[run.len() - 1].0 + 1;
    }
    for &(_, count) in side {
        let count = count.min(i64::MAX as u64) as i64;
        histogram.signed(deltas, count - before);
        before = count;
    }
}

fn span(histogram: &mut Message, spans: Field, offset: i64, length: usize) {
    const OFFSET: Field = Field(1);
    const LENGTH: Field = Field(2);
    histogram.message(spans, |span| {
        span.signed(OFFSET, offset);
        span.unsigned(LENGTH, length as u64);
    });
}

/// A `google.protobuf.Timestamp`.
fn timestamp(time: &mut Message, unix_ns: u64) {
    const SECONDS: Field = Field(1);
    const NANOS: Field = Field(2);
    time.unsigned(SECONDS, unix_ns / 1_000_000_000);
    time.unsigned(NANOS, unix_ns % 1_000_000_000);
}

#[cfg(test)]
mod tests;
