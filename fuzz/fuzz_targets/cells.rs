//! Cells of any bytes in one lane: emitted to and aggregated, while a counter in the cells of the
//! other lane keeps its total.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qbus::{Kind, Record, SeriesId};
use qbus_aggregate::{Aggregator, Reader, Value};
use qbus_fuzz::{
    BrokenLane, COMMITTED, LEFT, Peer, config, fill_cells, good, in_a_thread, look, read, series,
    stage,
};

/// What the good counter gets here.
const MORE: u64 = 3;

fuzz_target!(|data: &[u8]| {
    let (stage, len) = (stage(), data.len());
    let broken = BrokenLane::of(len);
    let bus = stage.open(&stage.bus.with_wild_cells(data, broken));
    let bus = bus.expect("a good header");
    let has_snapshot = !len.is_multiple_of(16);
    let snapshot = if has_snapshot {
        stage.lay_snapshot(&stage.snapshot.patched(&[], stage.snapshot.all()))
    } else {
        stage.without_snapshot()
    };
    let good = good(&bus, broken);
    let add = || (0..MORE).for_each(|_| good.inc());
    // From here on what a thread emits goes to the shared lane.
    let own = bus.producer().expect("the lane is free");
    if broken == BrokenLane::Exclusive {
        in_a_thread(add);
    } else {
        in_a_thread(|| fill_cells(&bus));
    }
    let _ = own.emit(Record::new(1000, SeriesId(u32::MAX), Kind::Set, 1.5));
    drop(own);
    // And now to the exclusive one: a hand-over.
    if broken == BrokenLane::Exclusive {
        in_a_thread(|| fill_cells(&bus));
    } else {
        in_a_thread(add);
    }
    let mut aggregator = Aggregator::open(&bus, &config()).expect("the only one");
    aggregator.round();
    aggregator.finish();
    let expected = LEFT + MORE + if has_snapshot { COMMITTED } else { 0 };
    assert_eq!(total(&aggregator, good.series()), expected);
    if len.is_multiple_of(8) {
        // A successor finds all of it where it was.
        drop(aggregator);
        let mut successor = Aggregator::open(&bus, &config()).expect("the only one");
        successor.finish();
        assert_eq!(total(&successor, good.series()), expected);
        drop(successor);
        Peer::of(&bus, series(&bus)).emit();
        look(&bus);
    }
    read(&snapshot, None).expect("an aggregator's snapshot");
});

fn total(aggregator: &Aggregator, id: SeriesId) -> u64 {
    let mut reader = Reader::open(aggregator.snapshot()).expect("the aggregator's snapshot");
    let series = reader.series(id, false).expect("the good counter");
    let Value::Counter(sum) = series.value else {
        panic!("a counter became {:?}", series.value);
    };
    sum.value() as u64
}
