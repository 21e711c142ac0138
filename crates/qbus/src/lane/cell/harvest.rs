//! The consuming half: what came to the cells of a lane since it was last committed.

use super::{Bank, CHANGING, CellKey, CellKind, TOUCH, calls, decode_state, two_sum};
use crate::lane::Lease;
use crate::layout::{CELL_GROUPS, HANDOVERS};
use crate::owner::OwnerId;
use crate::record::SeriesId;
use crate::sync::{AtomicU64, Ordering, fence};
use crate::testpoint;

/// No series has it.
const NO_SERIES: SeriesId = SeriesId(u32::MAX);
/// How often hand-overs are read again when one comes meanwhile.
const TRIES: usize = 4;

/// What came to a cell of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CellChange {
    /// A counter grew by a whole number.
    Count(u64),
    /// A counter, or the sum of a histogram, changed by the sum of both: the second is what the
    /// first lacks by rounding.
    Sum(f64, f64),
    /// What such a sum lacks by the rounding of its writer: of either sign.
    Residue(f64),
    /// An observation in that bucket of a histogram, so often.
    Bucket(u32, u64),
    /// A writer's smallest observation so far.
    Min(f64),
    /// A writer's largest observation so far.
    Max(f64),
    /// An observation of a histogram that came after all others of its lane.
    Last(f64),
    /// A gauge's value as of a time in nanoseconds since the Unix epoch: its lane was full.
    Level(f64, u64),
    /// An observation in that bucket of a summary ([`crate::exponential`]), so often: its lane was
    /// full.
    Sparse(u32, u64),
    /// The word makes no sense: it fell, or is not finite. It is passed over.
    Violation,
}

/// What became of a change; of several the last one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Placed {
    /// It is in the consumer's state, and counts with the next commit.
    Yes,
    /// It waits for another cell of its series: it stays in its cell, and the next round tries
    /// again.
    NotNow,
    /// There is no room for its series: it stays in its cell until a round finds room, and the
    /// calls of its group do not count as taken before it is.
    NoRoom,
    /// Another commit comes first: likewise, and soon.
    Later,
}

/// The pulses of a lane's cells, loaded before its ring is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look([u64; CELL_GROUPS]);

/// A consumer's view of a lane's cells.
#[derive(Debug)]
pub(crate) struct Harvest<'a> {
    bank: Bank<'a>,
    /// The lane's lease word: when it changes, a value may be there that no pulse counts.
    lease: &'a AtomicU64,
    leased: u64,
    /// Of each cell the value up to which it was taken.
    last: Vec<u64>,
    /// Of each group the pulse up to which it was read.
    known: [u64; CELL_GROUPS],
    /// The same where some of it waits for room, which leaves `known` as it was.
    waiting: [u64; CELL_GROUPS],
    /// Groups to be read whatever their pulse says.
    due: [bool; CELL_GROUPS],
    /// Of each cell with which a unit begins the series whose smallest and largest observation were
    /// taken: another one's may be the same words.
    extremes_of: Vec<SeriesId>,
    /// Cells whose `last` is not in `seen` yet.
    changed: Vec<u32>,
    /// Groups of which something is not committed yet.
    touched: [bool; CELL_GROUPS],
    /// Whether a group was passed by: a cell got another key while it was read.
    was_skipped: bool,
}

impl<'a> Harvest<'a> {
    /// Begins where the region says that the last consumer was.
    pub(crate) fn new(bank: Bank<'a>, lease: &'a AtomicU64) -> Harvest<'a> {
        let load = |word: &AtomicU64| word.load(Ordering::Acquire);
        Harvest {
            bank,
            lease,
            leased: load(lease),
            last: bank.seen.iter().map(load).collect(),
            known: std::array::from_fn(|group| load(&bank.seen_pulses[group])),
            waiting: std::array::from_fn(|group| load(&bank.waiting_pulses[group])),
            due: [!bank.cells.is_empty(); CELL_GROUPS],
            extremes_of: vec![NO_SERIES; bank.cells.len()],
            changed: Vec::new(),
            touched: [false; CELL_GROUPS],
            was_skipped: false,
        }
    }

    /// Goes on where a snapshot says that the last consumer was: the words of
    /// [`version`](Self::version).
    pub(crate) fn resume(&mut self, group: usize, version: &[u64]) {
        let Some((&pulse, values)) = version.split_first() else {
            return;
        };
        let start = group * self.bank.group_len();
        let last = &mut self.last[start..][..self.bank.group_len()];
        last.fill(0);
        for (last, &value) in last.iter_mut().zip(values) {
            *last = value;
        }
        self.known[group] = pulse;
        self.due[group] = true;
        for at in start..start + self.bank.group_len() {
            // C3 (release), as in `committed`: a predecessor may have died before it came to this
            // cell.
            self.bank.seen[at].store(self.last[at], Ordering::Release);
        }
        self.bank.seen_pulses[group].store(pulse, Ordering::Release);
    }

    /// What a commit is to keep of a group: its pulse, and of each used cell the value.
    pub(crate) fn version(&self, group: usize) -> impl Iterator<Item = u64> {
        let start = group * self.bank.group_len();
        let end = (start + self.bank.group_len()).min(self.bank.used().max(start));
        let values = self.last[start..end].iter().copied();
        std::iter::once(self.known[group]).chain(values)
    }

    /// The groups of which a commit has something to keep.
    pub(crate) fn touched(&self) -> impl Iterator<Item = usize> {
        (0..CELL_GROUPS).filter(|&group| self.touched[group])
    }

    /// Whether there is something to read, at a glance.
    #[inline]
    pub(crate) fn is_due(&self, look: &Look) -> bool {
        look.0 != self.known || self.due.contains(&true)
    }

    /// Loads the pulses. To be done before the lane's ring is drained: what a thread did in order
    /// is then folded in order.
    #[inline]
    pub(crate) fn look(&mut self) -> Look {
        let leased = self.lease.load(Ordering::Acquire);
        if leased != self.leased {
            self.leased = leased;
            self.due = [!self.bank.cells.is_empty(); CELL_GROUPS];
        }
        // C1 (acquire): pairs with the stores of writers.
        let pulse = |group: usize| self.bank.head.pulses[group].load(Ordering::Acquire);
        Look(std::array::from_fn(pulse))
    }

    /// Hands on what came since the last time. How many calls that was is for
    /// [`attribute`](Self::attribute): from where to where all pulses together went.
    pub(crate) fn take(
        &mut self,
        look: &Look,
        visit: &mut impl FnMut(SeriesId, CellChange) -> Placed,
    ) -> (u64, u64) {
        let before = super::calls(&self.known);
        self.was_skipped = false;
        for group in 0..CELL_GROUPS {
            if look.0[group] == self.known[group] && !self.due[group] {
                continue;
            }
            match self.read(group, visit) {
                Some(placed) => {
                    let taken = match placed {
                        Placed::Yes | Placed::NotNow => Some(&mut self.known[group]),
                        Placed::NoRoom => Some(&mut self.waiting[group]),
                        Placed::Later => None,
                    };
                    if let Some(taken) = taken {
                        self.touched[group] |= *taken != look.0[group];
                        *taken = look.0[group];
                    }
                    self.due[group] = placed != Placed::Yes;
                }
                // A cell got another key meanwhile: what its value belongs to is not known. The
                // pulse stays unknown, so that the group is read again.
                None => {
                    self.due[group] = true;
                    self.was_skipped = true;
                }
            }
        }
        (before, calls(&self.known))
    }

    /// Whether all calls that a look saw count as taken.
    pub(crate) fn is_settled(&self, look: &Look) -> bool {
        look.0 == self.known
    }

    /// Whether the last [`take`](Self::take) passed a group by, which is read again.
    pub(crate) fn was_skipped(&self) -> bool {
        self.was_skipped
    }

    /// Hands on what came to the cells of a group. `None` when a key changed meanwhile.
    fn read(
        &mut self,
        group: usize,
        visit: &mut impl FnMut(SeriesId, CellChange) -> Placed,
    ) -> Option<Placed> {
        let start = group * self.bank.group_len();
        let end = (start + self.bank.group_len()).min(self.bank.used());
        let mut placed = Placed::Yes;
        // The unit whose last observation was taken.
        let mut unit_of_last = usize::MAX;
        for at in start..end {
            let cell = &self.bank.cells[at];
            let key = cell.key.load(Ordering::Acquire);
            let value = cell.value.load(Ordering::Relaxed);
            let last = self.last[at];
            if value == last {
                continue;
            }
            // C2 (acquire): pairs with the fence in `CellWriter::name`.
            fence(Ordering::Acquire);
            if cell.key.load(Ordering::Relaxed) != key {
                return None;
            }
            let Some((series, kind)) = CellKey::decode(key) else {
                // A cell that lost its key had nothing that was not seen; one that never had any:
                // garbage.
                visit(NO_SERIES, CellChange::Violation);
                self.advance(group, at, value);
                continue;
            };
            let was_placed = match kind {
                CellKind::Level => self.take_level(group, at, series, visit),
                CellKind::Stamp => self.take_level(group, at.saturating_sub(1), series, visit),
                kind => {
                    let change = change(kind, last, value);
                    let placed = change.map_or(Placed::Yes, |change| visit(series, change));
                    if placed == Placed::Yes {
                        self.advance(group, at, value);
                    }
                    placed
                }
            };
            placed = placed.max(was_placed);
            // What has no place yet is told with its states when it has one.
            if let CellKind::Sum | CellKind::Last | CellKind::Bucket(_) = kind
                && was_placed == Placed::Yes
            {
                let unit = at.wrapping_sub(kind.offset());
                // The same value as the one before it is another observation all the same.
                if matches!(kind, CellKind::Bucket(_)) && unit != unit_of_last {
                    let taken = self.take_state(group, unit, series, CellKind::Last, visit);
                    placed = placed.max(taken);
                }
                if kind != CellKind::Sum {
                    unit_of_last = unit;
                }
                placed = placed.max(self.take_extremes(group, unit, series, visit));
            }
        }
        Some(placed)
    }

    /// Hands the smallest and the largest observation of a unit on, if they were taken for another
    /// series so far.
    fn take_extremes(
        &mut self,
        group: usize,
        unit: usize,
        series: SeriesId,
        visit: &mut impl FnMut(SeriesId, CellChange) -> Placed,
    ) -> Placed {
        // A wild key may say that its unit begins anywhere.
        if self.extremes_of.get(unit).is_none_or(|&of| of == series) {
            return Placed::Yes;
        }
        let mut take = |kind| self.take_state(group, unit, series, kind, visit);
        let taken = take(CellKind::Min).max(take(CellKind::Max));
        if taken == Placed::Yes {
            self.extremes_of[unit] = series;
        }
        taken
    }

    /// Hands a state of a unit on whether it changed or not, if the unit has one of that kind.
    fn take_state(
        &mut self,
        group: usize,
        unit: usize,
        series: SeriesId,
        kind: CellKind,
        visit: &mut impl FnMut(SeriesId, CellChange) -> Placed,
    ) -> Placed {
        let at = unit.wrapping_add(kind.offset());
        let Some(cell) = self.bank.cells.get(at) else {
            return Placed::Yes;
        };
        let key = cell.key.load(Ordering::Acquire);
        let value = cell.value.load(Ordering::Relaxed);
        // C2 (acquire), as in `read`.
        fence(Ordering::Acquire);
        let is_whole = cell.key.load(Ordering::Relaxed) == key;
        if !is_whole || CellKey::decode(key) != Some((series, kind)) {
            return Placed::Yes;
        }
        let placed = match change(kind, 0, value) {
            // Its writer has not come to it yet: what it will write may be the word that was here.
            None => Placed::Yes,
            // As garbage it comes by itself.
            Some(CellChange::Violation) => return Placed::Yes,
            Some(change) => visit(series, change),
        };
        if placed == Placed::Yes && value != self.last[at] {
            self.advance(group, at, value);
        }
        placed
    }

    /// Hands a gauge's value on, as of its time. Not while they change: the writer's pulse will
    /// tell, and who died meanwhile had not stated the value.
    fn take_level(
        &mut self,
        group: usize,
        at: usize,
        series: SeriesId,
        visit: &mut impl FnMut(SeriesId, CellChange) -> Placed,
    ) -> Placed {
        let (Some(level), Some(stamped)) = (self.bank.cells.get(at), self.bank.cells.get(at + 1))
        else {
            return Placed::Yes;
        };
        // C2 (acquire): pairs with the stores and the fence in `CellWriter::state`.
        let word = stamped.value.load(Ordering::Acquire);
        let value = level.value.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        // With the mark of a shared lane's writer: the time of the value before.
        let stamp = word & !CHANGING;
        if stamp == 0 || stamped.value.load(Ordering::Relaxed) != word {
            return Placed::Yes;
        }
        let placed = visit(series, CellChange::Level(decode_state(value), stamp));
        if placed == Placed::Yes {
            self.advance(group, at, value);
            self.advance(group, at + 1, word);
        }
        placed
    }

    fn advance(&mut self, group: usize, at: usize, value: u64) {
        self.last[at] = value;
        self.changed.push(at as u32);
        self.touched[group] = true;
    }

    /// Says whose so many calls were: from where to where all pulses went ([`take`](Self::take)).
    /// For an exclusive lane; who writes to a shared one counts its calls itself.
    pub(crate) fn attribute(&self, calls: (u64, u64), visit: &mut impl FnMut(OwnerId, u64)) {
        let (mut at, to) = calls;
        let between = |from: u64, to: u64| to.wrapping_sub(from) % TOUCH;
        // More than any run could call: somebody wrote to the pulses.
        if between(at, to) > TOUCH / 2 {
            return;
        }
        let (entries, writer) = self.handovers();
        let mut part = |lease: u64, end: u64| {
            // The hand-over may have come after these calls, and an old one before all of them.
            let ahead = between(at, end);
            let count = if ahead > TOUCH / 2 {
                0
            } else {
                ahead.min(between(at, to))
            };
            if count == 0 {
                return;
            }
            at = at.wrapping_add(count);
            if let Some(owner) = Lease::holder(lease) {
                visit(owner, count);
            }
        };
        for (lease, end) in entries {
            part(lease, end);
        }
        part(writer, to);
    }

    /// The hand-overs that are still known, oldest first, and who writes now.
    fn handovers(&self) -> (Vec<(u64, u64)>, u64) {
        let head = self.bank.head;
        let (mut entries, mut writer) = (Vec::new(), 0);
        for _ in 0..TRIES {
            let count = head.handovers.load(Ordering::Acquire);
            writer = head.writer.load(Ordering::Acquire);
            entries = (count.saturating_sub(HANDOVERS as u64)..count)
                .map(|n| {
                    let entry = &head.handover[n as usize % HANDOVERS];
                    let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
                    (load(&entry[0]), load(&entry[1]))
                })
                .collect();
            fence(Ordering::Acquire);
            if head.handovers.load(Ordering::Relaxed) == count {
                break;
            }
        }
        (entries, writer)
    }

    /// Tells writers what is committed: their cells may get other keys.
    pub(crate) fn committed(&mut self) {
        for at in self.changed.drain(..) {
            let at = at as usize;
            // C3 (release): pairs with the load in `CellWriter::is_seen`.
            self.bank.seen[at].store(self.last[at], Ordering::Release);
            testpoint!("cell-seen");
        }
        for group in 0..CELL_GROUPS {
            if std::mem::take(&mut self.touched[group]) {
                self.bank.seen_pulses[group].store(self.known[group], Ordering::Release);
                self.bank.waiting_pulses[group].store(self.waiting[group], Ordering::Release);
            }
        }
    }
}

/// What it means that a cell went from one word to another; `None` for a state that was taken away.
fn change(kind: CellKind, last: u64, value: u64) -> Option<CellChange> {
    let grown = |by: u64, change: CellChange| {
        // Half of all numbers ahead is behind.
        if by < 1 << 63 {
            change
        } else {
            CellChange::Violation
        }
    };
    let by = value.wrapping_sub(last);
    Some(match kind {
        CellKind::Count => grown(by, CellChange::Count(by)),
        CellKind::Bucket(index) => grown(by, CellChange::Bucket(index, by)),
        CellKind::Sparse(index) => grown(by, CellChange::Sparse(index, by)),
        CellKind::Residue => {
            let by = f64::from_bits(value) - f64::from_bits(last);
            if by.is_finite() {
                CellChange::Residue(by)
            } else {
                CellChange::Violation
            }
        }
        CellKind::Sum => {
            let (sum, residue) = two_sum(f64::from_bits(value), -f64::from_bits(last));
            if sum.is_finite() && residue.is_finite() {
                CellChange::Sum(sum, residue)
            } else {
                CellChange::Violation
            }
        }
        _ => {
            let state = decode_state(value);
            match kind {
                _ if value == 0 => return None,
                _ if !state.is_finite() => CellChange::Violation,
                CellKind::Min => CellChange::Min(state),
                CellKind::Max => CellChange::Max(state),
                _ => CellChange::Last(state),
            }
        }
    })
}
