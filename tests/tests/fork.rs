//! A forked child is a process of its own: it joins anew when it emits, and does not keep its dead
//! parent looking alive when it never does.

use std::collections::HashMap;

use qbus_tests::{Place, Process, TestBus, Totals, until};

const AGGREGATOR: &str = env!("CARGO_BIN_EXE_test-aggregator");
const FORKER: &str = env!("CARGO_BIN_EXE_test-forker");
const RECORDS: u64 = 100;

/// What was said: by whom, with which pid, and how many records were accepted.
fn said(forker: &Process, lines: usize) -> HashMap<String, (u64, u64)> {
    let parse = |line: String| -> Option<(String, (u64, u64))> {
        let [who, pid, accepted] = line.split(' ').collect::<Vec<_>>()[..] else {
            return None;
        };
        Some((who.to_owned(), (pid.parse().ok()?, accepted.parse().ok()?)))
    };
    let line = |_| parse(forker.line()).expect("who, pid and records");
    (0..lines).map(line).collect()
}

/// Runs a mode in which both emit; each is an owner of its own, with its own records.
fn check(mode: &str) {
    for place in Place::ALL {
        let test = TestBus::small(place);
        let bus = test.open();
        let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
        let args = [mode.to_owned(), RECORDS.to_string()];
        let forker = Process::start(FORKER, test.address(), &args);
        let said = said(&forker, 3);
        let ((parent, by_parent), (child, by_child)) = (said["parent"], said["child"]);
        let (_, by_siblings) = said["siblings"];
        assert_ne!(parent, child);
        let alive: Vec<u64> = owners(&bus)
            .filter(|owner| owner.1)
            .map(|owner| owner.0)
            .collect();
        assert!(
            alive.contains(&parent) && alive.contains(&child),
            "{mode}: {alive:?}"
        );

        aggregator.end_well();
        let totals = Totals::read(&bus, &mut test.reader());
        let delivered = |pid| totals.tally(pid).delivered;
        assert_eq!(delivered(parent), by_parent + by_siblings, "{mode}");
        assert_eq!(delivered(child), by_child, "{mode}");
        let accepted = by_parent + by_siblings + by_child;
        assert_eq!(totals.counter("test_forked"), accepted as f64, "{mode}");
        // Beside threads that fill lanes, the child's may be one that a thread gave back full.
        let dropped = totals.tally(child).dropped_full;
        assert_eq!(by_child + dropped, RECORDS, "{mode}");
        assert!(dropped == 0 || mode == "threads", "{mode}: {dropped}");
        // What an inherited producer refuses is nobody's, and counted all the same.
        let unowned = u64::from(mode == "inherits");
        assert_eq!(bus.counts().dropped_unowned, unowned, "{mode}");
        forker.end_well();
        until("both to be seen gone", || {
            owners(&bus).all(|owner| !owner.1)
        });
    }
}

/// Pid and whether it is alive.
fn owners(bus: &qbus::Bus) -> impl Iterator<Item = (u64, bool)> {
    let owners = bus.owners().expect("the locks answer");
    owners.into_iter().map(|owner| (owner.pid, owner.alive))
}

#[test]
fn a_child_that_emits_is_an_owner_of_its_own() {
    check("emits");
}

#[test]
fn a_child_of_a_raw_clone_is_an_owner_of_its_own() {
    check("clones");
}

#[test]
fn a_child_forked_beside_emitting_threads_is_an_owner_of_its_own() {
    check("threads");
}

#[test]
fn an_inherited_producer_refuses_and_a_new_one_works() {
    check("inherits");
}

#[test]
fn a_child_that_never_emits_does_not_keep_its_parent_alive() {
    for place in Place::ALL {
        let test = TestBus::small(place);
        let bus = test.open();
        let args = ["idles".to_owned(), RECORDS.to_string()];
        let mut forker = Process::start(FORKER, test.address(), &args);
        let said = said(&forker, 2);
        let (parent, _) = said["parent"];
        until("the parent's end", || !forker.is_running());
        // The child lives: it waits for the input that this test holds open.
        assert_eq!(owners(&bus).collect::<Vec<_>>(), [(parent, false)]);
        let leased = |bus: &qbus::Bus| bus.lanes().iter().filter(|l| l.holder.is_some()).count();
        assert_eq!(leased(&bus), 2);

        let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
        until("the lanes to come back", || leased(&bus) == 0);
        aggregator.end_well();
        let totals = Totals::read(&bus, &mut test.reader());
        assert_eq!(totals.tally(parent).delivered, 1);
        // Nobody waits for the child of a dead parent: its word says that it ended well.
        forker.close_input();
        assert_eq!(forker.line().split(' ').next(), Some("ended"));
    }
}
