//! A lane on the heap, for tests and models.

use super::Lane;
use crate::layout::{LaneHead, LaneTail, Slot};
use crate::owner::OwnerId;
use crate::record::{Kind, PAYLOAD_WORDS, Record, SeriesId};

/// The memory of a lane.
pub(crate) struct HeapLane {
    pub(crate) tail: LaneTail,
    pub(crate) head: LaneHead,
    pub(crate) slots: Vec<Slot>,
}

impl HeapLane {
    /// So many slots, all words 0.
    pub(crate) fn new(slots: usize) -> HeapLane {
        HeapLane {
            tail: LaneTail::zeroed(),
            head: LaneHead::zeroed(),
            slots: (0..slots).map(|_| Slot::zeroed()).collect(),
        }
    }

    pub(crate) fn lane(&self) -> Lane<'_> {
        Lane::new(&self.tail, &self.head, &self.slots)
    }
}

/// The owner in that entry of the table.
pub(crate) fn owner(index: u16) -> OwnerId {
    OwnerId {
        index,
        generation: 1,
    }
}

/// A payload in whose every part the same number can be found again. Every other one is brief.
pub(crate) fn payload(number: u64) -> [u64; PAYLOAD_WORDS] {
    let (series, value) = (SeriesId(number as u32), number as f64);
    let brief = Record::new(number, series, Kind::Increment, value);
    if number.is_multiple_of(2) {
        return brief.to_words();
    }
    let trace_id = u128::from(number) << 64 | u128::from(number);
    let count = number;
    Record {
        count,
        trace_id,
        ..brief
    }
    .to_words()
}

/// The number of a payload.
///
/// # Panics
///
/// When the record is of several payloads.
pub(crate) fn number(record: &Record) -> u64 {
    let number = record.timestamp_ns;
    assert_eq!(record.to_words(), payload(number), "a torn record");
    number
}
