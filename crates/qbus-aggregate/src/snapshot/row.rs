//! What the rows of series say: encoded and decoded here, for the fold that writes them and goes on
//! with them, and for readers.
//!
//! A version of a series' row:
//!
//! | word  | what                                                                |
//! |-------|---------------------------------------------------------------------|
//! | 0     | records                                                             |
//! | 1, 2  | last and first timestamp                                            |
//! | 3, 4  | sum of a counter (two doubles); else a gauge's value, or the last   |
//! |       | observation, and 0                                                  |
//! | 5     | where the history's ring lies                                       |
//! | 6, 7  | index of its first point that counts, and of its next point         |
//! | 8     | since when it is off the page; 0 = it is on it                      |
//! | 9     | histogram and summary: observations                                 |
//! | 10, 11| their sum (two doubles)                                             |
//! | 12, 13| the smallest and the largest                                        |
//! | 14…   | histogram: counts by bucket, `+Inf` last                            |
//! | 14, 15| summary: where its window lies ([`super::window`]), and when that's |
//! |       | present step began                                                  |
//! | 16…   | zeros, number of octaves, then key and 32 counts of each            |
//!
//! A gauge without records has no value yet, and is not on the page. Of all others the first and
//! the last timestamp are then when the aggregator met them. The history's last point of a counter
//! has the row's sum, whatever its place in the ring says.

use std::ops::Range;

use qbus::exponential::OCTAVE;
use qbus::{MetricType, SeriesId, Words};

use super::layout::{BLOCK_HEADER, PLAIN_LEN, Shape};
use super::tally::sane;
use super::versioned::Row;
use super::window::WindowSpan;
use crate::distribution::{Distribution, OCTAVES_MAX, Octave};
use crate::sum::Sum;

/// Words of a version before the buckets or the distribution.
const OBSERVED_LEN: usize = PLAIN_LEN + 5;
/// Words of an octave: its key, and its counts.
const OCTAVE_WORDS: usize = 1 + OCTAVE;
/// The most buckets of a histogram, `+Inf` among them.
const BUCKETS_MAX: usize = 257;
/// The longest version: a native histogram's with all octaves.
pub(crate) const LEN_MAX: usize = OBSERVED_LEN + BUCKETS_MAX + 2 + OCTAVES_MAX * OCTAVE_WORDS;

/// The word of a version that counts its records.
pub(crate) const RECORDS: usize = 0;
/// The words of a version that are times of its records, the last and the first one's.
pub(crate) const LAST_TIME: usize = 1;
pub(crate) const FIRST_TIME: usize = 2;
pub(crate) const TIMES: Range<usize> = LAST_TIME..FIRST_TIME + 1;

/// The words of a version that say where its history is.
pub(crate) const HISTORY: Range<usize> = 5..8;

/// What the rows of all types begin with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plain {
    pub(crate) records: u64,
    pub(crate) last_ns: u64,
    pub(crate) start_ns: u64,
    pub(crate) value: Sum,
    pub(crate) history: Span,
    /// Since when the series is retired, in nanoseconds since the Unix epoch; 0 = it is not.
    pub(crate) retired_ns: u64,
}

/// Which points of a ring are a history.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    pub(crate) ring: usize,
    pub(crate) first: u64,
    pub(crate) next: u64,
}

impl Plain {
    pub(crate) fn encode(&self, out: &mut Vec<u64>) {
        let [high, low] = self.value.parts().map(f64::to_bits);
        let Span { ring, first, next } = self.history;
        out.extend([
            self.records,
            self.last_ns,
            self.start_ns,
            high,
            low,
            ring as u64,
            first,
            next,
            self.retired_ns,
        ]);
    }

    /// Whether readers show the series, which is of that type.
    pub(crate) fn is_shown(&self, metric_type: MetricType) -> bool {
        let is_level = matches!(metric_type, MetricType::Gauge | MetricType::Untyped);
        self.retired_ns == 0 && (self.records > 0 || !is_level)
    }

    pub(crate) fn decode(version: &[u64]) -> Option<Plain> {
        let &[
            records,
            last_ns,
            start_ns,
            high,
            low,
            ring,
            first,
            next,
            retired_ns,
        ] = version.get(..PLAIN_LEN)?
        else {
            return None;
        };
        Some(Plain {
            records: sane(records),
            last_ns,
            start_ns,
            value: Sum::from_parts(f64::from_bits(high), f64::from_bits(low)),
            history: Span {
                ring: usize::try_from(ring).ok()?,
                first: sane(first),
                next: sane(next),
            },
            retired_ns,
        })
    }
}

/// What a histogram or a summary has observed.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    pub(crate) count: u64,
    pub(crate) sum: Sum,
    /// NaN before the first observation, as is the largest.
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// Counts by bucket of a histogram, not cumulative; the last is that of `+Inf`.
    pub(crate) buckets: Option<Vec<u64>>,
    /// Of a summary.
    pub(crate) window: Option<WindowSpan>,
    /// Of a summary and a native histogram.
    pub(crate) distribution: Option<Distribution>,
}

impl Observed {
    /// Nothing; `None` for the types that observe nothing. A histogram has so many bounds, and may
    /// be native.
    pub(crate) fn new(metric_type: MetricType, bounds: usize, native: bool) -> Option<Observed> {
        let (is_histogram, is_summary) = match metric_type {
            MetricType::Counter | MetricType::Gauge | MetricType::Untyped => return None,
            MetricType::Histogram => (true, false),
            MetricType::Summary => (false, true),
        };
        Some(Observed {
            count: 0,
            sum: Sum::ZERO,
            min: f64::NAN,
            max: f64::NAN,
            buckets: is_histogram.then(|| vec![0; bounds + 1]),
            window: is_summary.then(WindowSpan::default),
            distribution: (is_summary || native).then(Distribution::default),
        })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u64>) {
        let [high, low] = self.sum.parts().map(f64::to_bits);
        out.extend([
            self.count,
            high,
            low,
            self.min.to_bits(),
            self.max.to_bits(),
        ]);
        out.extend(self.buckets.iter().flatten());
        if let Some(window) = self.window {
            out.extend([window.block as u64, window.began_ns]);
        }
        if let Some(distribution) = &self.distribution {
            out.extend([distribution.zeros, distribution.octaves.len() as u64]);
            for octave in &distribution.octaves {
                out.push(octave.key);
                out.extend_from_slice(&octave.counts);
            }
        }
    }

    /// The same, [new](Self::new) so far, as a version of a series has it; `None` when that makes
    /// no sense.
    pub(crate) fn decode(mut self, version: &[u64]) -> Option<Observed> {
        let &[count, high, low, min, max] = version.get(PLAIN_LEN..OBSERVED_LEN)? else {
            return None;
        };
        let mut rest = version.get(OBSERVED_LEN..)?;
        if let Some(counts) = &mut self.buckets {
            let (found, more) = rest.split_at_checked(counts.len())?;
            counts.copy_from_slice(found);
            rest = more;
        }
        if let Some(window) = &mut self.window {
            *window = window_span(MetricType::Summary, version);
            rest = rest.get(2..)?;
        }
        if let Some(distribution) = &mut self.distribution {
            *distribution = decode_distribution(rest)?;
        }
        Some(Observed {
            count,
            sum: Sum::from_parts(f64::from_bits(high), f64::from_bits(low)),
            min: f64::from_bits(min),
            max: f64::from_bits(max),
            ..self
        })
    }

    /// Words before those of octaves.
    fn fixed_len(&self) -> usize {
        let buckets = self.buckets.as_ref().map_or(0, Vec::len);
        let window = 2 * usize::from(self.window.is_some());
        OBSERVED_LEN + buckets + window + 2 * usize::from(self.distribution.is_some())
    }

    /// How long a version must be to hold it.
    pub(crate) fn version_len(&self) -> usize {
        let octaves = |distribution: &Distribution| distribution.octaves.len().max(1);
        self.fixed_len() + self.distribution.as_ref().map_or(0, octaves) * OCTAVE_WORDS
    }

    /// Makes do with a version of `len` words: puts the octaves for which they do not suffice
    /// together with those for which they do.
    #[cold]
    pub(crate) fn shrink(&mut self, len: usize) {
        let octaves = len.saturating_sub(self.fixed_len()) / OCTAVE_WORDS;
        if let Some(distribution) = &mut self.distribution {
            distribution.shrink(octaves.max(1));
        }
    }
}

/// What the version of a series' row says of its window; nothing of one that is no summary.
pub(crate) fn window_span(metric_type: MetricType, version: &[u64]) -> WindowSpan {
    match version.get(OBSERVED_LEN..OBSERVED_LEN + 2) {
        Some(&[block, began_ns]) if metric_type == MetricType::Summary => WindowSpan {
            block: usize::try_from(block).unwrap_or(0),
            began_ns,
        },
        _ => WindowSpan::default(),
    }
}

fn decode_distribution(words: &[u64]) -> Option<Distribution> {
    let (&[zeros, octaves], rest) = words.split_first_chunk()?;
    let octaves = usize::try_from(octaves).ok()?;
    let used = rest.get(..octaves.checked_mul(OCTAVE_WORDS)?)?;
    let decode = |chunk: &[u64]| {
        let (key, counts) = chunk.split_first()?;
        Some(Octave {
            key: *key,
            counts: counts.try_into().ok()?,
        })
    };
    Some(Distribution::from_parts(
        zeros,
        used.chunks(OCTAVE_WORDS)
            .map(decode)
            .collect::<Option<_>>()?,
    ))
}

/// What stands before a series' row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) id: SeriesId,
    /// Where the definitions of its family and of itself lie.
    pub(crate) family: usize,
    pub(crate) labels: usize,
    /// Where its exemplars lie ([`super::exemplars`]); 0 = nowhere.
    pub(crate) exemplars: usize,
    /// The length of a version of its row.
    pub(crate) len: usize,
}

impl BlockHeader {
    pub(crate) fn to_words(self) -> [u64; BLOCK_HEADER] {
        [
            u64::from(self.id.0),
            self.family as u64,
            self.labels as u64,
            self.exemplars as u64,
            self.len as u64,
        ]
    }

    /// The header before a row.
    pub(crate) fn of(words: Words<'_>, row: Row) -> Option<BlockHeader> {
        let block = row.start.checked_sub(BLOCK_HEADER)?;
        let word = |index| words.get(block + index);
        Some(BlockHeader {
            id: SeriesId(word(0)? as u32),
            family: usize::try_from(word(1)?).ok()?,
            labels: usize::try_from(word(2)?).ok()?,
            exemplars: usize::try_from(word(3)?).ok()?,
            len: row.len,
        })
    }
}

/// What the directory says of a series whose block lies there. It says another thing of one that is
/// registered at the same place later.
pub(crate) fn directory_word(block: usize, id: SeriesId) -> u64 {
    u64::from(id.0 >> 8) << BLOCK_BITS | block as u64
}

/// The block that a word of the directory leads to.
pub(crate) fn block_of(word: u64) -> usize {
    (word & ((1 << BLOCK_BITS) - 1)) as usize
}

/// Whether two words of a place say that the same series lies there: in another block, perhaps.
pub(crate) fn is_same_series(one: u64, other: u64) -> bool {
    one != 0 && other != 0 && one >> BLOCK_BITS == other >> BLOCK_BITS
}

/// Bits of a word of the directory that say where the block lies.
pub(crate) const BLOCK_BITS: u32 = 40;

/// The row of the series at a place; `None` when the directory has none, or what it has does not
/// fit.
pub(crate) fn series_row(words: Words<'_>, shape: Shape, place: usize) -> Option<Row> {
    row_at(words, shape, words.get(shape.directory() + place)?)
}

/// The row of the series whose block lies where a word of the directory says; `None` when that does
/// not fit.
pub(crate) fn row_at(words: Words<'_>, shape: Shape, word: u64) -> Option<Row> {
    let block = block_of(word);
    if block < shape.blocks() {
        return None;
    }
    words.acquire();
    let len = usize::try_from(words.get(block.checked_add(BLOCK_HEADER - 1)?)?).ok()?;
    if len > LEN_MAX {
        return None;
    }
    let row = Row {
        start: block + BLOCK_HEADER,
        len,
    };
    row.fits(words).then_some(row)
}

/// Takes words out of the room that a file's words have; whether there were so many left. No two
/// series share a word, so what they need together fits into the file, unless a directory that is
/// garbage leads to the same place over and over.
pub(crate) fn take_room(room: &mut usize, len: usize) -> bool {
    let left = room.checked_sub(len);
    *room = left.unwrap_or(*room);
    left.is_some()
}
