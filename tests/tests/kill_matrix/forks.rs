//! A fork at any step of a process that joins, emits once and leaves: the child, which does
//! nothing, does not keep the process looking alive that left or was killed, and no lane is lost.

use qbus::testpoint;
use qbus_aggregate::{Aggregator, AggregatorOptions};
use qbus_tests::{Place, TestBus, Totals, until};
use rustix::process::Signal;

use super::{say, start};

const STRAY: &str = env!("CARGO_BIN_EXE_test-stray");

/// How the process goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Leaves,
    IsKilled,
}

fn check(point: &str, action: &str, way: Way) {
    let case = format!("{point}, {action}, {way:?}");
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    let args = ["leaves".to_owned(), "0".to_owned()];
    let points = format!("{point}:1:{action}");
    let mut process = start(STRAY, test.address(), &args, &points);
    assert_eq!(process.line(), "ready", "{case}");
    if way == Way::IsKilled {
        process.signal(Signal::KILL);
        until("its end", || !process.is_running());
    } else {
        process.tell("go");
        assert_eq!(
            process.line(),
            "left 1",
            "{case}: no child was forked there"
        );
    }
    let is_alive = || {
        let owners = bus.owners().expect("the locks answer");
        owners.iter().any(|owner| owner.alive)
    };
    if way == Way::IsKilled {
        // The child lets go of its copy as soon as it gets a processor.
        until(&format!("it to look dead: {case}"), || !is_alive());
    }
    assert!(!is_alive(), "{case}: it looks alive");
    let mut aggregator =
        Aggregator::open(&bus, &AggregatorOptions::default()).expect("the only one");
    until("the lanes to come back", || {
        aggregator.finish();
        bus.lanes().iter().all(|lane| lane.holder.is_none())
    });
    let totals = Totals::read(&bus, &mut test.reader());
    assert_eq!(totals.counter("test_stray"), 1.0, "{case}");
    assert_eq!(totals.ledger().delivered, 1, "{case}");
    assert_eq!(bus.counts().violations, 0, "{case}");
    process.close_input();
    process.await_silence();
}

#[test]
fn forks_of_who_joins_and_leaves() {
    // The first emit of a handle: joins, leases a lane, and writes to its cells.
    let joining = [
        testpoint::LOCK[..2].to_vec(),
        testpoint::JOIN[..5].to_vec(),
        vec![
            "leased",
            "cells-signed",
            "unit-named",
            "cell-value",
            "pulse",
        ],
    ]
    .concat();
    let leaving = [&testpoint::LOCK[2..], &testpoint::JOIN[5..]].concat();
    let mut cases = 0;
    for &point in joining.iter().chain(&leaving) {
        for action in ["FORK", "CLONE"] {
            check(point, action, Way::Leaves);
            cases += 1;
        }
    }
    // A clone of which the C library does not know keeps a copy of the lock until it emits or ends.
    for point in joining {
        check(point, "FORK", Way::IsKilled);
        cases += 1;
    }
    say(&format!("forks of who joins and leaves: {cases} cases"));
}
