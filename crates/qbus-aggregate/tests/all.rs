//! Aggregators and readers in one process; what needs several is in the workspace's `tests`.

mod clock;
mod exemplars;
mod growth;
mod history;
mod lifecycle;
mod listing;
mod native;
mod room;
mod rounds;
mod sums;

use qbus::{Bus, Geometry};
use qbus_aggregate::{Aggregator, AggregatorOptions, ReadOptions, Reader, Series, Snapshot};
use qbus_tests::{Place, TestBus};

/// A bus in a folder of its own, and its only aggregator.
fn aggregated(geometry: Geometry, options: &AggregatorOptions) -> (TestBus, Bus, Aggregator) {
    let test = TestBus::create(Place::Path, geometry);
    let bus = test.open();
    let aggregator = Aggregator::open(&bus, options).expect("the only aggregator");
    (test, bus, aggregator)
}

/// All series with their histories.
fn read(reader: &mut Reader) -> Snapshot {
    let options = ReadOptions {
        history: true,
        ..ReadOptions::default()
    };
    reader.read(&options).expect("a committed snapshot")
}

/// The only series of a bus, with its history.
fn only(aggregator: &Aggregator) -> Series {
    let mut reader = Reader::open(aggregator.snapshot()).expect("a snapshot");
    let snapshot = read(&mut reader);
    let [series] = &snapshot.series[..] else {
        panic!("{} series", snapshot.series.len());
    };
    series.clone()
}
