//! A bus of any bytes: opened, looked at, drained, and gone on with.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qbus_fuzz::{Peer, look, read, stage};

fuzz_target!(|data: &[u8]| {
    let (stage, len) = (stage(), data.len());
    let Some(bus) = stage.open(&stage.bus.patched(data, stage.bus.all())) else {
        return;
    };
    look(&bus);
    if !len.is_multiple_of(2) {
        return;
    }
    let peer = Peer::join(&bus);
    peer.emit();
    if !len.is_multiple_of(4) {
        return;
    }
    let snapshot = if len.is_multiple_of(64) {
        stage.without_snapshot()
    } else {
        // Not of its own bus when the instance was changed.
        stage.lay_snapshot(&stage.snapshot.patched(&[], stage.snapshot.all()))
    };
    if let Some(aggregator) = peer.aggregate()
        && len.is_multiple_of(8)
    {
        peer.witness(aggregator, len.is_multiple_of(16));
        read(&snapshot, None);
    }
    look(&bus);
});
