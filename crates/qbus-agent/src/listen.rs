//! Metrics from StatsD and DogStatsD clients, by datagrams of UDP or of a Unix socket.
//!
//! A thread a socket reads datagrams, finds the series of each line, and emits to the bus as any
//! other process does. Nothing that comes can stop it: what makes no sense is counted by cause.

mod address;
mod line;
mod mapping;
mod names;
mod socket;
mod translate;

use std::fmt;
use std::io;
use std::mem;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use qbus::Bus;

pub use address::{AddressError, StatsdAddress};
pub use mapping::MappingError;

use crate::by_name::{Emitter, Metric};
use mapping::Mapping;
use socket::Socket;
use translate::Translator;

/// Where to listen, and what becomes of what comes.
#[derive(Clone, Debug, Default)]
pub struct ListenOptions {
    /// Sockets of StatsD.
    pub statsd: Vec<StatsdAddress>,
    /// A file in the format of Prometheus' statsd_exporter.
    pub mapping: Option<PathBuf>,
    /// A gauge's value with a sign is a change, as StatsD has it; DogStatsD's clients send negative
    /// values so.
    pub gauge_deltas: bool,
}

/// Why nothing is listened to.
#[derive(Debug)]
#[non_exhaustive]
pub enum ListenError {
    /// The socket cannot be opened.
    Socket {
        /// Where.
        address: StatsdAddress,
        /// Why not.
        source: io::Error,
    },
    /// The mapping file is not as it should be.
    Mapping(MappingError),
    /// The system starts no thread for it.
    Thread(io::Error),
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenError::Socket { address, source } => {
                write!(f, "could not listen for StatsD at {address}: {source}")
            }
            ListenError::Mapping(error) => error.fmt(f),
            ListenError::Thread(error) => write!(f, "could not start listening: {error}"),
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ListenError::Socket { source, .. } => Some(source),
            ListenError::Mapping(error) => Some(error),
            ListenError::Thread(error) => Some(error),
        }
    }
}

/// Listens on threads of its own, until it is dropped. In a forked child it does nothing.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let address = format!("doc-listen-{}", std::process::id()).parse()?;
/// # let bus = qbus::Bus::create(&address, &qbus::BusOptions::default())?;
/// use qbus_agent::listen::{ListenOptions, Listeners};
///
/// let options = ListenOptions {
///     statsd: vec!["127.0.0.1:0".parse()?],
///     ..ListenOptions::default()
/// };
/// let listeners = Listeners::start(&bus, &options)?;
/// println!("StatsD at {}", listeners.addresses()[0]);
/// # qbus::Bus::remove(&address, qbus::Removal::Forced)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Listeners {
    addresses: Vec<String>,
    threads: Vec<(Sender<()>, JoinHandle<()>)>,
    /// The process that has the threads.
    pid: u32,
}

impl Listeners {
    /// Listens at all addresses.
    ///
    /// # Errors
    ///
    /// An address is taken, or the mapping file is not as it should be.
    pub fn start(bus: &Bus, options: &ListenOptions) -> Result<Listeners, ListenError> {
        let mapping = match &options.mapping {
            Some(path) => Mapping::read(path).map_err(ListenError::Mapping)?,
            None => Mapping::default(),
        };
        let mapping = Arc::new(mapping);
        let mut listeners = Listeners {
            addresses: Vec::new(),
            threads: Vec::new(),
            pid: process::id(),
        };
        for address in &options.statsd {
            let socket = Socket::bind(address).map_err(|source| ListenError::Socket {
                address: address.clone(),
                source,
            })?;
            let shown = socket.shown();
            let listening = Listening {
                socket,
                shown: shown.clone(),
                emitter: Emitter::new(bus),
                translator: Translator::new(bus, mapping.clone(), options.gauge_deltas),
                emitted: Counts::default(),
            };
            let (stop, stopped) = mpsc::channel();
            let named = thread::Builder::new().name("qbus-statsd".to_owned());
            let thread = named.spawn(move || listening.run(&stopped));
            listeners.addresses.push(shown);
            listeners
                .threads
                .push((stop, thread.map_err(ListenError::Thread)?));
        }
        Ok(listeners)
    }

    /// Where it listens: with the ports that were given.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        if self.pid != process::id() {
            // Of the parent's threads there is only memory here, in whatever state it was.
            return mem::forget(mem::take(&mut self.threads));
        }
        for (stop, thread) in self.threads.drain(..) {
            drop(stop);
            // What it panicked of is on the standard error already.
            let _ = thread.join();
        }
    }
}

/// How often it looks whether it is to end, and says how it fares.
const TICK: Duration = Duration::from_millis(200);
const SAY_EVERY: Duration = Duration::from_secs(1);
/// How long it goes on where datagrams keep coming.
const END: Duration = Duration::from_secs(1);
/// As often as StatsD sums up, sets say how many values they had.
const SETS_EVERY: Duration = Duration::from_secs(10);

/// What came so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    datagrams: u64,
    /// Values that were emitted.
    values: u64,
    events: u64,
    service_checks: u64,
    /// Lines by what is wrong with them.
    bad: [u64; line::Cause::ALL.len()],
    /// Datagrams that the kernel had no room for.
    kernel_drops: u64,
}

struct Listening {
    socket: Socket,
    shown: String,
    emitter: Emitter,
    translator: Translator,
    emitted: Counts,
}

impl Listening {
    fn run(mut self, stopped: &Receiver<()>) {
        // As large as a datagram can be.
        let mut buffer = vec![0; 1 << 16];
        let (mut said, mut summed) = (Instant::now(), Instant::now());
        let mut looked = Instant::now();
        // Once it is to end: what the kernel has taken by then is read, for a while.
        let mut end: Option<Instant> = None;
        loop {
            let received = self.socket.receive(&mut buffer);
            let is_quiet = received.is_none();
            if let Some(len) = received {
                self.translator.counts.datagrams += 1;
                self.translator.datagram(&buffer[..len]);
            }
            if !is_quiet && !self.translator.counts.datagrams.is_multiple_of(64) {
                // The clock is not read for each.
                continue;
            }
            let now = Instant::now();
            if now - summed >= SETS_EVERY {
                summed = now;
                self.translator.sum_up_sets();
            }
            if now - said >= SAY_EVERY {
                said = now;
                self.say();
            }
            if is_quiet || now - looked >= TICK {
                looked = now;
                if stopped.try_recv() == Err(TryRecvError::Disconnected) {
                    end.get_or_insert(now + END);
                }
                if end.is_some_and(|end| is_quiet || now >= end) {
                    self.translator.sum_up_sets();
                    return self.say();
                }
            }
        }
    }

    /// Emits what came since the last time.
    fn say(&mut self) {
        self.translator.counts.kernel_drops = self.socket.kernel_drops();
        let counts = self.translator.counts;
        let before = std::mem::replace(&mut self.emitted, counts);
        let listener = ("listener", self.shown.as_str());
        let say = |name, help, labels: &[(&str, &str)], now: u64, before: u64| {
            let metric = Metric {
                labels,
                description: help,
                ..Metric::counter(name, now.saturating_sub(before) as f64)
            };
            // What is refused is in the ledger.
            let _ = self.emitter.emit(&metric);
        };
        for (name, help, now, before) in [
            (
                "qbus_statsd_datagrams_total",
                "Datagrams that came.",
                counts.datagrams,
                before.datagrams,
            ),
            (
                "qbus_statsd_values_total",
                "Values of StatsD that were emitted.",
                counts.values,
                before.values,
            ),
            (
                "qbus_statsd_kernel_drops_total",
                "Datagrams that the kernel had no room for.",
                counts.kernel_drops,
                before.kernel_drops,
            ),
        ] {
            say(name, help, &[listener], now, before);
        }
        for (kind, now, before) in [
            ("event", counts.events, before.events),
            (
                "service_check",
                counts.service_checks,
                before.service_checks,
            ),
        ] {
            let labels = [listener, ("kind", kind)];
            let help = "Lines that are no metrics, and have no place on a bus.";
            say(
                "qbus_statsd_skipped_lines_total",
                help,
                &labels,
                now,
                before,
            );
        }
        for (at, cause) in line::Cause::ALL.into_iter().enumerate() {
            let labels = [listener, ("cause", cause.as_str())];
            let help = "Lines that were left out, by what is wrong with them.";
            say(
                "qbus_statsd_bad_lines_total",
                help,
                &labels,
                counts.bad[at],
                before.bad[at],
            );
        }
    }
}
