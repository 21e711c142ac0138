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

use crate::bus::Inner;
use crate::error::EmitError;
use crate::lane::count;
use crate::producer::Producer;
use crate::record::Record;
use crate::sync::Ordering;

/// A thread's producer for the bus of that key.
struct Slot {
    key: u64,
    producer: Producer,
    /// Set while an emit is under way: a signal handler that finds it set must not write to the lane.
    busy: Cell<bool>,
}

/// Owns the slots; dropped with the thread. Boxed, since `CURRENT` points to one.
#[allow(clippy::vec_box)]
struct Slots(RefCell<Vec<Box<Slot>>>);

impl Drop for Slots {
    fn drop(&mut self) {
        CURRENT.set(ptr::null());
    }
}

thread_local! {
    /// The slot used last. Points into `SLOTS`, or is null.
    static CURRENT: Cell<*const Slot> = const { Cell::new(ptr::null()) };
    static SLOTS: Slots = const { Slots(RefCell::new(Vec::new())) };
}

/// Emits through this thread's producer.
#[inline(always)]
pub(crate) fn emit(inner: &Arc<Inner>, record: Record) -> Result<(), EmitError> {
    match current(inner) {
        Some(slot) if !slot.busy.get() => slot.emit(record),
        _ => emit_slowly(inner, record),
    }
}

#[cold]
fn emit_slowly(inner: &Arc<Inner>, record: Record) -> Result<(), EmitError> {
    with_producer_slowly(inner, &|producer| producer.emit(record))
}

/// As [`emit`], and waits while the lane is full: `patience` at most.
pub(crate) fn emit_or_wait(
    inner: &Arc<Inner>,
    record: Record,
    patience: Duration,
) -> Result<(), EmitError> {
    let emit = |producer: &Producer| producer.emit_or_wait(record, patience);
    match current(inner) {
        Some(slot) if !slot.busy.get() => slot.with(emit),
        _ => with_producer_slowly(inner, &emit),
    }
}

/// Whether this thread's lane has room; a thread that has none yet will get one that has.
#[inline]
pub(crate) fn has_room(inner: &Arc<Inner>) -> bool {
    current(inner).is_none_or(|slot| slot.producer.has_room())
}

/// The slot used last, if it is of this bus and not inherited by a fork.
#[inline(always)]
fn current<'a>(inner: &Arc<Inner>) -> Option<&'a Slot> {
    // SAFETY: null, or a box in this thread's `SLOTS`, which sets it to null before it goes; no caller
    // keeps it.
    let slot = unsafe { CURRENT.get().as_ref() };
    slot.filter(|slot| slot.key == inner.key && slot.producer.is_current())
}

impl Slot {
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
    let _ = SLOTS.try_with(|slots| {
        let Ok(mut slots) = slots.0.try_borrow_mut() else {
            return;
        };
        CURRENT.set(ptr::null());
        slots.retain(|slot| slot.key != key);
    });
}

/// Emits through this thread's producer, made now if there is none.
#[cold]
fn with_producer_slowly(
    inner: &Arc<Inner>,
    emit: &dyn Fn(&Producer) -> Result<(), EmitError>,
) -> Result<(), EmitError> {
    if inner.attachment_or_wait().is_none() {
        count(&inner.header().dropped_unowned, 1);
        return Err(if inner.is_removed() {
            EmitError::Removed
        } else {
            EmitError::NotJoined
        });
    }
    let through_slot = SLOTS.try_with(|slots| {
        // Borrowed already: a signal handler that interrupts this very function.
        let mut slots = slots.0.try_borrow_mut().ok()?;
        CURRENT.set(ptr::null());
        // Inherited by a fork (dropping them touches nothing of the parent's), or of a bus that
        // nobody has open any more.
        slots.retain(|slot| slot.producer.is_current() && slot.producer.bus_is_open());
        if !slots.iter().any(|slot| slot.key == inner.key) {
            let producer = Producer::exclusive_or_shared(inner).ok()?;
            slots.push(Box::new(Slot {
                key: inner.key,
                producer,
                busy: Cell::new(false),
            }));
        }
        let slot: *const Slot = &**slots.iter().find(|slot| slot.key == inner.key)?;
        CURRENT.set(slot);
        // SAFETY: the box was found just now, and only this thread takes it out.
        let slot = unsafe { &*slot };
        drop(slots);
        (!slot.busy.get()).then(|| slot.with(emit))
    });
    match through_slot {
        Ok(Some(emitted)) => emitted,
        // No slot to use: the shared lane takes everybody.
        Ok(None) | Err(_) => match Producer::shared(inner) {
            Ok(producer) => emit(&producer),
            Err(_) => {
                count(&inner.header().dropped_unowned, 1);
                Err(EmitError::NotJoined)
            }
        },
    }
}
