//! Emitting by name: name, type, labels, value and time → checked → a record of the bus.
//!
//! For all who have no handle: the command, collectors, the sampler.

mod cache;

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use qbus::{
    Bus, Clock, DEFAULT_BUCKETS, EmitError, FamilyDefinition, Kind, Merge, MetricType, Record,
    RegisterError, SeriesId, Window,
};

use crate::error::MetricError;

/// Counters of this process that nobody else sees.
#[expect(clippy::disallowed_types, reason = "private to this process")]
type Count = std::sync::atomic::AtomicU64;

/// How long a full registry is not asked again for a series that it does not have.
const FULL_FOR: Duration = Duration::from_secs(1);
/// How far ahead of this machine's clock a timestamp can be: machines differ by less, and what lies
/// in the future would hide what comes until then.
const AHEAD_MAX: Duration = Duration::from_secs(300);

/// A value with the name, the type and the labels of its series.
///
/// # Examples
///
/// ```
/// use qbus_agent::Metric;
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
    /// Whether a counter's value is its sum, kept elsewhere, and no increment.
    pub is_total: bool,
    /// Whether a gauge's value is added to what it is, and may be negative.
    pub is_change: bool,
    /// What several processes make of a gauge; fixed by the first of them, and as registered where
    /// it is [`Merge::Last`].
    pub merge: Merge,
    /// Name and value of each label, at most 32; their order makes no other series.
    pub labels: &'a [(&'a str, &'a str)],
    /// What the metric means, for people.
    pub description: &'a str,
    /// The base unit (`seconds`, `bytes`, …); if empty, the one that the name is registered with.
    pub unit: &'a str,
    /// Upper bounds of a histogram's buckets; if empty, those that the name is registered with,
    /// else [`qbus::DEFAULT_BUCKETS`].
    pub buckets: &'a [f64],
    /// What the quantiles of a summary are of; if `None`, as registered, else the default.
    pub window: Option<Window>,
    /// Whether a histogram counts finer than its buckets too, as Prometheus' native ones do; fixed
    /// by the first, and as registered where it is not said.
    pub native: bool,
    /// Seconds since the Unix epoch; now, if `None`. At most five minutes ahead of this machine's
    /// clock. A gauge shows the value with the latest time.
    pub timestamp: Option<f64>,
    /// The trace that an increment or an observation belongs to, which makes it an exemplar; 0 =
    /// none.
    pub trace_id: u128,
}

impl<'a> Metric<'a> {
    /// A metric without labels and description, of this moment.
    pub fn new(name: &'a str, value: f64, metric_type: MetricType) -> Metric<'a> {
        Metric {
            name,
            value,
            metric_type,
            is_total: false,
            is_change: false,
            merge: Merge::Last,
            labels: &[],
            description: "",
            unit: "",
            buckets: &[],
            window: None,
            native: false,
            timestamp: None,
            trace_id: 0,
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

    /// An observation of a histogram.
    pub fn histogram(name: &'a str, value: f64) -> Metric<'a> {
        Metric::new(name, value, MetricType::Histogram)
    }

    /// An observation of a summary.
    pub fn summary(name: &'a str, value: f64) -> Metric<'a> {
        Metric::new(name, value, MetricType::Summary)
    }

    /// What the value does to its series.
    pub fn kind(&self) -> Kind {
        match self.metric_type {
            MetricType::Counter if self.is_total => Kind::Total,
            MetricType::Counter => Kind::Increment,
            MetricType::Gauge if self.is_change => Kind::Adjust,
            MetricType::Gauge | MetricType::Untyped => Kind::Set,
            MetricType::Histogram | MetricType::Summary => Kind::Observe,
        }
    }

    /// Whether the type takes the value.
    pub fn takes_value(&self) -> bool {
        self.kind().takes(self.value)
    }
}

/// Emits metrics by name to one bus.
///
/// A series that a thread has met before is found again without a lock.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let address = format!("doc-emitter-{}", std::process::id()).parse()?;
/// # let bus = qbus::Bus::create(&address, &qbus::BusOptions::default())?;
/// use qbus_agent::{Emitter, Metric};
/// let emitter = Emitter::new(&bus);
/// emitter.emit(&Metric::gauge("batch_size", 32.0))?;
/// let refused = emitter.emit(&Metric::counter("tokens_total", -1.0)).unwrap_err();
/// assert!(refused.to_string().starts_with("metric tokens_total: counter increment is -1"));
/// # qbus::Bus::remove(&address, qbus::Removal::Forced)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Emitter {
    bus: Bus,
    /// Tells it from the other emitters that the process has or had.
    identity: cache::Identity,
    made: Instant,
    /// Milliseconds after `made` at which the registry has last been found full; 0 for never.
    full_ms: Count,
    /// Whether its families have as many series as there are.
    is_unlimited: bool,
}

impl Emitter {
    /// An emitter for a bus.
    pub fn new(bus: &Bus) -> Emitter {
        Emitter {
            bus: bus.clone(),
            identity: cache::Identity::default(),
            made: Instant::now(),
            full_ms: Count::new(0),
            is_unlimited: false,
        }
    }

    /// Its families may have any number of series: for callers that keep a limit of their own, and
    /// state totals, which are right in their own series only.
    pub(crate) fn without_limit(self) -> Emitter {
        Emitter {
            is_unlimited: true,
            ..self
        }
    }

    /// Emits through this thread's producer, and never waits.
    ///
    /// # Errors
    ///
    /// The metric is invalid, or was refused: [`MetricError::is_refusal`] tells the two apart.
    /// Either is counted in the ledger, except for what is wrong with a name or a label.
    #[inline]
    pub fn emit(&self, metric: &Metric<'_>) -> Result<(), MetricError> {
        self.emit_with(metric, &|record| self.bus.emit(record))
    }

    /// As [`emit`](Self::emit), and waits for a lane that is full: `patience` at most.
    ///
    /// # Errors
    ///
    /// As [`emit`](Self::emit).
    #[inline]
    pub fn emit_or_wait(&self, metric: &Metric<'_>, patience: Duration) -> Result<(), MetricError> {
        self.emit_with(metric, &|record| self.bus.emit_or_wait(record, patience))
    }

    /// As [`emit`](Self::emit), by a way of the caller's own.
    ///
    /// # Errors
    ///
    /// As [`emit`](Self::emit).
    #[inline]
    pub fn emit_with(
        &self,
        metric: &Metric<'_>,
        emit: &dyn Fn(Record) -> Result<(), EmitError>,
    ) -> Result<(), MetricError> {
        let kind = metric.kind();
        let failed = |source| MetricError::Emit {
            metric: metric.name.to_owned(),
            source,
        };
        if !kind.takes(metric.value) {
            // The name is not registered for the sake of it; the producer counts it as rejected.
            let refused = emit(Record::new(0, NO_SERIES, kind, metric.value));
            return refused.map_err(failed);
        }
        let timestamp_ns = match metric.timestamp {
            None if kind == Kind::Increment => Clock::Coarse.now_ns(),
            None => Clock::Precise.now_ns(),
            Some(seconds) => nanoseconds(seconds, Clock::Precise.now_ns()).ok_or_else(|| {
                // No kind takes this value: the record is counted as rejected.
                let _ = emit(Record::new(0, NO_SERIES, Kind::Increment, f64::NAN));
                MetricError::Timestamp {
                    metric: metric.name.to_owned(),
                    found: seconds,
                }
            })?,
        };
        let series = self.series(metric)?;
        let record = Record::new(timestamp_ns, series, kind, metric.value);
        let trace_id = metric.trace_id;
        emit(Record { trace_id, ..record }).map_err(failed)
    }

    /// The series of a metric, registered now if it was not.
    ///
    /// # Errors
    ///
    /// The metric is invalid, or there is no room for it.
    #[inline]
    pub fn series(&self, metric: &Metric<'_>) -> Result<SeriesId, MetricError> {
        if metric.merge.is_by_process() {
            // A thread that was forked would know its parent's.
            return self.register(metric);
        }
        let is_registered = |series| self.bus.is_registered(series);
        cache::series(&self.identity, metric, is_registered, || {
            self.register(metric)
        })
    }

    #[cold]
    fn register(&self, metric: &Metric<'_>) -> Result<SeriesId, MetricError> {
        let labels = owned(metric.labels);
        let family = self.family(metric);
        // Asking a full registry takes long, and each new label value of a training loop would.
        let full_ms = self.full_ms.load(Relaxed);
        let is_full = full_ms > 0 && self.now_ms() - full_ms < FULL_FOR.as_millis() as u64;
        if is_full && self.bus.find(metric.name, &labels).is_none() {
            return Err(MetricError::Full {
                metric: metric.name.to_owned(),
            });
        }
        let registered = self.bus.intern(&family, &labels);
        if matches!(registered, Err(RegisterError::Full { .. })) {
            self.full_ms.store(self.now_ms(), Relaxed);
        }
        if let (true, Ok(series)) = (self.is_unlimited, &registered)
            && let Some(family) = self.bus.family_of(*series)
        {
            self.bus.set_max_series(family, 0);
        }
        registered.map_err(MetricError::Register)
    }

    /// Milliseconds since the emitter was made, and one: never 0.
    fn now_ms(&self) -> u64 {
        self.made.elapsed().as_millis() as u64 + 1
    }

    /// The family of a metric: what it does not say itself is as registered.
    fn family(&self, metric: &Metric<'_>) -> FamilyDefinition {
        let known = self.bus.family_by_name(metric.name);
        let known = known.filter(|known| known.metric_type == metric.metric_type);
        let is_histogram = metric.metric_type == MetricType::Histogram;
        let (unit, buckets, native, merge, window) = known.map_or_else(Default::default, |known| {
            (
                known.unit,
                known.buckets,
                known.native,
                known.merge,
                known.window,
            )
        });
        let or = |own: &str, known: String| {
            if own.is_empty() {
                known
            } else {
                own.to_owned()
            }
        };
        FamilyDefinition {
            name: metric.name.to_owned(),
            metric_type: metric.metric_type,
            help: metric.description.to_owned(),
            unit: or(metric.unit, unit),
            buckets: match metric.buckets {
                [] if is_histogram && buckets.is_empty() => DEFAULT_BUCKETS.to_vec(),
                [] => buckets,
                own => own.to_vec(),
            },
            native: native || metric.native,
            merge: match metric.merge {
                Merge::Last => merge,
                own => own,
            },
            window: metric.window.unwrap_or(window),
        }
    }
}

/// No registry gives this id.
const NO_SERIES: SeriesId = SeriesId(u32::MAX);

/// Labels as the registry wants them.
pub fn owned(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    labels.iter().map(owned).collect()
}

/// Seconds to nanoseconds since the Unix epoch, unless they are negative, no number, or too far
/// ahead.
fn nanoseconds(seconds: f64, now_ns: u64) -> Option<u64> {
    let latest = Duration::from_nanos(now_ns) + AHEAD_MAX;
    let time = Duration::try_from_secs_f64(seconds).ok()?;
    (time <= latest).then_some(time.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_one_that_a_clock_can_have_shown() {
        let now_ns = 1_700_000_000_000_000_000;
        let taken = |seconds| nanoseconds(seconds, now_ns);
        assert_eq!(taken(1_696_161_600.5), Some(1_696_161_600_500_000_000));
        assert_eq!(taken(0.0), Some(0));
        assert_eq!(taken(1_700_000_300.0), Some(1_700_000_300_000_000_000));
        let refused = [
            1_700_000_301.0,
            4e9,
            1e300,
            -0.001,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
        ];
        for seconds in refused {
            assert_eq!(taken(seconds), None, "{seconds}");
        }
    }
}
