//! How series appear on the page, leave it, and make room for others.
//!
//! A series is on the page from its registration on: where the registry's version changed, the
//! aggregator goes through all chains and makes rows for series that it has not met. On the same
//! way it finds series that are forgotten ([`qbus::Bus::forget`]). These are retired: their rows
//! stay and say since when, and readers pass them by. The next record or change of a cell revives a
//! series, and so does a registration; it then goes on from where it stood.
//!
//! What was emitted before a series was forgotten may still lie in lanes and cells. So it is
//! retired only after another round that came to all lanes: what comes later was emitted later, and
//! brings it back. A gauge's records have times that are compared as well.
//!
//! A family can have a time to live: its series are forgotten when nothing came to them for so
//! long, on the aggregator's clock. A series that is bound to an owner ([`qbus::Bus::bind`]) is
//! forgotten when that has left or was found dead.
//!
//! What is retired is kept for [`KEPT_NS`], unless its place is needed, or somebody registers its
//! family with another definition; then it is freed. From the exchange in the registry
//! on its id is stale ([`qbus::Consumer::free_series`]): then its row is taken out of the
//! directory, and the words that it had are given to others. A successor of an aggregator that was
//! killed in between finds rows whose ids are stale, and goes on from there. What was emitted under
//! the old id while that happened registers the series again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::mem::take;

use qbus::{Consumer, FamilyDefinition, FamilyId, OwnerId, SeriesId, testpoint};

use super::{Fold, PASSED_OVER, SeriesState, Writer};

/// So many chains are walked in some ten microseconds.
const CHAINS_A_ROUND: usize = 2048;
/// So many series are checked for their time to live in as long.
const SERIES_A_ROUND: usize = 4096;
/// Between the beginnings of two walks through all chains for forgotten series, each of which reads
/// a word of every definition.
const PERIOD_NS: u64 = 20_000_000;
/// So many rounds, some milliseconds each, a walk is put off at most.
const PUT_OFF_MAX: u32 = 64;
/// So many series are retired in a fraction of a millisecond, and so many freed, also in a round
/// that makes as many as one may.
const RETIRED_A_ROUND: usize = 512;
const FREED_A_ROUND: usize = 96;
/// How long what may come back is kept, by the aggregator's clock.
const KEPT_NS: u64 = 60_000_000_000;

/// How long it is remembered what was freed: nobody takes as long from a look at an id to what it
/// emits under it, unless it is stopped.
const DEPARTED_NS: u64 = 1_000_000_000;
/// And of how many series.
const DEPARTED_MAX: usize = 1 << 14;

/// What a series was registered as.
type Definition = (FamilyDefinition, Vec<(String, String)>);

/// Where the walk through all chains is, and what it found.
#[derive(Debug, Default)]
pub(super) struct Lifecycle {
    /// The registry's version as of the last walk.
    version: Option<(u64, u64)>,
    walk: Option<Walk>,
    /// When the last walk for forgotten ones began, on a clock that is never set back.
    began_ns: u64,
    /// Series that are forgotten, and for those before `due` the round after which they are to be
    /// retired: the first one that came to all lanes since.
    forgotten: VecDeque<(SeriesId, u64)>,
    due: usize,
    /// Series to be freed at once, likewise: retired, or never met.
    leaving: VecDeque<SeriesId>,
    leaving_due: usize,
    /// Series that are retired, and since when on the aggregator's clock, in order.
    kept: VecDeque<(SeriesId, u64)>,
    /// Series that were freed a moment ago, the first one first, and what they were.
    departed: VecDeque<(SeriesId, u64)>,
    /// In boxes: thousands are moved where the table grows.
    definitions: HashMap<SeriesId, Box<Definition>>,
    /// Rounds since the walk went on.
    put_off: u32,
    /// Series that are bound to an owner, as of the last whole walk, and those that this one found.
    bound: Vec<(SeriesId, OwnerId)>,
    bound_next: Vec<(SeriesId, OwnerId)>,
    /// Families of which no series is known any more, and those that a walk looks for.
    empty: HashSet<FamilyId>,
    suspected: HashSet<FamilyId>,
    /// Families whose series have a time to live, in nanoseconds, and the series to look at next.
    ttls: HashMap<FamilyId, u64>,
    expiring: usize,
    ids: Vec<SeriesId>,
}

#[derive(Clone, Copy, Debug)]
struct Walk {
    next: usize,
    version: (u64, u64),
    /// Whether series may have been forgotten or remembered since the last one.
    is_changed: bool,
}

impl Lifecycle {
    /// What a series was that was freed a moment ago.
    pub(super) fn departed(&self, id: SeriesId) -> Option<&Definition> {
        self.definitions.get(&id).map(Box::as_ref)
    }

    fn remember(&mut self, id: SeriesId, definition: Definition, now_ns: u64) {
        self.departed.push_back((id, now_ns));
        self.definitions.insert(id, Box::new(definition));
        self.let_go(now_ns);
    }

    /// Remembers no more what was freed long ago.
    fn let_go(&mut self, now_ns: u64) {
        while let Some(&(first, since_ns)) = self.departed.front()
            && (self.departed.len() > DEPARTED_MAX || now_ns.saturating_sub(since_ns) > DEPARTED_NS)
        {
            self.departed.pop_front();
            self.definitions.remove(&first);
        }
    }
}

impl Fold {
    /// Ends a round: retires and frees what was forgotten, and meets what is new. `is_whole`: it
    /// came to all lanes.
    pub(crate) fn end(&mut self, writer: &mut Writer, consumer: &Consumer, is_whole: bool) {
        if is_whole {
            let is_due = self.lifecycle.forgotten.iter_mut().skip(self.lifecycle.due);
            is_due.for_each(|(_, due_ns)| *due_ns = self.monotonic_ns);
            self.lifecycle.due = self.lifecycle.forgotten.len();
        }
        self.retire();
        self.lifecycle.let_go(self.monotonic_ns);
        self.free(writer, consumer);
        if is_whole {
            self.lifecycle.leaving_due = self.lifecycle.leaving.len();
        }
        // Lanes that fill come first, and bring new series with them.
        let is_behind = !is_whole || self.made > 0;
        if is_behind && self.lifecycle.put_off < PUT_OFF_MAX {
            self.lifecycle.put_off += 1;
        } else {
            self.lifecycle.put_off = 0;
            self.walk(writer, consumer);
        }
    }

    /// Leaves what is registered now off the page, until something is emitted to it.
    pub(crate) fn pass_over(&mut self) {
        for id in self.bus.series_ids() {
            let place = (id.0 & self.place_mask) as usize;
            if let Some(known) = self.places.get_mut(place).filter(|known| **known == 0) {
                *known = PASSED_OVER;
            }
        }
    }

    /// Whether the walk through all chains, or something that it found, or the end of a step, waits
    /// for another round.
    pub(crate) fn is_waiting(&self) -> bool {
        let Lifecycle {
            walk,
            forgotten,
            leaving,
            suspected,
            ..
        } = &self.lifecycle;
        let is_behind = self.windows.is_behind(self.monotonic_ns);
        walk.is_some()
            || !forgotten.is_empty()
            || !leaving.is_empty()
            || !suspected.is_empty()
            || is_behind
    }

    /// Forgets series to which nothing came for as long as their family lets them live. Some
    /// thousand of them at each call.
    pub(crate) fn expire(&mut self) {
        let (bus, from) = (&self.bus, self.lifecycle.expiring);
        if from == 0 {
            let ttl = |&family: &FamilyId| Some((family, bus.ttl_ns(family)?));
            self.lifecycle.ttls = self.families.keys().filter_map(ttl).collect();
        }
        let ttls = &self.lifecycle.ttls;
        if ttls.is_empty() {
            return;
        }
        let end = (from + SERIES_A_ROUND).min(self.series.len());
        for series in &self.series[from.min(end)..end] {
            let Some(ttl_ns) = ttls.get(&series.family) else {
                continue;
            };
            let is_over = self.monotonic_ns.saturating_sub(series.arrived_ns) > *ttl_ns;
            if is_over && series.retired_ns() == 0 && !series.is_forgotten {
                bus.forget(series.id);
            }
        }
        self.lifecycle.expiring = if end < self.series.len() { end } else { 0 };
    }

    /// Goes on with the walk through all chains, or begins one if the registry changed.
    fn walk(&mut self, writer: &mut Writer, consumer: &Consumer) {
        let begun = |fold: &mut Fold| fold.begin_walk(consumer);
        let Some(mut walk) = self.lifecycle.walk.take().or_else(|| begun(self)) else {
            return;
        };
        let chains = self.bus.chains();
        let end = (walk.next + CHAINS_A_ROUND).min(chains);
        let mut ids = take(&mut self.lifecycle.ids);
        while walk.next < end && !self.is_busy() {
            self.bus.chain_ids(walk.next, &mut ids);
            for &id in &ids {
                self.look_at(writer, id, walk.is_changed);
            }
            walk.next += 1;
        }
        self.lifecycle.ids = ids;
        if walk.next < chains {
            self.lifecycle.walk = Some(walk);
            return;
        }
        self.lifecycle.version = Some(walk.version);
        if walk.is_changed {
            self.lifecycle.bound = take(&mut self.lifecycle.bound_next);
            self.renew_helps(writer);
        }
        self.free_families(writer, consumer);
    }

    /// Forgets what is bound to owners that are there no more.
    pub(crate) fn forget_with_owners(&mut self) {
        let bus = &self.bus;
        self.lifecycle
            .bound
            .retain(|&(id, owner)| bus.forget_with_owner(id, owner));
    }

    fn begin_walk(&mut self, consumer: &Consumer) -> Option<Walk> {
        let mut version = self.bus.registry_version();
        let mut is_changed = true;
        if let Some(last) = self.lifecycle.version {
            let since_ns = self.monotonic_ns.saturating_sub(self.lifecycle.began_ns);
            let is_soon = since_ns < PERIOD_NS;
            if is_soon {
                // Left for later.
                version.1 = last.1;
            }
            let has_suspects = !self.lifecycle.empty.is_empty() && !is_soon;
            if version == last && !has_suspects {
                return None;
            }
            is_changed = version.1 != last.1 || has_suspects;
        }
        if is_changed {
            self.lifecycle.began_ns = self.monotonic_ns;
            // Marked before the walk looks for series of them.
            for family in take(&mut self.lifecycle.empty) {
                if consumer.suspect_family(family) {
                    self.lifecycle.suspected.insert(family);
                }
            }
        }
        Some(Walk {
            next: 0,
            version,
            is_changed,
        })
    }

    fn look_at(&mut self, writer: &mut Writer, id: SeriesId, is_changed: bool) {
        if is_changed && let Some(owner) = self.bus.bound(id) {
            self.lifecycle.bound_next.push((id, owner));
        }
        if !self.lifecycle.suspected.is_empty()
            && let Some(family) = self.bus.family_of(id)
        {
            self.lifecycle.suspected.remove(&family);
        }
        let Some(&known) = self.places.get(self.place_of(id)) else {
            return;
        };
        let index = known.wrapping_sub(1) as usize;
        let is_met = self.series.get(index).is_some_and(|series| series.id == id);
        if is_met && is_changed {
            let retired_ns = self.series[index].retired_ns();
            match self.bus.forgotten_ns(id) {
                Some(_) if retired_ns == 0 => self.find_forgotten(index),
                // Forgotten once more: it stays retired.
                Some(_) => self.free_if_meant(index),
                None if retired_ns != 0 => self.revive(index),
                None => {}
            }
        } else if !is_met && is_changed && self.bus.forgotten_ns(id).is_some() {
            // Off the page anyway; what was emitted to it meets it.
            self.lifecycle.leaving.push_back(id);
        } else if !is_met && known != PASSED_OVER {
            self.meet(writer, id);
        }
    }

    /// Makes a row for a series to which nothing was emitted.
    fn meet(&mut self, writer: &mut Writer, id: SeriesId) {
        let is_new = self.bus.is_registered(id) && self.bus.forgotten_ns(id).is_none();
        if is_new && let Ok(index) = self.find_place(writer, id) {
            self.series[index].meet(self.now_ns);
            self.touch(index);
        }
    }

    /// Notes that a series is forgotten, unless that is known.
    pub(super) fn find_forgotten(&mut self, index: usize) {
        let series = &mut self.series[index];
        if !series.is_forgotten {
            series.is_forgotten = true;
            self.lifecycle.forgotten.push_back((series.id, 0));
        }
    }

    /// Retires what was forgotten before the last round that came to all lanes.
    fn retire(&mut self) {
        for _ in 0..self.lifecycle.due.min(RETIRED_A_ROUND) {
            let Some((id, due_ns)) = self.lifecycle.forgotten.pop_front() else {
                break;
            };
            self.lifecycle.due -= 1;
            let index = self.index_of(id);
            let Some(series) = self.series.get_mut(index).filter(|series| series.id == id) else {
                continue;
            };
            series.is_forgotten = false;
            // Meanwhile it may have been registered again.
            let Some(since_ns) = self.bus.forgotten_ns(id) else {
                continue;
            };
            // Where many are, this is a later round.
            if series.arrived_ns > due_ns || !series.retire(since_ns, self.now_ns) {
                self.bus.revive(id, since_ns);
                continue;
            }
            self.touch(index);
            self.free_later(id);
        }
    }

    /// Has a series freed that is retired: soon, or when it was kept for long enough.
    fn free_later(&mut self, id: SeriesId) {
        if self.bus.is_to_be_freed(id) {
            self.lifecycle.leaving.push_back(id);
        } else {
            self.lifecycle.kept.push_back((id, self.monotonic_ns));
        }
    }

    /// Has a series freed soon that was retired to be kept, and then forgotten for good.
    fn free_if_meant(&mut self, index: usize) {
        let id = self.series[index].id;
        if self.bus.is_to_be_freed(id) && !self.series[index].is_forgotten {
            self.series[index].is_forgotten = true;
            self.lifecycle.leaving.push_back(id);
        }
    }

    /// Frees what is to be: some of it.
    fn free(&mut self, writer: &mut Writer, consumer: &Consumer) {
        let mut ids = Vec::new();
        while ids.len() < FREED_A_ROUND && self.lifecycle.leaving_due > 0 {
            self.lifecycle.leaving_due -= 1;
            ids.extend(self.lifecycle.leaving.pop_front());
        }
        let is_needed = !self.lifecycle.kept.is_empty() && consumer.is_filling();
        while ids.len() < FREED_A_ROUND
            && let Some(&(id, since_ns)) = self.lifecycle.kept.front()
            && (is_needed || self.monotonic_ns.saturating_sub(since_ns) >= KEPT_NS)
        {
            self.lifecycle.kept.pop_front();
            ids.push(id);
        }
        // What was revived meanwhile has no part in it.
        ids.retain(|&id| {
            let known = self.series.get(self.index_of(id));
            let known = known.filter(|series| series.id == id);
            known.is_none_or(|series| series.retired_ns() != 0)
        });
        if ids.is_empty() || consumer.is_superseded() {
            return;
        }
        let definition = |&id: &SeriesId| Some((id, self.definition(id)?));
        let mut definitions: HashMap<_, _> = ids.iter().filter_map(definition).collect();
        // A family none of whose series was ever met is checked as well.
        for &id in &ids {
            let is_met = |series: &SeriesState| series.id == id;
            if !self.series.get(self.index_of(id)).is_some_and(is_met) {
                self.lifecycle.empty.extend(self.bus.family_of(id));
            }
        }
        let chosen = ids.clone();
        consumer.free_series(&mut ids);
        for id in chosen {
            // Forgotten once more just then: it stays retired, and is freed another time. One whose
            // definition makes no sense never is.
            let is_left = ids.binary_search(&id).is_err() && definitions.contains_key(&id);
            if is_left && self.bus.forgotten_ns(id).is_some() {
                self.free_later(id);
            }
        }
        for id in ids {
            if let Some(definition) = definitions.remove(&id) {
                self.lifecycle.remember(id, definition, self.monotonic_ns);
            }
            self.leave(writer, id);
        }
    }

    fn definition(&self, id: SeriesId) -> Option<Definition> {
        let series = self.bus.series(id)?;
        Some((self.bus.family(series.family)?, series.labels))
    }

    /// Frees the words of the snapshot that a freed series had.
    fn leave(&mut self, writer: &mut Writer, id: SeriesId) {
        let (place, index) = (self.place_of(id), self.index_of(id));
        if let Some(at) = self.homeless.remove(&id) {
            writer.free_definition(at);
        }
        let Some(series) = self.series.get_mut(index).filter(|series| series.id == id) else {
            if let Some(known) = self.places.get_mut(place) {
                *known = 0;
            }
            return;
        };
        if series.touched {
            // By a record that came too late to bring it back.
            self.touched.retain(|&touched| touched as usize != index);
        }
        writer.free_series(place, series.history, series.window().block);
        testpoint!("series-freed");
        let family = series.family;
        *series = series.unused();
        self.places[place] = 0;
        self.unused.push(index as u32);
        if let Some(known) = self.families.get_mut(&family) {
            known.series -= 1;
            if known.series == 0 {
                self.lifecycle.empty.insert(family);
            }
        }
    }

    /// Frees families of which the walk that is over found no series.
    fn free_families(&mut self, writer: &mut Writer, consumer: &Consumer) {
        for family in take(&mut self.lifecycle.suspected) {
            let is_empty = |known: &super::place::PlacedFamily| known.series == 0;
            let is_empty = self.families.get(&family).is_none_or(is_empty);
            if is_empty && !consumer.is_superseded() && consumer.free_family(family) {
                // Unless no series of it was ever met.
                if let Some(known) = self.families.remove(&family) {
                    writer.free_family(known.at);
                }
            }
        }
    }

    /// After a restart: families whose series are all gone are checked once more.
    pub(super) fn free_families_left(&mut self) {
        let is_known = |family: &FamilyId| {
            let known = self.families.get(family);
            known.is_some_and(|known| known.series > 0)
        };
        let ids = self.bus.family_ids().into_iter();
        self.lifecycle.empty = ids.filter(|family| !is_known(family)).collect();
        let retired = self.series.iter().filter(|series| series.retired_ns() != 0);
        for id in retired.map(|series| series.id).collect::<Vec<_>>() {
            self.free_later(id);
        }
    }

    /// Puts a series back on the page.
    #[cold]
    pub(super) fn revive(&mut self, index: usize) {
        let series = &mut self.series[index];
        self.bus.revive(series.id, series.retired_ns());
        series.revive();
        series.is_forgotten = false;
        // Its time to live begins anew, also where a registration brings it back.
        series.arrived_ns = self.monotonic_ns;
        self.touch(index);
    }

    pub(super) fn touch(&mut self, index: usize) {
        let series = &mut self.series[index];
        if !series.touched {
            series.touched = true;
            self.touched.push(index as u32);
        }
    }
}
