//! Starting, sampling, beginning anew, stopping.

use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use qbus::{Geometry, Removal};
use qbus_agent::{Agent, AgentOptions, ResetError, SamplingOptions};
use qbus_aggregate::{ReadOptions, Snapshot, Value};
use qbus_sampler::{SamplerOptions, Source};
use qbus_tests::{LIMIT, Place, TestBus, until};

fn silent(bus: &TestBus) -> Agent {
    let unexpected = |news| panic!("{news}");
    Agent::start(&bus.open(), AgentOptions::default(), unexpected).expect("the only agent")
}

fn snapshot(bus: &TestBus) -> Snapshot {
    bus.reader()
        .read(&ReadOptions::default())
        .expect("a snapshot")
}

/// Load averages and what the bus says of itself, many times a second.
pub(crate) fn sampling() -> SamplingOptions {
    SamplingOptions {
        sampler: SamplerOptions {
            sources: vec![Source::Load],
            ..SamplerOptions::default()
        },
        interval: Duration::from_millis(5),
        self_metrics: true,
    }
}

fn is_sampled(bus: &TestBus) -> bool {
    let names: Vec<String> = snapshot(bus)
        .series
        .iter()
        .map(|series| series.family.name.clone())
        .collect();
    ["qbus_host_load1", "qbus_bus_records_total"]
        .iter()
        .all(|wanted| names.iter().any(|name| name == wanted))
}

#[test]
fn what_was_emitted_before_a_stop_is_committed() {
    for place in Place::ALL {
        let bus = TestBus::small(place);
        let agent = silent(&bus);
        let counter = bus.open().counter("jobs_total").register().expect("room");
        let accepted = (0..500).filter(|_| counter.try_add(1.0).is_ok()).count();
        agent.stop();
        agent.stop();
        assert_eq!(
            snapshot(&bus).series[0].value,
            Value::Counter((accepted as f64).into())
        );
        assert!(matches!(agent.reset(), Err(ResetError::Ended)));
        // The bus is free for the next one.
        drop(silent(&bus));
    }
}

#[test]
fn sampling_can_be_started_and_stopped() {
    let bus = TestBus::small(Place::Named);
    let agent = silent(&bus);
    agent.start_sampling(sampling()).expect("a thread");
    agent.start_sampling(sampling()).expect("it runs already");
    until("a sample", || is_sampled(&bus));
    agent.stop_sampling();
    agent.stop_sampling();
    agent.reset().expect("it begins anew");
    // What is registered may be shown by now, but nothing is counted.
    let counted = snapshot(&bus)
        .series
        .into_iter()
        .find(|series| series.records > 0);
    assert_eq!(counted, None);
    agent.start_sampling(sampling()).expect("a thread");
    until("a sample in the new snapshot", || is_sampled(&bus));
}

#[test]
fn resets_at_the_same_time_are_all_answered() {
    let bus = TestBus::small(Place::Named);
    let agent = Arc::new(silent(&bus));
    for _ in 0..100 {
        let (start, (done, answers)) = (Arc::new(Barrier::new(3)), mpsc::channel());
        for _ in 0..3 {
            let (agent, start, done) = (agent.clone(), start.clone(), done.clone());
            thread::spawn(move || {
                start.wait();
                let _ = done.send(agent.reset().is_ok());
            });
        }
        for _ in 0..3 {
            assert_eq!(
                answers.recv_timeout(LIMIT),
                Ok(true),
                "a reset that never returned"
            );
        }
    }
}

/// The lanes are drained, and the snapshot is read, while a new one is made and an old one goes.
#[test]
fn a_reset_puts_a_new_snapshot_in_the_place_of_the_old_one() {
    for place in Place::ALL {
        let bus = TestBus::small(place);
        let agent = silent(&bus);
        let counter = bus.open().counter("jobs_total").register().expect("room");
        let mut previous = bus.address().snapshot().into_os_string();
        previous.push(".previous");
        let previous = Path::new(&previous);
        let begin_anew = |round| {
            (0..round).for_each(|_| counter.inc());
            agent.reset().expect("it begins anew");
            let mut series = snapshot(&bus).series.into_iter();
            let counted = series.find(|series| series.records > 0);
            assert_eq!(counted, None, "after reset {round}");
            assert!(!previous.exists(), "left by reset {round}");
        };
        thread::scope(|scope| {
            let resets = scope.spawn(|| (1..=20).for_each(begin_anew));
            while !resets.is_finished() {
                // One that is being made would be absent, or empty.
                snapshot(&bus);
            }
        });
        // Where the name for a new one is taken, the old one goes first; what has it is left alone.
        std::fs::write(previous, "of somebody").expect("room");
        counter.inc();
        agent.reset().expect("it begins anew");
        counter.add(3.0);
        agent.stop();
        assert_eq!(snapshot(&bus).series[0].value, Value::Counter(3.0.into()));
        let left = std::fs::read_to_string(previous).expect("it is left alone");
        assert_eq!(left, "of somebody");
    }
}

#[test]
fn it_samples_as_soon_as_the_owner_table_has_room() {
    let geometry = Geometry {
        owners: 1,
        ..TestBus::small_geometry()
    };
    let bus = TestBus::create(Place::Named, geometry);
    let first = bus.open();
    // Another open of the bus is another owner.
    let producer = first.producer().expect("the only place");
    let news = Arc::new(Mutex::new(Vec::new()));
    let told = news.clone();
    let options = AgentOptions {
        sampling: Some(sampling()),
        ..AgentOptions::default()
    };
    let agent = Agent::start(&bus.open(), options, move |line| {
        told.lock().unwrap().push(line)
    });
    let agent = agent.expect("it needs no place to aggregate");
    until("it says that it cannot sample", || {
        !news.lock().unwrap().is_empty()
    });
    drop(producer);
    drop(first);
    until("a sample", || is_sampled(&bus));
    drop(agent);
    let news = news.lock().unwrap();
    assert_eq!(news.len(), 2, "once each: {news:?}");
    assert!(
        news[0].contains("refused") && news[1].contains("again"),
        "{news:?}"
    );
}

#[test]
fn it_ends_with_its_bus() {
    let bus = TestBus::small(Place::Named);
    let agent = silent(&bus);
    qbus::Bus::remove(bus.address(), Removal::Forced).expect("it is there");
    agent.wait();
    assert!(matches!(agent.reset(), Err(ResetError::Ended)));
}
