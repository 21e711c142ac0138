//! Aggregators that are killed at every test point, and their successors.

use qbus::{Bus, BusOptions, MetricType, Removal};
use qbus_aggregate::{Aggregator, AggregatorOptions, ReadOptions, Reader, Value};
use qbus_tests::{Journal, Lane, Load, Place, Process, Report, TestBus, Totals, check_load, until};
use tempfile::TempDir;

use super::{AGGREGATOR, Action, PRODUCER, VICTIM, await_hit, say, start, testpoint};

/// Lengths of the history and of the recent records: with a long history the snapshot has to grow.
const SHORT: [&str; 2] = ["50", "100"];
const LONG: [&str; 2] = ["60000", "100"];

/// Which passages of a point an aggregator is killed at, one after the other.
fn passages(point: &str) -> &'static [u64] {
    match point {
        "row-opened" | "row-filled" | "row-tagged" | "series-row" | "owner-row" | "globals-row"
        | "head-row" | "cells-row" | "committed" | "freed" | "cell-seen" | "point-claimed"
        | "point-written" => &[1, 2, 5, 40],
        // Once a new series, and there are eight of them.
        "allocated" | "appended" | "ring-made" | "ring-moved" | "block-filled" | "placed"
        | "window-written" => &[1, 3],
        _ => &[1],
    }
}

/// What an earlier process must have left for the point to be passed.
enum Before {
    Nothing,
    /// An aggregator that was killed at that point.
    Aggregator(&'static str),
    /// A snapshot of another bus.
    Snapshot,
    /// A producer that died or was stopped at that point of such a lane.
    Producer(&'static str, Lane),
}

fn before(point: &str) -> Before {
    match point {
        "unfinished-removed" => Before::Aggregator("snapshot-made:1:KILL"),
        "row-erased" => Before::Aggregator("series-row:5:KILL"),
        "moved-aside" => Before::Snapshot,
        "retired" => Before::Producer("claimed:7:STOP", Lane::Shared),
        "slot-reaped" => Before::Producer("claimed:7:KILL", Lane::Shared),
        "byte-taken" | "lease-reaped" | "vacated" | "reaped" | "byte-returned" => {
            Before::Producer("payload:7:KILL", Lane::Wait)
        }
        _ => Before::Nothing,
    }
}

/// Kills aggregators at the passages of a point, each the successor of the one before; how many.
fn check(point: &'static str) -> u64 {
    let test = TestBus::small(Place::Named);
    let folder = TempDir::new().expect("a temporary folder");
    let has_to_grow = matches!(point, "file-grows" | "file-grown");
    let sizes = if has_to_grow { LONG } else { SHORT }.map(String::from);
    let loads = loads(point);
    let mut kills = 0;
    let mut kill = |points: &str| {
        let mut aggregator = start(AGGREGATOR, test.address(), &sizes, points);
        await_hit(&mut aggregator, Action::Kill, points);
        kills += 1;
    };
    let mut victim = None;
    if let Before::Snapshot = before(point) {
        plant_snapshot(&test);
    }
    // While its lane has room.
    match before(point) {
        Before::Producer(points, lane) => {
            let path = folder.path().join("victim");
            let journal = Journal::create(&path);
            let (path, lane) = (path.display().to_string(), format!("{lane:?}"));
            let args = [path, lane, "victim".to_owned(), "1000".to_owned()];
            let mut process = start(VICTIM, test.address(), &args, points);
            let action = if points.ends_with("KILL") {
                Action::Kill
            } else {
                Action::Stop
            };
            await_hit(&mut process, action, points);
            victim = Some((process, journal));
        }
        Before::Nothing | Before::Snapshot | Before::Aggregator(_) => {}
    }
    // They wait for room until there is an aggregator.
    let begin = |load: &Load| load.begin(PRODUCER, test.address());
    let producers: Vec<Process> = loads.iter().map(begin).collect();
    if let Before::Aggregator(points) = before(point) {
        kill(points);
    }
    let mut counted = 0.0;
    for n in passages(point) {
        kill(&Action::Kill.at(point, *n));
        if let Ok(reader) = Reader::open(&test.address().snapshot()) {
            counted = count_on(reader, counted, point);
        }
    }
    let aggregator = Process::ready(AGGREGATOR, test.address(), &sizes);
    let goal = test.reader().globals().records + 500;
    until("a successor to get on", || {
        test.reader().globals().records >= goal
    });
    count_on(test.reader(), counted, point);
    check_totals(&test, &loads, producers, aggregator, victim, point);
    kills
}

/// Two loads of each type, one on a lane of its own, one on the shared lane; where it matters, two
/// more that go to cells.
fn loads(point: &str) -> Vec<Load> {
    let of = |metric_type, lane| Load {
        metric_type,
        threads: 1,
        records: 0,
        lane,
        worker: format!("{lane:?}"),
    };
    let both = [Lane::Wait, Lane::SharedWait];
    let types = MetricType::ALL.into_iter();
    let in_rings = types.flat_map(|metric_type| both.map(|lane| of(metric_type, lane)));
    let in_cells = [MetricType::Counter, MetricType::Histogram];
    let in_cells = in_cells.map(|metric_type| of(metric_type, Lane::Handle));
    let has_cells = matches!(point, "cells-row" | "committed" | "freed" | "cell-seen");
    in_rings
        .chain(in_cells.into_iter().filter(|_| has_cells))
        .collect()
}

/// Leaves a snapshot that another bus of the same name had.
fn plant_snapshot(test: &TestBus) {
    let (bus, address) = (test.open(), test.address());
    let snapshot = address.snapshot();
    let aside = TempDir::new().expect("a temporary folder");
    let copy = aside.path().join("snapshot");
    drop(Aggregator::open(&bus, &AggregatorOptions::default()).expect("the only one"));
    std::fs::copy(&snapshot, &copy).expect("a copy");
    let geometry = *bus.geometry();
    drop(bus);
    Bus::remove(address, Removal::Forced).expect("it was there");
    let config = BusOptions {
        geometry,
        ..BusOptions::default()
    };
    Bus::create(address, &config).expect("another one");
    std::fs::copy(&copy, &snapshot).expect("planted");
}

/// What a snapshot counts; never less than one counted before.
fn count_on(mut reader: Reader, before: f64, point: &str) -> f64 {
    // Nothing may be committed yet.
    let Ok(snapshot) = reader.read(&ReadOptions::default()) else {
        assert_eq!(before, 0.0, "at {point}");
        return 0.0;
    };
    let value = |series: &qbus_aggregate::Series| match &series.value {
        Value::Counter(sum) => sum.value(),
        Value::Histogram(histogram) => histogram.count as f64,
        Value::Summary(summary) => summary.count as f64,
        Value::Gauge(_) => 0.0,
    };
    let counted = snapshot.series.iter().map(value).sum();
    assert!(
        counted >= before,
        "counted back from {before} to {counted} at {point}"
    );
    counted
}

fn check_totals(
    test: &TestBus,
    loads: &[Load],
    mut producers: Vec<Process>,
    aggregator: Process,
    victim: Option<(Process, Journal)>,
    point: &str,
) {
    for producer in &mut producers {
        producer.close_input();
    }
    let reports: Vec<Report> = producers
        .iter()
        .map(|p| p.line().parse().expect("a report"))
        .collect();
    let pids: Vec<u64> = producers.iter().map(Process::pid).collect();
    producers.into_iter().for_each(Process::end_well);
    let victim = victim.map(|(process, journal)| {
        let pid = process.pid();
        process.kill();
        (pid, journal.read())
    });
    aggregator.end_well();
    let bus = test.open();
    let mut last = Aggregator::open(&bus, &AggregatorOptions::default()).expect("the only one");
    last.finish();
    last.finish();
    let totals = Totals::read(&bus, &mut test.reader());
    for ((load, report), pid) in loads.iter().zip(&reports).zip(pids) {
        check_load(&totals, load, pid, std::slice::from_ref(report));
    }
    if let Some((pid, entries)) = victim {
        let tally = totals.tally(pid);
        let accounted = tally.delivered + tally.dropped() + tally.torn + tally.revoked;
        let open = entries.open_calls();
        assert!(open <= 1, "at {point}: {entries:?}");
        let range = entries.attempted - open..=entries.attempted;
        assert!(
            range.contains(&accounted),
            "at {point}: {entries:?}, {tally:?}"
        );
        assert_eq!(
            totals.counter("test_victim"),
            tally.delivered as f64,
            "at {point}"
        );
    }
    let held = |lane: &qbus::LaneView| lane.holder.is_some();
    assert!(
        !bus.lanes().iter().any(held),
        "at {point}: {:?}",
        bus.lanes()
    );
}

fn check_all(points: &'static [&'static str]) {
    let kills: u64 = points.iter().map(|point| check(point)).sum();
    let cases = points.len();
    say(&format!(
        "{points:?}: {cases} cases, {kills} aggregators killed"
    ));
}

#[test]
fn aggregators_that_reap() {
    check_all(testpoint::REAP);
}

#[test]
fn aggregators_that_commit() {
    check_all(testpoint::SNAPSHOT);
}
