//! Cells that any number of threads and processes write to at once: those of the shared lanes.
//!
//! For threads that found no lane of their own, and for signal handlers. Every addition is atomic.
//! A cell never gets another key, since nobody could know that no other writer is about to add to
//! it. Two writers that name one unit at the same time do so at two places: the consumer takes
//! both.
//!
//! A gauge's value and its time are two words. Whoever states them marks the time first
//! ([`CHANGING`]), by an exchange that one writer wins; who finds the mark states its own in
//! another unit of the series, a new one if need be. So nobody waits, and the unit of a writer that
//! died inside is passed by for ever. The consumer takes what a marked unit has as of the time
//! before: the value of then, or the next one.

use super::{
    Bank, CALL, CHANGING, CellKind, CellOp, TOUCH, Unit, encode_level, encode_state, is_largest,
    is_smallest, two_sum,
};
use crate::sync::{AtomicU64, Ordering, fence};
use crate::testpoint;

impl Bank<'_> {
    /// Where a unit begins in a shared lane; it gets cells if it has none and there are any. Takes
    /// no lock and asks for no memory: a signal handler may call it.
    pub(crate) fn find_shared(&self, unit: &Unit) -> Option<usize> {
        let hint = unit.shared_hint.load(Ordering::Relaxed) as usize;
        let is_here = |at: &usize| self.is_unit(*at, unit.key(), unit.len);
        let at = if is_here(&hint) {
            hint
        } else {
            let at = (0..self.used()).find(is_here);
            let at = at.or_else(|| self.claim(unit))?;
            unit.shared_hint.store(at as u64, Ordering::Relaxed);
            at
        };
        // C2 (release): who sees what this writer adds sees the key under which it found the cells.
        fence(Ordering::Release);
        Some(at)
    }

    fn claim(&self, unit: &Unit) -> Option<usize> {
        let used = &self.head.used;
        let at = loop {
            let found = used.load(Ordering::Relaxed);
            let at = self.fit(usize::try_from(found).ok()?, unit.len)?;
            let next = (at + unit.len) as u64;
            // Relaxed: the words are this writer's alone until it stores the first key.
            if used
                .compare_exchange(found, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                break at;
            }
        };
        testpoint!("shared-cells-taken");
        for offset in (1..unit.len).rev() {
            let member = unit.member(offset).0;
            self.cells[at + offset].key.store(member, Ordering::Relaxed);
        }
        // Release: pairs with the load in `Bank::is_unit`.
        self.cells[at].key.store(unit.key(), Ordering::Release);
        testpoint!("shared-unit-named");
        Some(at)
    }

    /// Does it to the unit that begins there; false when a sum would overflow, and nothing was
    /// done.
    pub(crate) fn apply_shared(&self, at: usize, op: CellOp) -> bool {
        match op {
            CellOp::Count(n) => {
                self.add_count_shared(at, n);
                true
            }
            CellOp::Sum(value) => self.add_sum_shared(at, value),
            CellOp::Observe(bucket, value) => self.observe_shared(at, bucket, value),
            CellOp::Summarize(value, _) => self.summarize_shared(at, value),
            // They may need another unit: `state_shared`.
            CellOp::Level(..) | CellOp::Note(..) => false,
        }
    }

    /// States a gauge's value as of a time; false when there are no cells for it.
    pub(crate) fn state_shared(&self, unit: &Unit, value: f64, stamp: u64) -> bool {
        let is_here = |at: &usize| self.is_unit(*at, unit.key(), unit.len);
        let mut from = 0;
        while let Some(at) = (from..self.used())
            .find(is_here)
            .or_else(|| self.claim(unit))
        {
            if self.try_state_shared(at, value, stamp) {
                return true;
            }
            from = at + unit.len;
        }
        false
    }

    /// False when another writer states something there, or died while it did.
    fn try_state_shared(&self, at: usize, value: f64, stamp: u64) -> bool {
        let stamped = &self.cells[at + 1].value;
        let found = stamped.load(Ordering::Relaxed);
        if found & CHANGING != 0 {
            return false;
        }
        // C2 (release): who sees the mark sees the key under which the unit was found.
        fence(Ordering::Release);
        // C2 (acquire): what the writer before stored comes before.
        if stamped
            .compare_exchange(
                found,
                found | CHANGING,
                Ordering::Acquire,
                Ordering::Relaxed,
            )
            .is_err()
        {
            return false;
        }
        // C2 (release): who sees the new value sees the mark, or what came later.
        fence(Ordering::Release);
        self.cells[at]
            .value
            .store(encode_level(value), Ordering::Relaxed);
        // C2 (release): who sees the new stamp sees the new value.
        stamped.store((stamp & !CHANGING).max(1), Ordering::Release);
        self.pulse_shared(at, CALL);
        true
    }

    /// Adds a finite observation to what a summary's buckets have in common: a part of a call.
    fn summarize_shared(&self, at: usize, value: f64) -> bool {
        let added = self.add_exactly_shared(at, value);
        if added {
            self.note_extremes_shared(at, value);
            self.pulse_shared(at, TOUCH);
        }
        added
    }

    /// Adds to a count.
    pub(crate) fn add_count_shared(&self, at: usize, n: u64) {
        self.cells[at].value.fetch_add(n, Ordering::Relaxed);
        self.pulse_shared(at, CALL);
    }

    /// Adds to a sum; false when it would overflow, and nothing was added.
    pub(crate) fn add_sum_shared(&self, at: usize, value: f64) -> bool {
        let added = self.add_exactly_shared(at, value);
        if added {
            self.pulse_shared(at, CALL);
        }
        added
    }

    /// Adds a finite observation to a histogram; false when its sum would overflow, and nothing was
    /// added.
    pub(crate) fn observe_shared(&self, at: usize, bucket: usize, value: f64) -> bool {
        if !self.add_exactly_shared(at, value) {
            return false;
        }
        let bucket = &self.cells[at + CellKind::BUCKETS + bucket];
        bucket.value.fetch_add(1, Ordering::Relaxed);
        self.note_extremes_shared(at, value);
        let last = &self.cells[at + CellKind::Last.offset()].value;
        last.store(encode_state(value), Ordering::Relaxed);
        self.pulse_shared(at, CALL);
        true
    }

    /// Keeps the smallest and the largest observation.
    fn note_extremes_shared(&self, at: usize, value: f64) {
        let cell = |offset: usize| &self.cells[at + offset].value;
        let state = encode_state(value);
        update(cell(CellKind::Min.offset()), |found| {
            is_smallest(value, found).then_some(state)
        });
        update(cell(CellKind::Max.offset()), |found| {
            is_largest(value, found).then_some(state)
        });
    }

    fn add_exactly_shared(&self, at: usize, value: f64) -> bool {
        let mut lost = 0.0;
        let added = update(&self.cells[at].value, |found| {
            let (sum, residue) = two_sum(f64::from_bits(found), value);
            lost = residue;
            sum.is_finite().then_some(sum.to_bits())
        });
        if added && lost != 0.0 {
            let add = |found| Some((f64::from_bits(found) + lost).to_bits());
            update(&self.cells[at + 1].value, add);
        }
        added
    }

    fn pulse_shared(&self, at: usize, by: u64) {
        testpoint!("shared-cell-value");
        // C1 (release): pairs with the load in `Harvest::look`; the additions of others form one
        // sequence.
        self.head.pulses[self.group(at)].fetch_add(by, Ordering::AcqRel);
        testpoint!("shared-pulse");
    }
}

/// Changes a word as `change` says; false when it says nothing. Lock-free: somebody's exchange
/// succeeds.
fn update(word: &AtomicU64, mut change: impl FnMut(u64) -> Option<u64>) -> bool {
    let mut found = word.load(Ordering::Relaxed);
    loop {
        let Some(next) = change(found) else {
            return false;
        };
        match word.compare_exchange(found, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(other) => found = other,
        }
    }
}
