//! A series from its row: value, labels, history and exemplars.

use std::sync::Arc;

use qbus::{MetricType, SeriesDefinition};

use super::super::exemplars;
use super::super::layout::AT_COMMITTED;
use super::super::ring::{self, Points, decode_points};
use super::super::row::{BlockHeader, Observed, Plain, row_at, take_room};
use super::{Beyond, CUTS, Reader};
use crate::counts::Counts;
use crate::series::{
    Exemplar, Family, HistogramValue, Point, QUANTILES, Series, SummaryValue, Value,
};

/// What a series is decoded from beside its version: it stays so for as long as the series is
/// there.
pub(super) struct Located {
    pub(super) labels: usize,
    pub(super) place: usize,
    /// What the directory said of the place; the block may be another by now.
    pub(super) word: u64,
}

impl Reader {
    pub(super) fn decode(
        &self,
        family: Arc<Family>,
        located: &Located,
        version: &[u64],
        history: bool,
        room: &mut usize,
    ) -> Option<Series> {
        let plain = Plain::decode(version)?;
        if !plain.is_shown(family.metric_type) {
            return None;
        }
        let labels = SeriesDefinition::decode(self.words(), located.labels)?.labels;
        let texts = labels
            .iter()
            .map(|(name, value)| (name.len() + value.len()) / 8);
        if !take_room(room, texts.sum()) {
            return None;
        }
        let history = if history {
            self.history(&family, located.place, &plain, room)?
        } else {
            Vec::new()
        };
        let before = self.before_window(&family, located.place, version, room)?;
        let value = decode_value(&family, &plain, version, &before)?;
        let exemplars = self.exemplars(&family, located, room);
        // Else it was freed, and what was read of it may be another's.
        self.is_there(located.place, located.word)
            .then_some(Series {
                family,
                labels,
                value,
                timestamp_ns: plain.last_ns,
                start_ns: plain.start_ns,
                records: plain.records,
                history,
                exemplars,
            })
    }

    /// A series' exemplars: the newest ones, whichever epoch the series is of.
    fn exemplars(&self, family: &Family, located: &Located, room: &mut usize) -> Vec<Exemplar> {
        if matches!(family.metric_type, MetricType::Gauge | MetricType::Untyped) {
            return Vec::new();
        }
        let words = self.words();
        let block = words.get(self.shape.directory() + located.place);
        let header = block
            .and_then(|word| row_at(words, self.shape, word))
            .and_then(|row| BlockHeader::of(words, row));
        let found = header
            .and_then(|header| exemplars::row_at(words, self.shape, header.exemplars))
            .filter(|row| take_room(room, row.len));
        found
            .and_then(|row| self.newest(row))
            .map_or(Vec::new(), |version| {
                exemplars::decode(&version, family.metric_type, &family.buckets)
            })
    }

    /// A series' history; `None` when it is longer than the room that is left.
    fn history(
        &self,
        family: &Family,
        place: usize,
        plain: &Plain,
        room: &mut usize,
    ) -> Option<Vec<Point>> {
        let mut plain = *plain;
        for _ in 0..CUTS {
            let points = self.points(family, &plain, room)?;
            // The ring of a version that does not count any more may hold another's points.
            let (mut version, newest) = (Vec::new(), (self.epoch(), Some(AT_COMMITTED)));
            let found = self.read_listed(place, newest, &mut version, &Beyond::default());
            match Plain::decode(&version).filter(|_| found.is_some()) {
                // A longer ring has the same points under the same indexes, and later ones: those
                // that are ahead of this version are none of its own.
                Some(newest) if newest.history.ring != plain.history.ring => {
                    plain.history.ring = newest.history.ring;
                    plain.history.first = plain.history.first.max(newest.history.first);
                }
                _ => return Some(points),
            }
        }
        Some(Vec::new())
    }

    /// The points of a history as a version has it.
    fn points(&self, family: &Family, plain: &Plain, room: &mut usize) -> Option<Vec<Point>> {
        let (span, points) = (plain.history, Points::History);
        let Some(capacity) = ring::capacity(self.words(), self.shape, span.ring, points) else {
            return Some(Vec::new());
        };
        let len = span.next.saturating_sub(span.first).min(capacity as u64) as usize;
        if !take_room(room, len * points.words()) {
            return None;
        }
        let copied = ring::copy(self.words(), capacity, points, span);
        let mut points = decode_points(&copied);
        if family.metric_type == MetricType::Counter
            && let Some(last) = points.last_mut()
        {
            // Its place in the ring may have what a later commit came to.
            last.value = plain.value.value();
        }
        in_time(&mut points);
        Some(points)
    }
}

/// Sorts points by time between two steps back of the clock. Lanes are drained one after the other,
/// and what a full lane did not take comes after what it did.
fn in_time(points: &mut [Point]) {
    let (mut start, mut latest_ns) = (0, 0);
    for at in 0..points.len() {
        let time_ns = points[at].timestamp_ns;
        if time_ns.saturating_add(STEP_NS) <= latest_ns {
            points[start..at].sort_by_key(|point| point.timestamp_ns);
            (start, latest_ns) = (at, time_ns);
        }
        latest_ns = latest_ns.max(time_ns);
    }
    points[start..].sort_by_key(|point| point.timestamp_ns);
}

/// Records of different lanes are committed within a small part of this; a clock that went back by
/// as much was set back.
const STEP_NS: u64 = 1_000_000_000;

/// The value of a series as its version has it; a summary's quantiles are without what came before.
fn decode_value(family: &Family, plain: &Plain, version: &[u64], before: &Counts) -> Option<Value> {
    let last = plain.value.value();
    match family.metric_type {
        MetricType::Counter => return Some(Value::Counter(plain.value)),
        MetricType::Gauge | MetricType::Untyped => return Some(Value::Gauge(last)),
        MetricType::Histogram | MetricType::Summary => {}
    }
    let empty = Observed::new(family.metric_type, family.buckets.len(), family.native)?;
    let Observed {
        count,
        sum,
        min,
        max,
        buckets,
        distribution,
        window: _,
    } = empty.decode(version)?;
    if let Some(counts) = buckets {
        let sums = counts.iter().scan(0_u64, |sum, count| {
            *sum = sum.wrapping_add(*count);
            Some(*sum)
        });
        return Some(Value::Histogram(HistogramValue {
            last,
            count,
            sum,
            min,
            max,
            cumulative: sums.collect(),
            distribution,
        }));
    }
    let distribution = distribution?;
    let values = if before.is_empty() {
        distribution.quantiles(&QUANTILES, min, max)
    } else {
        distribution.without(before).quantiles(&QUANTILES, min, max)
    };
    Some(Value::Summary(SummaryValue {
        last,
        count,
        sum,
        min,
        max,
        quantiles: QUANTILES.into_iter().zip(values).collect(),
        distribution,
    }))
}
