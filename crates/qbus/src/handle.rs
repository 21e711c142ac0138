//! Handles: a metric registered once, used from any thread.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bus::{Bus, may_be_handler};
use crate::clock::Clock;
use crate::error::{EmitError, RegisterError};
use crate::fork;
use crate::lane::cell::{CellOp, Keep, Unit};
use crate::lane::count;
use crate::record::{Kind, Record, SeriesId};
use crate::registry::{self, FamilyDefinition, Merge};
use crate::sync::{AtomicU64, Ordering, PrivateU64};
use crate::thread;

/// What a series is registered as, for when it was freed.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) family: FamilyDefinition,
    /// As they are registered.
    pub(crate) labels: Vec<(String, String)>,
    /// The process that the series was bound to, which registers it; no child of it.
    pub(crate) bound: Option<u64>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) max_series: Option<u64>,
}

impl Definition {
    /// What the registry says of a series.
    fn of(bus: &Bus, series: SeriesId) -> Option<Definition> {
        let found = bus.series(series)?;
        let family = bus.family(found.family)?;
        let mut labels = found.labels;
        labels.retain(|(name, _)| !family.merge.is_by_process() || name != Merge::PROCESS_LABEL);
        let owner = bus.mapped().attached_now();
        let owner = owner.map(|attachment| attachment.owner);
        let is_own = owner.is_some() && bus.bound(series) == owner;
        Some(Definition {
            bound: is_own.then(|| fork::generation().word()),
            ttl: bus.ttl_ns(found.family).map(Duration::from_nanos),
            max_series: None,
            family,
            labels,
        })
    }

    /// Says of the family what its registration said.
    fn tell_family(&self, bus: &Bus, series: SeriesId) {
        if self.ttl.is_none() && self.max_series.is_none() {
            return;
        }
        let Some(family) = bus.family_of(series) else {
            return;
        };
        if let Some(ttl) = self.ttl {
            bus.set_ttl(family, ttl);
        }
        if let Some(series) = self.max_series {
            bus.set_max_series(family, series);
        }
    }
}

/// What all handles are: a bus, a series and a clock.
#[derive(Clone)]
pub struct Handle {
    bus: Bus,
    /// Of the mapped bus, within this process.
    key: u64,
    /// The process whose series it is, where each has its own.
    process: Option<OwnWord>,
    /// Its id, which changes when it was freed and registered again.
    series: OwnWord,
    /// Whether it is stale is looked up when any series was freed: then this word of the bus, which
    /// keeps its mapping, is not what it was at the last look.
    freed: &'static AtomicU64,
    looked: OwnWord,
    /// What the series is registered as, for when it was freed: the next emit registers it again.
    definition: Option<Arc<Definition>>,
    clock: Clock,
    /// Of a histogram's buckets, ascending.
    bounds: Arc<[f64]>,
    /// Whether its observations are records.
    is_native: bool,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.series().0, self.bus.address())
    }
}

/// A word of a handle that its emits may change.
#[derive(Debug)]
struct OwnWord(PrivateU64);

impl OwnWord {
    fn new(value: u64) -> OwnWord {
        OwnWord(PrivateU64::new(value))
    }

    #[inline(always)]
    fn load(&self) -> u64 {
        // Relaxed: what is out of date here is looked up again.
        self.0.load(Ordering::Relaxed)
    }

    fn store(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl Clone for OwnWord {
    fn clone(&self) -> OwnWord {
        OwnWord::new(self.load())
    }
}

/// The word that changes when a series of a bus is freed, for a handle, which keeps the bus; and
/// what it says.
fn freed_word(bus: &Bus) -> (&'static AtomicU64, OwnWord) {
    let word: *const AtomicU64 = bus.mapped().freed_word();
    // SAFETY: it lies in the mapping, which the handle's bus keeps for as long as the handle.
    let word = unsafe { &*word };
    (word, OwnWord::new(word.load(Ordering::Acquire)))
}

/// This process, for a family of which each has a series of its own.
fn process_of(family: &FamilyDefinition) -> Option<OwnWord> {
    let own = || OwnWord::new(fork::generation().word());
    family.merge.is_by_process().then(own)
}

impl Handle {
    /// Registers a series, with what is said of it; `labels` as they were given.
    pub(crate) fn registered(
        bus: Bus,
        definition: Definition,
        labels: &[(String, String)],
        clock: Clock,
    ) -> Result<Handle, RegisterError> {
        let (freed, looked) = freed_word(&bus);
        if let Some(series) = definition.max_series
            && let Some(family) = bus.family_id(&definition.family.name)
        {
            // Else a higher limit would come too late for this series.
            bus.set_max_series(family, series);
        }
        let series = bus.intern(&definition.family, labels)?;
        definition.tell_family(&bus, series);
        if definition.bound.is_some() {
            // A process that cannot join emits nothing, and says so then.
            let _ = bus.bind(series);
        }
        Ok(Handle {
            key: bus.mapped().key,
            bus,
            process: process_of(&definition.family),
            series: OwnWord::new(u64::from(series.0)),
            freed,
            looked,
            clock,
            bounds: definition.family.buckets.as_slice().into(),
            is_native: definition.family.native,
            definition: Some(Arc::new(definition)),
        })
    }

    /// Of a series that is registered; its type is for the caller to know. The bounds are a
    /// histogram's.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let address = format!("doc-handle-{}", std::process::id()).parse()?;
    /// # let bus = qbus::Bus::create(&address, &qbus::BusOptions::default())?;
    /// let series = bus.counter("tokens_total").register()?.series();
    /// let same = qbus::Counter::from(qbus::Handle::new(&bus, series, qbus::Clock::Coarse, &[]));
    /// same.inc();
    /// # qbus::Bus::remove(&address, qbus::Removal::Forced)?;
    /// # Ok(()) }
    /// ```
    pub fn new(bus: &Bus, series: SeriesId, clock: Clock, bounds: &[f64]) -> Handle {
        let (freed, looked) = freed_word(bus);
        let definition = Definition::of(bus, series).map(Arc::new);
        let process = definition.as_ref();
        let process = process.and_then(|definition| process_of(&definition.family));
        Handle {
            bus: bus.clone(),
            key: bus.mapped().key,
            process,
            series: OwnWord::new(u64::from(series.0)),
            freed,
            looked,
            definition,
            clock,
            bounds: bounds.into(),
            is_native: bus.mapped().registry().is_native(series),
        }
    }

    /// The series, as it was registered last.
    pub fn series(&self) -> SeriesId {
        SeriesId(self.series.load() as u32)
    }

    /// Emits a record of the series: `record.series` counts for nothing.
    ///
    /// # Errors
    ///
    /// It was not accepted, and is counted as dropped.
    pub fn try_emit(&self, record: Record) -> Result<(), EmitError> {
        let series = self.current()?;
        thread::emit(self.bus.mapped(), Record { series, ..record }, Keep::Record)
    }

    /// Takes the series off the page: see [`Bus::forget`]. The next emit brings it back.
    pub fn forget(&self) {
        self.bus.forget(self.series());
    }

    /// The id of the series, registered anew if it was freed.
    #[inline(always)]
    fn current(&self) -> Result<SeriesId, EmitError> {
        if self.is_current() {
            return Ok(self.series());
        }
        self.register_again()
    }

    /// Whether the series was there when it was looked up last, and nothing was freed since. Where
    /// each process has its own, it is looked up each time.
    #[inline(always)]
    fn is_current(&self) -> bool {
        self.process.is_none() && self.freed.load(Ordering::Acquire) == self.looked.load()
    }

    /// Asks for no memory unless it fails: a signal handler may emit.
    #[cold]
    fn register_again(&self) -> Result<SeriesId, EmitError> {
        let mapped = self.bus.mapped();
        let freed = self.freed.load(Ordering::Acquire);
        let is_this = |process: &OwnWord| fork::word().is_word(process.load());
        let is_there = registry::is_open(mapped.arena(), self.series())
            && self.process.as_ref().is_none_or(is_this);
        // Of a bus that was removed its successor knows the series by what this one says of it, or
        // not at all.
        if is_there || mapped.is_removed() {
            self.looked.store(freed);
            return Ok(self.series());
        }
        let definition = self.definition.as_deref();
        let interned = definition.and_then(|definition| self.intern_again(definition));
        let Some(id) = interned else {
            count(&mapped.header().dropped_unowned, 1);
            return Err(EmitError::Unregistered);
        };
        self.series.store(u64::from(id.0));
        self.looked.store(freed);
        Ok(id)
    }

    /// Registers the series as it was, with what was said of it.
    fn intern_again(&self, definition: &Definition) -> Option<SeriesId> {
        let Definition {
            family,
            labels,
            bound,
            ..
        } = definition;
        let id = match &self.process {
            None => self.bus.register_again(family, labels)?,
            // It needs memory, for the text of the pid.
            Some(_) if may_be_handler() => return None,
            Some(process) => {
                let id = self.bus.intern(family, labels).ok()?;
                process.store(fork::generation().word());
                id
            }
        };
        if *bound == Some(fork::generation().word())
            && let Some(attachment) = self.bus.mapped().attached_now()
        {
            self.bus.mapped().registry().bind(id, attachment.owner);
        }
        definition.tell_family(&self.bus, id);
        Some(id)
    }

    /// Does something to the cells of the series that are this thread's own; whether it did.
    #[inline(always)]
    fn put_at_once(&self, unit: &Unit, op: CellOp) -> bool {
        thread::to_own_cells(self.key, unit, op)
    }

    /// Does something to the cells of the series, or emits the same as a record where there are
    /// none.
    fn put(&self, unit: &Unit, op: CellOp, kind: Kind, value: f64) -> Result<(), EmitError> {
        unit.follow(self.current()?);
        if thread::to_cells(self.bus.mapped(), unit, op)? {
            return Ok(());
        }
        self.emit(kind, value)
    }

    #[inline(always)]
    fn emit(&self, kind: Kind, value: f64) -> Result<(), EmitError> {
        self.emit_at(self.clock.now_ns(), kind, value)
    }

    #[inline(always)]
    fn emit_at(&self, timestamp_ns: u64, kind: Kind, value: f64) -> Result<(), EmitError> {
        self.emit_or_keep(timestamp_ns, kind, value, Keep::Nothing)
    }

    /// A record with a trace: an event, whatever becomes of others. Where the lane is full it
    /// counts without its trace.
    fn emit_traced(&self, kind: Kind, value: f64, trace_id: u128) -> Result<(), EmitError> {
        let series = self.current()?;
        let record = Record::new(self.clock.now_ns(), series, kind, value);
        let record = Record { trace_id, ..record };
        thread::emit(self.bus.mapped(), record, Keep::Record)
    }

    #[inline(always)]
    fn emit_or_keep(
        &self,
        timestamp_ns: u64,
        kind: Kind,
        value: f64,
        keep: Keep<'_>,
    ) -> Result<(), EmitError> {
        if !self.is_current() {
            return self.emit_again(timestamp_ns, kind, value);
        }
        let record = Record::new(timestamp_ns, self.series(), kind, value);
        thread::emit(self.bus.mapped(), record, keep)
    }

    #[cold]
    fn emit_again(&self, timestamp_ns: u64, kind: Kind, value: f64) -> Result<(), EmitError> {
        let record = Record::new(timestamp_ns, self.register_again()?, kind, value);
        thread::emit(self.bus.mapped(), record, Keep::Record)
    }
}

macro_rules! handle {
    ($(#[$docs:meta])* $name:ident { $($field:ident: $cells:expr),* }) => {
        $(#[$docs])*
        #[derive(Clone, Debug)]
        pub struct $name {
            handle: Handle,
            $($field: Unit,)*
        }

        impl From<Handle> for $name {
            fn from(handle: Handle) -> $name {
                $(let $field = $cells(&handle);)*
                $name { handle, $($field),* }
            }
        }

        impl $name {
            /// The series, for a [`crate::Producer`].
            pub fn series(&self) -> SeriesId {
                self.handle.series()
            }

            /// Takes the series off the page: see [`Bus::forget`]. The next emit brings it back.
            pub fn forget(&self) {
                self.handle.forget();
            }
        }
    };
}

handle! {
    /// A sum that only grows.
    ///
    /// Increments go to this thread's cells in shared memory, which cannot be full: nothing is
    /// lost, with or without an aggregator. A bus whose cells are used up takes them as records.
    Counter {
        count: |handle: &Handle| Unit::count(handle.series()),
        sum: |handle: &Handle| Unit::sum(handle.series())
    }
}

impl Counter {
    /// Adds 1.
    #[inline]
    pub fn inc(&self) {
        let _ = self.try_count(1);
    }

    /// Adds an increment, finite and not negative.
    #[inline]
    pub fn add(&self, increment: f64) {
        let _ = self.try_add(increment);
    }

    /// Adds an increment, finite and not negative.
    ///
    /// # Errors
    ///
    /// It was not accepted, and is counted as dropped.
    #[inline]
    pub fn try_add(&self, increment: f64) -> Result<(), EmitError> {
        // Saturating; what is not whole, or too large for it, comes back as something else.
        let whole = increment as i64;
        if whole > 0 && whole as f64 == increment {
            return self.try_count(whole as u64);
        }
        // A cell to which nothing is added says nothing: 0 is a record, which shows the series.
        if increment > 0.0 && Kind::Increment.takes(increment) {
            if self.handle.put_at_once(&self.sum, CellOp::Sum(increment)) {
                return Ok(());
            }
            return self.sum_slowly(increment);
        }
        self.handle.emit(Kind::Increment, increment)
    }

    /// Adds a whole number.
    #[inline(always)]
    fn try_count(&self, n: u64) -> Result<(), EmitError> {
        if self.handle.put_at_once(&self.count, CellOp::Count(n)) {
            return Ok(());
        }
        self.count_slowly(n)
    }

    // What is passed to a call is made there: on the way to the cells it would be stores for
    // nothing.
    #[cold]
    fn count_slowly(&self, n: u64) -> Result<(), EmitError> {
        let op = CellOp::Count(n);
        self.handle.put(&self.count, op, Kind::Increment, n as f64)
    }

    #[cold]
    fn sum_slowly(&self, increment: f64) -> Result<(), EmitError> {
        let op = CellOp::Sum(increment);
        self.handle.put(&self.sum, op, Kind::Increment, increment)
    }

    /// Adds an increment that belongs to a trace: pages show it as the counter's exemplar.
    #[inline]
    pub fn add_traced(&self, increment: f64, trace_id: u128) {
        let _ = self.try_add_traced(increment, trace_id);
    }

    /// Adds an increment that belongs to a trace: pages show it as the counter's exemplar.
    ///
    /// # Errors
    ///
    /// It was not accepted, and is counted as dropped.
    pub fn try_add_traced(&self, increment: f64, trace_id: u128) -> Result<(), EmitError> {
        self.handle
            .emit_traced(Kind::Increment, increment, trace_id)
    }

    /// States the sum, for a source that keeps it itself (a kernel's counter). Only one process may
    /// do so for a series.
    ///
    /// # Errors
    ///
    /// It was not accepted, and is counted as dropped.
    pub fn try_set_total(&self, total: f64) -> Result<(), EmitError> {
        self.handle.emit(Kind::Total, total)
    }
}

handle! {
    /// A value that goes up and down; the last one of all processes counts.
    ///
    /// Each change is an event of its own, with a time. Where the lane is full, the last value and
    /// the sum of differences get through as state, and the points between are missing.
    Gauge {
        level: |handle: &Handle| Unit::level(handle.series()),
        sum: |handle: &Handle| Unit::sum(handle.series())
    }
}

impl Gauge {
    /// States the value.
    #[inline]
    pub fn set(&self, value: f64) {
        let _ = self.try_set(value);
    }

    /// Adds to the value.
    #[inline]
    pub fn add(&self, difference: f64) {
        let _ = self.try_add(difference);
    }

    /// Subtracts from the value.
    #[inline]
    pub fn sub(&self, difference: f64) {
        self.add(-difference);
    }

    /// States the value.
    ///
    /// # Errors
    ///
    /// It was not accepted, and is counted as dropped.
    #[inline]
    pub fn try_set(&self, value: f64) -> Result<(), EmitError> {
        self.try_set_at(self.handle.clock.now_ns(), value)
    }

    /// States the value as of a time, in nanoseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// It was not accepted, and is counted as dropped.
    pub fn try_set_at(&self, timestamp_ns: u64, value: f64) -> Result<(), EmitError> {
        let keep = Keep::State(&self.level, CellOp::Level(value, timestamp_ns));
        self.handle
            .emit_or_keep(timestamp_ns, Kind::Set, value, keep)
    }

    /// Adds a number to the value, which may be negative.
    ///
    /// # Errors
    ///
    /// It was not accepted, and is counted as dropped.
    #[inline]
    pub fn try_add(&self, difference: f64) -> Result<(), EmitError> {
        let keep = Keep::State(&self.sum, CellOp::Sum(difference));
        let now_ns = self.handle.clock.now_ns();
        self.handle
            .emit_or_keep(now_ns, Kind::Adjust, difference, keep)
    }
}

macro_rules! observer {
    ($name:ident) => {
        impl $name {
            /// Adds an observation. Infinities count in the first or the last bucket and in the
            /// sum, as Prometheus has them; NaN is rejected, and counted as such.
            #[inline]
            pub fn observe(&self, value: f64) {
                let _ = self.try_observe(value);
            }

            /// Adds an observation. Infinities count in the first or the last bucket and in the
            /// sum, as Prometheus has them; NaN is rejected, and counted as such.
            ///
            /// # Errors
            ///
            /// It was not accepted, and is counted as dropped.
            #[inline]
            pub fn try_observe(&self, value: f64) -> Result<(), EmitError> {
                self.put(value)
            }

            /// Adds an observation that belongs to a trace: pages show it as the exemplar of its
            /// bucket.
            #[inline]
            pub fn observe_traced(&self, value: f64, trace_id: u128) {
                let _ = self.try_observe_traced(value, trace_id);
            }

            /// Adds an observation that belongs to a trace: pages show it as the exemplar of its
            /// bucket.
            ///
            /// # Errors
            ///
            /// It was not accepted, and is counted as dropped.
            pub fn try_observe_traced(&self, value: f64, trace_id: u128) -> Result<(), EmitError> {
                self.handle.emit_traced(Kind::Observe, value, trace_id)
            }

            /// Observes the seconds until the guard is dropped.
            pub fn start_timer(&self) -> Timer<'_> {
                Timer {
                    observer: Some(self),
                    start: Instant::now(),
                }
            }
        }
    };
}

handle! {
    /// Observations counted in buckets.
    ///
    /// They go to this thread's cells in shared memory, as a [`Counter`]'s increments do: nothing
    /// is lost.
    Histogram {
        unit: |handle: &Handle| Unit::histogram(handle.series(), handle.bounds.len() + 1)
    }
}
observer!(Histogram);

impl Observer for Histogram {
    #[inline(always)]
    fn put(&self, value: f64) -> Result<(), EmitError> {
        if !value.is_finite() || self.handle.is_native {
            return self.put_record(value);
        }
        let op = CellOp::Observe(bucket_of(&self.handle.bounds, value), value);
        if self.handle.put_at_once(&self.unit, op) {
            return Ok(());
        }
        self.observe_slowly(value)
    }
}

handle! {
    /// Observations whose quantiles, of the last ten minutes unless its registration says
    /// otherwise, are kept within 1.1 %.
    ///
    /// Each is an event of its own. Where the lane is full, they are counted by bucket as state:
    /// nothing is lost but their points.
    Summary {
        unit: |handle: &Handle| Unit::summary(handle.series())
    }
}
observer!(Summary);

impl Observer for Summary {
    #[inline(always)]
    fn put(&self, value: f64) -> Result<(), EmitError> {
        let now_ns = self.handle.clock.now_ns();
        let keep = Keep::State(&self.unit, CellOp::Summarize(value, now_ns));
        self.handle.emit_or_keep(now_ns, Kind::Observe, value, keep)
    }
}

impl Histogram {
    #[inline(never)]
    fn put_record(&self, value: f64) -> Result<(), EmitError> {
        let op = CellOp::Observe(bucket_of(&self.handle.bounds, value), value);
        let keep = match value.is_finite() {
            true => Keep::State(&self.unit, op),
            false => Keep::Nothing,
        };
        let now_ns = self.handle.clock.now_ns();
        self.handle.emit_or_keep(now_ns, Kind::Observe, value, keep)
    }

    #[cold]
    fn observe_slowly(&self, value: f64) -> Result<(), EmitError> {
        let op = CellOp::Observe(bucket_of(&self.handle.bounds, value), value);
        self.handle.put(&self.unit, op, Kind::Observe, value)
    }
}

/// What a timer reports to.
trait Observer: fmt::Debug {
    fn put(&self, value: f64) -> Result<(), EmitError>;
}

/// With no more bounds than this, comparing with all of them beats a search, each step of which
/// waits for the one before.
const FEW_BOUNDS: usize = 64;

/// The bucket that an observation belongs to: the first whose upper bound is not below it; behind
/// the last bound there is `+Inf`.
#[inline(always)]
pub fn bucket_of(bounds: &[f64], value: f64) -> usize {
    if bounds.len() > FEW_BOUNDS {
        bounds.partition_point(|bound| *bound < value)
    } else {
        bounds.iter().filter(|bound| **bound < value).count()
    }
}

/// Observes how many seconds it lived when it is dropped.
#[derive(Debug)]
#[must_use = "a timer that is dropped at once measures nothing"]
pub struct Timer<'a> {
    observer: Option<&'a dyn Observer>,
    start: Instant,
}

impl Timer<'_> {
    /// Observes now; the seconds.
    pub fn stop(mut self) -> f64 {
        let seconds = self.start.elapsed().as_secs_f64();
        if let Some(observer) = self.observer.take() {
            let _ = observer.put(seconds);
        }
        seconds
    }

    /// Observes nothing.
    pub fn discard(mut self) {
        self.observer = None;
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        if let Some(observer) = self.observer.take() {
            let _ = observer.put(self.start.elapsed().as_secs_f64());
        }
    }
}
