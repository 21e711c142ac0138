//! What the fuzz targets share: a small valid bus with its snapshot, and patches of its words.
//!
//! An input is a list of patches of 12 bytes, a place (32 bits) and a word (64 bits), so that most
//! inputs get past the header.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use qbus::{Address, Bus, Config as BusConfig, Geometry, Kind, Record};
use qbus_aggregate::{Aggregator, Config};

/// Small, so that a patch hits something.
pub const GEOMETRY: Geometry = Geometry {
    lanes: 2,
    shared_lanes: 1,
    slots: 4,
    owners: 2,
    families: 4,
    series: 8,
    arena_words: 256,
};

/// A bus with its snapshot in files of this process.
pub struct Image {
    address: Address,
    bus: Vec<u8>,
    snapshot: Vec<u8>,
}

impl Image {
    /// With series of each type, some records committed, and some left in the lanes.
    pub fn new() -> Image {
        let folder = if Path::new("/dev/shm").is_dir() {
            PathBuf::from("/dev/shm")
        } else {
            std::env::temp_dir()
        };
        let path = folder.join(format!("qbus-fuzz-{}", std::process::id()));
        let address: Address = path.display().to_string().parse().expect("a path");
        let _ = fs::remove_file(address.file());
        let _ = fs::remove_file(address.snapshot());
        let config = BusConfig {
            geometry: GEOMETRY,
            ..BusConfig::default()
        };
        let bus = Bus::create(&address, &config).expect("room");
        let mut aggregator = Aggregator::open(&bus, &small()).expect("the only one");
        for round in 0..12 {
            emit(&bus);
            if round < 11 {
                aggregator.round();
            }
        }
        drop((aggregator, bus));
        let read = |path: &Path| fs::read(path).expect("it was made");
        Image {
            bus: read(address.file()),
            snapshot: read(&address.snapshot()),
            address,
        }
    }

    /// Where the bus lies.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Writes both files, the bus with the input's patches within `range` (of bytes).
    pub fn patch_bus(&self, input: &[u8], range: Range<usize>) {
        write(self.address.file(), &self.bus, input, range);
        write(&self.address.snapshot(), &self.snapshot, &[], 0..0);
    }

    /// Writes both files, the snapshot with the input's patches.
    pub fn patch_snapshot(&self, input: &[u8]) {
        write(self.address.file(), &self.bus, &[], 0..0);
        // Most of the file is room that nothing was written to.
        let used = self.snapshot.len()
            - self
                .snapshot
                .iter()
                .rev()
                .take_while(|byte| **byte == 0)
                .count();
        write(&self.address.snapshot(), &self.snapshot, input, 0..used);
    }

    /// Bytes of the bus.
    pub fn bus_len(&self) -> usize {
        self.bus.len()
    }
}

impl Default for Image {
    fn default() -> Image {
        Image::new()
    }
}

fn write(path: &Path, image: &[u8], input: &[u8], range: Range<usize>) {
    let mut image = image.to_vec();
    for patch in input.chunks_exact(12) {
        let (place, word) = patch.split_at(4);
        let place = u32::from_le_bytes(place.try_into().expect("4 bytes")) as usize;
        let at = range.start + place % (range.len() / 8) * 8;
        image[at..at + 8].copy_from_slice(word);
    }
    // In place: a mapping of the last input is gone, and the file has the same length.
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let open = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    let mut file = open.expect("our file");
    std::io::Write::write_all(&mut file, &image).expect("room");
    file.set_permissions(fs::Permissions::from_mode(0o600))
        .expect("our file");
}

/// Short rings, so that they wrap.
pub fn small() -> Config {
    Config {
        history: 4,
        recent: 8,
        ..Config::default()
    }
}

/// A record of each type through a lane of each sort, as far as the bus takes them.
pub fn emit(bus: &Bus) {
    let producers: Vec<_> = [bus.producer(), bus.shared_producer()]
        .into_iter()
        .flatten()
        .collect();
    let ids = [
        (
            bus.counter("a")
                .label("x", "y")
                .register()
                .map(|a| a.series()),
            Kind::Increment,
        ),
        (
            bus.gauge("b")
                .unit("seconds")
                .register()
                .map(|b| b.series()),
            Kind::Set,
        ),
        (
            bus.histogram("c")
                .buckets([1.0, 2.0])
                .register()
                .map(|c| c.series()),
            Kind::Observe,
        ),
        (
            bus.summary("d").register().map(|d| d.series()),
            Kind::Observe,
        ),
    ];
    for producer in &producers {
        for (id, kind) in &ids {
            if let Ok(id) = id {
                let _ = producer.emit(Record::new(1000, *id, *kind, 1.5));
            }
        }
    }
}
