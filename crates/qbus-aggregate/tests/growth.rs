//! Readers while the file grows.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use qbus::Geometry;
use qbus_aggregate::{Aggregator, AggregatorOptions, Reader};

use crate::{aggregated, read};

/// Summaries whose rows move to larger places over and over, and whose histories get longer.
#[test]
fn a_consistent_cut_lacks_nothing_that_was_committed() {
    const SERIES: usize = 600;
    let options = AggregatorOptions::default();
    let (_test, bus, mut aggregator) = aggregated(Geometry::default(), &options);
    let snapshot = aggregator.snapshot().to_owned();
    let handles: Vec<_> = (0..SERIES)
        .map(|i| bus.summary("s").label("i", &i.to_string()).register())
        .collect::<Result<_, _>>()
        .expect("room");
    let seventh = handles[7].series();
    handles.iter().for_each(|handle| handle.observe(1.0));
    aggregator.finish();
    let mut reader = Reader::open(&snapshot).expect("a snapshot");
    let before = reader.size_bytes();
    let is_done = Arc::new(AtomicBool::new(false));
    let done = is_done.clone();
    let writer = std::thread::spawn(move || {
        for octave in 1..=30 {
            for handle in &handles {
                for n in 0..3 {
                    handle.observe(f64::from(2 * octave + n % 2).exp2());
                }
            }
            aggregator.round();
        }
        aggregator.finish();
        done.store(true, Ordering::Release);
    });
    let mut whole = 0;
    loop {
        let is_last = is_done.load(Ordering::Acquire);
        let found = read(&mut reader);
        if found.consistent {
            let names: HashSet<_> = found.series.iter().map(|s| &s.labels[0].1).collect();
            assert_eq!(names.len(), SERIES, "at epoch {}", found.epoch);
            // Points that were overwritten before they were copied are left out, in a reader that
            // is slower than a whole ring: only at rest a history is sure to have some.
            let is_empty = |s: &&qbus_aggregate::Series| s.history.is_empty();
            let empty = found.series.iter().filter(is_empty).count();
            assert!(!is_last || empty == 0, "{empty} histories are empty");
            whole += 1;
        }
        // One series alone is found as well, wherever its row has moved to.
        assert!(reader.series(seventh, true).is_some());
        if is_last {
            break;
        }
    }
    writer.join().expect("the writer does not panic");
    assert!(whole > 0, "no cut was consistent");
    assert!(reader.size_bytes() > before, "it grew");
}

#[test]
fn a_reader_of_before_a_restart_reads_longer_histories() {
    let with = |history| AggregatorOptions {
        history,
        ..AggregatorOptions::default()
    };
    let (_test, bus, mut aggregator) = aggregated(Geometry::default(), &with(10));
    let gauge = bus.gauge("g").register().expect("room");
    gauge.try_set_at(1, 1.0).expect("room");
    aggregator.finish();
    let mut before = Reader::open(aggregator.snapshot()).expect("a snapshot");
    drop(aggregator);
    let mut aggregator = Aggregator::open(&bus, &with(100)).expect("the only aggregator");
    for k in 2..=95 {
        gauge.try_set_at(k, k as f64).expect("room");
    }
    aggregator.finish();
    let mut after = Reader::open(aggregator.snapshot()).expect("a snapshot");
    for reader in [&mut before, &mut after] {
        let history = read(reader).series[0].history.clone();
        let times: Vec<u64> = history.iter().map(|point| point.timestamp_ns).collect();
        assert_eq!(times, (1..=95).collect::<Vec<_>>());
        assert!(history.iter().all(|p| p.value == p.timestamp_ns as f64));
    }
}

#[test]
fn recent_records_lie_in_a_file_that_has_grown() {
    let with = |recent| AggregatorOptions {
        recent,
        ..AggregatorOptions::default()
    };
    let (_test, bus, mut aggregator) = aggregated(Geometry::default(), &with(10));
    let gauge = bus.gauge("g").register().expect("room");
    gauge.set(1.0);
    aggregator.finish();
    let mut reader = Reader::open(aggregator.snapshot()).expect("a snapshot");
    assert_eq!(reader.recent().len(), 1);
    drop(aggregator);
    // Their ring lies beyond what the reader has mapped.
    let mut aggregator = Aggregator::open(&bus, &with(200_000)).expect("the only aggregator");
    gauge.set(2.0);
    aggregator.finish();
    let values: Vec<f64> = reader.recent().iter().map(|record| record.value).collect();
    assert_eq!(values, [1.0, 2.0]);
}
