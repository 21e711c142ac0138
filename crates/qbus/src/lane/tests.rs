//! Lanes under real threads, and lanes that somebody wrote garbage to.

use std::collections::BTreeMap;
use std::thread;

use super::exclusive::ExclusiveWriter;
use super::heap::{HeapLane, number, owner, payload};
use super::shared::{SharedWriter, Stall};
use super::{Drained, Lease, POSITION_MAX, Refused, Sequence, SlotPhase};
use crate::layout::Slot;
use crate::owner::OwnerId;
use crate::sync::{AtomicU64, Ordering};

const RECORDS: u64 = 5_000;

/// The numbers that came from each owner, and what was counted.
#[derive(Debug, Default)]
struct Seen {
    position: u64,
    numbers: BTreeMap<OwnerId, Vec<u64>>,
    revoked: u64,
    violations: u64,
}

impl Seen {
    fn note(&mut self, found: Drained) {
        match found {
            Drained::Record(owner, record) => {
                let numbers = self.numbers.entry(owner).or_default();
                numbers.push(number(&record));
            }
            Drained::Revoked(_) => self.revoked += 1,
            Drained::Torn(owner) => panic!("nobody died: {owner}"),
            Drained::Violation(_) => self.violations += 1,
        }
    }

    fn drain_shared(&mut self, memory: &HeapLane) -> Option<Stall> {
        let (lane, from) = (memory.lane(), self.position);
        let (position, stall) =
            lane.drain_shared(from, 64, &|_| false, &mut |found| self.note(found));
        lane.free(position);
        self.position = position;
        stall
    }

    fn drain_exclusive(&mut self, memory: &HeapLane) {
        let (lane, from) = (memory.lane(), self.position);
        self.position = lane.drain_exclusive(from, 64, &mut |found| self.note(found));
        lane.free(self.position);
    }
}

/// What a producer's emits came to.
#[derive(Debug, Default)]
struct Emitted {
    accepted: Vec<u64>,
    revoked: u64,
}

fn emit_shared(memory: &HeapLane, index: u16) -> Emitted {
    let producer = SharedWriter::new(memory.lane(), owner(index));
    let mut emitted = Emitted::default();
    let mut number = 1;
    while number <= RECORDS {
        match producer.emit(&payload(number)) {
            Ok(()) => emitted.accepted.push(number),
            Err(Refused::Revoked) => emitted.revoked += 1,
            Err(Refused::Full) => {
                thread::yield_now();
                continue;
            }
        }
        number += 1;
    }
    emitted
}

/// Producers on one shared lane, and a consumer that revokes one stall of so many that it meets.
fn check_conservation(slots: usize, producers: u16, patience: u64) {
    let memory = HeapLane::new(slots);
    let mut seen = Seen::default();
    let emitted: Vec<Emitted> = thread::scope(|scope| {
        let emitting: Vec<_> = (1..=producers)
            .map(|index| {
                scope.spawn({
                    let memory = &memory;
                    move || emit_shared(memory, index)
                })
            })
            .collect();
        let mut stalls = 0;
        while emitting.iter().any(|producer| !producer.is_finished()) {
            let before = seen.position;
            let Some(stall) = seen.drain_shared(&memory) else {
                if seen.position == before {
                    thread::yield_now();
                }
                continue;
            };
            stalls += 1;
            if stalls % patience == 0 {
                memory.lane().revoke(stall);
            }
        }
        emitting
            .into_iter()
            .map(|producer| producer.join().unwrap())
            .collect()
    });
    while {
        let before = seen.position;
        assert_eq!(seen.drain_shared(&memory), None);
        seen.position != before
    } {}
    for (index, emitted) in (1..).zip(&emitted) {
        let numbers = seen.numbers.remove(&owner(index)).unwrap_or_default();
        assert_eq!(numbers, emitted.accepted, "owner {index}");
    }
    assert_eq!(
        seen.revoked,
        emitted.iter().map(|emitted| emitted.revoked).sum::<u64>()
    );
    assert_eq!(seen.violations, 0);
    // Many laps, or the test shows little.
    let laps = seen.position / slots as u64;
    assert!(laps > 10, "{laps} laps");
}

#[test]
fn a_shared_lane_loses_nothing() {
    check_conservation(4, 3, u64::MAX);
    check_conservation(64, 3, u64::MAX);
}

#[test]
fn a_shared_lane_whose_claims_are_revoked_loses_nothing() {
    check_conservation(4, 3, 1);
    check_conservation(8, 2, 100);
}

#[test]
fn an_exclusive_lane_that_changes_hands_loses_nothing() {
    let memory = HeapLane::new(8);
    let lessee = |index: u16| {
        let mut accepted = Vec::new();
        let mut number = 0;
        while number < RECORDS {
            let Some(producer) = memory.lane().lease(owner(index)) else {
                thread::yield_now();
                continue;
            };
            for _ in 0..16 {
                number += 1;
                match producer.emit(&payload(number)) {
                    Ok(()) => accepted.push(number),
                    Err(_) => thread::yield_now(),
                }
            }
            let batch = [number + 1, number + 2, number + 3];
            let count = producer.emit_many(batch.iter().map(|number| payload(*number)));
            accepted.extend(&batch[..count as usize]);
            number += 3;
            producer.give_back();
        }
        accepted
    };
    let mut seen = Seen::default();
    thread::scope(|scope| {
        let lessees = [1, 2, 3].map(|index| (index, scope.spawn(move || lessee(index))));
        while lessees.iter().any(|(_, lessee)| !lessee.is_finished()) {
            seen.drain_exclusive(&memory);
        }
        seen.drain_exclusive(&memory);
        for (index, lessee) in lessees {
            let numbers = seen.numbers.remove(&owner(index)).unwrap_or_default();
            assert_eq!(numbers, lessee.join().unwrap(), "owner {index}");
        }
    });
    assert_eq!(seen.violations, 0);
}

/// Numbers that look random and are the same each time (xorshift64*; Vigna 2016).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    /// A word that nobody should have written there: wild, on an edge, or nearly right.
    fn word(&mut self, near: u64) -> u64 {
        let phases = [
            SlotPhase::Empty,
            SlotPhase::Ready,
            SlotPhase::Claimed,
            SlotPhase::Retired,
        ];
        let more = [SlotPhase::Skipped, SlotPhase::Torn, SlotPhase::Revoked];
        let phase = phases.into_iter().chain(more).nth(self.below(7) as usize);
        match self.below(6) {
            0 => self.roll(),
            1 => [0, 1, u64::MAX, POSITION_MAX, POSITION_MAX + 1][self.below(5) as usize],
            2 => near.wrapping_add(self.below(16)).wrapping_sub(8),
            3 => near ^ 1 << self.below(64),
            _ => {
                let lap = (near / SLOTS as u64 + self.below(4)).saturating_sub(1);
                let owner = owner(self.below(5) as u16);
                Sequence::new(lap, owner, phase.unwrap_or(SlotPhase::Empty)).0
            }
        }
    }

    /// Writes garbage to a word of the lane.
    fn mutate(&mut self, memory: &HeapLane, near: u64) {
        let slot: &Slot = &memory.slots[self.below(SLOTS as u64) as usize];
        let word: &AtomicU64 = match self.below(8) {
            0 => &memory.tail.tail,
            1 => &memory.head.head,
            2 => &memory.tail.lease,
            3 => &slot.payload[self.below(7) as usize],
            _ => &slot.sequence,
        };
        word.store(self.word(near), Ordering::Relaxed);
    }
}

const SLOTS: usize = 8;
/// Rounds in which a lane must be in service again: the consumer goes around it once to repair it.
const ROUNDS: usize = 4 * SLOTS;
const MARK: u64 = 7_777_777;

/// One consumer's look at a shared lane, as `Consumer` does it with a patience of nothing; whether
/// the mark came.
fn serve_shared(memory: &HeapLane, position: &mut u64, alive: &[OwnerId]) -> bool {
    let (lane, mut is_marked) = (memory.lane(), false);
    let is_nobody = |owner| !alive.contains(&owner);
    let (end, stall) = lane.drain_shared(*position, 64, &is_nobody, &mut |found| {
        is_marked |= matches!(found, Drained::Record(_, record) if record.timestamp_ns == MARK);
    });
    assert!((*position..=*position + SLOTS as u64).contains(&end));
    *position = end;
    lane.free(end);
    match stall {
        Some(stall) if is_nobody(stall.owner) => lane.reap(stall.owner),
        Some(stall) => lane.revoke(stall),
        None => {}
    }
    is_marked
}

#[test]
fn garbage_in_a_shared_lane_is_survived() {
    for seed in 1..=3000 {
        let mut dice = Dice(seed);
        let memory = HeapLane::new(SLOTS);
        let producers = [1, 2].map(|index| SharedWriter::new(memory.lane(), owner(index)));
        let alive = [owner(1), owner(2)];
        let mut position = 0;
        for number in 0..40 + dice.below(40) {
            let _ = producers[(number & 1) as usize].emit(&payload(number));
            if dice.below(4) == 0 {
                dice.mutate(&memory, position);
            }
            if dice.below(3) == 0 {
                let _ = serve_shared(&memory, &mut position, &alive);
            }
        }
        // All who were there die: what garbage said of the living goes with them.
        for owner in alive {
            memory.lane().reap(owner);
        }
        let producer = SharedWriter::new(memory.lane(), owner(9));
        let in_service = (0..ROUNDS).any(|_| {
            let _ = producer.emit(&payload(MARK));
            serve_shared(&memory, &mut position, &[owner(9)])
        });
        assert!(in_service, "seed {seed}: {:?}", memory.lane().dump());
    }
}

#[test]
fn garbage_in_an_exclusive_lane_is_survived() {
    for seed in 1..=3000 {
        let mut dice = Dice(seed);
        let memory = HeapLane::new(SLOTS);
        let lane = memory.lane();
        let mut producer: Option<ExclusiveWriter<'_>> = lane.lease(owner(1));
        let (mut position, mut is_marked) = (0, false);
        let mut serve = |position: &mut u64| {
            let end = lane.drain_exclusive(*position, 64, &mut |found| {
                is_marked |=
                    matches!(found, Drained::Record(_, record) if record.timestamp_ns == MARK);
            });
            assert!((*position..=*position + SLOTS as u64).contains(&end));
            *position = end;
            lane.free(end);
            is_marked
        };
        for number in 0..40 + dice.below(40) {
            if let Some(producer) = &producer {
                let _ = producer.emit(&payload(number));
                let _ = producer.emit_many([payload(number), payload(number)].into_iter());
            }
            if dice.below(4) == 0 {
                dice.mutate(&memory, position);
            }
            if dice.below(3) == 0 {
                let _ = serve(&mut position);
            }
            if dice.below(8) == 0 {
                if let Some(producer) = producer.take() {
                    producer.give_back();
                }
                producer = lane.lease(owner(dice.below(3) as u16));
            }
        }
        // Whoever has the lane dies, or never was.
        if let Some(holder) = lane.holder() {
            lane.take_back(holder);
        }
        lane.free(position);
        let producer = lane.lease(owner(9)).expect("a free lane");
        let in_service = (0..ROUNDS).any(|_| {
            let _ = producer.emit(&payload(MARK));
            serve(&mut position)
        });
        assert!(in_service, "seed {seed}: {:?}", lane.dump());
    }
}

#[test]
fn a_consumer_begins_at_a_sane_position() {
    for (head, tail, begin) in [(5, 7, 5), (u64::MAX, 7, 7), (POSITION_MAX + 1, u64::MAX, 0)] {
        let memory = HeapLane::new(SLOTS);
        memory.head.head.store(head, Ordering::Relaxed);
        memory.tail.tail.store(tail, Ordering::Relaxed);
        assert_eq!(memory.lane().begin(), begin);
        assert_eq!(memory.lane().head(), begin, "producers see it too");
    }
}

#[test]
fn a_hole_behind_a_wild_hint_is_found() {
    let memory = HeapLane::new(SLOTS);
    memory.tail.tail.store(5, Ordering::Relaxed);
    let producer = SharedWriter::new(memory.lane(), owner(1));
    let accepted = (1..=20).filter(|&number| producer.emit(&payload(number)).is_ok());
    assert_eq!(accepted.count(), SLOTS, "every slot was used");
}

#[test]
fn a_lease_that_is_garbage_is_taken_back() {
    let memory = HeapLane::new(SLOTS);
    let lane = memory.lane();
    memory.tail.lease.store(u64::MAX, Ordering::Relaxed);
    assert!(lane.lease(owner(1)).is_none());
    lane.take_back(lane.holder().expect("somebody"));
    assert!(lane.lease(owner(1)).is_some());
    assert_eq!(
        Lease::holder(memory.tail.lease.load(Ordering::Relaxed)),
        Some(owner(1))
    );
}

impl super::Lane<'_> {
    /// All that the lane says, for a failed test.
    fn dump(&self) -> Vec<String> {
        let slots = self.slots.iter().map(|slot| {
            let found = slot.load(Ordering::Relaxed);
            format!("{:?}({}, {})", found.phase(), found.lap(), found.owner())
        });
        let words = format!("head {} tail {}", self.head(), self.tail());
        std::iter::once(words).chain(slots).collect()
    }
}
