//! `qbus load`

use std::io::{self, BufRead, BufReader, Write};
use std::process::{ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use qbus::{
    Address, Bus, Clock, Counter, EmitError, Gauge, Histogram, Kind, MetricType, Record,
    RegisterError, Summary,
};
use serde::{Deserialize, Serialize};

use crate::args::Load;
use crate::command::{await_commit, end_with_parent, open};
use crate::error::{Doing, Error};
use crate::log::warn;
use crate::look::living_series;
use crate::stage::Player;

/// How long a worker waits for room in the registry.
const PATIENCE: Duration = Duration::from_secs(10);

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
    let bus = open(address)?;
    check_room(&bus, load)?;
    if load.wait && !bus.aggregator().is_some_and(|aggregator| aggregator.alive) {
        warn(format!(
            "nobody aggregates the bus {address}: what waits for a full lane waits until `qbus agg \
            -b {address}` is started"
        ));
    }
    let reports = reports(address, load)?;
    await_commit(&bus);
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
            "{name:<8} {attempted:>12} {accepted:>12} {dropped:>10} {seconds:>9.3} \
            {ns_per_record:>10.1}"
        )?;
    }
    Ok(())
}

/// Processes and series that have no room would be refused, and those of others with them.
fn check_room(bus: &Bus, load: &Load) -> Result<(), Error> {
    let Load {
        producers, series, ..
    } = *load;
    let geometry = bus.geometry();
    let owners = bus.owners().map_err(Error::failed)?;
    let living = owners.iter().filter(|owner| owner.alive).count() as u64;
    let processes = u64::from(producers);
    let all_series = processes.saturating_mul(series);
    let rooms = [
        (
            "processes",
            processes,
            geometry.owners,
            living,
            "--max-owners",
        ),
        (
            "series",
            all_series,
            geometry.series,
            living_series(bus),
            "--max-series",
        ),
    ];
    for (what, needed, places, taken, option) in rooms {
        let room = places.saturating_sub(taken);
        if needed > room {
            let (name, more) = (bus.address(), needed.next_power_of_two().max(64));
            return Err(Error::Failed(format!(
                "{producers} producers of {series} series need room for {needed} {what}, and the \
                bus {name} has {room} left; take fewer, or a bus that nobody else needs: qbus \
                create -b load {option} {more}"
            )));
        }
    }
    Ok(())
}

/// A worker process; ended when it is dropped before it has reported.
struct Worker {
    player: Player,
    output: BufReader<ChildStdout>,
}

impl Worker {
    fn start(address: &Address, load: &Load, worker: u32) -> Result<Worker, Error> {
        let Load {
            records, series, ..
        } = load;
        let kind = load.kind.as_str();
        let mut typed =
            format!("load --worker {worker} --records {records} --series {series} --kind {kind}");
        for (option, is_given) in [(" --wait", load.wait), (" --keep", load.keep)] {
            typed += if is_given { option } else { "" };
        }
        if let Some(rate) = load.rate {
            typed += &format!(" --rate={rate}");
        }
        let piped = |command: &mut Command| {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        };
        let mut player = Player::start(&typed, address, piped)?;
        let output = player.process().stdout.take();
        let output = output.ok_or_else(|| Error::Failed("a worker has no output".to_owned()))?;
        Ok(Worker {
            player,
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
        worker.player.process().stdin = None;
    }
    let mut reports = Vec::new();
    for worker in &mut workers {
        let line = worker.line()?;
        reports.push(serde_json::from_str::<Report>(&line)?);
        let _ = worker.player.process().wait();
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
    end_with_parent();
    let bus = open(address)?;
    bus.set_role("load");
    let handles = (0..load.series).map(|series| register_or_wait(&bus, load, worker, series));
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
            [AnyHandle::Counter(handle)] => emit(load, |_| handle.try_add(1.0)),
            [AnyHandle::Gauge(handle)] => emit(load, |n| handle.try_set(value(n))),
            [AnyHandle::Histogram(handle)] => emit(load, |n| handle.try_observe(value(n))),
            [AnyHandle::Summary(handle)] => emit(load, |n| handle.try_observe(value(n))),
            many => emit(load, |n| many[(n % many.len() as u64) as usize].try_emit(n)),
        }
    };
    let report = Report::new(load.records, accepted, start.elapsed().as_secs_f64());
    serde_json::to_writer(&mut *out, &report)?;
    writeln!(out)?;
    Ok(())
}

enum AnyHandle {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
    Summary(Summary),
}

impl AnyHandle {
    #[inline]
    fn try_emit(&self, n: u64) -> Result<(), EmitError> {
        match self {
            AnyHandle::Counter(handle) => handle.try_add(1.0),
            AnyHandle::Gauge(handle) => handle.try_set(value(n)),
            AnyHandle::Histogram(handle) => handle.try_observe(value(n)),
            AnyHandle::Summary(handle) => handle.try_observe(value(n)),
        }
    }
}

impl AnyHandle {
    /// The same as a record, for a producer that waits.
    fn record(&self, n: u64) -> Record {
        let (clock, series, kind, value) = match self {
            AnyHandle::Counter(handle) => (Clock::Coarse, handle.series(), Kind::Increment, 1.0),
            AnyHandle::Gauge(handle) => (Clock::Precise, handle.series(), Kind::Set, value(n)),
            AnyHandle::Histogram(handle) => {
                (Clock::Precise, handle.series(), Kind::Observe, value(n))
            }
            AnyHandle::Summary(handle) => {
                (Clock::Precise, handle.series(), Kind::Observe, value(n))
            }
        };
        Record::new(clock.now_ns(), series, kind, value)
    }
}

/// What record `n` observes: 0.000 to 0.999, each as often, so that sums can be checked.
#[inline]
fn value(n: u64) -> f64 {
    (n % 1000) as f64 / 1000.0
}

/// As [`register`]; what the registry has no room for may have some when the aggregator has freed
/// what is over.
fn register_or_wait(
    bus: &Bus,
    load: &Load,
    worker: u32,
    series: u64,
) -> Result<AnyHandle, RegisterError> {
    let start = Instant::now();
    loop {
        match register(bus, load, worker, series) {
            Err(RegisterError::Full { .. }) if start.elapsed() < PATIENCE => {
                thread::sleep(Duration::from_millis(5));
            }
            registered => return registered,
        }
    }
}

/// A series of this worker. It leaves the page with the worker, unless it is to be kept: a bus that
/// is measured should be the same afterwards.
fn register(bus: &Bus, load: &Load, worker: u32, series: u64) -> Result<AnyHandle, RegisterError> {
    let (worker, series) = (worker.to_string(), series.to_string());
    macro_rules! register {
        ($handle:ident, $builder:expr) => {{
            let registration = $builder
                .help("Made by `qbus load`.")
                .label("worker", &worker)
                .label("series", &series)
                // As many as are asked for.
                .max_series(0);
            let registration = if load.keep {
                registration
            } else {
                registration.bound()
            };
            AnyHandle::$handle(registration.register()?)
        }};
    }
    Ok(match load.kind {
        MetricType::Counter => register!(Counter, bus.counter("qbus_load_records_total")),
        // Nobody has a handle of the untyped.
        MetricType::Gauge | MetricType::Untyped => register!(Gauge, bus.gauge("qbus_load_level")),
        MetricType::Histogram => register!(Histogram, bus.histogram("qbus_load_seconds")),
        MetricType::Summary => register!(Summary, bus.summary("qbus_load_summary_seconds")),
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
            let pause = due_at(done + 1, rate).saturating_sub(start.elapsed());
            thread::sleep(pause.max(Duration::from_micros(100)));
        }
    }
    accepted
}

/// When a record is due. A rate may be so small that no time is long enough.
fn due_at(record: u64, rate: f64) -> Duration {
    Duration::try_from_secs_f64(record as f64 / rate).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rate_has_a_pause() {
        assert_eq!(due_at(3, 2.0), Duration::from_millis(1500));
        for (record, rate) in [(1, 1e-300), (u64::MAX, f64::MIN_POSITIVE), (u64::MAX, 0.5)] {
            assert_eq!(due_at(record, rate), Duration::MAX);
        }
        assert_eq!(due_at(1, f64::MAX), Duration::ZERO);
    }
}
