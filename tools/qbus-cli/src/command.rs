//! A module for each subcommand.

mod agg;
mod bench;
mod create;
mod demo;
mod doctor;
mod dump;
mod emit;
mod forget;
mod install;
mod load;
#[cfg(feature = "push")]
mod push;
mod rm;
mod run;
mod sample;
#[cfg(feature = "http")]
mod serve;
mod stat;
#[cfg(feature = "top")]
mod top;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Address, Bus, FlushError};
use qbus_aggregate::Reader;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::args::{Args, Command};
use crate::error::{Doing, Error};
use crate::log::{info, warn};

/// How long a command waits until what it emitted is committed.
const COMMIT: Duration = Duration::from_secs(2);

/// Runs what was typed.
pub(crate) fn run(args: Args, out: &mut dyn Write) -> Result<(), Error> {
    let address = &args.bus;
    match args.command {
        Command::Create(create) => create::run(address, &create, out),
        Command::Agg(agg) => agg::run(address, &agg),
        Command::Emit(emit) => emit::run(address, &emit),
        Command::Dump(dump) => dump::run(address, &dump, out),
        Command::Stat(stat) => stat::run(address, &stat, out),
        Command::Doctor(doctor) => doctor::run(address, &doctor, out),
        #[cfg(feature = "top")]
        Command::Top(top) => top::run(address, &top, out),
        Command::Sample(sample) => sample::run(&sample, out),
        #[cfg(feature = "http")]
        Command::Serve(serve) => serve::run(address, &serve),
        Command::Load(load) => load::run(address, &load, out),
        Command::Bench(bench) => bench::run(&bench, out),
        Command::Forget(forget) => forget::run(address, &forget, out),
        Command::Rm(rm) => rm::run(address, &rm),
        Command::Run(run) => run::run(address, &run),
        Command::Demo(demo) => demo::run(address, &demo, out),
        Command::Completions(shell) => install::completions(&shell, out),
        Command::Man(man) => install::man(&man),
    }
}

fn open(address: &Address) -> Result<Bus, Error> {
    Bus::open(address).map_err(|error| Error::opening(address, &error))
}

/// Opens a snapshot: the one given, or the one beside the bus.
fn open_snapshot(address: &Address, path: Option<&Path>) -> Result<Reader, Error> {
    let path = path.map_or_else(|| address.snapshot(), qbus::snapshot_at);
    Reader::open(&path).map_err(|error| Error::reading(address, &error))
}

/// Waits until a dump shows what was emitted, if anybody aggregates the bus.
fn await_commit(bus: &Bus) {
    match bus.flush(COMMIT) {
        Err(FlushError::TimedOut { .. }) => {
            warn("emitted, and not committed yet: the aggregator lags");
        }
        Err(full @ FlushError::NoRoom { .. }) => warn(full),
        _ => {}
    }
}

/// A flag that is raised when the user wants the command to end.
fn until_signal() -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone()).doing("handle signals")?;
    }
    Ok(stop)
}

/// A sleep that ends when the user wants the command to end takes so much longer at most.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// Sleeps; false when the user wants the command to end.
fn sleep(time: Duration, stop: &AtomicBool) -> bool {
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let left = time.saturating_sub(start.elapsed());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(SLEEP_MAX));
    }
    false
}

/// Whether a signal tells a service to end. A hang-up does so where a terminal hung up. To a
/// service it means to read its configuration again, of which there is nothing.
fn is_an_end(signal: i32) -> bool {
    let is_on_terminal =
        io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal();
    if signal == SIGHUP && !is_on_terminal {
        info("hang-up: nothing is read again but what --web.config.file names, when it changes");
        return false;
    }
    true
}

/// Has this process end with the one that started it: a worker has nobody to report to when its
/// command is gone, however that ended. That one may be gone already.
fn end_with_parent() {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    let parent = getppid();
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    if getppid() != parent {
        std::process::exit(1);
    }
}
