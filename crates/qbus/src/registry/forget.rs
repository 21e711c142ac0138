//! What becomes of series: forgotten, remembered, bound to an owner; how long those of a family
//! live.

use super::block::{Life, OWNER, TRIES, TTL};
use super::{FamilyId, Registry, WORD_MAX};
use crate::lane::Lease;
use crate::owner::OwnerId;
use crate::record::SeriesId;
use crate::sync::Ordering;
use crate::testpoint;

impl Registry<'_> {
    /// Has the aggregator take a series off the page, as of `now_ns`; whether it is registered.
    pub(crate) fn forget(&self, id: SeriesId, now_ns: u64) -> bool {
        let Some((block, _)) = self.blocks.find(id.0) else {
            return false;
        };
        if let Some(since) = self.blocks.since(block) {
            // Relaxed: the exchange publishes it. In a block that was reused it is of no effect:
            // that series is not forgotten.
            since.store(now_ns.max(1), Ordering::Relaxed);
        }
        let before = self.alter(id, |life| Some(life.forgotten()));
        testpoint!("forgotten");
        if before.is_some_and(|before| !before.is_forgotten()) {
            self.count_out(self.family_of(id));
        }
        if before.is_some() {
            // Release: who sees the change sees the word.
            self.changes.fetch_add(1, Ordering::Release);
        }
        before.is_some()
    }

    /// Asks for all series of a family to be freed at once, if all are forgotten; its id then.
    pub(crate) fn yielding(&self, name: &str) -> Option<FamilyId> {
        let family = self.find_family(name)?;
        let is_of = |id: &SeriesId| self.family_of(*id) == Some(family);
        let series: Vec<SeriesId> = self.series_ids().filter(is_of).collect();
        if series.iter().any(|&id| self.forgotten(id).is_none()) {
            return None;
        }
        for id in series {
            self.alter(id, |life| life.is_forgotten().then(|| life.at_once()));
        }
        self.changes.fetch_add(1, Ordering::Release);
        Some(family)
    }

    /// Brings a series back that was forgotten; false when it is there no more.
    pub(super) fn remember(&self, id: SeriesId) -> bool {
        let Some((_, life)) = self.blocks.find(id.0) else {
            return false;
        };
        if life.is_forgotten() {
            let remembered = |life: Life| life.is_forgotten().then(|| life.remembered());
            if self.alter(id, remembered).is_none() {
                return self.is_open(id);
            }
            testpoint!("remembered");
            self.count_in(self.family_of(id));
            // Release: as in `forget`.
            self.changes.fetch_add(1, Ordering::Release);
        }
        true
    }

    /// Takes back that a series was forgotten at `since_ns`, unless it was forgotten once more.
    pub(crate) fn revive(&self, id: SeriesId, since_ns: u64) {
        let Some((block, life)) = self.blocks.find(id.0) else {
            return;
        };
        let since = self
            .blocks
            .since(block)
            .map(|since| since.load(Ordering::Relaxed));
        if let (Some(word), true) = (
            self.blocks.life(block),
            since == Some(since_ns) && life.is_forgotten(),
        ) {
            let (order, relaxed) = (Ordering::AcqRel, Ordering::Relaxed);
            let revived = word.compare_exchange(life.0, life.remembered().0, order, relaxed);
            if revived.is_ok() {
                self.count_in(self.family_of(id));
            }
        }
    }

    /// Changes the life of a series that is registered; what it was before, if it did.
    fn alter(&self, id: SeriesId, change: impl Fn(Life) -> Option<Life>) -> Option<Life> {
        for _ in 0..TRIES {
            let (block, life) = self.blocks.find(id.0)?;
            let (changed, word) = (change(life)?, self.blocks.life(block)?);
            let (order, relaxed) = (Ordering::AcqRel, Ordering::Relaxed);
            let exchanged = word.compare_exchange(life.0, changed.0, order, relaxed);
            if exchanged.is_ok() {
                return Some(life);
            }
        }
        None
    }

    /// Since when a series is forgotten, in nanoseconds since the Unix epoch, and whether it is to
    /// be freed at once; `None` when it is not forgotten, or not registered.
    pub(crate) fn forgotten(&self, id: SeriesId) -> Option<(u64, bool)> {
        let (block, life) = self.blocks.find(id.0)?;
        let since = self.blocks.since(block)?.load(Ordering::Relaxed);
        life.is_forgotten().then_some((since, life.is_at_once()))
    }

    /// How long series of a family live to which nothing is emitted, in microseconds; 0 = for ever.
    pub(crate) fn ttl_us(&self, id: FamilyId) -> u64 {
        let found = self.blocks.find(id.0);
        found.map_or(0, |(block, life)| self.blocks.load(block, TTL, life))
    }

    pub(crate) fn set_ttl_us(&self, id: FamilyId, ttl_us: u64) {
        if let Some(found) = self.blocks.find(id.0) {
            self.blocks
                .change(found, TTL, |_| Some(ttl_us.min(WORD_MAX)));
        }
    }

    /// Binds a series to an owner: it leaves the page with it.
    pub(crate) fn bind(&self, id: SeriesId, owner: OwnerId) {
        if let Some(found) = self.blocks.find(id.0)
            && self
                .blocks
                .change(found, OWNER, |_| Some(Lease::word(owner)))
                .is_some()
        {
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// The owner that a series is bound to.
    pub(crate) fn bound(&self, id: SeriesId) -> Option<OwnerId> {
        let (block, life) = self.blocks.find(id.0)?;
        Lease::holder(self.blocks.load(block, OWNER, life))
    }

    /// Takes that back, unless the series is another owner's by now.
    pub(crate) fn unbind(&self, id: SeriesId, owner: OwnerId) -> bool {
        let is_owners = |word: u64| (word == Lease::word(owner)).then_some(0);
        let found = self.blocks.find(id.0);
        found.is_some_and(|found| self.blocks.change(found, OWNER, is_owners).is_some())
    }
}
