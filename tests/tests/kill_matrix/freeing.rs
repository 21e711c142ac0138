//! Aggregators that are killed at every step of freeing series and a family, and their successors.

use std::thread;

use qbus_aggregate::{ReadOptions, Value};
use qbus_tests::{Place, Process, TestBus, until};

use super::{AGGREGATOR, Action, await_hit, say, start, testpoint};

/// Series that are forgotten, all of one family.
const FORGOTTEN: u64 = 6;

/// Which passages of a point an aggregator is killed at, one after the other.
fn passages(point: &str) -> &'static [u64] {
    match point {
        // All series are closed at once: their rows are the next one's to give back.
        "series-freed" => &[1],
        // Each marks the family once.
        "family-suspected" => &[1, 1],
        _ => &[1, 2],
    }
}

/// Kills aggregators in a row at a point while somebody waits for the family's name.
fn check(point: &'static str) -> u64 {
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    let living = bus.counter("living_total").register().expect("room");
    for index in 0..FORGOTTEN {
        let counter = bus.counter("gone").label("i", &index.to_string());
        let counter = counter.register().expect("room");
        counter.inc();
        living.inc();
        counter.forget();
    }
    let mut kills = 0;
    thread::scope(|scope| {
        // With another type: it is refused until the family is gone.
        let registering = scope.spawn(|| {
            let mut gauge = None;
            until("the family to be freed", || {
                gauge = bus.gauge("gone").register().ok();
                gauge.is_some()
            });
            gauge.expect("it is registered").set(3.0);
        });
        for &n in passages(point) {
            let points = Action::Kill.at(point, n);
            let mut aggregator = start(AGGREGATOR, test.address(), &[], &points);
            await_hit(&mut aggregator, Action::Kill, &points);
            kills += 1;
        }
        let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
        registering.join().expect("it is registered in the end");
        living.inc();
        aggregator.end_well();
    });
    let mut reader = test.reader();
    let snapshot = reader.read(&ReadOptions::default()).expect("an epoch");
    let found: Vec<_> = snapshot
        .series
        .iter()
        .map(|series| (series.family.name.as_str(), &series.value))
        .collect();
    let total = Value::Counter((FORGOTTEN as f64 + 1.0).into());
    let expected = [("gone", &Value::Gauge(3.0)), ("living_total", &total)];
    assert_eq!(found, expected, "after kills at {point}");
    let globals = reader.globals();
    assert_eq!((globals.stale, globals.unknown_series), (0, 0), "{point}");
    assert_eq!(bus.counts().series, 2, "{point}");
    kills
}

#[test]
fn an_aggregator_can_be_killed_at_each_step_of_freeing() {
    let kills: u64 = testpoint::FREE.iter().map(|point| check(point)).sum();
    say(&format!(
        "freeing: {} points, {kills} kills",
        testpoint::FREE.len()
    ));
}
