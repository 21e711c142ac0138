//! A producer per thread and bus, found by one look at thread-local storage.
//!
//! A handle belongs to no thread; what it emits goes through the producer of the thread that calls.
//! The lane goes back when the thread ends. A thread that is past its end, a signal handler that
//! interrupts an emit, and a thread that got no lane use a lane that all share.
//!
//! The first emit of a thread may come in a signal handler, which may have interrupted the
//! allocator, the birth or the death of the thread, or this very module. So nothing here allocates,
//! frees or waits: producers lie in the thread's own storage, which has no destructor; a key of
//! pthread_key_create(3) has them given back.

use std::cell::{Cell, UnsafeCell};
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::compiler_fence;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::bus::{Bus, LOOK_NS, MappedBus, bury};
use crate::error::EmitError;
use crate::lane::cell::{CellOp, Done, Keep, Unit};
use crate::lane::count;
use crate::producer::Producer;
use crate::record::{Record, SeriesId};
use crate::sync::{Ordering, PrivateU64};

/// Buses of which a thread has a producer of its own, at once; beyond them it uses lanes that all
/// share.
const PLACES: usize = 4;

impl Bus {
    /// Writes one record through this thread's producer, as handles do. As [`Producer::emit`], but
    /// that the first record of a thread joins and leases a lane, and that records of a bus that
    /// was removed go to the one that was made in its place: see [`successor`](Self::successor).
    ///
    /// # Errors
    ///
    /// As [`Producer::emit`]; or the process could not join.
    #[inline]
    pub fn emit(&self, record: Record) -> Result<(), EmitError> {
        emit(self.mapped(), record, Keep::Record)
    }

    /// As [`emit`](Self::emit), and waits while the lane is full.
    ///
    /// # Errors
    ///
    /// As `emit`; the lane was full for all of `patience`, which counts as one drop.
    #[inline]
    pub fn emit_or_wait(&self, record: Record, patience: Duration) -> Result<(), EmitError> {
        with_producer(self.mapped(), record.series, &|producer, series| {
            producer.emit_or_wait(Record { series, ..record }, patience)
        })
    }

    /// Whether this thread has a lane: its next record needs no system call then.
    #[inline]
    pub fn is_ready(&self) -> bool {
        this_thread(|producers| producers.find(self.mapped()).is_some())
    }

    /// Joins, and leases a lane for this thread, as its first record would do otherwise. What
    /// hinders it, that record meets again, and says so.
    pub fn get_ready(&self) {
        let mapped = self.mapped();
        mapped.look_after();
        if !mapped.is_removed() && mapped.attachment_or_wait().is_some() {
            let _ = this_thread(|producers| producers.enter(mapped).is_some());
        }
    }

    /// Whether this thread's next record finds room: in a lane of its own that answer holds.
    #[inline]
    pub fn has_room(&self) -> bool {
        this_thread(|producers| {
            let own = producers.find(self.mapped());
            // A thread that has none yet will get one that has.
            own.is_none_or(|(_, producer)| producer.has_room())
        })
    }
}

/// What is done with a producer, given the series' id on the producer's bus.
type Use<'a> = &'a dyn Fn(&Producer, SeriesId) -> Result<(), EmitError>;

/// A place for a thread's producer of one bus.
///
/// Only its thread touches it, and signal handlers that interrupt the thread: words that both look
/// at are Relaxed atomics between compiler fences.
struct ThreadProducer {
    /// The bus whose producer lies here; 0 = none, or not yet.
    bus: PrivateU64,
    /// The same while the producer can be used: 0 while an emit is under way, which a signal
    /// handler that interrupts it must leave alone.
    ready: PrivateU64,
    /// The time of a record with which it was last looked whether the bus still has its name.
    looked_ns: PrivateU64,
    /// A producer while `ready` is not 0, or an emit is under way.
    producer: UnsafeCell<MaybeUninit<Producer>>,
}

struct ThreadProducers {
    places: [ThreadProducer; PLACES],
    /// 1 while a place is filled or emptied: a signal handler leaves them alone.
    is_changing: PrivateU64,
    /// 1 once the thread has given its lanes back.
    has_ended: PrivateU64,
}

thread_local! {
    /// Without a destructor: to register one would allocate.
    static PRODUCERS: ThreadProducers = const {
        ThreadProducers {
            places: [const { ThreadProducer::empty() }; PLACES],
            is_changing: PrivateU64::new(0),
            has_ended: PrivateU64::new(0),
        }
    };
}

/// Does something with the calling thread's places.
#[inline(always)]
fn this_thread<T>(what: impl FnOnce(&ThreadProducers) -> T) -> T {
    // SAFETY: what is done ends on this thread.
    what(unsafe { places() })
}

/// The calling thread's places: for hot paths, into which no closure is compiled.
///
/// # Safety
///
/// The reference does not leave the calling thread.
#[inline(always)]
unsafe fn places<'a>() -> &'a ThreadProducers {
    let producers = PRODUCERS.with(ptr::from_ref);
    // SAFETY: without a destructor they are there as long as the thread is, also past its end.
    unsafe { &*producers }
}

/// Emits through this thread's producer.
#[inline(always)]
pub(crate) fn emit(
    mapped: &Arc<MappedBus>,
    record: Record,
    keep: Keep<'_>,
) -> Result<(), EmitError> {
    // What is done at once fits into the caller; all else is a call.
    // SAFETY: the places are used in this function alone.
    let producers = unsafe { places() };
    let key = mapped.key;
    if let Some((own, producer)) = producers.at_home(key)
        && !own.is_time_to_look(&record)
    {
        own.begin();
        let is_emitted = producer.emit_at_once(&record);
        own.end(key);
        if is_emitted {
            return Ok(());
        }
    }
    emit_slowly(mapped, record, keep)
}

/// Does something to the cells of a series that are this thread's own and found at once; whether it
/// did.
#[inline(always)]
pub(crate) fn to_own_cells(key: u64, unit: &Unit, op: CellOp) -> bool {
    // SAFETY: the places are used in this function alone.
    let producers = unsafe { places() };
    let Some((own, producer)) = producers.at_home(key) else {
        return false;
    };
    own.begin();
    let done = producer.to_own_cells(unit, op);
    if done == Done::YesAndLook {
        producer.look();
    }
    own.end(key);
    done != Done::No
}

/// Does something to the cells of a series, through this thread's producer. False when they must
/// have it as a record.
#[cold]
pub(crate) fn to_cells(
    mapped: &Arc<MappedBus>,
    unit: &Unit,
    op: CellOp,
) -> Result<bool, EmitError> {
    let done = Cell::new(false);
    with_producer(mapped, unit.series(), &|producer, series| {
        let to_cells = |unit: &Unit| producer.to_cells(unit, op) != Done::No;
        done.set(if unit.is_of(series) {
            to_cells(unit)
        } else {
            to_cells(&unit.of(series))
        });
        Ok(())
    })?;
    Ok(done.get())
}

#[cold]
fn emit_slowly(mapped: &Arc<MappedBus>, record: Record, keep: Keep<'_>) -> Result<(), EmitError> {
    mapped.look_after();
    this_thread(|producers| {
        let own = &producers.places[mapped.key as usize % PLACES];
        own.looked_ns.store(record.timestamp_ns, Ordering::Relaxed);
    });
    with_producer(mapped, record.series, &|producer, series| {
        let record = Record { series, ..record };
        match keep {
            // On another bus the series has another id, and other cells.
            Keep::State(unit, op) if !unit.is_of(series) => {
                producer.emit_or_keep(record, Keep::State(&unit.of(series), op))
            }
            keep => producer.emit_or_keep(record, keep),
        }
    })
}

/// Does something with this thread's producer, made now if there is none.
pub(crate) fn with_producer(
    mapped: &Arc<MappedBus>,
    series: SeriesId,
    emit: Use<'_>,
) -> Result<(), EmitError> {
    this_thread(|producers| match producers.find(mapped) {
        Some((own, producer)) => own.with(mapped.key, || emit(producer, series)),
        None => with_producer_slowly(producers, mapped, series, emit),
    })
}

#[cold]
fn with_producer_slowly(
    producers: &ThreadProducers,
    mapped: &Arc<MappedBus>,
    series: SeriesId,
    emit: Use<'_>,
) -> Result<(), EmitError> {
    mapped.look_after();
    if mapped.is_removed() {
        return with_successor(mapped, series, emit);
    }
    if mapped.attachment_or_wait().is_none() {
        count(&mapped.header().dropped_unowned, 1);
        return Err(if mapped.is_removed() {
            EmitError::Removed
        } else {
            EmitError::NotJoined
        });
    }
    if let Some((own, producer)) = producers.enter(mapped) {
        return own.with(mapped.key, || emit(producer, series));
    }
    // No producer of its own: the shared lane takes everybody.
    match Producer::shared(mapped) {
        Ok(producer) => emit(&producer, series),
        Err(_) => {
            count(&mapped.header().dropped_unowned, 1);
            Err(EmitError::NotJoined)
        }
    }
}

/// The bus was removed: the one that has its name now takes the record.
fn with_successor(
    mapped: &Arc<MappedBus>,
    series: SeriesId,
    emit: Use<'_>,
) -> Result<(), EmitError> {
    let Some(successor) = mapped.successor() else {
        count(&mapped.header().dropped_unowned, 1);
        return Err(EmitError::Removed);
    };
    let taker = successor.mapped();
    match successor.translate(mapped, series) {
        Some(series) => with_producer(taker, series, emit),
        None => {
            count(&taker.header().dropped_unowned, 1);
            Err(EmitError::Removed)
        }
    }
}

impl ThreadProducer {
    const fn empty() -> ThreadProducer {
        ThreadProducer {
            bus: PrivateU64::new(0),
            ready: PrivateU64::new(0),
            looked_ns: PrivateU64::new(0),
            producer: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Whether a record's time is a second or more from that with which the bus was last looked
    /// after: a clock that costs nothing.
    #[inline(always)]
    fn is_time_to_look(&self, record: &Record) -> bool {
        let looked_ns = self.looked_ns.load(Ordering::Relaxed);
        record.timestamp_ns.wrapping_sub(looked_ns) >= LOOK_NS
    }

    /// The producer, if it is of that bus, not in use, and still owns its lane.
    #[inline(always)]
    fn producer(&self, key: u64) -> Option<&Producer> {
        if self.ready.load(Ordering::Relaxed) != key {
            return None;
        }
        // SAFETY: a key that is not 0 says that a producer lies here, and no bus has the key 0.
        let producer = unsafe { &*self.producer.get() };
        // SAFETY: as above.
        let producer = unsafe { producer.assume_init_ref() };
        producer.is_current().then_some(producer)
    }

    fn with<T>(&self, key: u64, emit: impl FnOnce() -> T) -> T {
        self.begin();
        let emitted = emit();
        self.end(key);
        emitted
    }

    #[inline(always)]
    fn begin(&self) {
        self.ready.store(0, Ordering::Relaxed);
        // A signal handler runs on this thread: the compiler alone could reorder.
        compiler_fence(Ordering::SeqCst);
    }

    #[inline(always)]
    fn end(&self, key: u64) {
        compiler_fence(Ordering::SeqCst);
        self.ready.store(key, Ordering::Relaxed);
    }

    /// Whether an emit is under way: below this signal handler, then.
    fn is_busy(&self) -> bool {
        self.bus.load(Ordering::Relaxed) != 0 && self.ready.load(Ordering::Relaxed) == 0
    }

    /// Whether a producer lies here of a bus that nobody has open any more.
    fn is_of_closed_bus(&self) -> bool {
        let key = self.ready.load(Ordering::Relaxed);
        if key == 0 {
            return false;
        }
        // SAFETY: a key that is not 0 says that a producer lies here.
        let producer = unsafe { &*self.producer.get() };
        // SAFETY: as above.
        let producer = unsafe { producer.assume_init_ref() };
        !producer.bus_is_open()
    }

    fn fill(&self, key: u64, producer: Producer) {
        // SAFETY: the place is empty, and while places change no handler looks at it.
        unsafe { (*self.producer.get()).write(producer) };
        compiler_fence(Ordering::SeqCst);
        self.bus.store(key, Ordering::Relaxed);
        self.end(key);
    }

    /// Takes the producer out, which gives its lane back.
    fn take(&self) -> Option<Producer> {
        if self.ready.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.begin();
        // SAFETY: only this thread has the place, and nobody looks at it while it is not ready.
        let producer = unsafe { &*self.producer.get() };
        // SAFETY: it was ready, so a producer lies here; it is not read again until the next
        // `fill`.
        let producer = unsafe { producer.assume_init_read() };
        self.bus.store(0, Ordering::Relaxed);
        Some(producer)
    }
}

impl ThreadProducers {
    /// The place of a bus, unless another bus has it.
    #[inline(always)]
    fn at_home(&self, key: u64) -> Option<(&ThreadProducer, &Producer)> {
        let own = &self.places[key as usize % PLACES];
        Some((own, own.producer(key)?))
    }

    /// This thread's producer of a bus, if it can be used.
    fn find(&self, mapped: &Arc<MappedBus>) -> Option<(&ThreadProducer, &Producer)> {
        let mut places = self.places.iter();
        places.find_map(|own| Some((own, own.producer(mapped.key)?)))
    }

    /// As [`find`](Self::find), with a producer made now if need be; none for a signal handler that
    /// interrupts this very thing, or an emit.
    fn enter(&self, mapped: &Arc<MappedBus>) -> Option<(&ThreadProducer, &Producer)> {
        let is_closed = self.is_changing.load(Ordering::Relaxed) != 0
            || self.has_ended.load(Ordering::Relaxed) != 0;
        if is_closed {
            return None;
        }
        self.is_changing.store(1, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let own = self.place_for(mapped);
        compiler_fence(Ordering::SeqCst);
        self.is_changing.store(0, Ordering::Relaxed);
        let own = own?;
        Some((own, own.producer(mapped.key)?))
    }

    fn place_for(&self, mapped: &Arc<MappedBus>) -> Option<&ThreadProducer> {
        let is_of_bus = |own: &&ThreadProducer| own.bus.load(Ordering::Relaxed) == mapped.key;
        if let Some(own) = self.places.iter().find(is_of_bus) {
            if own.is_busy() {
                return None;
            }
            // Inherited by a fork, or its lane was taken away: what it drops is not the last
            // reference.
            drop(own.take());
        }
        let home = mapped.key as usize % PLACES;
        let from_home = || self.places[home..].iter().chain(&self.places[..home]);
        let is_empty = |own: &&ThreadProducer| own.bus.load(Ordering::Relaxed) == 0;
        let empty = from_home().find(is_empty);
        let own = empty.or_else(|| from_home().find(|own| own.is_of_closed_bus()))?;
        if let Some(closed) = own.take() {
            // It may be the last reference, and to unmap a bus frees memory.
            bury(closed.mapped().clone());
        }
        own.fill(mapped.key, Producer::exclusive_or_shared(mapped).ok()?);
        at_end_of_thread();
        Some(own)
    }

    /// Gives all lanes back, or that of one bus.
    fn give_back(&self, key: Option<u64>) {
        self.is_changing.store(1, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        for own in &self.places {
            if key.is_none_or(|key| own.bus.load(Ordering::Relaxed) == key) {
                drop(own.take());
            }
        }
        compiler_fence(Ordering::SeqCst);
        self.is_changing.store(0, Ordering::Relaxed);
    }
}

/// Gives this thread's lane of a bus back, which nobody has open any more.
pub(crate) fn forget(key: u64) {
    this_thread(|producers| producers.give_back(Some(key)));
}

/// Has [`end`] called when a thread ends that called [`at_end_of_thread`]. To be called before the
/// first emit, where one may allocate.
pub(crate) fn prepare() {
    KEY.get_or_init(|| {
        // The main thread's lanes: keys have nothing done for it when the process exits.
        // SAFETY: the function takes nothing and never unwinds.
        unsafe { libc::atexit(at_exit) };
        let mut key = 0;
        // SAFETY: the key outlives the call, and `end` takes any value.
        let made = unsafe { libc::pthread_key_create(&raw mut key, Some(end)) };
        (made == 0).then_some(key)
    });
}

/// `None` when the process has no key left: lanes of its threads then come back when it ends.
static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();

fn at_end_of_thread() {
    if let Some(Some(key)) = KEY.get() {
        let any: *const c_void = ptr::from_ref(&KEY).cast();
        // SAFETY: a key that was made; its value is never followed. Allocates for a key beyond the
        // thirty-second alone, of which few processes have so many.
        unsafe { libc::pthread_setspecific(*key, any) };
    }
}

extern "C" fn end(_: *mut c_void) {
    this_thread(|producers| {
        producers.has_ended.store(1, Ordering::Relaxed);
        producers.give_back(None);
    });
}

extern "C" fn at_exit() {
    end(ptr::null_mut());
}
