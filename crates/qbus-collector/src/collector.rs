//! The collector itself: made, added to, closed.

use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use qbus::{
    Address, Bus, Clock, DEFAULT_BUCKETS, EmitError, FamilyDefinition, Kind, MetricType,
    OpenOrCreateError, Record, RegisterError, SeriesId,
};
use qbus_agent::SamplingOptions;
use qbus_aggregate::AggregatorOptions;

use crate::cache;
use crate::embedded::{self, Embedded};
use crate::error::{AddError, ResetError, StartError};
use crate::metric::Metric;
use crate::performance::Trackers;
use crate::statistics::Counts;
use crate::validation::Rules;

/// How long `add_metric` waits for a lane that is full.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a full registry is not asked again for a series that it does not have.
const FULL_FOR: Duration = Duration::from_secs(1);
/// The latest time that a timestamp can be: seconds whose nanoseconds fit 64 bits.
const SECONDS_MAX: f64 = 18e9;

/// What a collector is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorOptions {
    /// The bus to emit to. `None`: the one that the environment names in `QBUS`; if that names none, a
    /// private one with an aggregator thread.
    pub bus: Option<Address>,
    /// Between two samples of the machine, from [`Collector::start_collection`] on.
    pub collection_interval: Duration,
    /// How many of the last records [`Collector::get_all_metrics_buffer`] gives. On a named bus its
    /// aggregator decides how many are kept (`qbus agg --recent`).
    pub max_metrics_buffer: usize,
    /// Whether [`Collector::export_to_prometheus`] works.
    pub enable_prometheus_export: bool,
    /// How many points of a series are kept. On a named bus its aggregator decides (`qbus agg
    /// --history`).
    pub max_history_per_metric: usize,
    /// Whether the rules of [`Collector::register_validation_rule`] are asked.
    pub validation_enabled: bool,
}

impl Default for CollectorOptions {
    /// As often, and as much, as an agent samples and keeps; export and validation on.
    fn default() -> CollectorOptions {
        let AggregatorOptions {
            history, recent, ..
        } = AggregatorOptions::default();
        CollectorOptions {
            bus: None,
            collection_interval: SamplingOptions::default().interval,
            max_metrics_buffer: recent,
            enable_prometheus_export: true,
            max_history_per_metric: history,
            validation_enabled: true,
        }
    }
}

/// Metrics of this process, of its forks, and of all who name the same bus.
///
/// Any thread may use it, and a forked child what it inherits. See the [crate] for an example.
#[derive(Debug)]
pub struct Collector {
    /// Tells it from the other collectors that the process has or had.
    id: u64,
    pub(crate) bus: Bus,
    pub(crate) config: CollectorOptions,
    /// What a private bus has and a named one has not.
    embedded: Option<Embedded>,
    is_embedded: bool,
    pub(crate) is_collecting: AtomicBool,
    /// Since when the registry has no room.
    full_since: Mutex<Option<Instant>>,
    pub(crate) rules: Rules,
    pub(crate) trackers: Trackers,
    pub(crate) counts: Arc<Counts>,
    pub(crate) started: Instant,
}

impl Collector {
    /// Makes a collector, and with it its bus if need be.
    ///
    /// # Errors
    ///
    /// The bus cannot be opened or created, or a private one not aggregated.
    pub fn new(config: &CollectorOptions) -> Result<Collector, StartError> {
        let named = match (&config.bus, env::var("QBUS")) {
            (Some(address), _) => Some(address.clone()),
            (None, Ok(text)) if !text.is_empty() => {
                Some(text.parse().map_err(StartError::Address)?)
            }
            (None, _) => None,
        };
        let counts = Arc::new(Counts::default());
        let is_embedded = named.is_none();
        let (bus, embedded) = match named {
            // Another process's private bus, which is never made anew here.
            Some(address) if embedded::is_private(&address) => {
                let opened = Bus::open(&address).map_err(OpenOrCreateError::Open);
                let bus = opened.map_err(StartError::Bus)?;
                (bus.clone(), Some(Embedded::join(bus, config, &counts)))
            }
            Some(address) => {
                let bus = Bus::open_or_create(&address, &qbus::BusOptions::default());
                (bus.map_err(StartError::Bus)?, None)
            }
            None => {
                let embedded = Embedded::start(config, &counts)?;
                (embedded.bus().clone(), Some(embedded))
            }
        };
        Ok(Collector {
            id: counts.unique(),
            bus,
            config: config.clone(),
            embedded,
            is_embedded,
            is_collecting: AtomicBool::new(false),
            full_since: Mutex::new(None),
            rules: Rules::default(),
            trackers: Trackers::default(),
            counts,
            started: Instant::now(),
        })
    }

    /// The bus: for handles ([`Bus::counter`] and its kin), which are cheaper than any call here.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Whether the bus is private to this collector, its forks and workers.
    pub fn is_embedded(&self) -> bool {
        self.is_embedded
    }

    /// Adds a metric: the readers of this collector show it from the return of this call on. Waits up to
    /// a second for a lane that is full; needs no lock otherwise.
    ///
    /// # Errors
    ///
    /// The metric is none that can be, or was refused: [`AddError::is_refusal`] tells the two apart.
    pub fn add_metric(&self, metric: &Metric<'_>) -> Result<(), AddError> {
        self.add(metric, &|record| self.bus.emit_or_wait(record, PATIENCE))
    }

    /// Queues a metric for the aggregator: never waits. For high frequency.
    ///
    /// # Errors
    ///
    /// As [`add_metric`](Self::add_metric); a full lane is a refusal.
    pub fn queue_metric(&self, metric: &Metric<'_>) -> Result<(), AddError> {
        self.add(metric, &|record| self.bus.emit(record))
    }

    #[inline]
    fn add(
        &self,
        metric: &Metric<'_>,
        emit: &dyn Fn(Record) -> Result<(), EmitError>,
    ) -> Result<(), AddError> {
        let added = self.record(metric).and_then(|record| {
            let failed = |source| AddError::Emit {
                metric: metric.name.to_owned(),
                source,
            };
            emit(record).map_err(failed)
        });
        if let Err(error) = &added {
            self.failed(error);
        }
        added
    }

    #[cold]
    fn failed(&self, error: &AddError) {
        self.counts.failed(error.is_refusal());
        // A lane stays full for want of an aggregator.
        if let AddError::Emit { .. } = error {
            self.revive();
        }
    }

    /// What a metric is on the bus.
    fn record(&self, metric: &Metric<'_>) -> Result<Record, AddError> {
        let (kind, clock, expected) = match metric.metric_type {
            MetricType::Counter => (
                Kind::Increment,
                Clock::Coarse,
                "an increment: a finite number, 0 or more",
            ),
            MetricType::Gauge => (Kind::Set, Clock::Precise, "a number"),
            MetricType::Histogram | MetricType::Summary => {
                (Kind::Observe, Clock::Precise, "a finite number")
            }
        };
        let found = metric.value;
        if !kind.takes(found) {
            return Err(AddError::Value {
                metric: metric.name.to_owned(),
                found,
                expected,
            });
        }
        if self.config.validation_enabled && !self.rules.accept(metric.name, found) {
            return Err(AddError::Invalid {
                metric: metric.name.to_owned(),
                found,
            });
        }
        let timestamp_ns = match metric.timestamp {
            None => clock.now_ns(),
            Some(seconds) if (0.0..SECONDS_MAX).contains(&seconds) => nanoseconds(seconds),
            Some(found) => {
                return Err(AddError::Timestamp {
                    metric: metric.name.to_owned(),
                    found,
                });
            }
        };
        let series = cache::series(self.id, metric, || self.register(metric))?;
        Ok(Record::new(timestamp_ns, series, kind, found))
    }

    #[cold]
    fn register(&self, metric: &Metric<'_>) -> Result<SeriesId, AddError> {
        let labels: Vec<_> = metric
            .labels
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        // Asking a full registry takes long, and each new label value of a training loop would.
        let full_since = lock(&self.full_since).and_then(|full_since| *full_since);
        if full_since.is_some_and(|since| since.elapsed() < FULL_FOR) {
            let known = self.bus.family_by_name(metric.name);
            return known
                .filter(|known| known.metric_type == metric.metric_type)
                .and_then(|_| self.bus.find(metric.name, &labels))
                .ok_or_else(|| AddError::Full {
                    metric: metric.name.to_owned(),
                });
        }
        let registered = self.bus.intern(&self.family(metric), &labels);
        if matches!(registered, Err(RegisterError::Full { .. }))
            && let Some(mut full_since) = lock(&self.full_since)
        {
            *full_since = Some(Instant::now());
        }
        registered.map_err(AddError::Register)
    }

    /// The family of a metric: with the unit and the buckets that it is registered with.
    fn family(&self, metric: &Metric<'_>) -> FamilyDefinition {
        match self.bus.family_by_name(metric.name) {
            Some(known) if known.metric_type == metric.metric_type => known,
            _ => FamilyDefinition {
                name: metric.name.to_owned(),
                metric_type: metric.metric_type,
                help: metric.description.to_owned(),
                unit: String::new(),
                buckets: match metric.metric_type {
                    MetricType::Histogram => DEFAULT_BUCKETS.to_vec(),
                    _ => Vec::new(),
                },
            },
        }
    }

    /// Has every value of a name pass a rule, from now on, in this process.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let collector = qbus_collector::Collector::new(&qbus_collector::CollectorOptions::default())?;
    /// collector.register_validation_rule("positive_metric", |value| value > 0.0);
    /// assert!(collector.validate_metric("positive_metric", 42.0));
    /// assert!(!collector.validate_metric("positive_metric", -1.0));
    /// # Ok(()) }
    /// ```
    pub fn register_validation_rule(
        &self,
        name: &str,
        rule: impl Fn(f64) -> bool + Send + Sync + 'static,
    ) {
        self.rules.insert(name, Arc::new(rule));
    }

    /// Whether a metric of that name could be, and its rule, if it has one, takes the value. Asks the
    /// rule whether or not validation is enabled.
    pub fn validate_metric(&self, name: &str, value: f64) -> bool {
        qbus::is_metric_name(name) && !value.is_nan() && self.rules.accept(name, value)
    }

    /// Samples the machine (CPU, memory, disks, network, GPUs) and this process from now on, every
    /// [`CollectorOptions::collection_interval`], under the names of the centralized metrics collector
    /// (`system_cpu_percent`, …). A source that fails is counted in [`Collector::get_statistics`], and
    /// the others go on.
    ///
    /// A named bus is sampled by its aggregator, once for all processes; and a forked child's machine by
    /// its parent: there this does nothing.
    pub fn start_collection(&self) {
        self.is_collecting.store(true, Ordering::Relaxed);
        if let Some(embedded) = &self.embedded {
            embedded.start_sampling();
        }
    }

    /// Samples no more. What was added stays, and adding goes on.
    pub fn stop_collection(&self) {
        self.is_collecting.store(false, Ordering::Relaxed);
        if let Some(embedded) = &self.embedded {
            embedded.stop_sampling();
        }
    }

    /// Forgets all that was added and sampled: values, history, buffer.
    ///
    /// # Errors
    ///
    /// The bus is not this process's own.
    pub fn reset(&self) -> Result<(), ResetError> {
        match &self.embedded {
            Some(embedded) => embedded.reset(),
            None => Err(ResetError::Shared {
                bus: self.bus.address().to_string(),
            }),
        }
    }

    /// Stops what runs in the background of this process; a private bus that nobody else uses is
    /// removed, and what is added from then on is refused. Dropping does the same.
    pub fn close(&self) {
        self.is_collecting.store(false, Ordering::Relaxed);
        if let Some(embedded) = &self.embedded {
            embedded.stop();
        }
    }

    /// Aggregates a private bus that nobody aggregates any more.
    pub(crate) fn revive(&self) {
        if let Some(embedded) = &self.embedded {
            embedded.revive();
        }
    }
}

/// Seconds to nanoseconds since the Unix epoch, to the microsecond that a double of today holds.
fn nanoseconds(seconds: f64) -> u64 {
    let whole = seconds.trunc();
    let fraction = ((seconds - whole) * 1e9).round();
    whole as u64 * 1_000_000_000 + fraction as u64
}

/// Locks, unless a fork caught the lock held by a thread that the child does not have: nobody holds one
/// of these for longer than a map operation.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    let start = Instant::now();
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => {
                return Some(PoisonError::into_inner(poisoned));
            }
            Err(TryLockError::WouldBlock) if start.elapsed() > PATIENCE => return None,
            Err(TryLockError::WouldBlock) => thread::yield_now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_nobody_gives_back_is_not_waited_for_for_ever() {
        let mutex = Mutex::new(1);
        let held = lock(&mutex).unwrap();
        assert!(lock(&mutex).is_none());
        drop(held);
        assert_eq!(*lock(&mutex).unwrap(), 1);
    }

    #[test]
    fn seconds_keep_what_a_double_holds() {
        assert_eq!(nanoseconds(1_696_161_600.0), 1_696_161_600_000_000_000);
        assert_eq!(nanoseconds(1_696_161_600.5), 1_696_161_600_500_000_000);
        assert_eq!(nanoseconds(0.0), 0);
    }
}
