//! A process that loses the descriptor of its lock, or is forked beside it: `test-stray BUS MODE
//! ROUNDS`.
//!
//! It says `ready`, waits for a line, goes on, says what the mode says, and waits until its input
//! is closed. The modes:
//!
//! * `closes`: closes all descriptors that it does not know after its first emit, as daemons do;
//!   says `emitted N`.
//! * `reuses`: likewise, and opens another file under the numbers that came free, and a copy of
//!   each; emits and leaves the bus; says `kept K of N` descriptors of that other file.
//! * `leaves`: emits once, says `ready` after that, and leaves the bus; says `left N`, children
//!   that it has.
//! * `duplicates`: copies every descriptor after its first emit, and leaves the bus; says `left`.
//! * `forks`: so many forks while another thread joins and leaves; the children idle; says `joined
//!   N`.
//! * `races`: so many children, threads of which emit first at the same time; says `lost N`,
//!   children that were thought dead.
//! * `spawns`: starts another program, says `started`, waits for a line, and leaves the bus while
//!   that program runs on; says `left`.
//! * `executes`, `executes-a-copy`: becomes another program, which ends with its input; with a copy
//!   of each descriptor that the program inherits.
//! * `aggregates`: aggregates the bus, closes all descriptors, and opens another file under the
//!   numbers that came free; goes on until the snapshot has grown; says `refused 1` if nobody else
//!   can aggregate it, `grown N` bytes, `emitted N` points, and `bytes N` of the other file.
//! * `is-superseded`: aggregates the bus, closes all descriptors, and another aggregator starts
//!   before it notices; says `superseded 1`, and `emitted N`.
//! * `daemonizes`: forks twice, the parents end, descriptors are closed; the last one says `emitted
//!   N`.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::ptr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Bus, Counter};
use qbus_aggregate::{Aggregator, AggregatorOptions};
use qbus_tests::{await_child, close_descriptors, exit_at_once, fork, has_child, raw_clone};

/// What nobody here opens more of.
const FDS: i32 = 64;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bus, mode, rounds] = args.as_slice() else {
        return Err("expected BUS MODE ROUNDS".into());
    };
    let (bus, rounds) = (Bus::open(&bus.parse()?)?, rounds.parse::<u64>()?);
    let counter = bus.counter("test_stray").label("mode", mode).register()?;
    let mut emitted = 0;
    let joins_first = ["closes", "reuses", "duplicates", "leaves", "spawns"];
    if joins_first.contains(&mode.as_str()) || mode.starts_with("executes") {
        emitted += emit(&counter, 1);
    }
    if mode == "closes" {
        close_descriptors();
    }
    say("ready")?;
    io::stdin().lock().read_line(&mut String::new())?;
    match mode.as_str() {
        "closes" => {
            emitted += emit(&counter, rounds);
            say(&format!("emitted {emitted}"))?;
        }
        "reuses" => {
            close_descriptors();
            let others = take_numbers(&File::open(Path::new("/dev/null"))?)?;
            emit(&counter, rounds);
            drop((counter, bus));
            let is_open = |fd: &i32| Path::new(&format!("/proc/self/fd/{fd}")).exists();
            let kept = others.iter().filter(|fd| is_open(fd)).count();
            say(&format!("kept {kept} of {}", others.len()))?;
        }
        "duplicates" => {
            duplicate_all();
            drop((counter, bus));
            say("left")?;
        }
        "leaves" => {
            drop((counter, bus));
            say(&format!("left {}", u64::from(has_child())))?;
        }
        "spawns" => {
            let mut other = Command::new("sleep")
                .arg("3")
                .stdout(Stdio::null())
                .spawn()?;
            say("started")?;
            io::stdin().lock().read_line(&mut String::new())?;
            drop((counter, bus));
            say("left")?;
            other.kill()?;
            other.wait()?;
        }
        "executes" => return Err(Command::new("cat").exec().into()),
        "executes-a-copy" => {
            duplicate_all();
            return Err(Command::new("cat").exec().into());
        }
        "aggregates" => aggregates(&bus, &counter)?,
        "is-superseded" => is_superseded(&bus, &counter, rounds)?,
        "forks" => say(&format!("joined {}", forks(&bus, rounds)?))?,
        "races" => say(&format!("lost {}", races(&bus, &counter, rounds)?))?,
        "daemonizes" => {
            emitted += emit(&counter, rounds);
            for _ in 0..2 {
                // Each generation emits, and the next one begins with what it has.
                if fork()? != 0 {
                    exit_at_once(0);
                }
                emitted += emit(&counter, rounds);
                close_descriptors();
                emitted += emit(&counter, rounds);
            }
            say(&format!("emitted {emitted}"))?;
        }
        _ => return Err("no such mode".into()),
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn emit(counter: &Counter, records: u64) -> u64 {
    let mut accepted = 0;
    for n in 0..records {
        accepted += u64::from(counter.try_add(1.0).is_ok());
        if n % 64 == 0 {
            // Lanes are small.
            thread::sleep(Duration::from_micros(500));
        }
    }
    accepted
}

fn say(what: &str) -> io::Result<()> {
    io::stdout()
        .lock()
        .write_all(format!("{what}\n").as_bytes())
}

/// Copies every descriptor: a copy is inherited by the programs that this process starts.
fn duplicate_all() {
    for fd in 3..FDS {
        // SAFETY: no memory is passed; the copy is never closed.
        unsafe { libc::dup(fd) };
    }
}

/// Opens a file under every number that is free; the numbers.
fn take_numbers(file: &File) -> io::Result<Vec<i32>> {
    let mut numbers = Vec::new();
    while numbers.last().is_none_or(|&fd| fd < FDS) {
        let copy = file.try_clone()?;
        numbers.push(copy.as_raw_fd());
        std::mem::forget(copy);
    }
    Ok(numbers)
}

/// Aggregates the bus without a descriptor, until the snapshot has grown.
fn aggregates(bus: &Bus, counter: &Counter) -> Result<(), Box<dyn Error>> {
    let options = AggregatorOptions {
        history: 1 << 20,
        ..AggregatorOptions::default()
    };
    let mut aggregator = Aggregator::open(bus, &options)?;
    let level = bus.gauge("test_level").register()?;
    close_descriptors();
    let file = tempfile::tempfile()?;
    take_numbers(&file)?;
    // It looks after its locks at least at the end.
    aggregator.finish();
    let refused = Aggregator::open(bus, &options).is_err();
    say(&format!("refused {}", u64::from(refused)))?;
    let size = || std::fs::metadata(bus.address().snapshot()).map(|found| found.len());
    let (before, start) = (size()?, Instant::now());
    let mut emitted = 0;
    while size()? == before && start.elapsed() < Duration::from_secs(60) {
        for _ in 0..16 {
            level.set(emitted as f64);
            emitted += 1;
        }
        aggregator.round();
    }
    counter.add(emitted as f64);
    aggregator.finish();
    say(&format!("grown {}", size()? - before))?;
    say(&format!("emitted {emitted}"))?;
    say(&format!("bytes {}", file.metadata()?.len()))?;
    Ok(())
}

/// Loses its lock to another aggregator, which shall count all that there is, and once.
fn is_superseded(bus: &Bus, counter: &Counter, rounds: u64) -> Result<(), Box<dyn Error>> {
    let mut first = Aggregator::open(bus, &AggregatorOptions::default())?;
    let mut emitted = emit(counter, rounds);
    first.round();
    emitted += emit(counter, rounds);
    close_descriptors();
    let mut second = Aggregator::open(bus, &AggregatorOptions::default())?;
    // It looks after its lock that often, before it commits.
    thread::sleep(Duration::from_millis(20));
    first.round();
    say(&format!("superseded {}", u64::from(first.is_superseded())))?;
    second.round();
    emitted += emit(counter, rounds);
    first.run(false, &|| false, &mut |_| ());
    drop(first);
    second.finish();
    say(&format!("emitted {emitted}"))?;
    Ok(())
}

/// Forks while another thread joins and leaves; how often it joined.
fn forks(bus: &Bus, rounds: u64) -> Result<u64, Box<dyn Error>> {
    let (address, stop) = (bus.address().clone(), AtomicBool::new(false));
    thread::scope(|scope| {
        let joins = scope.spawn(|| {
            let mut joined = 0;
            while !stop.load(Ordering::Relaxed) {
                let producer = Bus::open(&address).ok().map(|bus| bus.producer());
                joined += u64::from(matches!(producer, Some(Ok(_))));
            }
            joined
        });
        for _ in 0..rounds {
            if fork()? == 0 {
                // Until the test closes the input that all share.
                let mut byte = 0_u8;
                // SAFETY: one byte that outlives the call.
                while unsafe { libc::read(0, ptr::from_mut(&mut byte).cast(), 1) } > 0 {}
                exit_at_once(0);
            }
        }
        stop.store(true, Ordering::Relaxed);
        joins.join().map_err(|_| "a thread panicked".into())
    })
}

/// Children of which several threads emit first at the same time; how many look dead while they
/// live.
fn races(bus: &Bus, counter: &Counter, rounds: u64) -> io::Result<u64> {
    emit(counter, 1);
    let mut lost = 0;
    for round in 0..rounds {
        let pid = if round % 2 == 0 {
            fork()?
        } else {
            raw_clone()?
        };
        if pid == 0 {
            let barrier = Barrier::new(6);
            thread::scope(|scope| {
                for _ in 0..6 {
                    scope.spawn(|| {
                        barrier.wait();
                        counter.inc();
                        barrier.wait();
                    });
                }
            });
            let me = u64::from(std::process::id());
            let mine = |owner: &qbus::OwnerView| owner.alive && owner.pid == me;
            let is_alive = bus.owners().is_ok_and(|owners| owners.iter().any(mine));
            exit_at_once(i32::from(!is_alive));
        }
        lost += u64::from(await_child(pid) != 0);
    }
    Ok(lost)
}
