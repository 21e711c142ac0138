//! Times that lie ahead of the aggregator's clock: made up, or of before it was set back.

use qbus::{Clock, Geometry, Kind, Record};
use qbus_aggregate::{AggregatorOptions, Reader, Value};

use crate::{aggregated, only};

const MINUTE_NS: u64 = 60_000_000_000;

#[test]
fn a_gauge_whose_time_lies_ahead_takes_the_latest_arrival() {
    let (_test, bus, mut aggregator) =
        aggregated(Geometry::default(), &AggregatorOptions::default());
    let gauge = bus.gauge("g").register().expect("room");
    let now = Clock::Precise.now_ns();
    gauge.try_set_at(now + 2 * MINUTE_NS, 1.0).expect("room");
    aggregator.round();
    assert_eq!(only(&aggregator).value, Value::Gauge(1.0));
    gauge.set(2.0);
    gauge.set(3.0);
    aggregator.round();
    let series = only(&aggregator);
    assert_eq!(series.value, Value::Gauge(3.0));
    assert!(series.timestamp_ns < now + MINUTE_NS);
    // With its time in the past again, an older value is an older value.
    gauge.try_set_at(now - MINUTE_NS, 4.0).expect("room");
    aggregator.round();
    assert_eq!(only(&aggregator).value, Value::Gauge(3.0));
}

#[test]
fn a_gauge_is_not_set_for_a_time_far_ahead_and_that_is_counted() {
    let (_test, bus, mut aggregator) =
        aggregated(Geometry::default(), &AggregatorOptions::default());
    let gauge = bus.gauge("g").register().expect("room");
    gauge.set(1.0);
    let ahead = Clock::Precise.now_ns() + 60 * MINUTE_NS;
    gauge.try_set_at(ahead, 2.0).expect("room");
    // A difference counts whenever it was.
    let record = Record::new(ahead, gauge.series(), Kind::Adjust, 0.5);
    bus.producer().expect("a lane").emit(record).expect("room");
    aggregator.finish();
    assert_eq!(only(&aggregator).value, Value::Gauge(1.5));
    let reader = Reader::open(aggregator.snapshot()).expect("a snapshot");
    let violations: u64 = reader.owners().iter().map(|o| o.present.violations).sum();
    assert_eq!((violations, reader.globals().records), (1, 3));
}

#[test]
fn increments_and_observations_count_whatever_their_time() {
    let (_test, bus, mut aggregator) =
        aggregated(Geometry::default(), &AggregatorOptions::default());
    let id = bus.counter("x_total").register().expect("room").series();
    let producer = bus.producer().expect("a lane");
    let now = Clock::Precise.now_ns();
    for time in [now + 60 * MINUTE_NS, now - 5, now + 60 * MINUTE_NS, now] {
        let record = Record::new(time, id, Kind::Increment, 1.0);
        producer.emit(record).expect("room");
        aggregator.round();
    }
    let series = only(&aggregator);
    assert_eq!(series.value, Value::Counter(4.0.into()));
    // What was made up is shown for when it came.
    assert!(series.timestamp_ns < now + MINUTE_NS);
    let points = &series.history;
    assert!(points.iter().all(|p| p.timestamp_ns < now + MINUTE_NS));
    assert!(points.is_sorted_by(|a, b| a.timestamp_ns < b.timestamp_ns));
}
