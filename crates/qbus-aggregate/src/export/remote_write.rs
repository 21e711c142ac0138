//! Prometheus' remote write, 1.0 and 2.0: the messages, before they are packed with Snappy.

mod labels;

use qbus::MetricType;

use super::LeftOut;
use super::Request;
use super::exposition::{Exemplars, Names, Sound, has_growing_sum, in_families};
use super::number::canonical;
use super::prometheus::suffixes;
use super::protobuf::{NATIVE_BUCKETS_MAX, total};
use super::wire::{Field, Message};
use crate::distribution::Exponential;
use crate::series::{Exemplar, Family, Series, Value};
use labels::{LABELS, Labels, Symbols, label};

/// A request holds about so many samples: enough that its head does not count, and few enough for
/// the limits that receivers have by default.
const SAMPLES_MAX: u64 = 10_000;

/// The NaN by which a receiver knows that a series has ended; no other NaN is ever sent.
const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);
/// What any other NaN is sent as.
const NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0001);

/// A version of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RemoteWriteVersion {
    /// `prometheus.WriteRequest`, which all receivers take.
    #[default]
    One,
    /// `io.prometheus.write.v2.Request`, which is smaller, has metadata and start times with each
    /// series, and whose receivers say what they have written.
    Two,
}

/// What is sent of each series.
#[derive(Clone, Copy, Debug)]
pub struct RemoteWriteOptions<'a> {
    /// The version of the protocol.
    pub version: RemoteWriteVersion,
    /// The time of all samples, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Labels of all series: where they are from. A series' own label of that name is sent as
    /// `exported_…`, as a scraper would name it.
    pub labels: &'a [(String, String)],
    /// Also native histograms, of summaries and of what is registered as native. A receiver that
    /// does not take them may refuse all of the request.
    pub native: bool,
    /// Also type, help and unit of each family (2.0 has them always).
    pub metadata: bool,
    /// Exemplars that are newer than this, in nanoseconds since the Unix epoch.
    pub exemplars_since_ns: u64,
    /// Say that the series have ended, instead of their values.
    pub is_end: bool,
}

/// Encodes series for remote write, and hands each request to `send`.
///
/// `series` is sorted by name, as in a [`Snapshot`](crate::Snapshot). What is left out is the same
/// as on the page of [`prometheus()`](super::prometheus()), and so are the names of samples; but
/// numbers in the labels `le` and `quantile` are written as OpenMetrics has them (`1.0`), as
/// Prometheus stores them.
///
/// # Examples
///
/// ```
/// use qbus_aggregate::export::{RemoteWriteOptions, RemoteWriteVersion, remote_write};
///
/// let options = RemoteWriteOptions {
///     version: RemoteWriteVersion::One,
///     time_ms: 1_700_000_000_000,
///     labels: &[("instance".to_owned(), "gpu-7".to_owned())],
///     native: false,
///     metadata: true,
///     exemplars_since_ns: 0,
///     is_end: false,
/// };
/// remote_write(&[], &options, &mut |_| unreachable!("there is nothing to send"));
/// ```
pub fn remote_write(
    series: &[Series],
    options: &RemoteWriteOptions<'_>,
    send: &mut dyn FnMut(Request),
) -> LeftOut {
    let mut names = Names::default();
    let mut left_out = LeftOut::default();
    let mut request = Building::new(options, send);
    for all in in_families(series) {
        let family = all.family();
        if !names.claim(&family.name, suffixes(family.metric_type)) {
            left_out.family(&all);
            continue;
        }
        let bounds = Bounds::of(family);
        let mut sound = Sound::new(all);
        request.begin_family(family);
        for one in sound.by_ref() {
            request.series(&one, &bounds);
        }
        left_out.series += sound.left_out();
    }
    request.finish();
    left_out
}

/// The bounds of a histogram's buckets, as numbers and as text.
struct Bounds(Vec<(f64, String)>);

impl Bounds {
    fn of(family: &Family) -> Bounds {
        if family.metric_type != MetricType::Histogram {
            return Bounds(Vec::new());
        }
        let bounds = family.buckets.iter().copied().chain([f64::INFINITY]);
        Bounds(bounds.map(|bound| (bound, canonical(bound))).collect())
    }
}

// Fields of the messages. The two versions number some of them differently.
const REQUEST_SERIES: [Field; 2] = [Field(1), Field(5)];
const REQUEST_METADATA: Field = Field(3);
const SAMPLES: Field = Field(2);
const EXEMPLARS: [Field; 2] = [Field(3), Field(4)];
const HISTOGRAMS: [Field; 2] = [Field(4), Field(3)];
const SERIES_METADATA: Field = Field(5);

/// A request in the making.
struct Building<'a> {
    options: &'a RemoteWriteOptions<'a>,
    send: &'a mut dyn FnMut(Request),
    message: Message,
    symbols: Symbols,
    samples: u64,
    /// Type, help and unit of the present family, for 2.0.
    family: [u32; 3],
    /// The labels of all series, sorted.
    of_all: Vec<(String, String)>,
    labels: Labels,
    name: String,
}

/// What a sample has beside its series' labels.
struct Sample<'a> {
    suffix: &'static str,
    own: Option<(&'static str, &'a str)>,
    value: f64,
    exemplar: Option<&'a Exemplar>,
}

impl<'a> Building<'a> {
    fn new(options: &'a RemoteWriteOptions<'a>, send: &'a mut dyn FnMut(Request)) -> Building<'a> {
        Building {
            options,
            send,
            message: Message::default(),
            symbols: Symbols::default(),
            samples: 0,
            family: [0; 3],
            of_all: {
                let mut sorted = options.labels.to_vec();
                sorted.sort_unstable();
                sorted
            },
            labels: Labels::default(),
            name: String::new(),
        }
    }

    fn is_two(&self) -> bool {
        self.options.version == RemoteWriteVersion::Two
    }

    /// Which of two field numbers.
    fn of(&self, fields: [Field; 2]) -> Field {
        fields[usize::from(self.is_two())]
    }

    fn begin_family(&mut self, family: &Family) {
        if self.is_two() {
            self.note_family(family);
            return;
        }
        if !self.options.metadata {
            return;
        }
        const TYPE: Field = Field(1);
        const NAME: Field = Field(2);
        const HELP: Field = Field(4);
        const UNIT: Field = Field(5);
        self.message.message(REQUEST_METADATA, |metadata| {
            metadata.unsigned(TYPE, type_number(family.metric_type));
            metadata.text(NAME, &family.name);
            if !family.help.is_empty() {
                metadata.text(HELP, &family.help);
            }
            if !family.unit.is_empty() {
                metadata.text(UNIT, &family.unit);
            }
        });
    }

    fn note_family(&mut self, family: &Family) {
        self.family = [
            type_number(family.metric_type) as u32,
            self.symbols.number(&family.help),
            self.symbols.number(&family.unit),
        ];
    }

    fn series(&mut self, series: &Series, bounds: &Bounds) {
        if self.samples >= SAMPLES_MAX {
            self.pass_on();
            if self.is_two() {
                self.note_family(&series.family);
            }
        }
        let symbols = self.is_two().then_some(&mut self.symbols);
        self.labels.begin(series, &self.of_all, symbols);
        let mut exemplars = Exemplars(&series.exemplars);
        match &series.value {
            Value::Counter(sum) => {
                let exemplar = exemplars.within(f64::INFINITY);
                self.plain(series, "", sum.value(), exemplar);
            }
            Value::Gauge(value) => self.plain(series, "", *value, None),
            Value::Histogram(value) => {
                for ((bound, text), &count) in bounds.0.iter().zip(&value.cumulative) {
                    let sample = Sample {
                        suffix: "_bucket",
                        own: Some(("le", text)),
                        value: count as f64,
                        exemplar: exemplars.within(*bound),
                    };
                    self.sample(series, &sample);
                }
                if has_growing_sum(&series.family) {
                    self.plain(series, "_sum", value.sum.value(), None);
                }
                self.plain(series, "_count", value.count as f64, None);
                if let Some(distribution) = &value.distribution
                    && self.options.native
                {
                    let exponential = distribution.exponential(NATIVE_BUCKETS_MAX);
                    // A receiver refuses a histogram whose buckets do not add up to its count.
                    if total(&exponential) == value.count {
                        self.native(series, &exponential, value.sum.value());
                    }
                }
            }
            Value::Summary(value) => {
                for &(quantile, estimate) in &value.quantiles {
                    let sample = Sample {
                        suffix: "",
                        own: Some(("quantile", &canonical(quantile))),
                        value: estimate,
                        exemplar: None,
                    };
                    self.sample(series, &sample);
                }
                self.plain(series, "_sum", value.sum.value(), None);
                self.plain(series, "_count", value.count as f64, None);
                if self.options.native {
                    let exponential = value.distribution.exponential(NATIVE_BUCKETS_MAX);
                    self.native(series, &exponential, value.sum.value());
                }
            }
        }
    }

    fn plain(
        &mut self,
        series: &Series,
        suffix: &'static str,
        value: f64,
        exemplar: Option<&Exemplar>,
    ) {
        let sample = Sample {
            suffix,
            own: None,
            value,
            exemplar,
        };
        self.sample(series, &sample);
    }

    fn sample(&mut self, series: &Series, sample: &Sample<'_>) {
        const VALUE: Field = Field(1);
        const TIME: Field = Field(2);
        const START: Field = Field(3);
        let value = match sample.value {
            _ if self.options.is_end => STALE,
            value if value.is_nan() => NAN,
            value => value,
        };
        let is_new = |one: &&Exemplar| {
            one.timestamp_ns > self.options.exemplars_since_ns && !self.options.is_end
        };
        let exemplar = sample.exemplar.filter(is_new);
        let start_ms = self.start_ms(series, sample.suffix);
        let time_ms = self.options.time_ms;
        let exemplars = self.of(EXEMPLARS);
        self.one(
            &series.family.name,
            sample.suffix,
            sample.own,
            |message, symbols| {
                message.message(SAMPLES, |message| {
                    message.double(VALUE, value);
                    message.unsigned(TIME, time_ms);
                    if let Some(start_ms) = start_ms {
                        message.unsigned(START, start_ms);
                    }
                });
                if let Some(exemplar) = exemplar {
                    message.message(exemplars, |message| {
                        encode_exemplar(message, symbols, exemplar)
                    });
                }
            },
        );
    }

    /// Since when a sample counts, where that is said: 2.0, and not of a level.
    fn start_ms(&self, series: &Series, suffix: &str) -> Option<u64> {
        let counts = match &series.value {
            Value::Counter(_) | Value::Histogram(_) => true,
            Value::Summary(_) => !suffix.is_empty(),
            Value::Gauge(_) => false,
        };
        let start_ms = series.start_ns / 1_000_000;
        (self.is_two() && counts && !self.options.is_end)
            .then(|| start_ms.min(self.options.time_ms))
    }

    fn native(&mut self, series: &Series, exponential: &Exponential, sum: f64) {
        let (is_end, time_ms) = (self.options.is_end, self.options.time_ms);
        let histograms = self.of(HISTOGRAMS);
        self.one(&series.family.name, "", None, |message, _| {
            message.message(histograms, |histogram| {
                if is_end {
                    histogram.unsigned(COUNT, 0);
                    histogram.double(SUM, STALE);
                } else {
                    encode_native(histogram, exponential, sum);
                }
                histogram.unsigned(TIMESTAMP, time_ms);
            });
        });
    }

    /// A `TimeSeries` of one sample.
    fn one(
        &mut self,
        name: &str,
        suffix: &str,
        own: Option<(&str, &str)>,
        fill: impl FnOnce(&mut Message, Option<&mut Symbols>),
    ) {
        self.samples += 1;
        self.name.clear();
        self.name.push_str(name);
        self.name.push_str(suffix);
        let field = self.of(REQUEST_SERIES);
        let Building {
            options,
            message,
            symbols,
            labels,
            name,
            family,
            ..
        } = self;
        match options.version {
            RemoteWriteVersion::One => message.message(field, |message| {
                labels.encode(message, name, own);
                fill(message, None);
            }),
            RemoteWriteVersion::Two => message.message(field, |message| {
                labels.encode_numbers(message, symbols, name, own);
                fill(message, Some(symbols));
                let [metric_type, help, unit] = family.map(u64::from);
                message.message(SERIES_METADATA, |metadata| {
                    metadata.unsigned(Field(1), metric_type);
                    metadata.unsigned(Field(3), help);
                    metadata.unsigned(Field(4), unit);
                });
            }),
        }
    }

    /// Hands on what there is, and begins another request.
    fn pass_on(&mut self) {
        // The next one is about as long.
        let next = Message::with_capacity(self.message.len() + self.message.len() / 8);
        let message = std::mem::replace(&mut self.message, next);
        let samples = std::mem::take(&mut self.samples);
        self.labels.end_request();
        let message = match self.options.version {
            RemoteWriteVersion::One => message,
            RemoteWriteVersion::Two => {
                let mut whole = std::mem::take(&mut self.symbols).into_message();
                whole.encoded(message.as_bytes());
                whole
            }
        };
        (self.send)(Request {
            message: message.into_bytes(),
            samples,
        });
    }

    fn finish(mut self) {
        if self.samples > 0 {
            self.pass_on();
        }
    }
}

/// The number of a type, which is the same in both versions.
fn type_number(metric_type: MetricType) -> u64 {
    match metric_type {
        MetricType::Untyped => 0,
        MetricType::Counter => 1,
        MetricType::Gauge => 2,
        MetricType::Histogram => 3,
        MetricType::Summary => 5,
    }
}

fn encode_exemplar(message: &mut Message, symbols: Option<&mut Symbols>, exemplar: &Exemplar) {
    const VALUE: Field = Field(2);
    const TIME: Field = Field(3);
    let trace = format!("{:032x}", exemplar.trace_id);
    match symbols {
        None => label(message, "trace_id", &trace),
        Some(symbols) => {
            let pair = [symbols.number("trace_id"), symbols.number(&trace)];
            message.message(LABELS, |row| {
                for number in pair {
                    row.packed_unsigned(u64::from(number));
                }
            });
        }
    }
    message.double(VALUE, exemplar.value);
    message.unsigned(TIME, exemplar.timestamp_ns / 1_000_000);
}

// Fields of a native histogram.
const COUNT: Field = Field(1);
const SUM: Field = Field(3);
const SCHEMA: Field = Field(4);
const ZERO_THRESHOLD: Field = Field(5);
const ZERO_COUNT: Field = Field(6);
const NEGATIVE: [Field; 2] = [Field(8), Field(9)];
const POSITIVE: [Field; 2] = [Field(11), Field(12)];
const TIMESTAMP: Field = Field(15);

fn encode_native(histogram: &mut Message, exponential: &Exponential, sum: f64) {
    histogram.unsigned(COUNT, total(exponential));
    histogram.double(SUM, sum);
    histogram.signed(SCHEMA, i64::from(exponential.schema));
    histogram.double(ZERO_THRESHOLD, f64::MIN_POSITIVE);
    histogram.unsigned(ZERO_COUNT, exponential.zeros);
    for ([spans, deltas], side) in [
        (NEGATIVE, &exponential.negative),
        (POSITIVE, &exponential.positive),
    ] {
        let mut next = 0;
        for run in side.chunk_by(|a, b| a.0 + 1 == b.0) {
            histogram.message(spans, |span| {
                span.signed(Field(1), i64::from(run[0].0 - next));
                span.unsigned(Field(2), run.len() as u64);
            });
            next = run[run.len() - 1].0 + 1;
        }
        if !side.is_empty() {
            histogram.message(deltas, |row| {
                let mut before = 0;
                for &(_, count) in side {
                    let count = count.min(i64::MAX as u64) as i64;
                    row.packed_signed(count - before);
                    before = count;
                }
            });
        }
    }
}

#[cfg(test)]
mod tests;
