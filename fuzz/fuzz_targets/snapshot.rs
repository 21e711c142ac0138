//! A snapshot of any bytes: read, exported, and gone on with.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qbus_aggregate::export::Format;
use qbus_fuzz::{Peer, read, stage};

fuzz_target!(|data: &[u8]| {
    let (stage, len) = (stage(), data.len());
    let snapshot = stage.lay_snapshot(&stage.snapshot.patched(data, stage.snapshot.all()));
    // Every other one is written as well.
    read(&snapshot, Format::ALL.get(len % (2 * Format::ALL.len())));
    if !len.is_multiple_of(4) {
        return;
    }
    let bus = stage.open(&stage.bus.patched(&[], stage.bus.all()));
    let bus = bus.expect("a good bus");
    let peer = Peer::join(&bus);
    // It refuses what is no snapshot at all.
    if let Some(aggregator) = peer.aggregate()
        && len.is_multiple_of(8)
    {
        peer.witness(aggregator, len.is_multiple_of(16));
        read(&snapshot, None).expect("what an aggregator has gone on with");
    }
});
