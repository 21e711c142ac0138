//! Cases that take turns, so that the machine's noise hits all of them alike.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use qbus_benches::quantile;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// A call whose cost is measured in runs.
pub struct Case<'a> {
    pub name: &'static str,
    /// The row of ours that it stands beside.
    pub beside: Option<&'static str>,
    run: Box<dyn FnMut() -> f64 + 'a>,
    settle: Box<dyn FnMut() + 'a>,
    measured: Vec<f64>,
}

impl<'a> Case<'a> {
    /// A call that is made so many times a run; the loop is compiled with it.
    pub fn new(name: &'static str, calls: u32, mut call: impl FnMut(u32) + 'a) -> Case<'a> {
        let run = move || {
            let start = Instant::now();
            for n in 0..calls {
                call(n);
            }
            start.elapsed().as_nanos() as f64 / f64::from(calls)
        };
        Case {
            name,
            beside: None,
            run: Box::new(run),
            settle: Box::new(|| {}),
            measured: Vec::new(),
        }
    }

    /// What is to be compared with a row of ours.
    pub fn beside(mut self, name: &'static str) -> Case<'a> {
        self.beside = Some(name);
        self
    }

    /// What makes room again after a run.
    pub fn settled_by(mut self, settle: impl FnMut() + 'a) -> Case<'a> {
        self.settle = Box::new(settle);
        self
    }

    /// Median and spread: half the runs lie between the second and the third.
    pub fn spread(&mut self) -> [f64; 3] {
        spread(&mut self.measured)
    }
}

/// Median, lower and upper quartile.
pub fn spread(measured: &mut [f64]) -> [f64; 3] {
    [0.5, 0.25, 0.75].map(|q| quantile(measured, q))
}

/// Runs before the one that is measured: two laps of a ring, so that its lines lie where a producer
/// and a consumer that are at it all the time have left them, and not where other cases drove them
/// out.
const WARM: u32 = 4;

/// Measures each case once a round; each round begins with another, so that none is always the one
/// after another's system calls.
pub fn take_turns(cases: &mut [Case<'_>], rounds: u32) {
    for round in 0..rounds as usize {
        for turn in 0..cases.len() {
            let next = (round + turn) % cases.len();
            let case = &mut cases[next];
            for _ in 0..WARM {
                (case.run)();
                (case.settle)();
            }
            case.measured.push((case.run)());
            (case.settle)();
        }
    }
}

/// The cores of this thread. While it lives, whoever emits and whoever consumes stay on one of
/// their own: where the scheduler puts both on one, a line costs nothing, and elsewhere 100 ns.
pub struct Cores {
    all: CpuSet,
}

impl Cores {
    /// Threads that are started from now on consume.
    pub fn for_consumers() -> Cores {
        let all = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        let cores = Cores { all };
        cores.keep_to(1);
        cores
    }

    /// This thread emits.
    pub fn for_emitter(&self) {
        self.keep_to(0);
    }

    /// Where there is but one core, there is nothing to choose.
    fn keep_to(&self, nth: usize) {
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| self.all.is_set(*core));
        if let Some(core) = cores.nth(nth) {
            let mut one = CpuSet::new();
            one.set(core);
            let _ = sched_setaffinity(None, &one);
        }
    }
}

impl Drop for Cores {
    fn drop(&mut self) {
        let _ = sched_setaffinity(None, &self.all);
    }
}

/// A consumer on a thread of its own, as the aggregator is; it empties a queue when it is told to.
pub struct Drain {
    /// `None` when it is to end.
    ask: Option<SyncSender<()>>,
    done: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Drain {
    /// `make` is called on the consumer's thread, and makes what empties the queue.
    pub fn start<F: FnMut()>(make: impl FnOnce() -> F + Send + 'static) -> Drain {
        let (ask, asked) = sync_channel(0);
        let (tell, done) = sync_channel(0);
        let thread = thread::spawn(move || {
            let mut drain = make();
            let _ = tell.send(());
            while asked.recv().is_ok() {
                drain();
                let _ = tell.send(());
            }
        });
        let _ = done.recv();
        Drain {
            ask: Some(ask),
            done,
            thread: Some(thread),
        }
    }

    /// Empties it, and waits until that is done.
    pub fn now(&self) {
        let _ = self.ask.as_ref().map(|ask| ask.send(()));
        let _ = self.done.recv();
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.ask = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
