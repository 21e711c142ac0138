//! From the sampler to the bus.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use qbus::{
    Bus, Clock, FamilyDefinition, JoinError, Kind, MetricType, Producer, Record, RegisterError,
    SeriesId,
};
use qbus_aggregate::Reader;
use qbus_sampler::{Attached, News, Sample, Sampler, SamplerOptions};

use crate::self_metrics;

/// Samples into a producer of its own until `stop` hears something, or nobody holds its other end.
/// With a `snapshot` also the bus itself, as that and the region tell of it. `report` hears what a
/// person should know; the other sources go on.
///
/// # Errors
///
/// The sampler got no lane.
pub fn sample_until(
    bus: &Bus,
    snapshot: Option<&Path>,
    config: SamplerOptions,
    interval: Duration,
    stop: &Receiver<()>,
    report: &mut dyn FnMut(String),
) -> Result<(), JoinError> {
    if config.sources.is_empty() && snapshot.is_none() {
        return Ok(());
    }
    let mut sampler = Sampler::new(config);
    let producer = bus.producer()?;
    let mut sink = Sink {
        bus: bus.clone(),
        producer,
        series: HashMap::new(),
        key: String::new(),
    };
    let mut reader = None;
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
        if let Some(snapshot) = snapshot {
            self_metrics::of_sampler(outcomes, &mut emit);
            reader = reader.or_else(|| Reader::open(snapshot).ok());
        }
        if let Some(reader) = &mut reader {
            // The file grows; its size is one of the metrics.
            reader.refresh();
            self_metrics::of_bus(bus, reader, &mut emit);
        }
        for outcome in outcomes {
            if let Some(news) = &outcome.news {
                report(told(outcome.source, news));
            }
        }
        if let Some(error) = refused {
            report(error.to_string());
        }
        // A tick that took too long is not made up for.
        next = (next + interval).max(Instant::now());
        match stop.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
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
            command: program(&owner.command).to_owned(),
            pid_namespace: Some(owner.pid_namespace),
        }
    };
    owners.map(attach).collect()
}

/// The last part of the path of a command line's program.
fn program(command: &str) -> &str {
    let path = command.split(' ').next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}

fn told(source: &str, news: &News) -> String {
    match news {
        News::Absent(what) => format!("nothing to sample for {source}: {what}"),
        News::Failed(why) => format!("sampling {source} failed: {why}"),
        News::Recovered => format!("sampling {source} works again"),
    }
}

/// Emits samples; series are registered when they are first met.
struct Sink {
    bus: Bus,
    producer: Producer,
    series: HashMap<String, Result<SeriesId, ()>>,
    key: String,
}

impl Sink {
    fn emit(&mut self, sample: Sample<'_>) -> Result<(), RegisterError> {
        self.key.clear();
        self.key.push_str(sample.family.name);
        for (name, value) in sample.labels {
            // No label value has these.
            self.key.extend(["\u{1}", name, "\u{2}", value]);
        }
        let series = match self.series.get(&self.key) {
            Some(Ok(series)) => *series,
            // It was refused before, and said so.
            Some(Err(())) => return Ok(()),
            None => {
                let labels = owned(sample.labels);
                let registered = self.bus.intern(&definition(sample.family), &labels);
                self.series.insert(
                    self.key.clone(),
                    registered.as_ref().map(|series| *series).map_err(|_| ()),
                );
                registered?
            }
        };
        let kind = match sample.family.kind {
            qbus_sampler::Kind::Counter => Kind::Total,
            qbus_sampler::Kind::Gauge => Kind::Set,
        };
        // A full lane is in the ledger; the next tick is soon.
        let _ = self.producer.emit(Record::new(
            Clock::Precise.now_ns(),
            series,
            kind,
            sample.value,
        ));
        Ok(())
    }
}

/// Labels as the registry wants them.
pub fn owned(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// A sampler's family as the registry wants it.
pub fn definition(family: &qbus_sampler::Family) -> FamilyDefinition {
    FamilyDefinition {
        name: family.name.to_owned(),
        metric_type: match family.kind {
            qbus_sampler::Kind::Counter => MetricType::Counter,
            qbus_sampler::Kind::Gauge => MetricType::Gauge,
        },
        help: family.help.to_owned(),
        unit: family.unit.to_owned(),
        buckets: Vec::new(),
    }
}
