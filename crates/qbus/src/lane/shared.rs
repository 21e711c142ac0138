//! Shared lanes: any number of producers at once, lock-free, and no hole is ever anonymous.
//!
//! The claim is one CAS on the slot's `sequence`, from a slot that lap L−1 is done with to
//! CLAIMED(L, me): the claim and the claimer's name are one atomic word. Another CAS publishes.
//! Positions are claimed in order: a claimer walks forward from max(tail hint, own last + 1, head)
//! and passes only slots that are on lap L already, so every position below a claim is resolved.
//! Two claimers may store the hint out of order: it can lag behind published records and even
//! behind `head`. Hence the consumer goes by the slots, and never by `tail`.
//!
//! Edges:
//!
//! * **E1 publish** `emit` exchanges `sequence` CLAIMED → READY (Release) → `drain_shared` loads it
//!   (Acquire): the record is whole.
//! * **E2 free** as in an exclusive lane; a claimer's position lies below an acquired `head` + N.
//! * **E4 release of a slot** `acknowledge` or the reaper exchanges RETIRED or SKIPPED → REVOKED or
//!   EMPTY (Release) → a claimer's exchange (Acquire): the old owner writes there no more.
//!
//! | a producer stops after | others see     | repair                                             |
//! |------------------------|----------------|----------------------------------------------------|
//! | the claim, and is dead | CLAIMED(L, o)  | reaper: TORN(L, o); the consumer counts it         |
//! | the claim, and lives   | CLAIMED(L, o)  | after the stall limit the consumer: RETIRED(L, o), |
//! |                        |                | which it counts; the slot is out of service, lap   |
//! |                        |                | after lap SKIPPED, until `o` wakes (publishing     |
//! |                        |                | fails, so it knows) or is dead                     |
//! | the publication        | a whole record | none                                               |
//!
//! The stall limit runs for every claim from when the consumer sees it first, and not from when it
//! is in the way: several stopped producers keep the others waiting no longer than one.
//!
//! What has still to be counted in the ledger is marked in the slot until `head` has passed it: a
//! consumer that dies before its commit finds it there again.
//!
//! A limit: foreign code that closes the descriptor of a process's lock makes it look dead, so that
//! its claim is counted as torn. A thread of it that is between claim and publication at that
//! moment, and stays there until another producer has the slot on the next lap, writes its payload
//! over that one's. Its own emit returns `Revoked`, as it should; the other's record is delivered
//! with words of both: with the other value, or of the other series. In an exclusive lane it is the
//! record that the next lessee writes to the same position: both emits return `Ok`, one record is
//! delivered, and the old `tail` that is stored then is put right. Of each such close that is at
//! most one record a thread.

#[cfg(all(test, loom))]
mod model;

use super::{Drained, Lane, POSITION_MAX, Refused, Sequence, SlotPhase};
#[cfg(not(loom))]
use crate::doorbell;
use crate::owner::OwnerId;
use crate::record::{PAYLOAD_WORDS, Record};
#[cfg(not(loom))]
use crate::sync::AtomicU64;
use crate::sync::{Ordering, PrivateU64};
use crate::testpoint;

/// The producing half, for all threads of a process.
#[derive(Debug)]
pub(crate) struct SharedWriter<'a> {
    pub(crate) lane: Lane<'a>,
    owner: OwnerId,
    /// After the last claim of this process: where the next walk may begin.
    next: PrivateU64,
    /// Rung when the lane fills while the consumer sleeps.
    #[cfg(not(loom))]
    bell: Option<&'a AtomicU64>,
}

/// Why a drain of a shared lane ended before its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stall {
    pub(crate) position: u64,
    pub(crate) owner: OwnerId,
}

/// A claimed slot that only the claimer may write to.
struct Claim {
    position: u64,
    sequence: Sequence,
}

impl<'a> SharedWriter<'a> {
    pub(crate) fn new(lane: Lane<'a>, owner: OwnerId) -> SharedWriter<'a> {
        SharedWriter {
            lane,
            owner,
            next: PrivateU64::new(0),
            #[cfg(not(loom))]
            bell: None,
        }
    }

    /// The same, which wakes a consumer that sleeps while the lane fills.
    #[cfg(not(loom))]
    pub(crate) fn ringing(mut self, bell: &'a AtomicU64) -> SharedWriter<'a> {
        self.bell = Some(bell);
        self
    }

    /// Writes one record, or says why not.
    pub(crate) fn emit(&self, payload: &[u64; PAYLOAD_WORDS]) -> Result<(), Refused> {
        let claim = self.claim();
        #[cfg(not(loom))]
        if let Some(bell) = self.bell
            && claim
                .as_ref()
                .is_none_or(|claim| self.is_filling(claim.position))
        {
            doorbell::ring(bell);
        }
        let claim = claim.ok_or(Refused::Full)?;
        self.lane.slot(claim.position).write(payload);
        testpoint!("written");
        self.publish(&claim)
    }

    /// Whether a position is one of four of a lap.
    #[cfg(not(loom))]
    fn is_filling(&self, position: u64) -> bool {
        position & (self.lane.capacity() / 4).saturating_sub(1) == 0
    }

    fn publish(&self, claim: &Claim) -> Result<(), Refused> {
        let slot = self.lane.slot(claim.position);
        // E1 (release): pairs with the load in `drain_shared`. It fails when the consumer retired
        // the slot meanwhile.
        match slot.swap(
            claim.sequence,
            claim.sequence.with_phase(SlotPhase::Ready),
            Ordering::Release,
        ) {
            Ok(()) => {
                testpoint!("published");
                Ok(())
            }
            Err(found) => {
                self.acknowledge(claim, found);
                Err(Refused::Revoked)
            }
        }
    }

    /// Takes the next free position. Every step passes a position for good or is another's
    /// progress; a full lane ends the walk.
    fn claim(&self) -> Option<Claim> {
        let lane = &self.lane;
        let mut head = self.head();
        let hint = lane.tail.tail.load(Ordering::Relaxed);
        let next = self.next.load(Ordering::Relaxed);
        // Neither hint is trusted beyond what the lane can hold.
        let in_lane = |at: u64| {
            if at > head + lane.capacity() {
                head
            } else {
                at
            }
        };
        let mut position = head.max(in_lane(hint)).max(in_lane(next));
        // A lane's worth of steps, twice over for those that others win.
        for _ in 0..2 * lane.capacity() {
            let step = if position - head < lane.capacity() {
                self.claim_at(position)
            } else {
                Step::Full
            };
            match step {
                Step::Claimed(sequence) => {
                    self.next.fetch_max(position + 1, Ordering::Relaxed);
                    // Relaxed: a hint orders nothing.
                    lane.tail.tail.store(position + 1, Ordering::Relaxed);
                    testpoint!("hinted");
                    return Some(Claim { position, sequence });
                }
                Step::Passed => position += 1,
                Step::Again => {}
                Step::Full | Step::Overtaken => {
                    let fresh = self.head();
                    if fresh > head {
                        head = fresh;
                        position = position.max(head);
                    } else if position > head && self.is_unclaimed(head) {
                        // A hint that was garbage led past positions that nobody claimed, and the
                        // consumer waits there.
                        position = head;
                        self.next.store(head, Ordering::Relaxed);
                    } else if matches!(step, Step::Full) {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// The lane's head, within what positions can be: below it arithmetic cannot overflow.
    fn head(&self) -> u64 {
        self.lane.head().min(POSITION_MAX)
    }

    fn is_unclaimed(&self, position: u64) -> bool {
        let found = self.lane.slot(position).load(Ordering::Relaxed);
        found.is_lap(self.lane.lap(position) - 1)
    }

    fn claim_at(&self, position: u64) -> Step {
        let (slot, lap) = (self.lane.slot(position), self.lane.lap(position));
        let found = slot.load(Ordering::Acquire);
        if found.is_lap(lap) {
            return Step::Passed;
        }
        if !found.is_lap(lap - 1) {
            // A later lap: others went past; the head moved meanwhile. Or garbage.
            return Step::Overtaken;
        }
        match found.phase() {
            Some(SlotPhase::Empty | SlotPhase::Ready | SlotPhase::Torn | SlotPhase::Revoked) => {
                let claimed = Sequence::new(lap, self.owner, SlotPhase::Claimed);
                // E2 and E4 (acquire): whoever had the slot before is done with it.
                match slot.swap(found, claimed, Ordering::Acquire) {
                    Ok(()) => {
                        testpoint!("claimed");
                        Step::Claimed(claimed)
                    }
                    Err(_) => Step::Again,
                }
            }
            Some(SlotPhase::Retired | SlotPhase::Skipped) => {
                // Its owner may still write there: it stays out of service on this lap too.
                let skipped = Sequence::new(lap, found.owner(), SlotPhase::Skipped);
                match slot.swap(found, skipped, Ordering::Relaxed) {
                    Ok(()) => {
                        testpoint!("skipped");
                        Step::Passed
                    }
                    Err(_) => Step::Again,
                }
            }
            // The head passed it on lap L−1, so it cannot be claimed still: the head is old.
            Some(SlotPhase::Claimed) | None => Step::Overtaken,
        }
    }

    /// Puts a slot that was retired under this producer back into service.
    fn acknowledge(&self, claim: &Claim, mut found: Sequence) {
        let slot = self.lane.slot(claim.position);
        // Claimers may carry the slot to later laps meanwhile: each failure is one lap's progress.
        while found.owner() == self.owner {
            let released = match found.phase() {
                Some(SlotPhase::Retired) => SlotPhase::Revoked,
                Some(SlotPhase::Skipped) => SlotPhase::Empty,
                _ => return,
            };
            // E4 (release): pairs with the exchange in `claim_at`.
            match slot.swap(found, found.with_phase(released), Ordering::Release) {
                Ok(()) => {
                    testpoint!("acknowledged");
                    return;
                }
                Err(again) => found = again,
            }
        }
    }
}

enum Step {
    Claimed(Sequence),
    /// The position is resolved on this lap.
    Passed,
    /// Somebody changed the slot: look again.
    Again,
    /// The position is a lane's worth beyond the head.
    Full,
    /// The slot is on another lap than the head allows.
    Overtaken,
}

impl Lane<'_> {
    /// Hands at most `budget` slots from `position` on to `visit`; the position after them, and who
    /// keeps the next one if it is claimed and not published. `is_nobody` says whether no process
    /// can be an owner.
    pub(crate) fn drain_shared(
        &self,
        position: u64,
        budget: u64,
        is_nobody: &dyn Fn(OwnerId) -> bool,
        visit: &mut impl FnMut(Drained),
    ) -> (u64, Option<Stall>) {
        for at in position..position + budget.min(self.capacity()) {
            let (slot, lap) = (self.slot(at), self.lap(at));
            // E1 (acquire): pairs with the exchange in `emit`.
            let found = slot.load(Ordering::Acquire);
            let owner = found.owner();
            if !found.is_lap(lap) {
                let unclaimed = found.is_lap(lap - 1)
                    && !matches!(found.phase(), Some(SlotPhase::Claimed) | None);
                if unclaimed {
                    return (at, None);
                }
            }
            match found.phase() {
                Some(SlotPhase::Claimed) if found.is_lap(lap) => {
                    return (
                        at,
                        Some(Stall {
                            position: at,
                            owner,
                        }),
                    );
                }
                Some(SlotPhase::Ready) if found.is_lap(lap) => {
                    match Record::from_words(slot.read()) {
                        Some(record) => visit(Drained::Record(owner, record)),
                        None => visit(Drained::Violation(owner)),
                    }
                }
                Some(SlotPhase::Torn) if found.is_lap(lap) => visit(Drained::Torn(owner)),
                Some(SlotPhase::Retired | SlotPhase::Revoked) if found.is_lap(lap) => {
                    visit(Drained::Revoked(owner))
                }
                Some(SlotPhase::Empty) if found.is_lap(lap) => {}
                Some(SlotPhase::Skipped) if found.is_lap(lap) => {
                    if is_nobody(owner) {
                        // Garbage named an owner that will never acknowledge.
                        let _ =
                            slot.swap(found, found.with_phase(SlotPhase::Empty), Ordering::Relaxed);
                    }
                }
                _ => {
                    // No one who keeps to the protocol leaves that: pass it, so that it wedges
                    // nobody.
                    let empty = Sequence::new(lap, OwnerId::NOBODY, SlotPhase::Empty);
                    if slot.swap(found, empty, Ordering::Relaxed).is_err() {
                        return (at, None);
                    }
                    visit(Drained::Violation(owner));
                }
            }
        }
        (position + budget.min(self.capacity()), None)
    }

    /// The claims from `position` on that are not published.
    pub(crate) fn claims(&self, position: u64) -> impl Iterator<Item = Stall> {
        (position..position + self.capacity()).filter_map(move |at| {
            // Relaxed: whatever is decided about a claim is decided by an exchange.
            let found = self.slot(at).load(Ordering::Relaxed);
            let is_claim = found.is_lap(self.lap(at)) && found.phase() == Some(SlotPhase::Claimed);
            is_claim.then_some(Stall {
                position: at,
                owner: found.owner(),
            })
        })
    }

    /// The first position that nobody has claimed yet.
    pub(crate) fn frontier(&self) -> u64 {
        let head = self.head().min(POSITION_MAX);
        let end = head + self.capacity();
        // The hint may lag, and claimers go on from it as this does.
        let mut position = self.tail().clamp(head, end);
        while position < end
            && self
                .slot(position)
                .load(Ordering::Acquire)
                .is_lap(self.lap(position))
        {
            position += 1;
        }
        position
    }

    /// Gives up the record at `stall`, whose owner lives but was stopped for too long. The next
    /// drain counts it.
    pub(crate) fn revoke(&self, stall: Stall) {
        let claimed = Sequence::new(self.lap(stall.position), stall.owner, SlotPhase::Claimed);
        // Failure: it was published after all, or its owner is dead and reaped.
        let _ = self.slot(stall.position).swap(
            claimed,
            claimed.with_phase(SlotPhase::Retired),
            Ordering::Relaxed,
        );
        testpoint!("retired");
    }

    /// Releases every slot of a dead owner, which the caller has proved dead. It makes no new
    /// claim, and only claimers that skip change its slots meanwhile: one pass finds all.
    pub(crate) fn reap(&self, owner: OwnerId) {
        for slot in self.slots {
            let mut found = slot.load(Ordering::Acquire);
            while found.owner() == owner {
                let released = match found.phase() {
                    Some(SlotPhase::Claimed) => SlotPhase::Torn,
                    Some(SlotPhase::Retired) => SlotPhase::Revoked,
                    Some(SlotPhase::Skipped) => SlotPhase::Empty,
                    _ => break,
                };
                // E4 (release): pairs with the exchange in `claim_at`.
                match slot.swap(found, found.with_phase(released), Ordering::Release) {
                    Ok(()) => {
                        testpoint!("slot-reaped");
                        break;
                    }
                    Err(again) => found = again,
                }
            }
        }
    }
}
