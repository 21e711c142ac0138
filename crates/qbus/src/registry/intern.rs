//! Interning: the id of a key, put into its chain if it was not there.

use super::block::TRIES;
use super::definition::{
    self, FamilyDefinition, FamilyId, SeriesDefinition, Sink, check_label, check_labels, registered,
};
use super::hash::{name_hash, series_hash};
use super::limit::Room;
use super::{Registry, Table};
use crate::error::RegisterError;
use crate::record::SeriesId;
use crate::sync::Ordering;
use crate::testpoint;

impl Registry<'_> {
    /// The id of the series, registered now if it was not; or of the one in which it is counted,
    /// where its family has as many as it may have.
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
        let id = match interned {
            Err(Refusal::Crowded(id)) => self.intern_overflowing(family, id, &labels),
            interned => interned,
        }
        .map_err(|refusal| self.told(refusal, &family.name))?;
        // Not where a handle registers its series again: that says nothing new.
        if let Some(family_id) = self.family_of(id) {
            self.renew_help(family_id, &family.help);
        }
        Ok(id)
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
        let found = self
            .series
            .search(&self.blocks, series_hash(id, labels), &same);
        let (block, life) = found.entry?;
        let series = SeriesId(self.blocks.id(block, life));
        // One that is not forgotten keeps its family: whoever registered it saw to that (E8).
        if life.is_forgotten() && !(self.remember(series) && self.keep_family(id)) {
            return None;
        }
        self.renew_help(id, &family.help);
        Some(series)
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

    pub(super) fn intern_within(
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

    pub(super) fn intern_family(&self, family: &FamilyDefinition) -> Result<FamilyId, Refusal> {
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
    pub(super) fn told(&self, refusal: Refusal, metric: &str) -> RegisterError {
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

/// Why something was not registered. Making one does not allocate, unless it is [`Refusal::Told`].
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
