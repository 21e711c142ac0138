//! A registry on the heap, for tests and models.

use super::{Arena, FREE_STACKS, FamilyDefinition, Registry, Table};
use crate::record::MetricType;
use crate::sync::AtomicU64;

/// The memory of a registry.
pub(crate) struct HeapRegistry {
    pub(crate) families: Vec<AtomicU64>,
    pub(crate) series: Vec<AtomicU64>,
    pub(crate) arena: Vec<AtomicU64>,
    pub(crate) family_count: AtomicU64,
    pub(crate) series_count: AtomicU64,
    pub(crate) arena_next: AtomicU64,
    pub(crate) changes: AtomicU64,
    pub(crate) freed: AtomicU64,
    pub(crate) family_limit: AtomicU64,
    pub(crate) free: [AtomicU64; FREE_STACKS],
}

impl HeapRegistry {
    /// Room for so many families and as many series; powers of two.
    pub(crate) fn new(entries: usize, arena_words: usize) -> HeapRegistry {
        let words = |len| (0..len).map(|_| AtomicU64::new(0)).collect();
        HeapRegistry {
            families: words(entries * 2),
            series: words(entries * 2),
            arena: words(arena_words),
            family_count: AtomicU64::new(0),
            series_count: AtomicU64::new(0),
            arena_next: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            freed: AtomicU64::new(0),
            family_limit: AtomicU64::new(0),
            free: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    pub(crate) fn registry(&self) -> Registry<'_> {
        let table = |heads, count| Table {
            heads,
            count,
            capacity: self.families.len() as u64 / 2,
        };
        Registry::new(
            table(&self.families, &self.family_count),
            table(&self.series, &self.series_count),
            &Arena {
                words: &self.arena,
                next: &self.arena_next,
                free: &self.free,
                changes: &self.changes,
                freed: &self.freed,
                family_limit: &self.family_limit,
            },
        )
    }
}

/// A counter without help or unit.
pub(crate) fn counter(name: &str) -> FamilyDefinition {
    FamilyDefinition::new(name, MetricType::Counter)
}

/// Labels as the registry takes them.
pub(crate) fn labels(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}
