//! Native histograms: those that ask for it count finer than their buckets, beside them.

use qbus::Geometry;
use qbus_aggregate::export::{Format, Options, export};
use qbus_aggregate::{Aggregator, AggregatorOptions, HistogramValue, Reader, Value};
use qbus_tests::TestBus;

use crate::{aggregated, only, read};

fn value(aggregator: &Aggregator) -> HistogramValue {
    match only(aggregator).value {
        Value::Histogram(value) => value,
        other => panic!("{other:?}"),
    }
}

/// The quantile of the finer buckets.
fn quantile(value: &HistogramValue, q: f64) -> f64 {
    let finer = value.distribution.as_ref().expect("it is native");
    assert_eq!(finer.count(), value.count);
    finer.quantiles(&[q], value.min, value.max)[0]
}

#[test]
fn quantiles_are_fine_where_the_buckets_are_coarse() {
    let options = AggregatorOptions::default();
    let (_test, bus, mut aggregator) = aggregated(Geometry::default(), &options);
    let wait = bus.histogram("wait_seconds").buckets([1.0, 100.0]).native();
    let wait = wait.register().expect("room");
    let plain = bus.histogram("plain_seconds").register().expect("room");
    plain.observe(1.0);
    for round in 0..4 {
        for n in 1..=250 {
            wait.observe(f64::from(round * 250 + n) / 10.0);
        }
        aggregator.round();
        // A successor goes on with them, in whatever row they have come to.
        drop(aggregator);
        aggregator = Aggregator::open(&bus, &options).expect("the only one");
    }
    let snapshot = read(&mut Reader::open(aggregator.snapshot()).expect("a snapshot"));
    let [plain, wait] = &snapshot.series[..] else {
        panic!("{snapshot:?}");
    };
    assert!(matches!(&plain.value, Value::Histogram(value) if value.distribution.is_none()));
    let Value::Histogram(value) = &wait.value else {
        panic!("{wait:?}");
    };
    assert_eq!(value.cumulative, [10, 1000, 1000]);
    for (q, exact) in [(0.5, 50.0), (0.9, 90.0), (0.99, 99.0)] {
        let found = quantile(value, q);
        assert!((found / exact - 1.0).abs() < 0.011, "{q}: {found}");
    }
    let size = |format| {
        let mut page = Vec::new();
        export(&snapshot, format, &Options::default(), &mut page).expect("memory");
        page.len()
    };
    // Some hundred buckets of it are on the one page that has a place for them.
    assert!(size(Format::Protobuf) > 300 && size(Format::OpenMetrics) < 800);
}

#[test]
fn what_a_full_lane_does_not_take_counts_in_the_middle_of_its_bucket() {
    let options = AggregatorOptions::default();
    let (_test, bus, mut aggregator) = aggregated(TestBus::small_geometry(), &options);
    let wait = bus.histogram("wait_seconds").buckets([1.0, 4.0]).native();
    let wait = wait.register().expect("room");
    let slots = TestBus::small_geometry().slots;
    // Nobody drains the lane: what it does not take goes to cells.
    for _ in 0..slots + 100 {
        wait.try_observe(1.5).expect("a place for its count");
    }
    aggregator.finish();
    aggregator.finish();
    let found = value(&aggregator);
    assert_eq!(found.cumulative, [0, slots + 100, slots + 100]);
    assert!((quantile(&found, 0.1) / 1.5 - 1.0).abs() < 0.011);
    assert!((quantile(&found, 0.999) - found.max).abs() < 0.011 * found.max);
    let finer = found.distribution.expect("it is native").exponential(160);
    // 1.5, and 2, the middle of 1 to 4.
    let counts: Vec<u64> = finer.positive.iter().map(|(_, count)| *count).collect();
    assert_eq!(counts.len(), 2, "{finer:?}");
    assert_eq!(counts.iter().sum::<u64>(), slots + 100);
}

#[test]
fn one_name_is_native_for_all_or_for_none() {
    let test = TestBus::small(qbus_tests::Place::Path);
    let bus = test.open();
    bus.histogram("h").native().register().expect("room");
    let error = bus
        .histogram("h")
        .register()
        .expect_err("another definition");
    assert!(error.to_string().contains("native"), "{error}");
}
