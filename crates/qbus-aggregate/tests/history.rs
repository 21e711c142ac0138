//! Histories: in order of time, and never ahead of the value that stands beside them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use qbus::{Clock, Geometry, Kind, Record};
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

/// As where the aggregator is stopped for a second in the middle of a round: what a full lane did
/// not take by then is later than what it holds for the next round.
#[test]
fn what_is_kept_during_a_long_round_does_not_look_like_a_clock_that_was_set_back() {
    let geometry = Geometry {
        slots: 256,
        ..Geometry::default()
    };
    let (before_ns, long_ns) = (200_000_000, 900_000_000);
    loop {
        let (_test, bus, mut aggregator) = aggregated(geometry, &AggregatorOptions::default());
        let gauge = bus.gauge("x").register().expect("room");
        let now_ns = Clock::Precise.now_ns();
        for n in 0..300 {
            let (timestamp_ns, value) = if n < geometry.slots {
                (now_ns, 1.0)
            } else {
                (now_ns + long_ns, 2.0)
            };
            gauge.try_set_at(timestamp_ns, value).expect("it is kept");
        }
        aggregator.round();
        if Clock::Precise.now_ns() >= now_ns + long_ns {
            // This machine took as long.
            continue;
        }
        let timestamp_ns = now_ns - before_ns;
        gauge.try_set_at(timestamp_ns, 3.0).expect("room");
        aggregator.round();
        let series = only(&aggregator);
        assert_eq!(series.value, Value::Gauge(2.0), "the latest one");
        let points = &series.history;
        assert!(points.is_sorted_by_key(|point| point.timestamp_ns));
        assert_eq!(points.len(), 258);
        assert_eq!(points.first().map(|point| point.value), Some(3.0));
        assert_eq!(points.last().map(|point| point.value), Some(2.0));
        return;
    }
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
