//! Where something is measured or shown: a bus of its own, an aggregator beside it, processes of
//! this program, and the machine that all are on. For `qbus bench`, `qbus load` and `qbus demo`,
//! and for the benchmarks.

use std::fmt;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use qbus::{Address, Bus, BusOptions, CreateError, Removal};
use qbus_aggregate::{AggregateError, Aggregator, AggregatorOptions};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::error::{Doing, Error};

/// A bus that nobody else uses. It goes with the stage, also on an error; when the process is
/// killed, its file is all that stays.
#[derive(Debug)]
pub struct Stage {
    bus: Bus,
    aggregator: Option<Aggregating>,
}

/// An aggregator on a thread of this process.
#[derive(Debug)]
struct Aggregating {
    stop: Arc<AtomicBool>,
    /// Gives the processor time that it took.
    thread: JoinHandle<Duration>,
}

impl Stage {
    /// Makes the bus.
    ///
    /// # Errors
    ///
    /// As [`Bus::create`].
    pub fn create(address: &Address, options: &BusOptions) -> Result<Stage, CreateError> {
        Ok(Stage {
            bus: Bus::create(address, options)?,
            aggregator: None,
        })
    }

    /// The bus.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Starts an aggregator, after the one before.
    ///
    /// # Errors
    ///
    /// As [`Aggregator::open`].
    pub fn aggregate(&mut self, spin: bool) -> Result<(), AggregateError> {
        self.end_aggregator();
        let mut aggregator = Aggregator::open(&self.bus, &AggregatorOptions::default())?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let start = thread_time();
            // What finds no room in the snapshot is in the ledger.
            aggregator.run(spin, &|| stopped.load(Ordering::Relaxed), &mut |_| {});
            thread_time() - start
        });
        self.aggregator = Some(Aggregating { stop, thread });
        Ok(())
    }

    /// Ends the aggregator; the processor time that it took.
    pub fn end_aggregator(&mut self) -> Duration {
        let Some(Aggregating { stop, thread }) = self.aggregator.take() else {
            return Duration::ZERO;
        };
        stop.store(true, Ordering::Relaxed);
        // A panic was its end already.
        thread.join().unwrap_or_default()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.end_aggregator();
        let _ = Bus::remove(self.bus.address(), Removal::Forced);
    }
}

/// A process of this program on a bus. It ends with this value.
#[derive(Debug)]
pub(crate) struct Player(Child);

impl Player {
    /// Starts `qbus` with what a person would type behind that, and the bus.
    pub(crate) fn start(
        typed: &str,
        address: &Address,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Player, Error> {
        let mut command = Command::new(crate::program()?);
        command.args(typed.split_whitespace());
        command.args(["--bus", &address.to_string()]);
        prepare(&mut command);
        Ok(Player(
            command.spawn().doing(format!("start `qbus {typed}`"))?,
        ))
    }

    /// The process, to be talked to and waited for.
    pub(crate) fn process(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Processor time of the calling thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What figures were measured on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
            cores: thread::available_parallelism().map_or(1, usize::from),
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
