//! Fold: records into the private state of their series, and that state into rows.

mod observed;
mod ring;
mod series;

use std::collections::HashMap;

use qbus::{
    Bus, CreateError, Drained, FamilyDefinition, FamilyId, MetricType, OwnerCounts, OwnerId,
    Record, SeriesDefinition, SeriesId, Words, testpoint,
};

use crate::distribution::OCTAVES_MAX;
use crate::snapshot::layout::{BLOCK_HEADER, POINT_WORDS, RECENT_WORDS};
use crate::snapshot::versioned::Row;
use crate::snapshot::writer::{Writer, ring_capacity, take_room};
use crate::snapshot::{Globals, OwnerRow, Tally, sane};
use observed::OCTAVE_WORDS;
use ring::Ring;
use series::Series;

pub(crate) use observed::decode_distribution;
pub(crate) use series::{OBSERVED_LEN, PLAIN_LEN};

/// Points of a ring when its series is new; four times as many whenever they do not suffice.
const FIRST_POINTS: usize = 4;
/// How many places of the recent records are claimed at a time.
const RECENT_AHEAD: u64 = 64;

/// All that records add up to.
#[derive(Debug)]
pub(crate) struct Fold {
    bus: Bus,
    pub(crate) writer: Writer,
    /// Place in `series` by id, plus 1; 0 = not met yet.
    places: Vec<u32>,
    series: Vec<Series>,
    touched: Vec<u32>,
    owners: Vec<OwnerRow>,
    touched_owners: Vec<u16>,
    owner_is_touched: Vec<bool>,
    /// Records of one owner that its row does not have yet.
    run: (OwnerId, u64),
    pub(crate) globals: Globals,
    recent: Ring,
    /// The most points of a history.
    longest: usize,
    /// Where each family's definition lies in the snapshot, with its type and buckets.
    families: HashMap<FamilyId, (usize, MetricType, Vec<f64>)>,
    /// The last time that the snapshot could not grow; reported once by [`Fold::take_failure`].
    failure: Option<CreateError>,
}

impl Fold {
    /// The state that the snapshot has committed.
    ///
    /// # Errors
    ///
    /// The snapshot has no room for so many recent records.
    pub(crate) fn load(bus: &Bus, writer: Writer, recent: usize) -> Result<Fold, CreateError> {
        let shape = writer.shape();
        let owners = (0..shape.owners)
            .map(|owner| writer.read_owner(owner))
            .collect();
        let globals = writer.read_globals();
        let nobody = OwnerId {
            index: 0,
            generation: 0,
        };
        let mut fold = Fold {
            bus: bus.clone(),
            places: vec![0; shape.series_ids],
            series: Vec::new(),
            touched: Vec::new(),
            owners,
            touched_owners: Vec::new(),
            owner_is_touched: vec![false; shape.owners],
            run: (nobody, 0),
            globals,
            recent: Ring::EMPTY,
            longest: shape.history,
            families: HashMap::new(),
            failure: None,
            writer,
        };
        let mut room = fold.writer.words().len();
        for id in 0..shape.series_ids {
            if let Some((row, Some(version))) = fold.writer.read_series(id)
                && take_room(&mut room, row.len)
                && let Some(series) = fold.decode(SeriesId(id as u32), row, &version)
            {
                fold.series.push(series);
                fold.places[id] = fold.series.len() as u32;
            }
        }
        fold.load_recent(recent)?;
        Ok(fold)
    }

    /// Goes on with the recent records, in a new ring when there is none of that capacity.
    fn load_recent(&mut self, capacity: usize) -> Result<(), CreateError> {
        let words = self.writer.words();
        let start = usize::try_from(self.globals.recent_ring).unwrap_or(0);
        let room = ring_capacity(words, self.writer.shape(), start, RECENT_WORDS);
        let old = Ring::resume(words, start, room.unwrap_or(0), self.globals.recent);
        self.recent = if old.capacity == capacity && capacity != 0 {
            old
        } else {
            let start = self.writer.new_ring(capacity, RECENT_WORDS)?;
            old.copy_to(self.writer.words(), start, capacity, RECENT_WORDS)
        };
        self.globals.recent_ring = self.recent.start as u64;
        Ok(())
    }

    /// How many series there are.
    pub(crate) fn series_count(&self) -> usize {
        self.series.len()
    }

    /// Why the snapshot could not grow, once.
    pub(crate) fn take_failure(&mut self) -> Option<CreateError> {
        self.failure.take()
    }

    /// Adds what a lane had.
    #[inline(always)] // The loop over a lane's slots is the aggregator's hottest.
    pub(crate) fn add(&mut self, drained: Drained) {
        match drained {
            Drained::Record(owner, record) => {
                if owner != self.run.0 {
                    self.end_run();
                    self.run.0 = owner;
                }
                self.run.1 += 1;
                self.add_record(&record);
            }
            Drained::Torn(owner) => self.tally(owner, |tally| tally.torn += 1),
            Drained::Revoked(owner) => self.tally(owner, |tally| tally.revoked += 1),
            Drained::Violation(owner) => self.tally(owner, |tally| tally.violations += 1),
        }
    }

    /// Counts the records of the present run as delivered, those that made no sense too: they are
    /// violations besides, and count twice over in no total.
    #[cold]
    fn end_run(&mut self) {
        let (owner, records) = (self.run.0, std::mem::take(&mut self.run.1));
        if records > 0 {
            self.globals.records += records;
            self.tally(owner, |tally| tally.delivered += records);
        }
    }

    /// Takes over what an owner has counted itself.
    pub(crate) fn take_counts(&mut self, index: usize, counts: OwnerCounts) {
        let mut row = self.owners[index];
        if row.take_counts(counts) {
            self.touch_owner(index as u16, |owner| *owner = row);
        }
    }

    /// Whether anything is to be committed.
    pub(crate) fn is_touched(&self) -> bool {
        self.run.1 > 0 || !self.touched.is_empty() || !self.touched_owners.is_empty()
    }

    /// Writes the touched rows as of `epoch`.
    pub(crate) fn write(&mut self, epoch: u64) {
        self.end_run();
        for place in self.touched.drain(..) {
            let series = &mut self.series[place as usize];
            series.touched = false;
            series.finish_point(self.writer.words());
            self.writer
                .write_series(epoch, series.row, |out| series.encode(out));
        }
        for owner in self.touched_owners.drain(..) {
            let owner = usize::from(owner);
            self.owner_is_touched[owner] = false;
            self.writer.write_owner(epoch, owner, self.owners[owner]);
        }
        self.recent.give_back(self.writer.words());
        self.globals.recent = self.recent.next;
        self.writer.write_globals(epoch, self.globals);
    }

    fn tally(&mut self, owner: OwnerId, change: impl FnOnce(&mut Tally)) {
        self.touch_owner(owner.index, |row| change(row.tally(owner.generation)));
    }

    fn touch_owner(&mut self, index: u16, change: impl FnOnce(&mut OwnerRow)) {
        let at = usize::from(index);
        // A slot that names no entry is garbage, and was counted by whoever passed it.
        let Some(row) = self.owners.get_mut(at) else {
            return;
        };
        change(row);
        if !self.owner_is_touched[at] {
            self.owner_is_touched[at] = true;
            self.touched_owners.push(index);
        }
    }

    /// Folds a record, be there room for its series or not.
    #[inline(always)]
    fn add_record(&mut self, record: &Record) {
        let known = self.places.get(record.series.0 as usize).copied();
        // What is not met yet lies beyond the last one.
        let mut place = known.unwrap_or(0).wrapping_sub(1) as usize;
        if place >= self.series.len() {
            match self.place(record.series) {
                Some(found) => place = found,
                None => return,
            }
        }
        let mut series = &mut self.series[place];
        if series.needs_room(record.timestamp_ns, self.longest) {
            self.grow_history(place);
            series = &mut self.series[place];
        }
        let words = self.writer.words();
        // No `match`: a jump through a table costs more than these two comparisons.
        let is_taken = if series.metric_type == MetricType::Counter {
            series.add_increment(words, record)
        } else if series.metric_type == MetricType::Gauge {
            series.add_level(words, record)
        } else {
            series.add_observation(words, record)
        };
        if !is_taken {
            return self.refuse();
        }
        if !series.touched {
            series.touched = true;
            self.touched.push(place as u32);
        }
        if self.recent.capacity > 0 {
            note_recent(&mut self.recent, words, record);
        }
    }

    /// Counts a record of the present run whose series is none, or does not take it.
    #[cold]
    fn refuse(&mut self) {
        self.globals.unknown_series += 1;
        self.tally(self.run.0, |tally| tally.violations += 1);
    }

    /// Finds the definition of a series that was not met yet, and makes room for it.
    #[cold]
    fn place(&mut self, id: SeriesId) -> Option<usize> {
        let definition = self.bus.series(id);
        let placed = match definition {
            Some(definition) if (id.0 as usize) < self.places.len() => {
                self.try_place(id, &definition)
            }
            _ => Ok(None),
        };
        match placed {
            Ok(Some(place)) => return Some(place),
            Ok(None) => self.refuse(),
            Err(error) => {
                self.globals.unplaced += 1;
                self.failure = Some(error);
            }
        }
        None
    }

    fn try_place(
        &mut self,
        id: SeriesId,
        definition: &SeriesDefinition,
    ) -> Result<Option<usize>, CreateError> {
        let family = match self.families.get(&definition.family) {
            Some(family) => family.clone(),
            None => {
                let Some(family) = self.bus.family(definition.family) else {
                    return Ok(None);
                };
                let at = self.writer.append(&family.encode())?;
                let entry = (at, family.metric_type, family.buckets);
                self.families.insert(definition.family, entry.clone());
                entry
            }
        };
        let (family_at, metric_type, bounds) = family;
        let definitions = [family_at, self.writer.append(&definition.encode())?];
        let capacity = FIRST_POINTS.min(self.longest);
        let ring = self.writer.new_ring(capacity, POINT_WORDS)?;
        let history = Ring::resume(self.writer.words(), ring, capacity, 0);
        let mut series = Series::new(id, metric_type, bounds, definitions, history);
        series.row = self.writer.place_series(
            id.0 as usize,
            metric_type.to_raw(),
            definitions,
            series.needed_len(),
            None,
        )?;
        self.series.push(series);
        self.places[id.0 as usize] = self.series.len() as u32;
        Ok(Some(self.series.len() - 1))
    }

    /// Moves a history to a larger ring.
    #[cold]
    fn grow_history(&mut self, place: usize) {
        let old = self.series[place].history;
        self.series[place].finish_point(self.writer.words());
        let capacity = (old.capacity * 4).max(FIRST_POINTS).min(self.longest);
        match self.writer.new_ring(capacity, POINT_WORDS) {
            Ok(start) => {
                let words = self.writer.words();
                self.series[place].history = old.copy_to(words, start, capacity, POINT_WORDS);
            }
            // It stays as short as it is.
            Err(error) => self.failure = Some(error),
        }
    }

    /// Sees to it that every touched row has room for what it has to say.
    pub(crate) fn make_room(&mut self) {
        for at in 0..self.touched.len() {
            let place = self.touched[at] as usize;
            let series = &self.series[place];
            let needed = series.needed_len();
            if needed <= series.row.len {
                continue;
            }
            let (id, metric_type, definitions) =
                (series.id, series.metric_type, series.definitions);
            let current = self
                .writer
                .read_series(id.0 as usize)
                .and_then(|(_, version)| version);
            // Twice as much, so that it moves a few times only.
            let len = (needed * 2)
                .min(OBSERVED_LEN + 2 + OCTAVES_MAX * OCTAVE_WORDS)
                .max(needed);
            let id = id.0 as usize;
            match self.writer.place_series(
                id,
                metric_type.to_raw(),
                definitions,
                len,
                current.as_deref(),
            ) {
                Ok(row) => self.series[place].row = row,
                Err(error) => {
                    self.series[place].shrink();
                    self.failure = Some(error);
                }
            }
        }
    }

    fn decode(&mut self, id: SeriesId, row: Row, version: &[u64]) -> Option<Series> {
        let words = self.writer.words();
        let block = row.start - BLOCK_HEADER;
        let definitions = [
            words.load(block + 1) as usize,
            words.load(block + 2) as usize,
        ];
        let family = FamilyDefinition::decode(words, definitions[0])?;
        let labels = SeriesDefinition::decode(words, definitions[1])?;
        let (ring, next) = (*version.get(4)? as usize, sane(*version.get(5)?));
        let capacity = ring_capacity(words, self.writer.shape(), ring, POINT_WORDS)?;
        let history = Ring::resume(words, ring, capacity, next);
        let (metric_type, bounds) = (family.metric_type, family.buckets);
        let entry = (definitions[0], metric_type, bounds.clone());
        let mut series = Series::new(id, metric_type, bounds, definitions, history);
        series.row = row;
        let series = series.restore(words, version)?;
        self.families.entry(labels.family).or_insert(entry);
        Some(series)
    }
}

#[inline(always)]
fn note_recent(recent: &mut Ring, words: Words<'_>, record: &Record) {
    let at = recent.take(words, RECENT_WORDS, RECENT_AHEAD);
    let series_and_kind = u64::from(record.series.0) << 32 | u64::from(record.kind.to_raw());
    let point = [
        record.timestamp_ns,
        series_and_kind,
        record.value.to_bits(),
        record.count,
    ];
    words.store_all(at, &point);
    testpoint!("point-written");
}
