//! Atomics of the models: loom's, and a way to break them.
//!
//! A model that cannot fail proves nothing. Faults are injected here, word by word, so that the
//! code under a model is the code that runs, without a switch.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, OnceLock};

/// What is wrong with a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Every access is Relaxed: whatever edge the word carries is gone.
    Unordered,
    /// An exchange is a load, a comparison and a store, which another thread can come between.
    NotAtomic,
}

thread_local! {
    /// A model and all of its threads run on one thread of the system.
    static STORES_LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
    static FENCELESS: Cell<bool> = const { Cell::new(false) };
}

/// So many more stores reach memory: the writer was killed after them.
pub(crate) fn cut_after(stores: u64) {
    STORES_LEFT.set(stores);
}

/// Whether fences do nothing.
pub(crate) fn drop_fences(dropped: bool) {
    FENCELESS.set(dropped);
}

pub(crate) fn fence(order: Ordering) {
    if !FENCELESS.get() {
        loom::sync::atomic::fence(order);
    }
}

#[derive(Debug)]
pub(crate) struct AtomicU64 {
    word: loom::sync::atomic::AtomicU64,
    fault: Mutex<Option<Fault>>,
    /// Touched by every change of a watched word, and by readers that peek.
    watch: OnceLock<loom::sync::atomic::AtomicU64>,
}

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> AtomicU64 {
        AtomicU64 {
            word: loom::sync::atomic::AtomicU64::new(value),
            fault: Mutex::new(None),
            watch: OnceLock::new(),
        }
    }

    /// Breaks the word.
    pub(crate) fn inject(&self, fault: Fault) {
        *self.fault.lock().unwrap() = Some(fault);
    }

    /// Lets readers [`peek`](Self::peek).
    pub(crate) fn watch(&self) {
        let _ = self.watch.set(loom::sync::atomic::AtomicU64::new(0));
    }

    /// A reader is to come before every change of a watched word, and after every one.
    ///
    /// Loom alone does not see to that where the one who changes a word loads it first: it
    /// remembers the last access only, so that load hides the reader's.
    pub(crate) fn peek(&self) {
        if let Some(watch) = self.watch.get() {
            watch.fetch_add(0, Ordering::Relaxed);
        }
    }

    fn has(&self, fault: Fault) -> bool {
        *self.fault.lock().unwrap() == Some(fault)
    }

    fn order(&self, order: Ordering) -> Ordering {
        if self.has(Fault::Unordered) {
            Ordering::Relaxed
        } else {
            order
        }
    }

    pub(crate) fn load(&self, order: Ordering) -> u64 {
        self.word.load(self.order(order))
    }

    pub(crate) fn store(&self, value: u64, order: Ordering) {
        let left = STORES_LEFT.get();
        if left == 0 {
            return;
        }
        STORES_LEFT.set(left - 1);
        self.peek();
        self.word.store(value, self.order(order));
    }

    pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        self.peek();
        self.word.fetch_add(value, self.order(order))
    }

    pub(crate) fn compare_exchange(
        &self,
        from: u64,
        to: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        if self.has(Fault::NotAtomic) {
            let found = self.word.load(Ordering::Acquire);
            if found != from {
                return Err(found);
            }
            self.peek();
            self.word.store(to, Ordering::Release);
            return Ok(found);
        }
        self.peek();
        self.word
            .compare_exchange(from, to, self.order(success), self.order(failure))
    }
}
