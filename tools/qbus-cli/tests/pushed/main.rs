//! What is sent on: to a receiver that does its worst, and to what people send to.

mod ends;
mod faults;
#[path = "../scraped/monitor.rs"]
#[allow(dead_code, reason = "scraping needs more of it")]
mod monitor;
mod receiver;
mod servers;

mod wire;

use std::process::{Command, Stdio};

use qbus_tests::{Process, TestBus};

/// The command under test.
pub(crate) const QBUS: &str = env!("CARGO_BIN_EXE_qbus");

/// An aggregator that samples nothing, and sends on.
pub(crate) fn pushing(bus: &TestBus, args: &[&str]) -> Process {
    let mut command = Command::new(QBUS);
    command
        .args(["agg", "--no-host", "--no-gpu", "--bus"])
        .arg(bus.address().to_string())
        .args(["--push-interval", "100ms"])
        .args(args)
        .stderr(Stdio::null());
    Process::spawn(command)
}

/// Ends an aggregator as a supervisor does, and expects it to end well.
pub(crate) fn stop(aggregator: Process) {
    aggregator.signal(rustix::process::Signal::TERM);
    aggregator.end_well();
}
