//! Any words in a bus: it is opened or refused, looked at, drained, emitted to, and drained again.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use qbus::Bus;
use qbus_aggregate::Aggregator;
use qbus_fuzz::{Image, emit, small};

fuzz_target!(|input: &[u8]| {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    let image = IMAGE.get_or_init(Image::new);
    image.patch_bus(input, 0..image.bus_len());
    let Ok(bus) = Bus::open(image.address()) else {
        return;
    };
    let _ = (bus.owners(), bus.aggregator(), bus.lanes(), bus.counts());
    let Ok(mut aggregator) = Aggregator::open(&bus, &small()) else {
        return;
    };
    aggregator.round();
    emit(&bus);
    aggregator.finish();
    // Whatever lay there: a good producer gets through in the end.
    let counter = bus.counter("a").label("x", "y").register();
    if let (Ok(counter), Ok(producer)) = (counter, bus.producer()) {
        let record = qbus::Record::new(1, counter.series(), qbus::Kind::Increment, 1.0);
        let before = aggregator.globals().records;
        let accepted = (0..20)
            .filter(|_| {
                let accepted = producer.emit(record).is_ok();
                aggregator.round();
                accepted
            })
            .count();
        assert!(accepted > 0, "the lane is wedged");
        aggregator.finish();
        assert!(aggregator.globals().records > before, "nothing arrives");
    }
});
