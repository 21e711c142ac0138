//! `qbus emit`

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::time::Duration;

use qbus::{
    Address, Bus, Clock, DEFAULT_BUCKETS, FamilyDefinition, Kind, MetricType, Producer, Record,
    SeriesId,
};
use serde::Deserialize;

use crate::args::Emit;
use crate::command::open;
use crate::error::{Doing, Error};

/// How long a line waits for a full lane.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn run(address: &Address, emit: &Emit) -> Result<(), Error> {
    let bus = open(address)?;
    // A one-shot takes no lane from those who stay.
    let producer = bus
        .shared_producer()
        .or_else(|_| bus.producer())
        .map_err(Error::failed)?;
    if emit.stdin {
        return from_stdin(&bus, &producer);
    }
    let (Some(name), Some(value)) = (&emit.name, emit.value) else {
        return Err(Error::Failed("expected NAME and VALUE".to_owned()));
    };
    let line = Line {
        name: name.clone(),
        value: Number(value),
        metric_type: Some(emit.metric_type.to_string()),
        labels: emit
            .labels
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        description: emit.description.clone(),
        buckets: emit.buckets.clone(),
        timestamp: None,
    };
    if line.labels.len() != emit.labels.len() {
        return Err(Error::Failed(format!(
            "metric {name}: a label is given twice"
        )));
    }
    line.emit(&bus, &producer).map_err(Error::Failed)
}

fn from_stdin(bus: &Bus, producer: &Producer) -> Result<(), Error> {
    let (mut lines, mut failed) = (0_u64, 0_u64);
    for (at, line) in io::stdin().lock().split(b'\n').enumerate() {
        let line = line.doing("read standard input")?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        lines += 1;
        let parsed = serde_json::from_slice::<Line>(&line).map_err(|error| error.to_string());
        if let Err(reason) = parsed.and_then(|line| line.emit(bus, producer)) {
            failed += 1;
            let _ = writeln!(io::stderr(), "qbus: line {}: {reason}", at + 1);
        }
    }
    if failed == 0 {
        return Ok(());
    }
    Err(Error::Failed(format!(
        "{failed} of {lines} lines were not emitted"
    )))
}

/// A JSON line: what the wire has, not what the bus has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    value: Number,
    #[serde(rename = "type")]
    metric_type: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    buckets: Vec<f64>,
    /// Seconds since the Unix epoch.
    timestamp: Option<f64>,
}

/// A JSON number, or one of the words that `qbus dump` writes for what JSON has no number for.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "Wire")]
struct Number(f64);

#[derive(Deserialize)]
#[serde(untagged)]
enum Wire {
    Number(f64),
    Word(String),
}

impl TryFrom<Wire> for Number {
    type Error = String;

    fn try_from(wire: Wire) -> Result<Number, String> {
        match wire {
            Wire::Number(number) => Ok(Number(number)),
            Wire::Word(word) => match word.as_str() {
                "NaN" => Ok(Number(f64::NAN)),
                "+Inf" => Ok(Number(f64::INFINITY)),
                "-Inf" => Ok(Number(f64::NEG_INFINITY)),
                _ => Err(format!(
                    "value is {word:?}, expected a number, \"NaN\", \"+Inf\" or \"-Inf\""
                )),
            },
        }
    }
}

impl Line {
    fn emit(self, bus: &Bus, producer: &Producer) -> Result<(), String> {
        let word = self.metric_type.as_deref().unwrap_or("gauge");
        let metric_type = MetricType::from_name(word).ok_or_else(|| {
            format!("type is {word:?}, expected counter, gauge, histogram or summary")
        })?;
        let timestamp_ns = match self.timestamp {
            None => Clock::Precise.now_ns(),
            Some(seconds) if seconds.is_finite() && (0.0..1e10).contains(&seconds) => {
                (seconds * 1e9) as u64
            }
            Some(seconds) => {
                return Err(format!(
                    "timestamp is {seconds}, expected seconds since 1970"
                ));
            }
        };
        let kind = match metric_type {
            MetricType::Counter => Kind::Increment,
            MetricType::Gauge => Kind::Set,
            MetricType::Histogram | MetricType::Summary => Kind::Observe,
        };
        if !kind.takes(self.value.0) {
            // Refused and counted by the producer as any other; and the metric is not registered, for
            // ever, for the sake of a value that it cannot take.
            let unfit = Record::new(timestamp_ns, SeriesId(u32::MAX), kind, self.value.0);
            let refused = producer.emit(unfit);
            return refused.map_err(|error| format!("metric {}: {error}", self.name));
        }
        // A known histogram keeps its buckets when the line names none.
        let known = bus
            .family_by_name(&self.name)
            .filter(|family| family.metric_type == MetricType::Histogram)
            .map(|family| family.buckets);
        let buckets = match metric_type {
            MetricType::Histogram if self.buckets.is_empty() => {
                known.unwrap_or_else(|| DEFAULT_BUCKETS.to_vec())
            }
            _ => self.buckets,
        };
        let family = FamilyDefinition {
            name: self.name,
            metric_type,
            help: self.description,
            unit: String::new(),
            buckets,
        };
        let labels: Vec<(String, String)> = self.labels.into_iter().collect();
        let series = bus
            .intern(&family, &labels)
            .map_err(|error| error.to_string())?;
        let record = Record::new(timestamp_ns, series, kind, self.value.0);
        producer
            .emit_or_wait(record, PATIENCE)
            .map_err(|error| format!("metric {}: {error}", family.name))
    }
}
