//! Attempted = delivered + dropped + torn + revoked, by owner, and the series add up to what was
//! delivered: whoever emits, through whatever lane.

use qbus::{Geometry, MetricType};
use qbus_tests::{Lane, Load, Place, Process, Report, TestBus, Totals, check_load};

const AGGREGATOR: &str = env!("CARGO_BIN_EXE_test-aggregator");
const PRODUCER: &str = env!("CARGO_BIN_EXE_test-producer");

/// Runs the loads in a process each, all at once, beside an aggregator, and checks every total.
fn check(bus: &TestBus, loads: &[Load]) -> Vec<Vec<Report>> {
    let aggregator = Process::ready(AGGREGATOR, bus.address(), &[]);
    let start = |load: &Load| Process::ready(PRODUCER, bus.address(), &load.to_args());
    let mut producers: Vec<Process> = loads.iter().map(start).collect();
    for producer in &mut producers {
        producer.tell("go");
    }
    let report = |(producer, load): (&Process, &Load)| -> Vec<Report> {
        let line = |_| producer.line().parse().expect("a report");
        (0..load.threads).map(line).collect()
    };
    let reports: Vec<_> = producers.iter().zip(loads).map(report).collect();
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
