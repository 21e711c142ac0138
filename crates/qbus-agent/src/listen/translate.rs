//! From datagrams to records of the bus.

use std::cell::Cell;
use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use qbus::{Bus, MetricType, Record};

use super::Counts;
use super::line::{self, Cause, Line, Parsed, StatsdType};
use super::mapping::{Mapped, Mapping};
use super::names::{LABELS_MAX, labels};
use crate::by_name::{Emitter, Metric};

/// Lines that differ in name, type or tags, of which the series is known without looking.
const KNOWN_MAX: usize = 1 << 16;
/// Bytes of what tells those lines apart: hostile ones are long.
const KNOWN_BYTES_MAX: usize = 16 << 20;
/// Distinct values of all sets that are remembered between two sums.
const MEMBERS_MAX: usize = 1 << 20;
/// A full lane is waited for so long: the kernel keeps what comes meanwhile, or counts it. Once
/// that was in vain it is not waited for again until it takes something.
const PATIENCE: Duration = Duration::from_millis(100);
/// No name of a metric is nearly so long, nor what a mapping could make one of.
const NAME_MAX: usize = 1024;
/// A sample rate counts as so many equal observations at most.
const REPEATS_MAX: f64 = 1e9;

pub(super) struct Translator {
    bus: Bus,
    emitter: Emitter,
    mapping: Arc<Mapping>,
    gauge_deltas: bool,
    known: HashMap<Box<str>, Target, RandomState>,
    known_bytes: usize,
    members: usize,
    key: String,
    /// Distinguishes values of sets; the same for all of them.
    hasher: RandomState,
    /// How long a full lane is waited for: not again and again.
    patience: Cell<Duration>,
    pub(super) counts: Counts,
}

/// Where the values of a line go.
struct Target {
    name: String,
    labels: Vec<(String, String)>,
    metric_type: MetricType,
    help: String,
    unit: &'static str,
    buckets: Vec<f64>,
    scale: f64,
    ttl: Option<Duration>,
    /// The mapping says to leave it out.
    is_dropped: bool,
    /// Of a set: its values since the last sum.
    members: HashSet<u64, RandomState>,
}

impl Translator {
    pub(super) fn new(bus: &Bus, mapping: Arc<Mapping>, gauge_deltas: bool) -> Translator {
        Translator {
            bus: bus.clone(),
            emitter: Emitter::new(bus),
            mapping,
            gauge_deltas,
            known: HashMap::default(),
            known_bytes: 0,
            members: 0,
            key: String::new(),
            hasher: RandomState::default(),
            patience: Cell::new(PATIENCE),
            counts: Counts::default(),
        }
    }

    pub(super) fn datagram(&mut self, bytes: &[u8]) {
        for line in bytes.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                continue;
            }
            let parsed = std::str::from_utf8(line).map_err(|_| Cause::Encoding);
            match parsed.and_then(line::parse) {
                Ok(Parsed::Metric(line)) => self.line(&line),
                Ok(Parsed::Event) => self.counts.events += 1,
                Ok(Parsed::ServiceCheck) => self.counts.service_checks += 1,
                Err(cause) => self.note(cause),
            }
        }
    }

    fn note(&mut self, cause: Cause) {
        self.counts.bad[cause as usize] += 1;
    }

    fn line(&mut self, line: &Line<'_>) {
        if line.name.len() > NAME_MAX {
            return self.note(Cause::Refused);
        }
        self.key.clear();
        for part in [line.name, "|", kind_name(line.kind), "|", line.tags] {
            self.key.push_str(part);
        }
        if !self.known.contains_key(self.key.as_str()) {
            self.known_bytes += self.key.len();
            if self.known.len() >= KNOWN_MAX || self.known_bytes > KNOWN_BYTES_MAX {
                // Sets say what they have.
                self.sum_up_sets();
                self.known.clear();
                self.known_bytes = self.key.len();
            }
            let target = target(line, &self.mapping);
            self.known.insert(self.key.as_str().into(), target);
        }
        let Translator {
            bus,
            emitter,
            known,
            key,
            hasher,
            counts,
            gauge_deltas,
            members,
            patience,
            ..
        } = self;
        let Some(target) = known
            .get_mut(key.as_str())
            .filter(|target| !target.is_dropped)
        else {
            return;
        };
        if line.kind == StatsdType::Set {
            let member = hasher.hash_one(line.values);
            if !target.members.contains(&member) {
                if *members >= MEMBERS_MAX {
                    counts.bad[Cause::Refused as usize] += 1;
                    return;
                }
                *members += 1;
                target.members.insert(member);
            }
            counts.values += 1;
            return;
        }
        for text in line.values.split(':') {
            let emitted = match text.parse::<f64>() {
                Ok(value) => emit(
                    bus,
                    emitter,
                    target,
                    line,
                    value,
                    *gauge_deltas && line.kind == StatsdType::Gauge && is_signed(text),
                    patience,
                ),
                Err(_) => Err(Cause::Value),
            };
            match emitted {
                Ok(()) => counts.values += 1,
                Err(cause) => counts.bad[cause as usize] += 1,
            }
        }
    }

    /// Emits of each set how many values it had since the last time.
    pub(super) fn sum_up_sets(&mut self) {
        self.members = 0;
        for target in self.known.values_mut() {
            if target.metric_type == MetricType::Gauge && !target.members.is_empty() {
                let size = target.members.len() as f64;
                target.members = HashSet::default();
                let record = |record: Record| emit_patiently(&self.bus, record, &self.patience);
                let emitted = target.emit_as(&self.emitter, size, None, false, &record);
                if emitted.is_err() {
                    self.counts.bad[Cause::Refused as usize] += 1;
                }
            }
        }
    }
}

/// Emits, and waits for a full lane unless the last one was waited for in vain: an aggregator that
/// is gone must not keep the listener from its end.
fn emit_patiently(
    bus: &Bus,
    record: Record,
    patience: &Cell<Duration>,
) -> Result<(), qbus::EmitError> {
    let emitted = bus.emit_or_wait(record, patience.get());
    patience.set(match emitted {
        Err(qbus::EmitError::Full) => Duration::ZERO,
        _ => PATIENCE,
    });
    emitted
}

fn is_signed(text: &str) -> bool {
    text.starts_with(['+', '-'])
}

/// How the key of what is known names a kind.
fn kind_name(kind: StatsdType) -> &'static str {
    match kind {
        StatsdType::Counter => "c",
        StatsdType::Gauge => "g",
        StatsdType::Timer => "ms",
        StatsdType::Histogram => "h",
        StatsdType::Distribution => "d",
        StatsdType::Set => "s",
    }
}

fn target(line: &Line<'_>, mapping: &Mapping) -> Target {
    let mut labels = labels(line.tags);
    let mapped: Mapped = mapping.find(line.name, line.kind, &mut labels);
    let is_timer = line.kind == StatsdType::Timer;
    Target {
        name: mapped.name,
        labels,
        metric_type: mapped.metric_type,
        help: mapped.help,
        unit: if is_timer { "seconds" } else { "" },
        buckets: mapped.buckets,
        scale: mapped.scale * if is_timer { 1e-3 } else { 1.0 },
        ttl: mapped.ttl,
        is_dropped: mapped.is_dropped,
        members: HashSet::default(),
    }
}

fn emit(
    bus: &Bus,
    emitter: &Emitter,
    target: &mut Target,
    line: &Line<'_>,
    value: f64,
    is_change: bool,
    patience: &Cell<Duration>,
) -> Result<(), Cause> {
    let value = value * target.scale;
    let timed = matches!(line.kind, StatsdType::Counter | StatsdType::Gauge);
    let timestamp = line.timestamp.filter(|_| timed);
    let (value, count) = match line.kind {
        StatsdType::Counter => (value / line.rate, 1),
        StatsdType::Gauge | StatsdType::Set => (value, 1),
        StatsdType::Timer | StatsdType::Histogram | StatsdType::Distribution => (
            value,
            (1.0 / line.rate).round().clamp(1.0, REPEATS_MAX) as u64,
        ),
    };
    let metric = Metric {
        is_change,
        ..Metric::new("", value, target.metric_type)
    };
    if !metric.takes_value() {
        return Err(Cause::Value);
    }
    let ttl = target.ttl.take();
    let record = |record: Record| {
        if let Some(ttl) = ttl
            && let Some(series) = bus.series(record.series)
        {
            bus.set_ttl(series.family, ttl);
        }
        emit_patiently(bus, Record { count, ..record }, patience)
    };
    target.emit_as(emitter, value, timestamp, is_change, &record)
}

impl Target {
    fn emit_as(
        &self,
        emitter: &Emitter,
        value: f64,
        timestamp: Option<f64>,
        is_change: bool,
        emit: &dyn Fn(Record) -> Result<(), qbus::EmitError>,
    ) -> Result<(), Cause> {
        let mut labels = [("", ""); LABELS_MAX];
        let labels = labels.get_mut(..self.labels.len()).ok_or(Cause::Refused)?;
        for (label, (name, value)) in labels.iter_mut().zip(&self.labels) {
            *label = (name, value);
        }
        let metric = Metric {
            labels,
            description: &self.help,
            unit: self.unit,
            buckets: &self.buckets,
            timestamp,
            is_change,
            ..Metric::new(&self.name, value, self.metric_type)
        };
        emitter.emit_with(&metric, emit).map_err(|_| Cause::Refused)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use qbus_tests::{Place, TestBus};

    use super::*;

    fn translator(bus: &TestBus) -> Translator {
        Translator::new(&bus.open(), Arc::new(Mapping::default()), false)
    }

    #[test]
    fn an_aggregator_that_is_gone_is_waited_for_once() {
        let bus = TestBus::small(Place::Named);
        let mut translator = translator(&bus);
        let (mut sent, start) = (0, Instant::now());
        // As many as a lane has room for, and three thousand more.
        while translator.counts.bad[Cause::Refused as usize] < 3000 {
            let values = "1:".repeat(999) + "1";
            translator.datagram(format!("level:{values}|g").as_bytes());
            sent += 1000;
        }
        // Each waited for would be five minutes.
        assert!(start.elapsed() < Duration::from_secs(60));
        let refused = translator.counts.bad[Cause::Refused as usize];
        assert_eq!(translator.counts.values + refused, sent);
    }

    #[test]
    fn what_is_hostile_is_refused_before_it_costs_anything() {
        let bus = TestBus::small(Place::Named);
        let mut translator = translator(&bus);
        let tags: String = (0..10_000).map(|at| format!("t{at}:x,")).collect();
        for at in 0..100 {
            translator.datagram(format!("many:1|c|#{at}:x,{tags}").as_bytes());
            let long = "a.".repeat(30_000);
            translator.datagram(format!("{long}{at}:1|c").as_bytes());
        }
        assert_eq!(translator.counts.bad[Cause::Refused as usize], 200);
        assert_eq!(translator.counts.values, 0);
    }
}
