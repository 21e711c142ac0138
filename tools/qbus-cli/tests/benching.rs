//! `qbus bench`: what it says of this machine, and that it leaves nothing behind.
//!
//! No figure is expected: a speed is a benchmark's business.

use std::process::Stdio;

use qbus::Address;
use qbus_tests::{Place, Process, TestBus, until};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{fails, typed, well};

/// The bus that a bench of that pid makes.
fn bus_of(pid: u64) -> Address {
    format!("bench-{pid}").parse().expect("a name")
}

fn is_gone(address: &Address) -> bool {
    !address.file().exists() && !address.snapshot().exists()
}

#[test]
fn it_measures_each_thing_and_advises() {
    let unused = TestBus::reserve(Place::Named);
    let page = well(&unused, "bench --seconds 0.2");
    for part in [
        "clock source",
        "Counter::inc ",
        "on a bus in use",
        "with qbus agg --spin",
        "waits while its lane is full",
        "% of a core",
        "* Clock: ",
        "* Lanes: ",
        "* Slots: ",
        "* Nap: ",
        "* Headroom: ",
    ] {
        assert!(page.contains(part), "no {part:?} in {page}");
    }
    for line in page.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(
        !unused.address().file().exists(),
        "the bus of others is left alone"
    );
}

#[test]
fn its_json_has_the_keys_that_others_read_and_its_bus_goes() {
    let mut command = typed("bench --seconds 0.2 --json");
    command.stderr(Stdio::null());
    let bench = Process::spawn(command);
    let address = bus_of(bench.pid());
    let mut page = bench.line();
    while page.lines().last() != Some("}") {
        page = page + "\n" + &bench.line();
    }
    bench.end_well();
    assert!(is_gone(&address));
    let report: Value = serde_json::from_str(&page).expect("JSON");
    let positive = |value: &Value| value.as_f64().is_some_and(|value| value > 0.0);
    for cost in report["emit"].as_array().expect("a list") {
        for key in ["median_ns", "p10_ns", "p90_ns"] {
            assert!(positive(&cost[key]), "{key}: {cost}");
        }
    }
    let visible = report["visible"].as_array().expect("a list");
    assert_eq!(visible.len(), 3);
    for latency in visible {
        assert!(
            positive(&latency["p50_us"]) && positive(&latency["p99_us"]),
            "{latency}"
        );
    }
    let [waiting, never] = [0, 1].map(|load| &report["sustained"][load]);
    assert_eq!(waiting["dropped"], 0, "{waiting}");
    for load in [waiting, never] {
        assert!(positive(&load["committed_per_second"]), "{load}");
        assert!(
            load["dropped"].as_u64() <= load["attempted"].as_u64(),
            "{load}"
        );
    }
    assert!(positive(&report["paced"]["records_per_second"]));
    assert!(positive(&report["paced"]["cores"]));
    assert_eq!(report["advice"].as_array().map(Vec::len), Some(5));
    assert!(report["machine"]["cores"].as_u64() > Some(0));
}

#[test]
fn a_signal_ends_it_and_its_bus_goes() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut command = typed("bench --seconds 600");
        command.stderr(Stdio::null());
        let bench = Process::spawn(command);
        let address = bus_of(bench.pid());
        // The aggregator has begun, and with it the measuring.
        until("the bench's snapshot", || address.snapshot().exists());
        bench.signal(signal);
        bench.end_with(2);
        assert!(is_gone(&address), "after {signal:?}");
    }
}

#[test]
fn a_time_that_is_none_is_refused() {
    let unused = TestBus::reserve(Place::Named);
    for seconds in ["0", "-1", "NaN", "inf", "1e9", "1e300", "1e-300", "x"] {
        for command in ["bench", "demo"] {
            let line = format!("{command} --seconds={seconds}");
            let gist = ["expected a number of seconds, more than 0"];
            fails(&unused, &line, 2, &gist);
        }
    }
}
