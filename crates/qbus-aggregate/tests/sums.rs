//! Sums: exact where increments are integers, right to the last digit where they are not.

use qbus::{Geometry, Kind, Record};
use qbus_aggregate::export::{Format, Options, export};
use qbus_aggregate::{Aggregator, AggregatorOptions, Reader, Value};

use crate::{aggregated, only, read};

/// A record that stands for so many.
fn many(series: qbus::SeriesId, kind: Kind, value: f64, count: u64) -> Record {
    Record {
        count,
        ..Record::new(1, series, kind, value)
    }
}

#[test]
fn a_counter_counts_by_one_beyond_what_a_double_can() {
    let options = AggregatorOptions::default();
    let (_test, bus, mut aggregator) = aggregated(Geometry::default(), &options);
    let counter = bus.counter("x_total").register().expect("room");
    let producer = bus.producer().expect("a lane");
    let large = many(counter.series(), Kind::Increment, 1.0, 1 << 60);
    producer.emit(large).expect("room");
    for _ in 0..3 {
        counter.inc();
        aggregator.round();
        // A successor goes on with all of it.
        drop(aggregator);
        aggregator = Aggregator::open(&bus, &options).expect("the only aggregator");
    }
    let Value::Counter(sum) = only(&aggregator).value else {
        panic!("a counter");
    };
    assert_eq!(sum.integral(), Some((1 << 60) + 3));
    let mut reader = Reader::open(aggregator.snapshot()).expect("a snapshot");
    let snapshot = read(&mut reader);
    for format in [Format::Json, Format::Csv, Format::Prometheus] {
        let mut page = Vec::new();
        export(&snapshot, format, &Options::default(), &mut page).expect("memory");
        let page = String::from_utf8(page).expect("text");
        assert!(page.contains("1152921504606846979"), "{format:?}: {page}");
    }
}

#[test]
fn fractions_add_up_to_what_they_are() {
    let (_test, bus, mut aggregator) =
        aggregated(Geometry::default(), &AggregatorOptions::default());
    let counter = bus.counter("x_total").register().expect("room");
    // 1e9 × 0.1: as one record, and in a naive sum off by more than 1.
    let producer = bus.producer().expect("a lane");
    let record = many(counter.series(), Kind::Increment, 0.1, 999_950_000);
    producer.emit(record).expect("room");
    for _ in 0..50 {
        for _ in 0..1000 {
            counter.add(0.1);
        }
        aggregator.round();
    }
    aggregator.finish();
    let Value::Counter(sum) = only(&aggregator).value else {
        panic!("a counter");
    };
    assert_eq!(sum.value(), 100_000_000.0);
}

#[test]
fn infinite_observations_are_counted_and_nan_is_rejected() {
    let (_test, bus, mut aggregator) =
        aggregated(Geometry::default(), &AggregatorOptions::default());
    let histogram = bus.histogram("h").buckets([1.0, 2.0]).register();
    let histogram = histogram.expect("room");
    for value in [0.5, f64::INFINITY, 1.5] {
        histogram.try_observe(value).expect("room");
    }
    histogram.observe(f64::NAN);
    aggregator.finish();
    let Value::Histogram(found) = only(&aggregator).value else {
        panic!("a histogram");
    };
    assert_eq!((found.count, found.cumulative), (3, vec![1, 2, 3]));
    assert_eq!(found.sum.value(), f64::INFINITY);
    let reader = Reader::open(aggregator.snapshot()).expect("a snapshot");
    let rejected: u64 = reader.owners().iter().map(|o| o.present.rejected).sum();
    assert_eq!(rejected, 1);
}
