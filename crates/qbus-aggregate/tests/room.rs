//! Totals before histories: what happens when the snapshot has no more room.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use qbus::{Address, Bus, BusOptions, Clock, FlushError, Geometry, Kind, Record, Removal};
use qbus_aggregate::{Aggregator, AggregatorOptions, Ledger, ReadOptions, Reader, Series, Value};
use qbus_tests::{Place, TestBus};

/// A tmpfs of 64 MiB, as a container has one for /dev/shm; gone when it is dropped.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// `None`, and aloud, where it cannot be made.
    fn mount(mebibytes: u32) -> Option<Tmpfs> {
        let folder = tempfile::tempdir().expect("a folder");
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Tmpfs(folder));
        }
        // In the test's own words, since nothing else says that it did nothing.
        let _ = writeln!(std::io::stderr(), "skipped: a tmpfs of its own needs root");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: what is mapped still may be so for a moment.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn create(folder: &Path, geometry: Geometry) -> (Address, Bus) {
    let address: Address = folder
        .join("bus")
        .display()
        .to_string()
        .parse()
        .expect("a path");
    let options = BusOptions {
        geometry,
        max_series_per_family: 0,
        ..BusOptions::default()
    };
    let bus = Bus::create(&address, &options).expect("room for a bus");
    (address, bus)
}

#[test]
fn in_a_small_place_histories_starve_before_totals() {
    let Some(place) = Tmpfs::mount(64) else {
        return;
    };
    let (address, bus) = create(place.path(), Geometry::default());
    let mut aggregator = Aggregator::open(&bus, &AggregatorOptions::default()).expect("room");
    let gauges: Vec<_> = (0..4000)
        .map(|i| bus.gauge("level").label("i", &i.to_string()).register())
        .collect::<Result<_, _>>()
        .expect("room");
    for k in 1..=70_u64 {
        for (i, gauge) in gauges.iter().enumerate() {
            let time = 1_700_000_000_000_000_000 + k;
            gauge
                .try_set_at(time, k as f64)
                .expect("a lane that is drained");
            if i % 1000 == 999 {
                aggregator.finish();
            }
        }
    }
    let counters: Vec<_> = (0..1000)
        .map(|i| {
            bus.counter("requests_total")
                .label("path", &format!("/{i}"))
                .register()
        })
        .collect::<Result<_, _>>()
        .expect("room");
    for _ in 0..10 {
        counters.iter().for_each(qbus::Counter::inc);
        aggregator.finish();
    }
    let globals = aggregator.globals();
    assert_eq!((globals.unplaced, globals.records), (0, 4000 * 70 + 10_000));
    let mut reader = Reader::open(aggregator.snapshot()).expect("a snapshot");
    let found = reader
        .read(&ReadOptions::default())
        .expect("an epoch")
        .series;
    assert_eq!(found.len(), 5000);
    for series in found {
        let expected = match series.family.name.as_str() {
            "level" => Value::Gauge(70.0),
            _ => Value::Counter(10.0.into()),
        };
        assert_eq!(series.value, expected, "{:?}", series.labels);
    }
    // What is left is for totals.
    let file = std::fs::metadata(aggregator.snapshot()).expect("a snapshot");
    assert!(file.len() < 40 << 20, "{} bytes", file.len());
    Bus::remove(&address, Removal::Forced).expect("the bus is there");
}

#[test]
fn what_finds_no_room_is_a_loss_that_the_ledger_names() {
    let Some(place) = Tmpfs::mount(36) else {
        return;
    };
    let geometry = Geometry {
        cells: 0,
        ..Geometry::default()
    };
    let (address, bus) = create(place.path(), geometry);
    let mut aggregator = Aggregator::open(&bus, &AggregatorOptions::default()).expect("room");
    // Wide histograms: their rows lie in the part of the file that has to grow.
    let bounds: Vec<f64> = (0..250).map(f64::from).collect();
    let histograms: Vec<_> = (0..4000)
        .map(|i| {
            let histogram = bus
                .histogram("wait_seconds")
                .buckets(bounds.iter().copied());
            histogram.label("i", &i.to_string()).register()
        })
        .collect::<Result<_, _>>()
        .expect("room in the registry");
    let counter = bus.counter("x_total").register().expect("room");
    for _ in 0..3 {
        for (i, histogram) in histograms.iter().enumerate() {
            histogram.try_observe(1.0).expect("a lane that is drained");
            counter.inc();
            if i % 500 == 499 {
                aggregator.finish();
            }
        }
    }
    aggregator.finish();
    let mut reader = Reader::open(aggregator.snapshot()).expect("a snapshot");
    let found = reader
        .read(&ReadOptions::default())
        .expect("an epoch")
        .series;
    let observed: u64 = found
        .iter()
        .map(|series| match &series.value {
            Value::Histogram(histogram) => histogram.count,
            _ => 0,
        })
        .sum();
    let owners = reader.owners();
    let tally = owners.iter().map(|owner| owner.present);
    let tally = tally.fold(qbus_aggregate::Tally::default(), |sum, one| sum.plus(&one));
    assert!(
        tally.unplaced > 0,
        "the place is not as small as it was thought to be"
    );
    assert!(observed > 0);
    // Known series go on, and every record is in one part of the ledger.
    assert_eq!(tally.unplaced + observed, 12_000);
    assert_eq!(tally.delivered, observed + 12_000);
    assert_eq!(aggregator.globals().unplaced, tally.unplaced);
    // A total needs no room that is not its own.
    let total = found.iter().find(|series| series.family.name == "x_total");
    assert_eq!(
        total.map(|s| s.value.clone()),
        Some(Value::Counter(12_000.0.into()))
    );
    Bus::remove(&address, Removal::Forced).expect("the bus is there");
}

/// What the page has of the counts of histograms of that name, and what the ledger says.
fn shown(bus: &Bus, name: &str) -> (u64, Ledger) {
    let mut reader = Reader::open(&bus.address().snapshot()).expect("a snapshot");
    let found = reader.read(&ReadOptions::default()).expect("an epoch");
    let count = |series: &Series| match &series.value {
        Value::Histogram(histogram) if series.family.name == name => histogram.count,
        _ => 0,
    };
    let shown = found.series.iter().map(count).sum();
    let ledger = Ledger::read(bus, Some(&reader)).expect("the locks answer");
    (shown, ledger)
}

/// What waits in cells of exclusive and of shared lanes, over a restart as well: the ledger says
/// that it is on the page when it is.
#[test]
fn what_waits_in_cells_for_room_is_delivered_when_it_is_shown() {
    const SERIES: usize = 100;
    const CALLS: u64 = 3;
    let Some(place) = Tmpfs::mount(16) else {
        return;
    };
    let geometry = Geometry {
        lanes: 2,
        shared_lanes: 1,
        series: 1024,
        families: 16,
        ..Geometry::default()
    };
    let (address, bus) = create(place.path(), geometry.with_arena());
    let options = AggregatorOptions::default();
    let mut aggregator = Aggregator::open(&bus, &options).expect("room");
    fill(place.path());
    // As records: what finds no room is lost, and the ledger names it.
    let (mut lost, producer) = (0, bus.producer().expect("a lane"));
    for i in 0..1000 {
        let wide = bus
            .histogram("wide_seconds")
            .buckets((0..250).map(f64::from));
        let wide = wide.label("i", &i.to_string()).register();
        let series = wide.expect("room in the registry").series();
        let record = Record::new(Clock::Precise.now_ns(), series, Kind::Observe, 1.0);
        producer.emit(record).expect("a lane that is drained");
        if i % 100 == 99 {
            aggregator.finish();
            lost = aggregator.globals().unplaced;
        }
        if lost > 0 {
            break;
        }
    }
    drop(producer);
    assert!(
        lost > 0,
        "the place is not as small as it was thought to be"
    );
    let (wide_shown, before) = shown(&bus, "wide_seconds");
    assert_eq!(before.total.delivered, wide_shown);

    let observe = || {
        for i in 0..SERIES {
            let narrow = bus
                .histogram("narrow_seconds")
                .buckets((0..11).map(f64::from));
            let narrow = narrow.label("i", &i.to_string()).register();
            let narrow = narrow.expect("room in the registry");
            for _ in 0..CALLS {
                narrow.try_observe(1.0).expect("it has cells");
            }
        }
    };
    // The first thread has the exclusive lane by now, another one has to share.
    observe();
    std::thread::scope(|scope| scope.spawn(observe).join().expect("it observes"));
    let emitted = 2 * CALLS * SERIES as u64;
    let check = |aggregator: &mut Aggregator, after: &str| {
        aggregator.finish();
        let (narrow, ledger) = shown(&bus, "narrow_seconds");
        let delivered = ledger.total.delivered - wide_shown;
        let waiting: u64 = bus.lanes().iter().map(|lane| lane.waiting_calls).sum();
        assert!(narrow < emitted, "{after}: it has room for all of them");
        assert!(delivered <= narrow, "{after}: {delivered}, {narrow} shown");
        assert!(waiting >= emitted - narrow, "{after}: {waiting}, {narrow}");
        assert_eq!(ledger.total.unplaced, lost, "{after}");
    };
    check(&mut aggregator, "observing");
    let running = AtomicBool::new(true);
    let stop = || !running.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        scope.spawn(|| aggregator.run(false, &stop, &mut |_| {}));
        // Nobody waits for room that may never come.
        let flushed = bus.flush(Duration::from_secs(60));
        running.store(false, Ordering::Relaxed);
        assert!(
            matches!(flushed, Err(FlushError::NoRoom { lanes: 2 })),
            "{flushed:?}"
        );
    });
    check(&mut aggregator, "a flush");
    drop(aggregator);
    let mut aggregator = Aggregator::open(&bus, &options).expect("the only one");
    check(&mut aggregator, "a restart");

    std::fs::remove_file(place.path().join("filler")).expect("it is there");
    qbus_tests::until("all of it to be shown", || {
        aggregator.finish();
        shown(&bus, "narrow_seconds").0 == emitted
    });
    // What owners count themselves is looked at now and then.
    aggregator.finish();
    let (_, ledger) = shown(&bus, "narrow_seconds");
    assert_eq!(ledger.total.delivered, wide_shown + emitted);
    assert_eq!(ledger.total.unplaced, lost);
    assert!(bus.lanes().iter().all(|lane| lane.waiting_calls == 0));
    assert_eq!(bus.flush(Duration::from_secs(60)), Ok(()));
    Bus::remove(&address, Removal::Forced).expect("the bus is there");
}

/// Takes what room there is, with a file of its own.
fn fill(folder: &Path) {
    let mut file = std::fs::File::create(folder.join("filler")).expect("an inode");
    while file.write_all(&[1; 4096]).is_ok() {}
}

#[test]
fn the_snapshot_of_a_bus_of_few_series_grows_for_more_recent_records() {
    let geometry = Geometry {
        lanes: 2,
        shared_lanes: 1,
        slots: 64,
        series: 1,
        families: 1,
        ..Geometry::default()
    };
    let test = TestBus::create(Place::Named, geometry.with_arena());
    let bus = test.open();
    let counter = bus.counter("x_total").register().expect("room");
    // Each takes the file of the one before, which has fewer.
    for recent in [16, 100_000, 300_000] {
        let options = AggregatorOptions {
            recent,
            ..AggregatorOptions::default()
        };
        let mut aggregator = Aggregator::open(&bus, &options).expect("there are addresses for it");
        counter.inc();
        aggregator.finish();
    }
    let found = test.reader().read(&ReadOptions::default()).expect("a page");
    assert_eq!(found.series[0].value, Value::Counter(3.0.into()));
}
