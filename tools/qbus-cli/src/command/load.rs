//! `qbus load`

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use qbus::{
    Address, Bus, Clock, Counter, EmitError, Gauge, Histogram, Kind, MetricType, Record,
    RegisterError, Summary,
};
use serde::{Deserialize, Serialize};

use crate::args::Load;
use crate::command::open;
use crate::error::{Doing, Error};

/// What one worker, or all of them, did: the wire form of `--json`, and of a worker's last word.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
struct Report {
    attempted: u64,
    accepted: u64,
    dropped: u64,
    seconds: f64,
    ns_per_record: f64,
}

impl Report {
    fn new(attempted: u64, accepted: u64, seconds: f64) -> Report {
        let ns_per_record = if attempted == 0 {
            0.0
        } else {
            seconds * 1e9 / attempted as f64
        };
        Report {
            attempted,
            accepted,
            dropped: attempted - accepted,
            seconds,
            ns_per_record,
        }
    }
}

#[derive(Debug, Serialize)]
struct Reports {
    workers: Vec<Report>,
    total: Report,
}

pub(crate) fn run(address: &Address, load: &Load, out: &mut dyn Write) -> Result<(), Error> {
    if let Some(worker) = load.worker {
        return work(address, load, worker, out);
    }
    if load
        .rate
        .is_some_and(|rate| !rate.is_finite() || rate <= 0.0)
    {
        return Err(Error::Failed(
            "--rate is not positive, expected records per second".to_owned(),
        ));
    }
    // A worker would say the same, only less clearly.
    open(address)?;
    let reports = reports(address, load)?;
    if load.json {
        serde_json::to_writer_pretty(&mut *out, &reports)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(
        out,
        "{:<8} {:>12} {:>12} {:>10} {:>9} {:>10}",
        "worker", "attempted", "accepted", "dropped", "seconds", "ns/record"
    )?;
    let rows = reports
        .workers
        .iter()
        .enumerate()
        .map(|(worker, report)| (worker.to_string(), report));
    for (name, report) in rows.chain([("total".to_owned(), &reports.total)]) {
        let Report {
            attempted,
            accepted,
            dropped,
            seconds,
            ns_per_record,
        } = report;
        writeln!(
            out,
            "{name:<8} {attempted:>12} {accepted:>12} {dropped:>10} {seconds:>9.3} {ns_per_record:>10.1}"
        )?;
    }
    Ok(())
}

/// A worker process; ended when it is dropped before it has reported.
struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Worker {
    fn start(address: &Address, load: &Load, worker: u32) -> Result<Worker, Error> {
        let program = crate::program()?;
        let mut command = Command::new(program);
        command.args([
            "load",
            "--bus",
            &address.to_string(),
            "--worker",
            &worker.to_string(),
        ]);
        command.args([
            "--records",
            &load.records.to_string(),
            "--series",
            &load.series.to_string(),
        ]);
        command.args(["--kind", load.kind.as_str()]);
        command.args(load.rate.map(|rate| format!("--rate={rate}")));
        command.args(load.wait.then_some("--wait"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().doing("start a worker")?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let output = output.ok_or_else(|| Error::Failed("a worker has no output".to_owned()))?;
        Ok(Worker {
            child,
            input,
            output: BufReader::new(output),
        })
    }

    fn line(&mut self) -> Result<String, Error> {
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .doing("hear from a worker")?;
        if line.is_empty() {
            return Err(Error::Failed(
                "a worker ended before it had reported".to_owned(),
            ));
        }
        Ok(line)
    }
}

fn reports(address: &Address, load: &Load) -> Result<Reports, Error> {
    let start = |worker| Worker::start(address, load, worker);
    let mut workers = (0..load.producers)
        .map(start)
        .collect::<Result<Vec<_>, _>>()?;
    // All are attached before any begins.
    for worker in &mut workers {
        worker.line()?;
    }
    let start = Instant::now();
    for worker in &mut workers {
        worker.input = None;
    }
    let mut reports = Vec::new();
    for worker in &mut workers {
        let line = worker.line()?;
        reports.push(serde_json::from_str::<Report>(&line)?);
        let _ = worker.child.wait();
    }
    let seconds = start.elapsed().as_secs_f64();
    let sum = |part: fn(&Report) -> u64| reports.iter().map(part).sum::<u64>();
    let total = Report::new(
        sum(|report| report.attempted),
        sum(|report| report.accepted),
        seconds,
    );
    Ok(Reports {
        workers: reports,
        total,
    })
}

/// A worker's life: attach, say so, wait for the others, emit, report.
fn work(address: &Address, load: &Load, worker: u32, out: &mut dyn Write) -> Result<(), Error> {
    let bus = open(address)?;
    bus.set_role("load");
    let handles = (0..load.series.max(1)).map(|series| register(&bus, load.kind, worker, series));
    let handles = handles
        .collect::<Result<Vec<_>, _>>()
        .map_err(Error::failed)?;
    // Joins and touches a lane, so that the measured part is emitting alone.
    let producer = bus.producer().map_err(Error::failed)?;
    writeln!(out, "ready")?;
    out.flush()?;
    // The parent closes the pipe when all are ready.
    io::copy(&mut io::stdin(), &mut io::sink()).doing("wait for the other workers")?;
    let start = Instant::now();
    let accepted = if load.wait {
        let of = |n: u64| &handles[(n % handles.len() as u64) as usize];
        emit(load, |n| {
            producer.emit_or_wait(of(n).record(n), Duration::MAX)
        })
    } else {
        // Handles find a producer of their own: this one's lane is free for it.
        drop(producer);
        match handles.as_slice() {
            [Handle::Counter(handle)] => emit(load, |_| handle.try_add(1.0)),
            [Handle::Gauge(handle)] => emit(load, |n| handle.try_set(value(n))),
            [Handle::Histogram(handle)] => emit(load, |n| handle.try_observe(value(n))),
            [Handle::Summary(handle)] => emit(load, |n| handle.try_observe(value(n))),
            many => emit(load, |n| many[(n % many.len() as u64) as usize].try_emit(n)),
        }
    };
    let report = Report::new(load.records, accepted, start.elapsed().as_secs_f64());
    serde_json::to_writer(&mut *out, &report)?;
    writeln!(out)?;
    Ok(())
}

enum Handle {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
    Summary(Summary),
}

impl Handle {
    #[inline]
    fn try_emit(&self, n: u64) -> Result<(), EmitError> {
        match self {
            Handle::Counter(handle) => handle.try_add(1.0),
            Handle::Gauge(handle) => handle.try_set(value(n)),
            Handle::Histogram(handle) => handle.try_observe(value(n)),
            Handle::Summary(handle) => handle.try_observe(value(n)),
        }
    }
}

impl Handle {
    /// The same as a record, for a producer that waits.
    fn record(&self, n: u64) -> Record {
        let (clock, series, kind, value) = match self {
            Handle::Counter(handle) => (Clock::Coarse, handle.series(), Kind::Increment, 1.0),
            Handle::Gauge(handle) => (Clock::Precise, handle.series(), Kind::Set, value(n)),
            Handle::Histogram(handle) => (Clock::Precise, handle.series(), Kind::Observe, value(n)),
            Handle::Summary(handle) => (Clock::Precise, handle.series(), Kind::Observe, value(n)),
        };
        Record::new(clock.now_ns(), series, kind, value)
    }
}

/// What record `n` observes: 0.000 to 0.999, each as often, so that sums can be checked.
#[inline]
fn value(n: u64) -> f64 {
    (n % 1000) as f64 / 1000.0
}

fn register(
    bus: &Bus,
    kind: MetricType,
    worker: u32,
    series: u64,
) -> Result<Handle, RegisterError> {
    let labels = [
        ("worker", worker.to_string()),
        ("series", series.to_string()),
    ];
    let help = "Made by `qbus load`.";
    Ok(match kind {
        MetricType::Counter => Handle::Counter(
            bus.counter("qbus_load_records_total")
                .help(help)
                .labels(labels)
                .register()?,
        ),
        // Nobody has a handle of the untyped.
        MetricType::Gauge | MetricType::Untyped => Handle::Gauge(
            bus.gauge("qbus_load_level")
                .help(help)
                .labels(labels)
                .register()?,
        ),
        MetricType::Histogram => Handle::Histogram(
            bus.histogram("qbus_load_seconds")
                .help(help)
                .labels(labels)
                .register()?,
        ),
        MetricType::Summary => Handle::Summary(
            bus.summary("qbus_load_summary_seconds")
                .help(help)
                .labels(labels)
                .register()?,
        ),
    })
}

/// Emits as told; how many records were accepted.
#[inline]
fn emit(load: &Load, one: impl Fn(u64) -> Result<(), EmitError>) -> u64 {
    match load.rate {
        None => (0..load.records).filter(|&n| one(n).is_ok()).count() as u64,
        Some(rate) => emit_at_rate(load, rate, one),
    }
}

fn emit_at_rate(load: &Load, rate: f64, one: impl Fn(u64) -> Result<(), EmitError>) -> u64 {
    let (start, mut done, mut accepted) = (Instant::now(), 0, 0);
    while done < load.records {
        let due = ((start.elapsed().as_secs_f64() * rate) as u64).min(load.records);
        for n in done..due {
            accepted += u64::from(one(n).is_ok());
        }
        done = done.max(due);
        if done < load.records {
            let next = Duration::from_secs_f64((done + 1) as f64 / rate);
            thread::sleep(
                next.saturating_sub(start.elapsed())
                    .max(Duration::from_micros(100)),
            );
        }
    }
    accepted
}
