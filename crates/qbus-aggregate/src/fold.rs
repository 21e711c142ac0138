//! Fold: records into the private state of their series, and that state into rows.
//!
//! A version of a series' row:
//!
//! | word | what                                                                |
//! |------|---------------------------------------------------------------------|
//! | 0    | records                                                             |
//! | 1, 2 | last and first timestamp                                            |
//! | 3    | sum (counter), value (gauge), last observation                      |
//! | 4, 5 | where the history's ring lies, and the index of its next point      |
//! | 6–9  | histogram and summary: count, sum, min, max                         |
//! | 10…  | histogram: counts by bucket, `+Inf` last                            |
//! | 10…  | summary: zeros, number of octaves, then key and 32 counts of each   |

use std::collections::HashMap;

use qbus::{
    Bus, CreateError, Drained, FamilyId, Kind, MetricType, OwnerCounts, Record, SeriesId, Words,
    testpoint,
};

use crate::distribution::{Distribution, OCTAVE, Octave};
use crate::snapshot::layout::{POINT_WORDS, RECENT_WORDS, RING_HEADER};
use crate::snapshot::versioned::Row;
use crate::snapshot::writer::{Writer, ring_capacity, take_room};
use crate::snapshot::{Globals, OwnerRow, sane};

pub(crate) const PLAIN_LEN: usize = 6;
pub(crate) const OBSERVED_LEN: usize = 10;
const OCTAVE_WORDS: usize = 1 + OCTAVE;
/// Points of a ring when its series is new; four times as many whenever they do not suffice.
const FIRST_POINTS: usize = 4;

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
    pub(crate) globals: Globals,
    recent: Ring,
    /// Where each family's definition lies in the snapshot, with its type and buckets.
    families: HashMap<FamilyId, (usize, MetricType, Vec<f64>)>,
    /// The last time that the snapshot could not grow; reported once by [`Fold::take_failure`].
    failure: Option<CreateError>,
}

#[derive(Debug)]
struct Series {
    id: SeriesId,
    row: Row,
    metric_type: MetricType,
    touched: bool,
    definitions: [usize; 2],
    records: u64,
    last_ns: u64,
    start_ns: u64,
    value: f64,
    history: Ring,
    observed: Option<Box<Observed>>,
}

#[derive(Clone, Copy, Debug)]
struct Ring {
    start: usize,
    capacity: usize,
    /// Index of the next point: how many there were.
    next: u64,
    /// `next` modulo the capacity, without a division a record.
    place: usize,
}

impl Ring {
    fn new(start: usize, capacity: usize, next: u64) -> Ring {
        let place = if capacity == 0 {
            0
        } else {
            (next % capacity as u64) as usize
        };
        Ring {
            start,
            capacity,
            next,
            place,
        }
    }

    /// Where the next point goes.
    #[inline]
    fn at(&self, words_each: usize) -> usize {
        self.start + RING_HEADER + self.place * words_each
    }

    /// Where the last point lies; there is one.
    #[inline]
    fn last(&self, words_each: usize) -> usize {
        let place = if self.place == 0 {
            self.capacity
        } else {
            self.place
        };
        self.start + RING_HEADER + (place - 1) * words_each
    }

    /// Takes the next place, and says so before it is written: the point there is no longer the one
    /// that a reader may copy. Where it lies.
    #[inline]
    fn claim(&mut self, words: Words<'_>, words_each: usize) -> usize {
        let at = self.at(words_each);
        self.next += 1;
        self.place = if self.place + 1 == self.capacity {
            0
        } else {
            self.place + 1
        };
        words.store(self.start + 1, self.next);
        words.release();
        testpoint!("point-claimed");
        at
    }
}

#[derive(Debug)]
struct Observed {
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Buckets { bounds: Vec<f64>, counts: Vec<u64> },
    Distribution(Distribution),
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
        let mut fold = Fold {
            bus: bus.clone(),
            places: vec![0; shape.series_ids],
            series: Vec::new(),
            touched: Vec::new(),
            owners,
            touched_owners: Vec::new(),
            owner_is_touched: vec![false; shape.owners],
            globals,
            recent: Ring::new(0, 0, 0),
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
        let old = Ring::new(start, room.unwrap_or(0), self.globals.recent);
        self.recent = if old.capacity == capacity && capacity != 0 {
            old
        } else {
            self.move_ring(old, capacity, RECENT_WORDS)?
        };
        self.globals.recent_ring = self.recent.start as u64;
        Ok(())
    }

    /// Copies the last points of a ring to a new one. The old one is left as it was, for those who
    /// read it.
    fn move_ring(&mut self, old: Ring, capacity: usize, each: usize) -> Result<Ring, CreateError> {
        let start = self.writer.new_ring(capacity, each)?;
        let words = self.writer.words();
        let kept = old.next.min(old.capacity.min(capacity) as u64);
        for index in old.next - kept..old.next {
            let place = |ring: usize, capacity: usize| {
                ring + RING_HEADER + (index % capacity as u64) as usize * each
            };
            let (from, to) = (place(old.start, old.capacity), place(start, capacity));
            for word in 0..each {
                words.store(to + word, words.load(from + word));
            }
        }
        words.store(start + 1, old.next);
        testpoint!("ring-moved");
        Ok(Ring::new(start, capacity, old.next))
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
    #[inline]
    pub(crate) fn add(&mut self, drained: Drained) {
        match drained {
            Drained::Record(owner, record) => {
                let makes_sense = self.add_record(&record);
                self.owner(owner.index, |row| {
                    let tally = row.tally(owner.generation);
                    // A record that makes no sense was delivered, and refused here: it counts twice over
                    // in no total.
                    tally.delivered += 1;
                    tally.violations += u64::from(!makes_sense);
                });
            }
            Drained::Torn(owner) => {
                self.owner(owner.index, |row| row.tally(owner.generation).torn += 1)
            }
            Drained::Revoked(owner) => {
                self.owner(owner.index, |row| row.tally(owner.generation).revoked += 1)
            }
            Drained::Violation(owner) => self.owner(owner.index, |row| {
                row.tally(owner.generation).violations += 1
            }),
        }
    }

    /// Takes over what an owner has counted itself.
    pub(crate) fn take_counts(&mut self, index: usize, counts: OwnerCounts) {
        let mut row = self.owners[index];
        if row.take_counts(counts) {
            self.owner(index as u16, |owner| *owner = row);
        }
    }

    /// Whether anything is to be committed.
    pub(crate) fn is_touched(&self) -> bool {
        !self.touched.is_empty() || !self.touched_owners.is_empty()
    }

    /// Writes the touched rows as of `epoch`.
    pub(crate) fn write(&mut self, epoch: u64) {
        for place in self.touched.drain(..) {
            let series = &mut self.series[place as usize];
            series.touched = false;
            self.writer
                .write_series(epoch, series.row, |out| series.encode(out));
        }
        for owner in self.touched_owners.drain(..) {
            let owner = usize::from(owner);
            self.owner_is_touched[owner] = false;
            self.writer.write_owner(epoch, owner, self.owners[owner]);
        }
        self.writer.write_globals(epoch, self.globals);
    }

    #[inline]
    fn owner(&mut self, index: u16, change: impl FnOnce(&mut OwnerRow)) {
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

    /// Folds a record; whether its series is one and takes it, be there room for it or not.
    #[inline]
    fn add_record(&mut self, record: &Record) -> bool {
        self.globals.records += 1;
        let place = match self.places.get(record.series.0 as usize) {
            Some(0) | None => match self.place(record.series) {
                Ok(place) => place,
                Err(makes_sense) => return makes_sense,
            },
            Some(place) => *place as usize - 1,
        };
        let series = &mut self.series[place];
        if !record.kind.fits(series.metric_type) || !record.kind.takes(record.value) {
            self.globals.unknown_series += 1;
            return false;
        }
        series.add(record);
        if !series.touched {
            series.touched = true;
            self.touched.push(place as u32);
        }
        self.note_recent(record);
        self.note_history(place, record);
        true
    }

    /// Finds the definition of a series that was not met yet, and makes room for it; if there is none,
    /// whether the series is one at all.
    #[cold]
    fn place(&mut self, id: SeriesId) -> Result<usize, bool> {
        let definition = self.bus.series(id);
        let placed = match definition {
            Some(definition) if (id.0 as usize) < self.places.len() => {
                self.try_place(id, &definition)
            }
            _ => Ok(None),
        };
        match placed {
            Ok(Some(place)) => Ok(place),
            Ok(None) => {
                self.globals.unknown_series += 1;
                Err(false)
            }
            Err(error) => {
                self.globals.unplaced += 1;
                self.failure = Some(error);
                Err(true)
            }
        }
    }

    fn try_place(
        &mut self,
        id: SeriesId,
        definition: &qbus::SeriesDefinition,
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
        let labels_at = self.writer.append(&definition.encode())?;
        let ring = self
            .writer
            .new_ring(FIRST_POINTS.min(self.writer.shape().history), POINT_WORDS)?;
        let observed = match metric_type {
            MetricType::Counter | MetricType::Gauge => None,
            MetricType::Histogram => {
                let counts = vec![0; bounds.len() + 1];
                Some(Box::new(Observed::new(Body::Buckets { bounds, counts })))
            }
            MetricType::Summary => Some(Box::new(Observed::new(Body::Distribution(
                Distribution::default(),
            )))),
        };
        let mut series = Series {
            id,
            row: Row { start: 0, len: 0 },
            metric_type,
            touched: false,
            definitions: [family_at, labels_at],
            records: 0,
            last_ns: 0,
            start_ns: 0,
            value: 0.0,
            history: Ring::new(ring, FIRST_POINTS.min(self.writer.shape().history), 0),
            observed,
        };
        series.row = self.writer.place_series(
            id.0 as usize,
            type_word(metric_type),
            series.definitions,
            series.needed_len(),
            None,
        )?;
        self.series.push(series);
        self.places[id.0 as usize] = self.series.len() as u32;
        Ok(Some(self.series.len() - 1))
    }

    #[inline]
    fn note_recent(&mut self, record: &Record) {
        if self.recent.capacity == 0 {
            return;
        }
        let words = self.writer.words();
        let at = self.recent.claim(words, RECENT_WORDS);
        self.globals.recent = self.recent.next;
        words.store(at, record.timestamp_ns);
        words.store(
            at + 1,
            u64::from(record.series.0) << 32 | kind_word(record.kind),
        );
        words.store(at + 2, record.value.to_bits());
        words.store(at + 3, record.count);
        testpoint!("point-written");
    }

    /// Adds a point. A counter has one for each timestamp, since its clock moves in steps: so many
    /// points reach back seconds, and not microseconds.
    #[inline]
    fn note_history(&mut self, place: usize, record: &Record) {
        let (words, series) = (self.writer.words(), &mut self.series[place]);
        let ring = &mut series.history;
        if ring.capacity == 0 && self.writer.shape().history == 0 {
            return;
        }
        let is_counter = series.metric_type == MetricType::Counter;
        if is_counter && ring.next > 0 && ring.capacity > 0 {
            let last = ring.last(POINT_WORDS);
            if words.load(last) == record.timestamp_ns {
                words.store(last + 1, series.value.to_bits());
                return;
            }
        }
        if ring.next as usize >= ring.capacity && ring.capacity < self.writer.shape().history {
            self.grow_history(place);
        }
        let (words, series) = (self.writer.words(), &mut self.series[place]);
        let folded = is_counter || record.kind == Kind::Adjust;
        let value = if folded { series.value } else { record.value };
        if series.history.capacity == 0 {
            return;
        }
        let at = series.history.claim(words, POINT_WORDS);
        words.store(at, record.timestamp_ns);
        words.store(at + 1, value.to_bits());
        testpoint!("point-written");
    }

    /// Moves a history to a larger ring.
    #[cold]
    fn grow_history(&mut self, place: usize) {
        let old = self.series[place].history;
        let capacity = (old.capacity * 4).max(FIRST_POINTS);
        let capacity = capacity.min(self.writer.shape().history);
        match self.move_ring(old, capacity, POINT_WORDS) {
            Ok(ring) => self.series[place].history = ring,
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
                .min(OBSERVED_LEN + 2 + crate::distribution::OCTAVES_MAX * OCTAVE_WORDS)
                .max(needed);
            let id = id.0 as usize;
            match self.writer.place_series(
                id,
                type_word(metric_type),
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
        let block = row.start - crate::snapshot::layout::BLOCK_HEADER;
        let definitions = [
            words.load(block + 1) as usize,
            words.load(block + 2) as usize,
        ];
        let family = qbus::FamilyDefinition::decode(words, definitions[0])?;
        let labels = qbus::SeriesDefinition::decode(words, definitions[1])?;
        let ring = *version.get(4)? as usize;
        let capacity = ring_capacity(words, self.writer.shape(), ring, POINT_WORDS)?;
        let observed = match family.metric_type {
            MetricType::Counter | MetricType::Gauge => None,
            MetricType::Histogram => Some(decode_observed(version, Some(&family.buckets))?),
            MetricType::Summary => Some(decode_observed(version, None)?),
        };
        let entry = (definitions[0], family.metric_type, family.buckets.clone());
        self.families.entry(labels.family).or_insert(entry);
        let series = Series {
            id,
            row,
            metric_type: family.metric_type,
            touched: false,
            definitions,
            records: sane(*version.first()?),
            last_ns: *version.get(1)?,
            start_ns: *version.get(2)?,
            value: f64::from_bits(*version.get(3)?),
            history: Ring::new(ring, capacity, sane(*version.get(5)?)),
            observed: observed.map(Box::new),
        };
        // Else it could need a larger row when there is no room for one.
        (series.needed_len() <= row.len).then_some(series)
    }
}

impl Series {
    #[inline]
    fn add(&mut self, record: &Record) {
        self.records += 1;
        if self.start_ns == 0 {
            self.start_ns = record.timestamp_ns;
        }
        let newest = record.timestamp_ns >= self.last_ns;
        self.last_ns = self.last_ns.max(record.timestamp_ns);
        match record.kind {
            Kind::Increment => self.value += record.value * record.count as f64,
            Kind::Total => {
                if record.value < self.value {
                    // The source began anew: so does the counter.
                    self.start_ns = record.timestamp_ns;
                }
                self.value = record.value;
            }
            Kind::Set if newest => self.value = record.value,
            Kind::Set => {}
            Kind::Adjust => self.value += record.value,
            Kind::Observe => {
                if newest {
                    self.value = record.value;
                }
                if let Some(observed) = &mut self.observed {
                    observed.add(record.value, record.count);
                }
            }
        }
    }

    fn needed_len(&self) -> usize {
        match self.observed.as_deref() {
            None => PLAIN_LEN,
            Some(Observed {
                body: Body::Buckets { counts, .. },
                ..
            }) => OBSERVED_LEN + counts.len(),
            Some(Observed {
                body: Body::Distribution(distribution),
                ..
            }) => OBSERVED_LEN + 2 + distribution.octaves.len().max(1) * OCTAVE_WORDS,
        }
    }

    /// Puts the octaves that the row has no room for together with those that it has.
    #[cold]
    fn shrink(&mut self) {
        let room = self.row.len.saturating_sub(OBSERVED_LEN + 2) / OCTAVE_WORDS;
        if let Some(Observed {
            body: Body::Distribution(distribution),
            ..
        }) = self.observed.as_deref_mut()
        {
            distribution.shrink(room.max(1));
        }
    }

    fn encode(&self, out: &mut Vec<u64>) {
        out.extend([
            self.records,
            self.last_ns,
            self.start_ns,
            self.value.to_bits(),
            self.history.start as u64,
            self.history.next,
        ]);
        let Some(observed) = self.observed.as_deref() else {
            return;
        };
        out.extend([
            observed.count,
            observed.sum.to_bits(),
            observed.min.to_bits(),
            observed.max.to_bits(),
        ]);
        match &observed.body {
            Body::Buckets { counts, .. } => out.extend(counts),
            Body::Distribution(distribution) => {
                out.extend([distribution.zeros, distribution.octaves.len() as u64]);
                for octave in &distribution.octaves {
                    out.push(octave.key);
                    out.extend(octave.counts);
                }
            }
        }
    }
}

impl Observed {
    fn new(body: Body) -> Observed {
        Observed {
            count: 0,
            sum: 0.0,
            min: f64::NAN,
            max: f64::NAN,
            body,
        }
    }

    #[inline]
    fn add(&mut self, value: f64, count: u64) {
        // Saturating: a record may say any count.
        self.count = self.count.saturating_add(count);
        self.sum += value * count as f64;
        // `min` and `max` of a NaN and a number are the number.
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        match &mut self.body {
            Body::Buckets { bounds, counts } => {
                let bucket = &mut counts[bounds.partition_point(|bound| *bound < value)];
                *bucket = bucket.saturating_add(count);
            }
            Body::Distribution(distribution) => distribution.observe(value, count),
        }
    }
}

/// Count, sum, min, max and what follows; for a histogram by its bounds.
fn decode_observed(version: &[u64], bounds: Option<&[f64]>) -> Option<Observed> {
    let &[count, sum, min, max] = version.get(6..OBSERVED_LEN)? else {
        return None;
    };
    let rest = version.get(OBSERVED_LEN..)?;
    let body = match bounds {
        Some(bounds) => Body::Buckets {
            bounds: bounds.to_vec(),
            counts: rest.get(..=bounds.len())?.to_vec(),
        },
        None => Body::Distribution(decode_distribution(rest)?),
    };
    Some(Observed {
        count,
        sum: f64::from_bits(sum),
        min: f64::from_bits(min),
        max: f64::from_bits(max),
        body,
    })
}

/// A summary's words after its max.
pub(crate) fn decode_distribution(words: &[u64]) -> Option<Distribution> {
    let (&[zeros, octaves], rest) = words.split_first_chunk()?;
    let octaves = usize::try_from(octaves).ok()?;
    let used = rest.get(..octaves.checked_mul(OCTAVE_WORDS)?)?;
    let decode = |chunk: &[u64]| {
        let (key, counts) = chunk.split_first()?;
        Some(Octave {
            key: *key,
            counts: counts.try_into().ok()?,
        })
    };
    Some(Distribution::from_parts(
        zeros,
        used.chunks(OCTAVE_WORDS)
            .map(decode)
            .collect::<Option<_>>()?,
    ))
}

pub(crate) fn type_word(metric_type: MetricType) -> u64 {
    match metric_type {
        MetricType::Counter => 1,
        MetricType::Gauge => 2,
        MetricType::Histogram => 3,
        MetricType::Summary => 4,
    }
}

pub(crate) fn kind_word(kind: Kind) -> u64 {
    match kind {
        Kind::Increment => 1,
        Kind::Total => 2,
        Kind::Set => 3,
        Kind::Adjust => 4,
        Kind::Observe => 5,
    }
}
