//! Reading a snapshot: also while the aggregator writes it, after it is gone, or from a copy.

use std::collections::HashMap;
use std::fmt;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use qbus::{Access, Kind, MappedFile, MetricType, OpenError, SeriesDefinition, SeriesId, Words};

use super::layout::{
    AT_COMMITTED, AT_CREATED, AT_GLOBALS, AT_INSTANCE, AT_MAGIC, AT_NAME, AT_PID, AT_SHAPE,
    AT_STARTED, AT_VERSION, BLOCK_HEADER, GLOBALS_LEN, MAGIC, NAME_WORDS, OWNER_LEN, POINT_WORDS,
    RECENT_WORDS, RING_HEADER, Shape, VERSION,
};
use super::order::Order;
use super::versioned::{Found, Row, committed, row_words};
use super::writer::{row_at, series_row, take_room};
use super::{Globals, OwnerRow};
use crate::fold::{OBSERVED_LEN, PLAIN_LEN, decode_distribution};
use crate::series::{Family, HistogramValue, Point, Series, Snapshot, SummaryValue, Value};

/// The quantiles that a snapshot states of a summary.
pub const QUANTILES: [f64; 5] = [0.5, 0.9, 0.95, 0.99, 0.999];
/// How often a cut is tried before rows that were overtaken are taken as they are.
const CUTS: usize = 8;
/// So few series are decoded in less time than a thread takes to start.
const FEW: usize = 8192;
/// More threads wait for the same memory.
const THREADS_MAX: usize = 4;

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

/// One of the last records of all series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecentRecord {
    /// When it was emitted, in nanoseconds since the Unix epoch.
    pub timestamp_ns: u64,
    /// Its series.
    pub series: SeriesId,
    /// What it did to its series.
    pub kind: Kind,
    /// Its value.
    pub value: f64,
    /// How many equal observations it stood for.
    pub count: u64,
}

/// An open snapshot file, mapped read-only.
#[derive(Debug)]
pub struct Reader {
    file: MappedFile,
    shape: Shape,
    families: HashMap<usize, Arc<Family>>,
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
        let shape = Self::check(&file).map_err(ReadError::Open)?;
        Ok(Reader {
            file,
            shape,
            families: HashMap::new(),
            retries: 0,
        })
    }

    fn check(file: &MappedFile) -> Result<Shape, OpenError> {
        let (words, path) = (file.words(), file.path().to_owned());
        match words.get(AT_MAGIC) {
            Some(MAGIC) => {}
            Some(0) | None => return Err(OpenError::Unfinished { path }),
            Some(found) => {
                return Err(OpenError::NotOurs {
                    path,
                    expected: "a snapshot",
                    found,
                });
            }
        }
        words.acquire();
        let found = words.get(AT_VERSION).unwrap_or(0);
        if found != VERSION {
            return Err(OpenError::Version {
                path,
                found,
                expected: VERSION,
            });
        }
        let numbers = words
            .slice(AT_SHAPE, Shape::WORDS)
            .map(|numbers| std::array::from_fn(|i| numbers.load(i)));
        let size = |expected| OpenError::Size {
            path,
            found: words.len() as u64 * 8,
            expected,
        };
        match numbers.and_then(Shape::from_words) {
            Some(shape) if shape.heap() <= words.len() => Ok(shape),
            Some(shape) => Err(size(shape.heap() as u64 * 8)),
            None => Err(size(0)),
        }
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
        let row = Row {
            start: AT_GLOBALS,
            len: GLOBALS_LEN,
        };
        self.newest(row)
            .and_then(|words| Globals::from_words(&words))
            .unwrap_or_default()
    }

    /// The ledger: a row for each entry of the owner table, in its order.
    pub fn owners(&self) -> Vec<OwnerRow> {
        let row = |owner| Row {
            start: self.shape.owner_rows() + owner * row_words(OWNER_LEN),
            len: OWNER_LEN,
        };
        let read = |owner| {
            self.newest(row(owner))
                .and_then(|words| OwnerRow::from_words(&words))
                .unwrap_or_default()
        };
        (0..self.shape.owners).map(read).collect()
    }

    /// The committed position of each lane: all records below it are in the snapshot.
    pub fn heads(&self) -> Vec<u64> {
        let head = |lane| Row {
            start: self.shape.heads() + lane * row_words(1),
            len: 1,
        };
        (0..self.shape.lanes)
            .map(|lane| self.newest(head(lane)).map_or(0, |words| words[0]))
            .collect()
    }

    /// How many series it has.
    pub fn series_count(&self) -> usize {
        (0..self.shape.series_ids)
            .filter(|&id| series_row(self.words(), self.shape, id).is_some())
            .count()
    }

    /// Bytes of the file.
    pub fn size_bytes(&self) -> u64 {
        self.words().len() as u64 * 8
    }

    /// Maps the file anew if it has grown. [`read`](Self::read) does so by itself.
    pub fn refresh(&mut self) {
        // A map that cannot be renewed serves on: what lies beyond it is not seen.
        let _ = self.file.remap();
    }

    /// How often a cut of this reader was overtaken, and tried again.
    pub fn retries(&self) -> u64 {
        self.retries
    }

    /// The last records of all series, oldest first.
    pub fn recent(&self) -> Vec<RecentRecord> {
        let globals = self.globals();
        let Ok(ring) = usize::try_from(globals.recent_ring) else {
            return Vec::new();
        };
        let capacity = self.words().get(ring).unwrap_or(0).min(1 << 28) as usize;
        let points = self.ring(ring, capacity, globals.recent, RECENT_WORDS);
        points
            .chunks_exact(RECENT_WORDS)
            .filter_map(decode_recent)
            .collect()
    }

    /// One series at the newest commit, whatever the others are at; `None` when it was not committed yet.
    pub fn series(&mut self, id: SeriesId, history: bool) -> Option<Series> {
        self.refresh();
        let row = series_row(self.words(), self.shape, id.0 as usize)?;
        let version = self.newest(row)?;
        let family = self.family(row)?;
        self.decode(family, row, &version, history)
    }

    /// All series at one commit, sorted by name and labels.
    ///
    /// # Errors
    ///
    /// Nothing was committed yet.
    pub fn read(&mut self, options: &ReadOptions<'_>) -> Result<Snapshot, ReadError> {
        if self.epoch() == 0 {
            return Err(ReadError::Empty);
        }
        let mut cut = None;
        for attempt in 1..=CUTS {
            // A series that was made after the map may lie beyond it.
            self.refresh();
            cut = self.cut(attempt == CUTS);
            if cut.is_some() {
                break;
            }
            self.retries += 1;
        }
        // The last attempt takes every row.
        let cut = cut.unwrap_or_default();
        // Sorted before they are decoded: what is sorted then is small.
        let order = self.sorted(&cut, options);
        let series = self.decode_all(&cut, order, options.history);
        Ok(Snapshot {
            epoch: cut.epoch,
            unix_ns: cut.unix_ns,
            consistent: cut.consistent,
            series,
        })
    }

    /// Decodes rows of a cut, on several threads where they are many.
    fn decode_all(
        &self,
        cut: &Cut,
        order: Vec<(usize, Arc<Family>)>,
        history: bool,
    ) -> Vec<Series> {
        let decode = |part: &[(usize, Arc<Family>)]| {
            let mut room = self.words().len();
            let decode = |(place, family): &(usize, Arc<Family>)| {
                let (row, range) = &cut.rows[*place];
                let version = &cut.words[range.clone()];
                let decoded = self.decode(family.clone(), *row, version, history);
                decoded.filter(|series| take_room(&mut room, copied_words(series)))
            };
            let mut series = Vec::with_capacity(part.len());
            series.extend(part.iter().filter_map(decode));
            series
        };
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let threads = (order.len() / FEW).clamp(1, processors.min(THREADS_MAX));
        let mut parts = order.chunks(order.len().div_ceil(threads).max(1));
        let first = parts.next().unwrap_or_default();
        thread::scope(|scope| {
            let others: Vec<_> = parts
                .map(|part| scope.spawn(move || decode(part)))
                .collect();
            let mut series = decode(first);
            for other in others {
                // A thread that panicked would have panicked here.
                series.append(&mut other.join().unwrap_or_else(|panic| resume_unwind(panic)));
            }
            series
        })
    }

    /// Copies the version of each row that counts at one epoch; `None` when one was overtaken.
    fn cut(&self, take_newer: bool) -> Option<Cut> {
        let words = self.words();
        let mut cut = Cut {
            epoch: committed(words, AT_COMMITTED)?,
            consistent: true,
            ..Cut::default()
        };
        let newest = take_newer.then_some(AT_COMMITTED);
        let mut room = words.len();
        // In the order of the file, which a processor fetches ahead.
        let directory = self.shape.directory();
        let mut blocks: Vec<u64> = (0..self.shape.series_ids)
            .filter_map(|id| words.get(directory + id))
            .filter(|&block| block != 0)
            .collect();
        blocks.sort_unstable();
        let rows: Vec<Row> = blocks
            .into_iter()
            .filter_map(|block| row_at(words, self.shape, block))
            .filter(|row| take_room(&mut room, row.len))
            .collect();
        cut.rows.reserve(rows.len());
        cut.words.reserve(rows.iter().map(|row| row.len).sum());
        for row in rows {
            let start = cut.words.len();
            match row.read(words, cut.epoch, newest, &mut cut.words) {
                Found::Version => cut.rows.push((row, start..cut.words.len())),
                Found::Nothing => {}
                // A series made after this epoch looks overtaken too.
                Found::Overtaken if take_newer => {}
                Found::Overtaken => return None,
            }
        }
        let globals = Row {
            start: AT_GLOBALS,
            len: GLOBALS_LEN,
        };
        let mut version = Vec::new();
        let found = globals.read(words, cut.epoch, newest, &mut version);
        cut.unix_ns = (found == Found::Version).then(|| version[0])?;
        // With newer rows among them the cut may be of several epochs.
        cut.consistent = !take_newer;
        Some(cut)
    }

    /// The places of a cut's rows whose families are wanted, each with its family, in the order of names
    /// and labels.
    fn sorted(&mut self, cut: &Cut, options: &ReadOptions<'_>) -> Vec<(usize, Arc<Family>)> {
        let mut wanted = Vec::with_capacity(cut.rows.len());
        for (place, (row, _)) in cut.rows.iter().enumerate() {
            let Some(family) = self.family(*row) else {
                continue;
            };
            if options.matches.is_none_or(|matches| matches(&family.name)) {
                wanted.push((place, family));
            }
        }
        let words = self.words();
        let mut order = Order::default();
        // Definitions that are garbage may all lie in one place.
        let mut room = words.len();
        for (index, (place, family)) in wanted.iter().enumerate() {
            let at = definitions(words, cut.rows[*place].0).map(|[_, labels]| labels);
            order.push(index, &family.name, |key| {
                let start = key.len();
                let is_read = at.is_some_and(|at| SeriesDefinition::sort_key(words, at, key));
                if !is_read || !take_room(&mut room, (key.len() - start) / 8) {
                    key.truncate(start);
                }
            });
        }
        let sorted = order.sorted();
        sorted.map(|index| wanted[index].clone()).collect()
    }

    /// The family of a row.
    fn family(&mut self, row: Row) -> Option<Arc<Family>> {
        let [at, _] = definitions(self.words(), row)?;
        if let Some(family) = self.families.get(&at) {
            return Some(family.clone());
        }
        let family = Arc::new(Family::decode(self.words(), at)?);
        self.families.insert(at, family.clone());
        Some(family)
    }

    fn decode(
        &self,
        family: Arc<Family>,
        row: Row,
        version: &[u64],
        history: bool,
    ) -> Option<Series> {
        let words = self.words();
        let [_, labels] = definitions(words, row)?;
        let labels = SeriesDefinition::decode(words, labels)?.labels;
        let &[records, timestamp_ns, start_ns, value, ring, next] = version.get(..PLAIN_LEN)?
        else {
            return None;
        };
        let history = if history {
            self.history(ring, next)
        } else {
            Vec::new()
        };
        let value = decode_value(&family, f64::from_bits(value), version)?;
        Some(Series {
            family,
            labels,
            value,
            timestamp_ns,
            start_ns,
            records,
            history,
        })
    }

    fn history(&self, ring: u64, next: u64) -> Vec<Point> {
        let Ok(ring) = usize::try_from(ring) else {
            return Vec::new();
        };
        let capacity = self
            .words()
            .get(ring)
            .unwrap_or(0)
            .min(self.shape.history as u64) as usize;
        let points = self.ring(ring, capacity, next, POINT_WORDS);
        let decode = |point: &[u64]| Point {
            timestamp_ns: point[0],
            value: f64::from_bits(point[1]),
        };
        points.chunks_exact(POINT_WORDS).map(decode).collect()
    }

    /// Copies the points of a ring before `next` that are still those of the reader's epoch.
    fn ring(&self, ring: usize, capacity: usize, next: u64, each: usize) -> Vec<u64> {
        let words = self.words();
        if capacity == 0 || words.slice(ring, RING_HEADER + capacity * each).is_none() {
            return Vec::new();
        }
        let first = next.saturating_sub(capacity as u64);
        let place = |index: u64| ring + RING_HEADER + (index % capacity as u64) as usize * each;
        let mut copied: Vec<u64> = (first..next)
            .flat_map(|index| (0..each).map(move |word| (index, word)))
            .map(|(index, word)| words.load(place(index) + word))
            .collect();
        // Acquire: pairs with the fence between a claim and its point: if any copied word is newer, the
        // claim that this loads says so.
        words.acquire();
        let overwritten = words.load(ring + 1).saturating_sub(capacity as u64);
        let stale = overwritten.saturating_sub(first).min(next - first) as usize;
        copied.drain(..stale * each);
        copied
    }

    /// The newest version of a row that has nothing to agree with.
    fn newest(&self, row: Row) -> Option<Vec<u64>> {
        let mut out = Vec::new();
        let found = row.read(self.words(), self.epoch(), Some(AT_COMMITTED), &mut out);
        (found == Found::Version).then_some(out)
    }
}

/// Versions of rows at one epoch.
#[derive(Default)]
struct Cut {
    epoch: u64,
    unix_ns: u64,
    consistent: bool,
    /// A row, and where its version lies in `words`.
    rows: Vec<(Row, std::ops::Range<usize>)>,
    words: Vec<u64>,
}

/// Where the definitions of a row's family and labels lie, as the snapshot says.
fn definitions(words: Words<'_>, row: Row) -> Option<[usize; 2]> {
    let block = row.start - BLOCK_HEADER;
    let at = |word| usize::try_from(words.get(block + word)?).ok();
    Some([at(1)?, at(2)?])
}

/// Words of the file that a series was copied from, beside its row.
fn copied_words(series: &Series) -> usize {
    let texts = series
        .labels
        .iter()
        .map(|(name, value)| (name.len() + value.len()) / 8);
    series.history.len() * POINT_WORDS + texts.sum::<usize>()
}

fn decode_value(family: &Family, value: f64, version: &[u64]) -> Option<Value> {
    match family.metric_type {
        MetricType::Counter => return Some(Value::Counter(value)),
        MetricType::Gauge => return Some(Value::Gauge(value)),
        MetricType::Histogram | MetricType::Summary => {}
    }
    let &[count, sum, min, max] = version.get(PLAIN_LEN..OBSERVED_LEN)? else {
        return None;
    };
    let [sum, min, max] = [sum, min, max].map(f64::from_bits);
    let rest = version.get(OBSERVED_LEN..)?;
    if family.metric_type == MetricType::Histogram {
        let counts = rest.get(..=family.buckets.len())?;
        let sums = counts.iter().scan(0_u64, |sum, count| {
            *sum = sum.wrapping_add(*count);
            Some(*sum)
        });
        let cumulative = sums.collect();
        return Some(Value::Histogram(HistogramValue {
            last: value,
            count,
            sum,
            min,
            max,
            cumulative,
        }));
    }
    let distribution = decode_distribution(rest)?;
    let values = distribution.quantiles(&QUANTILES, min, max);
    let quantiles = QUANTILES.into_iter().zip(values).collect();
    Some(Value::Summary(SummaryValue {
        last: value,
        count,
        sum,
        min,
        max,
        quantiles,
        distribution,
    }))
}

fn decode_recent(point: &[u64]) -> Option<RecentRecord> {
    let &[timestamp_ns, series_and_kind, value, count] = point else {
        return None;
    };
    let kind = Kind::from_raw(u16::try_from(series_and_kind & 0xffff_ffff).ok()?)?;
    let series = SeriesId((series_and_kind >> 32) as u32);
    Some(RecentRecord {
        timestamp_ns,
        series,
        kind,
        value: f64::from_bits(value),
        count,
    })
}
