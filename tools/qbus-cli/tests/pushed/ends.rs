//! What has ended: also while nobody was there to say so.

use qbus_tests::{Place, TestBus, run, until};

use crate::receiver::{Received, Receiver};
use crate::wire::{Fields, metrics, samples};
use crate::{pushing, stop, typed};

/// Says that a series has ended.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// A bus with a counter, a gauge, and a histogram of two buckets.
fn bus() -> TestBus {
    let bus = TestBus::small(Place::Named);
    let opened = bus.open();
    opened
        .counter("jobs_total")
        .register()
        .expect("room")
        .add(7.0);
    opened.gauge("loss").register().expect("room").set(0.5);
    let took = opened.histogram("took_seconds").buckets([1.0]);
    took.register().expect("room").observe(0.5);
    bus
}

fn forget(bus: &TestBus, pattern: &str) {
    let line = format!("forget '{pattern}' --yes -b {}", bus.address());
    let finished = run(&mut typed(&line), "");
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

/// What a receiver has taken, each once: a request that was taken while its sender was killed comes
/// again as it was.
fn taken(receiver: &Receiver) -> Vec<Received> {
    let mut all = receiver.taken();
    all.dedup_by(|again, first| again.body == first.body);
    all
}

/// The times at which a series had a value, and at which it ended, as requests came.
fn story(requests: &[Received], name: &str) -> Vec<(u64, bool)> {
    let label = format!("__name__={name}");
    let mut all = Vec::new();
    for request in requests {
        for (labels, value, time) in samples(request) {
            if labels.contains(&label) {
                all.push((time, value.to_bits() == STALE));
            }
        }
    }
    all
}

#[test]
fn what_ended_while_nobody_aggregated_is_said_to_have_ended_once() {
    let receiver = Receiver::start(&[]);
    let bus = bus();
    let folder = tempfile::tempdir().expect("a folder");
    let queue = folder.path().display().to_string();
    let url = receiver.url("/");
    let args = format!("--remote-write {url} --push-queue {queue} --no-self");
    let agg = pushing(&bus, &args);
    until("all three", || {
        let taken = taken(&receiver);
        ["jobs_total", "loss", "took_seconds_count"]
            .iter()
            .all(|name| !story(&taken, name).is_empty())
    });
    agg.kill();
    forget(&bus, "loss");
    forget(&bus, "took_*");
    let agg = pushing(&bus, &args);
    let has_ended = |name: &str| story(&taken(&receiver), name).iter().any(|one| one.1);
    until("the ends", || {
        has_ended("loss") && has_ended("took_seconds_bucket")
    });
    // Its successor's successor has nothing to add.
    let before = receiver.taken().len();
    agg.kill();
    let agg = pushing(&bus, &args);
    let started = std::time::Instant::now();
    until("requests, longer than what ended is waited for", || {
        started.elapsed() > std::time::Duration::from_secs(4) && receiver.taken().len() > before + 5
    });
    stop(agg);
    let taken = taken(&receiver);
    for name in ["loss", "took_seconds_sum", "took_seconds_count"] {
        let story = story(&taken, name);
        assert!(story.is_sorted_by(|a, b| a.0 < b.0), "{name}: {story:?}");
        let ends = story.iter().filter(|one| one.1).count();
        assert_eq!(
            (ends, story.last().map(|last| last.1)),
            (1, Some(true)),
            "{name}: {story:?}"
        );
    }
    // Both buckets.
    let buckets = story(&taken, "took_seconds_bucket");
    assert_eq!(buckets.iter().filter(|one| one.1).count(), 2, "{buckets:?}");
    // What goes on was never said to have ended.
    let jobs = story(&taken, "jobs_total");
    assert!(jobs.iter().all(|one| !one.1), "{jobs:?}");
    assert!(jobs.is_sorted_by(|a, b| a.0 < b.0), "{jobs:?}");
}

#[test]
fn a_receiver_of_otlp_hears_of_an_end_too() {
    let receiver = Receiver::start(&[]);
    let bus = bus();
    let folder = tempfile::tempdir().expect("a folder");
    let queue = folder.path().display().to_string();
    let url = receiver.url("");
    let args = format!("--otlp {url} --push-queue {queue} --no-self");
    let agg = pushing(&bus, &args);
    receiver.await_taken(2);
    agg.kill();
    forget(&bus, "loss");
    let agg = pushing(&bus, &args);
    let point = |request: &Received, name: &str, data: u64| -> Option<Fields> {
        let (metrics, _) = metrics(request);
        let metric = metrics.into_iter().find(|metric| metric.text(1) == name)?;
        Some(metric.messages(data).remove(0).messages(1).remove(0))
    };
    // Flags: there is no recorded value.
    let is_end = |point: &Fields| point.number(8) == Some(1) && point.number(4).is_none();
    until("the end", || {
        let taken = taken(&receiver);
        let points = taken.iter().filter_map(|one| point(one, "loss", 5));
        points.filter(is_end).count() == 1
    });
    stop(agg);
    let taken = taken(&receiver);
    let loss: Vec<Fields> = taken
        .iter()
        .filter_map(|one| point(one, "loss", 5))
        .collect();
    assert!(loss.last().is_some_and(is_end), "{loss:?}");
    let times: Vec<_> = loss.iter().map(|point| point.number(3)).collect();
    assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    let jobs = taken.iter().filter_map(|one| point(one, "jobs_total", 7));
    assert!(jobs.into_iter().all(|point| !is_end(&point)));
}
