//! The low-level producer: records into one lane.

mod cells;

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_utils::Backoff;

use crate::bus::{Attachment, Bus, MappedBus};
use crate::clock;
use crate::error::{EmitError, JoinError};
use crate::fork::{self, ForkWord, Generation};
use crate::lane::cell::writer::CellWriter;
use crate::lane::cell::{Bank, Keep};
use crate::lane::exclusive::ExclusiveWriter;
use crate::lane::shared::SharedWriter;
use crate::lane::{Lease, Refused, count};
use crate::layout::OwnerEntry;
use crate::owner::OwnerId;
use crate::record::{MetricType, Record};
use crate::sync::{AtomicU64, Ordering};

/// How long a lane that is full is watched without giving the CPU away: what an aggregator that is
/// at it needs for all that a default lane holds.
const BUSY: Duration = Duration::from_micros(50);
/// How long it is watched without a nap, which takes longer than an aggregator needs that is awake.
const AWAKE: Duration = Duration::from_micros(300);
/// Between two looks at a lane that stays full.
const NAP: Duration = Duration::from_micros(50);

/// Emits records into a lane of its own, or a share of one.
///
/// One thread at a time uses it (it is `Send`, and not `Sync`); dropping it gives its lane back. A
/// forked child that uses an inherited one gets [`EmitError::NotJoined`]: handles join anew by
/// themselves, a `Producer` is made anew by its user.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let address = format!("doc-producer-{}", std::process::id()).parse()?;
/// # let bus = qbus::Bus::create(&address, &qbus::BusOptions::default())?;
/// use qbus::{Clock, Kind, Record};
/// let tokens = bus.counter("tokens_total").register()?;
/// let producer = bus.producer()?;
/// let record = Record::new(Clock::Coarse.now_ns(), tokens.series(), Kind::Increment, 17.0);
/// producer.emit(record)?;
/// assert_eq!(producer.emit_many(&[record; 3]), Ok(()));
/// # qbus::Bus::remove(&address, qbus::Removal::Forced)?;
/// # Ok(()) }
/// ```
pub struct Producer {
    lane: ProducerLane,
    /// The cells of a lane that it leases; none of one that it shares.
    own_cells: CellWriter<'static>,
    /// The cells of a lane that it shares.
    shared_cells: Option<Bank<'static>>,
    /// The owner's entry, for what it drops.
    entry: &'static OwnerEntry,
    owner: OwnerId,
    generation: Generation,
    fork: ForkWord,
    /// A word that says `holds` while the lane is this producer's (or, if it is shared, the entry
    /// in the owner table this process's): a lock can be lost to foreign code that closes
    /// descriptors.
    proof: &'static AtomicU64,
    holds: u64,
    /// Emits on a shared lane, modulo 2^32.
    emits: Cell<u32>,
    /// Keeps the bus open; the thread's own producers do not.
    _user: Option<Bus>,
    /// Keeps the mapping that `lane` and `entry` borrow.
    mapped: Arc<MappedBus>,
    not_sync: PhantomData<Cell<()>>,
}

#[derive(Debug)]
enum ProducerLane {
    Exclusive(ExclusiveWriter<'static>),
    Shared(SharedWriter<'static>),
}

/// Some records of a batch were not accepted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmitManyError {
    /// How many records, from the start of the batch, were accepted.
    pub accepted: usize,
    /// Why the next one was not.
    pub error: EmitError,
}

impl fmt::Display for EmitManyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records were accepted, then: {}",
            self.accepted, self.error
        )
    }
}

impl std::error::Error for EmitManyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl Bus {
    /// A producer with a lane of its own; with a share of a lane when all are leased.
    ///
    /// # Errors
    ///
    /// No place in the owner table, or no lane of either sort.
    pub fn producer(&self) -> Result<Producer, JoinError> {
        Producer::exclusive_or_shared(self.mapped()).map(|producer| producer.of_user(self))
    }

    /// A producer on a lane that any number of them share: for a one-shot, or a signal handler.
    ///
    /// # Errors
    ///
    /// No place in the owner table, or no shared lane.
    pub fn shared_producer(&self) -> Result<Producer, JoinError> {
        Producer::shared(self.mapped()).map(|producer| producer.of_user(self))
    }
}

impl Producer {
    pub(crate) fn exclusive_or_shared(mapped: &Arc<MappedBus>) -> Result<Producer, JoinError> {
        let attachment = mapped.attachment()?;
        let owner = attachment.owner;
        let (first, lanes) = (mapped.geometry().shared_lanes, mapped.geometry().lanes);
        // Owners start at different lanes, so that they seldom race for one. A lane that its last
        // lessees left fuller than half is for those who find no other: threads that come and go
        // would fill one lane in a row while the consumer naps.
        let exclusive = (lanes - first).max(1);
        let in_turn = || {
            let places =
                (0..lanes - first).map(move |at| (at + u64::from(owner.index)) % exclusive);
            places.map(|place| first + place)
        };
        let lane = |index: &u64| mapped.lane(*index as usize);
        let roomy = in_turn().filter(|index| lane(index).fill() <= lane(index).capacity() / 2);
        let with_room = in_turn().filter(|index| lane(index).has_room());
        for index in roomy.chain(with_room).chain(in_turn()) {
            // SAFETY: the producer has the mapping's `Arc` for as long as the lane.
            let lane = unsafe { lane(&index).extend() };
            if let Some(lane) = lane.lease(owner) {
                mapped.populate(index as usize);
                // SAFETY: as above.
                let bell = unsafe { bell(mapped) };
                // SAFETY: as above.
                let bank = unsafe { mapped.bank(index as usize).extend() };
                let cells = CellWriter::new(bank, Lease::word(owner));
                let lane = ProducerLane::Exclusive(lane.ringing(bell));
                return Ok(Producer::new(mapped, attachment, lane, cells, None));
            }
        }
        Producer::shared(mapped)
    }

    pub(crate) fn shared(mapped: &Arc<MappedBus>) -> Result<Producer, JoinError> {
        let attachment = mapped.attachment()?;
        let lanes = mapped.geometry().shared_lanes;
        if lanes == 0 {
            return Err(JoinError::NoLane {
                lanes: mapped.geometry().lanes,
            });
        }
        let index = (u64::from(attachment.owner.index) % lanes) as usize;
        let lane = mapped.lane(index);
        // SAFETY: the producer has the mapping's `Arc` for as long as the lane.
        let lane = SharedWriter::new(unsafe { lane.extend() }, attachment.owner);
        // SAFETY: as above.
        let bank = unsafe { mapped.bank(index).extend() };
        // SAFETY: as above.
        let lane = ProducerLane::Shared(lane.ringing(unsafe { bell(mapped) }));
        let none = CellWriter::none(bank);
        Ok(Producer::new(mapped, attachment, lane, none, Some(bank)))
    }

    fn new(
        mapped: &Arc<MappedBus>,
        attachment: Attachment,
        lane: ProducerLane,
        own_cells: CellWriter<'static>,
        shared_cells: Option<Bank<'static>>,
    ) -> Producer {
        let entry: *const OwnerEntry = mapped.entry(attachment.owner);
        // SAFETY: the entry lies in the mapping, which `mapped` keeps for as long as the producer.
        let entry = unsafe { &*entry };
        let (proof, holds) = match &lane {
            ProducerLane::Exclusive(lane) => lane.proof(),
            ProducerLane::Shared(_) => entry.proof(attachment.owner),
        };
        Producer {
            lane,
            own_cells,
            shared_cells,
            entry,
            owner: attachment.owner,
            generation: attachment.generation,
            fork: fork::word(),
            proof,
            holds,
            emits: Cell::new(0),
            _user: None,
            mapped: mapped.clone(),
            not_sync: PhantomData,
        }
    }

    /// The same, which keeps the bus open.
    fn of_user(mut self, bus: &Bus) -> Producer {
        self._user = Some(bus.clone());
        self
    }

    /// Writes one record. Lock-free; on an exclusive lane wait-free. The only system call is the
    /// one that wakes an aggregator that sleeps while the lane fills.
    ///
    /// # Errors
    ///
    /// The lane is full, the record's kind does not take the value, or the producer was
    /// inherited by a fork. What is refused is counted in the ledger.
    #[inline(always)]
    pub fn emit(&self, record: Record) -> Result<(), EmitError> {
        if self.is_current() {
            self.emit_as_owner(record, Keep::Nothing)
        } else {
            Err(self.refuse_lost(1))
        }
    }

    /// As [`emit`](Self::emit), and keeps what it can as state where the lane is full.
    pub(crate) fn emit_or_keep(&self, record: Record, keep: Keep<'_>) -> Result<(), EmitError> {
        if self.is_current() {
            self.emit_as_owner(record, keep)
        } else {
            Err(self.refuse_lost(1))
        }
    }

    /// As [`emit`](Self::emit), for a caller that has checked that the producer was not inherited.
    #[inline(always)]
    fn emit_as_owner(&self, record: Record, keep: Keep<'_>) -> Result<(), EmitError> {
        if self.emit_at_once(&record) {
            return Ok(());
        }
        self.emit_with_care(record, keep)
    }

    /// Writes one record if that needs no look at anything that is shared; whether it did.
    ///
    /// Compiled into its callers, who know the kind of the record, and that it counts once.
    #[inline(always)]
    pub(crate) fn emit_at_once(&self, record: &Record) -> bool {
        match &self.lane {
            ProducerLane::Exclusive(lane) => {
                record.kind.takes(record.value) && lane.emit_at_once(&record.to_words())
            }
            ProducerLane::Shared(_) => false,
        }
    }

    #[inline(never)]
    fn emit_with_care(&self, record: Record, keep: Keep<'_>) -> Result<(), EmitError> {
        if !record.kind.takes(record.value) {
            return Err(self.reject(&record));
        }
        if self.is_time_to_look() {
            self.mapped.look_after();
            if !self.is_current() {
                return Err(self.refuse_lost(1));
            }
        }
        if self.is_void() {
            return Err(self.refuse_lost(1));
        }
        match self.write(&record) {
            Err(Refused::Full) if self.keep(&record, keep) => Ok(()),
            written => written.map_err(|refused| self.refuse(refused, &[record])),
        }
    }

    /// An exclusive lane comes here a few times a lap, a shared one with every record.
    fn is_time_to_look(&self) -> bool {
        let emits = self.emits.get();
        self.emits.set(emits.wrapping_add(1));
        self.is_exclusive() || emits.is_multiple_of(64)
    }

    /// Whether the shared lane is of a bus that was removed: an exclusive one has lost its lease
    /// then.
    fn is_void(&self) -> bool {
        match &self.lane {
            ProducerLane::Exclusive(_) => false,
            // What says so may be garbage.
            ProducerLane::Shared(lane) => lane.lane.is_void() && self.mapped.is_removed(),
        }
    }

    fn write(&self, record: &Record) -> Result<(), Refused> {
        match &self.lane {
            ProducerLane::Exclusive(lane) => lane.emit(&record.to_words()),
            ProducerLane::Shared(lane) => lane.emit(&record.to_words()),
        }
    }

    /// As [`emit`](Self::emit), and waits while the lane is full: for tools, not for a hot path.
    ///
    /// # Errors
    ///
    /// As `emit`; the lane was full for all of `patience`, which counts as one drop.
    pub fn emit_or_wait(&self, record: Record, patience: Duration) -> Result<(), EmitError> {
        if !self.is_current() {
            return Err(self.refuse_lost(1));
        }
        if !record.kind.takes(record.value) {
            return Err(self.reject(&record));
        }
        let (backoff, mut start) = (Backoff::new(), None);
        loop {
            let refused = match self.write(&record) {
                Ok(()) => return Ok(()),
                Err(refused) => refused,
            };
            let waited = start.get_or_insert_with(Instant::now).elapsed();
            self.mapped.look_after();
            if !self.is_current() || self.is_void() {
                return Err(self.refuse_lost(1));
            }
            if refused == Refused::Revoked || waited >= patience {
                return Err(self.refuse(refused, &[record]));
            }
            if waited < BUSY {
                backoff.spin();
            } else if waited < AWAKE {
                backoff.snooze();
            } else {
                std::thread::sleep(NAP);
            }
        }
    }

    /// Writes records in order, on an exclusive lane with one publication for all.
    ///
    /// # Errors
    ///
    /// How many were accepted, and why not the next one. All others count as dropped.
    pub fn emit_many(&self, records: &[Record]) -> Result<(), EmitManyError> {
        let failed = |accepted, error| Err(EmitManyError { accepted, error });
        if !self.is_current() {
            return failed(0, self.refuse_lost(records.len() as u64));
        }
        let good = records
            .iter()
            .take_while(|record| record.kind.takes(record.value))
            .count();
        let (accepted, refused) = self.write_many(&records[..good]);
        if accepted < good {
            let left = &records[accepted..];
            if refused == Refused::Revoked {
                // The consumer counts the revoked one; those after it were dropped.
                self.count_dropped(&left[1..]);
            }
            return failed(accepted, self.refuse(refused, left));
        }
        if let Some(bad) = records.get(good) {
            count(&self.entry.rejected, (records.len() - good - 1) as u64);
            return failed(good, self.reject(bad));
        }
        Ok(())
    }

    /// Writes records until one is refused; how many, and why not the next one.
    fn write_many(&self, records: &[Record]) -> (usize, Refused) {
        if let ProducerLane::Exclusive(lane) = &self.lane {
            let words = records.iter().map(|record| record.to_words());
            return (lane.emit_many(words) as usize, Refused::Full);
        }
        for (accepted, record) in records.iter().enumerate() {
            if let Err(refused) = self.write(record) {
                return (accepted, refused);
            }
        }
        (records.len(), Refused::Full)
    }

    /// Whether its lane has a free slot.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        match &self.lane {
            ProducerLane::Exclusive(lane) => !lane.is_full(),
            ProducerLane::Shared(lane) => lane.lane.has_room(),
        }
    }

    /// Whether it has a lane of its own.
    pub fn is_exclusive(&self) -> bool {
        matches!(self.lane, ProducerLane::Exclusive(_))
    }

    /// This process in the owner table.
    pub fn owner(&self) -> OwnerId {
        self.owner
    }

    /// Whether it was neither inherited by a fork, nor lost its lane. No order is needed: a lane
    /// that is taken away between this look and a store was its owner's a moment ago.
    #[inline(always)]
    pub(crate) fn is_current(&self) -> bool {
        self.fork.is(self.generation) && self.proof.load(Ordering::Relaxed) == self.holds
    }

    pub(crate) fn mapped(&self) -> &Arc<MappedBus> {
        &self.mapped
    }

    /// Whether anybody but producers still has the bus open.
    pub(crate) fn bus_is_open(&self) -> bool {
        self.mapped.is_open()
    }

    /// Looks whether the bus still has its name, which it does at most once a second.
    #[cold]
    pub(crate) fn look(&self) {
        self.own_cells.looked(clock::monotonic_ns());
        self.mapped.look_after();
    }

    /// Counts records that met a full lane, by the type of their metric.
    fn count_dropped(&self, records: &[Record]) {
        count(&self.entry.dropped_full, records.len() as u64);
        for record in records {
            if let Some(metric_type) = self.mapped.registry().metric_type(record.series) {
                let counted_as = match metric_type {
                    MetricType::Untyped => MetricType::Gauge,
                    known => known,
                };
                let index = counted_as.to_raw() as usize - 1;
                count(&self.entry.dropped_by_type[index], 1);
            }
        }
    }

    /// A record without an owner: the child of a fork is not the owner that the producer was made
    /// for, nor is a process whose lock was lost, or whose bus was removed.
    #[cold]
    fn refuse_lost(&self, records: u64) -> EmitError {
        count(&self.mapped.header().dropped_unowned, records);
        if self.mapped.is_removed() {
            EmitError::Removed
        } else {
            EmitError::NotJoined
        }
    }

    #[cold]
    fn reject(&self, record: &Record) -> EmitError {
        count(&self.entry.rejected, 1);
        EmitError::Value {
            found: record.value,
            kind: record.kind,
        }
    }

    #[cold]
    fn refuse(&self, refused: Refused, records: &[Record]) -> EmitError {
        match refused {
            // The consumer counts it, when it passes the slot.
            Refused::Revoked => EmitError::Revoked,
            Refused::Full => {
                self.count_dropped(records);
                EmitError::Full
            }
        }
    }
}

/// The aggregator's doorbell.
///
/// # Safety
///
/// The caller keeps the mapping for as long as anybody has the bell.
unsafe fn bell(mapped: &MappedBus) -> &'static AtomicU64 {
    let bell: *const AtomicU64 = &mapped.header().doorbell;
    // SAFETY: it lies in the mapping, which the caller keeps.
    unsafe { &*bell }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // In a forked child the lane is the parent's.
        if let (ProducerLane::Exclusive(lane), true) = (&self.lane, self.fork.is(self.generation)) {
            lane.give_back();
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("owner", &self.owner)
            .field("exclusive", &self.is_exclusive())
            .finish()
    }
}
