//! Does at random what producers do: `test-stormer BUS FOLDER NAME SEED`.
//!
//! It joins, emits through lanes of each sort, forks, emits from threads and from a signal handler,
//! becomes a daemon, closes descriptors that are not its own, leaves and joins again, and sometimes
//! kills itself, for a second at most, and while there is a file `go` in the folder. Whoever emits
//! holds one of the journals in the folder, and emits to the series of its number.

// A signal handler has nothing but atomics.
#![allow(clippy::disallowed_types)]

use std::error::Error;
use std::io;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Address, Bus, Clock, Counter, Kind, OpenError, Record};
use qbus_tests::{
    Journal, Life, Random, begin_session, close_descriptors, exit_at_once, fork, lease,
};
use rustix::process::{Signal, getpid, kill_process};

/// Children of children of a worker, at most.
const DEPTH_MAX: u32 = 2;
/// How long a process lives, at most, in microseconds.
const LIFE_MAX_US: u64 = 1_000_000;
/// More than there are threads that emit at once; each is a series.
const JOURNALS: u64 = 1500;
/// Microseconds between two signals: 2 kHz.
const PERIOD_US: i64 = 500;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bus, folder, name, seed] = args.as_slice() else {
        return Err("expected BUS FOLDER NAME SEED".into());
    };
    let failures = Path::new(folder).join("failures");
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // Before anything that takes time: the process may be killed meanwhile.
        let name = format!("{}-{}", std::process::id(), Clock::Precise.now_ns());
        let _ = std::fs::write(failures.join(name), panic.to_string());
        report(panic);
    }));
    let Some(bus) = open(&bus.parse()?, Path::new(folder))? else {
        return Ok(());
    };
    live(bus, Path::new(folder), name, Random::new(seed.parse()?), 0)
}

/// Opens the bus; waits where it was removed and is about to be made anew, until the storm is over.
fn open(address: &Address, folder: &Path) -> Result<Option<Bus>, OpenError> {
    while folder.join("go").exists() {
        match Bus::open(address) {
            Err(OpenError::Absent { .. }) => thread::sleep(Duration::from_millis(1)),
            opened => return opened.map(Some),
        }
    }
    Ok(None)
}

fn live(
    mut bus: Bus,
    folder: &Path,
    name: &str,
    mut random: Random,
    depth: u32,
) -> Result<(), Box<dyn Error>> {
    let sign = Life::begin(&folder.join("lives"), name);
    // Bounded, so that there are never many more of them than a machine has to run.
    let (life, start) = (
        Duration::from_micros(random.below(LIFE_MAX_US)),
        Instant::now(),
    );
    if random.below(3) == 0 {
        let sign = sign.clone();
        // At any instruction of the threads that emit.
        thread::spawn(move || {
            thread::sleep(life);
            sign.end();
            kill_process(getpid(), Signal::KILL)
        });
    }
    let is_interrupted = random.below(4) == 0;
    if is_interrupted {
        interrupt(&bus, folder, &mut random);
    }
    let mut children = 0;
    while folder.join("go").exists() && start.elapsed() < life {
        match random.below(16) {
            0 if depth < DEPTH_MAX && children < 2 => {
                children += 1;
                let (name, seed) = (format!("{name}.f{children}"), random.word());
                if fork()? == 0 {
                    return live(bus, folder, &name, Random::new(seed), depth + 1);
                }
            }
            1 => thread::scope(|scope| {
                for _ in 0..2 {
                    let (bus, seed) = (&bus, random.word());
                    scope.spawn(move || burst(bus, folder, &mut Random::new(seed)));
                }
            }),
            2 => {
                let address = bus.address().clone();
                drop(bus);
                let Some(opened) = open(&address, folder)? else {
                    break;
                };
                bus = opened;
            }
            3 if depth < DEPTH_MAX => {
                let (name, seed) = (format!("{name}.d"), random.word());
                if fork_away(1 + random.below(2))? {
                    return live(bus, folder, &name, Random::new(seed), depth + 1);
                }
                break;
            }
            // One that is interrupted has its handler's journal open, whose lock is a descriptor.
            4 if !is_interrupted && is_to_close(folder) => close_descriptors(),
            _ => burst(&bus, folder, &mut random),
        }
        thread::sleep(Duration::from_micros(random.below(2000)));
    }
    sign.end();
    Ok(())
}

/// Forks once or twice, as daemons do; whether this is the daemon, with a session of its own, at
/// the root, and without descriptors.
fn fork_away(times: u64) -> io::Result<bool> {
    for n in 0..times {
        if fork()? != 0 {
            if n > 0 {
                // It was never more than a step.
                exit_at_once(0);
            }
            return Ok(false);
        }
        begin_session();
    }
    std::env::set_current_dir("/")?;
    close_descriptors();
    Ok(true)
}

/// Whether this storm has a folder for those who close descriptors; leaves a sign there.
fn is_to_close(folder: &Path) -> bool {
    let sign = format!("{}-{}", std::process::id(), Clock::Precise.now_ns());
    std::fs::write(folder.join("closes").join(sign), "").is_ok()
}

/// What the signal handler emits with.
struct Interruption {
    counter: Counter,
    journal: Journal,
    /// A handler is at it, in whichever thread: a journal has one writer.
    is_busy: AtomicBool,
}

static INTERRUPTION: AtomicPtr<Interruption> = AtomicPtr::new(ptr::null_mut());

/// Has a timer interrupt this process for the rest of its life, and its handler emit.
fn interrupt(bus: &Bus, folder: &Path, random: &mut Random) {
    let (journal, number) = Journal::claim(&folder.join("journals"), JOURNALS, random);
    let interruption = Box::new(Interruption {
        counter: counter(bus, number),
        journal,
        is_busy: AtomicBool::new(false),
    });
    INTERRUPTION.store(Box::into_raw(interruption), Ordering::Release);
    let period = libc::timeval {
        tv_sec: 0,
        tv_usec: PERIOD_US,
    };
    let timer = libc::itimerval {
        it_interval: period,
        it_value: period,
    };
    // SAFETY: the handler does nothing but emit and write to its journal.
    unsafe { libc::signal(libc::SIGALRM, on_alarm as *const () as usize) };
    // SAFETY: the timer is read during the call alone.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
}

extern "C" fn on_alarm(_: libc::c_int) {
    // SAFETY: the address of this thread's own errno, which an interrupted call still has to read.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: valid for as long as the thread, and nobody else's.
    let before = unsafe { *errno };
    // SAFETY: stored before the timer was started, and never freed.
    if let Some(interruption) = unsafe { INTERRUPTION.load(Ordering::Acquire).as_ref() }
        && !interruption.is_busy.swap(true, Ordering::Acquire)
    {
        let Interruption {
            counter, journal, ..
        } = interruption;
        journal.emit(|| counter.try_add(1.0));
        interruption.is_busy.store(false, Ordering::Release);
    }
    // SAFETY: as above.
    unsafe { *errno = before };
}

fn counter(bus: &Bus, number: u64) -> Counter {
    let counter = bus
        .counter("test_storm")
        .label("journal", &number.to_string());
    counter.register().expect("room for a series")
}

/// Emits some records through a lane of one sort or another.
fn burst(bus: &Bus, folder: &Path, random: &mut Random) {
    let (journal, number) = Journal::claim(&folder.join("journals"), JOURNALS, random);
    let bus = &bus.successor().unwrap_or_else(|| bus.clone());
    let counter = counter(bus, number);
    let producer = match random.below(3) {
        0 => None,
        1 => lease(|| bus.producer()),
        _ => lease(|| bus.shared_producer()),
    };
    // Where the bus was made anew meanwhile, the counter may be of another one than the producer.
    let producer = producer.filter(|_| !bus.is_removed());
    for _ in 0..random.below(300) {
        let accepted = journal.emit(|| match &producer {
            None => counter.try_add(1.0),
            Some(producer) => {
                let now_ns = Clock::Coarse.now_ns();
                producer.emit(Record::new(now_ns, counter.series(), Kind::Increment, 1.0))
            }
        });
        if !accepted {
            thread::sleep(Duration::from_micros(100));
        }
    }
}
