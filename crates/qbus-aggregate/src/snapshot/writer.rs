//! The aggregator's side of the snapshot: reads what a predecessor committed, gives room away,
//! writes rows, commits.

use std::io;
use std::path::Path;

use qbus::{Bus, CreateError, FamilyDefinition, MappedFile, SeriesDefinition, Words, testpoint};

use super::exemplars;
use super::file::{self, MovedAside, Opened, SnapshotError};
use super::heap::Heap;
use super::layout::{
    AT_COMMITTED, AT_EXEMPLARS, AT_FAMILY, AT_GLOBALS, AT_PID, AT_STARTED, BLOCK_HEADER,
    BLOCK_WORDS, CELL_GROUPS, GLOBALS_LEN, OWNER_LEN, PLAIN_LEN, Shape,
};
use super::ring::{self, Points, Ring};
use super::row::{BlockHeader, Plain, directory_word, series_row, window_span};
use super::tally::{Globals, OwnerRow};
use super::versioned::{Found, Row, commit, committed, row_words};
use super::window;

/// A snapshot file, open for the one process that writes it.
#[derive(Debug)]
pub(crate) struct Writer {
    heap: Heap,
    shape: Shape,
    /// The epoch that counts.
    epoch: u64,
    /// Blocks of counters and gauges that no series has, the first one last.
    free_blocks: Vec<usize>,
    /// Histories, blocks and windows that were moved: their words are free with the next commit.
    left: Vec<Left>,
    scratch: Vec<u64>,
    moved_aside: Option<MovedAside>,
}

impl Writer {
    /// Opens the snapshot of a bus, or makes it with room for so many recent records. Whether there
    /// was one to go on with.
    pub(crate) fn open(
        path: &Path,
        bus: &Bus,
        recent: usize,
        history: usize,
    ) -> Result<(Writer, bool), SnapshotError> {
        let (shape, extra) = (shape_of(bus), Points::Recent.ring_words(recent));
        let Opened {
            file,
            is_resumed,
            moved_aside,
        } = file::open(path, bus, shape, extra)?;
        let mut writer = Self::of(file, shape, recent, history);
        writer.moved_aside = moved_aside;
        Ok((writer, is_resumed))
    }

    /// Makes the empty snapshot of a bus under a name that nothing has.
    pub(crate) fn create(
        path: &Path,
        bus: &Bus,
        recent: usize,
        history: usize,
    ) -> Result<Writer, CreateError> {
        let (shape, extra) = (shape_of(bus), Points::Recent.ring_words(recent));
        let file = file::create(path, bus, shape, extra)?;
        Ok(Self::of(file, shape, recent, history))
    }

    fn of(file: MappedFile, shape: Shape, recent: usize, history: usize) -> Writer {
        let epoch = committed(file.words(), AT_COMMITTED).unwrap_or(0);
        let mut writer = Writer {
            heap: Heap::new(file, shape, history, recent),
            shape,
            epoch,
            free_blocks: Vec::new(),
            left: Vec::new(),
            scratch: Vec::new(),
            moved_aside: None,
        };
        let rows = writer.series_rows();
        // First of all: a later epoch would make valid what a predecessor had only begun.
        for row in writer.fixed_rows().chain(rows.iter().copied()) {
            row.erase(writer.words(), epoch);
        }
        for row in rows
            .iter()
            .filter_map(|row| exemplars::row_of(writer.words(), shape, *row))
        {
            row.erase(writer.words(), epoch);
        }
        let mut is_free = vec![true; shape.series];
        for row in rows {
            let offset = row.start.saturating_sub(BLOCK_HEADER + shape.blocks());
            if let Some(is_free) = is_free.get_mut(offset / BLOCK_WORDS) {
                *is_free = false;
            }
        }
        let place = |index| shape.blocks() + index * BLOCK_WORDS;
        writer.free_blocks = (0..shape.series)
            .rev()
            .filter(|&index| is_free[index])
            .map(place)
            .collect();
        writer.reclaim(recent);
        writer
    }

    /// Puts the file in the place of another snapshot.
    pub(crate) fn rename(&mut self, to: &Path) -> io::Result<()> {
        self.heap.rename(to)
    }

    fn fixed_rows(&self) -> impl Iterator<Item = Row> {
        let shape = self.shape;
        let heads = (0..shape.lanes).map(move |lane| head_row(shape, lane));
        let owners = (0..shape.owners).map(move |owner| owner_row(shape, owner));
        let groups =
            (0..shape.lanes).flat_map(|lane| (0..CELL_GROUPS).map(move |group| (lane, group)));
        let cells = groups.map(move |(lane, group)| cells_row(shape, lane, group));
        std::iter::once(GLOBALS_ROW)
            .chain(heads)
            .chain(owners)
            .chain(cells)
    }

    fn series_rows(&self) -> Vec<Row> {
        (0..self.shape.series_places)
            .filter_map(|place| series_row(self.words(), self.shape, place))
            .collect()
    }

    /// Finds out which words are in use: all others are free. A predecessor may have died before it
    /// used what it took, or gave back what it used no more.
    fn reclaim(&mut self, recent: usize) {
        let (words, shape) = (self.words(), self.shape);
        let mut used = Vec::new();
        let mut histories = 0;
        for row in self.series_rows() {
            let Some(header) = BlockHeader::of(words, row) else {
                continue;
            };
            used.push((row.start - BLOCK_HEADER, BLOCK_HEADER + row_words(row.len)));
            used.push((header.family, family_len(words, header.family)));
            used.push((header.labels, series_len(words, header.labels)));
            if let Some(exemplars) = exemplars::row_of(words, shape, row) {
                used.push((exemplars.start - 1, 1 + row_words(exemplars.len)));
            }
            let version = self.read(row).unwrap_or_default();
            let family = FamilyDefinition::decode(words, header.family);
            if let Some(family) = family {
                let block = window_span(family.metric_type, &version).block;
                let len = window::block_len(words, shape, block);
                used.extend(len.map(|len| (block, len)));
            }
            let plain = Plain::decode(&version);
            if let Some(span) = plain.map(|plain| plain.history)
                && let Some(capacity) = ring::capacity(words, shape, span.ring, Points::History)
            {
                let len = Points::History.ring_words(capacity);
                used.push((span.ring, len));
                histories += len;
            }
        }
        let start = usize::try_from(self.read_globals().recent_ring).unwrap_or(0);
        let capacity = ring::capacity(words, shape, start, Points::Recent).unwrap_or(recent);
        used.push((start, Points::Recent.ring_words(capacity)));
        self.heap.reclaim(&used, histories);
    }

    pub(crate) fn words(&self) -> Words<'_> {
        self.heap.words()
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    pub(crate) fn path(&self) -> &Path {
        self.heap.path()
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What lay where the file is now.
    pub(crate) fn moved_aside(&self) -> Option<&MovedAside> {
        self.moved_aside.as_ref()
    }

    /// Says who writes, for people.
    pub(crate) fn sign(&self, pid: u32, started_ns: u64) {
        self.words().store(AT_STARTED, started_ns);
        self.words().store(AT_PID, u64::from(pid));
        testpoint!("snapshot-signed");
    }

    /// What counts of a row, or nothing.
    fn read(&self, row: Row) -> Option<Vec<u64>> {
        let mut out = Vec::new();
        (row.read(self.words(), self.epoch, None, &mut out) == Found::Version).then_some(out)
    }

    pub(crate) fn read_globals(&self) -> Globals {
        self.read(GLOBALS_ROW)
            .and_then(|words| Globals::from_words(&words))
            .unwrap_or_default()
    }

    pub(crate) fn read_head(&self, lane: usize) -> Option<u64> {
        Some(self.read(head_row(self.shape, lane))?[0])
    }

    /// A group of cells as it was committed: for `Consumer::resume_cells`.
    pub(crate) fn read_cells(&self, lane: usize, group: usize) -> Option<Vec<u64>> {
        self.read(cells_row(self.shape, lane, group))
    }

    pub(crate) fn read_owner(&self, owner: usize) -> OwnerRow {
        self.read(owner_row(self.shape, owner))
            .and_then(|words| OwnerRow::from_words(&words))
            .unwrap_or_default()
    }

    /// The row of a series and what counts of it; `None` when there is no such block, or garbage.
    pub(crate) fn read_series(&self, place: usize) -> Option<(Row, Option<Vec<u64>>)> {
        let row = series_row(self.words(), self.shape, place)?;
        Some((row, self.read(row)))
    }

    /// Takes the series at a place out of the directory, and frees its words.
    pub(crate) fn free_series(&mut self, place: usize, history: Ring, window: usize) {
        let (words, shape) = (self.words(), self.shape);
        let row = series_row(words, shape, place);
        // Release: who finds something else in its words finds that the directory changed.
        words.publish(shape.directory() + place, 0);
        testpoint!("unlisted");
        let Some((row, header)) = row.and_then(|row| Some((row, BlockHeader::of(words, row)?)))
        else {
            return;
        };
        let exemplars = exemplars::row_of(words, shape, row);
        let definition = series_len(words, header.labels);
        self.give_block_back(row);
        if let Some(exemplars) = exemplars {
            let len = 1 + row_words(exemplars.len);
            self.heap.give_back(exemplars.start - 1, len);
        }
        if definition > 0 {
            self.heap.give_back(header.labels, definition);
        }
        if history.capacity > 0 {
            let len = Points::History.ring_words(history.capacity);
            self.heap.give_history_back(history.start, len);
        }
        if let Some(len) = window::block_len(self.words(), shape, window) {
            self.heap.give_back(window, len);
        }
    }

    /// Gives a series' definition back that no row refers to.
    pub(crate) fn free_definition(&mut self, at: usize) {
        let len = series_len(self.words(), at);
        if len > 0 {
            self.heap.give_back(at, len);
        }
    }

    /// Gives a family's definition back, which no series refers to any more.
    pub(crate) fn free_family(&mut self, at: usize) {
        let len = family_len(self.words(), at);
        if len > 0 {
            self.heap.give_back(at, len);
        }
    }

    /// Has a series' row lead to another definition of its family.
    pub(crate) fn set_family(&self, row: Row, at: usize) {
        // Release: who follows the header finds the definition whole.
        self.words()
            .publish(row.start - BLOCK_HEADER + AT_FAMILY, at as u64);
    }

    fn give_block_back(&mut self, row: Row) {
        let (block, shape) = (row.start - BLOCK_HEADER, self.shape);
        if block < shape.definitions() {
            self.free_blocks.push(block);
        } else {
            let len = BLOCK_HEADER + row_words(row.len);
            self.heap.give_back(block, len);
        }
    }

    /// The row with the exemplars of a series, and what counts of it.
    pub(crate) fn read_exemplars(&self, of: Row) -> Option<(Row, Vec<u64>)> {
        let row = exemplars::row_of(self.words(), self.shape, of)?;
        let version = self.read(row).unwrap_or_else(|| vec![0; row.len]);
        Some((row, version))
    }

    pub(crate) fn write_globals(&mut self, epoch: u64, globals: Globals) {
        GLOBALS_ROW.write(self.words(), epoch, &globals.to_words());
        testpoint!("globals-row");
    }

    pub(crate) fn write_head(&mut self, epoch: u64, lane: usize, position: u64) {
        head_row(self.shape, lane).write(self.words(), epoch, &[position]);
        testpoint!("head-row");
    }

    /// Writes up to which values the cells of a group were folded.
    pub(crate) fn write_cells(
        &mut self,
        epoch: u64,
        lane: usize,
        group: usize,
        version: impl Iterator<Item = u64>,
    ) {
        let row = cells_row(self.shape, lane, group);
        self.write_row(epoch, row, |out| out.extend(version));
        testpoint!("cells-row");
    }

    pub(crate) fn write_owner(&mut self, epoch: u64, owner: usize, row: OwnerRow) {
        owner_row(self.shape, owner).write(self.words(), epoch, &row.to_words());
        testpoint!("owner-row");
    }

    /// Writes a series' version as `encode` lays it out.
    pub(crate) fn write_series(
        &mut self,
        epoch: u64,
        row: Row,
        encode: impl FnOnce(&mut Vec<u64>),
    ) {
        self.write_row(epoch, row, encode);
        testpoint!("series-row");
    }

    /// Writes the exemplars of a series.
    pub(crate) fn write_exemplars(&mut self, epoch: u64, row: Row, version: &[u64]) {
        row.write(self.words(), epoch, version);
    }

    fn write_row(&mut self, epoch: u64, row: Row, encode: impl FnOnce(&mut Vec<u64>)) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        encode(&mut scratch);
        row.write(self.words(), epoch, &scratch);
        self.scratch = scratch;
    }

    /// Makes an epoch count.
    pub(crate) fn commit(&mut self, epoch: u64) {
        commit(self.words(), AT_COMMITTED, epoch);
        self.epoch = epoch;
        for left in std::mem::take(&mut self.left) {
            match left {
                Left::Block(row) => self.give_block_back(row),
                Left::History(start, len) => self.heap.give_history_back(start, len),
                Left::Window(start, len) => self.heap.give_back(start, len),
            }
        }
    }

    /// Takes over what the file has grown by; whether it has.
    pub(crate) fn take_room(&mut self) -> bool {
        self.heap.take_room()
    }

    /// Why the file could not grow, once.
    pub(crate) fn take_failure(&mut self) -> Option<CreateError> {
        self.heap.take_failure()
    }

    /// Copies a definition to the snapshot; where it lies.
    pub(crate) fn define(&mut self, content: &[u64]) -> Option<usize> {
        let start = self.heap.define(content.len())?;
        self.words().store_all(start, content);
        testpoint!("appended");
        Some(start)
    }

    /// A new ring for a history, without points. Histories are what fails first.
    pub(crate) fn new_history(&mut self, capacity: usize) -> Option<Ring> {
        let points = Points::History;
        let start = self.heap.allocate_history(points.ring_words(capacity))?;
        testpoint!("ring-made");
        Some(Ring::without(points, 0).copy_to(self.words(), start, capacity))
    }

    /// Moves a history to a ring of another capacity, if there is room for it.
    pub(crate) fn move_history(&mut self, ring: Ring, capacity: usize) -> Option<Ring> {
        let len = Points::History.ring_words(capacity);
        let start = self.heap.allocate_history(len)?;
        testpoint!("ring-made");
        if ring.capacity > 0 {
            // What counts until the next commit lies there still.
            let len = Points::History.ring_words(ring.capacity);
            self.left.push(Left::History(ring.start, len));
        }
        Some(ring.copy_to(self.words(), start, capacity))
    }

    /// Writes what came before the present step of a window, in place of what lies at `before`, if
    /// there is room for it.
    pub(crate) fn move_window(&mut self, before: usize, content: &[u64]) -> Option<usize> {
        let start = self.heap.allocate(content.len())?;
        self.words().store_all(start, content);
        testpoint!("window-written");
        if let Some(len) = window::block_len(self.words(), self.shape, before) {
            // What counts until the next commit lies there still.
            self.left.push(Left::Window(before, len));
        }
        Some(start)
    }

    /// The words of the window that lies there, or none.
    pub(crate) fn read_window(&self, block: usize) -> Vec<u64> {
        window::copy(self.words(), self.shape, block)
    }

    /// Moves the recent records to a ring of another capacity.
    ///
    /// # Errors
    ///
    /// The file cannot grow by so much.
    pub(crate) fn move_recent(&mut self, ring: Ring, capacity: usize) -> Result<Ring, CreateError> {
        let start = self
            .heap
            .allocate_now(Points::Recent.ring_words(capacity))?;
        testpoint!("ring-made");
        Ok(ring.copy_to(self.words(), start, capacity))
    }

    /// Makes a block for a series, or a larger one in place of the one that it has. `current` is
    /// written to it as of the epoch that counts, so that a reader sees the same in either.
    pub(crate) fn place(
        &mut self,
        place: usize,
        header: BlockHeader,
        current: Option<&[u64]>,
    ) -> Option<Row> {
        let len = header.len;
        let reserved = (len <= PLAIN_LEN).then(|| self.free_blocks.pop()).flatten();
        let block = match reserved {
            Some(block) => block,
            None => self.heap.allocate(BLOCK_HEADER + row_words(len))?,
        };
        let words = self.words();
        let before = series_row(words, self.shape, place);
        // Release: as in `Heap::take_back`.
        words.release();
        words.store_all(block, &header.to_words());
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
        let word = directory_word(block, header.id);
        words.publish(self.shape.directory() + place, word);
        testpoint!("placed");
        if let Some(before) = before {
            self.left.push(Left::Block(before));
        }
        Some(row)
    }

    /// Makes a row for the exemplars of a series, whose versions have so many words.
    pub(crate) fn place_exemplars(&mut self, of: Row, len: usize) -> Option<Row> {
        let at = self.heap.allocate(1 + row_words(len))?;
        let words = self.words();
        words.store(at, len as u64);
        for index in 0..row_words(len) {
            words.store(at + 1 + index, 0);
        }
        testpoint!("block-filled");
        // Release: who follows the header finds the row whole.
        words.publish(of.start - BLOCK_HEADER + AT_EXEMPLARS, at as u64);
        testpoint!("placed");
        Some(Row { start: at + 1, len })
    }
}

fn shape_of(bus: &Bus) -> Shape {
    let geometry = bus.geometry();
    Shape {
        lanes: geometry.lanes as usize,
        owners: geometry.owners as usize,
        series_places: geometry.series_places(),
        series: geometry.series as usize,
        arena_words: geometry.arena_words as usize,
        cells: geometry.cells as usize,
    }
}

/// What a series had before it was moved.
#[derive(Debug)]
enum Left {
    Block(Row),
    History(usize, usize),
    Window(usize, usize),
}

/// Words of a definition; 0 where none lies.
fn series_len(words: Words<'_>, at: usize) -> usize {
    let definition = SeriesDefinition::decode(words, at);
    definition.map_or(0, |definition| definition.encode().len())
}

/// The same of a family's.
fn family_len(words: Words<'_>, at: usize) -> usize {
    let definition = FamilyDefinition::decode(words, at);
    definition.map_or(0, |definition| definition.encode().len())
}

pub(super) const GLOBALS_ROW: Row = Row {
    start: AT_GLOBALS,
    len: GLOBALS_LEN,
};

pub(super) fn head_row(shape: Shape, lane: usize) -> Row {
    Row {
        start: shape.heads() + lane * row_words(1),
        len: 1,
    }
}

fn cells_row(shape: Shape, lane: usize, group: usize) -> Row {
    let len = shape.cells_len();
    Row {
        start: shape.cell_rows() + (lane * CELL_GROUPS + group) * row_words(len),
        len,
    }
}

pub(super) fn owner_row(shape: Shape, owner: usize) -> Row {
    Row {
        start: shape.owner_rows() + owner * row_words(OWNER_LEN),
        len: OWNER_LEN,
    }
}
