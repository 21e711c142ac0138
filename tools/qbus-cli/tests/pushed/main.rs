//! What is sent on: to a receiver that does its worst, and to what people send to.

mod ends;
mod faults;
mod kills;
#[path = "../scraped/monitor.rs"]
#[allow(dead_code, reason = "scraping needs more of it")]
mod monitor;
mod protobuf;
mod receiver;
mod servers;

mod wire;

use std::ffi::OsString;
use std::io::Write;
use std::process::{Command, Stdio};

use qbus_tests::{Process, TestBus, command, run};

/// The command under test.
const QBUS: &str = env!("CARGO_BIN_EXE_qbus");

/// The command as somebody types it, without its name.
pub(crate) fn typed(line: &str) -> Command {
    command(&format!("'{QBUS}' {line}"))
}

/// An aggregator that samples nothing, and sends on.
pub(crate) fn pushing(bus: &TestBus, args: &str) -> Process {
    let mut command = typed(&format!(
        "agg --no-host --no-gpu -b {} {args}",
        bus.address()
    ));
    if !args.contains("--push-interval") {
        command.args(["--push-interval", "100ms"]);
    }
    command.stderr(Stdio::null());
    Process::spawn(command)
}

/// Ends an aggregator as a supervisor does, and expects it to end well.
pub(crate) fn stop(aggregator: Process) {
    aggregator.signal(rustix::process::Signal::TERM);
    aggregator.end_well();
}

/// The Python of the tests, if it has a package; says so aloud when a test is skipped for want of
/// it.
pub(crate) fn python_with(package: &str) -> Option<OsString> {
    let found = std::env::var_os("QBUS_PYTHON").filter(|python| {
        let mut import = Command::new(python);
        run(import.args(["-c", &format!("import {package}")]), "").code == Some(0)
    });
    if found.is_none() {
        // Not captured, as `eprintln!` would be.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED, QBUS_PYTHON names no Python with {package}"
        );
    }
    found
}
