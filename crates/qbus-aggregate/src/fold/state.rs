//! The private state of a series: what its row says, and where its history goes.

use qbus::{CellChange, FamilyId, Kind, MetricType, Record, SeriesId, Window, Words, testpoint};

use super::windows::Slide;
use crate::series::Exemplar;
use crate::snapshot::exemplars;
use crate::snapshot::layout::PLAIN_LEN;
use crate::snapshot::ring::{Points, Ring, encode_point};
use crate::snapshot::row::{BlockHeader, Observed, Plain};
use crate::snapshot::versioned::Row;
use crate::snapshot::window::WindowSpan;
use crate::sum::Sum;

/// A time that lies ahead of the aggregator's clock by more than this is not merely of a record
/// that was emitted after the round began: the clock was set back, or somebody made the time up.
const AHEAD_NS: u64 = 1_000_000_000;
/// A gauge is not set for a time that lies ahead by more than this: five minutes.
const REFUSED_NS: u64 = 300_000_000_000;

/// Times of a round.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoundTimes {
    /// The clock, as far as it was looked at.
    pub(super) now_ns: u64,
    pub(super) began_ns: u64,
}

/// What became of a change of a cell.
pub(super) enum Folded {
    /// It counts; the kind and the value of the record that stands for it among the recent ones, if
    /// one does.
    Yes(Option<(Kind, f64)>),
    /// The next round tries again.
    Later,
    /// The series does not take it.
    Refused,
}

/// No series has it.
const NO_ID: SeriesId = SeriesId(0);

#[derive(Debug)]
pub(super) struct SeriesState {
    pub(super) id: SeriesId,
    pub(super) family: FamilyId,
    pub(super) row: Row,
    pub(super) metric_type: MetricType,
    pub(super) touched: bool,
    /// Whether it is about to be retired ([`super::lifecycle`]).
    pub(super) is_forgotten: bool,
    /// When something came to it, on the aggregator's clock, which is never set back.
    pub(super) arrived_ns: u64,
    pub(super) history: Ring,
    /// Without the history's next point, which `history` knows.
    plain: Plain,
    /// Timestamp of the history's last point.
    point_ns: u64,
    /// What the row says of a counter.
    floor: f64,
    /// What observations are counted in, and a histogram's bounds.
    observed: Option<Box<(Observed, Vec<f64>)>>,
    pub(super) exemplars: Option<Box<Exemplars>>,
    /// Of a summary whose quantiles are not of all time.
    slide: Option<Box<Slide>>,
}

/// The exemplars of a series, and where they go.
#[derive(Debug)]
pub(super) struct Exemplars {
    pub(super) row: Row,
    pub(super) version: Vec<u64>,
    /// Whether the row does not have all of them yet.
    pub(super) are_new: bool,
}

impl SeriesState {
    /// A series that nothing was emitted to. `bounds` are a histogram's.
    pub(super) fn new(
        (family, id): (FamilyId, SeriesId),
        metric_type: MetricType,
        bounds: Vec<f64>,
        native: bool,
        window: Window,
    ) -> SeriesState {
        let is_summary = metric_type == MetricType::Summary;
        let slide = is_summary.then(|| Slide::new(window)).flatten();
        let observed = Observed::new(metric_type, bounds.len(), native);
        // What is untyped is folded as a gauge is.
        let metric_type = match metric_type {
            MetricType::Untyped => MetricType::Gauge,
            known => known,
        };
        SeriesState {
            id,
            family,
            row: Row { start: 0, len: 0 },
            metric_type,
            touched: false,
            is_forgotten: false,
            arrived_ns: 0,
            history: Ring::without(Points::History, 0),
            plain: Plain::default(),
            point_ns: 0,
            floor: 0.0,
            observed: observed.map(|observed| Box::new((observed, bounds))),
            exemplars: None,
            slide: slide.map(Box::new),
        }
    }

    /// What is left of it when it was freed: it has no id.
    pub(super) fn unused(&self) -> SeriesState {
        let (ids, window) = ((self.family, NO_ID), Window::default());
        SeriesState::new(ids, MetricType::Gauge, Vec::new(), false, window)
    }

    /// Whether it is a series, or what is left of one.
    pub(super) fn is_in_use(&self) -> bool {
        self.id != NO_ID
    }

    fn bounds(&self) -> &[f64] {
        self.observed.as_ref().map_or(&[], |observed| &observed.1)
    }

    /// What its row says of its window; nothing of one that is no summary.
    pub(super) fn window(&self) -> WindowSpan {
        let observed = self.observed.as_ref();
        observed
            .and_then(|observed| observed.0.window)
            .unwrap_or_default()
    }

    /// Its window and what it has observed; `None` where quantiles are of all time.
    pub(super) fn sliding(&mut self) -> Option<(&mut Slide, &mut Observed)> {
        let slide = self.slide.as_deref_mut()?;
        self.observed
            .as_mut()
            .map(|observed| (slide, &mut observed.0))
    }

    /// Words of a version of its exemplars.
    pub(super) fn exemplars_len(&self) -> usize {
        exemplars::version_len(self.metric_type, self.bounds())
    }

    /// Keeps a record that it took, and that has a trace, as the exemplar of its bucket.
    pub(super) fn keep_exemplar(&mut self, record: &Record, now_ns: u64) {
        let Some(mut kept) = self.exemplars.take() else {
            return;
        };
        let exemplar = Exemplar {
            value: record.value,
            timestamp_ns: record.timestamp_ns.min(now_ns),
            trace_id: record.trace_id,
        };
        exemplars::keep(&mut kept.version, self.metric_type, self.bounds(), exemplar);
        kept.are_new = true;
        self.exemplars = Some(kept);
    }

    /// The series, new so far, as a version of its row has it; `None` when that makes no sense.
    pub(super) fn restore(
        mut self,
        words: Words<'_>,
        plain: Plain,
        version: &[u64],
    ) -> Option<SeriesState> {
        self.plain = plain;
        self.floor = plain.value.value();
        if plain.records == 0 {
            self.plain.last_ns = 0;
        }
        self.point_ns = self.history.last().map_or(0, |at| words.load(at));
        if let Some(observed) = &mut self.observed {
            observed.0 = observed.0.clone().decode(version)?;
        }
        // Else it could need a larger row when there is no room for one.
        (self.version_len() <= self.row.len).then_some(self)
    }

    /// Notes that the series was met before anything came to it.
    pub(super) fn meet(&mut self, now_ns: u64) {
        self.plain.start_ns = now_ns;
    }

    /// Since when it is retired; 0 = it is not.
    #[inline(always)]
    pub(super) fn retired_ns(&self) -> u64 {
        self.plain.retired_ns
    }

    /// Retires the series as of `since_ns`; false when a gauge was set later, unless that is of
    /// before the clock was set back.
    pub(super) fn retire(&mut self, since_ns: u64, now_ns: u64) -> bool {
        let is_level = matches!(self.metric_type, MetricType::Gauge | MetricType::Untyped);
        let last_ns = self.plain.last_ns;
        if is_level && last_ns > since_ns && !is_ahead(last_ns, now_ns) {
            return false;
        }
        self.plain.retired_ns = since_ns;
        true
    }

    /// Whether a record of that time came after it was retired, or the clock was set back since.
    #[inline(always)]
    pub(super) fn is_revived_by(&self, timestamp_ns: u64, now_ns: u64) -> bool {
        let retired_ns = self.plain.retired_ns;
        retired_ns != 0 && (timestamp_ns >= retired_ns || is_ahead(retired_ns, now_ns))
    }

    /// Takes that back.
    pub(super) fn revive(&mut self) {
        self.plain.retired_ns = 0;
    }

    /// Whether a record of that time adds a point that the history could be longer for.
    #[inline(always)]
    pub(super) fn needs_room(&self, timestamp_ns: u64, longest: usize) -> bool {
        self.history.is_full() && self.history.capacity < longest && self.is_point(timestamp_ns)
    }

    /// Whether a record of that time has a point of its own. A counter has one for each timestamp,
    /// since its clock moves in steps: so many points reach back seconds, and not microseconds.
    /// What comes late, from a lane that is drained after others, counts in the last point: so its
    /// history never goes back, neither in time nor in value.
    #[inline(always)]
    fn is_point(&self, timestamp_ns: u64) -> bool {
        self.metric_type != MetricType::Counter
            || self.point_ns < timestamp_ns
            || self.history.next == self.plain.history.first
    }

    /// Folds a record into a counter in a round that began at `now_ns`; whether it takes it.
    #[inline(always)]
    pub(super) fn add_increment(&mut self, words: Words<'_>, record: &Record, now_ns: u64) -> bool {
        if !takes(MetricType::Counter, record) {
            return false;
        }
        let timestamp_ns = self.note(record.timestamp_ns, now_ns);
        self.begin_point(words, timestamp_ns, now_ns);
        if record.kind == Kind::Total {
            if record.value < self.plain.value.value() {
                // The source began anew: so does the counter.
                self.plain.start_ns = timestamp_ns;
                self.floor = record.value;
            }
            self.plain.value = Sum::from(record.value);
        } else {
            self.plain.value.add_times(record.value, record.count);
        }
        true
    }

    /// Folds a record into a gauge; whether it takes it.
    #[inline(always)]
    pub(super) fn add_level(&mut self, words: Words<'_>, record: &Record, now_ns: u64) -> bool {
        if !takes_level(record, now_ns) {
            return false;
        }
        let (timestamp_ns, point) = self.take_level(record, now_ns);
        self.add_point(words, timestamp_ns, point);
        true
    }

    /// Has a gauge take a record that it can; the time and the value of the point.
    #[inline(always)]
    fn take_level(&mut self, record: &Record, now_ns: u64) -> (u64, f64) {
        let is_newest = self.is_newest(record.timestamp_ns, now_ns);
        let timestamp_ns = self.note(record.timestamp_ns, now_ns);
        let mut point = record.value;
        if record.kind == Kind::Adjust {
            point += self.plain.value.value();
            self.plain.value = Sum::from(point);
        } else if is_newest {
            self.plain.value = Sum::from(point);
        }
        (timestamp_ns, point)
    }

    /// Folds a record into a histogram or a summary; whether it takes it.
    #[inline(always)]
    pub(super) fn add_observation(
        &mut self,
        words: Words<'_>,
        record: &Record,
        now_ns: u64,
    ) -> bool {
        if !takes(MetricType::Histogram, record) {
            return false;
        }
        if self.is_newest(record.timestamp_ns, now_ns) {
            self.plain.value = Sum::from(record.value);
        }
        let timestamp_ns = self.note(record.timestamp_ns, now_ns);
        if let Some(observed) = &mut self.observed {
            let (observed, bounds) = &mut **observed;
            observed.add(bounds, record.value, record.count);
        }
        self.add_point(words, timestamp_ns, record.value);
        true
    }

    /// Folds what came to a writer's cells by a round.
    pub(super) fn add_change(
        &mut self,
        words: Words<'_>,
        change: CellChange,
        times: RoundTimes,
    ) -> Folded {
        match self.metric_type {
            MetricType::Counter => self.add_to_counter(words, change, times.now_ns),
            MetricType::Gauge | MetricType::Untyped => self.add_to_gauge(words, change, times),
            MetricType::Histogram | MetricType::Summary => {
                self.add_to_observations(words, change, times)
            }
        }
    }

    /// Adds a point for what came to cells. What their writer emitted before the change, but after
    /// the round began, may not be drained yet: the point is no later than that, however long the
    /// round takes. Readers sort what is less than a step back of the clock apart; what is older
    /// than that has no point.
    fn add_cell_point(
        &mut self,
        words: Words<'_>,
        stamp_ns: Option<u64>,
        value: f64,
        times: RoundTimes,
    ) {
        let RoundTimes { now_ns, began_ns } = times;
        let latest_ns = self.point_ns.max(began_ns);
        let stamp_ns = stamp_ns.unwrap_or(latest_ns);
        if is_ahead(self.point_ns, now_ns) || is_ahead(stamp_ns, now_ns) {
            // Of another clock than this one.
            self.add_point(words, stamp_ns, value);
        } else if !is_ahead(self.point_ns, stamp_ns) {
            self.add_point(words, stamp_ns.min(latest_ns), value);
        }
    }

    fn add_to_counter(&mut self, words: Words<'_>, change: CellChange, now_ns: u64) -> Folded {
        let mut sum = self.plain.value;
        let by = match change {
            CellChange::Count(count) => {
                sum.add_integral(count);
                count as f64
            }
            CellChange::Sum(by, residue) => {
                sum.add_sum(Sum::from_parts(by, residue));
                by
            }
            CellChange::Residue(by) => {
                sum.add(by);
                by
            }
            _ => return Folded::Refused,
        };
        // A counter does not fall. A residue waits for the sum that it belongs to; else somebody
        // wrote to the cell.
        if sum.value() < self.floor {
            let is_residue = matches!(change, CellChange::Residue(_));
            return if is_residue {
                Folded::Later
            } else {
                Folded::Refused
            };
        }
        let timestamp_ns = self.note(now_ns, now_ns);
        self.begin_point(words, timestamp_ns, now_ns);
        self.plain.value = sum;
        let is_residue = matches!(change, CellChange::Residue(_));
        Folded::Yes((!is_residue).then_some((Kind::Increment, by)))
    }

    fn add_to_gauge(&mut self, words: Words<'_>, change: CellChange, times: RoundTimes) -> Folded {
        let now_ns = times.now_ns;
        let (stamp_ns, kind, value) = match change {
            CellChange::Sum(by, residue) => (None, Kind::Adjust, by + residue),
            CellChange::Residue(by) => (None, Kind::Adjust, by),
            CellChange::Level(value, stamp_ns) => (Some(stamp_ns), Kind::Set, value),
            _ => return Folded::Refused,
        };
        let record = Record::new(stamp_ns.unwrap_or(now_ns), self.id, kind, value);
        if !takes_level(&record, now_ns) {
            return Folded::Refused;
        }
        let (timestamp_ns, point) = self.take_level(&record, now_ns);
        self.add_cell_point(words, stamp_ns.map(|_| timestamp_ns), point, times);
        Folded::Yes(Some((kind, value)))
    }

    fn add_to_observations(
        &mut self,
        words: Words<'_>,
        change: CellChange,
        times: RoundTimes,
    ) -> Folded {
        let now_ns = times.now_ns;
        if let CellChange::Level(value, stamp_ns) = change {
            // A summary's last observation: those in the ring may be later.
            if self.is_newest(stamp_ns, now_ns) {
                self.plain.value = Sum::from(value);
            }
            let timestamp_ns = self.note_time(stamp_ns, now_ns);
            self.add_cell_point(words, Some(timestamp_ns), value, times);
            return Folded::Yes(Some((Kind::Observe, value)));
        }
        let Some(observed) = &mut self.observed else {
            return Folded::Refused;
        };
        if !observed.0.add_change(&observed.1, change) {
            return Folded::Refused;
        }
        match change {
            CellChange::Bucket(_, count) | CellChange::Sparse(_, count) => {
                self.plain.records = self.plain.records.saturating_add(count);
                Folded::Yes(None)
            }
            CellChange::Last(value) => {
                if self.is_newest(now_ns, now_ns) {
                    self.plain.value = Sum::from(value);
                }
                self.note_time(now_ns, now_ns);
                self.add_cell_point(words, None, value, times);
                Folded::Yes(Some((Kind::Observe, value)))
            }
            _ => Folded::Yes(None),
        }
    }

    /// Notes that the row was written: a counter shows no less from now on.
    pub(super) fn written(&mut self) {
        self.touched = false;
        self.floor = self.plain.value.value();
    }

    /// Whether no record before was later. A time that lies ahead of the clock says nothing: it is
    /// of before the clock was set back.
    #[inline(always)]
    fn is_newest(&self, timestamp_ns: u64, now_ns: u64) -> bool {
        timestamp_ns >= self.plain.last_ns || is_ahead(self.plain.last_ns, now_ns)
    }

    /// Counts a record; its time, or the clock's where it lies ahead of that.
    #[inline(always)]
    fn note(&mut self, timestamp_ns: u64, now_ns: u64) -> u64 {
        // Saturating: what came to cells may have said any count.
        self.plain.records = self.plain.records.saturating_add(1);
        self.note_time(timestamp_ns, now_ns)
    }

    /// Notes the time of a record; the time, or the clock's where it lies ahead of that.
    #[inline(always)]
    fn note_time(&mut self, timestamp_ns: u64, now_ns: u64) -> u64 {
        let timestamp_ns =
            if is_ahead(timestamp_ns, now_ns) && self.metric_type != MetricType::Gauge {
                now_ns
            } else {
                timestamp_ns
            };
        if self.plain.start_ns == 0 {
            self.plain.start_ns = timestamp_ns;
        }
        if self.is_newest(timestamp_ns, now_ns) {
            self.plain.last_ns = timestamp_ns;
        }
        timestamp_ns
    }

    /// Begins a counter's point for that time, unless the last one is as late.
    #[inline(always)]
    fn begin_point(&mut self, words: Words<'_>, timestamp_ns: u64, now_ns: u64) {
        if is_ahead(self.point_ns, now_ns) {
            // The clock was set back: what was before it lies in the future now, for as long as
            // that was. A history that goes on from there would go back in time.
            self.plain.history.first = self.history.next;
            self.point_ns = 0;
        }
        if self.is_point(timestamp_ns) {
            self.finish_point(words);
            self.add_point(words, timestamp_ns, self.plain.value.value());
        }
    }

    #[inline(always)]
    fn add_point(&mut self, words: Words<'_>, timestamp_ns: u64, value: f64) {
        self.history.push(words, &encode_point(timestamp_ns, value));
        self.point_ns = timestamp_ns;
    }

    /// Writes what the counter has come to under the time of its last point. Until then readers
    /// take it from the row.
    #[inline]
    pub(super) fn finish_point(&self, words: Words<'_>) {
        if self.metric_type == MetricType::Counter
            && let Some(at) = self.history.last()
        {
            words.store(at + 1, self.plain.value.value().to_bits());
            testpoint!("point-written");
        }
    }

    /// How long a version must be to hold the state.
    pub(super) fn version_len(&self) -> usize {
        self.observed
            .as_ref()
            .map_or(PLAIN_LEN, |observed| observed.0.version_len())
    }

    /// Makes do with the row that it has.
    #[cold]
    pub(super) fn shrink(&mut self) {
        if let Some(observed) = &mut self.observed {
            observed.0.shrink(self.row.len);
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u64>) {
        let mut plain = self.plain;
        plain.history.ring = self.history.start;
        plain.history.next = self.history.next;
        if plain.last_ns == 0 {
            plain.last_ns = plain.start_ns;
        }
        plain.encode(out);
        if let Some(observed) = &self.observed {
            observed.0.encode(out);
        }
    }

    /// The header before the series' row, once its length is known.
    pub(super) fn header(&self, definitions: [usize; 2], len: usize) -> BlockHeader {
        BlockHeader {
            id: self.id,
            family: definitions[0],
            labels: definitions[1],
            exemplars: 0,
            len,
        }
    }
}

/// Whether a time lies ahead of the clock: by more than [`AHEAD_NS`].
#[inline(always)]
pub(super) fn is_ahead(time_ns: u64, now_ns: u64) -> bool {
    time_ns > now_ns.saturating_add(AHEAD_NS)
}

/// Whether a record is one for a series of that type. By type, so that it comes down to a
/// comparison or two.
#[inline(always)]
fn takes(metric_type: MetricType, record: &Record) -> bool {
    record.kind.fits(metric_type) && record.kind.takes(record.value)
}

/// Whether a record is one for a gauge, and not set for a time that is far ahead.
#[inline(always)]
fn takes_level(record: &Record, now_ns: u64) -> bool {
    let is_far_ahead =
        record.kind == Kind::Set && record.timestamp_ns > now_ns.saturating_add(REFUSED_NS);
    takes(MetricType::Gauge, record) && !is_far_ahead
}
