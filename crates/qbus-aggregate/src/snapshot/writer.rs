//! The aggregator's side of the snapshot file.

use std::fmt;
use std::path::{Path, PathBuf};

use qbus::{Access, Bus, CreateError, MappedFile, OpenError, Words, testpoint};

use super::layout::{
    AT_ALLOCATED, AT_COMMITTED, AT_CREATED, AT_GLOBALS, AT_INSTANCE, AT_MAGIC, AT_NAME, AT_PID,
    AT_SHAPE, AT_STARTED, AT_VERSION, BLOCK_HEADER, GLOBALS_LEN, MAGIC, NAME_WORDS, OWNER_LEN,
    RING_HEADER, Shape, VERSION,
};
use super::versioned::{EPOCH_MAX, Found, Row, commit, committed, row_words};
use super::{Globals, OwnerRow};

/// The file grows by at least this much.
const CHUNK_BYTES: u64 = 1 << 20;

/// Why the aggregator has no snapshot to write to.
#[derive(Debug)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The file could not be made.
    Create(CreateError),
    /// The file is there and could not be opened.
    Open(OpenError),
    /// The file belongs to another bus and could not be moved aside.
    Aside {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::Create(error) => error.fmt(f),
            SnapshotError::Open(error) => error.fmt(f),
            SnapshotError::Aside { path, source } => {
                write!(
                    f,
                    "{} is of an earlier bus and could not be moved aside: {source}",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for SnapshotError {}

/// A snapshot file, open for the one process that writes it.
#[derive(Debug)]
pub(crate) struct Writer {
    file: MappedFile,
    shape: Shape,
    /// The epoch that counts.
    epoch: u64,
    /// Next free word of the heap, and the end of the file in words.
    allocated: usize,
    end: usize,
    /// The epoch in which the file could not grow: not tried again before the next.
    full_at: Option<u64>,
    scratch: Vec<u64>,
}

impl Writer {
    /// Opens the snapshot of a bus, or makes it. One of another bus of the same name, or of another
    /// shape, is moved aside to `PATH.previous`. Whether there was one to go on with.
    pub(crate) fn open(
        path: &Path,
        bus: &Bus,
        history: usize,
    ) -> Result<(Writer, bool), SnapshotError> {
        let geometry = bus.geometry();
        let shape = Shape {
            lanes: geometry.lanes as usize,
            owners: geometry.owners as usize,
            series_ids: geometry.series_ids(),
            history,
        };
        match MappedFile::open(path, Access::Write) {
            Ok(file) => match Self::check(&file, bus, shape).map_err(SnapshotError::Open)? {
                Fit::Same => return Ok((Self::resume(file, shape), true)),
                Fit::Unfinished => remove(path)?,
                Fit::Other => move_aside(path)?,
            },
            Err(OpenError::Unfinished { .. }) => remove(path)?,
            Err(OpenError::Absent { .. }) => {}
            Err(error) => return Err(SnapshotError::Open(error)),
        }
        Ok((
            Self::create(path, bus, shape).map_err(SnapshotError::Create)?,
            false,
        ))
    }

    fn check(file: &MappedFile, bus: &Bus, shape: Shape) -> Result<Fit, OpenError> {
        let (words, path) = (file.words(), file.path().to_owned());
        match words.get(AT_MAGIC) {
            Some(MAGIC) => {}
            // Its creator died: only the aggregator makes snapshots, and that is this process now.
            Some(0) | None => return Ok(Fit::Unfinished),
            Some(found) => {
                return Err(OpenError::NotOurs {
                    path,
                    expected: "a snapshot",
                    found,
                });
            }
        }
        words.acquire();
        // A file of another shape or layout, or one that somebody wrote garbage to, is no use to anyone here.
        if words.len() < shape.heap()
            || words.load(AT_VERSION) != VERSION
            || words.load(AT_COMMITTED) > EPOCH_MAX
        {
            return Ok(Fit::Other);
        }
        let instance = [words.load(AT_INSTANCE), words.load(AT_INSTANCE + 1)];
        let found = Shape::from_words(std::array::from_fn(|i| words.load(AT_SHAPE + i)));
        let same =
            instance == bus.instance() && found.is_some_and(|found| found.is_laid_out_as(shape));
        Ok(if same { Fit::Same } else { Fit::Other })
    }

    fn create(path: &Path, bus: &Bus, shape: Shape) -> Result<Writer, CreateError> {
        let bytes = (shape.heap() as u64 * 8 + CHUNK_BYTES).next_multiple_of(4096);
        // Readers of the bus's group may read it; nobody else writes it.
        let group = file_mode(bus) & 0o060 != 0;
        let file = MappedFile::create(path, bytes, if group { 0o640 } else { 0o600 })?;
        testpoint!("snapshot-made");
        let words = file.words();
        words.store(AT_VERSION, VERSION);
        for (index, value) in bus.instance().into_iter().enumerate() {
            words.store(AT_INSTANCE + index, value);
        }
        for (index, value) in shape.to_words().into_iter().enumerate() {
            words.store(AT_SHAPE + index, value);
        }
        words.store(AT_CREATED, bus.created_ns());
        let name = bus.address().to_string();
        let cut = (0..=name.len().min(NAME_WORDS * 8))
            .rev()
            .find(|&end| name.is_char_boundary(end))
            .unwrap_or(0);
        words.store(AT_NAME, cut as u64);
        for (index, chunk) in name.as_bytes()[..cut].chunks(8).enumerate() {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            words.store(AT_NAME + 1 + index, u64::from_le_bytes(bytes));
        }
        words.store(AT_ALLOCATED, shape.heap() as u64);
        let end = words.len();
        testpoint!("snapshot-filled");
        words.publish(AT_MAGIC, MAGIC);
        testpoint!("snapshot-published");
        Ok(Writer {
            file,
            shape,
            epoch: 0,
            allocated: shape.heap(),
            end,
            full_at: None,
            scratch: Vec::new(),
        })
    }

    fn resume(file: MappedFile, shape: Shape) -> Writer {
        let words = file.words();
        let epoch = committed(words, AT_COMMITTED).unwrap_or(0);
        let end = words.len();
        let allocated = (words.load(AT_ALLOCATED) as usize).clamp(shape.heap(), end);
        // Rings that were made longer stay so: readers are to take their capacity as it is.
        let longest = words.load(AT_SHAPE + 3).max(shape.history as u64);
        words.store(AT_SHAPE + 3, longest);
        let writer = Writer {
            file,
            shape,
            epoch,
            allocated,
            end,
            full_at: None,
            scratch: Vec::new(),
        };
        // First of all: a later epoch would make what a predecessor had begun come to count.
        for row in writer.all_rows() {
            row.erase(writer.words(), epoch);
        }
        writer
    }

    fn all_rows(&self) -> Vec<Row> {
        let mut rows = vec![self.globals_row()];
        rows.extend((0..self.shape.lanes).map(|lane| self.head_row(lane)));
        rows.extend((0..self.shape.owners).map(|owner| self.owner_row(owner)));
        rows.extend(
            (0..self.shape.series_ids).filter_map(|id| series_row(self.words(), self.shape, id)),
        );
        rows
    }

    pub(crate) fn words(&self) -> Words<'_> {
        self.file.words()
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Says who writes, for people.
    pub(crate) fn sign(&self, pid: u32, started_ns: u64) {
        self.words().store(AT_STARTED, started_ns);
        self.words().store(AT_PID, u64::from(pid));
        testpoint!("snapshot-signed");
    }

    fn globals_row(&self) -> Row {
        Row {
            start: AT_GLOBALS,
            len: GLOBALS_LEN,
        }
    }

    fn head_row(&self, lane: usize) -> Row {
        Row {
            start: self.shape.heads() + lane * row_words(1),
            len: 1,
        }
    }

    fn owner_row(&self, owner: usize) -> Row {
        Row {
            start: self.shape.owner_rows() + owner * row_words(OWNER_LEN),
            len: OWNER_LEN,
        }
    }

    /// What counts of a row, or nothing.
    fn read(&self, row: Row) -> Option<Vec<u64>> {
        let mut out = Vec::new();
        (row.read(self.words(), self.epoch, None, &mut out) == Found::Version).then_some(out)
    }

    pub(crate) fn read_globals(&self) -> Globals {
        self.read(self.globals_row())
            .and_then(|words| Globals::from_words(&words))
            .unwrap_or_default()
    }

    pub(crate) fn read_head(&self, lane: usize) -> Option<u64> {
        Some(self.read(self.head_row(lane))?[0])
    }

    pub(crate) fn read_owner(&self, owner: usize) -> OwnerRow {
        self.read(self.owner_row(owner))
            .and_then(|words| OwnerRow::from_words(&words))
            .unwrap_or_default()
    }

    /// The row of a series and what counts of it; `None` when there is no such block, or garbage.
    pub(crate) fn read_series(&self, id: usize) -> Option<(Row, Option<Vec<u64>>)> {
        let row = series_row(self.words(), self.shape, id)?;
        Some((row, self.read(row)))
    }

    pub(crate) fn write_globals(&mut self, epoch: u64, globals: Globals) {
        self.globals_row()
            .write(self.words(), epoch, &globals.to_words());
        testpoint!("globals-row");
    }

    pub(crate) fn write_head(&mut self, epoch: u64, lane: usize, position: u64) {
        self.head_row(lane).write(self.words(), epoch, &[position]);
        testpoint!("head-row");
    }

    pub(crate) fn write_owner(&mut self, epoch: u64, owner: usize, row: OwnerRow) {
        self.owner_row(owner)
            .write(self.words(), epoch, &row.to_words());
        testpoint!("owner-row");
    }

    /// Writes a series' version as `encode` lays it out.
    pub(crate) fn write_series(
        &mut self,
        epoch: u64,
        row: Row,
        encode: impl FnOnce(&mut Vec<u64>),
    ) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        encode(&mut scratch);
        row.write(self.words(), epoch, &scratch);
        testpoint!("series-row");
        self.scratch = scratch;
    }

    /// Makes an epoch count.
    pub(crate) fn commit(&mut self, epoch: u64) {
        commit(self.words(), AT_COMMITTED, epoch);
        self.epoch = epoch;
    }

    /// Takes words of the heap; the file grows when there are none left.
    pub(crate) fn allocate(&mut self, len: usize) -> Result<usize, CreateError> {
        let start = self.allocated;
        if start + len > self.end {
            let needed = (start + len) as u64 * 8;
            if self.full_at == Some(self.epoch) {
                // A system call for each record would be worse than the lack of room.
                let path = self.path().to_owned();
                return Err(CreateError::NoSpace {
                    path,
                    needed_bytes: needed,
                    available_bytes: 0,
                });
            }
            let more = (self.end as u64 * 2).max(CHUNK_BYTES);
            // All that is asked for at once, or the little that is needed now.
            let grown = self.file.grow((needed + more).next_multiple_of(4096));
            let grown = grown.or_else(|_| self.file.grow(needed.next_multiple_of(4096)));
            self.full_at = grown.is_err().then_some(self.epoch);
            grown?;
            testpoint!("file-grown");
            self.end = self.words().len();
        }
        self.allocated = start + len;
        // Before anything refers to them: a successor must not give them away again.
        self.words().store(AT_ALLOCATED, self.allocated as u64);
        testpoint!("allocated");
        Ok(start)
    }

    /// Copies words to the heap; where they lie.
    pub(crate) fn append(&mut self, content: &[u64]) -> Result<usize, CreateError> {
        let start = self.allocate(content.len())?;
        for (index, value) in content.iter().enumerate() {
            self.words().store(start + index, *value);
        }
        testpoint!("appended");
        Ok(start)
    }

    /// A new ring of `capacity` points of `each` words, behind which nothing was written yet.
    pub(crate) fn new_ring(&mut self, capacity: usize, each: usize) -> Result<usize, CreateError> {
        let start = self.allocate(RING_HEADER + capacity * each)?;
        self.words().store(start, capacity as u64);
        self.words().store(start + 1, 0);
        testpoint!("ring-made");
        Ok(start)
    }

    /// Makes a block for a series, or a larger one in place of the one that it has. `current` is written
    /// to it as of the epoch that counts, so that a reader sees the same in either.
    pub(crate) fn place_series(
        &mut self,
        id: usize,
        metric_type: u64,
        definitions: [usize; 2],
        len: usize,
        current: Option<&[u64]>,
    ) -> Result<Row, CreateError> {
        let block = self.allocate(BLOCK_HEADER + row_words(len))?;
        let words = self.words();
        let header = [
            metric_type,
            definitions[0] as u64,
            definitions[1] as u64,
            len as u64,
        ];
        for (index, value) in header.into_iter().enumerate() {
            words.store(block + index, value);
        }
        for index in 0..row_words(len) {
            words.store(block + BLOCK_HEADER + index, 0);
        }
        let row = Row {
            start: block + BLOCK_HEADER,
            len,
        };
        if let (Some(current), true) = (current, self.epoch > 0) {
            row.write(words, self.epoch, current);
        }
        testpoint!("block-filled");
        // Release: who follows the directory finds the block whole.
        words.publish(self.shape.directory() + id, block as u64);
        testpoint!("placed");
        Ok(row)
    }
}

/// Whether a file can be gone on with.
enum Fit {
    Same,
    Other,
    Unfinished,
}

/// The row of a series; `None` when the directory has none, or what it has does not fit.
pub(crate) fn series_row(words: Words<'_>, shape: Shape, id: usize) -> Option<Row> {
    row_at(words, shape, words.get(shape.directory() + id)?)
}

/// The row of the series whose block lies there, as the directory says; `None` when that does not fit.
pub(crate) fn row_at(words: Words<'_>, shape: Shape, block: u64) -> Option<Row> {
    let block = usize::try_from(block).ok()?;
    if block < shape.heap() {
        return None;
    }
    words.acquire();
    let len = usize::try_from(words.get(block.checked_add(3)?)?).ok()?;
    if len > 1 << 20 {
        return None;
    }
    let row = Row {
        start: block + BLOCK_HEADER,
        len,
    };
    row.fits(words).then_some(row)
}

/// Takes words out of the room that a file's words have; whether there were so many left. No two series
/// share a word, so what they need together fits into the file, unless a directory that is garbage
/// leads to the same place over and over.
pub(crate) fn take_room(room: &mut usize, len: usize) -> bool {
    let left = room.checked_sub(len);
    *room = left.unwrap_or(*room);
    left.is_some()
}

/// Capacity of a ring that its writer may go on with; `None` when there is none, or it does not fit: its
/// points would lie on what is not the heap's.
pub(crate) fn ring_capacity(
    words: Words<'_>,
    shape: Shape,
    ring: usize,
    words_each: usize,
) -> Option<usize> {
    if ring < shape.heap() {
        return None;
    }
    let capacity = usize::try_from(words.get(ring)?).ok()?;
    let len = RING_HEADER.checked_add(capacity.checked_mul(words_each)?)?;
    words.slice(ring, len).is_some().then_some(capacity)
}

/// Takes away what a dead aggregator began to make.
fn remove(path: &Path) -> Result<(), SnapshotError> {
    std::fs::remove_file(path).map_err(|source| SnapshotError::Aside {
        path: path.to_owned(),
        source,
    })?;
    testpoint!("unfinished-removed");
    Ok(())
}

fn move_aside(path: &Path) -> Result<(), SnapshotError> {
    let mut previous = path.as_os_str().to_owned();
    previous.push(".previous");
    std::fs::rename(path, previous).map_err(|source| SnapshotError::Aside {
        path: path.to_owned(),
        source,
    })?;
    testpoint!("moved-aside");
    Ok(())
}

fn file_mode(bus: &Bus) -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(bus.address().file()).map_or(0o600, |metadata| metadata.mode())
}
