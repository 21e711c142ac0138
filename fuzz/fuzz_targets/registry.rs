//! A registry of any bytes: looked up, registered with, and filled.
#![no_main]

use libfuzzer_sys::fuzz_target;
use qbus::{FamilyDefinition, MetricType};
use qbus_fuzz::{Files, GEOMETRY, aggregate, good, look, open, read, series, witness};

fuzz_target!(|data: &[u8]| {
    let (good, files) = (good(), Files::new());
    files.write_bus(&good.bus.patched(data, good.bus.registry()));
    let bus = open(&files).expect("a good header");
    look(&bus);
    // Known ones, then other types under known names, then more than there is room for.
    series(&bus);
    let _ = bus.gauge("a").register();
    let _ = bus.histogram("c").buckets([3.0]).register();
    for n in 0..=2 * GEOMETRY.series {
        let family = FamilyDefinition {
            name: format!("more_{}", n % 3),
            metric_type: MetricType::Counter,
            help: String::new(),
            unit: String::new(),
            buckets: Vec::new(),
        };
        let labels = [("n".to_owned(), n.to_string())];
        if let Ok(id) = bus.intern(&family, &labels) {
            let found = bus.series(id).expect("it was registered just now");
            assert_eq!(found.labels, labels);
        }
    }
    look(&bus);
    if let Some(aggregator) = aggregate(&bus) {
        witness(&bus, aggregator);
    }
    read(&files.address.snapshot()).expect("an aggregator's snapshot");
});
