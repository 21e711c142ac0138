//! Models of the shared lane.

use std::sync::Arc;

use loom::thread::{self, JoinHandle};

use super::{SharedWriter, Stall};
use crate::lane::heap::{HeapLane, number, owner, payload};
use crate::lane::{Drained, Refused};
use crate::model::explore;
use crate::sync::Fault;

/// What a consumer found, and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    position: u64,
    numbers: Vec<u64>,
    torn: usize,
    revoked: usize,
}

impl Seen {
    /// Drains once and frees. Nothing may be there that makes no sense.
    fn drain(&mut self, memory: &HeapLane) -> Option<Stall> {
        let lane = memory.lane();
        // A claimer loads a slot before it claims it.
        lane.slot(self.position).sequence.peek();
        let (numbers, torn, revoked) = (&mut self.numbers, &mut self.torn, &mut self.revoked);
        let nobody = |_| false;
        let (position, stall) =
            lane.drain_shared(self.position, 4, &nobody, &mut |found| match found {
                Drained::Record(_, record) => numbers.push(number(&record)),
                Drained::Torn(_) => *torn += 1,
                Drained::Revoked(_) => *revoked += 1,
                Drained::Violation(owner) => panic!("a violation of {owner}"),
            });
        lane.free(position);
        self.position = position;
        stall
    }

    /// Drains what is left when all producers are done: nothing may be in the way.
    fn finish(&mut self, memory: &HeapLane) {
        while {
            let before = self.position;
            assert_eq!(self.drain(memory), None, "a claim was left");
            self.position != before
        } {}
    }
}

fn watched() -> HeapLane {
    let memory = HeapLane::new(2);
    for slot in &memory.slots {
        slot.sequence.watch();
    }
    memory
}

/// Every slot of the lane takes a record and gives it back.
fn is_in_service(memory: &HeapLane, seen: &Seen) {
    let producer = SharedWriter::new(memory.lane(), owner(9));
    let mut after = seen.clone();
    for number in 90..90 + memory.slots.len() as u64 {
        assert_eq!(producer.emit(&payload(number)), Ok(()), "out of service");
    }
    after.finish(memory);
    assert_eq!(
        after.numbers.len(),
        seen.numbers.len() + memory.slots.len(),
        "{after:?}"
    );
}

/// How each emit of a producer ended: its number, and what it was told.
type Emitted = Vec<(u64, Result<(), Refused>)>;

fn emitter(memory: &Arc<HeapLane>, index: u16, records: u64) -> JoinHandle<Emitted> {
    let memory = memory.clone();
    thread::spawn(move || {
        let producer = SharedWriter::new(memory.lane(), owner(index));
        let numbers = (1..=records).map(|n| u64::from(index) * 10 + n);
        numbers.map(|n| (n, producer.emit(&payload(n)))).collect()
    })
}

fn numbers(emitted: &Emitted, result: Result<(), Refused>) -> Vec<u64> {
    let kept = emitted.iter().filter(|(_, found)| *found == result);
    kept.map(|(number, _)| *number).collect()
}

/// The numbers that are that owner's.
fn of_owner(numbers: &[u64], index: u64) -> Vec<u64> {
    let kept = numbers.iter().filter(|number| **number / 10 == index);
    kept.copied().collect()
}

fn two_producers(
    name: &str,
    records: [u64; 2],
    drains: usize,
    prepare: impl Fn(&HeapLane) + Send + Sync + 'static,
) {
    let seen = explore(name, move |outcomes| {
        let memory = Arc::new(watched());
        prepare(&memory);
        let producers = [
            emitter(&memory, 1, records[0]),
            emitter(&memory, 2, records[1]),
        ];
        let mut seen = Seen::default();
        for _ in 0..drains {
            let _ = seen.drain(&memory);
        }
        let emitted = producers.map(|producer| producer.join().unwrap());
        seen.finish(&memory);
        for (index, emitted) in (1..).zip(&emitted) {
            let accepted = numbers(emitted, Ok(()));
            assert_eq!(of_owner(&seen.numbers, index), accepted, "lost or twice");
        }
        assert_eq!((seen.torn, seen.revoked), (0, 0));
        outcomes.note(seen.numbers.clone());
        is_in_service(&memory, &seen);
    });
    let most = seen.iter().map(Vec::len).max();
    assert_eq!(most, Some((records[0] + records[1]) as usize), "no lap");
}

#[test]
fn two_producers_lose_nothing() {
    two_producers("shared, 2 producers", [2, 1], 2, |_| {});
}

#[test]
#[should_panic(expected = "a violation of")]
fn without_e1_what_comes_is_no_record() {
    two_producers("shared, no E1", [2, 1], 2, |memory| {
        for slot in &memory.slots {
            slot.sequence.inject(Fault::Unordered);
        }
    });
}

#[test]
#[should_panic]
fn a_claim_that_is_no_exchange_is_made_twice() {
    two_producers("shared, claims not atomic", [2, 1], 2, |memory| {
        for slot in &memory.slots {
            slot.sequence.inject(Fault::NotAtomic);
        }
    });
}

/// A producer dies after its claim, while another one emits and the reaper does its work.
#[test]
fn a_claim_of_the_dead_is_torn_once() {
    let seen = explore("shared, death after a claim", |outcomes| {
        let memory = Arc::new(watched());
        let shared = memory.clone();
        let dying = thread::spawn(move || {
            let producer = SharedWriter::new(shared.lane(), owner(1));
            producer.claim().is_some()
        });
        let living = emitter(&memory, 2, 2);
        let mut seen = Seen::default();
        let _ = seen.drain(&memory);
        // The kernel tells the reaper of the death.
        let claimed = dying.join().unwrap();
        memory.lane().reap(owner(1));
        let _ = seen.drain(&memory);
        let emitted = living.join().unwrap();
        seen.finish(&memory);
        assert_eq!(seen.torn, usize::from(claimed));
        assert_eq!(seen.numbers, numbers(&emitted, Ok(())));
        outcomes.note((claimed, seen.clone()));
        is_in_service(&memory, &seen);
    });
    assert!(seen.iter().any(|(_, seen)| seen.numbers.len() == 2));
    assert!(seen.iter().any(|(claimed, _)| !claimed));
}

/// The consumer gives up on every claim that it meets; `others` emit beside the one that it is hard
/// on.
fn revoke(
    name: &str,
    [records, others]: [u64; 2],
    drains: usize,
    prepare: impl Fn(&HeapLane) + Send + Sync + 'static,
) {
    let seen = explore(name, move |outcomes| {
        let memory = Arc::new(watched());
        prepare(&memory);
        let stopped = emitter(&memory, 1, records);
        let other = (others > 0).then(|| emitter(&memory, 2, others));
        let mut seen = Seen::default();
        for _ in 0..drains {
            if let Some(stall) = seen.drain(&memory) {
                memory.lane().revoke(stall);
            }
        }
        let mut emitted = stopped.join().unwrap();
        emitted.extend(other.into_iter().flat_map(|other| other.join().unwrap()));
        seen.finish(&memory);
        let mut drained = seen.numbers.clone();
        drained.sort();
        assert_eq!(drained, numbers(&emitted, Ok(())), "lost or twice");
        let revoked = numbers(&emitted, Err(Refused::Revoked));
        assert_eq!(seen.revoked, revoked.len(), "told and counted differ");
        outcomes.note((seen.numbers.clone(), revoked));
        is_in_service(&memory, &seen);
    });
    assert!(seen.iter().any(|(_, revoked)| revoked.is_empty()));
    assert!(seen.iter().any(|(_, revoked)| !revoked.is_empty()));
}

#[test]
fn a_revoked_claim_is_counted_once_and_its_slot_comes_back() {
    revoke("shared, revocation", [3, 0], 5, |_| {});
}

#[test]
fn a_revoked_claim_is_skipped_by_others() {
    revoke("shared, revocation beside another", [1, 2], 2, |_| {});
}

#[test]
#[should_panic(expected = "lost or twice")]
fn a_publication_that_is_no_exchange_overrules_the_consumer() {
    revoke("shared, publication not atomic", [1, 0], 2, |memory| {
        for slot in &memory.slots {
            slot.sequence.inject(Fault::NotAtomic);
        }
    });
}

/// A living producer stops after its claim for three laps of the lane: each lap passes its slot by.
#[test]
fn a_slot_is_out_of_service_until_its_owner_wakes() {
    let seen = explore("shared, stopped for laps", |outcomes| {
        let memory = Arc::new(watched());
        let stopped = SharedWriter::new(memory.lane(), owner(1));
        let claim = stopped.claim().expect("a free slot");
        let mut seen = Seen::default();
        let stall = seen.drain(&memory).expect("a claim in the way");
        memory.lane().revoke(stall);
        let _ = seen.drain(&memory);
        let living = emitter(&memory, 2, 3);
        let shared = memory.clone();
        let waking = thread::spawn(move || {
            let stopped = SharedWriter::new(shared.lane(), owner(1));
            stopped.publish(&claim)
        });
        for _ in 0..2 {
            let _ = seen.drain(&memory);
        }
        assert_eq!(waking.join().unwrap(), Err(Refused::Revoked));
        let emitted = living.join().unwrap();
        seen.finish(&memory);
        assert_eq!(seen.revoked, 1);
        assert_eq!(seen.numbers, numbers(&emitted, Ok(())));
        outcomes.note((seen.position, seen.numbers.len()));
        is_in_service(&memory, &seen);
    });
    // Some laps passed the slot by, some used it.
    assert!(seen.len() > 2, "{seen:?}");
}
