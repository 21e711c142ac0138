//! The registry: names once, ids ever after.
//!
//! Families and series are interned in the bus region. Their definitions lie in [`block`]s of an
//! arena, which hash [`chain`]s lead to. A definition is written whole, and *then* published by one
//! exchange of its chain's head; the loser of a race searches again, and finds the winner's. So a
//! key is never there twice.
//!
//! A series can be forgotten: its block says since when. The aggregator takes it off the page then,
//! and whoever registers it again, or emits to it, brings it back. A series can be bound to an
//! owner, with which it leaves the page.
//!
//! What has left the page the aggregator frees, if nobody brought it back: it raises the block's
//! generation by one exchange (from here on the id is stale, and who registers the series again gets
//! another one), takes the block out of its chain, and offers it to registrants. It waits for
//! nobody. A family goes when a look at all series found none of it, unless somebody registered one
//! meanwhile.
//!
//! * **E5 intern**, **E7 reuse**: in [`chain`] and [`block`].
//! * **E8 close** `free_family` marks it (SeqCst fence), then looks at all series; `keep_family`
//!   looks at the mark after its series is there (SeqCst fence): one of both sees the other.
//!
//! | a registrant dies after | others see        | repair                            |
//! |-------------------------|-------------------|-----------------------------------|
//! | the arena was taken     | nothing           | none: a block is lost             |
//! | the definition          | nothing           | none: likewise                    |
//! | the chain's head        | a whole entry     | the count lags by 1 until `sweep` |
//! | `forgotten` is stored   | it at the next    | none: the aggregator reads all at |
//! |                         | change            | its start                         |
//!
//! | the aggregator dies after | others see                  | repair                        |
//! |---------------------------|-----------------------------|-------------------------------|
//! | a family's mark           | a mark that costs nothing   | the next look at all series   |
//! | `closed`                  | an entry that they pass by  | `sweep` of the successor      |
//! | `unlinked`                | nothing                     | a block is lost; as above     |
//! | `offered`                 | nothing                     | none: likewise                |

mod block;
mod chain;
mod definition;
mod free;
mod hash;
#[cfg(test)]
pub(crate) mod heap;
mod merge;
#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;
mod window;

pub(crate) use block::{FREE_STACKS, GRANULE, place_bits};
pub use definition::{FamilyDefinition, FamilyId, SeriesDefinition, check_label, is_metric_name};
pub(crate) use definition::{NAME_MAX, cut_values, registered};
pub use merge::Merge;
pub use window::Window;

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Largest, RegisterError};
use crate::lane::Lease;
use crate::owner::OwnerId;
use crate::record::{MetricType, SeriesId};
use crate::sync::{AtomicU64, Ordering, fence};
use crate::testpoint;
use crate::words::Words;
use block::{Blocks, Life, OWNER, TRIES, TTL};
use definition::{Sink, check_labels, metric_type};
use hash::{name_hash, series_hash};

/// A registry in memory that somebody else owns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registry<'a> {
    families: Table<'a>,
    series: Table<'a>,
    blocks: Blocks<'a>,
    /// How often a series was forgotten, or registered again.
    changes: &'a AtomicU64,
    /// Series that were freed.
    freed: &'a AtomicU64,
}

/// The chains of an index, and how full it may get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'a> {
    /// A power of two of them.
    pub(crate) heads: &'a [AtomicU64],
    /// Entries; may lag by one a crash.
    pub(crate) count: &'a AtomicU64,
    pub(crate) capacity: u64,
}

/// The arena of a registry, and what is counted beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arena<'a> {
    pub(crate) words: &'a [AtomicU64],
    /// Next word that was never taken.
    pub(crate) next: &'a AtomicU64,
    pub(crate) free: &'a [AtomicU64; FREE_STACKS],
    pub(crate) changes: &'a AtomicU64,
    pub(crate) freed: &'a AtomicU64,
}

impl<'a> Registry<'a> {
    pub(crate) fn new(families: Table<'a>, series: Table<'a>, arena: &Arena<'a>) -> Registry<'a> {
        Registry {
            families,
            series,
            blocks: Blocks::new(arena.words, arena.next, arena.free),
            changes: arena.changes,
            freed: arena.freed,
        }
    }

    /// The id of the series, registered now if it was not.
    pub(crate) fn intern(
        &self,
        family: &FamilyDefinition,
        labels: &[(String, String)],
    ) -> Result<SeriesId, RegisterError> {
        if let Some(id) = self.known(family, labels) {
            return Ok(id);
        }
        family.check()?;
        check_labels(&family.name, labels)?;
        for (name, _) in labels {
            check_label(&family.name, family.metric_type, name)?;
        }
        self.intern_checked(family, &registered(labels))
    }

    /// The id of a series that is registered as that: then nothing is wrong with it.
    fn known(&self, family: &FamilyDefinition, labels: &[(String, String)]) -> Option<SeriesId> {
        let is_as_given = |(_, value): &(String, String)| definition::is_as_given(value);
        if !labels.iter().all(is_as_given) {
            return None;
        }
        let id = self.find_family(&family.name)?;
        if self.read(id.0, |at| Some(family.is_like(self.words(), at))) != Some(true) {
            return None;
        }
        let same = |at: usize| self.is_series(at, id, labels);
        let series = self.find(&self.series, series_hash(id, labels), &same)?;
        (self.remember(SeriesId(series)) && self.keep_family(id)).then_some(SeriesId(series))
    }

    /// The same for a family and labels that were found right, as they are registered. Asks for no
    /// memory unless it fails: a handle does so within an emit.
    pub(crate) fn intern_checked(
        &self,
        family: &FamilyDefinition,
        labels: &[(String, String)],
    ) -> Result<SeriesId, RegisterError> {
        for _ in 0..TRIES {
            let family_id = self.intern_family(family)?;
            let same = |at: usize| self.is_series(at, family_id, labels);
            let encode = |out: &mut Sink<'_>| SeriesDefinition::write(family_id, labels, out);
            let hash = series_hash(family_id, labels);
            let id = self
                .intern_in(&self.series, hash, &encode, &same)
                .map(SeriesId)
                .map_err(|full| self.full(&family.name, full, "series", self.series.capacity))?;
            // Else one of them was freed meanwhile.
            if self.remember(id) && self.keep_family(family_id) {
                return Ok(id);
            }
        }
        Err(self.full(&family.name, Full::Entries, "series", self.series.capacity))
    }

    /// Has the aggregator take a series off the page, as of `now_ns`; whether it is registered.
    pub(crate) fn forget(&self, id: SeriesId, now_ns: u64) -> bool {
        let Some((block, _)) = self.blocks.find(id.0) else {
            return false;
        };
        if let Some(since) = self.blocks.since(block) {
            // Relaxed: the exchange publishes it. In a block that was reused it is of no effect: that
            // series is not forgotten.
            since.store(now_ns.max(1), Ordering::Relaxed);
        }
        let is_forgotten = self.alter(id, |life| Some(life.forgotten()));
        testpoint!("forgotten");
        if is_forgotten {
            // Release: who sees the change sees the word.
            self.changes.fetch_add(1, Ordering::Release);
        }
        is_forgotten
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
    fn remember(&self, id: SeriesId) -> bool {
        let Some((_, life)) = self.blocks.find(id.0) else {
            return false;
        };
        if life.is_forgotten() {
            if !self.alter(id, |life| life.is_forgotten().then(|| life.remembered())) {
                return self.is_open(id);
            }
            testpoint!("remembered");
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
            let _ = word.compare_exchange(life.0, life.remembered().0, order, relaxed);
        }
    }

    /// Changes the life of a series that is registered; whether it did.
    fn alter(&self, id: SeriesId, change: impl Fn(Life) -> Option<Life>) -> bool {
        for _ in 0..TRIES {
            let Some((block, life)) = self.blocks.find(id.0) else {
                return false;
            };
            let (Some(changed), Some(word)) = (change(life), self.blocks.life(block)) else {
                return false;
            };
            let (order, relaxed) = (Ordering::AcqRel, Ordering::Relaxed);
            if word
                .compare_exchange(life.0, changed.0, order, relaxed)
                .is_ok()
            {
                return true;
            }
        }
        false
    }

    /// Since when a series is forgotten, in nanoseconds since the Unix epoch, and whether it is to
    /// be freed at once; `None` when it is not forgotten, or not registered.
    pub(crate) fn forgotten(&self, id: SeriesId) -> Option<(u64, bool)> {
        let (block, life) = self.blocks.find(id.0)?;
        let since = self.blocks.since(block)?.load(Ordering::Relaxed);
        life.is_forgotten().then_some((since, life.is_at_once()))
    }

    /// Whether there is a series of that id.
    pub(crate) fn is_open(&self, id: SeriesId) -> bool {
        is_open(self.blocks.arena, id)
    }

    /// Whether there was a series of that id, which was freed since.
    pub(crate) fn is_stale(&self, id: SeriesId) -> bool {
        !self.is_open(id) && self.blocks.is_later(id.0)
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
        found.is_some_and(|found| self.blocks.change(found, OWNER, is_owners))
    }

    /// What changes whenever a series is registered, forgotten or registered again.
    pub(crate) fn version(&self) -> (u64, u64) {
        // Acquire: pairs with the additions in `forget` and `remember`.
        let changes = self.changes.load(Ordering::Acquire);
        let freed = self.freed.load(Ordering::Acquire);
        let registered = self
            .series
            .count
            .load(Ordering::Acquire)
            .wrapping_add(freed);
        (registered, changes)
    }

    /// How many chains of series there are: for [`chain_ids`](Self::chain_ids).
    pub(crate) fn chains(&self) -> usize {
        self.series.heads.len()
    }

    /// Replaces `ids` by those of the series in a chain.
    pub(crate) fn chain_ids(&self, chain: usize, ids: &mut Vec<SeriesId>) {
        let mut entries = Vec::new();
        self.series.entries(&self.blocks, chain, &mut entries);
        ids.clear();
        let open = entries.iter().filter(|(_, life)| life.is_open());
        ids.extend(open.map(|&(block, life)| SeriesId(self.blocks.id(block, life))));
    }

    /// The ids of all series.
    pub(crate) fn series_ids(&self) -> impl Iterator<Item = SeriesId> + '_ {
        (0..self.chains()).flat_map(|chain| {
            let mut ids = Vec::new();
            self.chain_ids(chain, &mut ids);
            ids
        })
    }

    /// The ids of all families.
    pub(crate) fn family_ids(&self) -> Vec<FamilyId> {
        let (mut entries, mut ids) = (Vec::new(), Vec::new());
        for chain in 0..self.families.heads.len() {
            self.families.entries(&self.blocks, chain, &mut entries);
            let open = entries.iter().filter(|(_, life)| life.is_open());
            ids.extend(open.map(|&(block, life)| FamilyId(self.blocks.id(block, life))));
        }
        ids
    }

    /// Reads a definition that an id leads to; `None` when it is stale by then.
    fn read<T>(&self, id: u32, read: impl FnOnce(usize) -> Option<T>) -> Option<T> {
        let (block, life) = self.blocks.find(id)?;
        let found = read(block.definition());
        // E7 (acquire): pairs with the fence in `Blocks::define`.
        fence(Ordering::Acquire);
        let again = Life(self.blocks.life(block)?.load(Ordering::Relaxed));
        let is_same = again.is_open() && again.generation() == life.generation();
        found.filter(|_| is_same)
    }

    /// The family of a series, without a copy of any definition: for who must ask for no memory.
    pub(crate) fn family_of(&self, id: SeriesId) -> Option<FamilyId> {
        let first = self.read(id.0, |at| self.words().get(at))?;
        Some(FamilyId((first >> 32) as u32))
    }

    /// The type of a series' family, likewise.
    pub(crate) fn metric_type(&self, id: SeriesId) -> Option<MetricType> {
        let family = self.family_of(id)?;
        metric_type(self.read(family.0, |at| self.words().get(at))?)
    }

    /// Whether a series' family is a native histogram.
    pub(crate) fn is_native(&self, id: SeriesId) -> bool {
        let family = self.family_of(id);
        let first = family.and_then(|family| self.read(family.0, |at| self.words().get(at)));
        first.is_some_and(definition::is_native)
    }

    /// The type of a series' family, how many buckets it has, and in which an observation belongs;
    /// without a copy of any definition.
    pub(crate) fn bucket_of(&self, id: SeriesId, value: f64) -> Option<(MetricType, usize, usize)> {
        self.read(self.family_of(id)?.0, |family| {
            let arena = self.blocks.arena;
            let metric_type = metric_type(self.words().get(family)?)?;
            let lengths = self.words().get(family + 1)?;
            let length = |shift: u32| (lengths >> shift) as usize & 0xffff;
            let words = |shift: u32| length(shift).div_ceil(8);
            let start = family + 2 + words(0) + words(16) + words(32);
            let bounds = arena.get(start..start + length(48))?;
            let is_below =
                |bound: &&AtomicU64| f64::from_bits(bound.load(Ordering::Relaxed)) < value;
            let bucket = bounds.iter().filter(is_below).count();
            Some((metric_type, bounds.len() + 1, bucket))
        })
    }

    /// The id of a series that is registered.
    pub(crate) fn find_series(&self, name: &str, labels: &[(String, String)]) -> Option<SeriesId> {
        let family = self.find_family(name)?;
        let labels = registered(labels);
        let same = |at: usize| self.is_series(at, family, &labels);
        let hash = series_hash(family, &labels);
        self.find(&self.series, hash, &same).map(SeriesId)
    }

    fn is_series(&self, at: usize, family: FamilyId, labels: &[(String, String)]) -> bool {
        SeriesDefinition::is_at(self.words(), at, family, labels)
    }

    fn intern_family(&self, family: &FamilyDefinition) -> Result<FamilyId, RegisterError> {
        let hash = name_hash(&family.name, "");
        let same = |at: usize| FamilyDefinition::is_named(self.words(), at, &family.name, "");
        let id = match self.find(&self.families, hash, &same) {
            Some(id) => id,
            None => {
                self.refuse_clash(family)?;
                let encode = |out: &mut Sink<'_>| family.write(out);
                self.intern_in(&self.families, hash, &encode, &same)
                    .map_err(|full| {
                        self.full(&family.name, full, "families", self.families.capacity)
                    })?
            }
        };
        let is_like = self.read(id, |at| Some(family.is_like(self.words(), at)));
        if is_like != Some(false) {
            return Ok(FamilyId(id));
        }
        match self.family(FamilyId(id)) {
            Some(existing) if !existing.agrees(family) => Err(RegisterError::Conflict {
                metric: family.name.clone(),
                existing: existing.to_string(),
                requested: family.to_string(),
            }),
            // It was freed meanwhile: `keep_family` finds out.
            _ => Ok(FamilyId(id)),
        }
    }

    /// Two registrants at the same time can still clash: the exporter leaves the later one out.
    fn refuse_clash(&self, family: &FamilyDefinition) -> Result<(), RegisterError> {
        let clash = |existing: FamilyDefinition| {
            Err(RegisterError::Clash {
                metric: family.name.clone(),
                existing: existing.to_string(),
            })
        };
        let named = |name: &str, suffix: &str| {
            let id = self.find_family_of(name, suffix)?;
            self.family(id)
        };
        for suffix in family.sample_suffixes() {
            if let Some(existing) = named(&family.name, suffix) {
                return clash(existing);
            }
        }
        for suffix in ["_bucket", "_sum", "_count"] {
            let base = family
                .name
                .strip_suffix(suffix)
                .and_then(|base| named(base, ""));
            if let Some(existing) = base.filter(|base| base.sample_suffixes().contains(&suffix)) {
                return clash(existing);
            }
        }
        Ok(())
    }

    /// The family of that name.
    pub(crate) fn family_by_name(&self, name: &str) -> Option<FamilyDefinition> {
        self.family(self.find_family(name)?)
    }

    fn find_family(&self, name: &str) -> Option<FamilyId> {
        self.find_family_of(name, "")
    }

    /// The family whose name is both together.
    fn find_family_of(&self, name: &str, suffix: &str) -> Option<FamilyId> {
        let same = |at: usize| FamilyDefinition::is_named(self.words(), at, name, suffix);
        self.find(&self.families, name_hash(name, suffix), &same)
            .map(FamilyId)
    }

    /// What a family is registered as; `None` when there is none, or garbage.
    pub(crate) fn family(&self, id: FamilyId) -> Option<FamilyDefinition> {
        self.read(id.0, |at| FamilyDefinition::decode(self.words(), at))
    }

    /// What a series is registered as; `None` when there is none, or garbage.
    pub(crate) fn series(&self, id: SeriesId) -> Option<SeriesDefinition> {
        self.read(id.0, |at| SeriesDefinition::decode(self.words(), at))
    }

    fn words(&self) -> Words<'a> {
        Words::new(self.blocks.arena)
    }

    /// The id of a key, if it is there.
    fn find(&self, table: &Table<'_>, hash: u64, same: &dyn Fn(usize) -> bool) -> Option<u32> {
        let (block, life) = table.search(&self.blocks, hash, same).entry?;
        Some(self.blocks.id(block, life))
    }

    /// The id of a key, put there if it was not; else what was full.
    fn intern_in(
        &self,
        table: &Table<'_>,
        hash: u64,
        encode: &dyn Fn(&mut Sink<'_>),
        same: &dyn Fn(usize) -> bool,
    ) -> Result<u32, Full> {
        let mut fresh = None;
        let mut interned = Err(Full::Entries);
        for _ in 0..TRIES {
            let found = table.search(&self.blocks, hash, same);
            if let Some((block, life)) = found.entry {
                interned = Ok(self.blocks.id(block, life));
                break;
            }
            if table.count.load(Ordering::Relaxed) >= table.capacity {
                break;
            }
            let taken = match fresh {
                Some(taken) => taken,
                None => {
                    let mut words = 0;
                    encode(&mut |_| words += 1);
                    let taken = self.blocks.take(words).ok_or(Full::Arena)?;
                    self.blocks.define(taken, encode);
                    *fresh.insert(taken)
                }
            };
            if table.insert(&self.blocks, hash, found.head, taken) {
                testpoint!("interned");
                // Release: who sees the count sees the entry.
                table.count.fetch_add(1, Ordering::Release);
                testpoint!("counted");
                return Ok(self.blocks.id_of_taken(taken));
            }
            // The chain changed: perhaps by the same key.
        }
        if let Some(taken) = fresh {
            self.blocks.give_back_taken(taken);
        }
        interned
    }

    fn full(
        &self,
        metric: &str,
        full: Full,
        entries: &'static str,
        capacity: u64,
    ) -> RegisterError {
        let (what, capacity) = match full {
            Full::Entries => (entries, capacity),
            Full::Arena => ("words of definitions", self.blocks.arena.len() as u64),
        };
        RegisterError::Full {
            metric: metric.to_owned(),
            what,
            capacity,
            // Who says so to people looks: it takes milliseconds.
            largest: None,
        }
    }

    /// The family with the most series, how many, and its label with the most values: who filled
    /// it.
    pub(crate) fn largest(&self) -> Option<Largest> {
        let mut by_family: BTreeMap<u32, Vec<SeriesDefinition>> = BTreeMap::new();
        for series in self.series_ids().filter_map(|id| self.series(id)) {
            by_family.entry(series.family.0).or_default().push(series);
        }
        let (family, members) = by_family
            .into_iter()
            .max_by_key(|(_, members)| members.len())?;
        let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (name, value) in members.iter().flat_map(|series| &series.labels) {
            values.entry(name).or_default().insert(value);
        }
        let widest = values.into_iter().max_by_key(|(_, values)| values.len());
        let widest = widest.map(|(name, values)| (name.to_owned(), values.len()));
        Some(Largest {
            family: self.family(FamilyId(family))?.name,
            series: members.len(),
            label: widest,
        })
    }
}

/// What had no room.
#[derive(Clone, Copy, Debug)]
enum Full {
    Entries,
    Arena,
}

/// Whether there is a series of that id, by the words of the arena alone.
#[inline(always)]
pub(crate) fn is_open(arena: &[AtomicU64], id: SeriesId) -> bool {
    block::find(arena, id.0).is_some()
}

/// The most that a word beside a generation can say.
const WORD_MAX: u64 = (1 << 48) - 1;
