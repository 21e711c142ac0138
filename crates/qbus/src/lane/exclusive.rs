//! Exclusive lanes: one producer at a time, no read-modify-write.
//!
//! Edges:
//!
//! * **E1 publish** `emit` stores `tail` (Release) → `drain` loads it (Acquire): all records below
//!   are whole.
//! * **E2 free** the consumer stores `head` (Release) → `refresh_head` loads it (Acquire): the
//!   slots below were copied and may be overwritten.
//! * **E3 hand-over** a lessee stores `lease` = free (Release) → the next one takes it by CAS
//!   (Acquire): it goes on from where `tail` stands. After a death the reaper hands over: the
//!   kernel dropped the dead process's lock after its last store.
//!
//! | a producer dies after     | others see     | repair                                       |
//! |---------------------------|----------------|----------------------------------------------|
//! | lease taken               | a leased lane  | reaper: lease = free                         |
//! | some payload words        | nothing        | none: the next lessee writes that slot again |
//! | `sequence`, before `tail` | nothing        | none: as above; the emit had not returned    |
//! | `tail`                    | a whole record | none                                         |
//!
//! Whether a line is in a cache or in memory changes nothing of what it says: flushing lines orders
//! nothing.
//!
//! A stopped producer blocks nobody. A `tail` that somebody else overwrote is put right by the
//! lessee's next publication, or by the next lessee; until then the consumer passes nothing that
//! was not written.

#[cfg(all(test, loom))]
mod model;

use std::cell::Cell;

use super::{Drained, Lane, Lease, POSITION_MAX, Refused, Sequence, SlotPhase, flushes_lines};
#[cfg(not(loom))]
use crate::doorbell;
use crate::owner::OwnerId;
use crate::record::{PAYLOAD_WORDS, Record};
use crate::sync::{AtomicU64, Ordering};
use crate::testpoint;

/// Prefetch distance, in slots: a transfer between cores takes some 150 ns. Of 12, 24,
/// 48 and 128 on two cores of an EPYC, 24 gave the steadiest emits.
const AHEAD: u64 = 24;

/// The producing half. One thread at a time: it is not `Sync`.
#[derive(Debug)]
pub(crate) struct ExclusiveWriter<'a> {
    lane: Lane<'a>,
    owner: OwnerId,
    /// Position of the next record; the lane's `tail`, which nobody else writes.
    tail: Cell<u64>,
    /// `head` as last seen, plus the capacity: positions below it may be written.
    limit: Cell<u64>,
    /// At most `limit`, and no further than the end of the lap that `tail` is in: below it a record
    /// is written without a look at anything that is shared.
    look: Cell<u64>,
    /// The sequence word of a whole record in that lap.
    ready: Cell<u64>,
    /// Rung when the lane fills while the consumer sleeps.
    #[cfg(not(loom))]
    bell: Option<&'a AtomicU64>,
}

impl<'a> Lane<'a> {
    /// Leases the lane to `owner`; `None` when somebody has it.
    pub(crate) fn lease(self, owner: OwnerId) -> Option<ExclusiveWriter<'a>> {
        let lease = Lease::of(owner).0;
        // E3 (acquire): pairs with the store in `give_back`. Release: who sees the lease sees the
        // entry of the owner that has it.
        self.tail
            .lease
            .compare_exchange(Lease::FREE, lease, Ordering::AcqRel, Ordering::Relaxed)
            .ok()?;
        testpoint!("leased");
        let (head, mut tail) = (self.head(), self.tail.tail.load(Ordering::Relaxed));
        if head > POSITION_MAX {
            self.tail.lease.store(Lease::FREE, Ordering::Release);
            return None;
        }
        let limit = head + self.capacity();
        let is_sound =
            (head..=limit).contains(&tail) && (tail == head || self.is_written(tail - 1));
        if !is_sound {
            // Nobody who kept to the protocol left it so. The slots say what was written: go on
            // there.
            let end = (head..limit).find(|&at| !self.is_written(at));
            tail = end.unwrap_or(limit);
            self.tail.tail.store(tail, Ordering::Release);
        }
        let producer = ExclusiveWriter {
            lane: self,
            owner,
            tail: Cell::new(tail),
            limit: Cell::new(limit),
            look: Cell::new(tail),
            ready: Cell::new(0),
            #[cfg(not(loom))]
            bell: None,
        };
        producer.aim(tail);
        Some(producer)
    }

    /// Frees the lane of a dead owner, which the caller has proved dead.
    pub(crate) fn take_back(&self, owner: OwnerId) {
        let found = self.tail.lease.load(Ordering::Relaxed);
        if Lease::holder(found) == Some(owner) {
            // Release: what this process saw of the dead one's stores, the next lessee sees.
            let (free, order) = (Lease::FREE, Ordering::AcqRel);
            let lease = &self.tail.lease;
            // Failure: another reaper was faster.
            let _ = lease.compare_exchange(found, free, order, Ordering::Relaxed);
            testpoint!("lease-reaped");
        }
    }

    /// Takes the lane away from whoever leases it, or shares it: the bus was removed.
    #[cfg(not(loom))]
    pub(crate) fn void(&self) {
        self.tail.lease.store(Lease::VOID, Ordering::Release);
    }

    /// Whether the bus was removed, or something overwrote the word.
    #[cfg(not(loom))]
    pub(crate) fn is_void(&self) -> bool {
        self.tail.lease.load(Ordering::Relaxed) == Lease::VOID
    }

    /// Who leases the lane.
    pub(crate) fn holder(&self) -> Option<OwnerId> {
        Lease::holder(self.tail.lease.load(Ordering::Acquire))
    }

    /// Hands at most `budget` records from `position` on to `visit`; the position after them.
    #[inline]
    pub(crate) fn drain_exclusive(
        &self,
        position: u64,
        budget: u64,
        visit: &mut impl FnMut(Drained),
    ) -> u64 {
        // E1 (acquire): pairs with the store in `emit`.
        let tail = self.tail.tail.load(Ordering::Acquire);
        let ready = tail.wrapping_sub(position);
        // A tail behind the head, or a lap ahead: of all this nothing can be trusted.
        let is_sound = ready <= self.capacity();
        let end = position + if is_sound { ready.min(budget) } else { 1 };
        let flushes_lines = flushes_lines();
        for at in position..end {
            let taken = if is_sound {
                self.take(at, tail, flushes_lines)
            } else {
                None
            };
            // One call, so that what `visit` does is compiled into the loop.
            if let Some(found) = taken.or_else(|| self.accuse()) {
                visit(found);
            }
            if taken.is_none() {
                return at;
            }
        }
        end
    }

    /// What lies at a position below `tail`; `None` when nothing was written there, nor below
    /// `tail`: then `tail` lies, and its lessee's next publication puts it right.
    #[inline(always)]
    fn take(&self, at: u64, tail: u64, flushes_lines: bool) -> Option<Drained> {
        let slot = self.slot(at);
        // Relaxed: E1 ordered it.
        let sequence = slot.load(Ordering::Relaxed);
        if self.is_whole(sequence, at) {
            let payload = slot.read();
            if flushes_lines {
                slot.give_up_line();
            }
            if let Some(record) = Record::from_words(payload) {
                return Some(Drained::Record(sequence.owner(), record));
            }
        }
        let is_old = sequence.is_lap(self.lap(at) - 1);
        if is_old && !self.is_written(tail - 1) {
            return None;
        }
        Some(Drained::Violation(sequence.owner()))
    }

    /// A tail that makes no sense is the lessee's violation.
    #[cold]
    fn accuse(&self) -> Option<Drained> {
        self.holder().map(Drained::Violation)
    }

    #[inline]
    fn is_whole(&self, sequence: Sequence, at: u64) -> bool {
        sequence.is_lap(self.lap(at)) && sequence.phase() == Some(SlotPhase::Ready)
    }

    fn is_written(&self, at: u64) -> bool {
        // Relaxed: E1 or E3 ordered what was written below a sound `tail`.
        self.is_whole(self.slot(at).load(Ordering::Relaxed), at)
    }
}

impl<'a> ExclusiveWriter<'a> {
    /// The same, which wakes a consumer that sleeps while the lane fills.
    #[cfg(not(loom))]
    pub(crate) fn ringing(mut self, bell: &'a AtomicU64) -> ExclusiveWriter<'a> {
        self.bell = Some(bell);
        self.look.set(self.tail.get());
        self
    }

    /// Writes one record, or says that no slot is free.
    pub(crate) fn emit(&self, payload: &[u64; PAYLOAD_WORDS]) -> Result<(), Refused> {
        if self.is_full() {
            return Err(Refused::Full);
        }
        self.emit_at_once(payload);
        Ok(())
    }

    /// Writes one record if that needs no look at the consumer; whether it did.
    #[inline(always)]
    pub(crate) fn emit_at_once(&self, payload: &[u64; PAYLOAD_WORDS]) -> bool {
        let tail = self.tail.get();
        if tail >= self.look.get() {
            return false;
        }
        self.write(tail, payload);
        self.publish(tail + 1);
        // Only lines that the consumer is done with: the others it will read soon.
        if tail + AHEAD < self.limit.get() {
            self.lane.slot(tail + AHEAD).prefetch();
        }
        true
    }

    /// Whether a record would be refused.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        let tail = self.tail.get();
        tail >= self.look.get() && !self.has_room(tail)
    }

    /// Writes as many records as there are free slots, with one publication; how many.
    #[inline]
    pub(crate) fn emit_many(
        &self,
        mut payloads: impl ExactSizeIterator<Item = [u64; PAYLOAD_WORDS]>,
    ) -> u64 {
        let tail = self.tail.get();
        let wanted = payloads.len() as u64;
        if tail + wanted > self.look.get() {
            self.has_room(tail);
        }
        let end = (tail + wanted).min(self.limit.get()).max(tail);
        for at in tail..end {
            let Some(payload) = payloads.next() else {
                break;
            };
            if at >= self.look.get() {
                self.aim(at);
            }
            self.write(at, &payload);
        }
        self.publish(end);
        end - tail
    }

    /// Where the lease stands, and what it says while it is this writer's.
    pub(crate) fn proof(&self) -> (&'a AtomicU64, u64) {
        (&self.lane.tail.lease, Lease::of(self.owner).0)
    }

    /// Gives the lane back, unless it was taken away: the next lessee goes on from `tail`.
    pub(crate) fn give_back(&self) {
        let (lease, mine) = self.proof();
        // E3 (release): pairs with the exchange in `lease`.
        let _ = lease.compare_exchange(mine, Lease::FREE, Ordering::Release, Ordering::Relaxed);
        testpoint!("lane-returned");
    }

    /// Writes to a position below `look`.
    #[inline(always)]
    fn write(&self, at: u64, payload: &[u64; PAYLOAD_WORDS]) {
        let slot = self.lane.slot(at);
        slot.write(payload);
        testpoint!("payload");
        // Release: whoever reads this word by itself (a post-mortem reader) sees a whole record.
        slot.sequence.store(self.ready.get(), Ordering::Release);
        testpoint!("sequence");
    }

    #[inline]
    fn publish(&self, tail: u64) {
        self.tail.set(tail);
        // E1 (release): pairs with the load in `drain_exclusive`.
        self.lane.tail.tail.store(tail, Ordering::Release);
        testpoint!("tail");
    }

    /// Looks where the consumer is, if need be, and wakes it if it lets the lane fill.
    #[cold]
    fn has_room(&self, tail: u64) -> bool {
        let capacity = self.lane.capacity();
        let looks = tail >= self.limit.get();
        #[cfg(not(loom))]
        let looks = looks || self.bell.is_some();
        if looks {
            let cached = self.limit.get() - capacity;
            let head = self.lane.refresh_head(cached, tail);
            self.limit.set(head + capacity);
            // A lane is full some 100 µs after its producer began to hurry; a wake-up takes half of
            // that.
            #[cfg(not(loom))]
            if let Some(bell) = self.bell
                && tail.saturating_sub(head) >= capacity / 4
            {
                doorbell::ring(bell);
            }
        }
        self.aim(tail);
        tail < self.limit.get()
    }

    /// Makes ready for records from `tail` on.
    fn aim(&self, tail: u64) {
        let capacity = self.lane.capacity();
        let end = (tail | (capacity - 1)) + 1;
        #[cfg(not(loom))]
        let end = match self.bell {
            Some(_) => end.min(tail + (capacity / 4).max(1)),
            None => end,
        };
        self.look.set(end.min(self.limit.get()));
        let ready = Sequence::new(self.lane.lap(tail), self.owner, SlotPhase::Ready);
        self.ready.set(ready.0);
    }
}
