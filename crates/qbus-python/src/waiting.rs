//! What an emit may have to wait for, without the interpreter: that its thread joins, and room in a
//! lane.
//!
//! Whoever counts in a loop is faster than the aggregator wakes up, and expects no loss; but nobody
//! waits for an aggregator that is not there, or again and again for one that lags.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use qbus::Bus;

use crate::ending;
use crate::timing::monotonic_ns;

/// The longest wait, and how long nobody waits after one that was in vain.
const PATIENCE: Duration = Duration::from_millis(100);
const IMPATIENCE: Duration = Duration::from_secs(1);
/// Between two looks whether the program was interrupted.
const SLICE: Duration = Duration::from_millis(10);
/// An aggregator that is awake makes room within this; to sleep would take longer.
const SPIN: Duration = Duration::from_micros(500);
const POLL: Duration = Duration::from_micros(200);

/// Has this thread join the bus and lease a lane, as its first emit would do otherwise: with the
/// interpreter, for as long as some system calls take.
#[inline]
pub(crate) fn get_ready(py: Python<'_>, bus: &Bus) {
    thread_local! {
        /// For which bus, after how many forks, this thread tried: who gets no lane tries no more.
        static TRIED: Cell<(usize, u64)> = const { Cell::new((0, 0)) };
    }
    let this = (ptr::from_ref(bus.address()).addr(), ending::forks());
    if TRIED.get() != this {
        TRIED.set(this);
        if !bus.is_ready() {
            ending::detach(py, || bus.get_ready());
        }
    }
}

/// Waits for room in this thread's lane, without the interpreter; it may be in vain.
///
/// # Errors
///
/// What a signal's handler raised: KeyboardInterrupt, as a rule.
#[cold]
pub(crate) fn for_room(py: Python<'_>, bus: &Bus) -> PyResult<()> {
    static IMPATIENT_UNTIL_NS: AtomicU64 = AtomicU64::new(0);
    let is_aggregated = || {
        let aggregator = bus.aggregator();
        aggregator.is_some_and(|aggregator| aggregator.alive)
    };
    let is_impatient = || monotonic_ns() < IMPATIENT_UNTIL_NS.load(Ordering::Relaxed);
    if is_impatient() || ending::is_ending() || !is_aggregated() {
        return Ok(());
    }
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let found = ending::detach(py, || {
            bus.wake_aggregator();
            has_room_within(bus, SLICE)
        });
        py.check_signals()?;
        if found {
            return Ok(());
        }
    }
    let until = monotonic_ns() + IMPATIENCE.as_nanos() as u64;
    IMPATIENT_UNTIL_NS.store(until, Ordering::Relaxed);
    Ok(())
}

fn has_room_within(bus: &Bus, patience: Duration) -> bool {
    let start = Instant::now();
    loop {
        if bus.has_room() {
            return true;
        }
        match start.elapsed() {
            waited if waited > patience => return false,
            waited if waited > SPIN => thread::sleep(POLL),
            _ => thread::yield_now(),
        }
    }
}
