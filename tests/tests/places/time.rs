//! A clock that was ahead, everything stopped for a while, and hardly any processor time.
//!
//! A clock that steps under a process cannot be had here: qbus reads it without the C library,
//! where the package `faketime` would stand, and a time namespace leaves CLOCK_REALTIME alone.

use std::time::Duration;

use qbus::Record;
use qbus_aggregate::{ReadOptions, Value};
use qbus_tests::{Lane, Load, Place, Process, Report, TestBus, Totals, check_load, until};
use rustix::process::Signal;

use super::{AGGREGATOR, PRODUCER, host, skip};

/// What a clock that was an hour ahead said is overtaken by what comes when it is right again.
#[test]
fn a_gauge_of_a_clock_that_was_ahead_is_not_frozen() {
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    let level = bus.gauge("test_level").register().expect("it fits");
    let producer = bus.producer().expect("a lane");
    let now_ns = qbus::Clock::Precise.now_ns();
    let options = qbus_aggregate::AggregatorOptions::default();
    let mut aggregator = qbus_aggregate::Aggregator::open(&bus, &options).expect("the only one");
    for (timestamp_ns, value) in [(now_ns + 3_600_000_000_000, 7.0), (now_ns, 5.0)] {
        let record = Record::new(timestamp_ns, level.series(), qbus::Kind::Set, value);
        producer.emit(record).expect("room");
        aggregator.finish();
    }
    let snapshot = test.reader().read(&ReadOptions::default()).expect("a cut");
    assert_eq!(snapshot.series[0].value, Value::Gauge(5.0));
}

/// A machine that slept: all processes of a bus stop, and go on.
#[test]
fn everything_stopped_for_a_while_goes_on() {
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
    let loads =
        [Lane::Wait, Lane::SharedWait].map(|lane| Load::counting(&format!("{lane:?}"), lane));
    let mut producers: Vec<Process> = loads
        .iter()
        .map(|load| load.begin(PRODUCER, test.address()))
        .collect();
    for _ in 0..2 {
        let goal = test.reader().globals().records + 1000;
        until("records flow", || test.reader().globals().records >= goal);
        let all = || producers.iter().chain([&aggregator]);
        all().for_each(|process| process.signal(Signal::STOP));
        until("all are stopped", || all().all(Process::is_stopped));
        let before = test.reader().globals().records;
        // Longer than claims, naps and surveys wait for anything.
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(test.reader().globals().records, before);
        let living = bus.owners().expect("the locks answer");
        assert_eq!(living.iter().filter(|owner| owner.alive).count(), 2);
        all().for_each(|process| process.signal(Signal::CONT));
    }
    let goal = test.reader().globals().records + 1000;
    until("records flow", || test.reader().globals().records >= goal);
    let reports: Vec<Vec<Report>> = producers
        .iter_mut()
        .zip(&loads)
        .map(|(producer, load)| load.reports(producer))
        .collect();
    let pids: Vec<u64> = producers.iter().map(Process::pid).collect();
    producers.into_iter().for_each(Process::end_well);
    aggregator.end_well();
    let totals = Totals::read(&bus, &mut test.reader());
    for ((load, pid), reports) in loads.iter().zip(pids).zip(&reports) {
        check_load(&totals, load, pid, reports);
    }
}

/// One core, and hardly any of it, beside programs that take what they get.
#[test]
fn hardly_any_processor_time_is_enough() {
    let cases = [
        "taskset -c 0",
        "chrt --idle 0",
        "nice -n 19",
        "taskset -c 0 chrt --idle 0",
    ];
    for case in cases {
        let tried = std::process::Command::new("sh")
            .args(["-ec", &format!("{case} true")])
            .status();
        if !tried.is_ok_and(|tried| tried.success()) {
            skip(case);
            continue;
        }
        let mut hog = std::process::Command::new("sh");
        hog.args(["-c", "while :; do :; done"]);
        let hog = Process::spawn(hog);
        let test = TestBus::reserve(Place::Named);
        let mut host = host(test.address(), &format!("exec {case} \"$@\""));
        super::check_all_works(&mut host);
        host.end();
        hog.kill();
    }
}
