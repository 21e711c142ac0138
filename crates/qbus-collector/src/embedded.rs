//! The embedded default: a private bus, and an aggregator on a thread of this process.
//!
//! Forked children and their threads emit to it as to any bus. It is removed with its collector; what a
//! killed process leaves is swept by the next one that starts.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use qbus::{Address, Bus, CreateError, Geometry, OpenOrCreateError, Removal};
use qbus_aggregate::{AggregateError, Aggregator};

use crate::collector::{CollectorOptions, lock};
use crate::error::{ResetError, StartError};
use crate::statistics::Counts;

/// How the names of private buses begin.
const PREFIX: &str = "embedded-";
/// A private bus that is younger than this is left alone: its process may not have joined yet.
const YOUNG: Duration = Duration::from_secs(60);
/// Between attempts to aggregate anew.
const RETRY: Duration = Duration::from_millis(100);

/// What only the process that made the bus has.
#[derive(Debug)]
pub(crate) struct Embedded {
    address: Address,
    stop: Arc<AtomicBool>,
    reset: Mutex<Sender<Reset>>,
    is_reset_wanted: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Asks the aggregator's thread to begin anew; it says whether it did.
type Reset = Sender<Result<(), AggregateError>>;

/// Whether a bus belongs to the process that made it.
pub(crate) fn is_private(address: &Address) -> bool {
    address.to_string().starts_with(PREFIX)
}

/// Opens another process's private bus.
pub(crate) fn open(address: &Address) -> Result<Bus, OpenOrCreateError> {
    Bus::open(address).map_err(OpenOrCreateError::Open)
}

impl Embedded {
    pub(crate) fn start(
        config: &CollectorOptions,
        counts: &Arc<Counts>,
    ) -> Result<(Bus, Embedded), StartError> {
        sweep();
        let bus = create().map_err(|error| StartError::Bus(OpenOrCreateError::Create(error)))?;
        let address = bus.address().clone();
        let config = qbus_aggregate::AggregatorOptions {
            snapshot: None,
            history: config.max_history_per_metric,
            recent: config.max_metrics_buffer,
            ..qbus_aggregate::AggregatorOptions::default()
        };
        let started = Aggregator::open(&bus, &config).map_err(StartError::Aggregate);
        let aggregator = started.inspect_err(|_| remove(&address))?;
        let stop = Arc::new(AtomicBool::new(false));
        let is_reset_wanted = Arc::new(AtomicBool::new(false));
        let (reset, resets) = mpsc::channel();
        let aggregation = Aggregation {
            bus: bus.clone(),
            config,
            stop: stop.clone(),
            is_reset_wanted: is_reset_wanted.clone(),
            resets,
            counts: counts.clone(),
        };
        let thread = thread::Builder::new()
            .name("qbus-aggregator".to_owned())
            .spawn(move || aggregation.run(aggregator))
            .map_err(StartError::Thread)
            .inspect_err(|_| remove(&address))?;
        let embedded = Embedded {
            address,
            stop,
            reset: Mutex::new(reset),
            is_reset_wanted,
            thread: Mutex::new(Some(thread)),
        };
        Ok((bus, embedded))
    }

    /// Has the aggregator drain what there is and begin with an empty snapshot.
    pub(crate) fn reset(&self, bus: &Bus) -> Result<(), ResetError> {
        let shared = || ResetError::Shared {
            bus: self.address.to_string(),
        };
        let (reply, done) = mpsc::channel();
        lock(&self.reset)
            .and_then(|reset| reset.send(reply).ok())
            .ok_or_else(shared)?;
        self.is_reset_wanted.store(true, Ordering::Release);
        bus.wake_aggregator();
        match done.recv() {
            Ok(result) => result.map_err(ResetError::Aggregate),
            Err(_) => Err(shared()),
        }
    }

    /// Ends the aggregator and removes the bus.
    pub(crate) fn stop(&self, bus: &Bus) {
        self.stop.store(true, Ordering::Release);
        bus.wake_aggregator();
        let thread = lock(&self.thread).and_then(|mut thread| thread.take());
        if let Some(thread) = thread {
            // A panic was its end already.
            let _ = thread.join();
            remove(&self.address);
        }
    }
}

/// What the aggregator's thread has.
struct Aggregation {
    bus: Bus,
    config: qbus_aggregate::AggregatorOptions,
    stop: Arc<AtomicBool>,
    is_reset_wanted: Arc<AtomicBool>,
    resets: Receiver<Reset>,
    counts: Arc<Counts>,
}

impl Aggregation {
    fn run(self, aggregator: Aggregator) {
        let is_stopped = || self.stop.load(Ordering::Acquire);
        let is_reset_wanted = || self.is_reset_wanted.load(Ordering::Acquire);
        let mut report = |error: CreateError| {
            self.counts
                .note(format!("the snapshot cannot grow: {error}"))
        };
        let mut aggregator = Some(aggregator);
        loop {
            match &mut aggregator {
                Some(aggregator) => {
                    aggregator.run(false, &|| is_stopped() || is_reset_wanted(), &mut report)
                }
                None => thread::sleep(RETRY),
            }
            if is_stopped() || !(is_reset_wanted() || aggregator.is_none()) {
                return;
            }
            // What was emitted before is drained; the next one begins where the lanes stand.
            drop(aggregator.take());
            self.is_reset_wanted.store(false, Ordering::Release);
            let reply = self.resets.try_recv().ok();
            let begun = self.begin_anew();
            let result = begun.map(|begun| aggregator = Some(begun));
            if let Some(reply) = reply {
                // Who asked may be gone.
                let _ = reply.send(result);
            }
        }
    }

    fn begin_anew(&self) -> Result<Aggregator, AggregateError> {
        // If it stays, the next aggregator goes on with it: nothing is lost.
        if let Err(error) = fs::remove_file(self.bus.address().snapshot())
            && error.kind() != io::ErrorKind::NotFound
        {
            self.counts
                .note(format!("could not remove the snapshot: {error}"));
        }
        Aggregator::open(&self.bus, &self.config)
    }
}

/// A new bus under a name that nobody has: smaller where there is little room.
fn create() -> Result<Bus, CreateError> {
    let small = Geometry {
        lanes: 16,
        shared_lanes: 2,
        slots: 1024,
        families: 512,
        series: 4096,
        arena_words: 1 << 17,
        owners: 256,
    };
    let mut created = create_sized(Geometry::default());
    if matches!(created, Err(CreateError::NoSpace { .. })) {
        created = create_sized(small);
    }
    created
}

fn create_sized(geometry: Geometry) -> Result<Bus, CreateError> {
    let config = qbus::BusOptions {
        geometry,
        ..qbus::BusOptions::default()
    };
    loop {
        let unique = RandomState::new().build_hasher().finish();
        let name = format!("{PREFIX}{}-{unique:016x}", std::process::id());
        let address = name.parse().expect("letters, digits and dashes");
        match Bus::create(&address, &config) {
            Err(CreateError::Exists { .. }) => {}
            created => return created,
        }
    }
}

/// Removes private buses that nobody is attached to.
fn sweep() {
    let example: Address = PREFIX.parse().expect("letters and a dash");
    let (Some(folder), Some(file)) = (example.file().parent(), example.file().file_name()) else {
        return;
    };
    let file_prefix = file.to_string_lossy();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(&*file_prefix) else {
            continue;
        };
        let age = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|modified| modified.elapsed().ok());
        if rest.contains('.') || age.is_none_or(|age| age < YOUNG) {
            continue;
        }
        if let Ok(address) = format!("{PREFIX}{rest}").parse() {
            // In use, another user's, or gone by now: not ours to remove.
            let _ = Bus::remove(&address, Removal::Unused);
        }
    }
}

fn remove(address: &Address) {
    // Somebody else may have removed it.
    let _ = Bus::remove(address, Removal::Forced);
}
