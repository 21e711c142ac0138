//! Reading a snapshot: also while the aggregator writes it, after it is gone, or from a copy.

mod cut;
mod decode;
mod find;
mod listing;
mod packed;
mod window;

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::mem::take;
use std::path::Path;
use std::sync::Arc;

use qbus::{Access, MappedFile, OpenError, SeriesId, Words};

use self::decode::Located;
use super::file;
use super::layout::{
    AT_ALLOCATED, AT_COMMITTED, AT_CREATED, AT_INSTANCE, AT_NAME, AT_PID, AT_STARTED, BLOCK_HEADER,
    NAME_WORDS, Shape,
};
use super::ring::{self, Points, RecentRecord, decode_recent};
use super::row::{BlockHeader, LEN_MAX, Plain, Span, block_of, is_same_series, row_at};
use super::tally::{Globals, OwnerRow};
use super::versioned::{Found, Row, committed, row_words};
use super::writer::{GLOBALS_ROW, head_row, owner_row};
use crate::series::{Family, Series, Snapshot};

pub use self::listing::Listing;
pub(crate) use self::listing::Named;

/// How often a cut is tried before rows that were overtaken are taken as they are.
const CUTS: usize = 8;
/// How often what is read is read again because the file has grown meanwhile.
const GROWTHS: usize = 32;

/// Why there is nothing to read.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// The file could not be opened.
    Open(OpenError),
    /// No aggregator has committed anything yet.
    Empty,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Open(error) => error.fmt(f),
            ReadError::Empty => write!(
                f,
                "the snapshot is empty: its aggregator has not committed anything yet"
            ),
        }
    }
}

impl std::error::Error for ReadError {}

/// What to read.
#[derive(Clone, Copy, Default)]
pub struct ReadOptions<'a> {
    /// Also the histories.
    pub history: bool,
    /// Only families whose name this takes.
    pub matches: Option<&'a dyn Fn(&str) -> bool>,
}

impl fmt::Debug for ReadOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadOptions")
            .field("history", &self.history)
            .finish_non_exhaustive()
    }
}

/// Where the definition of a family lies, and its id on the bus.
type FamilyKey = (usize, u64);

/// An open snapshot file, mapped read-only.
#[derive(Debug)]
pub struct Reader {
    file: MappedFile,
    shape: Shape,
    families: HashMap<FamilyKey, Arc<Family>>,
    retries: u64,
}

impl Reader {
    /// Opens a snapshot file.
    ///
    /// # Errors
    ///
    /// There is none, or it is not one that this build reads.
    pub fn open(path: &Path) -> Result<Reader, ReadError> {
        let file = MappedFile::open(path, Access::Read).map_err(ReadError::Open)?;
        let shape = file::check(&file).map_err(ReadError::Open)?;
        let mut reader = Reader {
            file,
            shape,
            families: HashMap::new(),
            retries: 0,
        };
        reader.check_length().map_err(ReadError::Open)?;
        Ok(reader)
    }

    /// Refuses a file that ends before what is in use of it, as a copy does that was cut short:
    /// half a page says nothing of what is missing.
    fn check_length(&mut self) -> Result<(), OpenError> {
        // The file is long enough before the word says so; the map may be older than both.
        let used = self.words().load(AT_ALLOCATED);
        if used > self.words().len() as u64 {
            self.refresh();
        }
        let found = self.words().len() as u64;
        if used > found {
            return Err(OpenError::Size {
                path: self.file.path().to_owned(),
                found: found * 8,
                expected: used.saturating_mul(8),
            });
        }
        Ok(())
    }

    fn words(&self) -> Words<'_> {
        self.file.words()
    }

    /// The name of the bus.
    pub fn bus_name(&self) -> String {
        let words = self.words();
        let len = (words.load(AT_NAME) as usize).min(NAME_WORDS * 8);
        let bytes = (0..NAME_WORDS).flat_map(|index| words.load(AT_NAME + 1 + index).to_le_bytes());
        String::from_utf8_lossy(&bytes.take(len).collect::<Vec<u8>>()).into_owned()
    }

    /// The instance of the bus.
    pub fn instance(&self) -> [u64; 2] {
        [
            self.words().load(AT_INSTANCE),
            self.words().load(AT_INSTANCE + 1),
        ]
    }

    /// When the bus was created, in nanoseconds since the Unix epoch.
    pub fn created_ns(&self) -> u64 {
        self.words().load(AT_CREATED)
    }

    /// Pid of the aggregator that writes, or wrote last, and when it started.
    pub fn writer(&self) -> (u64, u64) {
        (self.words().load(AT_PID), self.words().load(AT_STARTED))
    }

    /// The epoch of the last commit; 0 before the first.
    pub fn epoch(&self) -> u64 {
        committed(self.words(), AT_COMMITTED).unwrap_or(0)
    }

    /// What is counted over all lanes.
    pub fn globals(&self) -> Globals {
        self.newest(GLOBALS_ROW)
            .and_then(|words| Globals::from_words(&words))
            .unwrap_or_default()
    }

    /// The ledger: a row for each entry of the owner table, in its order.
    pub fn owners(&self) -> Vec<OwnerRow> {
        let read = |owner| {
            self.newest(owner_row(self.shape, owner))
                .and_then(|words| OwnerRow::from_words(&words))
                .unwrap_or_default()
        };
        (0..self.shape.owners).map(read).collect()
    }

    /// The committed position of each lane: all records below it are in the snapshot.
    pub fn heads(&self) -> Vec<u64> {
        let read = |lane| self.newest(head_row(self.shape, lane));
        (0..self.shape.lanes)
            .map(|lane| read(lane).map_or(0, |words| words[0]))
            .collect()
    }

    /// How many series it has.
    pub fn series_count(&self) -> usize {
        let directory = self.shape.directory();
        (0..self.shape.series_places)
            .filter(|&place| self.words().get(directory + place).unwrap_or(0) != 0)
            .count()
    }

    /// Bytes of the file as this reader has it mapped.
    pub fn size_bytes(&self) -> u64 {
        self.words().len() as u64 * 8
    }

    /// Maps the file anew if it has grown; whether it had. All that reads does so by itself, except
    /// for [`series_count`](Self::series_count) and [`size_bytes`](Self::size_bytes).
    pub fn refresh(&mut self) -> bool {
        // A map that cannot be renewed serves on: what lies beyond it is not seen.
        self.file.remap().unwrap_or(false)
    }

    /// Reads something that may refer to what lies beyond the map: where it does, and the file has
    /// grown, once more. The last argument of `read` says so.
    fn read_growing<T>(&mut self, mut read: impl FnMut(&mut Reader, &Beyond) -> T) -> T {
        self.refresh();
        let mut attempts = 1;
        loop {
            let beyond = Beyond::default();
            let found = read(self, &beyond);
            // Every further attempt has mapped more, of a file that grows less and less often.
            if !beyond.0.get() || attempts == GROWTHS || !self.refresh() {
                return found;
            }
            self.retries += 1;
            attempts += 1;
        }
    }

    /// How often a cut of this reader was overtaken, and tried again.
    pub fn retries(&self) -> u64 {
        self.retries
    }

    /// The last records of all series, oldest first.
    pub fn recent(&mut self) -> Vec<RecentRecord> {
        let points = self.read_growing(|reader, beyond| {
            let globals = reader.globals();
            let Ok(start) = usize::try_from(globals.recent_ring) else {
                return Vec::new();
            };
            let span = Span {
                ring: start,
                first: 0,
                next: globals.recent,
            };
            let capacity = reader.capacity(span, Points::Recent, beyond);
            capacity.map_or(Vec::new(), |capacity| {
                ring::copy(reader.words(), capacity, Points::Recent, span)
            })
        });
        decode_recent(&points)
    }

    /// One series at the newest commit, whatever the others are at; `None` when it was not
    /// committed yet.
    pub fn series(&mut self, id: SeriesId, history: bool) -> Option<Series> {
        self.read_growing(|reader, beyond| reader.newest_series(id, history, beyond))
    }

    fn newest_series(&mut self, id: SeriesId, history: bool, beyond: &Beyond) -> Option<Series> {
        let place = (id.0 & self.shape.place_mask()) as usize;
        let mut version = Vec::new();
        let newest = (self.epoch(), Some(AT_COMMITTED));
        let listed = self.read_listed(place, newest, &mut version, beyond);
        let (listed, Found::Version) = listed? else {
            return None;
        };
        if listed.header.id != id {
            return None;
        }
        if history {
            self.capacity(Plain::decode(&version)?.history, Points::History, beyond);
        }
        let family = self.family(&listed)?;
        self.note_window(&family, &version, beyond);
        let located = Located {
            labels: listed.header.labels,
            place,
            word: listed.word,
        };
        let mut room = self.words().len();
        self.decode(family, &located, &version, history, &mut room)
    }

    /// Reads the row of a place at an epoch, or the newest one, and what the directory says of it;
    /// `None` when there is none.
    fn read_listed(
        &self,
        place: usize,
        (epoch, newest): (u64, Option<usize>),
        out: &mut Vec<u64>,
        beyond: &Beyond,
    ) -> Option<(Listed, Found)> {
        let (words, start) = (self.words(), out.len());
        for _ in 0..CUTS {
            let word = words.get(self.shape.directory() + place)?;
            let row = beyond.row_at(words, self.shape, word)?;
            let header = BlockHeader::of(words, row)?;
            let found = row.read(words, epoch, newest, out);
            if self.is_listed(place, word) {
                let listed = Listed {
                    header,
                    place,
                    word,
                };
                return Some((listed, found));
            }
            // It was freed, or has more room elsewhere: its words may be another's by now.
            out.truncate(start);
        }
        None
    }

    /// Whether the directory says of a place what it said: what was read of its row is of that row.
    fn is_listed(&self, place: usize, word: u64) -> bool {
        // Acquire: pairs with the fences of who uses the words that a series had.
        self.words().acquire();
        self.words().get(self.shape.directory() + place) == Some(word)
    }

    /// Capacity of a ring that a row refers to.
    fn capacity(&self, span: Span, points: Points, beyond: &Beyond) -> Option<usize> {
        let capacity = ring::capacity(self.words(), self.shape, span.ring, points);
        if capacity.is_none() && span.ring >= self.shape.heap() {
            beyond.note(self.words(), span.ring, points.ring_words(0));
            let found = self.words().get(span.ring).unwrap_or(0);
            let len = usize::try_from(found).ok()?.checked_mul(points.words())?;
            beyond.note(self.words(), span.ring, len);
        }
        capacity
    }

    /// All series at one commit, sorted by name and labels.
    ///
    /// # Errors
    ///
    /// Nothing was committed yet.
    pub fn read(&mut self, options: &ReadOptions<'_>) -> Result<Snapshot, ReadError> {
        self.list(options).map(Listing::decoded)
    }

    /// Whether a series is still there, be it in another block: its definitions are its own then.
    fn is_there(&self, place: usize, word: u64) -> bool {
        // Acquire: as in `is_listed`.
        self.words().acquire();
        let now = self.words().get(self.shape.directory() + place);
        now.is_some_and(|now| is_same_series(now, word))
    }

    /// What the family of a series is known by.
    fn family_key(&self, listed: &Listed) -> Option<FamilyKey> {
        let header = listed.header;
        Some((header.family, self.words().get(header.labels)? >> 32))
    }

    /// The family of a series that is still there.
    fn family(&mut self, listed: &Listed) -> Option<Arc<Family>> {
        let mut known = take(&mut self.families);
        let family = self.family_among(listed, &mut known);
        self.families = known;
        family
    }

    /// The same, among those that are known; it is one of them then.
    fn family_among(
        &self,
        listed: &Listed,
        known: &mut HashMap<FamilyKey, Arc<Family>>,
    ) -> Option<Arc<Family>> {
        let key = self.family_key(listed)?;
        for _ in 0..CUTS {
            let (words, at) = (self.words(), self.family_at(listed)?);
            // Another help text may lie where an earlier one did.
            if let Some(family) = known.get(&key).filter(|family| family.is_at(words, at)) {
                return Some(family.clone());
            }
            let family = Family::decode(words, at).map(Arc::new);
            if !self.is_there(listed.place, listed.word) {
                return None;
            }
            // Else its help text was replaced, and what was read may be another's.
            if self.family_at(listed) == Some(at) {
                let family = family?;
                known.insert(key, family.clone());
                return Some(family);
            }
        }
        None
    }

    /// Where the definition of a series' family lies now.
    fn family_at(&self, listed: &Listed) -> Option<usize> {
        let word = self.words().get(self.shape.directory() + listed.place)?;
        let row = row_at(self.words(), self.shape, word)?;
        Some(BlockHeader::of(self.words(), row)?.family)
    }

    /// The newest version of a row that has nothing to agree with.
    fn newest(&self, row: Row) -> Option<Vec<u64>> {
        let mut out = Vec::new();
        let found = row.read(self.words(), self.epoch(), Some(AT_COMMITTED), &mut out);
        (found == Found::Version).then_some(out)
    }
}

/// Whether something that was read refers to what lies beyond the map.
#[derive(Debug, Default)]
struct Beyond(Cell<bool>);

impl Beyond {
    /// Notes a reference to so many words.
    fn note(&self, words: Words<'_>, start: usize, len: usize) {
        if start.saturating_add(len) > words.len() {
            self.0.set(true);
        }
    }

    /// The row of the series whose block lies there; notes what it refers to, or that it is not
    /// there.
    fn row_at(&self, words: Words<'_>, shape: Shape, word: u64) -> Option<Row> {
        let row = row_at(words, shape, word);
        match row.and_then(|row| BlockHeader::of(words, row)) {
            Some(header) => {
                self.note(words, header.family, 1);
                self.note(words, header.labels, 1);
                self.note(words, header.exemplars, 1);
                let len = words.get(header.exemplars).filter(|_| header.exemplars > 0);
                let len = usize::try_from(len.unwrap_or(0)).unwrap_or(0).min(LEN_MAX);
                self.note(words, header.exemplars, 1 + row_words(len));
            }
            None => {
                let start = block_of(word);
                let len = words.get(start.checked_add(BLOCK_HEADER - 1)?).unwrap_or(0);
                let row = row_words(usize::try_from(len).ok()?.min(LEN_MAX));
                self.note(words, start, BLOCK_HEADER + row);
            }
        }
        row
    }
}

/// What stands before the row of a series, and what the directory said of its place.
#[derive(Clone, Copy)]
struct Listed {
    header: BlockHeader,
    place: usize,
    word: u64,
}
