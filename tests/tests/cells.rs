//! State that cannot be lost: what counters and histograms add is there in the end, whoever
//! aggregates, or nobody.

#![allow(clippy::print_stdout)]

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use qbus::{Clock, Counter, Geometry, Kind, MetricType, Record, Removal};
use qbus_aggregate::{Aggregator, AggregatorOptions, ReadOptions, Value};
use qbus_tests::{Host, Lane, Load, Place, Process, TestBus, Totals, check_load, until};
use rustix::process::Signal;

const AGGREGATOR: &str = env!("CARGO_BIN_EXE_test-aggregator");
const HOST: &str = env!("CARGO_BIN_EXE_test-host");
const PRODUCER: &str = env!("CARGO_BIN_EXE_test-producer");

fn load(metric_type: MetricType, worker: &str, threads: u64, records: u64) -> Load {
    Load {
        metric_type,
        threads,
        records,
        lane: Lane::Handle,
        worker: worker.to_owned(),
    }
}

fn aggregate(test: &TestBus) {
    let options = AggregatorOptions::default();
    let mut aggregator = Aggregator::open(&test.open(), &options).expect("the only one");
    aggregator.finish();
}

fn value(test: &TestBus, name: &str) -> Value {
    let totals = Totals::read(&test.open(), &mut test.reader());
    totals.get(name, &[]).expect("the series").value.clone()
}

/// Every type from processes and threads, beside processes that want the CPU too and an aggregator
/// that is stopped: counters and histograms lose nothing, gauges end at their last value, and what
/// is dropped in the end is counted by owner and by type.
#[test]
fn nothing_is_lost_beside_hogs_and_a_stopped_aggregator() {
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let loads: Vec<Load> = MetricType::ALL
            .into_iter()
            .map(|metric_type| load(metric_type, "w", 2, 50_000))
            .collect();
        aggregator.signal(Signal::STOP);
        let mut producers: Vec<Process> = loads
            .iter()
            .map(|load| load.begin(PRODUCER, test.address()))
            .collect();
        let all: Vec<_> = producers
            .iter_mut()
            .zip(&loads)
            .map(|(producer, load)| load.reports(producer))
            .collect();
        aggregator.signal(Signal::CONT);
        stop.store(true, Ordering::Relaxed);
        // Before the owners leave: their places stay theirs until the ledger is read.
        aggregator.end_well();
        let totals = Totals::read(&bus, &mut test.reader());
        for ((producer, load), reports) in producers.iter().zip(&loads).zip(&all) {
            check_load(&totals, load, producer.pid(), reports);
            let accepted: u64 = reports.iter().map(|report| report.accepted).sum();
            if matches!(
                load.metric_type,
                MetricType::Counter | MetricType::Histogram
            ) {
                assert_eq!(accepted, 2 * 50_000, "{load:?}: {reports:?}");
            }
            let owners = bus.owners().expect("the locks answer");
            let owner = owners.iter().find(|owner| owner.pid == producer.pid());
            let owner = owner.expect("its entry");
            let by_type: u64 = owner.dropped_by_type.iter().sum();
            assert_eq!(owner.dropped_full, by_type, "{owner:?}");
            println!(
                "{:?}: {accepted} of 100000 accepted, {} of them as state; {by_type} dropped",
                load.metric_type, owner.coalesced
            );
        }
        println!("{:?}", totals.ledger());
        producers.into_iter().for_each(Process::end_well);
    });
}

#[test]
fn without_an_aggregator_processes_that_follow_each_other_add_up() {
    for place in Place::ALL {
        // One lane of its own: each process goes on in the cells of the one before.
        let geometry = Geometry {
            lanes: 2,
            ..TestBus::small_geometry()
        };
        let test = TestBus::create(place, geometry);
        let load = load(MetricType::Counter, "w", 1, 1000);
        for _ in 0..12 {
            let mut producer = load.begin(PRODUCER, test.address());
            assert_eq!(load.reports(&mut producer)[0].accepted, 1000);
            producer.end_well();
        }
        aggregate(&test);
        let totals = Totals::read(&test.open(), &mut test.reader());
        assert_eq!(totals.counter("test_counter"), 12_000.0);
        let ledger = totals.ledger();
        assert_eq!(
            (ledger.delivered, ledger.dropped()),
            (12_000, 0),
            "{ledger:?}"
        );
    }
}

#[test]
fn more_series_than_cells_count_what_was_accepted() {
    let geometry = Geometry {
        cells: 64,
        series: 512,
        ..TestBus::small_geometry()
    };
    let test = TestBus::create(Place::Named, geometry.with_arena());
    let bus = test.open();
    let counters: Vec<Counter> = (0..400)
        .map(|i| {
            bus.counter("test_many")
                .label("i", &i.to_string())
                .register()
        })
        .collect::<Result<_, _>>()
        .expect("room");
    let options = AggregatorOptions::default();
    let mut aggregator = Aggregator::open(&bus, &options).expect("the only one");
    let mut accepted = 0.0;
    for round in 0..50_usize {
        for (i, counter) in counters.iter().enumerate() {
            let value = if i % 3 == 0 { 0.5 } else { (round % 5) as f64 };
            accepted += counter.try_add(value).map_or(0.0, |()| value);
        }
        aggregator.round();
    }
    aggregator.finish();
    let totals = Totals::read(&bus, &mut test.reader());
    assert_eq!(totals.counter("test_many"), accepted);
}

#[test]
fn threads_beyond_the_lanes_share_cells() {
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    let counter = bus.counter("test_shared").register().expect("room");
    let histogram = bus.histogram("test_seconds").buckets([0.5]);
    let histogram = histogram.register().expect("room");
    let begun = Barrier::new(24);
    thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                counter.inc();
                // All are there at once, so that most of them found no lane.
                begun.wait();
                for n in 0..1000 {
                    counter.add(0.25);
                    counter.inc();
                    histogram.observe(f64::from(n % 2));
                }
            });
        }
    });
    aggregate(&test);
    assert_eq!(
        value(&test, "test_shared"),
        Value::Counter((24.0 * 1251.0).into())
    );
    let Value::Histogram(found) = value(&test, "test_seconds") else {
        panic!("a histogram");
    };
    assert_eq!(
        (found.count, found.sum.value(), &found.cumulative[..]),
        (24_000, 12_000.0, &[12_000, 24_000][..])
    );
    let totals = Totals::read(&bus, &mut test.reader());
    let ledger = totals.ledger();
    assert_eq!(
        (ledger.delivered, ledger.dropped()),
        (24 + 24 * 3000, 0),
        "{ledger:?}"
    );
}

#[test]
fn threads_beyond_the_lanes_keep_the_state_of_gauges_and_summaries() {
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    let summary = bus.summary("test_wait").register().expect("room");
    let (begun, left) = (Barrier::new(24), Barrier::new(24));
    thread::scope(|scope| {
        for thread in 0..24 {
            let (bus, summary, begun, left) = (&bus, &summary, &begun, &left);
            scope.spawn(move || {
                let gauge = bus.gauge("test_level").label("thread", &thread.to_string());
                let gauge = gauge.register().expect("room");
                gauge.set(0.0);
                begun.wait();
                // Nobody drains: all but the first of them meet a full lane.
                for n in 1..=1000 {
                    gauge.try_set(f64::from(n)).expect("kept");
                    summary.try_observe(f64::from(n % 4 + 1)).expect("kept");
                }
                // Nobody gives a lane back meanwhile, which others would take.
                left.wait();
            });
        }
    });
    aggregate(&test);
    let totals = Totals::read(&bus, &mut test.reader());
    for thread in 0..24 {
        let series = totals.get("test_level", &[("thread", &thread.to_string())]);
        let value = &series.expect("the gauge").value;
        assert_eq!(*value, Value::Gauge(1000.0), "of thread {thread}");
    }
    let Value::Summary(found) = value(&test, "test_wait") else {
        panic!("a summary");
    };
    assert_eq!(
        (found.count, found.sum.value(), found.min, found.max),
        (24_000, 60_000.0, 1.0, 4.0)
    );
    let ledger = totals.ledger();
    assert_eq!(
        (ledger.delivered, ledger.dropped()),
        (24 + 24 * 2000, 0),
        "{ledger:?}"
    );
}

#[test]
fn a_lost_snapshot_costs_what_it_had_and_doubles_nothing() {
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    let counter = bus.counter("test_lost").register().expect("room");
    counter.add(40.0);
    aggregate(&test);
    std::fs::remove_file(test.address().snapshot()).expect("it was there");
    counter.add(2.0);
    aggregate(&test);
    assert_eq!(value(&test, "test_lost"), Value::Counter(2.0.into()));
    // With its snapshot the next one goes on.
    counter.add(3.0);
    aggregate(&test);
    assert_eq!(value(&test, "test_lost"), Value::Counter(5.0.into()));
}

#[test]
fn flush_waits_for_cells_too() {
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
    let counter = bus.counter("test_flushed").register().expect("room");
    for n in 1..=20 {
        counter.inc();
        bus.flush(std::time::Duration::from_secs(30))
            .expect("an aggregator");
        assert_eq!(
            value(&test, "test_flushed"),
            Value::Counter(f64::from(n).into())
        );
    }
    aggregator.end_well();
}

#[test]
fn a_removal_is_noticed_by_who_only_counts() {
    let test = TestBus::small(Place::Named);
    let old = test.open();
    let counter = old.counter("test_moved").register().expect("room");
    counter.inc();
    qbus::Bus::remove(test.address(), Removal::Forced).expect("it is there");
    let new = test.make(TestBus::small_geometry());
    until("the handle to follow", || {
        counter.inc();
        new.find("test_moved", &[]).is_some()
    });
    counter.add(10.0);
    aggregate(&test);
    let totals = Totals::read(&new, &mut test.reader());
    assert!(totals.counter("test_moved") >= 10.0);
}

#[test]
fn sums_of_fractions_are_right_to_the_last_digit() {
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    let counter = bus.counter("test_tenths").register().expect("room");
    for _ in 0..1_000_000 {
        counter.add(0.1);
    }
    aggregate(&test);
    let Value::Counter(sum) = value(&test, "test_tenths") else {
        panic!("a counter");
    };
    // The double 0.1 is 5.6e-18 too large: 5.6e-12 in all, less than half of the last digit.
    assert_eq!(sum.value(), 100_000.0);
}

/// A collector emits records, whatever the type: a full lane loses no sum of them, and their
/// missing points are counted.
#[test]
fn records_that_meet_a_full_lane_are_kept_as_state() {
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    let bounds = [9.0, 99.0, 499.0];
    let failed = "room";
    let histogram = bus.histogram("test_histogram").buckets(bounds);
    let series = [
        bus.counter("test_counter")
            .register()
            .expect(failed)
            .series(),
        bus.gauge("test_gauge").register().expect(failed).series(),
        histogram.register().expect(failed).series(),
        bus.summary("test_summary")
            .register()
            .expect(failed)
            .series(),
    ];
    let kinds = [Kind::Increment, Kind::Set, Kind::Observe, Kind::Observe];
    for n in 0..1000 {
        for (series, kind) in series.into_iter().zip(kinds) {
            let record = Record::new(Clock::Precise.now_ns(), series, kind, f64::from(n));
            bus.emit(record).expect("a full lane loses no state");
        }
    }
    let owner = &bus.owners().expect("the locks answer")[0];
    assert_eq!((owner.dropped_full, owner.coalesced), (0, 4000 - 256));
    aggregate(&test);
    let sum = 499_500.0;
    assert_eq!(value(&test, "test_counter"), Value::Counter(sum.into()));
    assert_eq!(value(&test, "test_gauge"), Value::Gauge(999.0));
    let Value::Histogram(found) = value(&test, "test_histogram") else {
        panic!("a histogram");
    };
    assert_eq!(
        (found.sum.value(), &found.cumulative[..]),
        (sum, &[10, 100, 500, 1000][..])
    );
    let Value::Summary(found) = value(&test, "test_summary") else {
        panic!("a summary");
    };
    assert_eq!(
        (found.count, found.sum.value(), found.last),
        (1000, sum, 999.0)
    );
    assert_eq!((found.min, found.max), (0.0, 999.0));
    let median = found.quantiles[0].1;
    assert!((490.0..510.0).contains(&median), "{:?}", found.quantiles);
}

/// A round makes rows for some hundred new series: a flush waits for all of them.
#[test]
fn after_a_flush_every_new_series_has_its_count() {
    let test = TestBus::create(Place::Named, Geometry::default());
    let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
    let bus = test.open();
    let counters: Vec<Counter> = (0..2000)
        .map(|n| {
            let counter = bus.counter("new_total").label("n", &n.to_string());
            counter.register().expect("room")
        })
        .collect();
    counters.iter().for_each(Counter::inc);
    bus.flush(Duration::from_secs(30))
        .expect("it is aggregated");
    let snapshot = test.reader().read(&ReadOptions::default());
    let series = snapshot.expect("a committed snapshot").series;
    let counted = |series: &&qbus_aggregate::Series| series.value == Value::Counter(1.0.into());
    assert_eq!(series.iter().filter(counted).count(), 2000);
    aggregator.end_well();
}

/// The process joins, and more threads than there are lanes look for one, all in one moment.
#[test]
fn first_emits_at_the_same_moment_are_all_there() {
    const THREADS: u64 = 48;
    for _ in 0..10 {
        let test = TestBus::small(Place::Path);
        let bus = test.open();
        let made = bus.counter("made_total").register().expect("room");
        let wait = bus.histogram("wait_seconds").register().expect("room");
        let barrier = Barrier::new(THREADS as usize);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    made.inc();
                    wait.observe(1.0);
                });
            }
        });
        let mut aggregator =
            Aggregator::open(&bus, &AggregatorOptions::default()).expect("the only one");
        aggregator.finish();
        let totals = Totals::read(&bus, &mut test.reader());
        assert_eq!(totals.counter("made_total"), THREADS as f64);
        let Some(Value::Histogram(wait)) =
            totals.get("wait_seconds", &[]).map(|series| &series.value)
        else {
            panic!("a histogram");
        };
        assert_eq!(wait.count, THREADS);
    }
}

/// Processes join, register and look for lanes in one moment, and so do their threads.
#[test]
fn first_emits_of_processes_at_the_same_moment_are_all_there() {
    const PROCESSES: usize = 16;
    for place in Place::ALL {
        let test = TestBus::small(place);
        let start = |_| Host::start(HOST, test.address(), "exec \"$@\"");
        let mut hosts: Vec<Host> = (0..PROCESSES).map(start).collect();
        hosts
            .iter_mut()
            .for_each(|host| host.expect("open", "open"));
        for host in &mut hosts {
            host.process_mut().tell("threads 4");
        }
        for host in &hosts {
            assert_eq!(host.process().line(), "accepted 4 of 4");
        }
        let bus = test.open();
        let mut aggregator =
            Aggregator::open(&bus, &AggregatorOptions::default()).expect("the only one");
        aggregator.finish();
        let totals = Totals::read(&bus, &mut test.reader());
        assert_eq!(totals.counter("test_host"), 4.0 * PROCESSES as f64);
        assert_eq!(totals.ledger().delivered, 4 * PROCESSES as u64);
        let owners = bus.owners().expect("the locks answer");
        assert_eq!(owners.iter().filter(|owner| owner.alive).count(), PROCESSES);
        hosts.into_iter().for_each(Host::end);
    }
}
