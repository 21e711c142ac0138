//! Any words in the registry: every id is looked up, known and new keys are interned until it is full.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use qbus::{Bus, FamilyDefinition, FamilyId, MetricType, SeriesId};
use qbus_fuzz::{GEOMETRY, Image};

fuzz_target!(|input: &[u8]| {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    let image = IMAGE.get_or_init(Image::new);
    // The index of the families, that of the series and the arena are the last three pages and more.
    let end = image.bus_len();
    image.patch_bus(input, end - 3 * 4096..end);
    let Ok(bus) = Bus::open(image.address()) else {
        return;
    };
    for id in 0..64 {
        let _ = (bus.series(SeriesId(id)), bus.family(FamilyId(id)));
    }
    for name in ["a", "b", "c", "d", "e"] {
        let family = FamilyDefinition {
            name: name.to_owned(),
            metric_type: MetricType::Counter,
            help: String::new(),
            unit: String::new(),
            buckets: Vec::new(),
        };
        for value in ["y", "z", ""] {
            let labels = [("x".to_owned(), value.to_owned())];
            if let Ok(id) = bus.intern(&family, &labels) {
                assert!((id.0 as usize) < GEOMETRY.series_ids());
                assert_eq!(
                    bus.intern(&family, &labels),
                    Ok(id),
                    "the same key is the same series"
                );
            }
        }
    }
});
