//! What the benchmarks share: a bus of their own, an aggregator beside them, and how results are
//! printed.
#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use qbus::{Address, Bus, Config, Removal};
use qbus_aggregate::Aggregator;
use rustix::time::{ClockId, clock_gettime};

/// Whether this is a measurement (`cargo bench`), and not a test that it runs (`cargo test --benches`).
pub fn is_measured() -> bool {
    std::env::args().any(|arg| arg == "--bench")
}

/// Says what the figures were measured on.
pub fn print_machine(title: &str) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let clock = std::fs::read_to_string(clock).unwrap_or_default();
    println!("{title}");
    println!(
        "machine: {} ({cores} cores), clock source {}",
        model.trim_start_matches([' ', '\t', ':']).trim(),
        clock.trim()
    );
}

/// The value at quantile `q` of measurements, which are sorted by this.
///
/// # Panics
///
/// When there is no measurement.
pub fn quantile(measured: &mut [f64], q: f64) -> f64 {
    measured.sort_by(f64::total_cmp);
    let rank = (q * measured.len() as f64).ceil() as usize;
    measured[rank.clamp(1, measured.len()) - 1]
}

/// A bus with an aggregator thread; both go when it is dropped.
#[derive(Debug)]
pub struct Bench {
    /// The bus.
    pub bus: Bus,
    address: Address,
    stop: Arc<AtomicBool>,
    aggregator: Option<JoinHandle<Duration>>,
}

impl Bench {
    /// Makes a bus that nobody else uses, and aggregates it.
    ///
    /// # Panics
    ///
    /// When there is no room for it.
    pub fn start(name: &str, spin: bool) -> Bench {
        let address: Address = format!("bench-{name}-{}", std::process::id())
            .parse()
            .expect("a name");
        let bus = Bus::create(&address, &Config::default()).expect("room in /dev/shm");
        let config = qbus_aggregate::Config::default();
        let mut aggregator = Aggregator::open(&bus, &config).expect("the only aggregator");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let aggregator = std::thread::spawn(move || {
            let start = thread_time();
            aggregator.run(spin, &|| stopped.load(Ordering::Relaxed), &mut |error| {
                panic!("{error}")
            });
            thread_time() - start
        });
        Bench {
            bus,
            address,
            stop,
            aggregator: Some(aggregator),
        }
    }

    /// Ends the aggregator; the processor time that it used.
    ///
    /// # Panics
    ///
    /// When the aggregator did.
    pub fn stop(mut self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.aggregator
            .take()
            .expect("not stopped yet")
            .join()
            .expect("the aggregator did not panic")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(aggregator) = self.aggregator.take() {
            let _ = aggregator.join();
        }
        let _ = Bus::remove(&self.address, Removal::Forced);
    }
}

/// Processor time of the calling thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
