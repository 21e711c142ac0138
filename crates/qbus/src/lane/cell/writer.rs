//! The one writer of an exclusive lane's cells.

use std::cell::Cell as PrivateCell;

use super::places::Places;
use super::{
    Bank, CALL, CellKey, CellKind, CellOp, Done, REVOKED, TOUCH, Unit, encode_level, encode_state,
    is_largest, is_smallest, two_sum,
};
use crate::layout::{CELL_GROUPS, HANDOVERS};
use crate::record::SeriesId;
use crate::sync::{Ordering, fence};
use crate::testpoint;

/// Units that are looked at for one whose cells can be taken, at a time.
const CANDIDATES: usize = 16;
/// After a unit found no cells, so many units go without a look.
const PATIENCE: u32 = 64;
/// So often a unit lies elsewhere than its hint says before the hint is changed: threads that
/// disagree would else take its line from each other.
const HINT_AFTER: u32 = 64;

/// Calls between two looks whether the bus still has its name; a power of two.
const LOOK_EVERY: u64 = 64;
/// From this time between two looks on every call is one to look after.
const SELDOM_NS: u64 = 10_000_000;

/// Writes to the cells of a lane that its thread leases. Whether it still does is for the caller to
/// ask.
#[derive(Debug)]
pub(crate) struct CellWriter<'a> {
    bank: Bank<'a>,
    places: Places,
    /// A cell's place, shifted by it, is its group.
    group_shift: u32,
    /// Where the search for cells to take goes on.
    hand: PrivateCell<usize>,
    /// Units that are still to go without a look for cells.
    patience: PrivateCell<u32>,
    strays: PrivateCell<u32>,
    /// A mask of the pulse: 0 where every call is one to look after.
    between_looks: PrivateCell<u64>,
    looked_ns: PrivateCell<u64>,
}

impl<'a> CellWriter<'a> {
    /// Goes on with the cells of a lane that was just leased (C4): the lease says `leased`.
    pub(crate) fn new(bank: Bank<'a>, leased: u64) -> CellWriter<'a> {
        let head = bank.head;
        let (calls, last) = (bank.calls(), head.writer.load(Ordering::Relaxed));
        if last != leased {
            if last != 0 {
                // Whose the calls up to here are, for the consumer, which may not have seen them
                // yet.
                let count = head.handovers.load(Ordering::Relaxed);
                let entry = &head.handover[count as usize % HANDOVERS];
                entry[0].store(last, Ordering::Relaxed);
                entry[1].store(calls, Ordering::Relaxed);
                // C1 (release): who sees the count sees the entry; it comes before this writer's
                // pulses.
                head.handovers
                    .store(count.wrapping_add(1), Ordering::Release);
                testpoint!("cells-handed-over");
            }
            head.writer.store(leased, Ordering::Release);
            testpoint!("cells-signed");
        }
        let writer = CellWriter::over(bank);
        // C2 (release): who sees a value of this writer sees the keys that it found, also where no
        // pulse led there.
        fence(Ordering::Release);
        writer
    }

    /// Writes to none of a lane's cells: others write there too.
    #[cfg(not(loom))]
    pub(crate) fn none(bank: Bank<'a>) -> CellWriter<'a> {
        CellWriter::over(Bank {
            cells: &[],
            seen: &[],
            ..bank
        })
    }

    fn over(bank: Bank<'a>) -> CellWriter<'a> {
        CellWriter {
            bank,
            places: Places::of(&bank),
            group_shift: bank.group_len().max(1).trailing_zeros(),
            hand: PrivateCell::new(0),
            patience: PrivateCell::new(0),
            strays: PrivateCell::new(0),
            between_looks: PrivateCell::new(0),
            looked_ns: PrivateCell::new(0),
        }
    }

    /// Notes when it was looked whether the bus still has its name: calls that come fast need not
    /// look each time, and those that come seldom can afford it.
    pub(crate) fn looked(&self, now_ns: u64) {
        let is_fast = now_ns.wrapping_sub(self.looked_ns.replace(now_ns)) < SELDOM_NS;
        self.between_looks
            .set(if is_fast { LOOK_EVERY - 1 } else { 0 });
    }

    /// Where a unit begins, if its hint is right.
    #[inline(always)]
    pub(crate) fn hinted(&self, unit: &Unit) -> Option<usize> {
        let at = unit.hint.load(Ordering::Relaxed) as usize;
        // Relaxed: this writer alone writes keys.
        let cell = self.bank.cells.get(at)?;
        (cell.key.load(Ordering::Relaxed) == unit.key()).then_some(at)
    }

    /// Where a unit begins; it gets cells if it has none, and `None` says that no cells are free.
    #[cold]
    pub(crate) fn find(&self, unit: &Unit) -> Option<usize> {
        if let Some(at) = self.places.find(&self.bank, unit.key(), unit.len) {
            self.strays.set(self.strays.get() + 1);
            if self.strays.get() >= HINT_AFTER {
                self.strays.set(0);
                unit.hint.store(at as u64, Ordering::Relaxed);
            }
            return Some(at);
        }
        // What nobody will add to any more comes first: so the cells of series that are gone
        // suffice for those that come, whatever their sort.
        let at = self
            .replace(unit, REVOKED)
            .or_else(|| self.append(unit))
            .or_else(|| self.replace_any(unit))?;
        self.name(unit, at);
        self.places.add(&self.bank, unit.key(), at);
        unit.hint.store(at as u64, Ordering::Relaxed);
        Some(at)
    }

    /// The same for a series that must be there still when its unit has been found.
    #[cfg(not(loom))]
    pub(crate) fn find_kept(
        &self,
        unit: &Unit,
        is_open: impl FnOnce(SeriesId) -> bool,
    ) -> Option<usize> {
        self.find(unit).filter(|&at| self.bank.is_kept(at, is_open))
    }

    /// Cells that were never used.
    fn append(&self, unit: &Unit) -> Option<usize> {
        let at = self.bank.fit(self.bank.used(), unit.len)?;
        let used = (at + unit.len) as u64;
        self.bank.head.used.store(used, Ordering::Relaxed);
        testpoint!("cells-taken");
        Some(at)
    }

    /// The cells of any other unit.
    fn replace_any(&self, unit: &Unit) -> Option<usize> {
        if self.patience.get() > 0 {
            self.patience.set(self.patience.get() - 1);
            return None;
        }
        let at = self.replace(unit, 0);
        if at.is_none() {
            self.patience.set(PATIENCE);
        }
        at
    }

    /// The cells of another unit of the same sort, all of whose values are committed, and whose key
    /// has a mark.
    fn replace(&self, unit: &Unit, mark: u64) -> Option<usize> {
        let (bank, mut at) = (&self.bank, self.hand.get());
        if bank.cells.is_empty() {
            return None;
        }
        for _ in 0..CANDIDATES {
            if at >= bank.used() {
                at = 0;
            }
            let key = bank.cells[at].key.load(Ordering::Relaxed);
            let len = CellKey::unit_len(key).filter(|&len| bank.fit(at, len) == Some(at));
            let next = at + len.unwrap_or(1);
            let is_alike = len == Some(unit.len)
                && key & mark == mark
                && CellKey::decode(key).is_some_and(|(_, kind)| unit.first.is_like(kind));
            if is_alike && self.is_seen(at, unit.len) {
                self.hand.set(next);
                return Some(at);
            }
            at = next;
        }
        self.hand.set(at);
        None
    }

    /// Whether everything in these cells is committed.
    fn is_seen(&self, at: usize, len: usize) -> bool {
        (at..at + len).all(|at| {
            // C3 (acquire): pairs with the store in `Harvest::committed`.
            let seen = self.bank.seen[at].load(Ordering::Acquire);
            seen == self.bank.cells[at].value.load(Ordering::Relaxed)
        })
    }

    /// Gives a unit's cells their keys, the first one last: what it names is whole.
    fn name(&self, unit: &Unit, at: usize) {
        let cells = &self.bank.cells[at..at + unit.len];
        cells[0].key.store(0, Ordering::Relaxed);
        for (offset, cell) in cells.iter().enumerate().skip(1) {
            cell.key.store(unit.member(offset).0, Ordering::Relaxed);
        }
        testpoint!("members-named");
        cells[0].key.store(unit.key(), Ordering::Relaxed);
        testpoint!("unit-named");
        // C2 (release): pairs with the fence in `Harvest::read`. All values under these keys come
        // after.
        fence(Ordering::Release);
        for (offset, cell) in cells.iter().enumerate() {
            // Sums go on from where they stand; a state is the other series'.
            if unit.kind(offset).is_state() {
                cell.value.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Does it to the unit that begins there.
    #[inline(always)]
    pub(crate) fn apply(&self, at: usize, op: CellOp) -> Done {
        let (is_done, pulse) = match op {
            CellOp::Count(n) => {
                self.add(at, n);
                (true, CALL)
            }
            CellOp::Sum(value) => (self.add_exactly(at, value), CALL),
            CellOp::Observe(bucket, value) => (self.observe(at, bucket, value), CALL),
            CellOp::Level(value, stamp) => {
                self.state(at, value, stamp);
                (true, CALL)
            }
            // A part of a call, which the pulse of its bucket counts.
            CellOp::Summarize(value, _) => (self.summarize(at, value), TOUCH),
            CellOp::Note(value, stamp) => {
                self.state(at, value, stamp);
                (true, TOUCH)
            }
        };
        if is_done {
            self.pulse(at, pulse)
        } else {
            Done::No
        }
    }

    /// Adds a finite observation to a histogram; false when its sum would overflow or no histogram
    /// is there, and nothing was added.
    #[inline(always)]
    pub(crate) fn observe(&self, at: usize, bucket: usize, value: f64) -> bool {
        let counted = at + CellKind::BUCKETS + bucket;
        // A hint may have led to a wild key, which names more than there is.
        if counted >= self.bank.cells.len() || !self.add_exactly(at, value) {
            return false;
        }
        self.add(counted, 1);
        self.note_extremes(at, value);
        self.set(at + CellKind::Last.offset(), encode_state(value));
        true
    }

    /// Adds a finite observation to what a summary's buckets have in common.
    fn summarize(&self, at: usize, value: f64) -> bool {
        let added = self.add_exactly(at, value);
        if added {
            self.note_extremes(at, value);
        }
        added
    }

    /// States a gauge's value as of a time.
    fn state(&self, at: usize, value: f64, stamp: u64) {
        self.set(at + 1, 0);
        // C2 (release): who sees the new value sees no old stamp.
        fence(Ordering::Release);
        self.set(at, encode_level(value));
        // C2 (release): who sees the new stamp sees the new value.
        let stamped = &self.bank.cells[at + 1].value;
        stamped.store(stamp.max(1), Ordering::Release);
    }

    /// Keeps the smallest and the largest observation.
    #[inline(always)]
    fn note_extremes(&self, at: usize, value: f64) {
        let (min, max) = (at + CellKind::Min.offset(), at + CellKind::Max.offset());
        if is_smallest(value, self.value(min)) {
            self.set(min, encode_state(value));
        }
        if is_largest(value, self.value(max)) {
            self.set(max, encode_state(value));
        }
    }

    #[inline(always)]
    fn add_exactly(&self, at: usize, value: f64) -> bool {
        // As in `observe`.
        if at + 1 >= self.bank.cells.len() {
            return false;
        }
        let (sum, lost) = two_sum(f64::from_bits(self.value(at)), value);
        if !sum.is_finite() {
            return false;
        }
        self.set(at, sum.to_bits());
        if lost != 0.0 {
            let residue = f64::from_bits(self.value(at + 1)) + lost;
            self.set(at + 1, residue.to_bits());
        }
        true
    }

    #[inline(always)]
    fn add(&self, at: usize, n: u64) {
        self.set(at, self.value(at).wrapping_add(n));
    }

    #[inline(always)]
    fn value(&self, at: usize) -> u64 {
        // Relaxed, here and below: this writer alone writes to the cell, and C1 publishes.
        self.bank.cells[at].value.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn set(&self, at: usize, value: u64) {
        self.bank.cells[at].value.store(value, Ordering::Relaxed);
        testpoint!("cell-value");
    }

    #[inline(always)]
    fn pulse(&self, at: usize, by: u64) -> Done {
        // Of a place that is there; the remainder spares the check.
        let pulse = &self.bank.head.pulses[(at >> self.group_shift) % CELL_GROUPS];
        // C1 (release): pairs with the load in `Harvest::look`.
        let next = pulse.load(Ordering::Relaxed).wrapping_add(by);
        pulse.store(next, Ordering::Release);
        testpoint!("pulse");
        if next & self.between_looks.get() == 0 {
            Done::YesAndLook
        } else {
            Done::Yes
        }
    }
}
