//! Any words in a snapshot: it is read and exported, or refused, and an aggregator goes on with it.
#![no_main]

use std::io::sink;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use qbus::Bus;
use qbus_aggregate::export::{Format, Options, export};
use qbus_aggregate::{Aggregator, ReadOptions, Reader};
use qbus_fuzz::{Image, emit, small};

fuzz_target!(|input: &[u8]| {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    let image = IMAGE.get_or_init(Image::new);
    image.patch_snapshot(input);
    read(image);
    let bus = Bus::open(image.address()).expect("the bus is whole");
    if let Ok(mut aggregator) = Aggregator::open(&bus, &small()) {
        emit(&bus);
        aggregator.round();
        emit(&bus);
        aggregator.finish();
    }
    read(image);
});

fn read(image: &Image) {
    let Ok(mut reader) = Reader::open(&image.address().snapshot()) else {
        return;
    };
    let _ = (
        reader.recent(),
        reader.owners(),
        reader.heads(),
        reader.globals(),
        reader.bus_name(),
    );
    let options = ReadOptions {
        history: true,
        ..ReadOptions::default()
    };
    let Ok(snapshot) = reader.read(&options) else {
        return;
    };
    let options = Options {
        timestamps: true,
        history: true,
    };
    for format in Format::ALL {
        export(&snapshot, format, &options, &mut sink()).expect("a sink takes all");
    }
}
