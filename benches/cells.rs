//! What counters in cells cost where they are hot: how producers scale, and what a scan takes.
#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Bus, Counter};
use qbus_aggregate::{Reader, Value};
use qbus_benches::{is_measured, print_machine, quantile, start};

/// Says to this program that it is a worker: how long it counts, in milliseconds.
const WORKER_MS: &str = "QBUS_BENCH_WORKER_MS";
/// Workers emit and sleep for so long: every scan finds every cell changed.
const TICK: Duration = Duration::from_millis(1);
/// Nobody else's count shows sooner than it is looked for.
const LOOK: Duration = Duration::from_micros(20);

fn main() {
    let time = Duration::from_millis(if is_measured() { 3000 } else { 50 });
    if let Ok(ms) = std::env::var(WORKER_MS) {
        return count_until_told(Duration::from_millis(ms.parse().expect("milliseconds")));
    }
    print_machine("counters in cells");
    scaling(time / 10);
    println!("\n{:<44} {:>8}", "the aggregator", "% core");
    two_processes(time);
    for (lanes, counters, are_shared) in [(60, 100, true), (60, 100, false), (60, 1, false)] {
        hot_lanes(time, lanes, counters, are_shared);
    }
    visible(time);
}

/// Threads that count as fast as they can, each to cells of its own.
fn scaling(time: Duration) {
    let stage = start("cells", false);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let alone = per_thread(stage.bus(), 1, time);
    println!(
        "\n{:<44} {:>8} {:>8}",
        "counting threads", "M/s each", "to one"
    );
    for threads in (1..=cores.min(8)).filter(|n| n.is_power_of_two()) {
        // The largest of a few: a neighbour on this machine takes from both.
        let rates = (0..5).map(|_| per_thread(stage.bus(), threads, time));
        let rate = rates.fold(0.0, f64::max);
        println!("{threads:<44} {rate:>8.1} {:>8.2}", rate / alone);
    }
}

/// Increments of each thread, in millions a second.
fn per_thread(bus: &Bus, threads: usize, time: Duration) -> f64 {
    let counters: Vec<_> = (0..threads).map(|n| counter(bus, n, 0)).collect();
    let begin = Barrier::new(threads);
    let rates = thread::scope(|scope| {
        let counting = counters.iter().map(|counter| {
            scope.spawn(|| {
                counter.inc();
                begin.wait();
                rate(counter, time)
            })
        });
        let counting: Vec<_> = counting.collect();
        let rates = counting.into_iter().map(|thread| thread.join());
        rates.map(|rate| rate.expect("no panic")).sum::<f64>()
    });
    rates / threads as f64
}

fn rate(counter: &Counter, time: Duration) -> f64 {
    let (begin, mut counted) = (Instant::now(), 0_u64);
    while begin.elapsed() < time {
        for _ in 0..10_000 {
            black_box(counter).inc();
        }
        counted += 10_000;
    }
    counted as f64 / begin.elapsed().as_secs_f64() / 1e6
}

fn counter(bus: &Bus, worker: usize, index: usize) -> Counter {
    let registration = bus
        .counter("bench_total")
        .label("index", &index.to_string());
    let registration = registration.label("worker", &worker.to_string());
    registration.register().expect("room")
}

/// Two processes that count as fast as they can, and what of it is on the page afterwards.
fn two_processes(time: Duration) {
    let mut stage = start("cells", false);
    let address = stage.bus().address().to_string();
    let worker = || {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.env(WORKER_MS, time.as_millis().to_string());
        command.env("QBUS", &address).stdout(Stdio::piped());
        command.spawn().expect("this program runs")
    };
    let (begin, workers) = (Instant::now(), [worker(), worker()]);
    let counted: u64 = workers
        .into_iter()
        .map(|worker| worker.wait_with_output().expect("it ends").stdout)
        .map(|said| {
            String::from_utf8_lossy(&said)
                .trim()
                .parse::<u64>()
                .expect("a count")
        })
        .sum();
    let took = begin.elapsed();
    let core = stage.end_aggregator().as_secs_f64() / took.as_secs_f64() * 100.0;
    let mut reader = Reader::open(&stage.bus().address().snapshot()).expect("a snapshot");
    let shown = reader.series(counter(stage.bus(), 0, 0).series(), false);
    let shown = shown.map(|series| series.value);
    let verdict = if shown == Some(Value::Counter((counted as f64).into())) {
        "all of them shown"
    } else {
        "NOT all of them shown"
    };
    println!(
        "{:<44} {core:>8.2}  {counted} increments, {verdict}",
        "2 processes count as fast as they can"
    );
}

fn count_until_told(time: Duration) {
    let address = std::env::var("QBUS").expect("the bench gives a name");
    let bus = Bus::open(&address.parse().expect("a name")).expect("the bench made it");
    let counter = counter(&bus, 0, 0);
    let (begin, mut counted) = (Instant::now(), 0_u64);
    while begin.elapsed() < time {
        for _ in 0..10_000 {
            black_box(&counter).inc();
        }
        counted += 10_000;
    }
    println!("{counted}");
}

/// Threads that each count on many counters between two scans.
fn hot_lanes(time: Duration, lanes: usize, counters: usize, are_shared: bool) {
    let mut stage = start("cells", false);
    let bus = stage.bus().clone();
    let is_over = AtomicBool::new(false);
    let begin = Instant::now();
    thread::scope(|scope| {
        for lane in 0..lanes {
            let (bus, is_over) = (&bus, &is_over);
            scope.spawn(move || {
                let worker = if are_shared { 0 } else { lane };
                let counters: Vec<_> = (0..counters).map(|n| counter(bus, worker, n)).collect();
                while !is_over.load(Ordering::Relaxed) {
                    counters.iter().for_each(Counter::inc);
                    thread::sleep(TICK);
                }
            });
        }
        thread::sleep(time);
        is_over.store(true, Ordering::Relaxed);
    });
    let took = begin.elapsed();
    let core = stage.end_aggregator().as_secs_f64() / took.as_secs_f64() * 100.0;
    let whose = if are_shared {
        "the same series"
    } else {
        "series of its own"
    };
    println!(
        "{:<44} {core:>8.2}",
        format!("{lanes} lanes × {counters} hot cells, {whose}")
    );
}

/// How soon an increment shows.
fn visible(time: Duration) {
    let stage = start("cells", false);
    let counter = counter(stage.bus(), 0, 0);
    let mut reader = Reader::open(&stage.bus().address().snapshot()).expect("an aggregator runs");
    let (begin, mut seen) = (Instant::now(), Vec::new());
    for n in 1_u64.. {
        if begin.elapsed() >= time {
            break;
        }
        // Apart by different times, so that naps are met at every point.
        thread::sleep(Duration::from_micros(1000 + n * 7919 % 5000));
        let emitted = Instant::now();
        counter.inc();
        let shows = Some(Value::Counter((n as f64).into()));
        while reader
            .series(counter.series(), false)
            .map(|series| series.value)
            != shows
        {
            thread::sleep(LOOK);
        }
        seen.push(emitted.elapsed().as_nanos() as f64 / 1000.0);
    }
    let [median, p99] = [0.5, 0.99].map(|q| quantile(&mut seen, q));
    println!("\nan increment shows after {median:.0} µs (median), {p99:.0} µs (p99)");
}
