//! Lanes: the ring buffers of the bus.
//!
//! Position p, which never wraps, lives in slot p mod N on lap p div N + 1; zeroed slots are EMPTY
//! of lap 0. A slot's `sequence` word names its lap, an owner and a [`SlotPhase`]. The consumer
//! never writes to a slot except to repair it; it frees slots by storing `head`.
//!
//! An [`exclusive`] lane has one producer at a time and needs no read-modify-write; a [`shared`]
//! lane takes any number of producers at once. Their edges and crash tables stand there.

pub(crate) mod cell;
pub(crate) mod exclusive;
#[cfg(test)]
pub(crate) mod heap;
pub(crate) mod shared;
#[cfg(all(test, not(loom)))]
mod tests;

use std::ops::Range;

use crate::layout::{LaneHead, LaneTail, Slot};
use crate::owner::OwnerId;
use crate::record::{BRIEF_WORDS, PAYLOAD_WORDS, Record, is_brief};
use crate::sync::{AtomicU64, Ordering};

const PHASE_BITS: u32 = 3;
const LAP_SHIFT: u32 = PHASE_BITS + OwnerId::BITS;
/// Laps are compared modulo 2^37: a slot would have to be left alone for exactly that many laps.
const LAP_MASK: u64 = (1 << (64 - LAP_SHIFT)) - 1;

/// Positions beyond this (a century of a record a nanosecond) are garbage.
pub(crate) const POSITION_MAX: u64 = 1 << 62;

/// What a slot holds, on its lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotPhase {
    /// Nothing, and nothing of it has still to be counted. Also what zeroed memory says.
    Empty = 0,
    /// A whole record.
    Ready = 1,
    /// A shared lane's producer is writing.
    Claimed = 2,
    /// The consumer gave the record up; its owner lives and may still write to the slot.
    Retired = 3,
    /// As RETIRED since an earlier lap: out of service, and counted already.
    Skipped = 4,
    /// Nothing: the owner died before it published.
    Torn = 5,
    /// Nothing: RETIRED until its owner acknowledged, or died.
    Revoked = 6,
}

/// A slot's `sequence` word: lap (37 bits) | owner (24) | phase (3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sequence(pub(crate) u64);

impl Sequence {
    #[inline]
    pub(crate) fn new(lap: u64, owner: OwnerId, phase: SlotPhase) -> Sequence {
        Sequence(
            (lap & LAP_MASK) << LAP_SHIFT | u64::from(owner.pack()) << PHASE_BITS | phase as u64,
        )
    }

    #[inline]
    fn lap(self) -> u64 {
        self.0 >> LAP_SHIFT
    }

    #[inline]
    fn owner(self) -> OwnerId {
        OwnerId::unpack((self.0 >> PHASE_BITS) as u32 & OwnerId::MASK)
    }

    /// Decodes the phase; `None` for the eighth bit pattern, which nobody writes.
    #[inline]
    fn phase(self) -> Option<SlotPhase> {
        Some(match self.0 & ((1 << PHASE_BITS) - 1) {
            0 => SlotPhase::Empty,
            1 => SlotPhase::Ready,
            2 => SlotPhase::Claimed,
            3 => SlotPhase::Retired,
            4 => SlotPhase::Skipped,
            5 => SlotPhase::Torn,
            6 => SlotPhase::Revoked,
            _ => return None,
        })
    }

    #[inline]
    fn is_lap(self, lap: u64) -> bool {
        self.lap() == lap & LAP_MASK
    }

    fn with_phase(self, phase: SlotPhase) -> Sequence {
        Sequence(self.0 & !((1 << PHASE_BITS) - 1) | phase as u64)
    }
}

/// A ring buffer in memory that somebody else owns.
#[derive(Clone, Copy)]
pub(crate) struct Lane<'a> {
    tail: &'a LaneTail,
    head: &'a LaneHead,
    /// A power of two of them.
    slots: &'a [Slot],
}

impl std::fmt::Debug for Lane<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("slots", &self.slots.len())
            .finish()
    }
}

impl<'a> Lane<'a> {
    /// # Panics
    ///
    /// When the number of slots is no power of two: the geometry was checked before.
    pub(crate) fn new(tail: &'a LaneTail, head: &'a LaneHead, slots: &'a [Slot]) -> Lane<'a> {
        assert!(slots.len().is_power_of_two());
        Lane { tail, head, slots }
    }

    /// Forgets what the lane borrows: for a producer or a consumer, which keeps the mapping itself.
    ///
    /// # Safety
    ///
    /// The caller keeps the mapping for as long as anybody has the lane.
    #[cfg(not(loom))]
    pub(crate) unsafe fn extend(self) -> Lane<'static> {
        // SAFETY: only the lifetime changes, which the caller answers for.
        unsafe { std::mem::transmute::<Lane<'_>, Lane<'static>>(self) }
    }

    /// The word that says who leases the lane.
    pub(crate) fn lease_word(&self) -> &'a AtomicU64 {
        &self.tail.lease
    }

    #[inline(always)]
    fn slot(&self, position: u64) -> &'a Slot {
        &self.slots[position as usize & (self.slots.len() - 1)]
    }

    #[inline]
    fn lap(&self, position: u64) -> u64 {
        (position >> self.slots.len().trailing_zeros()) + 1
    }

    #[inline]
    pub(crate) fn capacity(&self) -> u64 {
        self.slots.len() as u64
    }

    /// Where producers stand; a hint in a shared lane.
    pub(crate) fn tail(&self) -> u64 {
        self.tail.tail.load(Ordering::Acquire)
    }

    /// How many slots wait to be drained and committed, as far as tail and head tell.
    #[cfg(not(loom))]
    pub(crate) fn fill(&self) -> u64 {
        self.tail().wrapping_sub(self.head())
    }

    /// Whether there is a free slot, as far as tail and head tell.
    #[cfg(not(loom))]
    pub(crate) fn has_room(&self) -> bool {
        self.fill() < self.capacity()
    }

    /// Where the consumer stands, as producers see it.
    pub(crate) fn head(&self) -> u64 {
        self.head.head.load(Ordering::Acquire)
    }

    /// Where a consumer begins: at `head`, or where `tail` stands when that is garbage, or at 0.
    /// From then on `head` says so too.
    pub(crate) fn begin(&self) -> u64 {
        let words = [self.head(), self.tail()];
        let position = words.into_iter().find(|&at| at <= POSITION_MAX);
        let position = position.unwrap_or(0);
        self.free(position);
        position
    }

    /// Frees all slots below `position` (E2).
    pub(crate) fn free(&self, position: u64) {
        // E2 (release): pairs with the load in `refresh_head`. The payloads were copied before.
        self.head.head.store(position, Ordering::Release);
    }

    /// Reads `head` and clamps it: what a producer at `tail` may write is below the result + N. A
    /// head that ran ahead or back (CVE-2024-41009 shows why one checks) leaves the lane full.
    #[inline]
    fn refresh_head(&self, cached: u64, tail: u64) -> u64 {
        // E2 (acquire): pairs with the store in `free`.
        let head = self.head.head.load(Ordering::Acquire);
        if head < cached || head > tail {
            cached
        } else {
            head
        }
    }
}

impl Slot {
    /// Asks for the slot's cache line, which the consumer's core has since it read the last lap.
    #[inline(always)]
    fn prefetch(&self) {
        #[cfg(all(target_arch = "x86_64", not(loom)))]
        {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            // SAFETY: a hint, which reads and writes nothing, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(std::ptr::from_ref(self).cast()) };
        }
    }

    /// Takes the slot's cache line out of all caches: see [`flushes_lines`].
    #[inline(always)]
    fn give_up_line(&self) {
        #[cfg(all(target_arch = "x86_64", not(loom)))]
        {
            let line: *const Slot = self;
            // SAFETY: it changes where the line is kept, and not what it says; the address is a
            // slot's.
            unsafe {
                std::arch::asm!("clflushopt [{}]", in(reg) line, options(nostack, preserves_flags));
            }
        }
    }

    #[inline]
    fn load(&self, order: Ordering) -> Sequence {
        Sequence(self.sequence.load(order))
    }

    #[inline(always)]
    fn write(&self, payload: &[u64; PAYLOAD_WORDS]) {
        self.write_words(payload, 0..BRIEF_WORDS);
        if !is_brief(payload) {
            self.write_words(payload, BRIEF_WORDS..PAYLOAD_WORDS);
        }
    }

    #[inline(always)]
    fn write_words(&self, payload: &[u64; PAYLOAD_WORDS], range: Range<usize>) {
        for index in range {
            // Relaxed: the publication orders it.
            self.payload[index].store(payload[index], Ordering::Relaxed);
        }
    }

    #[inline]
    fn read(&self) -> [u64; PAYLOAD_WORDS] {
        let mut payload = [0; PAYLOAD_WORDS];
        self.read_words(&mut payload, 0..BRIEF_WORDS);
        if !is_brief(&payload) {
            self.read_words(&mut payload, BRIEF_WORDS..PAYLOAD_WORDS);
        }
        payload
    }

    #[inline]
    fn read_words(&self, payload: &mut [u64; PAYLOAD_WORDS], range: Range<usize>) {
        for index in range {
            // Relaxed: the caller has acquired the publication.
            payload[index] = self.payload[index].load(Ordering::Relaxed);
        }
    }

    fn swap(&self, from: Sequence, to: Sequence, order: Ordering) -> Result<(), Sequence> {
        match self
            .sequence
            .compare_exchange(from.0, to.0, order, Ordering::Acquire)
        {
            Ok(_) => Ok(()),
            Err(found) => Err(Sequence(found)),
        }
    }
}

/// Whether a consumer flushes cache lines after reading them (CLFLUSHOPT).
///
/// A producer that writes to a line which another core still has must first take it away from
/// there, and the stores of a CPU wait for each other: on a Zen 4 that costs 4 ns for each store to
/// each half of a line between cores that share a cache and 14 ns between others, whatever was
/// prefetched. A line that is in no cache comes from memory, many at a time.
#[inline]
fn flushes_lines() -> bool {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    {
        use std::sync::OnceLock;
        static HAS_CLFLUSHOPT: OnceLock<bool> = OnceLock::new();
        *HAS_CLFLUSHOPT.get_or_init(|| {
            use std::arch::x86_64::{__cpuid, __cpuid_count};
            __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ebx >> 23 & 1 == 1
        })
    }
    #[cfg(not(all(target_arch = "x86_64", not(loom))))]
    false
}

/// What a consumer finds in a lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Drained {
    /// A whole record and who emitted it.
    Record(OwnerId, Record),
    /// A producer died between claim and publication; there is no record.
    Torn(OwnerId),
    /// A living producer was stopped for longer than the stall limit inside an emit; it learns so.
    Revoked(OwnerId),
    /// What lay there made no sense; it was passed over. The owner is as the slot names it.
    Violation(OwnerId),
}

/// What an emit that was refused tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No free slot.
    Full,
    /// The consumer gave the record up while this producer was stopped.
    Revoked,
}

/// Who leases an exclusive lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease(pub(crate) u64);

impl Lease {
    const FREE: u64 = 0;
    /// The bus was removed: nobody leases the lane any more. A lease that names nobody, as garbage
    /// does too.
    const VOID: u64 = u64::MAX;

    pub(crate) fn of(owner: OwnerId) -> Lease {
        Lease(1 << 32 | u64::from(owner.pack()))
    }

    /// The lease word of a lane that `owner` leases.
    pub(crate) fn word(owner: OwnerId) -> u64 {
        Lease::of(owner).0
    }

    /// Decodes a lease word; `None` when the lane is free.
    pub(crate) fn holder(raw: u64) -> Option<OwnerId> {
        (raw != Self::FREE).then(|| OwnerId::unpack(raw as u32 & OwnerId::MASK))
    }
}

/// Adds to a counter that several threads share.
#[inline]
pub(crate) fn count(word: &AtomicU64, n: u64) {
    // Relaxed: only the sum matters.
    word.fetch_add(n, Ordering::Relaxed);
}
