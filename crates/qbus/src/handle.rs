//! Handles: a metric registered once, used from any thread.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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

            /// Takes the series off the page: see [`crate::Bus::forget`]. The next emit brings it
            /// back.
            pub fn forget(&self) {
                self.handle.forget();
            }
        }
    };
}

// Below the macro, which they use.
mod counter;
mod gauge;
mod observer;

pub use self::counter::Counter;
pub use self::gauge::Gauge;
pub use self::observer::{Histogram, Summary, Timer, bucket_of};
