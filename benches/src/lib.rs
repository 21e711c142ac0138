//! What the benchmarks share: a bus of their own, an aggregator beside them, and how results are
//! printed.
#![allow(clippy::print_stdout)]

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use qbus::{Address, Bus, BusOptions, Removal};
use qbus_aggregate::Aggregator;
use rustix::time::{ClockId, clock_gettime};

/// Whether this is a measurement (`cargo bench`), and not a test that it runs (`cargo test --benches`).
pub fn is_measured() -> bool {
    std::env::args().any(|arg| arg == "--bench")
}

/// What figures were measured on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The processor's model.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// The kernel and its version.
    pub kernel: String,
    /// What the kernel's clocks read.
    pub clock_source: String,
}

impl Machine {
    /// The one that this runs on.
    pub fn this() -> Machine {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
        let system = rustix::system::uname();
        Machine {
            cpu: model
                .unwrap_or("unknown processor")
                .trim_start_matches([' ', '\t', ':'])
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: format!(
                "{} {}",
                system.sysname().to_string_lossy(),
                system.release().to_string_lossy()
            ),
            clock_source: read("/sys/devices/system/clocksource/clocksource0/current_clocksource")
                .trim()
                .to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} cores, {}, clock source {}",
            self.cpu, self.cores, self.kernel, self.clock_source
        )
    }
}

/// Says what is measured, and on what.
pub fn print_machine(title: &str) {
    println!("{title}\nmachine: {}", Machine::this());
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
    /// Makes a bus of the default geometry that nobody else uses, and aggregates it.
    ///
    /// # Panics
    ///
    /// When there is no room for it.
    pub fn start(name: &str, spin: bool) -> Bench {
        Bench::with_config(name, &BusOptions::default(), spin)
    }

    /// As [`start`](Self::start), with a bus as one likes.
    ///
    /// # Panics
    ///
    /// When there is no room for it.
    pub fn with_config(name: &str, config: &BusOptions, spin: bool) -> Bench {
        let address = unused(name);
        let bus = Bus::create(&address, config).expect("room in /dev/shm");
        let config = qbus_aggregate::AggregatorOptions::default();
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

/// A bus's name that nobody else uses: in the folder QBUS_BENCH_FOLDER if that is set, so that whoever
/// set it can clean up after a run that was killed.
///
/// # Panics
///
/// When that folder's name is none that a bus can have.
pub fn unused(name: &str) -> Address {
    let name = format!("bench-{name}-{}", std::process::id());
    let text = match std::env::var_os("QBUS_BENCH_FOLDER") {
        Some(folder) => Path::new(&folder).join(name).display().to_string(),
        None => name,
    };
    text.parse().expect("a name")
}

/// Processor time of the calling thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
