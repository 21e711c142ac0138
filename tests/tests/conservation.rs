//! Attempted = delivered + dropped + torn + revoked, by owner, and the series add up to what was
//! delivered: whoever emits, through whatever lane.

use qbus::{
    Clock, EmitError, EmitManyError, Geometry, Kind, MetricType, Producer, Record, SeriesId,
};
use qbus_aggregate::{Aggregator, AggregatorOptions, ReadOptions, Value};
use qbus_tests::{Lane, Load, Place, Process, Report, TestBus, Totals, check_load};

const AGGREGATOR: &str = env!("CARGO_BIN_EXE_test-aggregator");
const PRODUCER: &str = env!("CARGO_BIN_EXE_test-producer");

/// Runs the loads in a process each, all at once, beside an aggregator, and checks every total.
fn check(bus: &TestBus, loads: &[Load]) -> Vec<Vec<Report>> {
    let aggregator = Process::ready(AGGREGATOR, bus.address(), &[]);
    let begin = |load: &Load| load.begin(PRODUCER, bus.address());
    let mut producers: Vec<Process> = loads.iter().map(begin).collect();
    let ended = producers.iter_mut().zip(loads);
    let reports: Vec<Vec<Report>> = ended
        .map(|(producer, load)| load.reports(producer))
        .collect();
    // Before the owners leave: their places stay theirs until the ledger is read.
    aggregator.end_well();
    let totals = Totals::read(&bus.open(), &mut bus.reader());
    for ((producer, load), reports) in producers.iter().zip(loads).zip(&reports) {
        check_load(&totals, load, producer.pid(), reports);
    }
    producers.into_iter().for_each(Process::end_well);
    let attempted: u64 = reports
        .iter()
        .flatten()
        .map(|report| report.attempted)
        .sum();
    let ledger = totals.ledger();
    let accounted = ledger.delivered + ledger.dropped() + ledger.torn + ledger.revoked;
    assert_eq!(attempted, accounted, "{ledger:?}");
    reports
}

#[test]
fn each_kind_from_processes_and_threads() {
    for place in Place::ALL {
        let bus = TestBus::small(place);
        let loads: Vec<Load> = MetricType::ALL
            .into_iter()
            .flat_map(|metric_type| [(metric_type, "first"), (metric_type, "second")])
            .map(|(metric_type, worker)| Load {
                metric_type,
                threads: if worker == "first" { 1 } else { 2 },
                records: 5000,
                lane: Lane::Handle,
                worker: worker.to_owned(),
            })
            .collect();
        check(&bus, &loads);
    }
}

#[test]
fn producers_that_wait_lose_nothing() {
    let bus = TestBus::small(Place::Named);
    let load = |worker: &str, lane| Load {
        metric_type: MetricType::Histogram,
        threads: 2,
        records: 10_000,
        lane,
        worker: worker.to_owned(),
    };
    let loads = [
        load("exclusive", Lane::Wait),
        load("shared", Lane::SharedWait),
    ];
    for report in check(&bus, &loads).into_iter().flatten() {
        assert_eq!(
            report.accepted + report.revoked,
            report.attempted,
            "{report:?}"
        );
    }
}

#[test]
fn a_shared_lane_takes_many_producers() {
    for place in Place::ALL {
        let geometry = Geometry {
            lanes: 1,
            shared_lanes: 1,
            slots: 16,
            ..TestBus::small_geometry()
        };
        let bus = TestBus::create(place, geometry);
        let lanes = [Lane::Handle, Lane::Shared, Lane::SharedWait, Lane::Wait];
        let loads: Vec<Load> = lanes
            .into_iter()
            .map(|lane| Load {
                metric_type: MetricType::Counter,
                threads: 2,
                records: 4000,
                lane,
                worker: format!("{lane:?}"),
            })
            .collect();
        check(&bus, &loads);
    }
}

#[test]
fn threads_beyond_the_lanes_share_one() {
    let geometry = Geometry {
        lanes: 3,
        shared_lanes: 1,
        slots: 64,
        ..TestBus::small_geometry()
    };
    let bus = TestBus::create(Place::Named, geometry);
    let load = |worker: &str, lane| Load {
        metric_type: MetricType::Summary,
        threads: 4,
        records: 3000,
        lane,
        worker: worker.to_owned(),
    };
    check(
        &bus,
        &[load("first", Lane::Handle), load("second", Lane::Wait)],
    );
}

#[test]
fn a_batch_that_is_cut_short_counts_each_record_once() {
    for exclusive in [true, false] {
        let test = TestBus::small(Place::Named);
        let bus = test.open();
        let counter = bus.counter("test_counter").register().expect("it fits");
        let producer = if exclusive {
            bus.producer()
        } else {
            bus.shared_producer()
        };
        let producer = producer.expect("a lane");
        let of = |value| {
            Record::new(
                Clock::Coarse.now_ns(),
                counter.series(),
                Kind::Increment,
                value,
            )
        };
        let cut = |accepted, error| Err(EmitManyError { accepted, error });
        let bad = EmitError::Value {
            found: -1.0,
            kind: Kind::Increment,
        };
        assert_eq!(producer.emit_many(&[of(1.0); 100]), Ok(()));
        let spoiled = [[of(1.0); 50], [of(-1.0); 50]].concat();
        assert_eq!(producer.emit_many(&spoiled), cut(50, bad));
        // 256 slots hold 106 more.
        assert_eq!(
            producer.emit_many(&[of(1.0); 200]),
            cut(106, EmitError::Full)
        );
        assert_eq!(producer.emit_many(&[of(1.0); 10]), cut(0, EmitError::Full));
        assert_eq!(producer.emit_many(&[]), Ok(()));
        let mut aggregator =
            Aggregator::open(&bus, &AggregatorOptions::default()).expect("the first one");
        aggregator.finish();
        let totals = Totals::read(&bus, &mut test.reader());
        let tally = totals.tally(u64::from(std::process::id()));
        let counts = (tally.delivered, tally.rejected, tally.dropped_full);
        assert_eq!(counts, (256, 50, 94 + 10), "exclusive: {exclusive}");
        assert_eq!(totals.counter("test_counter"), 256.0);
    }
}

#[test]
fn owners_that_follow_each_other_in_one_place_add_up() {
    for place in Place::ALL {
        let geometry = Geometry {
            owners: 2,
            ..TestBus::small_geometry()
        };
        let bus = TestBus::create(place, geometry);
        let (mut attempted, mut accepted) = (0, 0);
        for round in 0..9 {
            let load = Load {
                metric_type: MetricType::Counter,
                threads: 2,
                records: 300,
                lane: Lane::Handle,
                worker: round.to_string(),
            };
            // Nobody drains while they emit, so that each drops: and none is forgotten when several
            // have come and gone between two looks of an aggregator.
            let mut producer = load.begin(PRODUCER, bus.address());
            for report in load.reports(&mut producer) {
                attempted += report.attempted;
                accepted += report.accepted;
            }
            if round % 4 == 3 {
                producer.kill();
            } else {
                producer.end_well();
            }
            if round % 3 == 2 {
                Process::ready(AGGREGATOR, bus.address(), &[]).end_well();
            }
        }
        let totals = Totals::read(&bus.open(), &mut bus.reader());
        let ledger = totals.ledger();
        assert_eq!((attempted, ledger.delivered), (9 * 600, accepted));
        assert_eq!(ledger.dropped_full, attempted - accepted, "{ledger:?}");
        assert_eq!(totals.counter("test_counter"), accepted as f64);
    }
}

#[test]
fn records_that_make_no_sense_are_counted_for_their_owner_and_harm_nobody_else() {
    let test = TestBus::small(Place::Named);
    let (wild, good) = (test.open(), test.open());
    let counter = good.counter("test_counter").register().expect("it fits");
    let gauge = good.gauge("test_gauge").register().expect("it fits");
    let (wild_one, good_one) = (
        wild.producer().expect("a lane"),
        good.producer().expect("a lane"),
    );
    let emit = |producer: &Producer, series, kind| {
        producer
            .emit(Record::new(1, series, kind, 1.0))
            .expect("room");
    };
    for n in 0..10 {
        // No series of that id; one beyond all ids; a kind that the series does not take.
        emit(&wild_one, SeriesId(n), Kind::Adjust);
        emit(&wild_one, SeriesId(u32::MAX - n), Kind::Increment);
        emit(&wild_one, gauge.series(), Kind::Observe);
        emit(&good_one, counter.series(), Kind::Increment);
    }
    let mut aggregator =
        Aggregator::open(&good, &AggregatorOptions::default()).expect("the only one");
    aggregator.finish();
    let rows = test.reader().owners();
    let tally = |producer: &Producer| rows[usize::from(producer.owner().index)].present;
    let known = u64::from(gauge.series().0 < 10);
    assert_eq!(tally(&wild_one).delivered, 30, "all of them arrived");
    assert_eq!(tally(&wild_one).violations, 30 - known, "and were refused");
    assert_eq!(
        (tally(&good_one).delivered, tally(&good_one).violations),
        (10, 0)
    );
    let snapshot = test
        .reader()
        .read(&ReadOptions::default())
        .expect("a snapshot");
    let counted = snapshot
        .series
        .iter()
        .find(|series| series.family.name == "test_counter");
    assert_eq!(
        counted.map(|series| &series.value),
        Some(&Value::Counter(10.0.into()))
    );
}
