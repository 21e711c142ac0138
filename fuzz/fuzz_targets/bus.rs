//! A bus of any bytes: opened, looked at, drained, and gone on with.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qbus_fuzz::{Files, aggregate, good, look, open, read, witness};

fuzz_target!(|data: &[u8]| {
    let (good, files) = (good(), Files::new());
    files.write_bus(&good.bus.patched(data, good.bus.all()));
    if data.len().is_multiple_of(2) {
        // Not of its own bus when the instance was changed.
        files.write_snapshot(&good.snapshot.patched(&[], good.snapshot.all()));
    }
    let Some(bus) = open(&files) else {
        return;
    };
    look(&bus);
    if let Some(aggregator) = aggregate(&bus) {
        witness(&bus, aggregator);
    }
    look(&bus);
    read(&files.address.snapshot());
});
