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
//! | the chain's head        | a whole entry     | counts lag by 1 until `sweep`     |
//! | `forgotten` is stored   | it at the next    | none: the aggregator reads all at |
//! |                         | change            | its start, and counts then        |
//! | a help text's block     | the earlier text  | none: a block is lost             |
//! | the help text is told   | the later text    | none: the earlier's block is lost |
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
mod help;
mod limit;
mod merge;
#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;
mod window;

pub(crate) use block::{FREE_STACKS, GRANULE, place_bits};
pub use definition::{FamilyDefinition, FamilyId, SeriesDefinition, check_label, is_metric_name};
pub(crate) use definition::{NAME_MAX, cut_values, registered};
pub use limit::{FamilySize, OVERFLOW};
pub use merge::Merge;
pub use window::Window;

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Largest, RegisterError, Registrant};
use crate::lane::Lease;
use crate::owner::OwnerId;
use crate::record::{MetricType, SeriesId};
use crate::sync::{AtomicU64, Ordering, fence};
use crate::testpoint;
use crate::words::Words;
use block::{Blocks, Life, OWNER, REGISTRANT, TRIES, TTL};
use definition::{Sink, check_labels, metric_type};
use hash::{name_hash, series_hash};
use limit::Room;

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
    /// How many series a family may have that does not say so itself; 0 = any number.
    family_limit: &'a AtomicU64,
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
    pub(crate) family_limit: &'a AtomicU64,
}

impl<'a> Registry<'a> {
    pub(crate) fn new(families: Table<'a>, series: Table<'a>, arena: &Arena<'a>) -> Registry<'a> {
        Registry {
            families,
            series,
            blocks: Blocks::new(arena.words, arena.next, arena.free),
            changes: arena.changes,
            freed: arena.freed,
            family_limit: arena.family_limit,
        }
    }

    /// The id of the series, registered now if it was not; or of the one in which it is counted, where
    /// its family has as many as it may have.
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
        let labels = registered(labels);
        let interned = self.intern_checked(family, &labels);
        match interned {
            Err(Refusal::Crowded(id)) => self.intern_overflowing(family, id, &labels),
            interned => interned,
        }
        .map_err(|refusal| self.told(refusal, &family.name))
    }

    /// The id of the series in which one is counted for which its family has no room.
    pub(crate) fn intern_overflowing(
        &self,
        family: &FamilyDefinition,
        id: FamilyId,
        labels: &[(String, String)],
    ) -> Result<SeriesId, Refusal> {
        let folded = self.overflowing(id, family.merge, labels, Room::Reserve);
        match self.intern_within(family, &folded, Room::Reserve) {
            Err(Refusal::Crowded(id)) => {
                let folded = self.overflowing(id, family.merge, labels, Room::Any);
                self.intern_within(family, &folded, Room::Any)
            }
            interned => interned,
        }
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
        let is_kept = self.remember(SeriesId(series)) && self.keep_family(id);
        is_kept.then(|| {
            self.renew_help(id, &family.help);
            SeriesId(series)
        })
    }

    /// The same for a family and labels that were found right, as they are registered. Asks for no
    /// memory unless it fails: a handle does so within an emit.
    pub(crate) fn intern_checked(
        &self,
        family: &FamilyDefinition,
        labels: &[(String, String)],
    ) -> Result<SeriesId, Refusal> {
        self.intern_within(family, labels, Room::Limit)
    }

    fn intern_within(
        &self,
        family: &FamilyDefinition,
        labels: &[(String, String)],
        room: Room,
    ) -> Result<SeriesId, Refusal> {
        for _ in 0..TRIES {
            let family_id = self.intern_family(family)?;
            let same = |at: usize| self.is_series(at, family_id, labels);
            let encode = |out: &mut Sink<'_>| SeriesDefinition::write(family_id, labels, out);
            let entry = Entry {
                hash: series_hash(family_id, labels),
                encode: &encode,
                same: &same,
                said: u64::from(std::process::id()),
            };
            let has_room = || self.has_room(family_id, room);
            let (id, is_new) = match self.intern_in(&self.series, &entry, &has_room) {
                Ok((id, is_new)) => (SeriesId(id), is_new),
                Err(Full::Family) => return Err(Refusal::Crowded(family_id)),
                Err(full) => return Err(Refusal::NoRoom(full, Kept::Series)),
            };
            if is_new {
                self.count_in(Some(family_id));
            }
            // Else one of them was freed meanwhile.
            if self.remember(id) && self.keep_family(family_id) {
                return Ok(id);
            }
        }
        Err(Refusal::NoRoom(Full::Entries, Kept::Series))
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
    fn remember(&self, id: SeriesId) -> bool {
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

    fn intern_family(&self, family: &FamilyDefinition) -> Result<FamilyId, Refusal> {
        let hash = name_hash(&family.name, "");
        let same = |at: usize| FamilyDefinition::is_named(self.words(), at, &family.name, "");
        let id = match self.find(&self.families, hash, &same) {
            Some(id) => id,
            None => {
                self.refuse_clash(family)?;
                let encode = |out: &mut Sink<'_>| family.write(out);
                let entry = Entry {
                    hash,
                    encode: &encode,
                    same: &same,
                    said: 0,
                };
                let interned = self.intern_in(&self.families, &entry, &|| true);
                interned
                    .map_err(|full| Refusal::NoRoom(full, Kept::Families))?
                    .0
            }
        };
        let is_like = self.read(id, |at| Some(family.is_like(self.words(), at)));
        if is_like != Some(false) {
            self.renew_help(FamilyId(id), &family.help);
            return Ok(FamilyId(id));
        }
        match self.family(FamilyId(id)) {
            Some(existing) if !existing.agrees(family) => {
                Err(Refusal::Told(RegisterError::Conflict {
                    metric: family.name.clone(),
                    existing: existing.to_string(),
                    requested: family.to_string(),
                }))
            }
            // It was freed meanwhile: `keep_family` finds out.
            _ => Ok(FamilyId(id)),
        }
    }

    /// Two registrants at the same time can still clash: the exporter leaves the later one out.
    fn refuse_clash(&self, family: &FamilyDefinition) -> Result<(), Refusal> {
        let clash = |existing: FamilyDefinition| {
            Err(Refusal::Told(RegisterError::Clash {
                metric: family.name.clone(),
                existing: existing.to_string(),
            }))
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

    /// The id of the family of that name.
    pub(crate) fn find_family(&self, name: &str) -> Option<FamilyId> {
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
        let mut family = self.read(id.0, |at| FamilyDefinition::decode(self.words(), at))?;
        if let Some(help) = self.later_help(id) {
            family.help = help;
        }
        Some(family)
    }

    /// The process that registered a series.
    pub(crate) fn registrant(&self, id: SeriesId) -> Option<u32> {
        let (block, life) = self.blocks.find(id.0)?;
        let pid = self.blocks.load(block, REGISTRANT, life) as u32;
        (pid != 0).then_some(pid)
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

    /// The id of a key, put there if it was not, and whether it was; else what was full.
    fn intern_in(
        &self,
        table: &Table<'_>,
        entry: &Entry<'_>,
        has_room: &dyn Fn() -> bool,
    ) -> Result<(u32, bool), Full> {
        let &Entry {
            hash,
            encode,
            same,
            said,
        } = entry;
        let mut fresh = None;
        let mut interned = Err(Full::Entries);
        for _ in 0..TRIES {
            let found = table.search(&self.blocks, hash, same);
            if let Some((block, life)) = found.entry {
                interned = Ok((self.blocks.id(block, life), false));
                break;
            }
            if table.count.load(Ordering::Relaxed) >= table.capacity {
                break;
            }
            let taken = match fresh {
                Some(taken) => taken,
                None if !has_room() => return Err(Full::Family),
                None => {
                    let mut words = 0;
                    encode(&mut |_| words += 1);
                    let taken = self.blocks.take(words).ok_or(Full::Arena)?;
                    self.blocks.define(taken, said, encode);
                    *fresh.insert(taken)
                }
            };
            if table.insert(&self.blocks, hash, found.head, taken) {
                testpoint!("interned");
                // Release: who sees the count sees the entry.
                table.count.fetch_add(1, Ordering::Release);
                testpoint!("counted");
                return Ok((self.blocks.id_of_taken(taken), true));
            }
            // The chain changed: perhaps by the same key.
        }
        if let Some(taken) = fresh {
            self.blocks.give_back_taken(taken);
        }
        interned
    }

    /// What a person is told of a refusal.
    fn told(&self, refusal: Refusal, metric: &str) -> RegisterError {
        let (what, capacity) = match refusal {
            Refusal::Told(error) => return error,
            Refusal::NoRoom(Full::Arena, _) => {
                ("words of definitions", self.blocks.arena.len() as u64)
            }
            Refusal::NoRoom(_, Kept::Families) => ("families", self.families.capacity),
            Refusal::NoRoom(_, Kept::Series) | Refusal::Crowded(_) => {
                ("series", self.series.capacity)
            }
        };
        RegisterError::Full {
            metric: metric.to_owned(),
            what,
            capacity,
            // Who says so to people looks: it takes milliseconds.
            largest: None,
        }
    }

    /// The family with the most series, how many, its label with the most values, and the process
    /// that registered most of them: who filled it.
    pub(crate) fn largest(&self) -> Option<Largest> {
        let mut by_family: BTreeMap<u32, Vec<SeriesId>> = BTreeMap::new();
        for id in self.series_ids() {
            if let Some(family) = self.family_of(id) {
                by_family.entry(family.0).or_default().push(id);
            }
        }
        let (family, members) = by_family
            .into_iter()
            .max_by_key(|(_, members)| members.len())?;
        let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut registrants: BTreeMap<u32, usize> = BTreeMap::new();
        for &id in &members {
            for (name, value) in self.series(id).map_or(Vec::new(), |series| series.labels) {
                values.entry(name).or_default().insert(value);
            }
            if let Some(pid) = self.registrant(id) {
                *registrants.entry(pid).or_default() += 1;
            }
        }
        let widest = values.into_iter().max_by_key(|(_, values)| values.len());
        let registrant = registrants.into_iter().max_by_key(|&(_, series)| series);
        Some(Largest {
            family: self.family(FamilyId(family))?.name,
            series: members.len(),
            label: widest.map(|(name, values)| (name, values.len())),
            registrant: registrant.map(|(pid, series)| Registrant {
                pid,
                // The owner table says it.
                command: String::new(),
                series,
            }),
        })
    }
}

/// What is to be found, or put, in an index.
struct Entry<'a> {
    hash: u64,
    encode: &'a dyn Fn(&mut Sink<'_>),
    /// Whether a definition that lies there is it.
    same: &'a dyn Fn(usize) -> bool,
    /// What word 4 of its block says.
    said: u64,
}

/// Why something was not registered; to make one asks for no memory, unless it is told already.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The family has as many series as it may have.
    Crowded(FamilyId),
    /// So many of what is kept there is no room for.
    NoRoom(Full, Kept),
    /// What a person is told of it.
    Told(RegisterError),
}

/// What a registry keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kept {
    Families,
    Series,
}

/// What had no room.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Full {
    Entries,
    Arena,
    Family,
}

/// Whether there is a series of that id, by the words of the arena alone.
#[inline(always)]
pub(crate) fn is_open(arena: &[AtomicU64], id: SeriesId) -> bool {
    block::find(arena, id.0).is_some()
}

/// The most that a word beside a generation can say.
const WORD_MAX: u64 = (1 << 48) - 1;
