//! All series at one commit, in order, and not decoded yet.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::mem::take;
use std::panic::resume_unwind;
use std::slice;
use std::thread;

use qbus::{MetricType, SeriesDefinition};

use super::cut::{Cut, CutRow, Kept};
use super::decode::Located;
use super::{ReadError, ReadOptions, Reader};
use crate::export::Format;
use crate::series::{Family, Series, Snapshot};
use crate::snapshot::merged::{is_merged, merged};
use crate::snapshot::order::sort_by_keys;
use crate::snapshot::ring::Points;
use crate::snapshot::row::{Plain, take_room};

/// So few series are decoded in less time than a thread takes to start.
const FEW: usize = 8192;
/// More threads wait for the same memory.
const THREADS_MAX: usize = 4;
/// How often a page may go over its series: it may look ahead within a family.
const PASSES: usize = 4;

/// All series at one commit, sorted by name and labels, as [`Reader::list`] finds them: a tenth of
/// what a [`Snapshot`] takes, or less. [`export`](crate::export::export()) decodes one after the
/// other.
pub struct Listing<'a> {
    reader: &'a Reader,
    cut: Cut,
    /// What the snapshot does not have.
    added: Option<Series>,
    labels: Vec<(String, String)>,
    /// Words of the file that may still be decoded: as in [`take_room`].
    room: Cell<usize>,
}

impl fmt::Debug for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing")
            .field("epoch", &self.cut.epoch)
            .field("rows", &self.cut.rows.len())
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// All series at one commit, sorted by name and labels, each to be decoded when its turn comes.
    ///
    /// # Errors
    ///
    /// Nothing was committed yet.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use qbus_aggregate::export::{Format, Options, export};
    /// use qbus_aggregate::{ReadOptions, Reader};
    ///
    /// let mut reader = Reader::open("/dev/shm/qbus-1000-jobs.snapshot".as_ref())?;
    /// let listing = reader.list(&ReadOptions::default())?;
    /// let mut page = Vec::new();
    /// export(&listing, Format::OpenMetrics, &Options::default(), &mut page)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn list(&mut self, options: &ReadOptions<'_>) -> Result<Listing<'_>, ReadError> {
        self.list_with(options, None)
    }

    /// The same for a page of one format, without timestamps: a listing takes half as much where it
    /// need not keep what the page does not say. What it does not keep is 0, and times are that of
    /// the commit.
    ///
    /// # Errors
    ///
    /// Nothing was committed yet.
    pub fn list_for(
        &mut self,
        format: Format,
        options: &ReadOptions<'_>,
    ) -> Result<Listing<'_>, ReadError> {
        self.list_with(options, Some(format))
    }

    fn list_with(
        &mut self,
        options: &ReadOptions<'_>,
        format: Option<Format>,
    ) -> Result<Listing<'_>, ReadError> {
        if self.epoch() == 0 {
            return Err(ReadError::Empty);
        }
        let kept = Kept::of(options, format);
        let mut cut = self.read_growing(|reader, beyond| {
            let mut cut = reader.whole_cut(options, kept, beyond);
            let mut version = Vec::new();
            let is_summary = |row: &&CutRow| cut.family(row).metric_type == MetricType::Summary;
            for row in cut.rows.iter().filter(is_summary) {
                reader.note_window(cut.family(row), cut.version(row, &mut version), beyond);
            }
            if options.history {
                let mut room = Vec::new();
                for row in &cut.rows {
                    if let Some(plain) = Plain::decode(cut.version(row, &mut room)) {
                        reader.capacity(plain.history, Points::History, beyond);
                    }
                }
            }
            // Where the file grows faster than it can be mapped.
            cut.consistent &= !beyond.0.get();
            cut
        });
        // Sorted before they are decoded: what is sorted then is small.
        self.sort(&mut cut);
        let room = self.words().len().saturating_mul(PASSES);
        Ok(Listing {
            reader: self,
            cut,
            added: None,
            labels: Vec::new(),
            room: Cell::new(room),
        })
    }

    /// Sorts the rows of a cut by name and labels. One name after the other, where they lie: what
    /// is kept beside them is of one name at a time.
    fn sort(&self, cut: &mut Cut) {
        let words = self.words();
        let names = cut.families.iter().map(|family| &*family.name);
        let mut sorted: Vec<&str> = names.clone().collect();
        sorted.sort_unstable();
        let rank = |name| sorted.partition_point(|earlier| *earlier < name) as u32;
        let ranks: Vec<u32> = names.map(rank).collect();
        let mut rows = take(&mut cut.rows);
        let rank = |row: &CutRow| ranks[cut.family_number(row)];
        rows.sort_unstable_by_key(rank);
        // Definitions that are garbage may all lie in one place; sound ones are read a few times.
        let mut room = words.len().saturating_mul(PASSES);
        for rows in rows.chunk_by_mut(|a, b| rank(a) == rank(b)) {
            sort_by_keys(rows, |row, key| {
                let is_read = SeriesDefinition::sort_key(words, row.labels(), key);
                if !is_read || !take_room(&mut room, key.len() / 8) {
                    key.clear();
                }
            });
        }
        cut.rows = rows;
    }

    /// Decodes a row of a cut; the vector is for its version.
    fn row(
        &self,
        cut: &Cut,
        row: &CutRow,
        version: &mut Vec<u64>,
        room: &mut usize,
    ) -> Option<Series> {
        let family = cut.family(row).clone();
        let located = Located {
            labels: row.labels(),
            place: row.place as usize,
            word: row.word(),
        };
        let version = cut.version(row, version);
        self.decode(family, &located, version, cut.kept.history, room)
    }
}

impl Listing<'_> {
    /// Counts the commits of the aggregator, as [`Snapshot::epoch`].
    pub fn epoch(&self) -> u64 {
        self.cut.epoch
    }

    /// When the commit was made, in nanoseconds since the Unix epoch.
    pub fn unix_ns(&self) -> u64 {
        self.cut.unix_ns
    }

    /// As [`Snapshot::consistent`].
    pub fn is_consistent(&self) -> bool {
        self.cut.consistent
    }

    /// Adds a series that the snapshot does not have. One is added at most: the last.
    pub fn add(&mut self, mut series: Series) {
        series.add_labels(&self.labels);
        self.added = Some(series);
    }

    /// As [`Snapshot::add_labels`].
    pub fn add_labels(&mut self, labels: &[(String, String)]) {
        self.labels.extend_from_slice(labels);
        if let Some(series) = &mut self.added {
            series.add_labels(labels);
        }
    }

    /// All of them, in order, each decoded when its turn comes.
    pub fn series(&self) -> impl Iterator<Item = Cow<'_, Series>> {
        self.names().into_iter().flat_map(|named| named.iter())
    }

    /// The families, by name.
    pub(crate) fn names(&self) -> Vec<Named<'_>> {
        let name = |row: &CutRow| &*self.cut.family(row).name;
        let rows = self.cut.rows.chunk_by(|a, b| name(a) == name(b));
        let mut names: Vec<Named<'_>> = rows
            .map(|rows| Named::Rows {
                listing: self,
                rows,
            })
            .collect();
        if let Some(added) = &self.added {
            let place = names.partition_point(|named| named.family().name < added.family.name);
            let is_there = names.get(place);
            if is_there.is_none_or(|named| named.family().name != added.family.name) {
                names.insert(place, Named::Decoded(slice::from_ref(added)));
            }
        }
        names
    }

    /// All of it at once, decoded on several threads where it is much.
    pub(super) fn decoded(self) -> Snapshot {
        let (reader, cut) = (self.reader, &self.cut);
        let decode = |rows: &[CutRow]| {
            let (mut version, mut room) = (Vec::new(), reader.words().len());
            let mut series = Vec::with_capacity(rows.len());
            let decode = |row| reader.row(cut, row, &mut version, &mut room);
            series.extend(rows.iter().filter_map(decode));
            series
        };
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let threads = (cut.rows.len() / FEW).clamp(1, processors.min(THREADS_MAX));
        let mut parts = cut.rows.chunks(cut.rows.len().div_ceil(threads).max(1));
        let first = parts.next().unwrap_or_default();
        let series = thread::scope(|scope| {
            let others: Vec<_> = parts
                .map(|part| scope.spawn(move || decode(part)))
                .collect();
            let mut series = decode(first);
            for other in others {
                // A thread that panicked would have panicked here.
                series.append(&mut other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            }
            series
        });
        let mut snapshot = Snapshot {
            epoch: cut.epoch,
            unix_ns: cut.unix_ns,
            consistent: cut.consistent,
            series: merged(series),
        };
        snapshot.add_labels(&self.labels);
        snapshot
    }
}

/// The series of one name, in order: at least one, though a listed one may turn out to be gone.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Named<'a> {
    Decoded(&'a [Series]),
    Rows {
        listing: &'a Listing<'a>,
        rows: &'a [CutRow],
    },
}

impl<'a> Named<'a> {
    /// The family of the first one.
    pub(crate) fn family(&self) -> &'a Family {
        match self {
            Named::Decoded(series) => &series[0].family,
            Named::Rows { listing, rows } => listing.cut.family(&rows[0]),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Named::Decoded(series) => series.len(),
            Named::Rows { rows, .. } => rows.len(),
        }
    }

    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = Cow<'a, Series>> + 'a> {
        match *self {
            Named::Decoded(series) => Box::new(series.iter().map(Cow::Borrowed)),
            Named::Rows { listing, rows } => {
                let mut version = Vec::new();
                let series = rows.iter().filter_map(move |row| {
                    let mut room = listing.room.get();
                    let series = listing
                        .reader
                        .row(&listing.cut, row, &mut version, &mut room);
                    listing.room.set(room);
                    series
                });
                let labelled = |mut series: Series| {
                    series.add_labels(&listing.labels);
                    Cow::Owned(series)
                };
                if is_merged(self.family()) {
                    return Box::new(merged(series.collect()).into_iter().map(labelled));
                }
                Box::new(series.map(labelled))
            }
        }
    }
}
