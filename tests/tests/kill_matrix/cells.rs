//! Writers of cells that die or stop: no increment that returned is lost, and none counts twice.

use qbus::{Geometry, testpoint};
use qbus_tests::{Lane, Place, Process, TestBus, Totals, until};
use rustix::process::Signal;
use tempfile::TempDir;

use super::producer::{Stage, delivered, settle};
use super::{AGGREGATOR, Action, await_hit, say};

/// What each process adds.
const RECORDS: u64 = 200;

/// One lane of either sort, or two that are shared: each writer follows another in the same cells.
fn geometry(is_shared: bool) -> Geometry {
    Geometry {
        lanes: 2,
        shared_lanes: if is_shared { 2 } else { 1 },
        slots: 32,
        owners: 8,
        families: 4,
        series: 64,
        arena_words: 4096,
        cells: 64,
    }
}

fn check(point: &str, action: Action, is_shared: bool) {
    let stage = Stage {
        test: TestBus::create(Place::Named, geometry(is_shared)),
        folder: TempDir::new().expect("a temporary folder"),
    };
    let aggregator = Process::ready(AGGREGATOR, stage.test.address(), &[]);
    let run = |worker: &str| {
        let mut emitter = stage.start(Lane::Handle, worker.to_owned(), "");
        until("a worker to add", || emitter.journal.read().done);
        emitter.process.close_input();
        until("a worker to end", || emitter.process.status().is_some());
        emitter.bury()
    };
    let first = run("first");
    let passage = if matches!(
        point,
        "cell-value" | "pulse" | "shared-cell-value" | "shared-pulse"
    ) {
        57
    } else {
        1
    };
    let points = action.at(point, passage);
    let mut victim = stage.start(Lane::Handle, "victim".to_owned(), &points);
    await_hit(&mut victim.process, action, &points);
    let survivor = run("survivor");
    if action == Action::StopThenContinue {
        victim.process.signal(Signal::CONT);
        until("the victim to go on", || victim.journal.read().done);
        victim.process.close_input();
        until("the victim to end", || victim.process.status().is_some());
    }
    let victim = victim.bury();
    aggregator.end_well();
    settle(&stage.test.open());

    let mut reader = stage.test.reader();
    let totals = Totals::read(&stage.test.open(), &mut reader);
    for (worker, pid, entries) in [first, survivor] {
        let tally = totals.tally(pid);
        assert_eq!(entries.accepted, RECORDS, "{worker} at {points}");
        assert_eq!(
            delivered(&mut reader, &worker),
            RECORDS as f64,
            "{worker} at {points}"
        );
        assert_eq!(tally.delivered, RECORDS, "{worker} at {points}: {tally:?}");
    }
    let (worker, pid, entries) = victim;
    let (sum, tally) = (delivered(&mut reader, &worker) as u64, totals.tally(pid));
    let holds = format!("at {points}: {entries:?}, a sum of {sum}, {tally:?}");
    let open = entries.open_calls();
    assert!(
        (entries.accepted..=entries.accepted + open).contains(&sum),
        "{holds}"
    );
    // A value without its pulse is in the sum, and not in the ledger.
    assert!(
        (sum.saturating_sub(open)..=sum).contains(&tally.delivered),
        "{holds}"
    );
    assert_eq!(tally.violations, 0, "{holds}");
}

fn check_all(points: &[&str], is_shared: bool) {
    let mut cases = 0;
    for point in points {
        for action in Action::ALL {
            check(point, action, is_shared);
            cases += 1;
        }
    }
    say(&format!("{points:?}: {cases} cases"));
}

#[test]
fn writers_of_cells() {
    check_all(testpoint::CELLS, false);
}

#[test]
fn writers_of_shared_cells() {
    check_all(testpoint::SHARED_CELLS, true);
}
