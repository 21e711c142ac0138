//! Freeing: what left the page gives its place back. The one aggregator does so.

use super::block::{Block, Life, TRIES, class_of};
use super::definition::{FamilyDefinition, FamilyId, SeriesDefinition};
use super::hash::{name_hash, series_hash};
use super::{Registry, Table};
use crate::record::SeriesId;
use crate::sync::{Ordering, fence};
use crate::testpoint;

impl Registry<'_> {
    /// Frees a series that is forgotten, unless it was registered again; whether it did. For the
    /// one aggregator.
    pub(crate) fn free_series(&self, id: SeriesId) -> bool {
        let Some((block, life)) = self.blocks.find(id.0) else {
            return false;
        };
        let definition = SeriesDefinition::decode(self.words(), block.definition());
        let Some(definition) = definition.filter(|_| life.is_forgotten()) else {
            return false;
        };
        if !self.close(block, life) {
            return false;
        }
        let hash = series_hash(definition.family, &definition.labels);
        self.take_out(&self.series, self.series.bucket(hash), block);
        self.freed.fetch_add(1, Ordering::Release);
        true
    }

    /// Marks a family that may be freed, before a look at all series.
    pub(crate) fn suspect_family(&self, id: FamilyId) -> bool {
        let Some((block, life)) = self.blocks.find(id.0) else {
            return false;
        };
        let (order, relaxed) = (Ordering::AcqRel, Ordering::Relaxed);
        let word = self.blocks.life(block);
        let is_marked = word.is_some_and(|word| {
            let marked = word.compare_exchange(life.0, life.closing().0, order, relaxed);
            marked.is_ok()
        });
        // E8: pairs with the fence in `keep_family`.
        fence(Ordering::SeqCst);
        testpoint!("family-suspected");
        is_marked
    }

    /// Frees a family of which that look found no series, unless one was registered since; whether
    /// it did. For the one aggregator.
    pub(crate) fn free_family(&self, id: FamilyId) -> bool {
        let Some((block, life)) = self.blocks.find(id.0) else {
            return false;
        };
        let definition = FamilyDefinition::decode(self.words(), block.definition());
        let Some(definition) = definition.filter(|_| life.is_closing()) else {
            return false;
        };
        if !self.close(block, life) {
            return false;
        }
        self.drop_help(block, life.closed());
        let bucket = self.families.bucket(name_hash(&definition.name, ""));
        self.take_out(&self.families, bucket, block);
        true
    }

    /// Whether a family is there after one of its series is: else it was freed in between.
    pub(super) fn keep_family(&self, id: FamilyId) -> bool {
        // E8: pairs with the fence in `suspect_family`.
        fence(Ordering::SeqCst);
        for _ in 0..TRIES {
            let Some((block, life)) = self.blocks.find(id.0) else {
                return false;
            };
            if !life.is_closing() {
                return true;
            }
            let Some(word) = self.blocks.life(block) else {
                return false;
            };
            let (order, relaxed) = (Ordering::AcqRel, Ordering::Relaxed);
            let kept = word.compare_exchange(life.0, life.not_closing().0, order, relaxed);
            if kept.is_ok() {
                return true;
            }
        }
        false
    }

    /// Makes an id stale, unless anything happened to what it names.
    pub(super) fn close(&self, block: Block, life: Life) -> bool {
        let (order, relaxed) = (Ordering::AcqRel, Ordering::Relaxed);
        let closed = life.closed();
        let is_closed = self.blocks.life(block).is_some_and(|word| {
            word.compare_exchange(life.0, closed.0, order, relaxed)
                .is_ok()
        });
        if is_closed {
            self.blocks.clear(block, closed);
            testpoint!("closed");
        }
        is_closed
    }

    /// Takes a closed block out of its chain, and offers it.
    fn take_out(&self, table: &Table<'_>, bucket: usize, block: Block) {
        let class = class_of(self.blocks.next(block));
        if !table.unlink(&self.blocks, bucket, block) {
            return;
        }
        testpoint!("unlinked");
        // Saturating: who died before it counted an entry has it lag.
        let (order, relaxed) = (Ordering::Release, Ordering::Relaxed);
        let mut count = table.count.load(relaxed);
        while let Some(less) = count.checked_sub(1) {
            match table.count.compare_exchange(count, less, order, relaxed) {
                Ok(_) => break,
                Err(other) => count = other,
            }
        }
        self.blocks.give_back(block, class);
    }

    /// Takes out what a predecessor has closed, and counts what is left: who died before it counted
    /// an entry has the count lag. For the one aggregator, at its start.
    pub(crate) fn sweep(&self) {
        let mut entries = Vec::new();
        for table in [&self.series, &self.families] {
            for bucket in 0..table.heads.len() {
                table.entries(&self.blocks, bucket, &mut entries);
                for &(block, life) in &entries {
                    if !life.is_open() {
                        self.take_out(table, bucket, block);
                    }
                }
            }
            let counted = table.count.load(Ordering::Acquire);
            let mut found = 0;
            for bucket in 0..table.heads.len() {
                table.entries(&self.blocks, bucket, &mut entries);
                found += entries.iter().filter(|(_, life)| life.is_open()).count() as u64;
            }
            // Unless somebody registers one right now: the next aggregator counts again.
            let (order, relaxed) = (Ordering::AcqRel, Ordering::Relaxed);
            let _ = table.count.compare_exchange(counted, found, order, relaxed);
        }
        self.recount();
    }

    /// Whether what is forgotten is to be freed soon: more than half is used. Many may come at
    /// once.
    pub(crate) fn is_filling(&self) -> bool {
        let is_half_full = |table: &Table<'_>| {
            let used = table.count.load(Ordering::Relaxed);
            used.saturating_mul(2) > table.capacity
        };
        is_half_full(&self.series) || is_half_full(&self.families) || self.blocks.is_nearly_full()
    }
}
