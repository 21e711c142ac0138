//! The consuming side: drains all lanes, frees what was committed, reaps the dead.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::time::Duration;

use crate::bus::{Bus, MappedBus};
use crate::clock;
use crate::doorbell;
use crate::error::ConsumeError;
use crate::fork::{self, Generation};
use crate::lane::cell::{CellChange, Harvest, Look, Placed};
use crate::lane::{Drained, Lane, POSITION_MAX, count, shared::Stall};
use crate::layout::CELL_GROUPS;
use crate::liveness::{AGGREGATOR_BYTE, Locks, owner_byte};
use crate::owner::{OwnerCounts, OwnerId, OwnerPhase};
use crate::record::SeriesId;
use crate::registry::FamilyId;
use crate::sync::Ordering;
use crate::testpoint;

/// After this long a claim that is not published is given up, if its owner lives: 1 s.
pub const STALL_LIMIT_NS: u64 = 1_000_000_000;
/// After this long a claim that is not published makes the consumer ask whether its owner lives.
const SUSPICION_NS: u64 = 2_000_000;

/// Drains the lanes of a bus. One process at a time has it, by a lock that its death frees.
///
/// Draining frees nothing: a slot may be written again once [`free`](Self::free) was called for its
/// lane, which is to be done when what was drained is safe. Until then a successor finds it again.
#[derive(Debug)]
pub struct Consumer {
    bus: Bus,
    lanes: Vec<LaneCursor>,
    /// Holds the aggregator's byte.
    lease: Locks,
    /// Another open, for bytes of the dead.
    reaper: Locks,
    /// The process that has become the consumer.
    generation: Generation,
    /// Whether another process has: foreign code closed the descriptor of the lease.
    is_superseded: bool,
}

#[derive(Debug)]
struct LaneCursor {
    /// Borrows the mapping, which `Consumer::bus` keeps.
    ring: Lane<'static>,
    is_shared: bool,
    /// Next position to drain.
    position: u64,
    /// What the lane's head says: positions below are free.
    freed: u64,
    cells: Harvest<'static>,
    /// The cells' pulses before the ring was drained.
    look: Look,
    /// Where the ring ended after that look.
    look_end: u64,
    /// Whether what it saw was not handed on yet.
    has_unread: bool,
    /// Claims that are not published, by position, and since when each is known.
    claims: BTreeMap<u64, (Stall, u64)>,
    /// When claims were last looked for, while one stops the drain.
    looked_ns: u64,
}

impl Bus {
    /// The consuming side: one process at a time, the aggregator.
    ///
    /// # Errors
    ///
    /// Another process is the aggregator; the error names its pid.
    pub fn consumer(&self) -> Result<Consumer, ConsumeError> {
        Consumer::new(self)
    }
}

/// What was taken of the cells of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenCells {
    /// Cells whose change was placed.
    pub changed: u64,
    /// From where to where the lane's count of calls went: for [`Consumer::attribute_calls`].
    pub calls: (u64, u64),
}

impl Consumer {
    pub(crate) fn new(bus: &Bus) -> Result<Consumer, ConsumeError> {
        let mapped = bus.mapped();
        let open = || {
            mapped
                .locks()
                .map_err(ConsumeError::Io)?
                .ok_or(ConsumeError::Removed)
        };
        let (lease, reaper) = (open()?, open()?);
        let header = mapped.header();
        if !lease.try_lock(AGGREGATOR_BYTE).map_err(ConsumeError::Io)? {
            return Err(ConsumeError::Taken {
                pid: header.aggregator_pid.load(Ordering::Acquire),
            });
        }
        testpoint!("aggregator-byte");
        // Who removed the file after it was opened above had the lock until then.
        if lease.names() == Some(0) {
            return Err(ConsumeError::Removed);
        }
        header
            .aggregator_started_ns
            .store(clock::precise_ns(), Ordering::Relaxed);
        header
            .aggregator_pid
            .store(u64::from(std::process::id()), Ordering::Release);
        testpoint!("aggregator-signed");
        let cursor = |index| {
            // SAFETY: the consumer's bus keeps the mapping.
            let ring = unsafe { mapped.lane(index).extend() };
            let head = ring.begin();
            // SAFETY: `bus` keeps the mapping for as long as the consumer has the cursor.
            let bank = unsafe { mapped.bank(index).extend() };
            let mut cells = Harvest::new(bank, ring.lease_word());
            LaneCursor {
                ring,
                look: cells.look(),
                look_end: 0,
                has_unread: false,
                cells,
                is_shared: index < mapped.geometry().shared_lanes as usize,
                position: head,
                freed: head,
                claims: BTreeMap::new(),
                looked_ns: 0,
            }
        };
        let lanes = (0..mapped.geometry().lanes as usize).map(cursor).collect();
        Ok(Consumer {
            bus: bus.clone(),
            lanes,
            lease,
            reaper,
            generation: fork::generation(),
            is_superseded: false,
        })
    }

    /// The bus.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Takes what a predecessor was about to free out of the registry, and finds no more cells of
    /// it. To be called once.
    pub fn sweep(&self) {
        let registry = self.bus.mapped().registry();
        registry.sweep();
        self.revoke(&mut |id| !registry.is_open(id));
    }

    /// Frees series that were forgotten, and not registered again since; leaves in `ids` those that
    /// it freed: they are stale, and what is still emitted under them belongs to nobody.
    pub fn free_series(&self, ids: &mut Vec<SeriesId>) {
        let registry = self.bus.mapped().registry();
        ids.retain(|&id| registry.free_series(id));
        if !ids.is_empty() {
            ids.sort_unstable();
            self.revoke(&mut |id| ids.binary_search(&id).is_ok());
        }
    }

    fn revoke(&self, is_gone: &mut dyn FnMut(SeriesId) -> bool) {
        for lane in 0..self.lanes.len() {
            self.bus.mapped().bank(lane).revoke(is_gone);
        }
    }

    /// Marks a family as one to be freed if a look at all series, from now on, finds none of it.
    pub fn suspect_family(&self, id: FamilyId) -> bool {
        self.bus.mapped().registry().suspect_family(id)
    }

    /// Frees a family of which that look found no series; false when one was registered since.
    pub fn free_family(&self, id: FamilyId) -> bool {
        self.bus.mapped().registry().free_family(id)
    }

    /// Whether so much is registered that what was forgotten is to be freed soon.
    pub fn is_filling(&self) -> bool {
        self.bus.mapped().registry().is_filling()
    }

    /// How many lanes there are.
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// The next position to drain of a lane.
    pub fn position(&self, lane: usize) -> u64 {
        self.lanes[lane].position
    }

    /// Goes on at a position that a predecessor had committed. A position that the lane cannot have
    /// (before its head, or beyond what it holds) is refused, and draining goes on at the lane's
    /// head.
    pub fn resume(&mut self, lane: usize, position: u64) -> bool {
        let ring = self.lanes[lane].ring;
        let (head, capacity) = (ring.head(), ring.capacity());
        let plausible = position >= head && position - head <= capacity && position <= POSITION_MAX;
        if plausible {
            self.lanes[lane].position = position;
            self.free(lane);
        }
        plausible
    }

    /// Goes on with the cells of a lane where a predecessor had committed them.
    pub fn resume_cells(&mut self, lane: usize, group: usize, version: &[u64]) {
        if group < CELL_GROUPS {
            self.lanes[lane].cells.resume(group, version);
        }
    }

    /// Loads what tells whether something came to the cells of a lane. To be done before its ring
    /// is drained: what a thread did in order is then folded in order, since cells are taken once
    /// the ring is drained as far as it reached at the look.
    #[inline]
    pub fn look_at_cells(&mut self, lane: usize) {
        let cursor = &mut self.lanes[lane];
        if cursor.position < cursor.look_end {
            // What came before the last look is not all drained.
            return;
        }
        cursor.look = cursor.cells.look();
        if !cursor.is_shared {
            // What a lane cannot hold is garbage. The tail of a shared lane is a hint.
            let longest = cursor.position.saturating_add(cursor.ring.capacity());
            cursor.look_end = cursor.ring.tail().min(longest);
        }
    }

    /// Hands on what came to the cells of a lane since they were taken last, as far as the last
    /// look saw. `None` when nothing did.
    #[inline]
    pub fn take_cells(
        &mut self,
        lane: usize,
        visit: &mut impl FnMut(SeriesId, CellChange) -> Placed,
    ) -> Option<TakenCells> {
        let cursor = &mut self.lanes[lane];
        cursor.has_unread = cursor.cells.is_due(&cursor.look);
        if !cursor.has_unread || cursor.position < cursor.look_end {
            return None;
        }
        let mut changed = 0;
        let calls = cursor.cells.take(&cursor.look, &mut |series, change| {
            let placed = visit(series, change);
            changed += u64::from(placed == Placed::Yes);
            placed
        });
        cursor.has_unread = cursor.cells.was_skipped();
        Some(TakenCells { changed, calls })
    }

    /// Whether something that the last look saw in the cells of a lane was not handed on yet: what
    /// is in its ring comes first, or a cell got another key just then.
    pub fn has_unread_cells(&self, lane: usize) -> bool {
        self.lanes[lane].has_unread
    }

    /// Whether all calls that the last looks at the cells of shared lanes saw count as taken: none
    /// waits for room, or for another commit.
    pub fn has_taken_shared_calls(&self) -> bool {
        let mut shared = self.lanes.iter().filter(|cursor| cursor.is_shared);
        shared.all(|cursor| cursor.cells.is_settled(&cursor.look))
    }

    /// Says whose the calls were that wrote to the cells of a lane. What owners write to shared
    /// lanes, they count themselves.
    pub fn attribute_calls(
        &self,
        lane: usize,
        calls: (u64, u64),
        visit: &mut impl FnMut(OwnerId, u64),
    ) {
        let cursor = &self.lanes[lane];
        if !cursor.is_shared {
            cursor.cells.attribute(calls, visit);
        }
    }

    /// The groups of a lane's cells of which a commit has something to keep.
    pub fn touched_cells(&self, lane: usize) -> impl Iterator<Item = usize> {
        self.lanes[lane].cells.touched()
    }

    /// What a commit is to keep of a group of cells: for [`resume_cells`](Self::resume_cells).
    pub fn cells_version(&self, lane: usize, group: usize) -> impl Iterator<Item = u64> {
        self.lanes[lane].cells.version(group)
    }

    /// Whether any number of producers share a lane; else one has it at a time.
    pub fn is_shared(&self, lane: usize) -> bool {
        self.lanes[lane].is_shared
    }

    /// Hands at most `budget` slots of a lane that is not shared to `visit`; how many.
    #[inline]
    pub fn drain_exclusive(
        &mut self,
        lane: usize,
        budget: u64,
        visit: &mut impl FnMut(Drained),
    ) -> u64 {
        let cursor = &mut self.lanes[lane];
        let from = cursor.position;
        cursor.position = cursor.ring.drain_exclusive(from, budget, visit);
        cursor.position - from
    }

    /// Hands at most `budget` slots of a shared lane to `visit`; how many.
    pub fn drain_shared(
        &mut self,
        lane: usize,
        budget: u64,
        now_ns: u64,
        visit: &mut impl FnMut(Drained),
    ) -> u64 {
        let cursor = &self.lanes[lane];
        let (ring, from) = (cursor.ring, cursor.position);
        let is_nobody = |owner| self.bus.mapped().is_nobody(owner);
        let (position, stall) = ring.drain_shared(from, budget, &is_nobody, visit);
        self.lanes[lane].position = position;
        self.attend(lane, stall, now_ns);
        position - from
    }

    /// Frees all that was drained of a lane, for producers to write again.
    pub fn free(&mut self, lane: usize) {
        let cursor = &mut self.lanes[lane];
        if cursor.freed != cursor.position {
            cursor.freed = cursor.position;
            cursor.ring.free(cursor.position);
            testpoint!("freed");
        }
        cursor.cells.committed();
    }

    /// Stores the lanes' heads again that somebody else overwrote: else producers could find a lane
    /// full for ever. How many.
    pub fn restore_heads(&self) -> u64 {
        let mut restored = 0;
        for cursor in &self.lanes {
            if cursor.ring.head() != cursor.freed {
                cursor.ring.free(cursor.freed);
                restored += 1;
            }
        }
        restored
    }

    /// Whether a lane holds what was not drained yet. A lagging hint of a shared lane may hide
    /// some.
    #[inline]
    pub fn has_more(&self, lane: usize) -> bool {
        let cursor = &self.lanes[lane];
        cursor.ring.tail() > cursor.position || cursor.cells.is_due(&cursor.look)
    }

    /// Looks for the dead among owners, and repairs what they left: claims become TORN, leases
    /// free. How many.
    ///
    /// # Errors
    ///
    /// The locks cannot be asked.
    pub fn reap(&mut self, owners: Range<usize>) -> io::Result<usize> {
        self.keep_locks()?;
        // The file may have been taken away by other means than `Bus::remove`, a plain `rm` say.
        if self.lease.names() == Some(0) && !self.mapped().is_removed() {
            self.mapped().declare_removed();
        }
        let mut reaped = 0;
        for index in owners.start..owners.end.min(self.mapped().owners().len()) {
            reaped += usize::from(self.reap_owner(index)?);
        }
        for lane in self.mapped().exclusive_lanes() {
            // A lease that names nobody is garbage.
            if let Some(holder) = lane
                .holder()
                .filter(|&holder| self.mapped().is_nobody(holder))
            {
                lane.take_back(holder);
            }
        }
        Ok(reaped)
    }

    /// Whether another process has become the consumer, since foreign code closed the descriptor of
    /// this one's lock. [`reap`](Self::reap) finds out. This one must drain and free nothing any
    /// more.
    pub fn is_superseded(&self) -> bool {
        self.is_superseded
    }

    /// Opens again what foreign code closed, and takes the aggregator's byte again.
    fn keep_locks(&mut self) -> io::Result<()> {
        // In a forked child the byte is its parent's.
        if fork::generation() != self.generation || self.is_superseded {
            return Ok(());
        }
        let mapped = self.bus.mapped();
        let reopen = |locks: &Locks| locks.reopen(mapped.path(), mapped.region.id());
        if !self.lease.is_open() {
            if !reopen(&self.lease)? {
                // Its name means another file by now: nobody else finds this one.
                mapped.declare_removed();
                return Ok(());
            }
            self.is_superseded = !self.lease.try_lock(AGGREGATOR_BYTE)?;
        }
        if !self.reaper.is_open() {
            reopen(&self.reaper)?;
        }
        Ok(())
    }

    /// The counters of an entry of the owner table; `None` for one that was never used, or while it
    /// changes hands.
    pub fn owner_counts(&self, index: usize) -> Option<OwnerCounts> {
        let entry = self.mapped().owners().get(index)?;
        if entry.state().phase == OwnerPhase::Free {
            None
        } else {
            entry.counts()
        }
    }

    /// Sleeps until somebody waits for the consumer ([`Bus::flush`], a producer that waits for
    /// room), at most for `longest`.
    pub fn nap(&self, longest: Duration) {
        doorbell::sleep(&self.mapped().header().doorbell, longest);
    }

    /// Counts what made no sense in the registry or a lane.
    pub fn count_violations(&self, n: u64) {
        count(&self.mapped().header().violations, n);
    }

    fn mapped(&self) -> &MappedBus {
        self.bus.mapped()
    }

    /// Asks, and in the end decides, about claims that are not published.
    fn attend(&mut self, lane: usize, stall: Option<Stall>, now_ns: u64) {
        let cursor = &mut self.lanes[lane];
        cursor.claims = cursor.claims.split_off(&cursor.position);
        let Some(stall) = stall else {
            return;
        };
        // The clocks of all claims run at once: else who waits behind several of stopped producers
        // would wait for one after the other.
        let is_known = cursor.claims.contains_key(&stall.position);
        if !is_known || now_ns.saturating_sub(cursor.looked_ns) >= SUSPICION_NS {
            cursor.looked_ns = now_ns;
            for claim in cursor.ring.claims(stall.position) {
                cursor
                    .claims
                    .entry(claim.position)
                    .or_insert((claim, now_ns));
            }
        }
        let waited_ns = |since_ns: u64| now_ns.saturating_sub(since_ns);
        let is_suspect = |&(claim, since_ns): &(Stall, u64)| {
            let limit_ns = if claim.position == stall.position {
                SUSPICION_NS
            } else {
                STALL_LIMIT_NS
            };
            waited_ns(since_ns) >= limit_ns
        };
        let suspects: Vec<_> = cursor.claims.values().copied().filter(is_suspect).collect();
        for (claim, since_ns) in suspects {
            self.decide(lane, claim, waited_ns(since_ns) >= STALL_LIMIT_NS);
        }
    }

    /// Repairs what a dead owner left, and gives up a living one's claim when it is overdue.
    fn decide(&mut self, lane: usize, claim: Stall, is_overdue: bool) {
        // The owner's entry may be another's by now, or none: then the claim is garbage or a dead
        // one's whom a joiner repairs right now; the stall limit covers both.
        let index = usize::from(claim.owner.index);
        let reaped =
            index < self.mapped().owners().len() && self.reap_owner(index).unwrap_or(false);
        if reaped || !is_overdue {
            return;
        }
        let ring = self.lanes[lane].ring;
        if self.mapped().is_nobody(claim.owner) {
            ring.reap(claim.owner);
        } else {
            ring.revoke(claim);
        }
        self.lanes[lane].claims.remove(&claim.position);
    }

    /// Repairs an entry if its occupant is dead.
    fn reap_owner(&self, index: usize) -> io::Result<bool> {
        let mapped = self.mapped();
        let entry = &mapped.owners()[index];
        if matches!(entry.state().phase, OwnerPhase::Free | OwnerPhase::Left) {
            return Ok(false);
        }
        let byte = owner_byte(index);
        // Asking first keeps a joiner from meeting our lock.
        if self.reaper.is_held(byte)? || !self.reaper.try_lock(byte)? {
            return Ok(false);
        }
        testpoint!("byte-taken");
        let repaired = mapped.repair(index);
        self.reaper.unlock(byte)?;
        testpoint!("byte-returned");
        Ok(repaired)
    }
}
