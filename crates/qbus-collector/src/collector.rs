//! The collector itself: made, added to, closed.

use std::env;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Address, Bus, Clock, EmitError, JoinError, Kind, OpenOrCreateError, Record, SeriesId};
use qbus_agent::{Emitter, Metric, MetricError, SamplingOptions};
use qbus_aggregate::AggregatorOptions;
use qbus_sampler::{Names, SamplerOptions};

use crate::embedded::Embedded;
use crate::error::{AddError, ResetError, StartError};
use crate::performance::Trackers;
use crate::statistics::Counts;
use crate::validation::Rules;

/// How long `add_metric` waits for a lane that is full.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it waits for a bus that is made anew: longer than handles wait before they look for it
/// again.
const RETURN: Duration = Duration::from_millis(1500);

/// What a collector is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorOptions {
    /// The bus to emit to. `None`: the one that the environment names in `QBUS`; if that names
    /// none, a private one with an aggregator thread.
    pub bus: Option<Address>,
    /// Between two samples of the machine, from [`Collector::start_collection`] on.
    pub collection_interval: Duration,
    /// What is sampled then, from where (`/proc` and `/sys` may lie elsewhere in a container) and
    /// under which names; by default under those of the centralized metrics collector.
    pub sampler: SamplerOptions,
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
            sampler: SamplerOptions {
                names: Names::Seed,
                own_role: Some("collector".to_owned()),
                ..SamplerOptions::default()
            },
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
    bus: Bus,
    emitter: Emitter,
    pub(crate) config: CollectorOptions,
    /// What a private bus has and a named one has not.
    embedded: Option<Embedded>,
    is_embedded: bool,
    pub(crate) is_collecting: AtomicBool,
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
        let named = match (&config.bus, env::var_os("QBUS")) {
            (Some(address), _) => Some(address.clone()),
            (None, Some(text)) if !text.is_empty() => {
                Some(Address::try_from(text.as_os_str()).map_err(StartError::Address)?)
            }
            (None, _) => None,
        };
        let counts = Arc::new(Counts::default());
        let is_embedded = named.is_none();
        let (bus, embedded) = match named {
            // Another process's private bus, which is never made anew here.
            Some(address) if address.is_private() => {
                let opened = Bus::open(&address).map_err(OpenOrCreateError::Open);
                let bus = opened.map_err(StartError::Bus)?;
                // From now on it is in use, and stays when those who aggregate it are killed.
                let _ = bus.shared_producer();
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
            emitter: Emitter::new(&bus),
            bus,
            config: config.clone(),
            embedded,
            is_embedded,
            is_collecting: AtomicBool::new(false),
            rules: Rules::default(),
            trackers: Trackers::default(),
            counts,
            started: Instant::now(),
        })
    }

    /// The bus: for handles ([`Bus::counter`], `gauge`, `histogram`, `summary`), which are cheaper
    /// than any call here.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// The bus, or the one that was made under its name since it was removed.
    pub(crate) fn present(&self) -> Bus {
        self.bus.successor().unwrap_or_else(|| self.bus.clone())
    }

    /// Whether the bus is private to this collector, its forks and workers.
    pub fn is_embedded(&self) -> bool {
        self.is_embedded
    }

    /// Adds a metric: the readers of this collector show it from the return of this call on. Waits
    /// up to a second for a lane that is full; needs no lock otherwise.
    ///
    /// # Errors
    ///
    /// The metric is invalid, or was refused: [`AddError::is_refusal`] tells the two apart.
    pub fn add_metric(&self, metric: &Metric<'_>) -> Result<(), AddError> {
        if self.bus.is_removed() {
            self.revive();
        }
        self.add(metric, |metric| {
            match self.emitter.emit_or_wait(metric, PATIENCE) {
                Err(error) if self.is_bereft(&error) => self.emit_anew(metric, error),
                emitted => emitted,
            }
        })
    }

    /// Whether a metric was refused because the bus is taken away, or was, and this process makes
    /// another one.
    #[cold]
    fn is_bereft(&self, error: &MetricError) -> bool {
        let MetricError::Emit { source, .. } = error else {
            return false;
        };
        let is_lost = match source {
            EmitError::Removed => true,
            EmitError::NotJoined => {
                let joined = self.bus.shared_producer();
                matches!(joined, Err(JoinError::Busy | JoinError::Removed))
            }
            _ => false,
        };
        is_lost && self.embedded.as_ref().is_some_and(Embedded::is_heir)
    }

    /// Adds a metric once the bus is there again.
    #[cold]
    fn emit_anew(&self, metric: &Metric<'_>, mut error: MetricError) -> Result<(), MetricError> {
        let start = Instant::now();
        while start.elapsed() < RETURN {
            self.revive();
            match self.emitter.emit_or_wait(metric, PATIENCE) {
                Err(again) if self.is_bereft(&again) => error = again,
                emitted => return emitted,
            }
            thread::sleep(Duration::from_millis(1));
        }
        Err(error)
    }

    /// Queues a metric for the aggregator: never waits. For high frequency.
    ///
    /// # Errors
    ///
    /// As [`add_metric`](Self::add_metric); a full lane is a refusal.
    pub fn queue_metric(&self, metric: &Metric<'_>) -> Result<(), AddError> {
        self.add(metric, |metric| self.emitter.emit(metric))
    }

    /// The series of a metric that was added: for [`queue_value`](Self::queue_value). `None` when
    /// there are rules, which are to be asked for each value.
    pub fn series_of(&self, metric: &Metric<'_>) -> Option<SeriesId> {
        if self.config.validation_enabled && self.rules.is_any() {
            return None;
        }
        self.emitter.series(metric).ok()
    }

    /// Queues a value of a series that is known: as [`queue_metric`](Self::queue_metric), without
    /// the search for it. The name is for the error.
    ///
    /// # Errors
    ///
    /// The value cannot be, or was refused.
    #[inline]
    pub fn queue_value(
        &self,
        name: &str,
        series: SeriesId,
        kind: Kind,
        value: f64,
    ) -> Result<(), AddError> {
        let clock = if kind == Kind::Increment {
            Clock::Coarse
        } else {
            Clock::Precise
        };
        let record = Record::new(clock.now_ns(), series, kind, value);
        self.bus.emit(record).map_err(|source| {
            let metric = name.to_owned();
            let error = AddError::Metric(MetricError::Emit { metric, source });
            self.failed(&error);
            error
        })
    }

    #[inline]
    fn add(
        &self,
        metric: &Metric<'_>,
        emit: impl Fn(&Metric<'_>) -> Result<(), MetricError>,
    ) -> Result<(), AddError> {
        // A value that the type does not take is the emitter's to refuse.
        let is_asked = self.config.validation_enabled && metric.takes_value();
        let added = if is_asked && !self.rules.accept(metric.name, metric.value) {
            Err(AddError::Invalid {
                metric: metric.name.to_owned(),
                found: metric.value,
            })
        } else {
            emit(metric).map_err(AddError::Metric)
        };
        if let Err(error) = &added {
            self.failed(error);
        }
        added
    }

    #[cold]
    fn failed(&self, error: &AddError) {
        self.counts.failed(error.is_refusal());
        // A lane stays full for want of an aggregator.
        if let AddError::Metric(MetricError::Emit { .. }) = error {
            self.revive();
        }
    }

    /// Has every value of a name pass a rule, from now on, in this process.
    ///
    /// # Examples
    ///
    /// ```
    /// # use qbus_collector::{Collector, CollectorOptions};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let collector = Collector::new(&CollectorOptions::default())?;
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

    /// Whether a metric of that name could be, and its rule, if it has one, takes the value. Asks
    /// the rule whether or not validation is enabled.
    pub fn validate_metric(&self, name: &str, value: f64) -> bool {
        qbus::is_metric_name(name) && !value.is_nan() && self.rules.accept(name, value)
    }

    /// Samples the machine (CPU, memory, disks, network, GPUs) and this process from now on, every
    /// [`CollectorOptions::collection_interval`], under the names of the centralized metrics
    /// collector (`system_cpu_percent`, …). A source that fails is counted in
    /// [`Collector::get_statistics`], and the others go on.
    ///
    /// A named bus is sampled by its aggregator, once for all processes; and a forked child's
    /// machine by its parent: there this does nothing.
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
    /// removed, and what is added from then on is refused. Its rules are forgotten. Dropping does
    /// the same.
    pub fn close(&self) {
        self.is_collecting.store(false, Ordering::Relaxed);
        if let Some(embedded) = &self.embedded {
            embedded.stop();
        }
        // One may hold this very collector.
        self.rules.clear();
    }

    /// Closes it because the process ends: a private bus is removed by the last process that has
    /// it, whichever made it. Other collectors of this process may be of the same bus, and are of
    /// no use afterwards.
    pub fn end(&self) {
        self.close();
        if let Some(embedded) = &self.embedded {
            embedded.end();
        }
    }

    /// Aggregates a private bus that nobody aggregates any more.
    pub(crate) fn revive(&self) {
        if let Some(embedded) = &self.embedded {
            embedded.revive();
        }
    }
}

/// Locks, unless a fork caught the lock held by a thread that the child does not have: nobody holds
/// one of these for longer than a map operation.
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
}
