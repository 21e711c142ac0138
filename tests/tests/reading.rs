//! Readers of a snapshot that is being written, was left, or lies elsewhere.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Access, Clock, Geometry, Kind, MappedFile, MetricType, Record, Summary};
use qbus_aggregate::{Aggregator, AggregatorOptions, ReadOptions, Reader, Series, Snapshot, Value};
use qbus_tests::{LIMIT, Lane, Load, Place, Process, TestBus, until};

const AGGREGATOR: &str = env!("CARGO_BIN_EXE_test-aggregator");
const PRODUCER: &str = env!("CARGO_BIN_EXE_test-producer");

/// What only grows in a series.
type Seen = HashMap<(String, Vec<(String, String)>), (u64, f64)>;

/// Checks that a snapshot is whole in itself, and nowhere behind an earlier one.
fn check(seen: &mut Seen, snapshot: &Snapshot) {
    for series in &snapshot.series {
        let grown = match &series.value {
            Value::Counter(sum) => sum.value(),
            Value::Gauge(_) => 0.0,
            Value::Histogram(found) => {
                assert_eq!(found.cumulative.last(), Some(&found.count), "{series:?}");
                assert!(found.cumulative.is_sorted(), "{series:?}");
                assert_eq!(found.count, series.records);
                found.count as f64
            }
            Value::Summary(found) => {
                assert_eq!(found.count, series.records);
                // Nothing was observed yet, or not of late: they are NaN.
                let is_empty = found.quantiles.iter().all(|(_, value)| value.is_nan());
                let is_sorted = found.quantiles.is_sorted_by(|a, b| a.1 <= b.1);
                assert!(is_empty || is_sorted, "{series:?}");
                found.count as f64
            }
        };
        let key = (series.family.name.clone(), series.labels.clone());
        let before = seen
            .insert(key, (series.records, grown))
            .unwrap_or_default();
        assert!(
            before.0 <= series.records,
            "{} records before, now {series:?}",
            before.0
        );
        assert!(before.1 <= grown, "{} before, now {series:?}", before.1);
    }
}

#[test]
fn what_is_read_during_load_is_whole_and_never_goes_back() {
    for place in Place::ALL {
        let test = TestBus::small(place);
        let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
        let loads = MetricType::ALL.map(|metric_type| Load {
            metric_type,
            threads: 1,
            records: 0,
            lane: Lane::Handle,
            worker: "w".to_owned(),
        });
        let begin = |load: &Load| load.begin(PRODUCER, test.address());
        let producers: Vec<Process> = loads.iter().map(begin).collect();
        let mut reader = test.reader();
        until("the load", || reader.globals().records > 1000);
        let options = ReadOptions {
            history: true,
            ..ReadOptions::default()
        };
        let (mut seen, mut epoch, mut unix_ns) = (Seen::new(), 0, 0);
        let first = reader.epoch();
        let mut reads = 0;
        until("200 reads over 200 commits", || {
            let snapshot = reader.read(&options).expect("a committed snapshot");
            check(&mut seen, &snapshot);
            assert!(snapshot.epoch >= epoch && snapshot.unix_ns >= unix_ns);
            (epoch, unix_ns) = (snapshot.epoch, snapshot.unix_ns);
            for series in &snapshot.series {
                let times = series.history.iter().map(|point| point.timestamp_ns);
                assert!(times.is_sorted(), "the history of {}", series.family.name);
                assert!(series.history.len() <= 1000);
            }
            reads += 1;
            reads >= 200 && epoch >= first + 200
        });
        assert_eq!(seen.len(), MetricType::ALL.len());
        producers.into_iter().for_each(Process::end_well);
        aggregator.end_well();
    }
}

#[test]
fn a_consistent_cut_is_of_one_commit() {
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    let (first, second) = (bus.counter("test_first"), bus.counter("test_second"));
    let (first, second) = (
        first.register().expect("it fits"),
        second.register().expect("it fits"),
    );
    let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
    let (stop, mut reader) = (AtomicBool::new(false), test.reader());
    thread::scope(|scope| {
        scope.spawn(|| {
            // One lane keeps the order: at any commit the first is level or one ahead.
            let producer = bus.producer().expect("a lane");
            let emit = |series| {
                let record = Record::new(Clock::Coarse.now_ns(), series, Kind::Increment, 1.0);
                producer
                    .emit_or_wait(record, Duration::MAX)
                    .expect("accepted");
            };
            while !stop.load(Ordering::Relaxed) {
                emit(first.series());
                emit(second.series());
            }
        });
        let mut cuts = 0;
        let sum = |snapshot: &Snapshot, name: &str| {
            let series = snapshot
                .series
                .iter()
                .find(|series| series.family.name == name);
            series.map_or(0, |series| series.records)
        };
        let all = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("300 consistent cuts", || {
                let snapshot = reader.read(&ReadOptions::default()).expect("a snapshot");
                if snapshot.consistent && !snapshot.series.is_empty() {
                    let (first, second) =
                        (sum(&snapshot, "test_first"), sum(&snapshot, "test_second"));
                    assert!(
                        first == second || first == second + 1,
                        "{first} and {second}"
                    );
                    cuts += 1;
                }
                cuts == 300
            });
        }));
        // Else the scope would wait for ever for a thread that nobody told to stop.
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = all {
            std::panic::resume_unwind(panic);
        }
    });
    aggregator.end_well();
}

#[test]
fn a_snapshot_is_read_after_its_bus_is_gone_and_from_a_copy() {
    for place in Place::ALL {
        let test = TestBus::small(place);
        let bus = test.open();
        let latency = bus
            .histogram("test_seconds")
            .label("a", "ä\"\n")
            .buckets([1.0, 2.0]);
        let latency = latency.register().expect("it fits");
        for value in [0.5, 1.5, 2.5] {
            latency.try_observe(value).expect("there is room");
        }
        let mut aggregator =
            Aggregator::open(&bus, &AggregatorOptions::default()).expect("the first one");
        aggregator.finish();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let copy = folder.path().join("copy");
        std::fs::copy(test.address().snapshot(), &copy).expect("it is copied");
        let mut mapped = test.reader();
        let options = ReadOptions {
            history: true,
            ..ReadOptions::default()
        };
        let original = mapped.read(&options).expect("a snapshot");
        drop((aggregator, latency, bus));
        let address = test.address().clone();
        drop(test);
        assert!(
            Reader::open(&address.snapshot()).is_err(),
            "it went with its bus"
        );

        assert_eq!(mapped.read(&options).expect("still mapped"), original);
        let mut reader = Reader::open(&copy).expect("a copy opens");
        assert_eq!(reader.read(&options).expect("a copy is whole"), original);
        assert_eq!(reader.bus_name(), address.to_string());
        let Value::Histogram(found) = &original.series[0].value else {
            panic!("{original:?}");
        };
        assert_eq!(
            (found.count, found.sum.value(), &found.cumulative[..]),
            (3, 4.5, &[1, 2, 3][..])
        );
        // What came to cells is one point a round.
        assert!((1..=3).contains(&original.series[0].history.len()));
    }
}

#[test]
fn a_reader_follows_a_snapshot_that_grows() {
    const SERIES: usize = 3000;
    let test = TestBus::create(Place::Named, Geometry::default());
    let bus = test.open();
    let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
    let mut reader = test.reader();
    let (before, mut seen) = (reader.size_bytes(), Seen::new());
    let producer = bus.producer().expect("a lane");
    for n in 0..SERIES {
        let summary = bus.summary("test_summary").label("n", &n.to_string());
        let series = summary.register().expect("it fits").series();
        for power in 0..4 {
            let value = f64::from(2 << power);
            let record = Record::new(Clock::Precise.now_ns(), series, Kind::Observe, value);
            producer.emit_or_wait(record, LIMIT).expect("room in time");
        }
        if n % 500 == 0 {
            check(
                &mut seen,
                &reader.read(&ReadOptions::default()).expect("a snapshot"),
            );
        }
    }
    until("all records", || {
        reader.globals().records == SERIES as u64 * 4
    });
    let snapshot = reader.read(&ReadOptions::default()).expect("a snapshot");
    check(&mut seen, &snapshot);
    assert_eq!(snapshot.series.len(), SERIES);
    assert!(snapshot.series.iter().all(|series| series.records == 4));
    assert!(reader.size_bytes() > before, "it grew");
    aggregator.end_well();
}

/// What one series' window had lies where another's does a step later: nobody takes one for the
/// other, or what is over for what is not.
#[test]
fn what_left_a_window_is_not_seen_again_by_those_who_read_all_the_time() {
    const SERIES: usize = 100;
    let test = TestBus::create(Place::Named, Geometry::default());
    let bus = test.open();
    let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
    let step = Duration::from_millis(100);
    let register = |n: usize| {
        let summary = bus.summary("test_summary").label("n", &n.to_string());
        summary.window(3 * step, 3).register().expect("it fits")
    };
    let all: Vec<Summary> = (0..SERIES).map(register).collect();
    let observe = |value: f64, times: u32| {
        for summary in &all {
            (0..times).for_each(|_| summary.observe(value));
        }
    };
    observe(1.0, 50);
    let mut reader = test.reader();
    let mut values = || {
        let snapshot = reader.read(&ReadOptions::default()).expect("a snapshot");
        let value = |series: &Series| match &series.value {
            Value::Summary(found) => found.quantiles[0].1.round(),
            other => panic!("{other:?}"),
        };
        snapshot.series.iter().map(value).collect::<Vec<f64>>()
    };
    until("all of them", || values() == [1.0; SERIES]);
    // Each of a number of buckets of its own, so that what they need changes.
    let began = Instant::now();
    let mut lasting = false;
    for n in 0.. {
        observe(100.0 + f64::from(n % 40), 1);
        let found = values();
        // NaN where this machine was so busy that nothing came for as long as a window is.
        let is_over = found.iter().all(|value| *value >= 99.0 || value.is_nan());
        assert!(is_over || !lasting, "{found:?}");
        lasting = is_over;
        if lasting && began.elapsed() > 15 * step {
            break;
        }
        assert!(began.elapsed() < LIMIT, "{found:?}");
    }
    aggregator.end_well();
}

#[test]
fn what_is_stored_through_a_mapping_to_read_stays_in_this_process() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("words");
    let written = MappedFile::create(&path, 4096, 0o600).expect("a file");
    written.words().store(0, 1);
    let map = || MappedFile::open(&path, Access::Read).expect("the file");
    let (read, other) = (map(), map());
    read.words().store(0, 2);
    let found = [&written, &read, &other].map(|file| file.words().load(0));
    assert_eq!(found, [1, 2, 1]);
    // A page to which nothing was stored shows what the file has.
    written.words().store(511, 3);
    assert_eq!(other.words().load(511), 3);
}
