//! An emit in a signal handler, whatever it interrupts: it never hangs, and what it returns is
//! true.

use qbus_tests::{Place, Process, TestBus, Totals};

const AGGREGATOR: &str = env!("CARGO_BIN_EXE_test-aggregator");
const INTERRUPTED: &str = env!("CARGO_BIN_EXE_test-interrupted");

fn check(mode: &str, rounds: u32) {
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
    let args = [mode.to_owned(), rounds.to_string()];
    let interrupted = Process::start(INTERRUPTED, test.address(), &args);
    let line = interrupted.line();
    let said: Vec<u64> = line
        .split(' ')
        .skip(1)
        .map_while(|part| part.parse().ok())
        .collect();
    let [hung, accepted, refused] = said[..] else {
        panic!("{mode}: {line:?}");
    };
    assert_eq!(hung, 0, "{mode}: of {rounds} children");
    interrupted.end_well();
    aggregator.end_well();
    let totals = Totals::read(&bus, &mut test.reader());
    assert!(accepted > 0, "{mode}: nothing was accepted");
    assert_eq!(
        totals.counter("test_interrupted"),
        accepted as f64,
        "{mode}"
    );
    // What was refused is in the ledger, by owner or as nobody's.
    let ledger = totals.ledger();
    let counted = ledger.dropped_full + ledger.revoked + bus.counts().dropped_unowned;
    assert_eq!(counted, refused, "{mode}: {ledger:?}");
}

#[test]
fn the_first_emit_of_a_process_is_interrupted() {
    check("first", 150);
}

#[test]
fn threads_are_interrupted_from_birth_to_death() {
    check("threads", 1000);
}

#[test]
fn threads_that_never_emit_are_interrupted_while_they_allocate() {
    check("foreign", 1000);
}

#[test]
fn forks_are_interrupted() {
    check("forks", 150);
}
