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
//! generation by one exchange (from here on the id is stale, and who registers the series again
//! gets another one), takes the block out of its chain, and offers it to registrants. It waits for
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
mod forget;
mod free;
mod hash;
#[cfg(test)]
pub(crate) mod heap;
mod help;
mod intern;
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
pub(crate) use intern::Refusal;
pub use limit::{FamilySize, OVERFLOW};
pub use merge::Merge;
pub use window::Window;

use crate::record::{MetricType, SeriesId};
use crate::sync::{AtomicU64, Ordering, fence};
use crate::words::Words;
use block::{Blocks, Life, REGISTRANT};
use definition::metric_type;
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

    /// Whether there is a series of that id.
    pub(crate) fn is_open(&self, id: SeriesId) -> bool {
        is_open(self.blocks.arena, id)
    }

    /// Whether there was a series of that id, which was freed since.
    pub(crate) fn is_stale(&self, id: SeriesId) -> bool {
        !self.is_open(id) && self.blocks.is_later(id.0)
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

    /// The family of a series, without a copy of any definition: for callers that must not
    /// allocate.
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

    /// What a family is registered as; `None` if there is no such family, or its words are garbage.
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

    /// What a series is registered as; `None` if there is no such series, or its words are garbage.
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
}

/// Whether there is a series of that id, by the words of the arena alone.
#[inline(always)]
pub(crate) fn is_open(arena: &[AtomicU64], id: SeriesId) -> bool {
    block::find(arena, id.0).is_some()
}

/// The most that a word beside a generation can say.
const WORD_MAX: u64 = (1 << 48) - 1;
