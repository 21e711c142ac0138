//! Tests of series that are forgotten while the wall clock steps.

use qbus::{Bus, Geometry, Kind, Record, SeriesId};
use qbus_tests::{Place, TestBus};

use super::{Aggregator, AggregatorOptions, Now};
use crate::series::Value;
use crate::snapshot::reader::{ReadOptions, Reader};

const MINUTE_NS: u64 = 60_000_000_000;
/// Longer than walks for what is forgotten are apart.
const STEP_NS: u64 = 25_000_000;

/// So many rounds that all is found that is forgotten.
fn run(aggregator: &mut Aggregator, now: &mut Now) {
    for _ in 0..64 {
        now.unix_ns += STEP_NS;
        now.monotonic_ns += STEP_NS;
        aggregator.round_at(*now);
    }
}

fn set(bus: &Bus, gauge: SeriesId, time_ns: u64, value: f64) {
    let record = Record::new(time_ns, gauge, Kind::Set, value);
    bus.producer().expect("a lane").emit(record).expect("room");
}

fn page(aggregator: &Aggregator) -> Vec<Value> {
    let mut reader = Reader::open(aggregator.snapshot()).expect("a snapshot");
    let snapshot = reader.read(&ReadOptions::default()).expect("a page");
    let values = snapshot.series.into_iter().map(|series| series.value);
    values.collect()
}

/// What was set before the clock was set back is forgotten as anything else, and what was forgotten
/// before that comes back with the next record.
#[test]
fn a_clock_that_is_set_back_keeps_nothing_on_the_page_and_nothing_off_it() {
    let test = TestBus::create(Place::Path, Geometry::default());
    let (bus, mut now) = (test.open(), Now::read());
    let aggregator = Aggregator::open_at(&bus, &AggregatorOptions::default(), now);
    let mut aggregator = aggregator.expect("the only aggregator");
    let gauge = bus.gauge("test_level").register().expect("room").series();
    set(&bus, gauge, now.unix_ns + 2 * MINUTE_NS, 1.0);
    run(&mut aggregator, &mut now);
    assert_eq!(page(&aggregator), [Value::Gauge(1.0)]);
    assert!(bus.forget(gauge));
    run(&mut aggregator, &mut now);
    assert_eq!(page(&aggregator), []);
    now.unix_ns -= 60 * MINUTE_NS;
    set(&bus, gauge, now.unix_ns, 2.0);
    run(&mut aggregator, &mut now);
    assert_eq!(page(&aggregator), [Value::Gauge(2.0)]);
}
