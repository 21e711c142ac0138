//! Rings of points in the snapshot: a series' history, and the recent records of all.
//!
//! A point goes to a place that only a commit makes count: after a kill it is written again. Before a
//! place is written the ring's claim covers it, so that a reader knows which of the points that it
//! copied were still those of its epoch.

use qbus::{Words, testpoint};

use crate::snapshot::layout::RING_HEADER;

/// A ring of points of `each` words; every call is to be made with the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    pub(super) start: usize,
    pub(super) capacity: usize,
    /// Index of the next point: how many there were.
    pub(super) next: u64,
    /// `next` modulo the capacity, without a division a record.
    place: usize,
    /// What the claim says: places of points below may be written.
    claimed: u64,
    /// A predecessor may have written that far beyond what it committed: no claim goes back below.
    inherited: u64,
}

impl Ring {
    /// A ring without points.
    pub(super) const EMPTY: Ring = Ring {
        start: 0,
        capacity: 0,
        next: 0,
        place: 0,
        claimed: 0,
        inherited: 0,
    };

    /// Goes on with a ring that lies within `words`.
    pub(super) fn resume(words: Words<'_>, start: usize, capacity: usize, next: u64) -> Ring {
        if capacity == 0 {
            return Ring {
                start,
                next,
                ..Ring::EMPTY
            };
        }
        // A claim that is higher, or garbage, says as much: no point is one of those that counted.
        let found = words.load(start + 1);
        let claimed = found.clamp(next, next.saturating_add(capacity as u64));
        if found > claimed {
            words.store(start + 1, claimed);
        }
        Ring {
            start,
            capacity,
            next,
            place: (next % capacity as u64) as usize,
            claimed,
            inherited: claimed,
        }
    }

    /// Copies the last points to a new ring that lies at `start`. This one is left as it was, for those
    /// who read it.
    pub(super) fn copy_to(
        self,
        words: Words<'_>,
        start: usize,
        capacity: usize,
        each: usize,
    ) -> Ring {
        let kept = self.next.min(self.capacity.min(capacity) as u64);
        for index in self.next - kept..self.next {
            let place = |ring: usize, capacity: usize| {
                ring + RING_HEADER + (index % capacity as u64) as usize * each
            };
            let (from, to) = (place(self.start, self.capacity), place(start, capacity));
            for word in 0..each {
                words.store(to + word, words.load(from + word));
            }
        }
        words.store(start + 1, self.next);
        testpoint!("ring-moved");
        Ring::resume(words, start, capacity, self.next)
    }

    /// Takes the next place; where it lies. The claim then covers it, and as many as `ahead`.
    #[inline]
    pub(super) fn take(&mut self, words: Words<'_>, each: usize, ahead: u64) -> usize {
        let at = self.start + RING_HEADER + self.place * each;
        if self.next >= self.claimed {
            self.claim(words, self.next + ahead);
        }
        self.next += 1;
        self.place += 1;
        if self.place == self.capacity {
            self.place = 0;
        }
        at
    }

    #[inline]
    fn claim(&mut self, words: Words<'_>, claimed: u64) {
        self.claimed = claimed;
        words.store(self.start + 1, claimed);
        words.release();
        testpoint!("point-claimed");
    }

    /// Gives the places back that were claimed and not taken: for readers their old points are whole.
    pub(super) fn give_back(&mut self, words: Words<'_>) {
        let needed = self.next.max(self.inherited);
        if self.claimed > needed {
            self.claimed = needed;
            words.store(self.start + 1, needed);
        }
    }

    /// Where the last point lies, if there is one.
    #[inline]
    pub(super) fn last(&self, each: usize) -> Option<usize> {
        if self.next == 0 || self.capacity == 0 {
            return None;
        }
        let place = if self.place == 0 {
            self.capacity
        } else {
            self.place
        };
        Some(self.start + RING_HEADER + (place - 1) * each)
    }

    /// Whether the next point overwrites one.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.next >= self.capacity as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use qbus::HeapWords;

    const EACH: usize = 1;

    fn fill(ring: &mut Ring, words: Words<'_>, points: u64) {
        for _ in 0..points {
            let point = ring.next;
            let at = ring.take(words, EACH, 8);
            words.store(at, point);
        }
    }

    #[test]
    fn claims_cover_what_is_written_and_go_back_to_what_was() {
        let memory = HeapWords::new(RING_HEADER + 4);
        let words = memory.words();
        let mut ring = Ring::resume(words, 0, 4, 0);
        assert_eq!(ring.last(EACH), None);
        fill(&mut ring, words, 3);
        assert_eq!((words.load(1), ring.is_full()), (8, false));
        ring.give_back(words);
        assert_eq!(words.load(1), 3);
        fill(&mut ring, words, 7);
        assert_eq!((words.load(1), ring.is_full()), (11, true));
        assert_eq!(ring.last(EACH).map(|at| words.load(at)), Some(9));
    }

    #[test]
    fn what_a_predecessor_claimed_stays_claimed() {
        let memory = HeapWords::new(RING_HEADER + 4);
        let words = memory.words();
        fill(&mut Ring::resume(words, 0, 4, 0), words, 6);
        // It was killed before it committed more than two of them.
        let mut ring = Ring::resume(words, 0, 4, 2);
        ring.give_back(words);
        assert_eq!(words.load(1), 6);
        fill(&mut ring, words, 4);
        assert_eq!(words.load(1), 6);
        fill(&mut ring, words, 1);
        assert_eq!(words.load(1), 14);
        // Garbage hides the points that are there, and none that follow.
        words.store(1, u64::MAX);
        Ring::resume(words, 0, 4, 7);
        assert_eq!(words.load(1), 11);
    }
}
