//! A process that dies or stops at any test point loses nothing silently, wedges nothing, and
//! counts nothing twice.
//!
//! Each case prints nothing; each matrix its count of cases, and the longest stall that it saw.

mod aggregator;
mod cells;
mod forks;
mod freeing;
mod growth;
mod producer;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use qbus::{Address, testpoint};
use qbus_tests::{Process, until};

const AGGREGATOR: &str = env!("CARGO_BIN_EXE_test-aggregator");
const PRODUCER: &str = env!("CARGO_BIN_EXE_test-producer");
const VICTIM: &str = env!("CARGO_BIN_EXE_test-victim");

/// Nobody waits longer for anybody: the stall limit, and slack for a machine with other work.
const STALL_MAX: Duration = Duration::from_millis(1000 + 750);

/// What a case does to its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Stop,
    StopThenContinue,
}

impl Action {
    const ALL: [Action; 3] = [Action::Kill, Action::Stop, Action::StopThenContinue];

    /// For the environment of a process: the `n`th passage of `point`.
    fn at(self, point: &str, n: u64) -> String {
        let signal = if self == Action::Kill { "KILL" } else { "STOP" };
        format!("{point}:{n}:{signal}")
    }
}

/// Starts a helper with test points armed.
fn start(program: &str, address: &Address, args: &[String], points: &str) -> Process {
    let mut command = Command::new(program);
    command.arg(address.to_string()).args(args);
    command.env("QBUS_TESTPOINT", points);
    Process::spawn(command)
}

/// Waits until the process was hit where it was to be.
fn await_hit(process: &mut Process, action: Action, points: &str) {
    until(&format!("a process to pass {points}"), || match action {
        Action::Kill => match process.status() {
            None => false,
            Some(status) => {
                assert_eq!(status.signal(), Some(9), "at {points}: {status}");
                true
            }
        },
        Action::Stop | Action::StopThenContinue => {
            assert!(process.status().is_none(), "not stopped at {points}");
            process.is_stopped()
        }
    });
}

/// The points that the matrices run through, each of them, those of locks by forks: a case that
/// does not pass its point fails.
const KILLED_AT: [&[&str]; 10] = [
    testpoint::EXCLUSIVE,
    testpoint::CELLS,
    testpoint::SHARED_CELLS,
    testpoint::SHARED,
    testpoint::JOIN,
    testpoint::LOCK,
    testpoint::REGISTRY,
    testpoint::FREE,
    testpoint::REAP,
    testpoint::SNAPSHOT,
];

/// Adds the names of the points in the sources below a folder.
fn find_points(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("the sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            find_points(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            let points = text.split("testpoint!(\"").skip(1);
            found.extend(points.filter_map(|rest| Some(rest.split_once("\")")?.0.to_owned())));
        }
    }
}

#[test]
fn every_test_point_has_its_case() {
    let mut found = BTreeSet::new();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    find_points(&crates, &mut found);
    // The examples in the point's own documentation.
    found.retain(|name| name != "…");
    let killed_at: BTreeSet<String> = KILLED_AT.concat().into_iter().map(String::from).collect();
    let without: Vec<_> = found.difference(&killed_at).collect();
    assert!(without.is_empty(), "no case kills at {without:?}");
    let gone: Vec<_> = killed_at.difference(&found).collect();
    assert!(gone.is_empty(), "no code passes {gone:?}");
}

/// Writes a line past the capture of the test run: a matrix says what it covered.
fn say(line: &str) {
    use std::io::Write;
    writeln!(std::io::stdout(), "{line}").expect("an output");
}
