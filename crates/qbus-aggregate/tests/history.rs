//! Histories: in order of time, and never ahead of the value that stands beside them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use qbus::{Geometry, Kind, Record};
use qbus_aggregate::{AggregatorOptions, Reader, Value};

use crate::{aggregated, only, read};

#[test]
fn a_counters_history_goes_back_neither_in_time_nor_in_value() {
    let (_test, bus, mut aggregator) =
        aggregated(Geometry::default(), &AggregatorOptions::default());
    let id = bus.counter("x_total").register().expect("room").series();
    // Lanes are drained one after another: what the second holds is as old as what the first does.
    let producers: Vec<_> = (0..3).map(|_| bus.producer().expect("a lane")).collect();
    for round in 0..20 {
        for step in 0..10 {
            let timestamp_ns = 1000 + round * 10 + step;
            for producer in &producers {
                let record = Record::new(timestamp_ns, id, Kind::Increment, 1.0);
                producer.emit(record).expect("room");
            }
        }
        aggregator.round();
    }
    let series = only(&aggregator);
    assert_eq!(series.value, Value::Counter(600.0.into()));
    let points = &series.history;
    assert!(points.is_sorted_by(|a, b| a.timestamp_ns < b.timestamp_ns));
    assert!(points.is_sorted_by(|a, b| a.value <= b.value));
    assert_eq!(points.last().map(|point| point.value), Some(600.0));
    assert!(points.len() >= 20, "{} points", points.len());
}

#[test]
fn a_counters_last_point_is_its_value() {
    let options = AggregatorOptions {
        history: 50,
        ..AggregatorOptions::default()
    };
    let (_test, bus, mut aggregator) = aggregated(Geometry::default(), &options);
    let counter = bus.counter("x_total").register().expect("room");
    counter.inc();
    aggregator.finish();
    let snapshot = aggregator.snapshot().to_owned();
    let is_done = Arc::new(AtomicBool::new(false));
    let done = is_done.clone();
    let writer = std::thread::spawn(move || {
        while !done.load(Ordering::Relaxed) {
            for _ in 0..50 {
                counter.inc();
            }
            aggregator.round();
        }
    });
    let mut reader = Reader::open(&snapshot).expect("a snapshot");
    for _ in 0..1000 {
        let found = read(&mut reader);
        let series = &found.series[0];
        let Value::Counter(sum) = series.value else {
            panic!("a counter");
        };
        let last = series.history.last().map(|point| point.value);
        // Its points may all be overwritten by the time that they are copied; none is ever ahead.
        assert!(last.is_none_or(|last| sum == last), "{last:?} beside {sum}");
        assert!(series.history.is_sorted_by(|a, b| a.value <= b.value));
    }
    is_done.store(true, Ordering::Relaxed);
    writer.join().expect("the writer does not panic");
}

#[test]
fn one_series_is_found_by_its_name_and_labels() {
    let (_test, bus, mut aggregator) =
        aggregated(Geometry::default(), &AggregatorOptions::default());
    for user in 0..100 {
        let users = bus.counter("users_total").label("user", &user.to_string());
        users.register().expect("room").add(f64::from(user));
    }
    bus.gauge("other").register().expect("room").set(7.0);
    aggregator.finish();
    let mut reader = Reader::open(aggregator.snapshot()).expect("a snapshot");
    let labels = |user: &str| [("user".to_owned(), user.to_owned())];
    let found = reader.find("users_total", &labels("42"), true);
    let found = found.expect("the series of that label");
    assert_eq!(found.value, Value::Counter(42.0.into()));
    assert_eq!(found.history.last().map(|point| point.value), Some(42.0));
    let without = reader.find("users_total", &labels("42"), false);
    assert!(without.is_some_and(|found| found.history.is_empty()));
    assert_eq!(reader.find("users_total", &labels("100"), true), None);
    assert_eq!(reader.find("users_total", &[], true), None);
    assert_eq!(reader.find("other", &labels("42"), true), None);
    assert!(reader.find("other", &[], true).is_some());
}
