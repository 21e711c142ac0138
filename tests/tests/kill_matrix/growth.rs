//! A file system that takes its time.

use std::fs;
use std::time::Duration;

use qbus::{Kind, Record};
use qbus_tests::{Place, TestBus, Totals, until};

use super::{AGGREGATOR, start};

/// A file system that never answers: the thread that asked it for more room hangs, and nothing else
/// does.
#[test]
fn records_and_new_series_do_not_wait_for_a_file_that_grows() {
    let test = TestBus::small(Place::Named);
    // Lengths of the history and of the recent records.
    let sizes = ["60000", "100"].map(String::from);
    let aggregator = start(AGGREGATOR, test.address(), &sizes, "file-grows:1:HANG");
    assert_eq!(aggregator.line(), "ready");
    let is_asked = || {
        let threads = fs::read_dir(format!("/proc/{}/task", aggregator.pid())).expect("it runs");
        let name = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("comm"));
        threads
            .filter_map(|thread| name(thread.ok()?).ok())
            .any(|name| name == "qbus-snapshot\n")
    };
    let length = || fs::metadata(test.address().snapshot()).map_or(0, |file| file.len());
    let bus = test.open();
    let producer = bus.producer().expect("a free lane");
    let gauge = bus.gauge("test_level").register().expect("room").series();
    let mut emitted = 0_u64;
    let mut emit = |count: u64| {
        for n in 1..=count {
            let record = Record::new(n, gauge, Kind::Set, n as f64);
            let sent = producer.emit_or_wait(record, Duration::from_secs(20));
            sent.expect("a lane that is drained");
        }
        emitted += count;
        emitted
    };
    let before = length();
    until("a history that the file has no room for", || {
        emit(1000);
        is_asked()
    });
    // Thousands of laps of the lane, each of which is drained and committed.
    let emitted = emit(20_000);
    let counters: Vec<_> = (0..100)
        .map(|n| {
            let registration = bus.counter("test_total").label("n", &n.to_string());
            let counter = registration.register().expect("room");
            counter.add(f64::from(n));
            counter
        })
        .collect();
    let mut reader = test.reader();
    until("all of it to be on the page", || {
        let totals = Totals::read(&bus, &mut reader);
        let sum = totals.counter("test_total");
        let delivered = totals.ledger().delivered;
        sum == 4950.0 && delivered == emitted + counters.len() as u64
    });
    assert_eq!(length(), before, "it could not grow");
    // It ends although that thread does not.
    aggregator.end_well();
}
