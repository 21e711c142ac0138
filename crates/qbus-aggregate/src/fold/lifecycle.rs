//! How series come to the page and leave it.
//!
//! A series is on the page from its registration on: where the registry's version changed, the
//! aggregator goes through all ids and makes rows for those that it has not met. On the same way it
//! finds series that are forgotten ([`qbus::Bus::forget`]). These are retired: their rows stay and
//! say since when, and readers pass them by. The next record or change of a cell revives a series,
//! and so does a registration; it then goes on from where it stood.
//!
//! What was emitted before a series was forgotten may still lie in lanes and cells. So it is
//! retired only after another round that came to all lanes: what comes later was, but for a moment,
//! emitted later. A gauge's records have times that are compared as well.
//!
//! A family can have a time to live: its series are forgotten when nothing came to them for so
//! long, on the aggregator's clock. A series that is bound to an owner ([`qbus::Bus::bind`]) is
//! forgotten when that has left or was found dead.

use std::collections::{HashMap, VecDeque};
use std::mem::take;

use qbus::{FamilyId, OwnerId, SeriesId};

use super::{Fold, PASSED_OVER, UNPLACED, Writer};

/// So many ids are looked at in some ten microseconds.
const IDS_A_ROUND: usize = 4096;
/// Between the beginnings of two walks over all ids for forgotten ones, each of which reads a word
/// of every definition.
const PERIOD_NS: u64 = 20_000_000;
/// So many rounds, some milliseconds each, a walk is put off at most.
const PUT_OFF_MAX: u32 = 64;
/// So many series are retired in a fraction of a millisecond.
const RETIRED_A_ROUND: usize = 512;

/// Where the walk over all ids is, and what it found.
#[derive(Debug, Default)]
pub(super) struct Lifecycle {
    /// The registry's version as of the last walk.
    version: Option<(u64, u64)>,
    walk: Option<Walk>,
    /// When the last walk for forgotten ones began, on a clock that is never set back.
    began_ns: u64,
    /// Places of series that are forgotten; those before `due` were so before the last round that
    /// came to all lanes.
    forgotten: VecDeque<u32>,
    due: usize,
    /// Rounds since the walk went on.
    put_off: u32,
    /// Series that are bound to an owner, as of the last whole walk, and those that this one found.
    bound: Vec<(SeriesId, OwnerId)>,
    bound_next: Vec<(SeriesId, OwnerId)>,
    /// Families whose series have a time to live, in nanoseconds, and the series to look at next.
    ttls: HashMap<FamilyId, u64>,
    expiring: usize,
}

#[derive(Clone, Copy, Debug)]
struct Walk {
    next: usize,
    version: (u64, u64),
    /// Whether series may have been forgotten or remembered since the last one.
    is_changed: bool,
}

impl Fold {
    /// Ends a round: retires what was forgotten, and meets what is new. `is_whole`: it came to all
    /// lanes.
    pub(crate) fn end(&mut self, writer: &mut Writer, is_whole: bool) {
        self.retire();
        if is_whole {
            self.lifecycle.due = self.lifecycle.forgotten.len();
        }
        // Lanes that fill come first, and bring new series with them.
        let is_behind = !is_whole || self.made > 0;
        if is_behind && self.lifecycle.put_off < PUT_OFF_MAX {
            self.lifecycle.put_off += 1;
        } else {
            self.lifecycle.put_off = 0;
            self.walk(writer);
        }
    }

    /// Leaves what is registered now off the page, until something is emitted to it.
    pub(crate) fn pass_over(&mut self) {
        for (id, place) in self.places.iter_mut().enumerate() {
            if *place == 0 && self.bus.is_registered(SeriesId(id as u32)) {
                *place = PASSED_OVER;
            }
        }
    }

    /// Whether the walk over all ids, or something that it found, waits for another round.
    pub(crate) fn is_waiting(&self) -> bool {
        self.lifecycle.walk.is_some() || !self.lifecycle.forgotten.is_empty()
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
        let end = (from + IDS_A_ROUND).min(self.series.len());
        for series in &self.series[from..end] {
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

    /// Goes on with the walk over all ids, or begins one if the registry changed.
    fn walk(&mut self, writer: &mut Writer) {
        let Some(mut walk) = self.lifecycle.walk.take().or_else(|| self.begin_walk()) else {
            return;
        };
        let ids = self.places.len();
        let end = (walk.next + IDS_A_ROUND).min(ids);
        while walk.next < end && !self.is_busy() {
            self.look_at(writer, SeriesId(walk.next as u32), walk.is_changed);
            walk.next += 1;
        }
        if walk.next < ids {
            self.lifecycle.walk = Some(walk);
            return;
        }
        self.lifecycle.version = Some(walk.version);
        if walk.is_changed {
            self.lifecycle.bound = take(&mut self.lifecycle.bound_next);
        }
    }

    /// Forgets what is bound to owners that are there no more.
    pub(crate) fn forget_with_owners(&mut self) {
        let bus = &self.bus;
        self.lifecycle
            .bound
            .retain(|&(id, owner)| bus.forget_with_owner(id, owner));
    }

    fn begin_walk(&mut self) -> Option<Walk> {
        let mut version = self.bus.registry_version();
        let mut is_changed = true;
        if let Some(last) = self.lifecycle.version {
            let since_ns = self.monotonic_ns.saturating_sub(self.lifecycle.began_ns);
            let is_soon = since_ns < PERIOD_NS;
            if is_soon {
                // Left for later.
                version.1 = last.1;
            }
            if version == last {
                return None;
            }
            is_changed = version.1 != last.1;
        }
        if is_changed {
            self.lifecycle.began_ns = self.monotonic_ns;
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
        let known = self.places[id.0 as usize];
        if known == 0 || known == UNPLACED {
            self.meet(writer, id);
        } else if known != PASSED_OVER && is_changed {
            let place = known as usize - 1;
            let retired_ns = self.series[place].retired_ns();
            match self.bus.forgotten_ns(id) {
                Some(_) if retired_ns == 0 => self.find_forgotten(place),
                // Forgotten once more: it stays retired.
                Some(_) => {}
                None if retired_ns != 0 => self.revive(place),
                None => {}
            }
        }
    }

    /// Makes a row for a series to which nothing was emitted.
    fn meet(&mut self, writer: &mut Writer, id: SeriesId) {
        let is_new = self.bus.is_registered(id) && self.bus.forgotten_ns(id).is_none();
        if is_new && let Ok(place) = self.find_place(writer, id) {
            self.series[place].meet(self.now_ns);
            self.touch(place);
        }
    }

    /// Notes that a series is forgotten, unless that is known.
    pub(super) fn find_forgotten(&mut self, place: usize) {
        let series = &mut self.series[place];
        if !series.is_forgotten {
            series.is_forgotten = true;
            self.lifecycle.forgotten.push_back(place as u32);
        }
    }

    /// Retires what was forgotten before the last round that came to all lanes.
    fn retire(&mut self) {
        for _ in 0..self.lifecycle.due.min(RETIRED_A_ROUND) {
            let Some(place) = self.lifecycle.forgotten.pop_front() else {
                break;
            };
            self.lifecycle.due -= 1;
            let series = &mut self.series[place as usize];
            series.is_forgotten = false;
            // Meanwhile it may have been registered again.
            let Some(since_ns) = self.bus.forgotten_ns(series.id) else {
                continue;
            };
            if series.retire(since_ns) {
                self.touch(place as usize);
            } else {
                self.bus.revive(series.id, since_ns);
            }
        }
    }

    /// Puts a series back on the page.
    #[cold]
    pub(super) fn revive(&mut self, place: usize) {
        let series = &mut self.series[place];
        self.bus.revive(series.id, series.retired_ns());
        series.revive();
        // Its time to live begins anew, also where a registration brings it back.
        series.arrived_ns = self.monotonic_ns;
        self.touch(place);
    }

    fn touch(&mut self, place: usize) {
        let series = &mut self.series[place];
        if !series.touched {
            series.touched = true;
            self.touched.push(place as u32);
        }
    }
}
