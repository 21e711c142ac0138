//! `qbus emit`

mod line;

use std::io::{self, BufRead, Write};
use std::time::Duration;

use qbus::{Address, Bus, MetricType, Producer};
use qbus_agent::{Emitter, Metric};

use crate::args::Emit;
use crate::command::{await_commit, open};
use crate::error::{Doing, Error};
use line::Line;

/// How long a record waits for a full lane.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn run(address: &Address, emit: &Emit) -> Result<(), Error> {
    let bus = open(address)?;
    // A one-shot takes no lane from those who stay.
    let producer = bus
        .shared_producer()
        .or_else(|_| bus.producer())
        .map_err(Error::failed)?;
    let emitting = Emitting {
        emitter: Emitter::new(&bus),
        instance: bus.instance(),
        bus,
        producer,
    };
    match (&emit.name, emit.value) {
        (Some(name), Some(value)) => {
            let labels = emit.labels.iter();
            let labels: Vec<_> = labels.map(|(name, value)| (&**name, &**value)).collect();
            let metric = Metric {
                is_total: emit.total,
                is_change: emit.add,
                merge: emit.merge,
                labels: &labels,
                description: &emit.description,
                unit: &emit.unit,
                buckets: &emit.buckets,
                window: emit.window,
                native: emit.native,
                timestamp: emit.timestamp,
                trace_id: emit.trace_id,
                ..Metric::new(name, value, emit.metric_type())
            };
            check_meaning(&metric).map_err(Error::Failed)?;
            emitting.emit(&metric).map_err(Error::Failed)?;
        }
        _ => emitting.emit_lines()?,
    }
    emitting.finish()
}

/// A total is a counter's, and a change a gauge's: to others the value would mean what it says.
fn check_meaning(metric: &Metric<'_>) -> Result<(), String> {
    let metric_type = metric.metric_type;
    let refused = |what: &str, takes: MetricType| {
        let name = metric.name;
        let why = format!("{what} is for a {takes}, and this is a {metric_type}");
        Err(format!("metric {name}: {why}"))
    };
    match metric {
        Metric {
            is_total: true,
            is_change: true,
            ..
        } => Err(format!(
            "metric {}: total and add exclude each other",
            metric.name
        )),
        Metric { is_total: true, .. } if metric_type != MetricType::Counter => {
            refused("total", MetricType::Counter)
        }
        Metric {
            is_change: true, ..
        } if metric_type != MetricType::Gauge => refused("add", MetricType::Gauge),
        Metric { merge, .. } if merge.is_by_process() && metric_type != MetricType::Gauge => {
            refused("merge", MetricType::Gauge)
        }
        Metric {
            window: Some(_), ..
        } if metric_type != MetricType::Summary => refused("window", MetricType::Summary),
        Metric { native: true, .. } if metric_type != MetricType::Histogram => {
            refused("native", MetricType::Histogram)
        }
        _ => Ok(()),
    }
}

struct Emitting {
    bus: Bus,
    /// Tells the bus that was opened from one of the same name that was made since.
    instance: [u64; 2],
    emitter: Emitter,
    producer: Producer,
}

impl Emitting {
    fn emit(&self, metric: &Metric<'_>) -> Result<(), String> {
        let emit = |record| self.producer.emit_or_wait(record, PATIENCE);
        let emitted = self.emitter.emit_with(metric, &emit);
        emitted.map_err(|error| error.to_string())
    }

    fn emit_lines(&self) -> Result<(), Error> {
        let (mut lines, mut failed) = (0_u64, 0_u64);
        for (at, line) in io::stdin().lock().split(b'\n').enumerate() {
            let line = line.doing("read standard input")?;
            if line.trim_ascii().is_empty() {
                continue;
            }
            self.check_bus()?;
            lines += 1;
            let emitted = Line::parse(&line).and_then(|line| {
                let labels = line.labels();
                let metric = line.metric(&labels);
                check_meaning(&metric)?;
                self.emit(&metric)
            });
            if let Err(reason) = emitted {
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

    fn check_bus(&self) -> Result<(), Error> {
        if !self.bus.is_removed() && self.bus.instance() == self.instance {
            return Ok(());
        }
        Err(Error::Absent(format!(
            "the bus {} was removed meanwhile: what was emitted to it is lost; emit again",
            self.bus.address()
        )))
    }

    fn finish(&self) -> Result<(), Error> {
        await_commit(&self.bus);
        self.check_bus()
    }
}
