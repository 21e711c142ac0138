//! Cells on the heap, for tests and models.

use super::Bank;
use crate::layout::{Cell, CellHead, LaneHead, LaneTail};
use crate::sync::AtomicU64;

/// The memory of a lane's cells.
pub(crate) struct HeapCells {
    pub(crate) tail: LaneTail,
    pub(crate) lane_head: LaneHead,
    pub(crate) head: CellHead,
    pub(crate) cells: Vec<Cell>,
    pub(crate) seen: Vec<AtomicU64>,
}

impl HeapCells {
    /// So many cells, all words 0.
    pub(crate) fn new(cells: usize) -> HeapCells {
        HeapCells {
            tail: LaneTail::zeroed(),
            lane_head: LaneHead::zeroed(),
            head: CellHead::zeroed(),
            cells: (0..cells).map(|_| Cell::zeroed()).collect(),
            seen: (0..cells).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub(crate) fn bank(&self) -> Bank<'_> {
        Bank::new(&self.head, &self.cells, &self.seen, &self.lane_head)
    }
}
