//! Fold: records into the private state of their series, and that state into rows.

mod lifecycle;
mod observed;
mod place;
mod state;
mod windows;

use std::collections::HashMap;

use qbus::{
    Bus, CellChange, Clock, CreateError, Drained, FamilyDefinition, FamilyId, MetricType,
    OwnerCounts, OwnerId, Placed, Record, SeriesDefinition, SeriesId,
};

use crate::snapshot::ring::{self, Points, Ring, encode_recent};
use crate::snapshot::row::{BlockHeader, Plain, take_room};
use crate::snapshot::tally::{Globals, OwnerRow, Tally};
use crate::snapshot::versioned::Row;
use crate::snapshot::writer::Writer;
use lifecycle::Lifecycle;
use place::{NoPlace, PlacedFamily};
use state::{Exemplars, Folded, RoundTimes, SeriesState, is_ahead};
use windows::Windows;

/// Points of a ring when its series is new; four times as many whenever they do not suffice.
const FIRST_POINTS: usize = 4;
/// So many rows are written in a fraction of a millisecond.
const TOUCHED_MAX: usize = 2048;
/// So many series are made in a fraction of a millisecond.
const MADE_MAX: usize = 128;
/// The place of a series for which there was no room.
const UNPLACED: u32 = u32::MAX;
/// The place of a series that is met by what is emitted to it alone.
const PASSED_OVER: u32 = u32::MAX - 1;

/// All that records add up to.
#[derive(Debug)]
pub(crate) struct Fold {
    bus: Bus,
    /// Index in `series` by the series' place, plus 1; 0 = not met yet, [`UNPLACED`] or
    /// [`PASSED_OVER`].
    places: Vec<u32>,
    /// What of an id is the place of its series.
    place_mask: u32,
    series: Vec<SeriesState>,
    /// Indexes in `series` of what was freed.
    unused: Vec<u32>,
    touched: Vec<u32>,
    owners: Vec<OwnerRow>,
    touched_owners: Vec<u16>,
    owner_is_touched: Vec<bool>,
    /// Records of one owner that its row does not have yet.
    run: (OwnerId, u64),
    pub(crate) globals: Globals,
    recent: Ring,
    /// The most points of a history; 0 while there is no room for a longer one.
    longest: usize,
    /// What [`longest`](Self::longest) is when there is room.
    history: usize,
    /// When the round began; or later, where it takes so long that what comes to it seems to lie
    /// ahead of that.
    now_ns: u64,
    began_ns: u64,
    /// When the round began, on a clock that is never set back.
    monotonic_ns: u64,
    /// Series and rings that were made since the round began.
    made: usize,
    /// Whether a series for which there was no room is tried again.
    is_retrying: bool,
    families: HashMap<FamilyId, PlacedFamily>,
    /// Where the definitions of series lie for whose rows there was no room.
    homeless: HashMap<SeriesId, usize>,
    /// Of families that reached their limit the first series that is there for those beyond.
    pub(crate) overflowing: Vec<SeriesId>,
    lifecycle: Lifecycle,
    windows: Windows,
}

impl Fold {
    /// The state that the snapshot has committed.
    ///
    /// # Errors
    ///
    /// The snapshot has no room for so many recent records.
    pub(crate) fn load(
        bus: &Bus,
        writer: &mut Writer,
        history: usize,
        recent: usize,
        monotonic_ns: u64,
    ) -> Result<Fold, CreateError> {
        let shape = writer.shape();
        let owners = (0..shape.owners)
            .map(|owner| writer.read_owner(owner))
            .collect();
        let nobody = OwnerId {
            index: 0,
            generation: 0,
        };
        let mut fold = Fold {
            bus: bus.clone(),
            places: vec![0; shape.series_places],
            place_mask: bus.geometry().place_mask(),
            series: Vec::new(),
            unused: Vec::new(),
            touched: Vec::new(),
            owners,
            touched_owners: Vec::new(),
            owner_is_touched: vec![false; shape.owners],
            run: (nobody, 0),
            globals: writer.read_globals(),
            recent: Ring::without(Points::Recent, 0),
            longest: history,
            history,
            now_ns: 0,
            began_ns: 0,
            // What is loaded lives from now on.
            monotonic_ns,
            made: 0,
            is_retrying: true,
            families: HashMap::new(),
            homeless: HashMap::new(),
            overflowing: Vec::new(),
            lifecycle: Lifecycle::default(),
            windows: Windows::default(),
        };
        // Addresses alone, until series come: to copy ten thousand to a longer run would take some
        // milliseconds of a round.
        let _ = fold.series.try_reserve_exact(shape.series_places);
        let mut room = writer.words().len();
        for place in 0..shape.series_places {
            if let Some((row, Some(version))) = writer.read_series(place)
                && take_room(&mut room, row.len)
                && let Some(series) = fold.restore(writer, place, row, &version)
            {
                if bus.is_registered(series.id) {
                    fold.insert(series);
                } else {
                    // A predecessor was about to free it.
                    writer.free_series(place, series.history, series.window().block);
                }
            }
        }
        fold.free_families_left();
        fold.load_recent(writer, recent)?;
        fold.resume_windows(writer);
        Ok(fold)
    }

    /// Goes on with the recent records, in a new ring when there is none of that capacity.
    fn load_recent(&mut self, writer: &mut Writer, capacity: usize) -> Result<(), CreateError> {
        let (words, points) = (writer.words(), Points::Recent);
        let start = usize::try_from(self.globals.recent_ring).unwrap_or(0);
        let found = ring::capacity(words, writer.shape(), start, points).unwrap_or(0);
        let old = Ring::resume(words, start, found, points, self.globals.recent);
        self.recent = if old.capacity == capacity && capacity != 0 {
            old
        } else {
            writer.move_recent(old, capacity)?
        };
        self.globals.recent_ring = self.recent.start as u64;
        Ok(())
    }

    /// A series as a version of its row has it; `None` when that makes no sense.
    fn restore(
        &mut self,
        writer: &Writer,
        place: usize,
        row: Row,
        version: &[u64],
    ) -> Option<SeriesState> {
        let words = writer.words();
        let header = BlockHeader::of(words, row)?;
        let id = header.id;
        if self.place_of(id) != place {
            return None;
        }
        let labels = SeriesDefinition::decode(words, header.labels)?;
        let family = FamilyDefinition::decode(words, header.family)?;
        let plain = Plain::decode(version)?;
        let (span, points) = (plain.history, Points::History);
        let capacity = ring::capacity(words, writer.shape(), span.ring, points)?;
        let history = Ring::resume(words, span.ring, capacity, points, span.next);
        let (metric_type, bounds, native) = (family.metric_type, family.buckets, family.native);
        let known = PlacedFamily {
            at: header.family,
            metric_type,
            bounds: bounds.as_slice().into(),
            native,
            window: family.window,
            series: 0,
            help: None,
            is_overflowing: false,
        };
        let mut series = SeriesState::new(
            (labels.family, id),
            metric_type,
            bounds,
            native,
            known.window,
        );
        (series.row, series.history) = (row, history);
        series.exemplars = writer.read_exemplars(row).and_then(|(row, version)| {
            // Else those of another type, which garbage led to.
            (row.len == series.exemplars_len()).then(|| {
                Box::new(Exemplars {
                    row,
                    version,
                    are_new: false,
                })
            })
        });
        let series = series.restore(words, plain, version)?;
        self.families.entry(labels.family).or_insert(known);
        Some(series)
    }

    fn insert(&mut self, mut series: SeriesState) -> usize {
        series.arrived_ns = self.monotonic_ns;
        if let Some(family) = self.families.get_mut(&series.family) {
            family.series += 1;
        }
        let place = self.place_of(series.id);
        let index = match self.unused.pop() {
            Some(index) => {
                self.series[index as usize] = series;
                index as usize
            }
            None => {
                self.series.push(series);
                self.series.len() - 1
            }
        };
        self.places[place] = index as u32 + 1;
        index
    }

    /// How many series there are.
    pub(crate) fn series_count(&self) -> usize {
        self.series.len() - self.unused.len()
    }

    #[inline(always)]
    fn place_of(&self, id: SeriesId) -> usize {
        (id.0 & self.place_mask) as usize
    }

    /// Where a series is in `series`, if it was met; else beyond the last one. What lies at its
    /// place may be another series by now.
    #[inline(always)]
    fn index_of(&self, id: SeriesId) -> usize {
        let known = self.places.get(self.place_of(id)).copied();
        known.unwrap_or(0).wrapping_sub(1) as usize
    }

    /// Begins a round: what is drained from now on is compared with this time. `has_room`: there
    /// may be room for what there was none for.
    pub(crate) fn begin(&mut self, now_ns: u64, monotonic_ns: u64, has_room: bool) {
        (self.now_ns, self.monotonic_ns) = (now_ns, monotonic_ns);
        self.began_ns = now_ns;
        self.made = 0;
        if has_room {
            self.longest = self.history;
            self.is_retrying = true;
        }
    }

    /// Whether there are series that were not met yet: to make one takes as long as to add hundreds
    /// of records.
    pub(crate) fn is_meeting(&self) -> bool {
        self.bus.counts().series > self.series_count() as u64
    }

    /// Series and rings that were made in this round.
    pub(crate) fn made(&self) -> usize {
        self.made
    }

    /// Whether the round is to be committed before more is drained: to go on would take long.
    pub(crate) fn is_busy(&self) -> bool {
        self.touched.len() >= TOUCHED_MAX || self.made >= MADE_MAX
    }

    /// Adds what a lane had.
    #[inline(always)] // The loop over a lane's slots is the aggregator's hottest.
    pub(crate) fn add(&mut self, writer: &mut Writer, drained: Drained) {
        match drained {
            Drained::Record(owner, record) => {
                if owner != self.run.0 {
                    self.end_run();
                    self.run.0 = owner;
                }
                self.run.1 += 1;
                self.add_record(writer, &record);
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
            self.add_calls(owner, records);
        }
    }

    /// Adds what came to a cell of a series in shared memory. What has no room yet stays in the
    /// cell.
    pub(crate) fn add_change(
        &mut self,
        writer: &mut Writer,
        id: SeriesId,
        change: CellChange,
    ) -> Placed {
        let mut place = self.index_of(id);
        let known = self.series.get(place).filter(|series| series.id == id);
        if !known.is_some_and(|series| series.touched) && self.is_busy() {
            return Placed::Later;
        }
        if known.is_none() {
            match self.find_place(writer, id) {
                Ok(found) => place = found,
                Err(NoPlace::NoRoom) => return Placed::NoRoom,
                Err(NoPlace::Undefined) => {
                    self.globals.unknown_series += 1;
                    return Placed::Yes;
                }
                Err(NoPlace::Stale) => match self.place_again(writer, id) {
                    Some(found) => place = found,
                    None => {
                        self.globals.stale += 1;
                        return Placed::Yes;
                    }
                },
            }
        }
        if let CellChange::Level(_, stamp_ns) = change
            && is_ahead(stamp_ns, self.now_ns)
        {
            self.look_at_clock();
        }
        let (now_ns, began_ns) = (self.now_ns, self.began_ns);
        if self.series[place].needs_room(now_ns, self.longest) {
            self.grow_history(writer, place);
        }
        let words = writer.words();
        let series = &mut self.series[place];
        let recent = match series.add_change(words, change, RoundTimes { now_ns, began_ns }) {
            Folded::Yes(recent) => recent,
            Folded::Later => return Placed::NotNow,
            Folded::Refused => {
                self.globals.unknown_series += 1;
                return Placed::Yes;
            }
        };
        if !series.touched {
            series.touched = true;
            series.arrived_ns = self.monotonic_ns;
            self.touched.push(place as u32);
        }
        if series.retired_ns() != 0 {
            self.revive(place);
        }
        if let Some((kind, value)) = recent {
            let record = Record::new(now_ns, id, kind, value);
            self.recent.push(words, &encode_recent(&record));
        }
        Placed::Yes
    }

    /// Counts records, or calls that wrote to cells, as delivered.
    pub(crate) fn add_calls(&mut self, owner: OwnerId, calls: u64) {
        self.globals.records = self.globals.records.saturating_add(calls);
        self.tally(owner, |tally| {
            tally.delivered = tally.delivered.saturating_add(calls);
        });
    }

    /// Takes over what an owner has counted of its losses.
    pub(crate) fn take_losses(&mut self, index: usize, counts: OwnerCounts) {
        let mut row = self.owners[index];
        if row.take_losses(counts) {
            self.touch_owner(index as u16, |owner| *owner = row);
        }
    }

    /// Takes over how many calls an owner has counted that wrote to shared cells: all that they did
    /// is placed.
    pub(crate) fn take_shared_calls(&mut self, index: usize, counts: OwnerCounts) {
        let mut row = self.owners[index];
        let came = row.take_shared_calls(counts);
        if came > 0 {
            self.globals.records = self.globals.records.saturating_add(came);
            self.touch_owner(index as u16, |owner| *owner = row);
        }
    }

    /// Whether anything is to be committed.
    pub(crate) fn is_touched(&self) -> bool {
        self.run.1 > 0 || !self.touched.is_empty() || !self.touched_owners.is_empty()
    }

    /// Writes the touched rows as of `epoch`.
    pub(crate) fn write(&mut self, writer: &mut Writer, epoch: u64) {
        self.end_run();
        self.begin_windows();
        self.make_room(writer);
        for place in self.touched.drain(..) {
            let series = &mut self.series[place as usize];
            series.written();
            writer.write_series(epoch, series.row, |out| series.encode(out));
            if let Some(exemplars) = series.exemplars.as_mut().filter(|kept| kept.are_new) {
                exemplars.are_new = false;
                writer.write_exemplars(epoch, exemplars.row, &exemplars.version);
            }
        }
        for owner in self.touched_owners.drain(..) {
            let owner = usize::from(owner);
            self.owner_is_touched[owner] = false;
            writer.write_owner(epoch, owner, self.owners[owner]);
        }
        self.recent.give_back(writer.words());
        self.globals.recent = self.recent.next;
        writer.write_globals(epoch, self.globals);
    }

    fn tally(&mut self, owner: OwnerId, change: impl FnOnce(&mut Tally)) {
        let known = self.owners.get(usize::from(owner.index));
        let is_known = known.is_none_or(|row| row.generation == owner.generation);
        // Else the entry changed hands, or this record is of somebody who left.
        let occupant = match is_known {
            true => None,
            false => self.bus.occupant(owner.index),
        };
        self.touch_owner(owner.index, |row| {
            if let Some(occupant) = occupant {
                row.occupied_by(occupant.generation);
            }
            change(row.tally(owner.generation));
        });
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
    fn add_record(&mut self, writer: &mut Writer, record: &Record) {
        // What is not met yet lies beyond the last one.
        let mut place = self.index_of(record.series);
        let known = self.series.get(place);
        if known.is_none_or(|series| series.id != record.series) {
            match self.place(writer, record.series) {
                Some(found) => place = found,
                None => return,
            }
        }
        if is_ahead(record.timestamp_ns, self.now_ns) {
            self.look_at_clock();
        }
        let mut series = &mut self.series[place];
        if series.needs_room(record.timestamp_ns, self.longest) {
            self.grow_history(writer, place);
            series = &mut self.series[place];
        }
        let (words, now_ns) = (writer.words(), self.now_ns);
        // No `match`: a jump through a table costs more than these two comparisons.
        let is_taken = if series.metric_type == MetricType::Counter {
            series.add_increment(words, record, now_ns)
        } else if series.metric_type == MetricType::Gauge {
            series.add_level(words, record, now_ns)
        } else {
            series.add_observation(words, record, now_ns)
        };
        if !is_taken {
            return self.refuse();
        }
        if !series.touched {
            series.touched = true;
            series.arrived_ns = self.monotonic_ns;
            self.touched.push(place as u32);
        }
        if series.is_revived_by(record.timestamp_ns, now_ns) {
            self.revive(place);
        }
        self.recent.push(words, &encode_recent(record));
        if record.trace_id != 0 {
            self.keep_exemplar(writer, place, record);
        }
    }

    /// The process may have been stopped since the round began: what is emitted since is not ahead
    /// of the clock.
    #[cold]
    fn look_at_clock(&mut self) {
        self.now_ns = Clock::Precise.now_ns();
    }

    /// Keeps a record with a trace as an exemplar, where there is room for any.
    #[cold]
    fn keep_exemplar(&mut self, writer: &mut Writer, place: usize, record: &Record) {
        let series = &mut self.series[place];
        let len = series.exemplars_len();
        if len > 0 && series.exemplars.is_none() {
            let row = writer.place_exemplars(series.row, len);
            series.exemplars = row.map(|row| {
                Box::new(Exemplars {
                    row,
                    version: vec![0; len],
                    are_new: false,
                })
            });
        }
        series.keep_exemplar(record, self.now_ns);
    }

    /// Counts a record of the present run whose series does not exist, or does not take it.
    #[cold]
    fn refuse(&mut self) {
        self.globals.unknown_series += 1;
        self.tally(self.run.0, |tally| tally.violations += 1);
    }

    /// Counts a record of the present run for whose series there is no room: it was not delivered.
    #[cold]
    fn lose(&mut self) {
        self.run.1 -= 1;
        self.globals.unplaced += 1;
        self.tally(self.run.0, |tally| tally.unplaced += 1);
    }
}
