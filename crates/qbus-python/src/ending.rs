//! The end of the interpreter, while other threads are still inside this module.
//!
//! From the moment at which Python finalizes, a thread that asks for the interpreter is ended by
//! `pthread_exit` where it stands (3.13 and before). Under a native frame that is an abort: no Rust
//! frame may be unwound so. Daemon threads run up to that moment and beyond, so none of them may be
//! found under a native frame that asks for the interpreter.
//!
//! There are two kinds of such frames: those that gave the interpreter up for a while ([`detach`]),
//! and those that run Python code ([`python`]), which gives it up as it likes. Whoever is inside is
//! counted. [`end`], called by `atexit`, closes the door, waits for those inside, and lets nobody
//! back in:
//!
//! | after `end` began, a thread that       | does                                                |
//! |----------------------------------------|-----------------------------------------------------|
//! | would give the interpreter up, or run  | gives it up and stays asleep, as Python's own       |
//! | Python code                            | threads do                                          |
//! | comes back from having given it up     | comes back, within [`PATIENCE`]; stays asleep after |
//! |                                        | that                                                |
//! | does neither (an increment, say)       | goes on                                             |
//!
//! The thread that ends the interpreter is exempt: nobody ends it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::calls;

/// How long the end waits for those inside: long enough for a read or an emit that waits, short
/// enough for a process that is asked to end.
const PATIENCE: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_micros(100);

/// Set by `end` before it looks at `INSIDE`; whoever goes in counts itself before it looks at this.
/// Both sides store first and load then, so all of it is `SeqCst`: one of the two sees the other.
static ENDING: AtomicBool = AtomicBool::new(false);
/// Set when `end` waits no longer; the same handshake with `RETURNING`.
static CLOSED: AtomicBool = AtomicBool::new(false);
/// The thread that ends the interpreter.
static ENDER: AtomicU64 = AtomicU64::new(0);
/// How many threads run Python code under a native frame, or have given the interpreter up.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// How many threads are about to take the interpreter again.
static RETURNING: AtomicUsize = AtomicUsize::new(0);

/// This thread's number: not 0, and known without asking Python.
fn this_thread() -> u64 {
    thread_local! {
        static NUMBER: u8 = const { 0 };
    }
    // Addresses of thread-local storage are of one thread each. A thread that is past its own end
    // is none that ends the interpreter.
    NUMBER
        .try_with(|number| std::ptr::from_ref(number) as u64)
        .unwrap_or(1)
}

fn is_ender() -> bool {
    ENDER.load(Ordering::SeqCst) == this_thread()
}

/// Whether the process is on its way to its end: there is nobody to tell anything any more.
pub(crate) fn has_begun() -> bool {
    ENDING.load(Ordering::SeqCst)
}

/// Whether the interpreter is about to end, as a thread that is not the one to end it sees it.
pub(crate) fn is_ending() -> bool {
    ENDING.load(Ordering::SeqCst) && !is_ender()
}

/// Counts this thread among those inside.
struct Inside;

impl Inside {
    fn enter() -> Inside {
        INSIDE.fetch_add(1, Ordering::SeqCst);
        Inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        leave(&INSIDE);
    }
}

/// A child of a fork counts anew while it may be inside, so the count stops at 0.
fn leave(count: &AtomicUsize) {
    let _ = count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| {
        count.checked_sub(1)
    });
}

pub(crate) fn sleep_for_ever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// Runs what may run Python code.
#[inline]
pub(crate) fn python<R>(py: Python<'_>, run: impl FnOnce() -> R) -> R {
    let _inside = Inside::enter();
    if is_ending() {
        asleep(py);
    }
    run()
}

/// Gives the interpreter up for good.
#[cold]
fn asleep(py: Python<'_>) -> ! {
    leave(&INSIDE);
    py.detach(|| sleep_for_ever())
}

/// Runs something that takes long without the interpreter, so that other threads can have it.
pub(crate) fn detach<R: Send>(py: Python<'_>, run: impl FnOnce() -> R + Send) -> R {
    let _inside = Inside::enter();
    if is_ending() {
        asleep(py);
    }
    let ender = is_ender();
    let done = py.detach(|| {
        let done = run();
        RETURNING.fetch_add(1, Ordering::SeqCst);
        if CLOSED.load(Ordering::SeqCst) && !ender {
            leave(&RETURNING);
            sleep_for_ever();
        }
        done
    });
    leave(&RETURNING);
    done
}

/// As many objects are made in a row: some microseconds' worth.
const BATCH: usize = 4;

/// Lets a thread that waits for the interpreter have it: for loops that make many objects, of which
/// `at` counts the steps.
///
/// The interpreter changes threads where a Python function begins, if one waits. To give it up and
/// take it again would wake those who wait, and find them too late, as a rule.
///
/// # Errors
///
/// What the handler of a signal raised meanwhile.
#[inline]
pub(crate) fn share(py: Python<'_>, at: usize) -> PyResult<()> {
    if at % BATCH == BATCH - 1 {
        pause(py)?;
    }
    Ok(())
}

/// Lets a thread that waits for the interpreter have it, once.
///
/// # Errors
///
/// See [`share`].
pub(crate) fn pause(py: Python<'_>) -> PyResult<()> {
    static PAUSE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let pause = PAUSE.import(py, "qbus._interpreter", "pause")?;
    calls::call_without(pause).map(drop)
}

/// Counts the forks that led to this process, so that threads know what they have to do anew.
static FORKS: AtomicU64 = AtomicU64::new(0);

/// See [`FORKS`].
#[inline]
pub(crate) fn forks() -> u64 {
    FORKS.load(Ordering::Relaxed)
}

/// Runs Python code on a thread that may have given the interpreter up; `None` when it is too late.
pub(crate) fn attach<R>(run: impl FnOnce(Python<'_>) -> R) -> Option<R> {
    let _inside = Inside::enter();
    if is_ending() {
        return None;
    }
    Some(Python::attach(run))
}

/// Frees what takes long to free, or waits for threads, without the interpreter. Once that ends it
/// is kept: daemon threads that wait for it have no state any more to wake up with.
pub(crate) fn free<T: Send>(used: T) {
    if ENDING.load(Ordering::SeqCst) {
        return drop(used);
    }
    let mut used = Some(used);
    attach(|py| detach(py, || drop(used.take())));
}

/// Closes the door, for good: called by `atexit` as late as can be, and before the process's own
/// bus goes.
#[pyfunction]
pub(crate) fn end(py: Python<'_>) {
    ENDER.store(this_thread(), Ordering::SeqCst);
    ENDING.store(true, Ordering::SeqCst);
    let until = Instant::now() + PATIENCE;
    let wait = |count: &AtomicUsize, until: Option<Instant>| {
        while count.load(Ordering::SeqCst) > 0 && until.is_none_or(|until| Instant::now() < until) {
            py.detach(|| thread::sleep(POLL));
        }
    };
    wait(&INSIDE, Some(until));
    CLOSED.store(true, Ordering::SeqCst);
    // They wait for nothing but the interpreter, which they get here.
    wait(&RETURNING, None);
}

/// Forgets the threads of the parent: called in a child after a fork.
#[pyfunction]
pub(crate) fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    INSIDE.store(0, Ordering::SeqCst);
    RETURNING.store(0, Ordering::SeqCst);
}
