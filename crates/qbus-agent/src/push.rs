//! Snapshots sent on: remote write (Prometheus, Mimir, VictoriaMetrics, …) and OTLP.
//!
//! One thread reads the snapshot every so often, encodes it for each destination, and puts the
//! requests into that destination's queue. A thread a destination sends what its queue has, in
//! order, until the receiver has taken it. Neither has anything to do with draining the bus: a
//! receiver that is slow or away costs room in its queue, which is bounded, and nothing else.

mod batch;
mod client;
mod destination;
mod ended;
mod metrics;
mod queue;
mod reply;
mod retry;
mod said;
mod sender;
mod ticks;

use std::fmt;
use std::io;
use std::mem;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use qbus::Bus;

pub use destination::{Destination, DestinationError, Protocol};

use batch::Batches;
use client::Client;
use queue::{Limits, Queue};
use sender::Sending;
use ticks::Ticks;

use crate::Log;

/// What is sent on, where to, and how much of it may wait.
#[derive(Clone, Debug)]
pub struct PushOptions {
    /// Who receives it.
    pub destinations: Vec<Destination>,
    /// Between two readings of the snapshot.
    pub interval: Duration,
    /// Labels of all series of remote write, and attributes of OTLP's resource: what tells this bus
    /// from others.
    pub labels: Vec<(String, String)>,
    /// Bytes that may wait for each destination; beyond that the oldest are dropped.
    pub queue_bytes: u64,
    /// Where they wait; in memory, if `None`. What waits there is sent after a restart.
    pub queue_folder: Option<PathBuf>,
    /// Also emit to the bus what became of the requests.
    pub self_metrics: bool,
    /// How long [`Pusher::stop`] waits for receivers to take what is left.
    pub grace: Duration,
}

impl Default for PushOptions {
    /// Every ten seconds to nobody, with 64 MiB of memory for each queue.
    fn default() -> PushOptions {
        PushOptions {
            destinations: Vec::new(),
            interval: Duration::from_secs(10),
            labels: Vec::new(),
            queue_bytes: 64 << 20,
            queue_folder: None,
            self_metrics: true,
            grace: Duration::from_secs(5),
        }
    }
}

/// Why nothing is sent on.
#[derive(Debug)]
#[non_exhaustive]
pub enum PushError {
    /// The destination is not as it should be.
    Destination(DestinationError),
    /// The folder of a queue cannot be used.
    Queue {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The system starts no thread for it.
    Thread(io::Error),
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PushError::Destination(error) => error.fmt(f),
            PushError::Queue { folder, source } => {
                write!(
                    f,
                    "the queue in {} cannot be used: {source}",
                    folder.display()
                )
            }
            PushError::Thread(error) => write!(f, "could not start sending: {error}"),
        }
    }
}

impl std::error::Error for PushError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            PushError::Destination(error) => Some(error),
            PushError::Queue { source, .. } => Some(source),
            PushError::Thread(error) => Some(error),
        }
    }
}

/// What [`Pusher::stop`] leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Requests that no receiver has taken. On disk they wait for the next start.
    pub unsent: u64,
    /// Samples that a receiver refused, or for which there was no room.
    pub lost: u64,
}

/// Sends the snapshot of a bus on, on threads of its own, until it is stopped. In a forked child
/// it does nothing.
///
/// # Examples
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let bus = qbus::Bus::open(&"inference".parse()?)?;
/// use qbus_agent::push::{Destination, Protocol, PushOptions, Pusher};
///
/// let mimir = Destination::parse("http://mimir:9009/api/v1/push", Protocol::RemoteWrite)?;
/// let options = PushOptions {
///     destinations: vec![mimir],
///     labels: vec![("instance".to_owned(), "gpu-7".to_owned())],
///     ..PushOptions::default()
/// };
/// let say = |news| eprintln!("{news}");
/// let pusher = Pusher::start(&bus, bus.address().snapshot(), options, say)?;
/// // …
/// pusher.stop();
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Pusher {
    /// With it, reading ends; `None` once it was told to.
    stop: Option<Sender<()>>,
    ticks: Option<JoinHandle<()>>,
    routes: Vec<Route>,
    grace: Duration,
    bus: Bus,
    /// The process that has the threads.
    pid: u32,
}

/// A destination at work.
#[derive(Debug)]
struct Route {
    queue: Arc<Queue>,
    thread: JoinHandle<()>,
}

impl Pusher {
    /// Sends the snapshot at that path. `report` hears of what a person should know.
    ///
    /// # Errors
    ///
    /// A file that a destination names cannot be read, a queue's folder cannot be used, or there is
    /// no thread.
    pub fn start(
        bus: &Bus,
        snapshot: PathBuf,
        options: PushOptions,
        report: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Pusher, PushError> {
        let report: Log = Arc::new(report);
        let mut batches = Vec::new();
        let mut sendings = Vec::new();
        let shown = shown(&options.destinations);
        for (destination, shown) in options.destinations.iter().zip(shown) {
            let client = Client::new(destination).map_err(PushError::Destination)?;
            let queue = Arc::new(queue_of(bus, destination, &options)?);
            let encoding = Batches::new(destination, &options.labels);
            batches.push((shown.clone(), encoding, queue.clone()));
            let sending = Sending::new(client, queue.clone(), shown, report.clone());
            sendings.push((queue, sending));
        }
        let ticks = Ticks::new(bus, snapshot, &options, batches, report);
        // Where one of its threads does not start, the others end with it.
        let mut pusher = Pusher {
            stop: None,
            ticks: None,
            routes: Vec::new(),
            grace: options.grace.min(GRACE_MAX),
            bus: bus.clone(),
            pid: process::id(),
        };
        for (queue, sending) in sendings {
            let thread = spawn("qbus-push-send", move || sending.run())?;
            pusher.routes.push(Route { queue, thread });
        }
        let (stop, stopped) = mpsc::channel();
        pusher.stop = Some(stop);
        pusher.ticks = Some(spawn("qbus-push", move || ticks.run(&stopped))?);
        Ok(pusher)
    }

    /// Sends the snapshot once more, waits for receivers to take what is left, at most the grace,
    /// and ends. (Dropping does the same.)
    pub fn stop(mut self) -> Left {
        self.end()
    }

    fn end(&mut self) -> Left {
        if self.pid != process::id() {
            // In a forked child there is only memory of the threads, in whatever state it was.
            mem::forget((
                self.stop.take(),
                self.ticks.take(),
                mem::take(&mut self.routes),
            ));
            return Left::default();
        }
        if self.ticks.is_some() && self.bus.aggregator().is_some_and(|one| one.alive) {
            // What was emitted before is part of what is sent last.
            let _ = self.bus.flush(self.grace.min(FLUSH));
        }
        self.stop = None;
        // It only reads and encodes.
        let ticks = self.ticks.take();
        let _ = ticks.map(JoinHandle::join);
        let deadline = Instant::now() + self.grace;
        for route in &self.routes {
            route.queue.close(deadline);
        }
        let mut left = Left::default();
        for Route { queue, thread } in self.routes.drain(..) {
            // One that waits for a receiver's answer ends with the process.
            if queue.await_end(deadline + END) {
                let _ = thread.join();
            }
            let counts = queue.counts();
            left.unsent += counts.waiting;
            left.lost += counts.failed + counts.rejected + counts.dropped;
        }
        left
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.end();
    }
}

/// The end waits for receivers no longer than this.
const GRACE_MAX: Duration = Duration::from_secs(86_400);
/// The last commit is waited for so long.
const FLUSH: Duration = Duration::from_secs(1);
/// A thread that was asked to end has this long to do so.
const END: Duration = Duration::from_millis(500);

/// What destinations are called in logs and labels: each otherwise, also where what tells them
/// apart is not to be shown.
fn shown(destinations: &[Destination]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for destination in destinations {
        let own = destination.shown();
        let earlier = destinations.iter().take(all.len());
        let number = earlier.filter(|earlier| earlier.shown() == own).count() + 1;
        all.push(match number {
            1 => own.to_owned(),
            number => format!("{own} ({number})"),
        });
    }
    all
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, PushError> {
    let named = thread::Builder::new().name(name.to_owned());
    named.spawn(run).map_err(PushError::Thread)
}

fn queue_of(
    bus: &Bus,
    destination: &Destination,
    options: &PushOptions,
) -> Result<Queue, PushError> {
    let limits = Limits {
        bytes: options.queue_bytes,
    };
    let Some(folder) = &options.queue_folder else {
        return Ok(Queue::in_memory(limits));
    };
    // A folder for each: buses and destinations may share the one above.
    let folder = folder.join(destination.folder(bus.address()));
    Queue::on_disk(&folder, limits).map_err(|source| PushError::Queue { folder, source })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::Mutex;

    use qbus_tests::{Place, TestBus};

    use super::*;

    #[test]
    fn no_duration_is_too_long() {
        let bus = TestBus::small(Place::Named);
        let opened = bus.open();
        let receiver = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", receiver.local_addr().expect("a port"));
        let destination = Destination::parse(&url, Protocol::Otlp).expect("a destination");
        let options = PushOptions {
            destinations: vec![Destination {
                timeout: Duration::MAX,
                ..destination
            }],
            interval: Duration::MAX,
            grace: Duration::MAX,
            ..PushOptions::default()
        };
        let news = Arc::new(Mutex::new(Vec::new()));
        let heard = news.clone();
        let report = move |said| heard.lock().expect("no panic").push(said);
        let pusher = Pusher::start(&opened, bus.address().snapshot(), options, report);
        // There is no snapshot, so that nothing waits.
        assert_eq!(pusher.expect("threads").stop(), Left::default());
        let news = news.lock().expect("no panic");
        assert!(
            news.len() == 1 && news[0].contains("no snapshot"),
            "{news:?}"
        );
    }

    #[test]
    fn destinations_are_told_apart_without_what_they_hide() {
        let urls = [
            "http://a/w?key=1",
            "http://b/w",
            "http://a/w?key=2",
            "http://a/w?key=3",
        ];
        let parse = |url| Destination::parse(url, Protocol::RemoteWrite).expect("a destination");
        let found = shown(&urls.map(parse));
        assert_eq!(
            found,
            [
                "http://a/w",
                "http://b/w",
                "http://a/w (2)",
                "http://a/w (3)"
            ]
        );
    }
}
