//! Cells: state in shared memory, beside the ring of each lane.
//!
//! A ring is for events; a sum is state, and state is never dropped. A cell is a key and one
//! cumulative word: `Counter::inc` adds to a word that is never cleared, and the consumer takes the
//! difference to what it took before. No record, no clock, nothing to drain, nothing that can be
//! full.
//!
//! A **unit** is what one series needs, side by side within a group: a count alone; or a sum and
//! what rounding took from it; or all of a histogram. Its first cell's key names it and tells its
//! length. An exclusive lane's cells have one [`writer`] at a time, which uses plain loads and
//! stores; a [`shared`] lane's have any number, which use atomic additions and never give a cell
//! another key.
//!
//! A state (the smallest, the largest and the last observation) has no difference: the same word
//! may be another observation, or another series'. So the last one is handed on with a bucket that
//! grew, and the extremes with the first change under another key.
//!
//! Edges:
//!
//! * **C1 pulse** a writer stores the `pulse` of the group (Release) → `Harvest::look` loads it
//!   (Acquire): the values of all calls that it counts are there.
//! * **C2 key** a writer stores `key`, then (Release fence) `value` → `Harvest::read` loads
//!   `value`, then (Acquire fence) `key` again: the same key means that the value was written under
//!   it.
//! * **C3 seen** the consumer stores `seen` (Release), after the commit → a writer loads it
//!   (Acquire) before it gives the cell another key: what was added under the old key is committed.
//! * **C5 revoke** the consumer frees a series, then (SeqCst fence) marks the keys of its units; a
//!   writer gives cells a key, then (SeqCst fence) looks whether the series is still there: one of
//!   both sees the other, and no unit of a series that is gone is found. What a call that had found
//!   one before still adds is of a stale id.
//! * **C4 hand-over** the lane's lease (E3): the next writer finds keys, values and pulses as the
//!   last one left them, and goes on from there. Values never start again.
//!
//! | a writer dies after        | others see                    | repair                          |
//! |----------------------------|-------------------------------|---------------------------------|
//! | `used`                     | cells without a key           | none: those cells are lost      |
//! | some keys of a unit        | members without a first one   | none: those cells are lost      |
//! | `value`, before the pulse  | a value that no pulse counts  | the scan finds it when the      |
//! |                            |                               | lease changes; the ledger lacks |
//! |                            |                               | a call                          |
//! | some values of a histogram | those: a bucket without a sum | likewise                        |
//! | `pulse`                    | a whole call                  | none                            |
//! | a hand-over's entry        | it twice, the second empty    | none                            |
//! | the mark of a shared stamp | a unit that nobody states in  | none: its two cells are lost    |
//!
//! | the consumer dies after   | a successor finds    | and                             |
//! |---------------------------|----------------------|---------------------------------|
//! | it folded                 | the committed `last` | takes the same difference again |
//! | the commit, before `seen` | the committed `last` | stores it to `seen` once more   |
//! | some of `seen`            | the committed `last` | likewise                        |
//! | the snapshot was lost too | `seen`               | takes what came after it        |

mod harvest;
#[cfg(test)]
pub(crate) mod heap;
#[cfg(all(test, loom))]
mod model;
mod places;
pub(crate) mod shared;
#[cfg(all(test, not(loom)))]
mod tests;
pub(crate) mod writer;

pub(crate) use harvest::Harvest;
#[cfg(not(loom))]
pub(crate) use harvest::Look;
pub use harvest::{CellChange, Placed};

use crate::layout::{CELL_GROUPS, Cell, CellHead, LaneHead};
use crate::record::SeriesId;
use crate::sync::{AtomicU64, Ordering, PrivateU64, fence};
use crate::testpoint;

const KIND_SHIFT: u32 = 18;
const SERIES_SHIFT: u32 = 32;
/// In a key: its series was freed, and no call finds the unit any more.
const REVOKED: u64 = 1 << 31;
const SUB_MASK: u64 = (1 << KIND_SHIFT) - 1;

/// What a cell holds of its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CellKind {
    /// A whole number: integral increments of a counter. Cumulative, wraps.
    Count,
    /// An f64: other increments of a counter, or the observations of a histogram. Cumulative.
    Sum,
    /// An f64: what rounding took from `Sum`. Cumulative.
    Residue,
    /// The smallest observation; state.
    Min,
    /// The largest observation; state.
    Max,
    /// The last observation; state.
    Last,
    /// Observations in a bucket of a histogram. Cumulative, wraps.
    Bucket(u32),
    /// The value of a gauge whose lane was full; state.
    Level,
    /// The time of `Level`, in nanoseconds since the Unix epoch; 0 while it changes. State.
    Stamp,
    /// Observations of a summary whose lane was full, in that bucket ([`crate::exponential`]).
    /// Cumulative, wraps.
    Sparse(u32),
}

impl CellKind {
    /// The place of a histogram's buckets in its unit.
    const BUCKETS: usize = 5;

    /// The place in its unit.
    fn offset(self) -> usize {
        match self {
            CellKind::Count | CellKind::Sum | CellKind::Level | CellKind::Sparse(_) => 0,
            CellKind::Residue | CellKind::Stamp => 1,
            CellKind::Min => 2,
            CellKind::Max => 3,
            CellKind::Last => 4,
            CellKind::Bucket(index) => Self::BUCKETS + index as usize,
        }
    }

    /// What lies at a place of a unit that begins with it.
    fn member(self, offset: usize) -> CellKind {
        if self == CellKind::Level {
            return CellKind::Stamp;
        }
        match offset {
            0 => CellKind::Sum,
            1 => CellKind::Residue,
            2 => CellKind::Min,
            3 => CellKind::Max,
            4 => CellKind::Last,
            at => CellKind::Bucket((at - Self::BUCKETS) as u32),
        }
    }

    /// Whether a unit that begins with `other` can pass its cells on to one that begins with it.
    fn is_like(self, other: CellKind) -> bool {
        let sparse = |kind: CellKind| match kind {
            CellKind::Sparse(_) => CellKind::Count,
            kind => kind,
        };
        sparse(self) == sparse(other)
    }

    /// Whether the cell is a state, which a later one replaces, and no sum.
    fn is_state(self) -> bool {
        matches!(
            self,
            CellKind::Min | CellKind::Max | CellKind::Last | CellKind::Level | CellKind::Stamp
        )
    }
}

/// A cell's `key` word: series (32 bits) | revoked (1) | 9 bits | kind (4) | sub (18). 0 is no key.
///
/// `sub` is the bucket of a bucket, and else the unit's length of its first cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CellKey(pub(crate) u64);

impl CellKey {
    pub(crate) fn new(series: SeriesId, kind: CellKind, len: usize) -> CellKey {
        let (tag, sub) = match kind {
            CellKind::Count => (1, len),
            CellKind::Sum => (2, len),
            CellKind::Residue => (3, 0),
            CellKind::Min => (4, 0),
            CellKind::Max => (5, 0),
            CellKind::Last => (6, 0),
            CellKind::Bucket(index) => (7, index as usize),
            CellKind::Level => (8, len),
            CellKind::Stamp => (9, 0),
            CellKind::Sparse(index) => (10, index as usize),
        };
        CellKey(u64::from(series.0) << SERIES_SHIFT | tag << KIND_SHIFT | sub as u64 & SUB_MASK)
    }

    /// Decodes a key word; `None` for 0, and for what nobody writes.
    fn decode(raw: u64) -> Option<(SeriesId, CellKind)> {
        let kind = match raw >> KIND_SHIFT & 0xf {
            1 => CellKind::Count,
            2 => CellKind::Sum,
            3 => CellKind::Residue,
            4 => CellKind::Min,
            5 => CellKind::Max,
            6 => CellKind::Last,
            7 => CellKind::Bucket((raw & SUB_MASK) as u32),
            8 => CellKind::Level,
            9 => CellKind::Stamp,
            10 => CellKind::Sparse((raw & SUB_MASK) as u32),
            _ => return None,
        };
        Some((SeriesId((raw >> SERIES_SHIFT) as u32), kind))
    }

    /// The length of the unit that begins with this key; `None` for a member's.
    fn unit_len(raw: u64) -> Option<usize> {
        let len = (raw & SUB_MASK) as usize;
        match Self::decode(raw)?.1 {
            CellKind::Sparse(_) => Some(1),
            CellKind::Count | CellKind::Sum | CellKind::Level => (len > 0).then_some(len),
            _ => None,
        }
    }
}

/// What a call does to a unit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CellOp {
    /// Adds to a count.
    Count(u64),
    /// Adds to a sum.
    Sum(f64),
    /// Adds a finite observation that belongs to that bucket of a histogram.
    Observe(usize, f64),
    /// States a gauge's value as of a time.
    Level(f64, u64),
    /// Adds a finite observation of a time to what a summary's buckets have in common; their
    /// counts, and the last observation, lie elsewhere.
    Summarize(f64, u64),
    /// States a summary's last observation as of a time: a part of a call.
    Note(f64, u64),
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// Nothing was done: there are no cells for it, or a sum would overflow.
    No,
    /// It is in the cells.
    Yes,
    /// So it is, and this is one of the calls after which to look whether the bus still has its
    /// name.
    YesAndLook,
}

/// What became of calls, the worst last.
#[cfg(not(loom))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// All that they did is committed.
    Committed,
    /// Some of it waits in its cells for room in the snapshot, all else is committed.
    NoRoom,
    /// Some of it was not read yet, or not committed.
    Unread,
}

/// What of a record that meets a full lane is kept as state.
#[cfg(not(loom))]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keep<'a> {
    /// Nothing: it is an event, and dropped.
    Nothing,
    /// This.
    State(&'a Unit, CellOp),
    /// What the definition of its series says.
    Record,
}

/// The cells that a series needs, and where they were found last.
#[derive(Debug)]
pub(crate) struct Unit {
    first: CellKind,
    /// The first cell's key, which names the series: that changes when it was freed and registered
    /// again.
    key: PrivateU64,
    len: usize,
    /// Where the unit begins in most lanes. A guess: the key there tells.
    hint: PrivateU64,
    /// The same for shared lanes.
    shared_hint: PrivateU64,
}

impl Unit {
    /// The integral part of a counter.
    pub(crate) fn count(series: SeriesId) -> Unit {
        Unit::new(series, CellKind::Count, 1)
    }

    /// The other part of a counter.
    pub(crate) fn sum(series: SeriesId) -> Unit {
        Unit::new(series, CellKind::Sum, 2)
    }

    /// A histogram with so many buckets, `+Inf` among them.
    pub(crate) fn histogram(series: SeriesId, buckets: usize) -> Unit {
        Unit::new(series, CellKind::Sum, CellKind::BUCKETS + buckets)
    }

    /// A gauge's value, for when its lane is full.
    pub(crate) fn level(series: SeriesId) -> Unit {
        Unit::new(series, CellKind::Level, 2)
    }

    /// What the buckets of a summary have in common, for when its lane is full. Its last
    /// observation lies in a [`level`](Self::level), which has a time: those in the ring may be
    /// later.
    pub(crate) fn summary(series: SeriesId) -> Unit {
        Unit::new(series, CellKind::Sum, CellKind::BUCKETS)
    }

    /// A bucket of a summary.
    #[cfg(not(loom))]
    pub(crate) fn sparse(&self, index: u32) -> Unit {
        Unit::new(self.series(), CellKind::Sparse(index), 1)
    }

    pub(crate) fn series(&self) -> SeriesId {
        SeriesId((self.key() >> SERIES_SHIFT) as u32)
    }

    #[inline(always)]
    fn key(&self) -> u64 {
        self.key.load(Ordering::Relaxed)
    }

    /// Goes over to another id of the same series.
    #[cfg(not(loom))]
    pub(crate) fn follow(&self, series: SeriesId) {
        if !self.is_of(series) {
            let key = CellKey::new(series, self.first, self.len);
            self.key.store(key.0, Ordering::Relaxed);
        }
    }

    /// Whether its series has that id: on another bus it has another.
    #[cfg(not(loom))]
    pub(crate) fn is_of(&self, series: SeriesId) -> bool {
        self.series() == series
    }

    /// The same for another series.
    #[cfg(not(loom))]
    pub(crate) fn of(&self, series: SeriesId) -> Unit {
        Unit::new(series, self.first, self.len)
    }

    fn new(series: SeriesId, first: CellKind, len: usize) -> Unit {
        Unit {
            first,
            key: PrivateU64::new(CellKey::new(series, first, len).0),
            len,
            hint: PrivateU64::new(0),
            shared_hint: PrivateU64::new(0),
        }
    }

    /// The key of the cell at a place of the unit.
    fn member(&self, offset: usize) -> CellKey {
        if offset == 0 {
            return CellKey(self.key());
        }
        CellKey::new(self.series(), self.kind(offset), self.len)
    }

    /// What the cell at a place of the unit holds.
    fn kind(&self, offset: usize) -> CellKind {
        if offset == 0 {
            self.first
        } else {
            self.first.member(offset)
        }
    }
}

impl Clone for Unit {
    fn clone(&self) -> Unit {
        let copy = |word: &PrivateU64| PrivateU64::new(word.load(Ordering::Relaxed));
        Unit {
            first: self.first,
            key: copy(&self.key),
            len: self.len,
            hint: copy(&self.hint),
            shared_hint: copy(&self.shared_hint),
        }
    }
}

/// The cells of a lane, in memory that somebody else owns.
#[derive(Clone, Copy)]
pub(crate) struct Bank<'a> {
    head: &'a CellHead,
    /// A power of two of them, or none.
    cells: &'a [Cell],
    /// Of each cell the value that is committed. The consumer writes it.
    seen: &'a [AtomicU64],
    /// Of each group the pulse whose calls are committed. The consumer writes it.
    seen_pulses: &'a [AtomicU64; CELL_GROUPS],
    /// The same of what was read, where some of it waits for room. The consumer writes it.
    waiting_pulses: &'a [AtomicU64; CELL_GROUPS],
}

impl std::fmt::Debug for Bank<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bank")
            .field("cells", &self.cells.len())
            .finish()
    }
}

impl<'a> Bank<'a> {
    /// # Panics
    ///
    /// When the lengths are none that a checked geometry has.
    pub(crate) fn new(
        head: &'a CellHead,
        cells: &'a [Cell],
        seen: &'a [AtomicU64],
        lane_head: &'a LaneHead,
    ) -> Bank<'a> {
        assert!(cells.is_empty() || cells.len().is_power_of_two());
        assert!(cells.len() == seen.len() && cells.len().is_multiple_of(CELL_GROUPS));
        Bank {
            head,
            cells,
            seen,
            seen_pulses: &lane_head.seen_pulses,
            waiting_pulses: &lane_head.waiting_pulses,
        }
    }

    /// Cells of a group: no unit lies in two.
    fn group_len(&self) -> usize {
        self.cells.len() / CELL_GROUPS
    }

    /// The group that a cell is in.
    #[inline(always)]
    fn group(&self, at: usize) -> usize {
        // At least 16 cells where there are any: no division by zero, and a shift.
        at >> (self.cells.len().trailing_zeros() - CELL_GROUPS.trailing_zeros())
    }

    /// How many cells were used so far.
    fn used(&self) -> usize {
        // Relaxed: C1 and C4 order it, and a value that is too high leads to cells without a key.
        (self.head.used.load(Ordering::Relaxed) as usize).min(self.cells.len())
    }

    /// Where a unit of that length can begin, from `at` on, without lying in two groups. Any
    /// numbers: `at` may be a wild `used`.
    fn fit(&self, at: usize, len: usize) -> Option<usize> {
        let group_len = self.group_len();
        if len > group_len || at > self.cells.len() {
            return None;
        }
        let room = group_len - at % group_len;
        let start = if room < len { at + room } else { at };
        (start + len <= self.cells.len()).then_some(start)
    }

    /// Whether the unit of that key begins there, with all of its cells: the key may be a wild one.
    fn is_unit(&self, at: usize, key: u64, len: usize) -> bool {
        // Acquire: pairs with the store of the first key in `claim`: the members have theirs.
        let is_named = |cell: &Cell| cell.key.load(Ordering::Acquire) == key;
        self.cells.get(at).is_some_and(is_named) && self.fit(at, len) == Some(at)
    }

    /// What all writers together have called so far.
    pub(crate) fn calls(&self) -> u64 {
        let load = |group: usize| self.head.pulses[group].load(Ordering::Relaxed);
        calls(&std::array::from_fn(load))
    }

    /// How many of them are not committed yet, at most: their values may be.
    #[cfg(not(loom))]
    pub(crate) fn waiting_calls(&self) -> u64 {
        let load = |group: usize| self.seen_pulses[group].load(Ordering::Relaxed);
        let seen = calls(&std::array::from_fn(load));
        self.calls().wrapping_sub(seen) % TOUCH
    }

    /// The pulses now; what waits for them to be committed compares them with
    /// [`fate`](Self::fate).
    #[cfg(not(loom))]
    pub(crate) fn pulses(&self) -> [u64; CELL_GROUPS] {
        std::array::from_fn(|group| self.head.pulses[group].load(Ordering::Acquire))
    }

    /// What became of the calls that these pulses count.
    #[cfg(not(loom))]
    pub(crate) fn fate(&self, pulses: &[u64; CELL_GROUPS]) -> Fate {
        let covers = |word: &AtomicU64, pulse: u64| {
            // Wrapping: a pulse is at most a few laps of its consumer ahead.
            word.load(Ordering::Acquire).wrapping_sub(pulse) < 1 << 63
        };
        let of_group = |group: usize| match pulses[group] {
            pulse if covers(&self.seen_pulses[group], pulse) => Fate::Committed,
            pulse if covers(&self.waiting_pulses[group], pulse) => Fate::NoRoom,
            _ => Fate::Unread,
        };
        let groups = (0..CELL_GROUPS).map(of_group);
        groups.max().unwrap_or(Fate::Committed)
    }

    /// Marks the units of series that are gone, in place of whoever writes here (C5). Not in the
    /// way of a writer that gives the cells another key.
    pub(crate) fn revoke(&self, is_gone: &mut dyn FnMut(SeriesId) -> bool) {
        // C5: pairs with the fence in `is_kept`.
        fence(Ordering::SeqCst);
        for cell in &self.cells[..self.used()] {
            let key = cell.key.load(Ordering::Relaxed);
            let Some((series, _)) = CellKey::decode(key) else {
                continue;
            };
            if key & REVOKED == 0 && CellKey::unit_len(key).is_some() && is_gone(series) {
                let (order, relaxed) = (Ordering::AcqRel, Ordering::Relaxed);
                let _ = cell
                    .key
                    .compare_exchange(key, key | REVOKED, order, relaxed);
                testpoint!("revoked");
            }
        }
    }

    /// Whether the unit that was found there may be written to: its series is still there. Else
    /// nobody is to find it again.
    pub(crate) fn is_kept(&self, at: usize, is_open: impl FnOnce(SeriesId) -> bool) -> bool {
        // C5: pairs with the fence in `revoke`.
        fence(Ordering::SeqCst);
        let Some(cell) = self.cells.get(at) else {
            return false;
        };
        let key = cell.key.load(Ordering::Relaxed);
        let Some((series, _)) = CellKey::decode(key).filter(|_| key & REVOKED == 0) else {
            return false;
        };
        if is_open(series) {
            return true;
        }
        let (order, relaxed) = (Ordering::AcqRel, Ordering::Relaxed);
        let _ = cell
            .key
            .compare_exchange(key, key | REVOKED, order, relaxed);
        false
    }

    /// Forgets what the bank borrows.
    ///
    /// # Safety
    ///
    /// The mapping outlives the result: its holder keeps the mapping for as long.
    #[cfg(not(loom))]
    pub(crate) unsafe fn extend(self) -> Bank<'static> {
        // SAFETY: only the lifetime changes, and the caller keeps the mapping.
        unsafe { std::mem::transmute::<Bank<'_>, Bank<'static>>(self) }
    }
}

/// In a gauge's stamp in a shared lane: somebody is about to state another value.
const CHANGING: u64 = 1 << 63;

/// A call, in a pulse.
const CALL: u64 = 1;
/// In a pulse: something was written for a call that another group's pulse counts.
const TOUCH: u64 = 1 << 48;

/// The calls that pulses count together, modulo [`TOUCH`].
fn calls(pulses: &[u64; CELL_GROUPS]) -> u64 {
    let sum = pulses
        .iter()
        .fold(0, |sum: u64, pulse| sum.wrapping_add(*pulse));
    sum % TOUCH
}

/// A state as its word: never 0, which says that there is none. No NaN that anybody computes is all
/// ones.
#[inline(always)]
fn encode_state(value: f64) -> u64 {
    !value.to_bits()
}

/// The same for a value that anybody may state.
fn encode_level(value: f64) -> u64 {
    encode_state(if value.is_nan() { f64::NAN } else { value })
}

/// The state that a word says; NaN when there is none.
#[inline(always)]
fn decode_state(word: u64) -> f64 {
    f64::from_bits(!word)
}

/// Whether a value is smaller than the smallest so far, or the first.
#[inline(always)]
fn is_smallest(value: f64, word: u64) -> bool {
    let smallest = decode_state(word);
    value < smallest || smallest.is_nan()
}

/// Whether a value is larger than the largest so far, or the first.
#[inline(always)]
fn is_largest(value: f64, word: u64) -> bool {
    let largest = decode_state(word);
    value > largest || largest.is_nan()
}

/// Adds `value` to `sum`: the rounded sum, and what rounding took from it, exactly (Knuth's
/// TwoSum).
#[inline(always)]
fn two_sum(sum: f64, value: f64) -> (f64, f64) {
    let rounded = sum + value;
    let kept = rounded - sum;
    (rounded, (sum - (rounded - kept)) + (value - kept))
}
