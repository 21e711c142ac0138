//! A snapshot of any bytes: read, exported, and gone on with.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qbus_fuzz::{Files, aggregate, good, open, read, witness};

fuzz_target!(|data: &[u8]| {
    let (good, files) = (good(), Files::new());
    let snapshot = files.address.snapshot();
    files.write_snapshot(&good.snapshot.patched(data, good.snapshot.all()));
    read(&snapshot);
    files.write_bus(&good.bus.patched(&[], good.bus.all()));
    let bus = open(&files).expect("a good bus");
    // It refuses what is no snapshot at all.
    if let Some(aggregator) = aggregate(&bus) {
        witness(&bus, aggregator);
        read(&snapshot).expect("what an aggregator has gone on with");
    }
});
