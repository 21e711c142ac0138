//! Forks while it is attached to a bus: `test-forker BUS MODE RECORDS`.
//!
//! The child says `child PID`, waits for its input to be closed, says `ended PID`, and ends; the
//! parent says `parent PID` and waits for the child, which has to end well. The modes:
//!
//! * `emits`: parent and child emit `RECORDS` each, by one handle, after the fork.
//! * `idles`: the child never emits; the parent exits at once.
//! * `clones`: as `emits`, by a raw `clone`, of which no handler hears.
//! * `threads`: as `emits`, while other threads of the parent are emitting.
//! * `inherits`: the child tries the parent's `Producer`, then makes its own.

use std::error::Error;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use qbus::{Bus, Clock, Counter, EmitError, Kind, Producer, Record};
use qbus_tests::{await_child, exit_at_once, fork, raw_clone};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bus, mode, records] = args.as_slice() else {
        return Err("expected BUS MODE RECORDS".into());
    };
    let (bus, records) = (Bus::open(&bus.parse()?)?, records.parse()?);
    let counter = |role: &str| bus.counter("test_forked").label("role", role).register();
    let (parent, child, sibling) = (counter("parent")?, counter("child")?, counter("sibling")?);
    // Joins, and leases a lane that the child inherits.
    parent.inc();
    let (producer, stop) = (bus.producer()?, Arc::new(AtomicBool::new(false)));
    let siblings: Vec<_> = (0..if mode == "threads" { 2 } else { 0 })
        .map(|_| {
            let (sibling, stop) = (sibling.clone(), stop.clone());
            thread::spawn(move || {
                let mut accepted = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    accepted += u64::from(sibling.try_add(1.0).is_ok());
                }
                accepted
            })
        })
        .collect();

    let is_child = if mode == "clones" {
        raw_clone()
    } else {
        fork()
    }? == 0;
    if is_child {
        return live_as_child(&bus, mode, records, &child, &producer);
    }
    if mode == "idles" {
        say("parent", 1)?;
        // No destructor gives a lane back.
        exit_at_once(0);
    }
    let accepted = 1 + emit(&parent, records);
    stop.store(true, Ordering::Relaxed);
    let mut of_siblings = 0;
    for sibling in siblings {
        of_siblings += sibling.join().map_err(|_| "a thread panicked")?;
    }
    say("parent", accepted)?;
    say("siblings", of_siblings)?;
    // Any child.
    let status = await_child(-1);
    if status != 0 {
        return Err(format!("the child ended with wait status {status}").into());
    }
    Ok(())
}

fn live_as_child(
    bus: &Bus,
    mode: &str,
    records: u64,
    counter: &Counter,
    inherited: &Producer,
) -> Result<(), Box<dyn Error>> {
    let record = Record::new(
        Clock::Precise.now_ns(),
        counter.series(),
        Kind::Increment,
        1.0,
    );
    let accepted = match mode {
        "idles" => 0,
        "inherits" => {
            if inherited.emit(record) != Err(EmitError::NotJoined) {
                return Err("the parent's producer works in the child".into());
            }
            let own = bus.producer()?;
            (0..records).filter(|_| own.emit(record).is_ok()).count() as u64
        }
        _ => emit(counter, records),
    };
    say("child", accepted)?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(say("ended", accepted)?)
}

fn emit(counter: &Counter, records: u64) -> u64 {
    (0..records)
        .filter(|_| counter.try_add(1.0).is_ok())
        .count() as u64
}

fn say(who: &str, accepted: u64) -> io::Result<()> {
    // One write: parent and child share the pipe.
    let line = format!("{who} {} {accepted}\n", std::process::id());
    io::stdout().lock().write_all(line.as_bytes())
}
