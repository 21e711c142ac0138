//! The exemplars of a series in the snapshot: of each bucket the last record that had a trace.
//!
//! They lie in the heap from the first one on, where the header of the series' block says: a word
//! with the length of a version, then a row. A version has four words for each bucket: value,
//! timestamp, and the trace id (high, low), which is 0 where there was none.

use qbus::{MetricType, Words, bucket_of};

use super::layout::Shape;
use super::row::BlockHeader;
use super::versioned::Row;
use crate::distribution::CLASSIC_BOUNDS;
use crate::series::Exemplar;

/// Words of an exemplar.
const WORDS: usize = 4;
/// A histogram has at most 256 bounds.
const LEN_MAX: usize = 257 * WORDS;

/// Length of a version; 0 for a type that has no exemplars. The bounds are a histogram's.
pub(crate) fn version_len(metric_type: MetricType, bounds: &[f64]) -> usize {
    WORDS
        * match metric_type {
            MetricType::Counter => 1,
            MetricType::Gauge | MetricType::Untyped => 0,
            MetricType::Histogram => bounds.len() + 1,
            MetricType::Summary => CLASSIC_BOUNDS.len() + 1,
        }
}

/// The bucket of a value.
fn place(metric_type: MetricType, bounds: &[f64], value: f64) -> usize {
    match metric_type {
        MetricType::Counter | MetricType::Gauge | MetricType::Untyped => 0,
        MetricType::Histogram => bucket_of(bounds, value),
        MetricType::Summary => bucket_of(&CLASSIC_BOUNDS, value),
    }
}

/// Puts an exemplar in its place of a version: the last one that came counts.
pub(crate) fn keep(version: &mut [u64], metric_type: MetricType, bounds: &[f64], new: Exemplar) {
    let at = WORDS * place(metric_type, bounds, new.value);
    if let Some(words) = version.get_mut(at..at + WORDS) {
        let (high, low) = ((new.trace_id >> 64) as u64, new.trace_id as u64);
        words.copy_from_slice(&[new.value.to_bits(), new.timestamp_ns, high, low]);
    }
}

/// The exemplars of a version that another process wrote, but for those that do not fit their
/// bucket.
pub(crate) fn decode(version: &[u64], metric_type: MetricType, bounds: &[f64]) -> Vec<Exemplar> {
    let (buckets, _) = version.as_chunks::<WORDS>();
    let exemplars = buckets.iter().enumerate().filter_map(|(at, words)| {
        let [value, timestamp_ns, high, low] = *words;
        let exemplar = Exemplar {
            value: f64::from_bits(value),
            timestamp_ns,
            trace_id: u128::from(high) << 64 | u128::from(low),
        };
        let is_there = exemplar.trace_id != 0
            && !exemplar.value.is_nan()
            && place(metric_type, bounds, exemplar.value) == at;
        is_there.then_some(exemplar)
    });
    exemplars.collect()
}

/// The row with the exemplars of the series whose row is `of`; `None` when it has none, or garbage.
/// It lies in the heap: nobody is to write anywhere else.
pub(crate) fn row_of(words: Words<'_>, shape: Shape, of: Row) -> Option<Row> {
    row_at(words, shape, BlockHeader::of(words, of)?.exemplars)
}

/// The row with exemplars that lies where a series' header says.
pub(crate) fn row_at(words: Words<'_>, shape: Shape, at: usize) -> Option<Row> {
    if at < shape.heap() {
        return None;
    }
    words.acquire();
    let len = usize::try_from(words.get(at)?).ok()?;
    let row = Row {
        start: at.checked_add(1)?,
        len,
    };
    (len <= LEN_MAX && row.fits(words)).then_some(row)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use qbus::HeapWords;

    use super::super::layout::BLOCK_HEADER;
    use super::*;

    #[test]
    fn exemplars_lie_in_the_heap_or_nowhere() {
        let shape = Shape::from_words([1, 1, 4, 4, 16, 16]).expect("small numbers");
        let memory = HeapWords::new(shape.heap() + 64);
        let words = memory.words();
        let series = Row {
            start: shape.blocks() + BLOCK_HEADER,
            len: 0,
        };
        let found = |at: usize| {
            words.store(shape.blocks() + 3, at as u64);
            row_of(words, shape, series)
        };
        for at in (0..shape.heap()).chain([shape.heap() + 64, usize::MAX]) {
            assert_eq!(found(at), None, "nobody is to write at {at}");
        }
        let start = shape.heap() + 1;
        assert_eq!(found(shape.heap()), Some(Row { start, len: 0 }));
    }
}
