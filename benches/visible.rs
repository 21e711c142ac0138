//! How long after an emit a reader sees it, and what an idle aggregator costs.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use qbus::Clock;
use qbus_aggregate::Reader;
use qbus_benches::{is_measured, print_machine, quantile, start};

fn main() {
    let emits = if is_measured() { 2000 } else { 20 };
    print_machine("emit to visible in a committed snapshot, in µs");
    println!("{:<38} {:>8} {:>8} {:>8}", "", "median", "p99", "max");
    visible("default nap, emits 0 to 20 ms apart", false, emits);
    visible("--spin, emits 0 to 20 ms apart", true, emits);
    idle(if is_measured() { 5.0 } else { 0.1 });
}

/// Time from before an emit until the lane's committed head has passed it.
fn visible(name: &str, spin: bool, emits: u64) {
    let mut bench = start("visible", spin);
    let gauge = bench
        .bus()
        .gauge("bench_level")
        .clock(Clock::Coarse)
        .register()
        .expect("a new bus");
    let reader = Reader::open(&bench.bus().address().snapshot()).expect("an aggregator runs");
    let mut measured = Vec::new();
    for n in 0..emits {
        // Apart by different times, so that naps are met at every point.
        std::thread::sleep(Duration::from_micros(n * 7919 % 20_000));
        let before = reader.globals().records;
        let start = Instant::now();
        gauge.set(n as f64);
        while reader.globals().records == before {
            std::hint::spin_loop();
        }
        measured.push(start.elapsed().as_nanos() as f64 / 1000.0);
    }
    let [median, p99, max] = [0.5, 0.99, 1.0].map(|q| quantile(&mut measured, q));
    println!("{name:<38} {median:>8.1} {p99:>8.1} {max:>8.1}");
    bench.end_aggregator();
}

fn idle(seconds: f64) {
    let mut bench = start("idle", false);
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let used = bench.end_aggregator();
    println!(
        "\nidle aggregator: {:.2} % of a core",
        used.as_secs_f64() / seconds * 100.0
    );
}
