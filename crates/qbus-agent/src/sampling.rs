//! From the sampler to the bus.

use std::cell::RefCell;
use std::collections::HashSet;
use std::mem::take;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use qbus::{Bus, EmitError, FamilyId, MetricType, SeriesId};
use qbus_aggregate::Reader;
use qbus_sampler::{Attached, News, Outcome, Sample, Sampler, SamplerOptions, Trend};

use crate::Log;
use crate::by_name::{Emitter, Metric, owned};
use crate::error::MetricError;
use crate::self_metrics;
use crate::view;

/// What is sampled, and how often.
#[derive(Clone, Debug)]
pub struct SamplingOptions {
    /// The sources, their names, and where they are read.
    pub sampler: SamplerOptions,
    /// Between two samples.
    pub interval: Duration,
    /// Also what the bus, its aggregator and the sampler say of themselves.
    pub self_metrics: bool,
}

impl Default for SamplingOptions {
    /// All that is on by default, every second.
    fn default() -> SamplingOptions {
        SamplingOptions {
            sampler: SamplerOptions::default(),
            interval: Duration::from_secs(1),
            self_metrics: true,
        }
    }
}

/// Samples until `stop` hears something, or nobody holds its other end. `report` hears what a
/// person should know; the other sources go on.
pub(crate) fn sample_until(
    bus: &Bus,
    snapshot: &Path,
    options: SamplingOptions,
    stop: &Receiver<()>,
    report: &Log,
) {
    if options.sampler.sources.is_empty() && !options.self_metrics {
        return;
    }
    let mut sampler = Sampler::new(options.sampler);
    let mut sink = Sink {
        emitter: Emitter::new(bus).without_limit(),
        refused: HashSet::new(),
        seen: Seen::new(bus),
    };
    let mut is_refused = false;
    let mut next = Instant::now();
    loop {
        let attached: Arc<[Attached]> = attached(bus).into();
        let mut refused = None;
        let mut emit = |sample: Sample<'_>| {
            if let Err(error) = sink.emit(sample) {
                refused.get_or_insert(error);
            }
        };
        let outcomes = sampler.sample(Instant::now(), &attached, &mut emit);
        if options.self_metrics {
            self_metrics::of_sampler(outcomes, &mut emit);
            // Opened each time: a reset makes another file.
            if let Ok(mut reader) = Reader::open(snapshot) {
                self_metrics::of_bus(bus, &mut reader, &mut emit);
            }
        }
        sink.seen
            .end_tick(outcomes.iter().any(|outcome| outcome.hanging));
        tell(outcomes, report);
        match &refused {
            // The next tick tries again; the ledger counts each record.
            Some(MetricError::Emit { source, .. }) if !is_refused => {
                report(format!("samples are refused: {source}"));
            }
            Some(MetricError::Emit { .. }) => {}
            Some(error) => report(error.to_string()),
            None if is_refused => report("samples are taken again".to_owned()),
            None => {}
        }
        is_refused = matches!(refused, Some(MetricError::Emit { .. }));
        // A tick that took too long is not made up for.
        next = (next + options.interval).max(Instant::now());
        match stop.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Tells what is new. What a machine lacks is one line: few have all that there is.
fn tell(outcomes: &[Outcome], report: &Log) {
    let mut lacking = Vec::new();
    for outcome in outcomes {
        for news in &outcome.news {
            match news {
                News::Absent(why) => lacking.push(format!("{} ({why})", outcome.source)),
                news => report(news.told(outcome.source)),
            }
        }
    }
    if !lacking.is_empty() {
        report(format!("nothing to sample for {}", lacking.join(", ")));
    }
}

/// The living owners of the bus but this process, which samples itself.
fn attached(bus: &Bus) -> Vec<Attached> {
    let own = u64::from(std::process::id());
    let owners = bus
        .owners()
        .unwrap_or_default()
        .into_iter()
        .filter(|owner| owner.alive && owner.pid != own);
    let attach = |owner: qbus::OwnerView| {
        let role = if owner.role.is_empty() {
            "worker".to_owned()
        } else {
            owner.role
        };
        Attached {
            pid: owner.pid as u32,
            started: Some(owner.pid_start_ticks),
            role,
            command: view::program(&owner.command).to_owned(),
            pid_namespace: Some(owner.pid_namespace),
        }
    };
    owners.map(attach).collect()
}

/// Emits samples as metrics of their names.
struct Sink {
    emitter: Emitter,
    /// Metrics that the registry refused, which was said.
    refused: HashSet<String>,
    seen: Seen,
}

impl Sink {
    fn emit(&mut self, sample: Sample<'_>) -> Result<(), MetricError> {
        let qbus_sampler::Metric {
            name,
            trend,
            unit,
            help,
        } = sample.metric;
        let metric = Metric {
            labels: sample.labels,
            description: help,
            unit,
            is_total: *trend == Trend::Counter,
            ..Metric::new(name, sample.value, metric_type(*trend))
        };
        if self.seen.owned.borrow().len() >= self.seen.share && !self.seen.is_owned(&metric) {
            return self.leave_out(&metric);
        }
        let emitted = self.emitter.emit_with(&metric, &|record| {
            self.seen.note(record.series);
            self.seen.bus.emit(record)
        });
        match emitted {
            Err(MetricError::Register(_) | MetricError::Full { .. })
                if !self.refused.insert(name.to_string()) =>
            {
                Ok(())
            }
            // It is in the ledger, and the next tick is soon.
            Err(MetricError::Emit {
                source: EmitError::Full,
                ..
            }) => Ok(()),
            emitted => emitted,
        }
    }
}

impl Sink {
    /// Says once that there is no room for more.
    fn leave_out(&mut self, metric: &Metric<'_>) -> Result<(), MetricError> {
        if take(&mut self.seen.is_share_left) {
            return Err(MetricError::Share {
                metric: metric.name.to_owned(),
                series: self.seen.share,
                capacity: self.seen.bus.geometry().series,
            });
        }
        Ok(())
    }
}

/// A sampler may have one in so many of the series that a bus has room for. The sources come in the
/// order of their usefulness: what has no room is the least useful.
const SHARE: u64 = 4;

/// Ticks after which all has been sampled once that is there: ratios need two.
const TICKS: u32 = 2;

/// How the metrics begin that nobody but a sampler emits.
const OWN: [&str; 4] = ["qbus_host_", "qbus_process_", "qbus_cgroup_", "qbus_gpu_"];

/// Which series a tick sampled. What it samples no more is gone from the machine (a mount, an
/// interface, a process, a GPU), and leaves the page.
struct Seen {
    bus: Bus,
    now: RefCell<HashSet<SeriesId>>,
    before: HashSet<SeriesId>,
    ticks: u32,
    /// Whether what an earlier sampler saw was looked through.
    is_looked_through: bool,
    /// All series that a sampler ever had on this bus, and how many they may be.
    owned: RefCell<HashSet<SeriesId>>,
    share: usize,
    /// Until it was said that there is no room for more.
    is_share_left: bool,
}

impl Seen {
    fn new(bus: &Bus) -> Seen {
        let is_own = |id: &SeriesId| {
            bus.series(*id)
                .is_some_and(|series| is_own(bus, series.family))
        };
        Seen {
            owned: RefCell::new(bus.series_ids().filter(is_own).collect()),
            share: (bus.geometry().series / SHARE) as usize,
            is_share_left: true,
            bus: bus.clone(),
            now: RefCell::default(),
            before: HashSet::new(),
            ticks: 0,
            is_looked_through: false,
        }
    }

    fn note(&self, id: SeriesId) {
        if self.now.borrow_mut().insert(id) {
            self.owned.borrow_mut().insert(id);
        }
    }

    fn is_owned(&self, metric: &Metric<'_>) -> bool {
        let found = self.bus.find(metric.name, &owned(metric.labels));
        found.is_some_and(|id| self.owned.borrow().contains(&id))
    }

    /// While a source is awaited, nobody knows what of an earlier sampler's is there.
    fn end_tick(&mut self, is_awaited: bool) {
        let now = take(&mut *self.now.borrow_mut());
        for &gone in self.before.difference(&now) {
            self.bus.forget(gone);
        }
        self.owned
            .borrow_mut()
            .retain(|&id| self.bus.is_registered(id));
        self.before = now;
        self.ticks = self.ticks.saturating_add(1);
        if self.ticks >= TICKS && !is_awaited && !self.is_looked_through {
            self.is_looked_through = true;
            self.forget_left_behind();
        }
    }

    /// Forgets what an earlier sampler saw that is gone since.
    fn forget_left_behind(&self) {
        let family = |id: SeriesId| self.bus.series(id).map(|series| series.family);
        let seen = self.before.iter().filter_map(|&id| family(id));
        let families: HashSet<FamilyId> = seen.collect();
        // Of a kind of thing that is gone altogether no family was seen.
        let is_of_sampler = |family| families.contains(&family) || is_own(&self.bus, family);
        for id in self.bus.series_ids() {
            if !self.before.contains(&id)
                && self.bus.forgotten_ns(id).is_none()
                && family(id).is_some_and(is_of_sampler)
            {
                self.bus.forget(id);
            }
        }
    }
}

/// Whether nobody but a sampler emits to that family.
fn is_own(bus: &Bus, family: FamilyId) -> bool {
    let name = bus.family(family).map(|family| family.name);
    name.is_some_and(|name| OWN.iter().any(|own| name.starts_with(own)))
}

/// The type that a bus knows for a trend.
pub fn metric_type(trend: Trend) -> MetricType {
    match trend {
        Trend::Counter => MetricType::Counter,
        Trend::Gauge => MetricType::Gauge,
        Trend::Untyped => MetricType::Untyped,
    }
}
