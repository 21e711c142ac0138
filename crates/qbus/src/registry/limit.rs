//! Limits: how many series a family has, and which of them stand for all others.
//!
//! A family has room for so many series that are not forgotten. What is registered beyond is
//! counted in another series: the label that had the most values when the limit was reached has the
//! value [`OVERFLOW`] there. Where the other labels have too many values too, all labels have it.
//! So sums stay exact, and no program fills the registry by a label with a value for each request.
//!
//! The count is changed after an entry is, as that of a table: who dies in between has it lag by 1
//! until `sweep`, and registrants at the same moment may exceed the limit by one each.

use std::collections::{BTreeMap, BTreeSet};

use super::block::{Block, Blocks, Life, POPULATION};
use super::{FamilyId, Merge, Registry, SeriesDefinition};
use crate::error::{Largest, Registrant};
use crate::record::SeriesId;
use crate::sync::Ordering;

/// The value of a label under which all values beyond a limit are counted together.
pub const OVERFLOW: &str = "__overflow__";

/// The highest limit of a family; a higher one means that there is no limit.
const LIMIT_MAX: u64 = (1 << 18) - 2;
/// For series in which one label stands for others there is room for so many more at least: one for
/// each value of the other labels.
const RESERVE_MIN: u64 = 16;
/// How many series are looked at to find the label with the most values.
const LOOKED_AT_MAX: usize = 2048;

/// What a family's block says of its series: how many are not forgotten (24 bits), the limit that
/// was asked for, plus 1 (18 bits; 0 = none was asked for), and which of its labels stands for all
/// values beyond it, by its place in the order of their names, plus 1 (6 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Population(u64);

impl Population {
    const COUNT: u64 = (1 << 24) - 1;
    const LIMIT_SHIFT: u32 = 24;
    const LABEL_SHIFT: u32 = 42;

    fn of(blocks: &Blocks<'_>, (block, life): (Block, Life)) -> Population {
        Population(blocks.load(block, POPULATION, life))
    }

    fn count(self) -> u64 {
        self.0 & Self::COUNT
    }

    fn with_count(self, count: u64) -> Population {
        Population(self.0 & !Self::COUNT | count.min(Self::COUNT))
    }

    /// The limit that was asked for; 0 = there is to be none.
    fn limit(self) -> Option<u64> {
        (self.0 >> Self::LIMIT_SHIFT & (LIMIT_MAX + 1)).checked_sub(1)
    }

    fn with_limit(self, limit: u64) -> Population {
        let limit = if limit > LIMIT_MAX { 0 } else { limit };
        let rest = self.0 & !((LIMIT_MAX + 1) << Self::LIMIT_SHIFT);
        Population(rest | (limit + 1) << Self::LIMIT_SHIFT)
    }

    /// Which label stands for values beyond the limit.
    fn label(self) -> Option<usize> {
        (self.0 >> Self::LABEL_SHIFT)
            .checked_sub(1)
            .map(|at| at as usize)
    }

    fn with_label(self, at: usize) -> Population {
        let rest = self.0 & ((1 << Self::LABEL_SHIFT) - 1);
        Population(rest | (at as u64 + 1) << Self::LABEL_SHIFT)
    }
}

/// How many series a family may have for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Its limit.
    Limit,
    /// An eighth more, or [`RESERVE_MIN`]: for those in which one label stands for others.
    Reserve,
    /// Any number: for the one in which all labels do.
    Any,
}

/// What a family has, for those who look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilySize {
    /// Series that are not forgotten.
    pub series: u64,
    /// How many it may have; `None` is any number.
    pub limit: Option<u64>,
}

impl Registry<'_> {
    /// How many series a family has, and may have.
    pub(crate) fn family_size(&self, id: FamilyId) -> Option<FamilySize> {
        let population = Population::of(&self.blocks, self.blocks.find(id.0)?);
        let default = self.family_limit.load(Ordering::Relaxed);
        Some(FamilySize {
            series: population.count(),
            limit: Some(population.limit().unwrap_or(default)).filter(|&limit| limit != 0),
        })
    }

    /// Has a family have so many series at most; 0 is any number.
    pub(crate) fn set_limit(&self, id: FamilyId, limit: u64) {
        self.change_population(id, |population| population.with_limit(limit));
    }

    /// Whether a family has room for one more series.
    pub(super) fn has_room(&self, id: FamilyId, room: Room) -> bool {
        if room == Room::Any {
            return true;
        }
        let Some(FamilySize { series, limit }) = self.family_size(id) else {
            return true;
        };
        limit.is_none_or(|limit| match room {
            Room::Reserve => series < limit.saturating_add((limit / 8).max(RESERVE_MIN)),
            Room::Limit | Room::Any => series < limit,
        })
    }

    /// Counts a series that was registered or remembered.
    pub(super) fn count_in(&self, family: Option<FamilyId>) {
        if let Some(family) = family {
            self.change_population(family, |it| it.with_count(it.count() + 1));
        }
    }

    /// Counts a series that was forgotten.
    pub(super) fn count_out(&self, family: Option<FamilyId>) {
        if let Some(family) = family {
            self.change_population(family, |it| it.with_count(it.count().saturating_sub(1)));
        }
    }

    fn change_population(&self, id: FamilyId, change: impl Fn(Population) -> Population) {
        if let Some(found) = self.blocks.find(id.0) {
            let change = |word| Some(change(Population(word)).0);
            self.blocks.change(found, POPULATION, change);
        }
    }

    /// Counts the series of all families anew. For the one aggregator, at its start.
    pub(super) fn recount(&self) {
        let before: Vec<_> = self
            .family_ids()
            .into_iter()
            .filter_map(|id| Some((id, self.family_size(id)?.series)))
            .collect();
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        let living = self.series_ids().filter(|&id| self.forgotten(id).is_none());
        for family in living.filter_map(|id| self.family_of(id)) {
            *counts.entry(family.0).or_default() += 1;
        }
        for (family, series) in before {
            let counted = counts.get(&family.0).copied().unwrap_or(0);
            // Unless somebody registers one right now: the next aggregator counts again.
            self.change_population(family, |it| match it.count() == series {
                true => it.with_count(counted),
                false => it,
            });
        }
    }

    /// The series that are there for those beyond the limit of their families.
    pub(crate) fn overflow_series(&self) -> Vec<(SeriesId, SeriesDefinition)> {
        let is_chosen = |id: &FamilyId| {
            let found = self.blocks.find(id.0);
            found.is_some_and(|found| Population::of(&self.blocks, found).label().is_some())
        };
        let families: BTreeSet<u32> = self
            .family_ids()
            .iter()
            .filter(|id| is_chosen(id))
            .map(|id| id.0)
            .collect();
        if families.is_empty() {
            return Vec::new();
        }
        let is_of = |id: &SeriesId| {
            self.family_of(*id)
                .is_some_and(|id| families.contains(&id.0))
        };
        let found = self
            .series_ids()
            .filter(is_of)
            .filter_map(|id| Some((id, self.series(id)?)));
        let is_overflow = |(_, value): &(String, String)| value == OVERFLOW;
        found
            .filter(|(_, series)| series.labels.iter().any(is_overflow))
            .collect()
    }

    /// Labels of the series in which others are counted: with one that stands for all values of a
    /// label, or with nothing else.
    pub(super) fn overflowing(
        &self,
        family: FamilyId,
        merge: Merge,
        labels: &[(String, String)],
        room: Room,
    ) -> Vec<(String, String)> {
        // A series a process is merged by that label.
        let is_kept = |name: &str| merge.is_by_process() && name == Merge::PROCESS_LABEL;
        let widest = match room {
            Room::Reserve => self.widest(family, &is_kept, labels),
            Room::Limit | Room::Any => None,
        };
        let fold = |(name, value): &(String, String)| {
            let is_folded = widest.as_ref().is_none_or(|widest| widest == name) && !is_kept(name);
            let value = if is_folded { OVERFLOW } else { value };
            (name.clone(), value.to_owned())
        };
        labels.iter().map(fold).collect()
    }

    /// The label that had the most values when the limit was reached, which is now if it was not
    /// before; `None` when the labels do not have it.
    fn widest(
        &self,
        family: FamilyId,
        is_kept: &dyn Fn(&str) -> bool,
        labels: &[(String, String)],
    ) -> Option<String> {
        let chosen = || {
            let found = self.blocks.find(family.0)?;
            Population::of(&self.blocks, found).label()
        };
        let names: BTreeSet<&str> = labels.iter().map(|(name, _)| &**name).collect();
        let names: Vec<&str> = names.into_iter().collect();
        if chosen().is_none() {
            let mut values: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            let is_of = |id: &SeriesId| self.family_of(*id) == Some(family);
            let series = self.series_ids().filter(is_of).take(LOOKED_AT_MAX);
            for (name, value) in series
                .filter_map(|id| self.series(id))
                .flat_map(|it| it.labels)
            {
                values.entry(name).or_default().insert(value);
            }
            let values = |name: &str| values.get(name).map_or(0, BTreeSet::len);
            let candidates = (0..names.len()).filter(|&at| !is_kept(names[at]));
            let widest = candidates.max_by_key(|&at| values(names[at]))?;
            self.change_population(family, |it| match it.label() {
                None => it.with_label(widest),
                // Somebody else was first: all are to choose the same.
                Some(_) => it,
            });
        }
        names.get(chosen()?).map(|name| (*name).to_owned())
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
