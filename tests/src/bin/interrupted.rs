//! Emits in a signal handler, whatever it interrupts: `test-interrupted BUS MODE ROUNDS`.
//!
//! A timer of 2 kHz calls the handler, which emits. It says `ended HUNG ACCEPTED REFUSED` when it
//! is done: children that did not end, and what became of all emits, its children's too. The modes:
//!
//! * `first`: so many children, whose first emit is interrupted.
//! * `threads`: so many threads in a row that allocate, emit, allocate, and end.
//! * `forks`: so many children, forked and ended while the timer runs, of which every second one
//!   emits.
//! * `foreign`: so many threads that allocate and never emit but in the handler.

// A handler has nothing but atomics.
#![allow(clippy::disallowed_types)]

use std::error::Error;
use std::hint::black_box;
use std::io::{self, Write};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Bus, Counter};
use qbus_tests::{exit_at_once, fork};

const PERIOD: Duration = Duration::from_micros(500);
/// A child that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(5);

static COUNTER: OnceLock<Counter> = OnceLock::new();
/// Accepted and refused, of all processes.
static TALLY: OnceLock<&'static [AtomicU64; 2]> = OnceLock::new();

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bus, mode, rounds] = args.as_slice() else {
        return Err("expected BUS MODE ROUNDS".into());
    };
    let (bus, rounds) = (Bus::open(&bus.parse()?)?, rounds.parse::<u32>()?);
    TALLY.set(shared_tally()?).map_err(|_| "once")?;
    let counter = bus.counter("test_interrupted").register()?;
    COUNTER.set(counter).map_err(|_| "once")?;
    // SAFETY: the handler does nothing but emit, of which this test finds out whether a handler
    // may.
    unsafe { libc::signal(libc::SIGALRM, on_alarm as *const () as usize) };
    let hung = match mode.as_str() {
        "first" => children(rounds, || {
            set_timer(PERIOD);
            // Just before the handler comes.
            let start = Instant::now();
            while start.elapsed() < PERIOD * 9 / 10 {
                std::hint::spin_loop();
            }
            emit();
        })?,
        "forks" => {
            set_timer(PERIOD);
            let mut n = 0;
            let hung = children(rounds, || {
                n += 1;
                // A fork inherits no timer.
                set_timer(PERIOD);
                allocate(200);
                if n % 2 == 0 {
                    emit();
                }
            })?;
            set_timer(Duration::ZERO);
            hung
        }
        "threads" | "foreign" => {
            set_timer(PERIOD);
            for _ in 0..rounds {
                let emits = mode == "threads";
                let life = move || {
                    allocate(100);
                    (0..if emits { 20 } else { 0 }).for_each(|_| emit());
                    allocate(100);
                };
                thread::spawn(life)
                    .join()
                    .map_err(|_| "a thread panicked")?;
            }
            set_timer(Duration::ZERO);
            0
        }
        _ => return Err("no such mode".into()),
    };
    let tally = TALLY.get().ok_or("set above")?;
    let [accepted, refused] = [0, 1].map(|at: usize| tally[at].load(Ordering::Relaxed));
    writeln!(io::stdout(), "ended {hung} {accepted} {refused}")?;
    Ok(())
}

extern "C" fn on_alarm(_: libc::c_int) {
    // SAFETY: the address of this thread's own errno, which an interrupted call still has to read.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: valid for as long as the thread, and nobody else's.
    let before = unsafe { *errno };
    emit();
    // SAFETY: as above.
    unsafe { *errno = before };
}

fn emit() {
    if let (Some(counter), Some(tally)) = (COUNTER.get(), TALLY.get()) {
        let accepted = counter.try_add(1.0).is_ok();
        tally[usize::from(!accepted)].fetch_add(1, Ordering::Relaxed);
    }
}

/// Has the allocator's lock held most of the time.
fn allocate(rounds: usize) {
    let mut kept = Vec::new();
    for round in 0..rounds {
        kept.push(vec![0_u8; black_box(17 + round * 97 % 5000)]);
        if round % 3 == 0 {
            kept.swap_remove(0);
        }
    }
    black_box(kept);
}

/// Forks one child after the other, each of which lives and ends; how many did not end.
fn children(rounds: u32, mut live: impl FnMut()) -> io::Result<u64> {
    let mut hung = 0;
    for _ in 0..rounds {
        let pid = fork()?;
        if pid == 0 {
            live();
            exit_at_once(0);
        }
        hung += u64::from(!ends(pid));
    }
    Ok(hung)
}

/// Waits for a child, and ends one that does not end.
fn ends(pid: libc::pid_t) -> bool {
    let start = Instant::now();
    loop {
        // SAFETY: no memory is passed.
        if unsafe { libc::waitpid(pid, ptr::null_mut(), libc::WNOHANG) } == pid {
            return true;
        }
        if start.elapsed() >= PATIENCE {
            // SAFETY: no memory is passed; the child is not waited for yet, so the pid is its own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            // SAFETY: as above.
            unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
            return false;
        }
        thread::sleep(Duration::from_micros(100));
    }
}

fn set_timer(period: Duration) {
    let time = libc::timeval {
        tv_sec: 0,
        tv_usec: i64::from(period.subsec_micros()),
    };
    let timer = libc::itimerval {
        it_interval: time,
        it_value: time,
    };
    // SAFETY: a valid timer that outlives the call; what was set before is not asked for.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
}

fn shared_tally() -> io::Result<&'static [AtomicU64; 2]> {
    let (access, kind) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours.
    let page = unsafe { libc::mmap(ptr::null_mut(), 4096, access, kind, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: aligned, zeroed, never unmapped, and used as these words alone.
    Ok(unsafe { &*page.cast() })
}
