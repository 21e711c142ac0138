//! Places: where series and their families lie in the snapshot, and who has room there.

use std::sync::Arc;

use qbus::{FamilyDefinition, FamilyId, MetricType, OVERFLOW, SeriesDefinition, SeriesId, Window};

use super::state::SeriesState;
use super::{FIRST_POINTS, Fold, UNPLACED};
use crate::snapshot::ring::{Points, Ring};
use crate::snapshot::row::{BlockHeader, LEN_MAX};
use crate::snapshot::writer::Writer;

/// Why a series has no place.
#[derive(Clone, Copy, Debug)]
pub(super) enum NoPlace {
    /// Nobody registered it.
    Undefined,
    /// It was freed: another series has its place, or none.
    Stale,
    /// The snapshot is full.
    NoRoom,
}

/// A family of series in the snapshot.
#[derive(Clone, Debug)]
pub(super) struct PlacedFamily {
    /// Where its definition lies.
    pub(super) at: usize,
    pub(super) metric_type: MetricType,
    pub(super) bounds: Arc<[f64]>,
    pub(super) native: bool,
    pub(super) window: Window,
    /// How many series of it there are.
    pub(super) series: usize,
    /// What the registry said of its help text when that was read; `None` after a start.
    pub(super) help: Option<u64>,
    /// Whether one of its series is there for those beyond its limit.
    pub(super) is_overflowing: bool,
}

/// The family of a series that is to have a place.
enum FoundFamily {
    Known(PlacedFamily),
    /// And what the registry said of its help text before it was read.
    New(FamilyDefinition, u64),
}

impl Fold {
    /// Finds the definition of a series that was not met yet, and makes room for it; else counts
    /// the record.
    #[cold]
    pub(super) fn place(&mut self, writer: &mut Writer, id: SeriesId) -> Option<usize> {
        match self.find_place(writer, id) {
            Ok(place) => Some(place),
            Err(NoPlace::Undefined) => {
                self.refuse();
                None
            }
            Err(NoPlace::Stale) => {
                let again = self.place_again(writer, id);
                if again.is_none() {
                    self.globals.stale += 1;
                    self.lose();
                }
                again
            }
            Err(NoPlace::NoRoom) => {
                self.lose();
                None
            }
        }
    }

    /// Registers a series again that was freed a moment ago: what comes under its old id was
    /// emitted while that happened.
    #[cold]
    pub(super) fn place_again(&mut self, writer: &mut Writer, stale: SeriesId) -> Option<usize> {
        let (family, labels) = self.lifecycle.departed(stale)?;
        let id = self.bus.register_again(family, labels)?;
        let index = self.index_of(id);
        let is_met = self.series.get(index).is_some_and(|series| series.id == id);
        if is_met {
            return Some(index);
        }
        self.find_place(writer, id).ok()
    }

    /// Finds the definition of a series that was not met yet, and makes room for it.
    #[cold]
    pub(super) fn find_place(
        &mut self,
        writer: &mut Writer,
        id: SeriesId,
    ) -> Result<usize, NoPlace> {
        let at = self.place_of(id);
        let known = self.places.get(at).copied();
        if !self.bus.is_registered(id) {
            let is_garbage = known.is_none() || !self.bus.was_registered(id);
            return Err(if is_garbage {
                NoPlace::Undefined
            } else {
                NoPlace::Stale
            });
        }
        if known == Some(UNPLACED) && !self.is_retrying {
            return Err(NoPlace::NoRoom);
        }
        let definition = known.and_then(|_| self.bus.series(id));
        let family = definition.as_ref().and_then(|definition| {
            let family = definition.family;
            let known = self.families.get(&family).cloned();
            // Before the text is read: one that comes later is another version.
            let help = self.bus.help_version(family);
            let new = || {
                self.bus
                    .family(family)
                    .map(|new| FoundFamily::New(new, help))
            };
            known.map(FoundFamily::Known).or_else(new)
        });
        let (Some(definition), Some(family)) = (definition, family) else {
            return Err(NoPlace::Undefined);
        };
        self.made += 1;
        let Some(place) = self.try_place(writer, id, &definition, family) else {
            // Read for each record, it would cost more than all else.
            self.is_retrying = false;
            self.places[at] = UNPLACED;
            return Err(NoPlace::NoRoom);
        };
        if self.bus.forgotten_ns(id).is_some() {
            self.find_forgotten(place);
        }
        self.note_overflow(id, &definition);
        Ok(place)
    }

    /// Notes the first series of a family that is there for those beyond its limit.
    fn note_overflow(&mut self, id: SeriesId, definition: &SeriesDefinition) {
        let is_overflow = definition.labels.iter().any(|(_, value)| value == OVERFLOW);
        if is_overflow
            && let Some(family) = self.families.get_mut(&definition.family)
            && !std::mem::replace(&mut family.is_overflowing, true)
        {
            self.overflowing.push(id);
        }
    }

    /// Takes over help texts that were replaced.
    pub(super) fn renew_helps(&mut self, writer: &mut Writer) {
        let bus = &self.bus;
        let is_other = |(id, known): (&FamilyId, &PlacedFamily)| {
            let help = bus.help_version(*id);
            (known.help != Some(help)).then_some((*id, help))
        };
        let others: Vec<_> = self.families.iter().filter_map(is_other).collect();
        for (id, help) in others {
            self.renew_help(writer, id, help);
        }
    }

    fn renew_help(&mut self, writer: &mut Writer, id: FamilyId, help: u64) {
        let (Some(known), Some(now)) = (self.families.get_mut(&id), self.bus.family(id)) else {
            return;
        };
        let is_first = known.help.is_none();
        let before = known.at;
        if !now.is_at(writer.words(), before) {
            let Some(at) = writer.define(&now.encode()) else {
                // The earlier one stays, until there is room at another change.
                return;
            };
            known.at = at;
        }
        known.help = Some(help);
        let at = known.at;
        // A predecessor may have died while it did this.
        if at != before || is_first {
            let is_member = |series: &&SeriesState| series.family == id && series.is_in_use();
            let members = self.series.iter().filter(is_member);
            members.for_each(|series| writer.set_family(series.row, at));
        }
        if at != before {
            writer.free_family(before);
        }
    }

    /// Makes room for a series, and for its family if that has no place yet.
    fn try_place(
        &mut self,
        writer: &mut Writer,
        id: SeriesId,
        definition: &SeriesDefinition,
        family: FoundFamily,
    ) -> Option<usize> {
        let family = match family {
            FoundFamily::Known(family) => family,
            FoundFamily::New(new, help) => {
                let family = PlacedFamily {
                    at: writer.define(&new.encode())?,
                    metric_type: new.metric_type,
                    bounds: new.buckets.into(),
                    native: new.native,
                    window: new.window,
                    series: 0,
                    help: Some(help),
                    is_overflowing: false,
                };
                self.families.insert(definition.family, family.clone());
                family
            }
        };
        let known = self.homeless.remove(&id);
        let labels = known.or_else(|| writer.define(&definition.encode()))?;
        let bounds = family.bounds.to_vec();
        let ids = (definition.family, id);
        let mut series = SeriesState::new(
            ids,
            family.metric_type,
            bounds,
            family.native,
            family.window,
        );
        let len = series.version_len();
        let header = series.header([family.at, labels], len);
        let place = self.place_of(id);
        let Some(row) = writer.place(place, header, None) else {
            self.homeless.insert(id, labels);
            return None;
        };
        series.row = row;
        series.history = self.new_history(writer);
        Some(self.insert(series))
    }

    /// The ring of a new series, without any place where there is no room.
    fn new_history(&mut self, writer: &mut Writer) -> Ring {
        let capacity = FIRST_POINTS.min(self.longest);
        let ring = (capacity > 0)
            .then(|| writer.new_history(capacity))
            .flatten();
        if ring.is_none() {
            self.longest = 0;
        }
        ring.unwrap_or(Ring::without(Points::History, 0))
    }

    /// Moves a history to a larger ring.
    #[cold]
    pub(super) fn grow_history(&mut self, writer: &mut Writer, place: usize) {
        let series = &mut self.series[place];
        series.finish_point(writer.words());
        let capacity = (series.history.capacity * 4)
            .max(FIRST_POINTS)
            .min(self.longest);
        match writer.move_history(series.history, capacity) {
            Some(ring) => {
                series.history = ring;
                self.made += 1;
            }
            // It stays as short as it is, until there is room.
            None => self.longest = 0,
        }
    }

    /// Sees to it that every touched row has room for what it has to say.
    pub(super) fn make_room(&mut self, writer: &mut Writer) {
        for &place in &self.touched {
            let mask = self.place_mask;
            let series = &mut self.series[place as usize];
            let needed = series.version_len();
            if needed <= series.row.len {
                continue;
            }
            let place = (series.id.0 & mask) as usize;
            let current = writer.read_series(place).and_then(|(_, found)| found);
            // Twice as much, so that it moves a few times only.
            let len = (needed * 2).min(LEN_MAX).max(needed);
            let placed = BlockHeader::of(writer.words(), series.row).and_then(|header| {
                let header = BlockHeader { len, ..header };
                writer.place(place, header, current.as_deref())
            });
            match placed {
                Some(row) => series.row = row,
                None => series.shrink(),
            }
        }
    }
}
