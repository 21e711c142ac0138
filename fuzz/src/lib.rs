//! What the fuzz targets share: good images, how an input changes one, and all that a process can do
//! with the files that come of it.
//!
//! An input is a plan byte and then patches: a place (two bytes), a length (one), and the bytes that
//! are laid there, or which other word. Most places count among the words that a good image uses, so
//! that most inputs get past the header and meet something. A few plans begin with zeros, take the
//! input as the file itself, or cut it short.

use std::io::sink;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use qbus::{
    Address, Bus, BusOptions, FamilyId, Geometry, Kind, Producer, Record, SeriesId,
};
use qbus_aggregate::export::{self, Format};
use qbus_aggregate::{Aggregator, AggregatorOptions, Globals, OwnerRow, ReadOptions, Reader};
use tempfile::TempDir;

/// Small, so that a few bytes reach everything.
pub const GEOMETRY: Geometry = Geometry {
    lanes: 2,
    shared_lanes: 1,
    slots: 4,
    owners: 2,
    families: 4,
    series: 8,
    arena_words: 256,
};
/// A section begins on one.
const PAGE: usize = 4096;
/// Far more than a snapshot of this geometry needs.
const SNAPSHOT_BYTES_MAX: u64 = 64 << 20;

fn config() -> AggregatorOptions {
    AggregatorOptions {
        history: 8,
        recent: 16,
        ..AggregatorOptions::default()
    }
}

/// A file's bytes up to the last that is not 0, and which of them somebody wrote.
#[derive(Debug)]
pub struct Image {
    bytes: Vec<u8>,
    len: usize,
    used: Vec<usize>,
}

impl Image {
    fn of(path: &Path) -> Image {
        let mut bytes = std::fs::read(path).expect("the file");
        let len = bytes.len();
        let end = bytes
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |at| at + 1);
        bytes.truncate(end.next_multiple_of(8).min(len));
        // Also the words behind those in use: what is laid there may be met as well.
        let is_used = |at: usize| bytes[at * 8..at * 8 + 8].iter().any(|&byte| byte != 0);
        let words = bytes.len() / 8;
        let used = (0..words).filter(|&at| (at.saturating_sub(2)..=at).any(is_used));
        let used = used.collect();
        Image { bytes, len, used }
    }

    /// The image as an input changes it, within `range` alone, and how long its file is.
    pub fn patched(&self, data: &[u8], range: Range<usize>) -> (Vec<u8>, usize) {
        let (mut bytes, mut len) = (self.bytes.clone(), self.len);
        let mut input = Input(data);
        let plan = input.byte().unwrap_or(0xff);
        match plan {
            0 if range.len() >= self.len => return (input.0.to_vec(), input.0.len()),
            1 if range.len() >= self.len => len = input.place().unwrap_or(0) % self.len,
            2 => {
                let end = range.end.min(bytes.len());
                bytes[range.start.min(end)..end].fill(0);
            }
            _ => {}
        }
        let used: Vec<usize> = self
            .used
            .iter()
            .copied()
            .filter(|at| range.contains(&(at * 8)))
            .collect();
        while let (Some(place), Some(length)) = (input.place(), input.byte()) {
            // Some copy a word in use: a place that is one, though not the right one.
            let patch = if length & 0x40 != 0 && !self.used.is_empty() {
                let from = input.place().unwrap_or(0) % self.used.len();
                &self.bytes[self.used[from] * 8..][..8]
            } else {
                input.take(1 + usize::from(length) % 16)
            };
            // A length of 128 or more means any place, one below a word in use.
            let at = if length >= 0x80 || used.is_empty() {
                range.start + place % range.len()
            } else {
                used[place % used.len()] * 8
            };
            let end = (at + patch.len()).min(range.end).min(self.len);
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[at..end].copy_from_slice(&patch[..end - at]);
        }
        bytes.truncate(len);
        (bytes, len)
    }

    /// All of it.
    pub fn all(&self) -> Range<usize> {
        0..self.len
    }

    /// Indexes and arena of a bus: its last three sections, a page each at this geometry.
    pub fn registry(&self) -> Range<usize> {
        self.len - 3 * PAGE..self.len
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn place(&mut self) -> Option<usize> {
        Some(usize::from(self.byte()?) | usize::from(self.byte()?) << 8)
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// A bus and its snapshot that nobody has broken.
#[derive(Debug)]
pub struct Good {
    /// The bus: records of each type committed, and some left in the lanes.
    pub bus: Image,
    /// Its snapshot.
    pub snapshot: Image,
}

/// Made once in a process: it takes longer than using it.
pub fn good() -> &'static Good {
    static GOOD: OnceLock<Good> = OnceLock::new();
    GOOD.get_or_init(|| {
        let files = Files::new();
        let config_of_bus = BusOptions {
            geometry: GEOMETRY,
            ..BusOptions::default()
        };
        let bus = Bus::create(&files.address, &config_of_bus).expect("a new bus");
        let mut aggregator = Aggregator::open(&bus, &config()).expect("the only one");
        for n in 0..20 {
            emit(&bus);
            if n < 19 {
                aggregator.round();
            }
        }
        drop(aggregator);
        drop(bus);
        Good {
            bus: Image::of(files.address.file()),
            snapshot: Image::of(&files.address.snapshot()),
        }
    })
}

/// A folder in memory, where there is such a thing, for one input.
#[derive(Debug)]
pub struct Files {
    /// The bus's.
    pub address: Address,
    _folder: TempDir,
}

impl Default for Files {
    fn default() -> Files {
        Files::new()
    }
}

impl Files {
    /// An empty one.
    pub fn new() -> Files {
        let memory = PathBuf::from("/dev/shm");
        let root = if memory.is_dir() {
            memory
        } else {
            std::env::temp_dir()
        };
        let folder = tempfile::Builder::new()
            .prefix("qbus-fuzz-")
            .tempdir_in(root);
        let folder = folder.expect("a temporary folder");
        let path = folder.path().join("bus").display().to_string();
        Files {
            address: path.parse().expect("a path"),
            _folder: folder,
        }
    }

    /// Lays down the bus.
    pub fn write_bus(&self, image: &(Vec<u8>, usize)) {
        write(self.address.file(), image);
    }

    /// Lays down the snapshot.
    pub fn write_snapshot(&self, image: &(Vec<u8>, usize)) {
        write(&self.address.snapshot(), image);
    }
}

fn write(path: &Path, (bytes, len): &(Vec<u8>, usize)) {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.expect("a new file");
    std::io::Write::write_all(&mut file, bytes).expect("room");
    file.set_len(*len as u64).expect("room");
}

/// Opens a bus; `None` when it is refused. One that says that it is unfinished is refused after a second,
/// which is too long here.
pub fn open(files: &Files) -> Option<Bus> {
    let bytes = std::fs::read(files.address.file()).expect("the file");
    let is_unfinished = bytes.len() < PAGE || bytes[..8] == [0; 8];
    if is_unfinished {
        return None;
    }
    Bus::open(&files.address).ok()
}

/// All that can be asked of a bus.
pub fn look(bus: &Bus) {
    let _ = (bus.owners(), bus.lanes(), bus.counts(), bus.aggregator());
    let _ = (bus.instance(), bus.created_ns(), bus.is_removed());
    for id in ids(bus) {
        if let Some(series) = bus.series(SeriesId(id)) {
            let _ = bus.family(series.family);
        }
        if let Some(family) = bus.family(FamilyId(id)) {
            let _ = bus.family_by_name(&family.name);
        }
    }
}

fn ids(bus: &Bus) -> impl Iterator<Item = u32> {
    (0..bus.geometry().series_ids() as u32 + 2).chain([u32::MAX])
}

/// The series of a good image, each type one, as far as the bus takes them.
pub fn series(bus: &Bus) -> Vec<(SeriesId, Kind)> {
    let counter = bus.counter("a").label("x", "y").register();
    let gauge = bus.gauge("b").unit("seconds").register();
    let histogram = bus.histogram("c").buckets([1.0, 2.0]).register();
    let summary = bus.summary("d").help("Quantiles.").register();
    let found = [
        counter
            .ok()
            .map(|handle| (handle.series(), Kind::Increment)),
        gauge.ok().map(|handle| (handle.series(), Kind::Set)),
        histogram
            .ok()
            .map(|handle| (handle.series(), Kind::Observe)),
        summary.ok().map(|handle| (handle.series(), Kind::Observe)),
    ];
    found.into_iter().flatten().collect()
}

/// A record of each type, through a lane of each sort, as far as the bus takes them.
pub fn emit(bus: &Bus) {
    let series = series(bus);
    for producer in [bus.producer(), bus.shared_producer()]
        .into_iter()
        .flatten()
    {
        for &(id, kind) in &series {
            let _ = producer.emit(Record::new(1000, id, kind, 1.5));
        }
    }
}

/// Drains and folds what there is, and more that comes while it does.
pub fn aggregate(bus: &Bus) -> Option<Aggregator> {
    let mut aggregator = Aggregator::open(bus, &config()).ok()?;
    for _ in 0..3 {
        aggregator.round();
        emit(bus);
    }
    settle(&mut aggregator);
    Some(aggregator)
}

fn settle(aggregator: &mut Aggregator) {
    aggregator.finish();
    aggregator.finish();
}

/// All that can be read of a snapshot; `None` when it is refused.
pub fn read(path: &Path) -> Option<()> {
    let mut reader = Reader::open(path).ok()?;
    let size = reader.size_bytes();
    assert!(size <= SNAPSHOT_BYTES_MAX, "a snapshot of {size} bytes");
    let _ = (reader.bus_name(), reader.instance(), reader.created_ns());
    let _ = (reader.writer(), reader.epoch(), reader.globals());
    let _ = (reader.heads(), reader.series_count(), reader.recent());
    let total = |row: OwnerRow| row.present.plus(&row.departed).dropped();
    let _ = reader.owners().into_iter().map(total).max();
    let options = ReadOptions {
        history: true,
        ..ReadOptions::default()
    };
    let snapshot = reader.read(&options).ok()?;
    for format in Format::ALL {
        for chosen in [false, true] {
            let options = export::Options {
                timestamps: chosen,
                history: chosen,
            };
            let written = export::export(&snapshot, format, &options, &mut sink());
            written.expect("nothing refuses to be written");
        }
    }
    Some(())
}

/// What the ledger has of an owner: delivered, and dropped at a full lane.
fn ledger(path: &Path, owner: usize) -> (u64, u64) {
    let reader = Reader::open(path).expect("the aggregator's snapshot");
    let rows = reader.owners();
    let row = rows[owner].present.plus(&rows[owner].departed);
    (row.delivered, row.dropped_full)
}

fn named(path: &Path) -> (String, [u64; 2], u64) {
    let reader = Reader::open(path).expect("the aggregator's snapshot");
    (reader.bus_name(), reader.instance(), reader.created_ns())
}

fn globals(path: &Path) -> Globals {
    let reader = Reader::open(path).expect("the aggregator's snapshot");
    reader.globals()
}

/// Whatever was there before: each record of a producer that keeps to the protocol, in a lane of its
/// own, is delivered or counted, also by the aggregator's successor.
pub fn witness(bus: &Bus, mut aggregator: Aggregator) {
    let series = series(bus);
    let Some(producer) = bus.producer().ok().filter(Producer::is_exclusive) else {
        return;
    };
    let (path, owner) = (
        aggregator.snapshot().to_owned(),
        usize::from(producer.owner().index),
    );
    settle(&mut aggregator);
    let name_before = named(&path);
    let dropped = |bus: &Bus| {
        let owners = bus.owners().expect("locks");
        let view = owners.into_iter().find(|view| view.id == producer.owner());
        view.expect("this process").dropped_full
    };
    let (before, dropped_before) = (ledger(&path, owner), dropped(bus));
    let (id, kind) = series.first().copied().unwrap_or((SeriesId(0), Kind::Set));
    let (mut accepted, mut refused) = (0, 0);
    for burst in [1, 3, 9] {
        for _ in 0..burst {
            match producer.emit(Record::new(2000, id, kind, 1.0)) {
                Ok(()) => accepted += 1,
                Err(_) => refused += 1,
            }
        }
        aggregator.round();
    }
    settle(&mut aggregator);
    let after = ledger(&path, owner);
    let (written, folded) = (globals(&path), aggregator.globals());
    // What is read is clamped: a count that was garbage may be as large as any.
    let is_sane = |count: u64| count < 1 << 61;
    assert!(!is_sane(folded.records) || written.records == folded.records);
    assert!(!is_sane(folded.restarts) || written.restarts == folded.restarts);
    assert_eq!(named(&path), name_before, "somebody wrote over the name");
    assert!(accepted > 0, "a drained lane took no record");
    assert!(
        !is_sane(after.0) || after.0 - before.0 >= accepted,
        "{accepted} accepted, {before:?} {after:?}"
    );
    assert_eq!(dropped(bus).wrapping_sub(dropped_before), refused);
    assert!(
        !is_sane(dropped(bus)) || after.1 >= dropped(bus),
        "{refused} refused, {after:?}"
    );
    drop(aggregator);
    let successor = Aggregator::open(bus, &config());
    drop(successor.expect("its predecessor is gone"));
    let resumed = ledger(&path, owner);
    assert!(resumed.0 >= after.0, "{after:?} before, {resumed:?} after");
}
