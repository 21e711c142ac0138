//! The private state of a series, and its row.
//!
//! A version of a series' row:
//!
//! | word | what                                                                |
//! |------|---------------------------------------------------------------------|
//! | 0    | records                                                             |
//! | 1, 2 | last and first timestamp                                            |
//! | 3    | sum (counter), value (gauge), last observation                      |
//! | 4, 5 | where the history's ring lies, and the index of its next point      |
//! | 6–9  | histogram and summary: count, sum, min, max                         |
//! | 10…  | histogram: counts by bucket, `+Inf` last                            |
//! | 10…  | summary: zeros, number of octaves, then key and 32 counts of each   |

use qbus::{Kind, MetricType, Record, SeriesId, Words, testpoint};

use crate::fold::observed::{Observed, times};
use crate::fold::ring::Ring;
use crate::snapshot::layout::POINT_WORDS;
use crate::snapshot::sane;
use crate::snapshot::versioned::Row;

pub(crate) const PLAIN_LEN: usize = 6;
pub(crate) const OBSERVED_LEN: usize = 10;

#[derive(Debug)]
pub(super) struct Series {
    pub(super) id: SeriesId,
    pub(super) row: Row,
    pub(super) metric_type: MetricType,
    pub(super) touched: bool,
    pub(super) definitions: [usize; 2],
    pub(super) history: Ring,
    records: u64,
    last_ns: u64,
    start_ns: u64,
    value: f64,
    /// Timestamp of the history's last point.
    point_ns: u64,
    observed: Option<Box<Observed>>,
}

impl Series {
    /// A series that nothing was emitted to. `bounds` are a histogram's.
    pub(super) fn new(
        id: SeriesId,
        metric_type: MetricType,
        bounds: Vec<f64>,
        definitions: [usize; 2],
        history: Ring,
    ) -> Series {
        let observed = match metric_type {
            MetricType::Counter | MetricType::Gauge => None,
            MetricType::Histogram => Some(Observed::in_buckets(bounds)),
            MetricType::Summary => Some(Observed::in_distribution()),
        };
        Series {
            id,
            row: Row { start: 0, len: 0 },
            metric_type,
            touched: false,
            definitions,
            history,
            records: 0,
            last_ns: 0,
            start_ns: 0,
            value: 0.0,
            point_ns: 0,
            observed: observed.map(Box::new),
        }
    }

    /// The series, new so far, as a version of its row has it; `None` when that makes no sense.
    pub(super) fn restore(mut self, words: Words<'_>, version: &[u64]) -> Option<Series> {
        let &[records, last_ns, start_ns, value, ..] = version.get(..PLAIN_LEN)? else {
            return None;
        };
        self.records = sane(records);
        self.last_ns = last_ns;
        self.start_ns = start_ns;
        self.value = f64::from_bits(value);
        self.point_ns = self
            .history
            .last(POINT_WORDS)
            .map_or(0, |at| words.load(at));
        if let Some(observed) = &mut self.observed {
            **observed = observed.restore(version)?;
        }
        // Else it could need a larger row when there is no room for one.
        (self.needed_len() <= self.row.len).then_some(self)
    }

    /// Whether a record of that time adds a point that the history could be longer for.
    #[inline(always)]
    pub(super) fn needs_room(&self, timestamp_ns: u64, longest: usize) -> bool {
        self.history.is_full() && self.history.capacity < longest && self.is_point(timestamp_ns)
    }

    /// Whether a record of that time has a point of its own. A counter has one for each timestamp, since
    /// its clock moves in steps: so many points reach back seconds, and not microseconds.
    #[inline(always)]
    fn is_point(&self, timestamp_ns: u64) -> bool {
        self.metric_type != MetricType::Counter
            || self.point_ns != timestamp_ns
            || self.history.next == 0
    }

    /// Folds a record into a counter; whether it takes it.
    #[inline(always)]
    pub(super) fn add_increment(&mut self, words: Words<'_>, record: &Record) -> bool {
        if !takes(MetricType::Counter, record) {
            return false;
        }
        if self.is_point(record.timestamp_ns) {
            // What the counter came to under the timestamp of its last point.
            self.finish_point(words);
            self.add_point(words, record.timestamp_ns, self.value);
        }
        self.note(record.timestamp_ns);
        if record.kind == Kind::Total {
            if record.value < self.value {
                // The source began anew: so does the counter.
                self.start_ns = record.timestamp_ns;
            }
            self.value = record.value;
        } else {
            self.value += times(record.value, record.count);
        }
        true
    }

    /// Folds a record into a gauge; whether it takes it.
    #[inline(always)]
    pub(super) fn add_level(&mut self, words: Words<'_>, record: &Record) -> bool {
        if !takes(MetricType::Gauge, record) {
            return false;
        }
        let is_newest = self.note(record.timestamp_ns);
        let mut point = record.value;
        if record.kind == Kind::Adjust {
            self.value += record.value;
            point = self.value;
        } else if is_newest {
            self.value = record.value;
        }
        self.add_point(words, record.timestamp_ns, point);
        true
    }

    /// Folds a record into a histogram or a summary; whether it takes it.
    #[inline(always)]
    pub(super) fn add_observation(&mut self, words: Words<'_>, record: &Record) -> bool {
        if !takes(MetricType::Histogram, record) {
            return false;
        }
        if self.note(record.timestamp_ns) {
            self.value = record.value;
        }
        if let Some(observed) = &mut self.observed {
            observed.add(record.value, record.count);
        }
        self.add_point(words, record.timestamp_ns, record.value);
        true
    }

    /// Counts a record; whether none before was later.
    #[inline(always)]
    fn note(&mut self, timestamp_ns: u64) -> bool {
        self.records += 1;
        if self.start_ns == 0 {
            self.start_ns = timestamp_ns;
        }
        let is_newest = timestamp_ns >= self.last_ns;
        if is_newest {
            self.last_ns = timestamp_ns;
        }
        is_newest
    }

    #[inline(always)]
    fn add_point(&mut self, words: Words<'_>, timestamp_ns: u64, value: f64) {
        if self.history.capacity == 0 {
            return;
        }
        let at = self.history.take(words, POINT_WORDS, 1);
        self.point_ns = timestamp_ns;
        words.store_all(at, &[timestamp_ns, value.to_bits()]);
        testpoint!("point-written");
    }

    /// Writes what a counter has come to since its last point was added: at the next one, and at a commit.
    #[inline]
    pub(super) fn finish_point(&self, words: Words<'_>) {
        if self.metric_type == MetricType::Counter
            && let Some(at) = self.history.last(POINT_WORDS)
        {
            words.store(at + 1, self.value.to_bits());
        }
    }

    /// How long a version must be to hold the state.
    pub(super) fn needed_len(&self) -> usize {
        match &self.observed {
            None => PLAIN_LEN,
            Some(observed) => OBSERVED_LEN + observed.body_len(),
        }
    }

    /// Makes do with the row that it has.
    #[cold]
    pub(super) fn shrink(&mut self) {
        if let Some(observed) = &mut self.observed {
            observed.shrink(self.row.len.saturating_sub(OBSERVED_LEN));
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u64>) {
        out.extend([
            self.records,
            self.last_ns,
            self.start_ns,
            self.value.to_bits(),
            self.history.start as u64,
            self.history.next,
        ]);
        if let Some(observed) = &self.observed {
            observed.encode(out);
        }
    }
}

/// Whether a record is one for a series of that type. By type, so that it comes down to a comparison or
/// two.
#[inline(always)]
fn takes(metric_type: MetricType, record: &Record) -> bool {
    record.kind.fits(metric_type) && record.kind.takes(record.value)
}
