//! Models of the exclusive lane.

use std::sync::Arc;

use loom::thread;

use crate::lane::Drained;
use crate::lane::heap::{HeapLane, number, owner, payload};
use crate::model::explore;
use crate::sync::{Fault, cut_after};

/// Drains once and frees; the numbers that came. Anything but a record fails the model.
fn drain(memory: &HeapLane, position: u64, numbers: &mut Vec<u64>) -> u64 {
    let lane = memory.lane();
    // A lessee loads the tail before it stores it.
    memory.tail.tail.peek();
    let end = lane.drain_exclusive(position, 4, &mut |found| match found {
        Drained::Record(_, record) => numbers.push(number(&record)),
        other => panic!("{other:?}"),
    });
    lane.free(end);
    end
}

/// A producer that meets a full lane goes on with its next record; a consumer drains meanwhile.
fn produce_and_consume(
    name: &str,
    slots: usize,
    attempts: u64,
    prepare: impl Fn(&HeapLane) + Send + Sync + 'static,
) {
    let seen = explore(name, move |outcomes| {
        let memory = Arc::new(HeapLane::new(slots));
        memory.tail.tail.watch();
        prepare(&memory);
        let shared = memory.clone();
        let producer = thread::spawn(move || {
            let producer = shared.lane().lease(owner(1)).expect("a free lane");
            (1..=attempts)
                .filter(|&number| producer.emit(&payload(number)).is_ok())
                .collect::<Vec<u64>>()
        });
        let mut drained = Vec::new();
        let mut position = 0;
        for _ in 0..3 {
            position = drain(&memory, position, &mut drained);
        }
        let early = drained.len();
        let accepted = producer.join().unwrap();
        drain(&memory, position, &mut drained);
        assert_eq!(drained, accepted);
        outcomes.note((accepted, early));
    });
    let most = seen.iter().map(|(accepted, _)| accepted.len()).max();
    assert_eq!(most, Some(attempts as usize), "a freed slot is used again");
    assert!(seen.iter().any(|(accepted, _)| accepted.len() == slots));
}

#[test]
fn records_come_whole_and_in_order_through_two_slots() {
    produce_and_consume("exclusive, 2 slots", 2, 4, |_| {});
}

#[test]
fn records_come_whole_and_in_order_through_four_slots() {
    produce_and_consume("exclusive, 4 slots", 4, 6, |_| {});
}

#[test]
#[should_panic(expected = "Violation")]
fn without_e1_what_comes_is_no_record() {
    produce_and_consume("exclusive, no E1", 2, 4, |memory| {
        memory.tail.tail.inject(Fault::Unordered);
    });
}

/// Loom never lets a load see a later store, so it cannot show what a Relaxed `head` would do; that
/// the head may not be stored before the copy it can show.
#[test]
#[should_panic]
fn a_slot_freed_before_it_is_copied_is_overwritten() {
    explore("exclusive, freed early", |outcomes| {
        let memory = Arc::new(HeapLane::new(2));
        let producer = memory.lane().lease(owner(1)).expect("a free lane");
        assert!(producer.emit(&payload(1)).is_ok());
        assert!(producer.emit(&payload(2)).is_ok());
        producer.give_back();
        let shared = memory.clone();
        let emitting = thread::spawn(move || {
            let producer = shared.lane().lease(owner(1)).expect("a free lane");
            let _ = producer.emit(&payload(3));
        });
        memory.lane().free(2);
        let mut drained = Vec::new();
        drain(&memory, 0, &mut drained);
        emitting.join().unwrap();
        outcomes.note(drained.clone());
        assert_eq!(drained, [1, 2]);
    });
}

/// Two lessees in turn, whichever comes first, and a consumer.
fn hand_over(name: &str, prepare: impl Fn(&HeapLane) + Send + Sync + 'static) {
    let seen = explore(name, move |outcomes| {
        let memory = Arc::new(HeapLane::new(4));
        memory.tail.tail.watch();
        prepare(&memory);
        let lessee = |index: u16| {
            let memory = memory.clone();
            thread::spawn(move || {
                let producer = memory.lane().lease(owner(index))?;
                let number = u64::from(index);
                assert!(producer.emit(&payload(number)).is_ok());
                producer.give_back();
                Some(number)
            })
        };
        let lessees = [lessee(1), lessee(2)];
        let mut drained = Vec::new();
        let position = drain(&memory, 0, &mut drained);
        let accepted = lessees.map(|lessee| lessee.join().unwrap());
        drain(&memory, position, &mut drained);
        outcomes.note(drained.clone());
        drained.sort();
        assert_eq!(drained, accepted.into_iter().flatten().collect::<Vec<_>>());
        assert_eq!(memory.lane().holder(), None);
    });
    for order in [vec![1], vec![2], vec![1, 2], vec![2, 1]] {
        assert!(seen.contains(&order), "{order:?} never happened");
    }
}

#[test]
fn the_next_lessee_goes_on_where_the_last_one_stood() {
    hand_over("exclusive, hand-over", |_| {});
}

#[test]
#[should_panic]
fn without_e3_a_lessee_starts_from_an_old_tail() {
    hand_over("exclusive, no E3", |memory| {
        memory.tail.lease.inject(Fault::Unordered);
    });
}

/// After how many stores the first record is whole, and the second, which is brief.
const STORES: [u64; 2] = [9, 9 + 5];

/// A lessee dies after so many stores; the reaper hands its lane over while another waits for it.
fn take_back(stores: u64) -> usize {
    let name = format!("exclusive, death after {stores} stores");
    let seen = explore(&name, move |outcomes| {
        let memory = Arc::new(HeapLane::new(2));
        let shared = memory.clone();
        let dying = thread::spawn(move || {
            let producer = shared.lane().lease(owner(1)).expect("a free lane");
            cut_after(stores);
            let _ = producer.emit(&payload(1));
            let _ = producer.emit(&payload(2));
        });
        // The kernel tells the reaper of the death.
        dying.join().unwrap();
        cut_after(u64::MAX);
        let shared = memory.clone();
        let next = thread::spawn(move || {
            let producer = shared.lane().lease(owner(2))?;
            let emitted = producer.emit(&payload(3)).is_ok();
            producer.give_back();
            Some(emitted)
        });
        let mut drained = Vec::new();
        memory.lane().take_back(owner(1));
        let position = drain(&memory, 0, &mut drained);
        let emitted = next.join().unwrap();
        drain(&memory, position, &mut drained);
        assert_eq!(memory.lane().holder(), None, "the lane is free again");
        let whole = (1..=2).zip(STORES).filter(|(_, last)| stores >= *last);
        let mut expected: Vec<u64> = whole.map(|(number, _)| number).collect();
        expected.extend((emitted == Some(true)).then_some(3));
        assert_eq!(drained, expected);
        outcomes.note(emitted);
    });
    seen.len()
}

#[test]
fn a_lessee_may_die_after_any_store() {
    let outcomes: Vec<usize> = (0..=STORES[1]).map(take_back).collect();
    assert!(outcomes.iter().all(|&count| count >= 2), "{outcomes:?}");
}
