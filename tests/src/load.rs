//! What a producer helper is told to emit, and what it reports.

use std::fmt;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use qbus::{
    Address, Bus, Clock, Counter, EmitError, Gauge, Histogram, JoinError, Kind, MetricType,
    Producer, Record, Summary,
};

use crate::process::Process;

/// Which lane a thread emits through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Whatever a handle finds.
    Handle,
    /// A producer of its own; it waits while the lane is full.
    Wait,
    /// A producer of a shared lane.
    Shared,
    /// A producer of a shared lane; it waits while the lane is full.
    SharedWait,
}

/// What each thread of a producer process is to emit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// The type of its metric, `test_TYPE`.
    pub metric_type: MetricType,
    /// How many threads, each with a series of its own.
    pub threads: u64,
    /// Records of each thread; 0 = until the input is closed.
    pub records: u64,
    /// Through what.
    pub lane: Lane,
    /// The value of the label `worker`.
    pub worker: String,
}

impl Load {
    /// Two threads that count until the input is closed.
    pub fn counting(worker: &str, lane: Lane) -> Load {
        Load {
            metric_type: MetricType::Counter,
            threads: 2,
            records: 0,
            lane,
            worker: worker.to_owned(),
        }
    }

    /// Starts a helper that emits this.
    pub fn begin(&self, producer: &str, address: &Address) -> Process {
        let mut producer = Process::ready(producer, address, &self.to_args());
        producer.tell("go");
        producer
    }

    /// What each thread of the helper reports in the end; one that has no end is told to come to
    /// it.
    pub fn reports(&self, producer: &mut Process) -> Vec<Report> {
        if self.records == 0 {
            producer.close_input();
        }
        let line = |_| producer.line().parse().expect("a report");
        (0..self.threads).map(line).collect()
    }

    /// As arguments of the helper, after the bus.
    pub fn to_args(&self) -> Vec<String> {
        let lane = format!("{:?}", self.lane);
        [
            self.metric_type.to_string(),
            self.threads.to_string(),
            self.records.to_string(),
            lane,
            self.worker.clone(),
        ]
        .to_vec()
    }

    /// From the helper's arguments.
    pub fn from_args(args: &[String]) -> Option<Load> {
        let [metric_type, threads, records, lane, worker] = args else {
            return None;
        };
        let lanes = [Lane::Handle, Lane::Wait, Lane::Shared, Lane::SharedWait];
        Some(Load {
            metric_type: MetricType::from_name(metric_type)?,
            threads: threads.parse().ok()?,
            records: records.parse().ok()?,
            lane: lanes
                .into_iter()
                .find(|known| format!("{known:?}") == *lane)?,
            worker: worker.clone(),
        })
    }

    /// The name of the metric.
    pub fn name(&self) -> String {
        format!("test_{}", self.metric_type)
    }

    /// What record `n` of a thread carries: whole numbers, so that sums are exact in any order.
    pub fn value(&self, n: u64) -> f64 {
        if self.metric_type == MetricType::Counter {
            1.0
        } else {
            (n % 1000) as f64
        }
    }

    /// Bounds of the histogram's buckets.
    pub const BUCKETS: [f64; 3] = [9.0, 99.0, 499.0];
    /// What the summary's quantiles are of, in five steps.
    pub const WINDOW: Duration = Duration::from_secs(1);

    /// Registers the series of a thread; what emits its record `n`.
    pub fn emitter(
        &self,
        bus: &Bus,
        thread: u64,
    ) -> Box<dyn Fn(u64) -> Result<(), EmitError> + '_> {
        let labels = [
            ("worker", self.worker.clone()),
            ("thread", thread.to_string()),
        ];
        let name = &self.name();
        match self.metric_type {
            MetricType::Counter => {
                let handle: Counter = bus
                    .counter(name)
                    .labels(labels)
                    .register()
                    .expect("it fits");
                let series = handle.series();
                self.through(bus, Kind::Increment, series, move |value| {
                    handle.try_add(value)
                })
            }
            MetricType::Gauge | MetricType::Untyped => {
                let handle: Gauge = bus.gauge(name).labels(labels).register().expect("it fits");
                let series = handle.series();
                self.through(bus, Kind::Set, series, move |value| handle.try_set(value))
            }
            MetricType::Histogram => {
                let described = bus.histogram(name).labels(labels).buckets(Self::BUCKETS);
                let handle: Histogram = described.register().expect("it fits");
                let series = handle.series();
                self.through(bus, Kind::Observe, series, move |value| {
                    handle.try_observe(value)
                })
            }
            MetricType::Summary => {
                let handle: Summary = bus
                    .summary(name)
                    .labels(labels)
                    .window(Self::WINDOW, 5)
                    .register()
                    .expect("it fits");
                let series = handle.series();
                self.through(bus, Kind::Observe, series, move |value| {
                    handle.try_observe(value)
                })
            }
        }
    }

    fn through<'a>(
        &'a self,
        bus: &Bus,
        kind: Kind,
        series: qbus::SeriesId,
        handle: impl Fn(f64) -> Result<(), EmitError> + 'a,
    ) -> Box<dyn Fn(u64) -> Result<(), EmitError> + 'a> {
        let producer = match self.lane {
            Lane::Handle => return Box::new(move |n| handle(self.value(n))),
            Lane::Wait => lease(|| bus.producer()),
            Lane::Shared | Lane::SharedWait => lease(|| bus.shared_producer()),
        };
        let producer = producer.expect("a bus that is there");
        Box::new(move |n| {
            let record = Record::new(Clock::Precise.now_ns(), series, kind, self.value(n));
            match self.lane {
                Lane::Shared => producer.emit(record),
                _ => producer.emit_or_wait(record, Duration::MAX),
            }
        })
    }
}

/// Leases a lane; waits for another thread of the process that is joining, and may be stopped while
/// it does. `None` when the bus was removed.
///
/// # Panics
///
/// There is no lane.
pub fn lease(lease: impl Fn() -> Result<Producer, JoinError>) -> Option<Producer> {
    loop {
        match lease() {
            Err(JoinError::Busy) => thread::sleep(Duration::from_millis(1)),
            Err(JoinError::Removed) => return None,
            leased => return Some(leased.expect("a lane")),
        }
    }
}

/// What a thread emitted, and what became of it as far as it was told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// Emits.
    pub attempted: u64,
    /// Emits that returned `Ok`.
    pub accepted: u64,
    /// Emits that met a full lane.
    pub full: u64,
    /// Emits that were given up while the thread was stopped.
    pub revoked: u64,
    /// Emits on a bus that was removed.
    pub removed: u64,
    /// The sum of the accepted values.
    pub sum: f64,
    /// The last accepted value.
    pub last: f64,
}

impl Report {
    /// Counts an emit.
    pub fn count(&mut self, value: f64, emitted: Result<(), EmitError>) {
        self.attempted += 1;
        match emitted {
            Ok(()) => {
                self.accepted += 1;
                self.sum += value;
                self.last = value;
            }
            Err(EmitError::Full) => self.full += 1,
            Err(EmitError::Revoked) => self.revoked += 1,
            Err(EmitError::Removed) => self.removed += 1,
            Err(error) => panic!("an emit failed: {error}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report {
            attempted,
            accepted,
            full,
            revoked,
            removed,
            sum,
            last,
        } = self;
        write!(
            f,
            "{attempted} {accepted} {full} {revoked} {removed} {sum} {last}"
        )
    }
}

impl FromStr for Report {
    type Err = String;

    fn from_str(text: &str) -> Result<Report, String> {
        let numbers: Result<Vec<f64>, _> = text.split(' ').map(str::parse::<f64>).collect();
        match numbers.as_deref() {
            Ok(&[attempted, accepted, full, revoked, removed, sum, last]) => Ok(Report {
                attempted: attempted as u64,
                accepted: accepted as u64,
                full: full as u64,
                revoked: revoked as u64,
                removed: removed as u64,
                sum,
                last,
            }),
            _ => Err(format!("{text:?} is no report")),
        }
    }
}
