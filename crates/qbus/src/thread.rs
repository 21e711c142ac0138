//! A producer per thread and bus, found by one look at thread-local storage.
//!
//! A handle belongs to no thread; what it emits goes through the producer of the thread that calls.
//! The lane goes back when the thread ends. A thread that is past its end, a signal handler that
//! interrupts an emit, and a thread that got no lane use the process's shared lane.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::compiler_fence;
use std::time::Duration;

use crate::bus::{Bus, MappedBus};
use crate::error::EmitError;
use crate::lane::count;
use crate::producer::Producer;
use crate::record::Record;
use crate::sync::Ordering;

impl Bus {
    /// Writes one record through this thread's producer, as handles do. As [`Producer::emit`], but that the
    /// first record of a thread joins and leases a lane.
    ///
    /// # Errors
    ///
    /// As [`Producer::emit`]; or the process could not join.
    #[inline]
    pub fn emit(&self, record: Record) -> Result<(), EmitError> {
        emit(self.mapped(), record)
    }

    /// As [`emit`](Self::emit), and waits while the lane is full.
    ///
    /// # Errors
    ///
    /// As `emit`; the lane was full for all of `patience`, which counts as one drop.
    #[inline]
    pub fn emit_or_wait(&self, record: Record, patience: Duration) -> Result<(), EmitError> {
        emit_or_wait(self.mapped(), record, patience)
    }

    /// Whether this thread's next record finds room: in a lane of its own that answer holds.
    #[inline]
    pub fn has_room(&self) -> bool {
        has_room(self.mapped())
    }
}

/// A thread's producer for the bus of that key.
struct ThreadProducer {
    key: u64,
    producer: Producer,
    /// Set while an emit is under way: a signal handler that finds it set must not write to the lane.
    busy: Cell<bool>,
}

/// Owns the producers; dropped with the thread. Boxed, since `CURRENT` points to one.
#[allow(clippy::vec_box)]
struct ThreadProducers(RefCell<Vec<Box<ThreadProducer>>>);

impl Drop for ThreadProducers {
    fn drop(&mut self) {
        CURRENT.set(ptr::null());
    }
}

thread_local! {
    /// The producer used last. Points into `PRODUCERS`, or is null.
    static CURRENT: Cell<*const ThreadProducer> = const { Cell::new(ptr::null()) };
    static PRODUCERS: ThreadProducers = const { ThreadProducers(RefCell::new(Vec::new())) };
}

/// Emits through this thread's producer.
#[inline(always)]
pub(crate) fn emit(mapped: &Arc<MappedBus>, record: Record) -> Result<(), EmitError> {
    match current(mapped) {
        Some(own) if !own.busy.get() => own.emit(record),
        _ => emit_slowly(mapped, record),
    }
}

#[cold]
fn emit_slowly(mapped: &Arc<MappedBus>, record: Record) -> Result<(), EmitError> {
    with_producer_slowly(mapped, &|producer| producer.emit(record))
}

/// As [`emit`], and waits while the lane is full: `patience` at most.
pub(crate) fn emit_or_wait(
    mapped: &Arc<MappedBus>,
    record: Record,
    patience: Duration,
) -> Result<(), EmitError> {
    let emit = |producer: &Producer| producer.emit_or_wait(record, patience);
    match current(mapped) {
        Some(own) if !own.busy.get() => own.with(emit),
        _ => with_producer_slowly(mapped, &emit),
    }
}

/// Whether this thread's lane has room; a thread that has none yet will get one that has.
#[inline]
pub(crate) fn has_room(mapped: &Arc<MappedBus>) -> bool {
    current(mapped).is_none_or(|own| own.producer.has_room())
}

/// The producer used last, if it is of this bus and not inherited by a fork.
#[inline(always)]
fn current<'a>(mapped: &Arc<MappedBus>) -> Option<&'a ThreadProducer> {
    // SAFETY: null, or a box in this thread's `PRODUCERS`, which sets it to null before it goes; no caller
    // keeps it.
    let own = unsafe { CURRENT.get().as_ref() };
    own.filter(|own| own.key == mapped.key && own.producer.is_current())
}

impl ThreadProducer {
    #[inline(always)]
    fn emit(&self, record: Record) -> Result<(), EmitError> {
        self.begin();
        let emitted = self.producer.emit_as_owner(record);
        self.end();
        emitted
    }

    fn with(&self, emit: impl FnOnce(&Producer) -> Result<(), EmitError>) -> Result<(), EmitError> {
        self.begin();
        let emitted = emit(&self.producer);
        self.end();
        emitted
    }

    #[inline(always)]
    fn begin(&self) {
        self.busy.set(true);
        // A signal handler runs on this thread: the compiler alone could reorder.
        compiler_fence(Ordering::SeqCst);
    }

    #[inline(always)]
    fn end(&self) {
        compiler_fence(Ordering::SeqCst);
        self.busy.set(false);
    }
}

/// Gives this thread's lane of a bus back, which nobody has open any more.
pub(crate) fn forget(key: u64) {
    let _ = PRODUCERS.try_with(|producers| {
        let Ok(mut producers) = producers.0.try_borrow_mut() else {
            return;
        };
        CURRENT.set(ptr::null());
        producers.retain(|own| own.key != key);
    });
}

/// Emits through this thread's producer, made now if there is none.
#[cold]
fn with_producer_slowly(
    mapped: &Arc<MappedBus>,
    emit: &dyn Fn(&Producer) -> Result<(), EmitError>,
) -> Result<(), EmitError> {
    if mapped.attachment_or_wait().is_none() {
        count(&mapped.header().dropped_unowned, 1);
        return Err(if mapped.is_removed() {
            EmitError::Removed
        } else {
            EmitError::NotJoined
        });
    }
    let through_own = PRODUCERS.try_with(|producers| {
        // Borrowed already: a signal handler that interrupts this very function.
        let mut producers = producers.0.try_borrow_mut().ok()?;
        CURRENT.set(ptr::null());
        // Inherited by a fork (dropping them touches nothing of the parent's), or of a bus that
        // nobody has open any more.
        producers.retain(|own| own.producer.is_current() && own.producer.bus_is_open());
        if !producers.iter().any(|own| own.key == mapped.key) {
            let producer = Producer::exclusive_or_shared(mapped).ok()?;
            producers.push(Box::new(ThreadProducer {
                key: mapped.key,
                producer,
                busy: Cell::new(false),
            }));
        }
        let own: *const ThreadProducer = &**producers.iter().find(|own| own.key == mapped.key)?;
        CURRENT.set(own);
        // SAFETY: the box was found just now, and only this thread takes it out.
        let own = unsafe { &*own };
        drop(producers);
        (!own.busy.get()).then(|| own.with(emit))
    });
    match through_own {
        Ok(Some(emitted)) => emitted,
        // No producer of its own: the shared lane takes everybody.
        Ok(None) | Err(_) => match Producer::shared(mapped) {
            Ok(producer) => emit(&producer),
            Err(_) => {
                count(&mapped.header().dropped_unowned, 1);
                Err(EmitError::NotJoined)
            }
        },
    }
}
