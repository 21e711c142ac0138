//! What the fuzz targets share: good images, how an input changes one, and all that a process can
//! do with the files that come of it.
//!
//! A process lays all of its inputs into the same two files, one after the other: making files anew
//! takes longer than all that is done with them. The length of an input says how far it goes: all
//! are looked at, every other is emitted to, every fourth aggregated, every eighth gone on with.
//!
//! An input is a plan byte and then patches: a place (two bytes), a length (one), and the bytes
//! that are laid there, or which other word. Most places count among the words that a good image
//! uses, so that most inputs get past the header and meet something. A few plans begin with zeros,
//! take the input as the file itself, or cut it short.

use std::fs::{self, File, OpenOptions};
use std::io::sink;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use qbus::{
    Address, Bus, BusOptions, Counter, FamilyId, Geometry, Kind, Producer, Record, RegisterError,
    SeriesId, Summary,
};
use qbus_aggregate::export::{self, Format};
use qbus_aggregate::{Aggregator, AggregatorOptions, OwnerRow, ReadOptions, Reader};

/// Small, so that a few bytes reach everything.
pub const GEOMETRY: Geometry = Geometry {
    lanes: 2,
    shared_lanes: 1,
    slots: 4,
    owners: 2,
    families: 4,
    series: 8,
    arena_words: 256,
    // Groups in which a histogram fits.
    cells: 64,
};
/// How long a step of the summary's window is.
const STEP: Duration = Duration::from_millis(100);
/// A section begins on one.
const PAGE: usize = 4096;
/// Far more than a snapshot of this geometry needs.
const SNAPSHOT_BYTES_MAX: u64 = 64 << 20;

/// What the aggregators here are like.
pub fn config() -> AggregatorOptions {
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
        Self::new(std::fs::read(path).expect("the file"))
    }

    fn new(mut bytes: Vec<u8>) -> Image {
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

    /// A bus with the cells of a lane as an input changes them. None of them is the good counter's
    /// of the other lane.
    pub fn with_wild_cells(&self, data: &[u8], lane: BrokenLane) -> (Vec<u8>, usize) {
        assert_eq!(self.len, 11 * PAGE, "a section each has a page");
        let at = lane.index();
        let cells = GEOMETRY.cells as usize;
        // What the consumer has seen of the pulses, what writers write beside the cells, the cells,
        // and what the consumer has seen of them.
        let parts = [
            (3 * PAGE + at * 128 + 8, Geometry::CELL_GROUPS * 8),
            (5 * PAGE + at * 256, 256),
            (6 * PAGE + at * cells * 16, cells * 16),
            (7 * PAGE + at * cells * 8, cells * 8),
        ];
        let mut bytes = self.bytes.clone();
        bytes.resize(self.len, 0);
        let gathered: Vec<u8> = parts
            .iter()
            .flat_map(|&(start, len)| &bytes[start..start + len])
            .copied()
            .collect();
        let gathered = Image::new(gathered);
        let (mut wild, _) = gathered.patched(data, gathered.all());
        wild.resize(gathered.len, 0);
        let mut rest = &wild[..];
        for (start, len) in parts {
            let (part, after) = rest.split_at(len);
            bytes[start..start + len].copy_from_slice(part);
            rest = after;
        }
        let (start, len) = parts[2];
        for key in bytes[start..start + len].chunks_exact_mut(16) {
            let word = u64::from_le_bytes(key[..8].try_into().expect("8 bytes"));
            let series = word >> 32;
            if series == u64::from(stage().good(lane).0) {
                key[..8].fill(0);
            }
        }
        (bytes, self.len)
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

/// The lane whose cells an input changes; a counter in the other one's keeps its total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenLane {
    /// That of handles in a thread while another producer has the only lane of its own.
    Shared,
    /// That of handles in a thread.
    Exclusive,
}

impl BrokenLane {
    /// As the length of an input says.
    pub fn of(len: usize) -> BrokenLane {
        if len.is_multiple_of(2) {
            BrokenLane::Shared
        } else {
            BrokenLane::Exclusive
        }
    }

    /// Its place: shared lanes come first.
    fn index(self) -> usize {
        match self {
            BrokenLane::Shared => 0,
            BrokenLane::Exclusive => 1,
        }
    }
}

/// So much of a good counter is in the snapshot of a good image.
pub const COMMITTED: u64 = 5;
/// So much is in the cells alone.
pub const LEFT: u64 = 2;

/// A bus and its snapshot that nobody has broken, and the files that their images are laid into.
#[derive(Debug)]
pub struct Stage {
    /// The bus: records of each type committed, and some left in the lanes.
    pub bus: Image,
    /// Its snapshot.
    pub snapshot: Image,
    /// Of the files.
    pub address: Address,
    bus_file: File,
    /// Of the good counter while the shared lane is broken, and while the exclusive one is.
    good: [SeriesId; 2],
}

/// Made once in a process.
pub fn stage() -> &'static Stage {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    STAGE.get_or_init(|| {
        let path = folder().join("bus").display().to_string();
        let address: Address = path.parse().expect("a path");
        let options = BusOptions {
            geometry: GEOMETRY,
            ..BusOptions::default()
        };
        let bus = Bus::create(&address, &options).expect("a new bus");
        let mut aggregator = Aggregator::open(&bus, &config()).expect("the only one");
        for n in 0..20 {
            Peer::join(&bus).emit();
            if n < 19 {
                aggregator.round();
            }
            if n == 10 {
                // The summary's window gets a step that is over.
                thread::sleep(STEP);
            }
        }
        let good = [BrokenLane::Shared, BrokenLane::Exclusive].map(|lane| good(&bus, lane));
        emit_to_cells(&bus, &good, COMMITTED);
        aggregator.finish();
        emit_to_cells(&bus, &good, LEFT);
        let good = good.map(|counter| counter.series());
        drop(aggregator);
        drop(bus);
        Stage {
            bus: Image::of(address.file()),
            snapshot: Image::of(&address.snapshot()),
            bus_file: writable(address.file()),
            address,
            good,
        }
    })
}

/// The counter that keeps its total while that lane is broken.
pub fn good(bus: &Bus, lane: BrokenLane) -> Counter {
    let registration = bus.counter("a").label("broken", &format!("{lane:?}"));
    registration.register().expect("room in the registry")
}

/// All types and the good counters to the cells of both lanes.
fn emit_to_cells(bus: &Bus, [exclusive, shared]: &[Counter; 2], times: u64) {
    for counter in [shared, exclusive] {
        // While it is held what a thread emits goes to the shared lane.
        let own = std::ptr::eq(counter, shared).then(|| bus.producer().expect("a free lane"));
        in_a_thread(|| {
            (0..times).for_each(|_| counter.inc());
            fill_cells(bus);
        });
        drop(own);
    }
}

/// Runs it in a thread, whose lane is free again when this returns.
pub fn in_a_thread(run: impl FnOnce() + Send) {
    // A join waits for the thread's locals, which hold its lane; the end of a scope does not.
    let ran = thread::scope(|scope| scope.spawn(run).join());
    ran.expect("no panic");
}

/// All that goes to cells, from handles: more than a ring takes, so that states come too.
pub fn fill_cells(bus: &Bus) {
    if let Ok(counter) = bus.counter("a").label("x", "y").register() {
        counter.inc();
        for value in [0.1, 1e-17, 1e300, f64::NAN] {
            counter.add(value);
        }
    }
    if let Ok(histogram) = bus.histogram("c").buckets([1.0, 2.0]).register() {
        for value in [0.5, 1.5, f64::INFINITY] {
            histogram.observe(value);
        }
    }
    if let Ok(gauge) = bus.gauge("b").unit("seconds").register() {
        (0..GEOMETRY.slots + 2).for_each(|value| gauge.set(value as f64));
    }
    if let Ok(summary) = summary(bus) {
        for value in [0.5, -1.5, 1e9] {
            summary.observe(value);
        }
    }
}

/// A folder of this process in memory, where there is such a thing. A fuzzer ends without a word,
/// however it ends: a shell waits for that, and takes the folder away.
fn folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let root = if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    };
    let folder = root.join(format!("qbus-fuzz-{}", std::process::id()));
    fs::create_dir(&folder).expect("a new folder");
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "trap '' INT TERM; cat >/dev/null; rm -rf \"$1\"",
        "sh",
    ]);
    let shell = shell.arg(&folder).stdin(Stdio::piped()).spawn();
    // Its end of the pipe is closed by the kernel, when this process ends.
    std::mem::forget(shell.expect("a shell").stdin);
    folder
}

fn writable(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.mode(0o600).open(path).expect("a file of ours")
}

impl Stage {
    fn good(&self, lane: BrokenLane) -> SeriesId {
        self.good[lane.index()]
    }

    /// Lays down a bus, and opens it; `None` when it is refused. One that is unfinished is refused
    /// after a second, which is too long here.
    pub fn open(&self, image: &(Vec<u8>, usize)) -> Option<Bus> {
        lay(&self.bus_file, image);
        let (bytes, len) = image;
        let is_unfinished = *len < PAGE || bytes.len() < 8 || bytes[..8] == [0; 8];
        if is_unfinished {
            return None;
        }
        Bus::open(&self.address).ok()
    }

    /// Lays down a snapshot; where.
    pub fn lay_snapshot(&self, image: &(Vec<u8>, usize)) -> PathBuf {
        let path = self.address.snapshot();
        // By name: an aggregator may have moved another bus's aside.
        lay(&writable(&path), image);
        path
    }

    /// Takes the snapshot away.
    pub fn without_snapshot(&self) -> PathBuf {
        let path = self.address.snapshot();
        let _ = fs::remove_file(&path);
        path
    }
}

/// Makes a file those bytes, and zeros behind them.
fn lay(file: &File, (bytes, len): &(Vec<u8>, usize)) {
    let before = file.metadata().expect("a file").size();
    if before > bytes.len() as u64 {
        file.set_len(bytes.len() as u64).expect("less");
    }
    file.write_all_at(bytes, 0).expect("room");
    file.set_len(*len as u64).expect("room");
}

/// All that can be asked of a bus.
pub fn look(bus: &Bus) {
    let _ = (bus.owners(), bus.lanes(), bus.counts(), bus.aggregator());
    let _ = (bus.instance(), bus.created_ns(), bus.is_removed());
    let ids = (0..bus.geometry().series_places() as u32 + 2).chain([u32::MAX]);
    for id in ids {
        if let Some(series) = bus.series(SeriesId(id)) {
            let _ = bus.family(series.family);
        }
        if let Some(family) = bus.family(FamilyId(id)) {
            let _ = bus.family_by_name(&family.name);
        }
    }
}

/// A process that keeps to the protocol, on a bus that may hold anything.
#[derive(Debug)]
pub struct Peer<'a> {
    bus: &'a Bus,
    /// See [`series`].
    series: Vec<(SeriesId, Kind)>,
    /// Of a lane of each sort, as far as there are.
    producers: Vec<Producer>,
}

/// The summary of a good image.
fn summary(bus: &Bus) -> Result<Summary, RegisterError> {
    let registration = bus.summary("d").help("Quantiles.");
    registration.window(2 * STEP, 2).register()
}

/// The series of a good image, each type one, as far as the bus takes them.
pub fn series(bus: &Bus) -> Vec<(SeriesId, Kind)> {
    let counter = bus.counter("a").label("x", "y").register();
    let gauge = bus.gauge("b").unit("seconds").register();
    let histogram = bus.histogram("c").buckets([1.0, 2.0]).register();
    let summary = summary(bus);
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

impl<'a> Peer<'a> {
    /// Registers, and leases.
    pub fn join(bus: &'a Bus) -> Peer<'a> {
        Peer::of(bus, series(bus))
    }

    /// Leases.
    pub fn of(bus: &'a Bus, series: Vec<(SeriesId, Kind)>) -> Peer<'a> {
        let producers = [bus.producer(), bus.shared_producer()];
        Peer {
            bus,
            series,
            producers: producers.into_iter().flatten().collect(),
        }
    }

    /// A record of each type, through a lane of each sort.
    pub fn emit(&self) {
        // Those of the second lane have a trace, so that there are exemplars too.
        for (trace_id, producer) in (0..).zip(&self.producers) {
            for &(id, kind) in &self.series {
                let record = Record::new(1000, id, kind, 1.5);
                let _ = producer.emit(Record { trace_id, ..record });
            }
        }
    }

    /// Drains and folds what there is, and more that comes while it does.
    pub fn aggregate(&self) -> Option<Aggregator> {
        let mut aggregator = Aggregator::open(self.bus, &config()).ok()?;
        aggregator.round();
        self.emit();
        aggregator.finish();
        Some(aggregator)
    }

    /// Whatever was there before: each record of a producer that keeps to the protocol, in a lane
    /// of its own, is delivered or counted; with `succeeds`, also by the aggregator's successor.
    pub fn witness(&self, mut aggregator: Aggregator, succeeds: bool) {
        let own = self
            .producers
            .iter()
            .find(|producer| producer.is_exclusive());
        let Some(producer) = own else {
            return;
        };
        let owner = usize::from(producer.owner().index);
        aggregator.finish();
        let reader = Reader::open(aggregator.snapshot()).expect("the aggregator's snapshot");
        let named = |reader: &Reader| (reader.bus_name(), reader.instance(), reader.created_ns());
        let ledger = |reader: &Reader| {
            let row = &reader.owners()[owner];
            let sum = row.present.plus(&row.departed);
            // A snapshot without room for a series says so: that is counted, too.
            let arrived = sum.delivered.saturating_add(sum.unplaced);
            (arrived, sum.dropped_full)
        };
        let dropped = || {
            let owners = self.bus.owners().expect("locks");
            let view = owners.into_iter().find(|view| view.id == producer.owner());
            view.expect("this process").dropped_full
        };
        let (name_before, before, dropped_before) = (named(&reader), ledger(&reader), dropped());
        let first = self.series.first().copied();
        let (id, kind) = first.unwrap_or((SeriesId(0), Kind::Set));
        let (mut accepted, mut refused) = (0, 0);
        // The second burst is more than a lane takes.
        for burst in [1, GEOMETRY.slots + 3] {
            for _ in 0..burst {
                match producer.emit(Record::new(2000, id, kind, 1.0)) {
                    Ok(()) => accepted += 1,
                    Err(_) => refused += 1,
                }
            }
            aggregator.round();
        }
        aggregator.finish();
        let (after, dropped_after) = (ledger(&reader), dropped());
        let (written, folded) = (reader.globals(), aggregator.globals());
        // What is read is clamped: a count that was garbage may be as large as any.
        let is_sane = |count: u64| count < 1 << 61;
        assert!(!is_sane(folded.records) || written.records == folded.records);
        assert!(!is_sane(folded.restarts) || written.restarts == folded.restarts);
        assert_eq!(named(&reader), name_before, "somebody wrote over the name");
        assert!(accepted > 0, "a drained lane took no record");
        assert!(
            !is_sane(after.0) || after.0 - before.0 >= accepted,
            "{accepted} accepted, {before:?} {after:?}"
        );
        assert_eq!(dropped_after.wrapping_sub(dropped_before), refused);
        assert!(
            !is_sane(dropped_after) || after.1 >= dropped_after,
            "{refused} refused, {after:?}"
        );
        if succeeds {
            let path = aggregator.snapshot().to_owned();
            drop(aggregator);
            let successor = Aggregator::open(self.bus, &config());
            drop(successor.expect("its predecessor is gone"));
            let resumed = ledger(&Reader::open(&path).expect("its snapshot"));
            assert!(resumed.0 >= after.0, "{after:?} before, {resumed:?} after");
        }
    }
}

/// All that can be read of a snapshot, written in the format of that number if there is one; `None`
/// when it is refused.
pub fn read(path: &Path, format: Option<&Format>) -> Option<()> {
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
    if let Some(&format) = format {
        let chosen = snapshot.epoch.is_multiple_of(2);
        let options = export::Options {
            timestamps: chosen,
            history: chosen,
        };
        let written = export::export(&snapshot, format, &options, &mut sink());
        written.expect("nothing refuses to be written");
    }
    Some(())
}
