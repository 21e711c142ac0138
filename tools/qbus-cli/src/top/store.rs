//! What the snapshot said, tick by tick: families, their series, and their recent values.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use qbus::MetricType;
use qbus_aggregate::{Exemplar, Family, Point, Series, Snapshot, Value};

use super::observed::{Buckets, Sliding, buckets, more};
use super::units::Unit;

/// Ticks that are kept.
pub(crate) const KEPT: usize = 180;
/// A counter that the sampler reads every few seconds did not stand still in between: ticks over
/// which its growth is spread.
const SELDOM: u64 = 7;
/// A series that was not shown for longer begins anew.
const PAUSE_MAX: u64 = 60;
/// What moved so few ticks before the first reading moves now.
const FRESH: u64 = 2;
/// A reading after so many ticks is a late one; a later one leaves a gap.
const BRIDGE: u64 = 3;
/// How much of its activity a series keeps a tick.
const ACTIVE_PART: f64 = 0.9;

/// A value for each of the last ticks; NaN where there was none.
#[derive(Clone, Debug)]
pub(crate) struct Ring(Box<[f32]>);

impl Default for Ring {
    fn default() -> Ring {
        Ring(vec![f32::NAN; KEPT].into_boxed_slice())
    }
}

impl Ring {
    fn set(&mut self, tick: u64, value: f64) {
        self.0[tick as usize % KEPT] = value as f32;
    }

    /// Empties the ticks after one up to another.
    fn clear(&mut self, from: u64, to: u64) {
        let first = to.saturating_sub(KEPT as u64 - 1).max(from + 1);
        (first..=to).for_each(|tick| self.set(tick, f64::NAN));
    }

    /// Sets the value of a tick. A reading that came late speaks of the ticks since the one before
    /// as well: they are no gap.
    pub(crate) fn go_on(&mut self, from: u64, to: u64, value: f64) {
        self.clear(from, to);
        let first = if to.saturating_sub(from) <= BRIDGE {
            from + 1
        } else {
            to
        };
        (first.min(to)..=to).for_each(|tick| self.set(tick, value));
    }

    fn get(&self, tick: u64) -> f32 {
        self.0[tick as usize % KEPT]
    }

    /// The last ticks up to one, the oldest first, put together to so many columns.
    pub(crate) fn last(&self, tick: u64, ticks: usize, columns: usize) -> Vec<f32> {
        let ticks = ticks.min(KEPT);
        let columns = columns.min(ticks);
        let first = (tick + 1).saturating_sub(ticks as u64);
        let column = |at: usize| {
            let (from, to) = (at * ticks / columns, (at + 1) * ticks / columns);
            let values = (from..to).map(|offset| self.get(first + offset as u64));
            let known = values.filter(|value| !value.is_nan());
            let (sum, count) = known.fold((0.0, 0_u32), |(sum, n), value| (sum + value, n + 1));
            if count == 0 {
                f32::NAN
            } else {
                sum / count as f32
            }
        };
        (0..columns).map(column).collect()
    }

    pub(crate) fn max(&self, tick: u64, ticks: usize) -> f64 {
        let values = self.last(tick, ticks, ticks);
        let known = values.into_iter().filter(|value| !value.is_nan());
        known.fold(f64::NAN, |max, value| max.max(f64::from(value)))
    }
}

/// A series and its recent values.
#[derive(Debug)]
pub(crate) struct SeriesView {
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: Value,
    pub(crate) exemplars: Vec<Exemplar>,
    pub(crate) timestamp_ns: u64,
    /// A gauge's value, the rate of all else; NaN when it is not known.
    pub(crate) now: f64,
    /// A series that never moved needs no memory of it.
    pub(crate) ring: Option<Ring>,
    pub(crate) window: Option<Sliding>,
    pub(crate) activity: f64,
    /// Whether the snapshot's history was asked for.
    pub(crate) is_filled: bool,
    /// The tick of its last change; 0 before the first.
    changed: u64,
}

/// A family and its series.
#[derive(Debug)]
pub(crate) struct FamilyView {
    pub(crate) family: Arc<Family>,
    pub(crate) unit: Unit,
    pub(crate) series: Vec<SeriesView>,
    /// Of gauges the largest, of all else the sum of the rates.
    pub(crate) now: f64,
    pub(crate) ring: Ring,
    pub(crate) window: Sliding,
    /// What was observed in each tick: for heat maps.
    pub(crate) columns: Vec<(u64, Buckets<u64>)>,
    pub(crate) activity: f64,
    is_sampled: bool,
    /// Whether the histories of all of its series were asked for.
    pub(crate) is_filled: bool,
}

/// All that was read.
#[derive(Debug)]
pub(crate) struct Store {
    tick_ns: u64,
    /// By name.
    pub(crate) families: Vec<FamilyView>,
    /// The last tick that was read; 0 before the first.
    pub(crate) tick: u64,
    pub(crate) epoch: u64,
    /// When that was committed.
    pub(crate) unix_ns: u64,
    /// When it was read.
    read_ns: u64,
}

/// The number of a value that grows or stands: a counter's sum, a gauge's value, a count.
pub(crate) fn level(value: &Value) -> f64 {
    match value {
        Value::Counter(sum) => sum.value(),
        Value::Gauge(value) => *value,
        Value::Histogram(value) => value.count as f64,
        Value::Summary(value) => value.count as f64,
    }
}

/// Whether values are shown as they are, not as rates.
pub(crate) fn is_level(family: &Family) -> bool {
    matches!(family.metric_type, MetricType::Gauge | MetricType::Untyped)
}

/// Whether the family has buckets and quantiles.
pub(crate) fn is_observed(family: &Family) -> bool {
    matches!(
        family.metric_type,
        MetricType::Histogram | MetricType::Summary
    )
}

/// Whether the sampler or the bus itself emits it, some of it only every few seconds.
fn is_sampled(family: &Family) -> bool {
    const PREFIXES: [&str; 5] = ["qbus_", "node_", "DCGM_", "system_", "process_"];
    family.metric_type == MetricType::Counter
        && PREFIXES
            .iter()
            .any(|prefix| family.name.starts_with(prefix))
}

/// How two readings follow on each other.
#[derive(Clone, Copy)]
struct Step {
    tick: u64,
    /// The tick of the reading before.
    from: u64,
    tick_seconds: f64,
    /// Since the last reading; `None` where nothing follows from their difference.
    seconds: Option<f64>,
}

impl Store {
    pub(crate) fn new(tick_ns: u64) -> Store {
        Store {
            tick_ns: tick_ns.max(1),
            families: Vec::new(),
            tick: 0,
            epoch: 0,
            unix_ns: 0,
            read_ns: 0,
        }
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.tick_ns as f64 / 1e9
    }

    pub(crate) fn series_count(&self) -> usize {
        self.families.iter().map(|family| family.series.len()).sum()
    }

    pub(crate) fn find(&self, name: &str) -> Option<&FamilyView> {
        let found = self
            .families
            .binary_search_by(|family| family.family.name.as_str().cmp(name));
        found.ok().map(|at| &self.families[at])
    }

    /// Takes over what was read at that time. Of a bus that nobody aggregates any more, that is
    /// the time of its last commit: what follows is not known.
    pub(crate) fn take(&mut self, snapshot: Snapshot, read_ns: u64) {
        let read_ns = read_ns.max(self.read_ns);
        if snapshot.epoch == self.epoch && read_ns == self.read_ns {
            return;
        }
        let tick = read_ns / self.tick_ns;
        let seconds = (read_ns - self.read_ns) as f64 / 1e9;
        let follows = self.tick > 0 && tick - self.tick < PAUSE_MAX && seconds > 0.0;
        let step = Step {
            tick,
            from: self.tick,
            tick_seconds: self.seconds(),
            seconds: follows.then_some(seconds),
        };
        let from = self.tick;
        let mut known = mem::take(&mut self.families).into_iter().peekable();
        let mut series = snapshot.series.into_iter().peekable();
        while let Some(first) = series.next() {
            let family = first.family.clone();
            let mut all = vec![first];
            while let Some(one) = series
                .next_if(|one| Arc::ptr_eq(&one.family, &family) || one.family.name == family.name)
            {
                all.push(one);
            }
            // Both are in the order of names; what is passed over is gone.
            while known
                .next_if(|view| view.family.name < family.name)
                .is_some()
            {}
            let old = known.next_if(|view| view.family.name == family.name);
            let mut view = match old {
                Some(view) if view.family.metric_type == family.metric_type => view,
                _ => FamilyView::new(family),
            };
            view.clear(from, tick);
            view.take(all, step);
            self.families.push(view);
        }
        (self.tick, self.read_ns) = (tick, read_ns);
        (self.epoch, self.unix_ns) = (snapshot.epoch, snapshot.unix_ns);
    }

    /// Fills the ticks before the first reading of these families from the snapshot's history.
    pub(crate) fn fill(&mut self, names: &[String], snapshot: Snapshot) {
        // Also those that have left the page meanwhile: they are not asked for again.
        for view in &mut self.families {
            view.is_filled |= names.contains(&view.family.name);
        }
        for one in snapshot.series {
            self.fill_series(&one);
        }
    }

    /// Fills those of one series.
    pub(crate) fn fill_series(&mut self, series: &Series) {
        let (tick_ns, tick) = (self.tick_ns, self.tick);
        let name = &series.family.name;
        let found = self
            .families
            .binary_search_by(|view| view.family.name.cmp(name));
        let Some(view) = found.ok().map(|at| &mut self.families[at]) else {
            return;
        };
        let is_mine = |mine: &&mut SeriesView| mine.labels == series.labels;
        let Some(mine) = view.series.iter_mut().find(is_mine) else {
            return;
        };
        // What was observed has no history of counts.
        if mem::replace(&mut mine.is_filled, true) || is_observed(&view.family) {
            return;
        }
        let is_counter = !is_level(&view.family);
        let ring = mine.ring.get_or_insert_default();
        for (at, value) in by_tick(&series.history, is_counter, tick_ns) {
            if at > tick || tick - at >= KEPT as u64 || !ring.get(at).is_nan() {
                continue;
            }
            ring.set(at, value);
            let sum = f64::from(view.ring.get(at));
            let sum = match is_counter {
                _ if sum.is_nan() => value,
                true => sum + value,
                false => sum.max(value),
            };
            // Of a family that is not filled as a whole, the sum would be of one alone.
            if view.is_filled {
                view.ring.set(at, sum);
            }
            if is_counter && tick - at <= FRESH {
                mine.now = value;
            }
            mine.activity = mine.activity * ACTIVE_PART + if is_counter { value } else { 0.0 };
        }
        view.sum_up();
    }
}

/// The last value of each tick; of a counter its rate a second since the point before, which the
/// ticks in between have as well.
fn by_tick(history: &[Point], is_counter: bool, tick_ns: u64) -> Vec<(u64, f64)> {
    let mut last: Vec<(u64, Point)> = Vec::new();
    for point in history {
        let tick = point.timestamp_ns / tick_ns;
        match last.last_mut() {
            Some((known, place)) if *known == tick => *place = *point,
            _ => last.push((tick, *point)),
        }
    }
    if !is_counter {
        return last
            .into_iter()
            .map(|(tick, point)| (tick, point.value))
            .collect();
    }
    let mut rates = Vec::with_capacity(last.len());
    for pair in last.windows(2) {
        let ((from, before), (to, after)) = (pair[0], pair[1]);
        let seconds = after.timestamp_ns.saturating_sub(before.timestamp_ns) as f64 / 1e9;
        if seconds <= 0.0 || after.value < before.value {
            continue;
        }
        let rate = (after.value - before.value) / seconds;
        // A counter without a point stood still; it may have moved at the end of a long rest only.
        let spread = if to - from <= SELDOM { from + 1 } else { to };
        rates.extend((spread..=to).map(|tick| (tick, rate)));
    }
    rates
}

impl FamilyView {
    fn new(family: Arc<Family>) -> FamilyView {
        FamilyView {
            unit: Unit::of(&family),
            is_sampled: is_sampled(&family),
            family,
            series: Vec::new(),
            now: f64::NAN,
            ring: Ring::default(),
            window: Sliding::default(),
            columns: Vec::new(),
            activity: 0.0,
            is_filled: false,
        }
    }

    fn clear(&mut self, from: u64, to: u64) {
        self.ring.clear(from, to);
        for ring in self.series.iter_mut().filter_map(|one| one.ring.as_mut()) {
            ring.clear(from, to);
        }
    }

    fn take(&mut self, all: Vec<Series>, step: Step) {
        let old = mem::take(&mut self.series);
        let mut observed: Vec<Buckets<u64>> = Vec::new();
        let is_same = old.len() == all.len()
            && old
                .iter()
                .zip(&all)
                .all(|(old, new)| old.labels == new.labels);
        let (mut in_order, mut by_labels) = (Vec::new(), HashMap::new());
        if is_same {
            in_order = old;
            in_order.reverse();
        } else {
            by_labels.extend(old.into_iter().map(|one| (one.labels.clone(), one)));
        }
        self.series.reserve(all.len());
        for new in all {
            let old = in_order.pop().or_else(|| by_labels.remove(&new.labels));
            let view = match old {
                Some(mut view) => {
                    observed.extend(view.update(&self.family, self.is_sampled, new, step));
                    view
                }
                None => SeriesView::new(&self.family, new, step),
            };
            self.series.push(view);
        }
        self.sum_up();
        self.ring.go_on(step.from, step.tick, self.now);
        if is_observed(&self.family) && step.seconds.is_some() {
            self.observe(&observed, step.tick);
        }
    }

    /// Of gauges the largest, of all else the sum; and how much moves.
    fn sum_up(&mut self) {
        let is_level = is_level(&self.family);
        let known = self
            .series
            .iter()
            .map(|one| one.now)
            .filter(|now| !now.is_nan());
        let join = |sum: f64, now: f64| match is_level {
            _ if sum.is_nan() => now,
            true => sum.max(now),
            false => sum + now,
        };
        self.now = known.fold(f64::NAN, join);
        self.activity = self.series.iter().map(|one| one.activity).sum();
    }

    fn observe(&mut self, observed: &[Buckets<u64>], tick: u64) {
        let mut column: Buckets<u64> = Vec::new();
        for buckets in observed {
            for &(bucket, count) in buckets {
                match column.binary_search_by_key(&bucket, |(known, _)| *known) {
                    Ok(at) => column[at].1 = column[at].1.saturating_add(count),
                    Err(at) => column.insert(at, (bucket, count)),
                }
            }
        }
        if column.is_empty() {
            return;
        }
        self.window.add(tick, &column);
        self.columns
            .retain(|(known, _)| tick.saturating_sub(*known) < KEPT as u64);
        self.columns.push((tick, column));
    }
}

impl SeriesView {
    fn new(family: &Family, new: Series, step: Step) -> SeriesView {
        let mut view = SeriesView {
            labels: new.labels,
            value: new.value,
            exemplars: new.exemplars,
            timestamp_ns: new.timestamp_ns,
            now: f64::NAN,
            ring: None,
            window: None,
            activity: 0.0,
            is_filled: false,
            changed: 0,
        };
        if is_level(family) {
            view.put(step, level(&view.value), true);
        }
        view
    }

    fn put(&mut self, step: Step, value: f64, is_level: bool) {
        self.now = value;
        if self.ring.is_some() || is_level || value > 0.0 {
            let ring = self.ring.get_or_insert_default();
            ring.go_on(step.from, step.tick, value);
        }
    }

    /// Takes the series' next value; what was observed since the last.
    fn update(
        &mut self,
        family: &Family,
        is_sampled: bool,
        new: Series,
        step: Step,
    ) -> Option<Buckets<u64>> {
        let (before, after) = (level(&self.value), level(&new.value));
        let old = mem::replace(&mut self.value, new.value);
        (self.exemplars, self.timestamp_ns) = (new.exemplars, new.timestamp_ns);
        let has_changed = before.to_bits() != after.to_bits();
        if is_level(family) {
            self.activity = self.activity * ACTIVE_PART + f64::from(u8::from(has_changed));
            self.put(step, after, true);
            return None;
        }
        if !has_changed {
            self.rest(is_sampled, step);
            return None;
        }
        let since = step.tick.saturating_sub(self.changed);
        let is_spread = is_sampled && self.changed > 0 && (1..=SELDOM).contains(&since);
        let seconds = step.seconds.filter(|_| after >= before);
        self.changed = step.tick;
        let Some(seconds) = seconds else {
            self.now = f64::NAN;
            return None;
        };
        let rate = match is_spread {
            true => (after - before) / (since as f64 * step.tick_seconds),
            false => (after - before) / seconds,
        };
        self.activity = self.activity * ACTIVE_PART + rate;
        self.put(step, rate, false);
        if let Some(ring) = self.ring.as_mut().filter(|_| is_spread) {
            (step.tick + 1 - since..step.tick).for_each(|tick| ring.set(tick, rate));
        }
        if !is_observed(family) {
            return None;
        }
        let observed = more(&buckets(&old), &buckets(&self.value));
        self.window
            .get_or_insert_default()
            .add(step.tick, &observed);
        Some(observed)
    }

    /// A counter that stands still.
    fn rest(&mut self, is_sampled: bool, step: Step) {
        self.activity *= ACTIVE_PART;
        let since = step.tick.saturating_sub(self.changed);
        match step.seconds {
            None => self.now = f64::NAN,
            Some(_) if is_sampled && self.changed > 0 && since < SELDOM => {}
            Some(_) => self.put(step, 0.0, false),
        }
    }
}
