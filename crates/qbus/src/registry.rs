//! The registry: names once, ids ever after.
//!
//! Families and series are interned in the bus region. Definitions lie in an append-only arena; an
//! open-addressing index with linear probing holds a word for each: offset in the arena (32 bits)
//! and a tag of the hash (32 bits). A series' id is its place in the index. A definition is written
//! whole, and *then* published by one CAS of its index word; the loser of a race uses the winner's.
//! Nothing is ever taken out, so the first free place of a probe sequence is the same for all who
//! insert the same key, and a key is never there twice.
//!
//! A series can be forgotten: a word before its definition says since when. The aggregator takes it
//! off the page then, and whoever registers it again, or emits to it, brings it back. Another word
//! can bind a series to an owner, with which it leaves the page.
//!
//! * **E5 intern** `publish` exchanges an index word 0 → offset (Release) → `word` loads it
//!   (Acquire): the definition is whole.
//!
//! | a registrant dies after | others see        | repair                    |
//! |-------------------------|-------------------|---------------------------|
//! | the arena was taken     | nothing           | none: some words are lost |
//! | the definition          | nothing           | none: likewise            |
//! | the index word          | a whole entry     | none: the count lags by 1 |
//! | `forgotten` is stored   | it at the next    | none: the aggregator reads|
//! |                         | change            | all at its start          |

mod definition;
mod hash;
#[cfg(test)]
pub(crate) mod heap;
#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;

pub use definition::{FamilyDefinition, FamilyId, SeriesDefinition, check_label, is_metric_name};
pub(crate) use definition::{NAME_MAX, cut_values};

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Largest, RegisterError};
use crate::lane::Lease;
use crate::owner::OwnerId;
use crate::record::{MetricType, SeriesId};
use crate::sync::{AtomicU64, Ordering};
use crate::testpoint;
use crate::words::Words;
use definition::{NATIVE_SHIFT, canonical, check_labels, metric_type, registered};
use hash::{name_hash, series_hash};

/// A registry in memory that somebody else owns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registry<'a> {
    families: Table<'a>,
    series: Table<'a>,
    arena: &'a [AtomicU64],
    /// Next free word of the arena.
    arena_next: &'a AtomicU64,
    /// How often a series was forgotten, or registered again.
    changes: &'a AtomicU64,
}

/// An index and how full it may get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'a> {
    /// A power of two of them, at least twice the capacity.
    pub(crate) index: &'a [AtomicU64],
    /// Entries; may lag by one a crash.
    pub(crate) count: &'a AtomicU64,
    pub(crate) capacity: u64,
}

/// Words before each definition. So none starts at offset 0, which means that a place is free.
const BLOCK_HEADER: usize = 2;
/// So far before the definition lies since when its series is forgotten, in nanoseconds since the
/// Unix epoch; 0 = it is not.
const FORGOTTEN: usize = 1;
/// And the owner that the series leaves the page with, as a lease has it; 0 = none.
const OWNER: usize = 2;
/// So far before a family's lies how long its series live to which nothing is emitted, in
/// nanoseconds.
const TTL: usize = 1;

impl<'a> Registry<'a> {
    pub(crate) fn new(
        families: Table<'a>,
        series: Table<'a>,
        arena: &'a [AtomicU64],
        arena_next: &'a AtomicU64,
        changes: &'a AtomicU64,
    ) -> Registry<'a> {
        Registry {
            families,
            series,
            arena,
            arena_next,
            changes,
        }
    }

    /// The id of the series, registered now if it was not.
    pub(crate) fn intern(
        &self,
        family: &FamilyDefinition,
        labels: &[(String, String)],
    ) -> Result<SeriesId, RegisterError> {
        family.check()?;
        check_labels(&family.name, labels)?;
        for (name, _) in labels {
            check_label(&family.name, family.metric_type, name)?;
        }
        let family_id = self.intern_family(family)?;
        let series = SeriesDefinition {
            family: family_id,
            labels: registered(labels),
        };
        let key = canonical(&series.labels);
        let same = |offset: usize| self.is_series(offset, family_id, &key);
        let hash = series_hash(family_id, &key);
        let interned = self.intern_in(&self.series, hash, &|| series.encode(), &same);
        let id = interned
            .map(SeriesId)
            .map_err(|full| self.full(&family.name, full, "series", self.series.capacity))?;
        self.remember(id);
        Ok(id)
    }

    /// Has the aggregator take a series off the page, as of `now_ns`; whether it is registered.
    pub(crate) fn forget(&self, id: SeriesId, now_ns: u64) -> bool {
        let Some(forgotten) = self.forgotten(id) else {
            return false;
        };
        forgotten.store(now_ns.max(1), Ordering::Relaxed);
        testpoint!("forgotten");
        // Release: who sees the change sees the word.
        self.changes.fetch_add(1, Ordering::Release);
        true
    }

    /// Brings a series back that was forgotten.
    fn remember(&self, id: SeriesId) {
        if let Some(forgotten) = self.forgotten(id)
            && forgotten.load(Ordering::Relaxed) != 0
        {
            forgotten.store(0, Ordering::Relaxed);
            testpoint!("remembered");
            // Release: as in `forget`.
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// Since when a series is forgotten, in nanoseconds since the Unix epoch; 0 = it is not.
    pub(crate) fn forgotten(&self, id: SeriesId) -> Option<&'a AtomicU64> {
        self.before_definition(id, FORGOTTEN)
    }

    /// How long series of a family live to which nothing is emitted, in nanoseconds; 0 = for ever.
    pub(crate) fn ttl(&self, id: FamilyId) -> Option<&'a AtomicU64> {
        let definition = offset_of(word(self.families.index.get(id.0 as usize)?))?;
        self.arena.get(definition.checked_sub(TTL)?)
    }

    fn before_definition(&self, id: SeriesId, words: usize) -> Option<&'a AtomicU64> {
        let definition = offset_of(word(self.series.index.get(id.0 as usize)?))?;
        self.arena.get(definition.checked_sub(words)?)
    }

    /// Binds a series to an owner: it leaves the page with it.
    pub(crate) fn bind(&self, id: SeriesId, owner: OwnerId) {
        if let Some(bound) = self.before_definition(id, OWNER) {
            let word = Lease::word(owner);
            if bound.load(Ordering::Relaxed) != word {
                // Relaxed: the addition publishes it.
                bound.store(word, Ordering::Relaxed);
                self.changes.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// The owner that a series is bound to.
    pub(crate) fn bound(&self, id: SeriesId) -> Option<OwnerId> {
        let bound = self.before_definition(id, OWNER)?;
        Lease::holder(bound.load(Ordering::Relaxed))
    }

    /// Takes that back, unless the series is another owner's by now.
    pub(crate) fn unbind(&self, id: SeriesId, owner: OwnerId) -> bool {
        let Some(bound) = self.before_definition(id, OWNER) else {
            return false;
        };
        let (owner, relaxed) = (Lease::word(owner), Ordering::Relaxed);
        bound.compare_exchange(owner, 0, relaxed, relaxed).is_ok()
    }

    /// What changes whenever a series is registered, forgotten or registered again.
    pub(crate) fn version(&self) -> (u64, u64) {
        // Acquire: pairs with the additions in `forget` and `remember`.
        let changes = self.changes.load(Ordering::Acquire);
        (self.series.count.load(Ordering::Acquire), changes)
    }

    /// How many ids there can be: those of all series are below it.
    pub(crate) fn ids(&self) -> usize {
        self.series.index.len()
    }

    /// Where the definition of a series' family lies.
    fn family_offset(&self, id: SeriesId) -> Option<usize> {
        let definition = offset_of(word(self.series.index.get(id.0 as usize)?))?;
        let family = self.arena.get(definition)?.load(Ordering::Relaxed) >> 32;
        offset_of(word(self.families.index.get(family as usize)?))
    }

    /// The type of a series' family, without a copy of any definition: for who must ask for no
    /// memory.
    pub(crate) fn metric_type(&self, id: SeriesId) -> Option<MetricType> {
        let family = self.arena.get(self.family_offset(id)?)?;
        metric_type(family.load(Ordering::Relaxed))
    }

    /// Whether a series' family is a native histogram.
    pub(crate) fn is_native(&self, id: SeriesId) -> bool {
        let family = self.family_offset(id).and_then(|at| self.arena.get(at));
        family.is_some_and(|family| family.load(Ordering::Relaxed) >> NATIVE_SHIFT == 1)
    }

    /// The type of a series' family, how many buckets it has, and in which an observation belongs;
    /// without a copy of any definition.
    pub(crate) fn bucket_of(&self, id: SeriesId, value: f64) -> Option<(MetricType, usize, usize)> {
        let family = self.family_offset(id)?;
        let lengths = self.arena.get(family + 1)?.load(Ordering::Relaxed);
        let length = |shift: u32| (lengths >> shift) as usize & 0xffff;
        let words = |shift: u32| length(shift).div_ceil(8);
        let start = family + 2 + words(0) + words(16) + words(32);
        let bounds = self.arena.get(start..start + length(48))?;
        let is_below = |bound: &&AtomicU64| f64::from_bits(bound.load(Ordering::Relaxed)) < value;
        let bucket = bounds.iter().filter(is_below).count();
        Some((self.metric_type(id)?, bounds.len() + 1, bucket))
    }

    /// The id of a series that is registered.
    pub(crate) fn find_series(&self, name: &str, labels: &[(String, String)]) -> Option<SeriesId> {
        let family = self.find_family(name)?;
        let key = canonical(&registered(labels));
        let same = |offset: usize| self.is_series(offset, family, &key);
        self.find(&self.series, series_hash(family, &key), &same)
            .map(SeriesId)
    }

    fn is_series(&self, offset: usize, family: FamilyId, key: &[(String, String)]) -> bool {
        SeriesDefinition::decode(self.arena(), offset)
            .is_some_and(|found| found.family == family && canonical(&found.labels) == key)
    }

    fn intern_family(&self, family: &FamilyDefinition) -> Result<FamilyId, RegisterError> {
        let hash = name_hash(&family.name);
        // What is registered under the name, once it was met: decoded once.
        let met = RefCell::new(None);
        let same = |offset: usize| {
            let found = FamilyDefinition::decode(self.arena(), offset);
            *met.borrow_mut() = found.filter(|found| found.name == family.name);
            met.borrow().is_some()
        };
        let id = match self.find(&self.families, hash, &same) {
            Some(id) => id,
            None => {
                self.refuse_clash(family)?;
                self.intern_in(&self.families, hash, &|| family.encode(), &same)
                    .map_err(|full| {
                        self.full(&family.name, full, "families", self.families.capacity)
                    })?
            }
        };
        let Some(existing) = met.take().filter(|existing| !existing.agrees(family)) else {
            return Ok(FamilyId(id));
        };
        Err(RegisterError::Conflict {
            metric: family.name.clone(),
            existing: existing.to_string(),
            requested: family.to_string(),
        })
    }

    /// Two registrants at the same time can still clash: the exporter leaves the later one out.
    fn refuse_clash(&self, family: &FamilyDefinition) -> Result<(), RegisterError> {
        let clash = |existing: FamilyDefinition| {
            Err(RegisterError::Clash {
                metric: family.name.clone(),
                existing: existing.to_string(),
            })
        };
        for suffix in family.sample_suffixes() {
            if let Some(existing) = self.family_by_name(&format!("{}{suffix}", family.name)) {
                return clash(existing);
            }
        }
        for suffix in ["_bucket", "_sum", "_count"] {
            let base = family
                .name
                .strip_suffix(suffix)
                .and_then(|base| self.family_by_name(base));
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
        let same = |offset: usize| {
            FamilyDefinition::decode(self.arena(), offset).is_some_and(|found| found.name == name)
        };
        self.find(&self.families, name_hash(name), &same)
            .map(FamilyId)
    }

    /// What a family is registered as; `None` when there is none, or garbage.
    pub(crate) fn family(&self, id: FamilyId) -> Option<FamilyDefinition> {
        FamilyDefinition::decode(
            self.arena(),
            offset_of(word(self.families.index.get(id.0 as usize)?))?,
        )
    }

    /// What a series is registered as; `None` when there is none, or garbage.
    pub(crate) fn series(&self, id: SeriesId) -> Option<SeriesDefinition> {
        SeriesDefinition::decode(
            self.arena(),
            offset_of(word(self.series.index.get(id.0 as usize)?))?,
        )
    }

    fn arena(&self) -> Words<'a> {
        Words::new(self.arena)
    }

    /// The place of a key, if it is there.
    fn find(&self, table: &Table<'_>, hash: u64, same: &dyn Fn(usize) -> bool) -> Option<u32> {
        for place in probe(table, hash) {
            let word = word(&table.index[place]);
            let offset = offset_of(word)?;
            if tag_of(word) == tag(hash) && same(offset) {
                return Some(place as u32);
            }
        }
        None
    }

    /// The place of a key, put there if it was not; else what was full.
    fn intern_in(
        &self,
        table: &Table<'_>,
        hash: u64,
        encode: &dyn Fn() -> Vec<u64>,
        same: &dyn Fn(usize) -> bool,
    ) -> Result<u32, Full> {
        let mut fresh = None;
        for place in probe(table, hash) {
            let mut found = word(&table.index[place]);
            if offset_of(found).is_none() {
                if table.count.load(Ordering::Relaxed) >= table.capacity {
                    return Err(Full::Entries);
                }
                let offset = match fresh {
                    Some(offset) => offset,
                    None => *fresh.insert(self.write(&encode())?),
                };
                match publish(&table.index[place], offset | tag(hash) << 32) {
                    Ok(()) => {
                        testpoint!("interned");
                        // Release: who sees the count sees the place.
                        table.count.fetch_add(1, Ordering::Release);
                        testpoint!("counted");
                        return Ok(place as u32);
                    }
                    // Another registrant took the place: perhaps for the same key.
                    Err(winner) => found = winner,
                }
            }
            if tag_of(found) == tag(hash) && offset_of(found).is_some_and(same) {
                return Ok(place as u32);
            }
        }
        Err(Full::Entries)
    }

    /// Appends words to the arena; their offset.
    fn write(&self, words: &[u64]) -> Result<u64, Full> {
        let mut next = self.arena_next.load(Ordering::Relaxed);
        let start = loop {
            let start = next.saturating_add(BLOCK_HEADER as u64);
            let end = start.saturating_add(words.len() as u64);
            if end > self.arena.len() as u64 {
                return Err(Full::Arena);
            }
            // Relaxed: the words between belong to nobody else; E5 publishes them.
            match self
                .arena_next
                .compare_exchange(next, end, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => break start,
                Err(moved) => next = moved,
            }
        };
        testpoint!("arena-taken");
        for (word, value) in self.arena[start as usize..].iter().zip(words) {
            word.store(*value, Ordering::Relaxed);
        }
        testpoint!("defined");
        Ok(start)
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
            Full::Arena => ("words of definitions", self.arena.len() as u64),
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
        for place in 0..self.series.index.len() {
            if let Some(series) = self.series(SeriesId(place as u32)) {
                by_family.entry(series.family.0).or_default().push(series);
            }
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

fn word(place: &AtomicU64) -> u64 {
    // E5 (acquire): pairs with the exchange in `publish`.
    place.load(Ordering::Acquire)
}

fn publish(place: &AtomicU64, value: u64) -> Result<(), u64> {
    // E5 (release): pairs with the load in `word`, and (acquire) with a winner's exchange.
    place
        .compare_exchange(0, value, Ordering::Release, Ordering::Acquire)
        .map(|_| ())
}

fn offset_of(word: u64) -> Option<usize> {
    let offset = word as u32 as usize;
    (offset != 0).then_some(offset)
}

fn tag(hash: u64) -> u64 {
    hash >> 32
}

fn tag_of(word: u64) -> u64 {
    word >> 32
}

/// Every place once, from the hash's own on.
fn probe(table: &Table<'_>, hash: u64) -> impl Iterator<Item = usize> {
    let len = table.index.len();
    (0..len).map(move |step| (hash as usize).wrapping_add(step) & (len - 1))
}
