//! Series that are bound to a process leave the page with it; a family that was forgotten makes
//! way.

use std::time::{Duration, Instant};

use qbus::RegisterError;
use qbus_aggregate::ReadOptions;
use qbus_tests::{Place, Process, TestBus, until};

const AGGREGATOR: &str = env!("CARGO_BIN_EXE_test-aggregator");
const HOST: &str = env!("CARGO_BIN_EXE_test-host");

/// The labels of the bound gauges on the page.
fn shown(test: &TestBus) -> Vec<String> {
    let snapshot = test.reader().read(&ReadOptions::default());
    let series = snapshot.expect("a committed snapshot").series;
    let bound = series
        .into_iter()
        .filter(|series| series.family.name == "test_bound");
    bound
        .flat_map(|series| series.labels)
        .map(|(_, value)| value)
        .collect()
}

fn worker(test: &TestBus, label: &str) -> Process {
    let mut worker = Process::start(HOST, test.address(), &[]);
    worker.tell("open");
    assert_eq!(worker.line(), "open");
    worker.tell(&format!("bind {label}"));
    assert_eq!(worker.line(), "set");
    worker
}

#[test]
fn what_is_bound_to_a_process_goes_with_it() {
    for place in Place::ALL {
        let test = TestBus::small(place);
        let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
        let [killed, ended, mut shared, other] =
            ["killed", "ended", "shared", "shared"].map(|label| worker(&test, label));
        until("all show", || shown(&test) == ["ended", "killed", "shared"]);
        killed.kill();
        until("a killed one shows no more", || {
            shown(&test) == ["ended", "shared"]
        });
        ended.end_well();
        until("nor does one that ended", || shown(&test) == ["shared"]);
        // It is bound to whoever registered it last.
        other.end_well();
        until("the last to register it has left", || {
            shown(&test).is_empty()
        });
        shared.tell("bind shared");
        assert_eq!(shared.line(), "set");
        until("it is back", || shown(&test) == ["shared"]);

        // What leaves while nobody aggregates is noticed by the next aggregator.
        aggregator.kill();
        shared.kill();
        let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
        until("nothing shows", || shown(&test).is_empty());
        aggregator.end_well();
    }
}

/// Who registers a family anew in each request, say, is not to wait each time for nobody.
#[test]
fn a_family_that_nobody_can_free_is_refused_at_once() {
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    bus.counter("test_jobs").register().expect("room").forget();
    let began = Instant::now();
    for _ in 0..40 {
        let refused = bus.gauge("test_jobs").register();
        assert!(matches!(refused, Err(RegisterError::Conflict { .. })));
    }
    // A wait for an aggregator takes a quarter of a second.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
    until("the counter makes way", || {
        bus.gauge("test_jobs").register().is_ok()
    });
    aggregator.end_well();
}
