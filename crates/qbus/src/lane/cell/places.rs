//! Where the units of a lane lie: its writer's private index.

use std::cell::{Cell as PrivateCell, RefCell};

use super::{Bank, CellKey};
use crate::sync::Ordering;

/// Memory of the kernel: the first emit of a thread may come in a signal handler, which may have
/// interrupted the allocator.
#[cfg(not(loom))]
type Memory = memmap2::MmapMut;
#[cfg(loom)]
type Memory = Vec<u8>;

/// An open-addressing index of units by their first cell's key, which stands in the cell itself.
#[derive(Debug)]
pub(super) struct Places {
    /// Of each place, in two bytes, the first cell of a unit plus 1; 0 = nothing. Twice as many as
    /// cells. Without memory every search is one through all cells.
    places: Option<RefCell<Memory>>,
    /// Places that are not 0; some lead to cells that got another key.
    filled: PrivateCell<usize>,
}

impl Places {
    /// The units that a lane has.
    pub(super) fn of(bank: &Bank<'_>) -> Places {
        let bytes = bank.cells.len() * 2 * size_of::<u16>();
        #[cfg(not(loom))]
        let memory = (bytes > 0).then(|| Memory::map_anon(bytes).ok()).flatten();
        #[cfg(loom)]
        let memory = Some(vec![0; bytes]);
        let places = Places {
            places: memory.map(RefCell::new),
            filled: PrivateCell::new(0),
        };
        places.survey(bank);
        places
    }

    /// Finds all units again.
    fn survey(&self, bank: &Bank<'_>) {
        let mut at = 0;
        while at < bank.used() {
            // Relaxed: C4 ordered it.
            let key = bank.cells[at].key.load(Ordering::Relaxed);
            match CellKey::unit_len(key) {
                Some(len) if bank.fit(at, len) == Some(at) => {
                    self.fill(key, at);
                    at += len;
                }
                _ => at += 1,
            }
        }
    }

    /// Where the unit of that key and length begins.
    pub(super) fn find(&self, bank: &Bank<'_>, key: u64, len: usize) -> Option<usize> {
        let is_here = |at: &usize| bank.is_unit(*at, key, len);
        let Some(places) = &self.places else {
            return (0..bank.used()).find(is_here);
        };
        let places = places.borrow();
        let place = |index: usize| {
            usize::from(u16::from_le_bytes([
                places[index * 2],
                places[index * 2 + 1],
            ]))
        };
        probe(key, bank.cells.len() * 2)
            .map(place)
            .take_while(|&place| place != 0)
            .map(|place| place - 1)
            .find(is_here)
    }

    /// Adds a unit whose cells have their keys.
    pub(super) fn add(&self, bank: &Bank<'_>, key: u64, at: usize) {
        if self.filled.get() < bank.cells.len() * 3 / 2 {
            return self.fill(key, at);
        }
        // Many lead nowhere by now.
        if let Some(places) = &self.places {
            places.borrow_mut().fill(0);
        }
        self.filled.set(0);
        self.survey(bank);
    }

    fn fill(&self, key: u64, at: usize) {
        let Some(places) = &self.places else {
            return;
        };
        let mut places = places.borrow_mut();
        let len = places.len() / size_of::<u16>();
        let is_free = |index: &usize| places[index * 2] == 0 && places[index * 2 + 1] == 0;
        if let Some(index) = probe(key, len).find(is_free) {
            // At most 2^15 cells (`Geometry::check`).
            places[index * 2..][..2].copy_from_slice(&(at as u16 + 1).to_le_bytes());
            self.filled.set(self.filled.get() + 1);
        }
    }
}

/// Every place of so many (a power of two) once, from the key's own on.
fn probe(key: u64, len: usize) -> impl Iterator<Item = usize> {
    // Fibonacci hashing (Knuth, TAOCP 6.4): series ids are consecutive numbers.
    let start = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
    (0..len).map(move |step| start.wrapping_add(step) & (len - 1))
}
