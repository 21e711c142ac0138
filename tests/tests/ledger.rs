//! The ledger while owners come and go: it never goes back, and is exact at rest.

use qbus::{EmitError, FamilyDefinition, Geometry, Kind, MetricType, Record, Removal};
use qbus_aggregate::{Aggregator, AggregatorOptions, Ledger, Reader};
use qbus_tests::{Place, TestBus};

/// A record of a series without a type that meets a full lane is one of a gauge.
#[test]
fn what_is_untyped_is_dropped_as_a_gauge_is() {
    let test = TestBus::create(Place::Named, TestBus::small_geometry());
    let bus = test.open();
    let family = FamilyDefinition::new("test_untyped", MetricType::Untyped);
    let series = bus.intern(&family, &[]).expect("room");
    let record = Record::new(1, series, Kind::Set, 1.0);
    let producer = bus.producer().expect("a lane");
    let full = (0..1 << 20).find_map(|_| producer.emit(record).err());
    assert!(matches!(full, Some(EmitError::Full)), "{full:?}");
    let owners = bus.owners().expect("the locks answer");
    assert_eq!(owners[0].dropped_by_type, [0, owners[0].dropped_full, 0, 0]);
}

#[test]
fn no_cause_goes_back_when_another_occupant_takes_an_entry() {
    let geometry = Geometry {
        // All of them in one entry, each after the other.
        owners: 1,
        ..TestBus::small_geometry()
    };
    let test = TestBus::create(Place::Named, geometry);
    let watching = test.open();
    let mut aggregator =
        Aggregator::open(&watching, &AggregatorOptions::default()).expect("the only one");
    let reader = Reader::open(aggregator.snapshot()).expect("its first commit");
    let mut last: Ledger = Ledger::default();
    let mut look = |after: &str| {
        let ledger = Ledger::read(&watching, Some(&reader)).expect("the locks answer");
        let pairs = ledger.losses().into_iter().zip(last.losses());
        for ((cause, now), (_, before)) in pairs {
            assert!(
                now >= before,
                "{cause} from {before} to {now} after {after}"
            );
        }
        assert!(
            ledger.total.delivered >= last.total.delivered,
            "after {after}"
        );
        last = ledger.clone();
        ledger
    };
    let (mut attempted, mut rejected) = (0, 0);
    for occupant in 0..12_u64 {
        let bus = test.open();
        let gauge = bus.gauge("test_gauge").register().expect("room");
        look("a registration");
        for _ in 0..geometry.slots + occupant {
            // Nobody drains meanwhile: some of them find the lane full.
            let _ = gauge.try_set(1.0);
            attempted += 1;
            // The first one joins.
            look("a record");
        }
        let counter = bus.counter("test_total").register().expect("room");
        for _ in 0..occupant {
            counter.try_add(-1.0).expect_err("no increment");
            rejected += 1;
        }
        look("emitting");
        drop((gauge, counter, bus));
        let ledger = look("leaving");
        assert_eq!(ledger.owners.len(), 1, "one entry for all of them");
        // An aggregator that is slow, or away, looks at the owners now and then.
        if occupant % 3 == 2 {
            aggregator.finish();
            look("a commit");
        }
    }
    let ledger = look("all");
    assert_eq!(ledger.total.rejected, rejected);
    assert_eq!(
        ledger.total.delivered + ledger.total.dropped_full,
        attempted
    );
    assert_eq!(ledger.owners[0].tally.rejected, 11, "the last one's own");
}

#[test]
fn a_snapshot_of_another_bus_is_passed_over() {
    let test = TestBus::small(Place::Named);
    let old = test.open();
    old.counter("test_total").register().expect("room").inc();
    let mut aggregator = Aggregator::open(&old, &AggregatorOptions::default()).expect("one");
    aggregator.finish();
    let reader = test.reader();
    let of_old = Ledger::read(&old, Some(&reader)).expect("the locks answer");
    assert_eq!(of_old.total.delivered, 1);
    qbus::Bus::remove(test.address(), Removal::Forced).expect("it is there");
    let new = test.make(TestBus::small_geometry());
    let of_new = Ledger::read(&new, Some(&reader)).expect("the locks answer");
    assert_eq!(of_new, Ledger::default());
}
