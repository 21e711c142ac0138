//! The aggregator: drain → fold → commit, exactly once.
//!
//! The lanes are the write-ahead log: a slot is freed only when what it held is committed, and the
//! lanes' positions are committed with what was folded. A successor of a killed aggregator goes on
//! at the committed positions, and finds in the lanes what the dead one had drained and not
//! committed.

mod anew;
mod nap;
#[cfg(test)]
mod stepped;
#[cfg(test)]
mod windows;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use qbus::{Bus, Clock, ConsumeError, Consumer, CreateError, Geometry, OwnerCounts, SeriesId};

use crate::fold::Fold;
use crate::snapshot::file::{MovedAside, SnapshotError};
use crate::snapshot::place::Place;
use crate::snapshot::tally::Globals;
use crate::snapshot::writer::Writer;
pub use anew::Spare;
use nap::{GATHER, Nap, Rest};

/// Records of one lane in a round, at most: a quarter of a default lane, so that its producer finds
/// free slots while a round is committed.
const BUDGET: u64 = 1024;
/// In this time all owners are visited once: whether they live, and what they have counted.
const SURVEY_NS: u64 = 200_000_000;
/// Parts that a survey is made in: a whole one would hold all records up for 0.1 ms.
const SURVEY_PARTS: u64 = 16;
/// And those of a round: what is overdue after a stop of this process is made up for bit by bit.
const SURVEY_PARTS_MAX: u64 = 2;
/// So many rounds in a row may leave something in cells before they count as if they had not.
const UNREAD_MAX: u32 = 16;
/// Records that are drained at once while there are series that were not met yet.
const PORTION: u64 = 64;

/// How to aggregate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregatorOptions {
    /// Where the snapshot lies; `None` is beside the bus.
    pub snapshot: Option<PathBuf>,
    /// The most points of a series' history.
    pub history: usize,
    /// How many of the last records of all series are kept.
    pub recent: usize,
    /// How long a record waits for its commit, as a rule: the aggregator of a bus in use naps for
    /// so long between its rounds. It wakes sooner where a lane would fill meanwhile, and sleeps
    /// longer when the bus is idle. A shorter one costs more processor time: each wake-up some 10
    /// µs.
    pub latency: Duration,
}

impl Default for AggregatorOptions {
    /// 1,000 points of each series, 10,000 records of all, and a commit within 1.2 ms.
    fn default() -> AggregatorOptions {
        AggregatorOptions {
            snapshot: None,
            history: 1000,
            recent: 10_000,
            latency: Duration::from_micros(1200),
        }
    }
}

/// Why a bus cannot be aggregated.
#[derive(Debug)]
#[non_exhaustive]
pub enum AggregateError {
    /// This process could not become the aggregator.
    Consume(ConsumeError),
    /// There is no snapshot to write to.
    Snapshot(SnapshotError),
}

impl fmt::Display for AggregateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AggregateError::Consume(error) => error.fmt(f),
            AggregateError::Snapshot(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AggregateError {}

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Slots drained.
    pub drained: u64,
    /// Cells of which something was folded.
    pub cells: u64,
    /// The most slots that were drained of one lane.
    pub fullest: u64,
    /// Whether it came to all lanes.
    pub is_whole: bool,
    /// Whether there was anything to commit.
    pub committed: bool,
    /// Whether series are about to appear on the page or to leave it.
    pub is_waiting: bool,
}

impl Round {
    /// Whether nothing came.
    pub fn is_idle(&self) -> bool {
        self.drained == 0 && self.cells == 0 && !self.is_waiting
    }
}

/// What a person should know of an aggregator.
#[derive(Debug)]
pub enum News {
    /// The snapshot could not grow.
    NoRoom(CreateError),
    /// A family reached its limit: that series is there for all beyond it.
    Overflow(SeriesId),
}

/// The one process that drains a bus and writes its snapshot.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let address = format!("doc-aggregator-{}", std::process::id()).parse()?;
/// # let bus = qbus::Bus::create(&address, &qbus::BusOptions::default())?;
/// use qbus_aggregate::{Aggregator, AggregatorOptions, ReadOptions, Reader, Value};
/// let tokens = bus.counter("tokens_total").register()?;
/// tokens.add(17.0);
/// let mut aggregator = Aggregator::open(&bus, &AggregatorOptions::default())?;
/// aggregator.round();
/// let snapshot = Reader::open(&bus.address().snapshot())?.read(&ReadOptions::default())?;
/// assert_eq!(snapshot.series[0].value, Value::Counter(17.0.into()));
/// # qbus::Bus::remove(&address, qbus::Removal::Forced)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Aggregator {
    unlinked: Option<io::Error>,
    consumer: Consumer,
    fold: Fold,
    writer: Writer,
    latency: Duration,
    moved: Vec<usize>,
    /// Lanes of whose cells something is to be committed.
    changed: Vec<usize>,
    /// The lane that the next round begins with.
    next_lane: usize,
    /// Rounds in a row that left something in cells.
    unread: u32,
    /// What surveys found that owners have counted of their calls to shared lanes: those that count
    /// when so many more lanes were looked at, and those of meanwhile.
    passing: Vec<(usize, OwnerCounts)>,
    pass_left: usize,
    counted: Vec<(usize, OwnerCounts)>,
    /// When the last part of a survey was made, and which is next.
    surveyed_ns: u64,
    next_part: u64,
}

impl Aggregator {
    /// Becomes the aggregator of a bus, and goes on with its snapshot where a predecessor left off.
    ///
    /// # Errors
    ///
    /// There is another aggregator, or no room for a snapshot.
    pub fn open(bus: &Bus, config: &AggregatorOptions) -> Result<Aggregator, AggregateError> {
        Aggregator::open_at(bus, config, Now::read())
    }

    fn open_at(
        bus: &Bus,
        config: &AggregatorOptions,
        now: Now,
    ) -> Result<Aggregator, AggregateError> {
        let mut consumer = bus.consumer().map_err(AggregateError::Consume)?;
        consumer.sweep();
        let place = Place::of(bus.address(), config.snapshot.as_deref());
        let opened = Writer::open(place.path(), bus, config.recent, config.history);
        let (mut writer, is_resumed) = opened.map_err(AggregateError::Snapshot)?;
        let unlinked = place.make_known().err();
        writer.sign(std::process::id(), now.unix_ns);
        let (history, recent) = (config.history, config.recent);
        let fold = Fold::load(bus, &mut writer, history, recent, now.monotonic_ns);
        let mut fold =
            fold.map_err(|error| AggregateError::Snapshot(SnapshotError::Create(error)))?;
        if is_resumed {
            fold.globals.restarts += 1;
            for lane in 0..consumer.lanes() {
                if let Some(position) = writer.read_head(lane)
                    && !consumer.resume(lane, position)
                {
                    fold.globals.lost_positions += 1;
                }
                for group in 0..Geometry::CELL_GROUPS {
                    if let Some(version) = writer.read_cells(lane, group) {
                        consumer.resume_cells(lane, group, &version);
                    }
                }
            }
        }
        let mut aggregator = Aggregator {
            unlinked,
            consumer,
            fold,
            writer,
            latency: config.latency,
            moved: Vec::new(),
            changed: Vec::new(),
            next_lane: 0,
            unread: 0,
            passing: Vec::new(),
            pass_left: 0,
            counted: Vec::new(),
            surveyed_ns: 0,
            next_part: 0,
        };
        // From now on a reader finds an epoch, empty as it may be.
        aggregator.survey(SURVEY_PARTS);
        aggregator.commit();
        Ok(aggregator)
    }

    /// What lay where the snapshot is now, and was of no use to this aggregator.
    pub fn moved_aside(&self) -> Option<&MovedAside> {
        self.writer.moved_aside()
    }

    /// Why a snapshot that lies elsewhere is not found from the bus: no link could be left beside
    /// it.
    pub fn unlinked(&self) -> Option<&io::Error> {
        self.unlinked.as_ref()
    }

    /// Drains every lane once, within bounds, folds, and commits if there was anything. It takes
    /// some hundred microseconds at most: where more is to be done than records to be added up, it
    /// commits before it came to all lanes, and the next round goes on from there.
    pub fn round(&mut self) -> Round {
        self.round_at(Now::read())
    }

    fn round_at(&mut self, now: Now) -> Round {
        let Now {
            unix_ns,
            monotonic_ns,
        } = now;
        let has_room = self.writer.take_room();
        self.fold.begin(unix_ns, monotonic_ns, has_room);
        self.fold.end_steps(&mut self.writer);
        // First: calls that owners have counted are then in the cells that are looked at.
        let due = monotonic_ns.saturating_sub(self.surveyed_ns) / (SURVEY_NS / SURVEY_PARTS);
        if due > 0 {
            self.surveyed_ns = monotonic_ns;
            self.survey(due.min(SURVEY_PARTS_MAX));
        }
        let mut round = self.drain(monotonic_ns);
        self.take_shared_calls();
        let is_read = round.is_whole && self.is_read();
        self.fold.end(&mut self.writer, &self.consumer, is_read);
        round.is_waiting = self.fold.is_waiting();
        let is_moved = !self.moved.is_empty() || !self.changed.is_empty();
        round.committed = (is_moved || self.fold.is_touched()) && !self.is_superseded();
        if round.committed {
            self.commit();
        }
        round
    }

    /// Whether the round took all that it saw in cells: what was forgotten before it is retired, or
    /// freed, after such a round. Not for ever put off by a lane that is never empty.
    fn is_read(&mut self) -> bool {
        let is_unread = (0..self.consumer.lanes()).any(|lane| self.consumer.has_unread_cells(lane));
        self.unread = if is_unread { self.unread + 1 } else { 0 };
        self.unread.is_multiple_of(UNREAD_MAX)
    }

    /// Drains lanes into the fold, all of them unless it gets too busy.
    fn drain(&mut self, monotonic_ns: u64) -> Round {
        let lanes = self.consumer.lanes();
        let is_meeting = self.fold.is_meeting();
        let mut round = Round {
            is_whole: true,
            ..Round::default()
        };
        for _ in 0..lanes {
            let lane = self.next_lane;
            self.next_lane = (lane + 1) % lanes;
            let before = self.consumer.position(lane);
            self.consumer.look_at_cells(lane);
            self.drain_lane(lane, is_meeting, monotonic_ns);
            round.cells += self.take_cells(lane);
            let moved = self.consumer.position(lane) - before;
            if moved > 0 {
                self.moved.push(lane);
                round.drained += moved;
                round.fullest = round.fullest.max(moved);
            }
            self.pass_left = self.pass_left.saturating_sub(1);
            if self.fold.is_busy() {
                // The last lane's cells may have more, too.
                round.is_whole = false;
                break;
            }
        }
        round
    }

    /// Has the calls count that owners had counted before the last pass over all lanes, unless some
    /// of what such calls did waits for room: whose it is is not known. What does not count now is
    /// found again by the next survey.
    fn take_shared_calls(&mut self) {
        if self.pass_left > 0 {
            return;
        }
        if !self.consumer.has_taken_shared_calls() {
            self.passing.clear();
        }
        for (index, counts) in self.passing.drain(..) {
            self.fold.take_shared_calls(index, counts);
        }
    }

    /// Folds what came to the cells of a lane; how many changed.
    fn take_cells(&mut self, lane: usize) -> u64 {
        let (fold, writer) = (&mut self.fold, &mut self.writer);
        let taken = self.consumer.take_cells(lane, &mut |series, change| {
            fold.add_change(writer, series, change)
        });
        let Some(taken) = taken else {
            return 0;
        };
        self.consumer
            .attribute_calls(lane, taken.calls, &mut |owner, calls| {
                fold.add_calls(owner, calls);
            });
        if self.consumer.touched_cells(lane).next().is_some() {
            self.changed.push(lane);
        }
        taken.changed
    }

    /// Drains a lane, in small portions while there are series that were not met yet.
    fn drain_lane(&mut self, lane: usize, is_meeting: bool, monotonic_ns: u64) {
        let mut left = BUDGET;
        let mut portion = if is_meeting { PORTION } else { BUDGET };
        while left > 0 && !self.fold.is_busy() {
            let (fold, writer) = (&mut self.fold, &mut self.writer);
            let (budget, made) = (left.min(portion), fold.made());
            // A closure each: what is called from one place alone is compiled into it.
            let drained = if self.consumer.is_shared(lane) {
                let mut add = |found| fold.add(writer, found);
                self.consumer
                    .drain_shared(lane, budget, monotonic_ns, &mut add)
            } else {
                let mut add = |found| fold.add(writer, found);
                self.consumer.drain_exclusive(lane, budget, &mut add)
            };
            left = left.saturating_sub(drained);
            if drained < budget {
                break;
            }
            if self.fold.made() == made {
                portion *= 4;
            }
        }
    }

    /// Begins with an empty page: what is registered by now appears on it when something is emitted
    /// to it. For a snapshot that was just made; [`begin_anew`](Self::begin_anew) has none of it
    /// either.
    pub fn pass_over_registered(&mut self) {
        self.fold.pass_over();
    }

    /// Rounds until `stop` says so, then until nothing is left. Between rounds it naps as
    /// [`AggregatorOptions::latency`] says, and for up to 20 ms when the bus is idle; with `spin`
    /// never. `report` hears what a person should know. It also ends when the bus was removed and
    /// nothing comes any more.
    pub fn run(&mut self, spin: bool, stop: &dyn Fn() -> bool, report: &mut dyn FnMut(News)) {
        let mut nap = Nap::new(self.latency, self.consumer.bus().geometry().slots);
        while !stop() {
            let now = Now::read();
            let round = self.round_at(now);
            if let Some(failure) = self.writer.take_failure() {
                report(News::NoRoom(failure));
            }
            self.fold
                .overflowing
                .drain(..)
                .map(News::Overflow)
                .for_each(&mut *report);
            if self.is_superseded() {
                return;
            }
            if round.is_idle() && self.consumer.bus().is_removed() {
                break;
            }
            let now_ns = Clock::monotonic_ns();
            let took = Duration::from_nanos(now_ns.saturating_sub(now.monotonic_ns));
            match nap.after(&round, took, now_ns) {
                _ if spin && round.is_idle() => std::hint::spin_loop(),
                Rest::None => {}
                Rest::Gather => gather(),
                Rest::Sleep(_) if spin => gather(),
                Rest::Sleep(longest) => self.consumer.nap(longest),
            }
        }
        self.finish();
    }

    /// Whether another process aggregates the bus by now: foreign code closed the descriptor of
    /// this one's lock. This one commits nothing any more, and [`run`](Self::run) ends.
    pub fn is_superseded(&self) -> bool {
        self.consumer.is_superseded()
    }

    /// Drains what is left, and commits it.
    pub fn finish(&mut self) {
        // As in a round: what owners have counted is in what is drained after that.
        self.passing.clear();
        self.counted.clear();
        self.survey(SURVEY_PARTS);
        // Bounded: producers that go on emitting must not keep it from ending. A lane's worth for
        // each lane is what can be there now.
        let geometry = self.consumer.bus().geometry();
        // Once more for what came to cells while that was drained.
        let mut left = geometry.lanes.saturating_mul(geometry.slots + 2);
        loop {
            let round = self.round();
            // A round of cells alone counts as well: writers that go on are no reason to.
            left = left.saturating_sub(round.drained.max(1));
            if left == 0 || round.is_idle() && round.is_whole || self.is_superseded() {
                break;
            }
        }
    }

    /// The epoch that counts.
    pub fn epoch(&self) -> u64 {
        self.writer.epoch()
    }

    /// How many series there are.
    pub fn series_count(&self) -> usize {
        self.fold.series_count()
    }

    /// What was counted so far.
    pub fn globals(&self) -> Globals {
        self.fold.globals
    }

    /// Where the snapshot lies.
    pub fn snapshot(&self) -> &std::path::Path {
        self.writer.path()
    }

    /// Makes what was folded count, and frees the slots that it came from.
    fn commit(&mut self) {
        let start = Instant::now();
        let epoch = self.writer.epoch() + 1;
        self.fold.globals.unix_ns = Clock::Precise.now_ns();
        self.fold.write(&mut self.writer, epoch);
        for &lane in &self.moved {
            let position = self.consumer.position(lane);
            self.writer.write_head(epoch, lane, position);
        }
        for &lane in &self.changed {
            for group in self.consumer.touched_cells(lane) {
                let version = self.consumer.cells_version(lane, group);
                self.writer.write_cells(epoch, lane, group, version);
            }
        }
        self.writer.commit(epoch);
        // Only now: until here a successor would have needed them.
        for lane in self.moved.drain(..).chain(self.changed.drain(..)) {
            self.consumer.free(lane);
        }
        // The next commit says how long this one took.
        let took_ns = start.elapsed().as_nanos() as u64;
        self.fold.globals.commit_ns = self.fold.globals.commit_ns.saturating_add(took_ns);
    }

    /// Reaps the dead, and reads what owners have counted themselves.
    fn survey(&mut self, parts: u64) {
        let owners = self.consumer.bus().geometry().owners;
        for _ in 0..parts {
            let from = |part| (owners * part / SURVEY_PARTS) as usize;
            let part = from(self.next_part)..from(self.next_part + 1);
            self.next_part = (self.next_part + 1) % SURVEY_PARTS;
            // A failure to ask the locks now is one to ask them later.
            let _ = self.consumer.reap(part.clone());
            for index in part {
                if let Some(counts) = self.consumer.owner_counts(index) {
                    self.fold.take_losses(index, counts);
                    self.counted.push((index, counts));
                }
            }
        }
        if self.passing.is_empty() {
            std::mem::swap(&mut self.passing, &mut self.counted);
            self.pass_left = self.consumer.lanes();
        }
        self.fold.expire();
        if self.next_part == 0 {
            self.fold.forget_with_owners();
        }
        self.consumer
            .count_violations(self.consumer.restore_heads());
    }
}

/// Lets records gather. An aggregator that is faster than its producers would else follow them
/// record by record, and each emit would wait for the cache line that was just read: some 140 ns.
fn gather() {
    let start = Instant::now();
    while start.elapsed() < GATHER {
        std::hint::spin_loop();
    }
}

/// The clocks at one moment.
#[derive(Clone, Copy, Debug)]
struct Now {
    /// Since the Unix epoch.
    unix_ns: u64,
    /// On a clock that is never set.
    monotonic_ns: u64,
}

impl Now {
    fn read() -> Now {
        Now {
            unix_ns: Clock::Precise.now_ns(),
            monotonic_ns: Clock::monotonic_ns(),
        }
    }
}
