//! A registry of any bytes: looked up, registered with, and filled.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qbus::{FamilyDefinition, MetricType};
use qbus_fuzz::{GEOMETRY, Peer, look, read, series, stage};

fuzz_target!(|data: &[u8]| {
    let (stage, len) = (stage(), data.len());
    let bus = stage.open(&stage.bus.patched(data, stage.bus.registry()));
    let bus = bus.expect("a good header");
    // Known ones, then other types under known names, then more than there is room for.
    let series = series(&bus);
    let _ = bus.gauge("a").register();
    let _ = bus.histogram("c").buckets([3.0]).register();
    for n in 0..=2 * GEOMETRY.series {
        let name = format!("more_{}", n % 3);
        let family = FamilyDefinition::new(&name, MetricType::Counter);
        let labels = [("n".to_owned(), n.to_string())];
        if let Ok(id) = bus.intern(&family, &labels) {
            let found = bus.series(id).expect("it was registered just now");
            assert_eq!(found.labels, labels);
        }
    }
    look(&bus);
    if !len.is_multiple_of(4) {
        return;
    }
    let snapshot = if len.is_multiple_of(64) {
        // Then every definition is looked up again.
        stage.without_snapshot()
    } else {
        stage.lay_snapshot(&stage.snapshot.patched(&[], stage.snapshot.all()))
    };
    let peer = Peer::of(&bus, series);
    if let Some(aggregator) = peer.aggregate()
        && len.is_multiple_of(8)
    {
        peer.witness(aggregator, len.is_multiple_of(16));
    }
    read(&snapshot, None).expect("an aggregator's snapshot");
});
