//! What a producer puts into cells: the state of handles, and what its full lane does not take.

use super::Producer;
use crate::exponential;
use crate::lane::cell::{CellOp, Done, Keep, Unit};
use crate::lane::count;
use crate::record::{Kind, MetricType, Record, SeriesId};
use crate::registry;
use crate::sync::Ordering;

impl Producer {
    /// Does something to the cells of a series if they are this producer's own and where the hint
    /// says. The caller has checked that the lane is still this producer's.
    #[inline(always)]
    pub(crate) fn to_own_cells(&self, unit: &Unit, op: CellOp) -> Done {
        match self.own_cells.hinted(unit) {
            Some(at) => self.own_cells.apply(at, op),
            None => Done::No,
        }
    }

    /// Does something to the cells of a series. The caller has checked that the lane is still this
    /// producer's.
    pub(crate) fn to_cells(&self, unit: &Unit, op: CellOp) -> Done {
        let is_done = match op {
            CellOp::Summarize(value, stamp) => self.summarize(unit, value, stamp),
            op => self.to_unit(unit, op),
        };
        // They come here seldom, or are slow anyway.
        if is_done { Done::YesAndLook } else { Done::No }
    }

    /// Adds an observation to a summary's cells: its bucket, what all have in common, and the last
    /// one.
    fn summarize(&self, unit: &Unit, value: f64, stamp: u64) -> bool {
        let find = |unit: &Unit| self.find_unit(unit);
        let bucket = unit.sparse(exponential::index(value));
        let last = Unit::level(unit.series());
        // All have cells before any is written to.
        [&bucket, &last, unit]
            .into_iter()
            .all(|unit| find(unit).is_some())
            && self.to_unit(unit, CellOp::Summarize(value, stamp))
            && self.to_unit(&last, CellOp::Note(value, stamp))
            && self.to_unit(&bucket, CellOp::Count(1))
    }

    /// Where a unit begins; `None` also when its series was freed.
    fn find_unit(&self, unit: &Unit) -> Option<usize> {
        let is_open = |series| self.is_open(series);
        // Before: a series that is gone needs no cells. And after: it may have been freed
        // meanwhile, by an aggregator that did not see the unit (C5).
        if !is_open(unit.series()) {
            return None;
        }
        match &self.shared_cells {
            Some(bank) => bank
                .find_shared(unit)
                .filter(|&at| bank.is_kept(at, is_open)),
            None => self.own_cells.find_kept(unit, is_open),
        }
    }

    fn is_open(&self, series: SeriesId) -> bool {
        registry::is_open(self.mapped.arena(), series)
    }

    fn to_unit(&self, unit: &Unit, op: CellOp) -> bool {
        let Some(bank) = &self.shared_cells else {
            let at = self.find_unit(unit);
            return at.is_some_and(|at| self.own_cells.apply(at, op) != Done::No);
        };
        if self.is_void() || !self.is_open(unit.series()) {
            return false;
        }
        let (done, is_call) = match op {
            CellOp::Level(value, stamp) => (bank.state_shared(unit, value, stamp), true),
            // Where all units of the last observation are in use, it is not kept.
            CellOp::Note(value, stamp) => {
                bank.state_shared(unit, value, stamp);
                return true;
            }
            op => {
                let at = self.find_unit(unit);
                let done = at.is_some_and(|at| bank.apply_shared(at, op));
                (done, !matches!(op, CellOp::Summarize(..)))
            }
        };
        // Nobody else can tell whose the calls of a shared lane are.
        // Release: who takes over this count finds the calls in the cells.
        let calls = u64::from(done && is_call);
        self.entry.shared_calls.fetch_add(calls, Ordering::Release);
        done
    }

    fn keep_in(&self, unit: &Unit, op: CellOp) -> bool {
        self.to_cells(unit, op) != Done::No
    }

    /// Keeps what it can of a record for which the lane has no room.
    pub(super) fn keep(&self, record: &Record, keep: Keep<'_>) -> bool {
        let series = record.series;
        let kept = match (keep, record.kind) {
            (Keep::Nothing, _) => false,
            (Keep::State(unit, op), _) => self.keep_in(unit, op),
            (Keep::Record, Kind::Increment | Kind::Adjust) => {
                let sum = record.value * record.count as f64;
                match sum as i64 {
                    whole if record.kind == Kind::Increment && whole as f64 == sum => {
                        self.keep_in(&Unit::count(series), CellOp::Count(whole as u64))
                    }
                    _ => sum.is_finite() && self.keep_in(&Unit::sum(series), CellOp::Sum(sum)),
                }
            }
            (Keep::Record, Kind::Set) => {
                let op = CellOp::Level(record.value, record.timestamp_ns);
                self.keep_in(&Unit::level(series), op)
            }
            (Keep::Record, Kind::Observe) => self.keep_observation(record),
            (Keep::Record, Kind::Total) => false,
        };
        count(&self.entry.coalesced, u64::from(kept));
        kept
    }

    fn keep_observation(&self, record: &Record) -> bool {
        let (series, value) = (record.series, record.value);
        let known = self.mapped.registry().bucket_of(series, value);
        match known.filter(|_| record.count == 1 && value.is_finite()) {
            Some((MetricType::Histogram, buckets, bucket)) => {
                let unit = Unit::histogram(series, buckets);
                self.keep_in(&unit, CellOp::Observe(bucket, value))
            }
            Some((MetricType::Summary, ..)) => self.keep_in(
                &Unit::summary(series),
                CellOp::Summarize(value, record.timestamp_ns),
            ),
            _ => false,
        }
    }
}
