//! The command on a bus, and what is expected of its end.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use qbus_aggregate::{Aggregator, AggregatorOptions, Reader};
use qbus_tests::{Finished, Process, TestBus, command, run};

/// The command under test.
pub(crate) const QBUS: &str = env!("CARGO_BIN_EXE_qbus");

/// The command as somebody types it, without its name.
pub(crate) fn typed(line: &str) -> Command {
    let mut command = command(&format!("'{QBUS}' {line}"));
    // The owner table has room for a short command line, and this one's path may be any.
    command.arg0("qbus");
    command
}

/// Runs `qbus` on a bus to its end.
pub(crate) fn qbus(bus: &TestBus, line: &str) -> Finished {
    qbus_with_input(bus, line, "")
}

/// As [`qbus`], with something on its standard input.
pub(crate) fn qbus_with_input(bus: &TestBus, line: &str, input: &str) -> Finished {
    run(typed(line).env("QBUS", bus.address().to_string()), input)
}

/// Runs `qbus` on a bus, and expects it to end well and to have nothing to complain of; its output.
pub(crate) fn well(bus: &TestBus, line: &str) -> String {
    let finished = qbus(bus, line);
    assert_eq!(finished.code, Some(0), "{line}: {finished:?}");
    assert_eq!(complaints(&finished), "", "{line}");
    finished.out
}

/// What a command said on standard error, without the note that nobody aggregates the bus any more:
/// on a slow machine a page is seconds old before a test gets to read it.
pub(crate) fn complaints(finished: &Finished) -> String {
    let is_note = |line: &&str| line.starts_with("qbus: no aggregator runs: the page is as of");
    let lines = finished.err.lines().filter(|line| !is_note(line));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Runs `qbus` on a bus, and expects that exit code, no output, and an error that says all of that.
pub(crate) fn fails(bus: &TestBus, line: &str, code: i32, gist: &[&str]) -> String {
    let finished = qbus(bus, line);
    assert_eq!(finished.code, Some(code), "{line}: {finished:?}");
    assert_eq!(finished.out, "", "{line}");
    for part in gist {
        assert!(
            finished.err.contains(part),
            "{line}: no {part:?} in {:?}",
            finished.err
        );
    }
    finished.err
}

/// An aggregator that emits nothing itself.
pub(crate) fn aggregator(bus: &TestBus, args: &str) -> Process {
    let name = bus.address();
    let mut command = typed(&format!(
        "agg --no-host --no-gpu --no-self -b {name} {args}"
    ));
    command.stderr(Stdio::null());
    let process = Process::spawn(command);
    let told = args.split_once("--snapshot ");
    let snapshot = told.map_or_else(|| bus.address().snapshot(), |(_, path)| path.into());
    qbus_tests::until("the aggregator's first commit", || {
        Reader::open(&snapshot)
            .is_ok_and(|reader| reader.writer().0 == process.pid() && reader.epoch() > 0)
    });
    process
}

/// Folds what was emitted so far, once, in this process.
pub(crate) fn aggregate(bus: &TestBus) {
    let aggregator = Aggregator::open(&bus.open(), &AggregatorOptions::default());
    aggregator.expect("the only one").finish();
}

/// The part of the ledger, in `stat --json`, of the processes with that role, or that command line.
pub(crate) fn ledger_of(bus: &TestBus, who: &str) -> [u64; 4] {
    let stat: serde_json::Value = serde_json::from_str(&well(bus, "stat --json")).expect("JSON");
    let owners = stat["owners"].as_array().expect("a list").iter();
    let mine = owners.filter(|owner| owner["role"] == who || owner["command"] == who);
    let parts = ["delivered", "dropped", "torn", "revoked"];
    mine.map(|owner| parts.map(|part| owner[part].as_u64().expect("a count")))
        .fold([0; 4], |sum, owner| {
            std::array::from_fn(|part| sum[part] + owner[part])
        })
}

/// Ends an aggregator as a supervisor does, and expects it to end well.
pub(crate) fn stop(aggregator: Process) {
    aggregator.signal(rustix::process::Signal::TERM);
    aggregator.end_well();
}

/// Whether this process may do what only root may; says so aloud when a test is skipped for it.
pub(crate) fn is_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        use std::io::Write;
        // Not captured, as `eprintln!` would be.
        let _ = writeln!(std::io::stderr(), "SKIPPED, it needs root: {what}");
    }
    root
}
