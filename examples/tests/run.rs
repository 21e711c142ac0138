//! The examples do what they say.

use std::process::Command;

use qbus_aggregate::{Aggregator, AggregatorOptions};
use qbus_tests::{Place, TestBus, run};

/// Runs an example to its end; what it printed.
fn example(program: &str, args: &[&str], bus: Option<&TestBus>) -> String {
    let mut command = Command::new(program);
    command.args(args).env_remove("QBUS");
    command.envs(bus.map(|bus| ("QBUS", bus.address().to_string())));
    let finished = run(&mut command, "");
    let ended = (finished.code, finished.err.as_str());
    assert_eq!(ended, (Some(0), ""), "{program}: {}", finished.out);
    finished.out
}

#[test]
fn a_reader_sees_what_workers_did() {
    let bus = TestBus::small(Place::Named);
    for _ in 0..2 {
        example(env!("CARGO_BIN_EXE_worker"), &["50"], Some(&bus));
    }
    let aggregator = Aggregator::open(&bus.open(), &AggregatorOptions::default());
    aggregator.expect("the only one").finish();
    let name = bus.address().to_string();
    let printed = example(env!("CARGO_BIN_EXE_reader"), &[&name], None);
    let shows = |line: &str| printed.lines().any(|printed| printed.starts_with(line));
    assert!(shows("requests_total {endpoint=/predict} 100"), "{printed}");
    assert!(shows("requests_in_flight {} 0"), "{printed}");
    assert!(
        shows("request_seconds {} 100 observations, sum 0.0"),
        "{printed}"
    );
}

#[test]
fn an_embedded_collector_needs_no_set_up() {
    let printed = example(env!("CARGO_BIN_EXE_embedded"), &[], None);
    assert!(
        printed.starts_with("the last loss: Some(Gauge(0.02))\n"),
        "{printed}"
    );
    assert!(
        printed.contains("\nloss{split=\"train\"} 0.02\n"),
        "{printed}"
    );
    let steps = "\nperformance_duration_seconds_count{operation=\"train_step\"} 100\n";
    assert!(printed.contains(steps), "{printed}");
}
