//! A private collector in a process that becomes a daemon: it goes on there, whatever became of the
//! parents, which had its threads.

use std::env;
use std::io::{self, Write};
use std::process::Command;

use qbus::Address;
use qbus_aggregate::Value;
use qbus_collector::Metric;
use qbus_tests::{Process, begin_session, close_descriptors, exit_at_once, fork, until};
use rustix::process::{getpid, getppid};

use crate::collector;

const WAY: &str = "TEST_DAEMON_WAY";

/// Has a process become a daemon, by so many forks; checks what that says it has counted.
fn check(forks: u64, way: &str, calls: f64) {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "daemons::daemon", "--nocapture"])
        .env(WAY, format!("{forks} {way}"));
    let mut daemon = Process::spawn(command);
    let said = |word: &str| loop {
        let line = daemon.line();
        if let Some((_, said)) = line.split_once(word) {
            break said.to_owned();
        }
        assert!(!line.contains("panicked"), "{forks} {way}: {line}");
    };
    let address: Address = said("bus ").parse().unwrap();
    // Nobody used it between the parents' end and the daemon's first call: another process that
    // started a collector meanwhile may have swept it.
    let calls = if said("swept ") == "true" { 1.0 } else { calls };
    assert_eq!(said("calls "), calls.to_string(), "{forks} {way}");
    assert_eq!(said("aggregated "), "true", "{forks} {way}");
    assert!(address.file().exists(), "{forks} {way}");
    daemon.close_input();
    daemon.await_silence();
    assert!(!address.file().exists() && !address.snapshot().exists());
}

#[test]
fn it_goes_on_after_parents_that_end_at_once() {
    for forks in 1..=2 {
        check(forks, "at-once", 2.0);
        check(forks, "at-once, closed", 2.0);
    }
}

/// They take the bus away, which nobody else seems to use: the daemon makes another one, with what
/// is counted from then on.
#[test]
fn it_goes_on_after_parents_that_end_well() {
    for forks in 1..=2 {
        check(forks, "well", 1.0);
        check(forks, "well, closed", 1.0);
    }
}

/// What [`check`] runs, and nothing in a run of the tests.
#[test]
fn daemon() {
    let Ok(way) = env::var(WAY) else {
        return;
    };
    let collector = collector();
    let handle = collector.bus().counter("handled_total").register().unwrap();
    let add = || collector.add_metric(&Metric::counter("calls_total", 1.0));
    add().unwrap();
    for _ in 0..way[..1].parse().unwrap() {
        let parent = getpid();
        if fork().unwrap() != 0 {
            if way.contains("well") {
                collector.close();
            }
            exit_at_once(0);
        }
        begin_session();
        until("the parent to end", || getppid() != Some(parent));
    }
    if way.contains("closed") {
        close_descriptors();
    }
    let mut out = io::stdout();
    writeln!(out, "\nbus {}", collector.bus().address()).unwrap();
    add().unwrap();
    writeln!(out, "swept {}", collector.bus().is_removed()).unwrap();
    let total = |name| match collector.get_metric(name, &[]).map(|series| series.value) {
        Some(Value::Counter(sum)) => sum.value(),
        _ => 0.0,
    };
    writeln!(out, "calls {}", total("calls_total")).unwrap();
    until("what a handle adds", || {
        handle.inc();
        total("handled_total") > 0.0
    });
    let statistics = collector.get_statistics();
    assert_eq!(statistics.last_background_error, None);
    writeln!(out, "aggregated {}", statistics.has_aggregator).unwrap();
    let _ = io::stdin().read_line(&mut String::new());
    drop(collector);
    exit_at_once(0);
}
