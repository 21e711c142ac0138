//! The threads of the aggregator process, and how they start, begin anew and stop.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use qbus::{Bus, CreateError, OVERFLOW, SeriesId};
use qbus_aggregate::{
    AggregateError, Aggregator, AggregatorOptions, Ledger, News, Reader, SnapshotError, Spare,
};

use crate::Log;
use crate::error::{ResetError, StartError};
use crate::sampling::{self, SamplingOptions};
use crate::self_metrics::overflowing;

/// Between attempts to aggregate anew.
const RETRY: Duration = Duration::from_millis(100);
/// A lack of room that lasts is reported this often.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// What an agent does.
#[derive(Clone, Debug, Default)]
pub struct AgentOptions {
    /// Where the snapshot lies and what it keeps.
    pub aggregator: AggregatorOptions,
    /// What is sampled from the start; `None` samples nothing until [`Agent::start_sampling`].
    pub sampling: Option<SamplingOptions>,
    /// Never nap: a core for the lowest latency.
    pub spin: bool,
    /// How many series a family may have that does not say so itself, from now on; 0 is any number,
    /// and `None` leaves it as it is: 2,000 as a rule.
    pub max_series_per_family: Option<u64>,
}

/// The aggregator of a bus, with its sampler, on threads of this process.
///
/// Dropping stops it. A forked child inherits the value but not the threads: there it does nothing.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let address = format!("doc-agent-{}", std::process::id()).parse()?;
/// # let bus = qbus::Bus::create(&address, &qbus::BusOptions::default())?;
/// use qbus_agent::{Agent, AgentOptions};
/// let agent = Agent::start(&bus, AgentOptions::default(), |news| eprintln!("{news}"))?;
/// bus.counter("tokens_total").register()?.add(17.0);
/// agent.stop();
/// let mut reader = qbus_aggregate::Reader::open(agent.snapshot())?;
/// assert_eq!(reader.read(&qbus_aggregate::ReadOptions::default())?.series.len(), 1);
/// # qbus::Bus::remove(&address, qbus::Removal::Forced)?;
/// # Ok(()) }
/// ```
pub struct Agent {
    bus: Bus,
    snapshot: PathBuf,
    /// The process that has the threads.
    pid: u32,
    commands: Sender<Command>,
    /// One at a time.
    resetting: Mutex<()>,
    options: AggregatorOptions,
    report: Log,
    aggregator: Mutex<Option<JoinHandle<()>>>,
    sampler: Mutex<Option<Sampler>>,
}

/// The sampler's thread; it ends when the sender is dropped.
struct Sampler {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

/// Commands for the aggregator's thread.
enum Command {
    Reset(Box<Reset>),
    Stop,
}

/// An order to begin with an empty snapshot.
struct Reset {
    /// To begin with; `None` where there is no room for two, say.
    spare: Option<Spare>,
    /// Hears whether it worked, and gets what took the place of the spare.
    reply: Sender<(Result<(), ResetError>, Option<Spare>)>,
}

impl Agent {
    /// Becomes the aggregator of a bus, and samples into it if `options` say so. `report` hears of
    /// what went wrong in the background, in words for a person; the agent goes on.
    ///
    /// # Errors
    ///
    /// Another process aggregates the bus, there is no room for a snapshot, or no thread.
    pub fn start(
        bus: &Bus,
        options: AgentOptions,
        report: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Agent, StartError> {
        let aggregator =
            Aggregator::open(bus, &options.aggregator).map_err(StartError::Aggregate)?;
        if let Some(series) = options.max_series_per_family {
            bus.set_max_series_per_family(series);
        }
        let snapshot = aggregator.snapshot().to_owned();
        let report: Log = Arc::new(report);
        report_place(&aggregator, &report);
        let (commands, received) = mpsc::channel();
        let aggregation = Aggregation {
            bus: bus.clone(),
            options: options.aggregator.clone(),
            spin: options.spin,
            inbox: Inbox::new(received),
            report: report.clone(),
        };
        let thread = thread::Builder::new()
            .name("qbus-aggregator".to_owned())
            .spawn(move || aggregation.run(aggregator))
            .map_err(StartError::Thread)?;
        let agent = Agent {
            bus: bus.clone(),
            snapshot,
            pid: process::id(),
            commands,
            resetting: Mutex::new(()),
            options: options.aggregator,
            report,
            aggregator: Mutex::new(Some(thread)),
            sampler: Mutex::new(None),
        };
        if let Some(sampling) = options.sampling {
            agent.start_sampling(sampling).map_err(StartError::Thread)?;
        }
        Ok(agent)
    }

    /// The bus that is aggregated.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Where the snapshot lies.
    pub fn snapshot(&self) -> &Path {
        &self.snapshot
    }

    /// What became of all records of the bus so far.
    ///
    /// # Errors
    ///
    /// The system does not say which owners are alive.
    pub fn ledger(&self) -> io::Result<Ledger> {
        let reader = Reader::open(&self.snapshot).ok();
        Ledger::read(&self.bus, reader.as_ref())
    }

    /// Whether the threads are those of a process that this one was forked from.
    pub fn is_inherited(&self) -> bool {
        process::id() != self.pid
    }

    /// Samples from now on, unless it does so already.
    ///
    /// # Errors
    ///
    /// The system starts no thread.
    pub fn start_sampling(&self, options: SamplingOptions) -> io::Result<()> {
        if self.is_inherited() {
            return Ok(());
        }
        let mut sampler = lock(&self.sampler);
        if sampler.is_some() {
            return Ok(());
        }
        let (stop, stopped) = mpsc::channel();
        let (bus, snapshot, report) =
            (self.bus.clone(), self.snapshot.clone(), self.report.clone());
        let sample = move || sampling::sample_until(&bus, &snapshot, options, &stopped, &report);
        let thread = thread::Builder::new()
            .name("qbus-sampler".to_owned())
            .spawn(sample)?;
        *sampler = Some(Sampler { stop, thread });
        Ok(())
    }

    /// Samples no more; what was sampled stays.
    pub fn stop_sampling(&self) {
        if self.is_inherited() {
            return;
        }
        let sampler = lock(&self.sampler).take();
        if let Some(Sampler { stop, thread }) = sampler {
            drop(stop);
            if thread.join().is_err() {
                (self.report)("the sampler panicked".to_owned());
            }
        }
    }

    /// Drains what was emitted before this call, and begins with an empty snapshot. It takes some
    /// milliseconds, of this thread: the lanes are drained meanwhile.
    ///
    /// # Errors
    ///
    /// The agent has ended, or the bus cannot be aggregated at the moment.
    pub fn reset(&self) -> Result<(), ResetError> {
        if self.is_inherited() {
            return Err(ResetError::Ended);
        }
        let _one_at_a_time = lock(&self.resetting);
        let spare = Spare::make(&self.bus, &self.options).ok();
        let (reply, done) = mpsc::channel();
        let sent = self
            .commands
            .send(Command::Reset(Box::new(Reset { spare, reply })));
        sent.map_err(|_| ResetError::Ended)?;
        self.bus.wake_aggregator();
        // The old snapshot goes here as well: that takes as long as making one.
        let (outcome, _old) = done.recv().map_err(|_| ResetError::Ended)?;
        outcome
    }

    /// Waits until the aggregator has ended: it was stopped, or its bus was removed.
    pub fn wait(&self) {
        if self.is_inherited() {
            return;
        }
        // Whoever else waits does so for the lock.
        let mut aggregator = lock(&self.aggregator);
        let panicked = aggregator
            .take()
            .is_some_and(|thread| thread.join().is_err());
        if panicked {
            (self.report)("the aggregator panicked".to_owned());
        }
    }

    /// Stops sampling, drains and commits what is left, and gives the bus to whoever aggregates it
    /// next.
    pub fn stop(&self) {
        if self.is_inherited() {
            return;
        }
        // First: the last samples are part of what is left.
        self.stop_sampling();
        // It may have ended by itself.
        let _ = self.commands.send(Command::Stop);
        self.bus.wake_aggregator();
        self.wait();
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("bus", self.bus.address())
            .field("snapshot", &self.snapshot)
            .finish_non_exhaustive()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.is_inherited() {
            // To drop the parent's handles would detach whichever of this process's own threads has
            // the same place in memory by now.
            let poisoned = PoisonError::into_inner;
            mem::forget(self.aggregator.get_mut().unwrap_or_else(poisoned).take());
            let sampler = self
                .sampler
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner);
            mem::forget(sampler.take());
        }
        self.stop();
    }
}

/// Tells that totals begin anew, or that others do not find the snapshot.
fn report_place(aggregator: &Aggregator, report: &Log) {
    if let Some(moved) = aggregator.moved_aside() {
        report(moved.to_string());
    }
    if let Some(error) = aggregator.unlinked() {
        let path = aggregator.snapshot().display();
        let news = format!(
            "no link to the snapshot could be left beside the bus, others need --snapshot {path}: \
            {error}"
        );
        report(news);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the aggregator's thread has been told and has not done yet.
struct Inbox {
    commands: Receiver<Command>,
    reset: RefCell<Option<Box<Reset>>>,
    is_stopped: Cell<bool>,
}

impl Inbox {
    fn new(commands: Receiver<Command>) -> Inbox {
        Inbox {
            commands,
            reset: RefCell::default(),
            is_stopped: Cell::new(false),
        }
    }

    /// Whether there is anything to do but to aggregate.
    fn has_news(&self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Reset(reset)) => drop(self.reset.replace(Some(reset))),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => {
                    self.is_stopped.set(true);
                    return true;
                }
                Err(TryRecvError::Empty) => return self.reset.borrow().is_some(),
            }
        }
    }
}

/// What the aggregator's thread has.
struct Aggregation {
    bus: Bus,
    options: AggregatorOptions,
    spin: bool,
    inbox: Inbox,
    report: Log,
}

impl Aggregation {
    fn run(self, aggregator: Aggregator) {
        let mut reported: Option<Instant> = None;
        let mut report = |news: News| match news {
            News::NoRoom(error) => {
                if reported.is_none_or(|reported| reported.elapsed() >= REPORT_EVERY) {
                    reported = Some(Instant::now());
                    let why = SnapshotError::Create(error);
                    let news = format!("the snapshot cannot grow, new series are left out: {why}");
                    (self.report)(news);
                }
            }
            News::Overflow(series) => self.report_overflow(series),
        };
        let mut aggregator = Some(aggregator);
        loop {
            match &mut aggregator {
                Some(aggregator) => {
                    aggregator.run(self.spin, &|| self.inbox.has_news(), &mut report);
                    if aggregator.is_superseded() {
                        let news = "another process aggregates the bus since this one's lock was \
                            closed by other code of the process: this one ends";
                        return (self.report)(news.to_owned());
                    }
                }
                None => {
                    thread::sleep(RETRY);
                    self.inbox.has_news();
                }
            }
            let mut reset = self.inbox.reset.take();
            let is_over = reset.is_none() && aggregator.is_some() || self.bus.is_removed();
            if self.inbox.is_stopped.get() || is_over {
                return;
            }
            // What was emitted before is drained.
            let spare = reset.as_mut().and_then(|reset| reset.spare.as_mut());
            let outcome = match (&mut aggregator, spare) {
                (Some(aggregator), Some(spare)) => aggregator.begin_anew(spare).map_err(|error| {
                    let error = SnapshotError::Create(CreateError::Io {
                        doing: "put a new snapshot in the place of",
                        path: aggregator.snapshot().to_owned(),
                        source: error,
                    });
                    ResetError::Aggregate(Arc::new(AggregateError::Snapshot(error)))
                }),
                // The old one goes first.
                _ => self.open_anew(&mut aggregator, reset.is_some()),
            };
            if let Some(Reset { spare, reply }) = reset.map(|reset| *reset) {
                // Who asked may be gone.
                let _ = reply.send((outcome, spare));
            }
        }
    }

    /// Aggregates again from where the lanes stand, with an empty snapshot for a reset.
    fn open_anew(
        &self,
        aggregator: &mut Option<Aggregator>,
        is_reset: bool,
    ) -> Result<(), ResetError> {
        drop(aggregator.take());
        if is_reset {
            self.remove_snapshot();
        }
        let opened = Aggregator::open(&self.bus, &self.options);
        let mut opened = opened.map_err(|error| ResetError::Aggregate(Arc::new(error)))?;
        report_place(&opened, &self.report);
        if is_reset {
            opened.pass_over_registered();
        }
        *aggregator = Some(opened);
        Ok(())
    }

    /// Tells that a family has as many series as it may have, by the first that is there for
    /// others.
    fn report_overflow(&self, id: SeriesId) {
        // A series whose label was given that very value is not one of them.
        let mut overflow = self.bus.overflow_series().into_iter();
        let Some((_, series)) = overflow.find(|(found, _)| *found == id) else {
            return;
        };
        let (family, size) = (
            self.bus.family(series.family),
            self.bus.family_size(series.family),
        );
        let (Some(family), Some(limit)) = (family, size.and_then(|size| size.limit)) else {
            return;
        };
        let registrant = self.bus.registrant(id);
        let whose = registrant.map_or(String::new(), |process| format!(" of {process}"));
        let labels = overflowing(&series.labels).join(", ");
        (self.report)(format!(
            "metric {}{whose} has {limit} series, as many as it may have: values of its label \
            {labels} that are new are counted under {OVERFLOW:?} from now on; a label with fewer \
            values is better, else --max-series-per-family or max_series() raises the limit",
            family.name
        ));
    }

    fn remove_snapshot(&self) {
        let beside = || self.bus.address().snapshot();
        let path = self.options.snapshot.clone().unwrap_or_else(beside);
        // If it stays, the next aggregator goes on with it: nothing is lost.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                (self.report)(format!("could not remove the snapshot: {error}"));
            }
            _ => {}
        }
    }
}
