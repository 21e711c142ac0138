//! Series come to the page when they are registered, and leave it when they are forgotten.

use std::thread::sleep;
use std::time::{Duration, Instant};

use qbus::{Bus, Clock, Geometry, Merge};
use qbus_aggregate::{Aggregator, AggregatorOptions, Reader, Value};
use qbus_tests::plant;

use crate::{aggregated, read};

/// Rounds until nothing comes or goes any more. Walks for what is forgotten begin some milliseconds
/// apart.
fn settle(aggregator: &mut Aggregator) {
    sleep(Duration::from_millis(25));
    while !aggregator.round().is_idle() {}
}

/// Names and values of counters and gauges on the page, and how often others observed.
fn page(aggregator: &Aggregator) -> Vec<(String, f64)> {
    let mut reader = Reader::open(aggregator.snapshot()).expect("a snapshot");
    let series = read(&mut reader).series;
    let shown = series.iter().map(|series| {
        let value = match &series.value {
            Value::Counter(sum) => sum.value(),
            Value::Gauge(value) => *value,
            Value::Histogram(histogram) => histogram.count as f64,
            Value::Summary(summary) => summary.count as f64,
        };
        let labels: Vec<&str> = series
            .labels
            .iter()
            .map(|(_, value)| value.as_str())
            .collect();
        (format!("{}{}", series.family.name, labels.concat()), value)
    });
    shown.collect()
}

fn expect(aggregator: &Aggregator, expected: &[(&str, f64)]) {
    let expected = expected
        .iter()
        .map(|(name, value)| ((*name).to_owned(), *value));
    assert_eq!(page(aggregator), expected.collect::<Vec<_>>());
}

fn small() -> (qbus_tests::TestBus, Bus, Aggregator) {
    let geometry = Geometry {
        series: 64,
        ..Geometry::default()
    };
    aggregated(geometry, &AggregatorOptions::default())
}

#[test]
fn what_is_registered_is_on_the_page() {
    let (_test, bus, mut aggregator) = small();
    let counter = bus.counter("c_total").register().expect("room");
    let histogram = bus.histogram("h").buckets([1.0]).register().expect("room");
    bus.summary("s").register().expect("room");
    let gauge = bus.gauge("g").register().expect("room");
    settle(&mut aggregator);
    // A gauge has no value before it is set.
    expect(&aggregator, &[("c_total", 0.0), ("h", 0.0), ("s", 0.0)]);
    let mut reader = Reader::open(aggregator.snapshot()).expect("a snapshot");
    let shown = reader.series(counter.series(), true).expect("registered");
    assert_eq!(shown.records, 0);
    assert!(shown.timestamp_ns > 0 && shown.timestamp_ns == shown.start_ns);
    assert_eq!(shown.history, []);

    counter.inc();
    histogram.observe(0.5);
    gauge.set(3.0);
    settle(&mut aggregator);
    let all = [("c_total", 1.0), ("g", 3.0), ("h", 1.0), ("s", 0.0)];
    expect(&aggregator, &all);
    let began = shown.start_ns;
    let shown = reader.series(counter.series(), false).expect("registered");
    assert_eq!(shown.start_ns, began, "it did not begin anew");

    // A successor goes on with it.
    drop(aggregator);
    let mut aggregator = Aggregator::open(&bus, &AggregatorOptions::default()).expect("alone");
    expect(&aggregator, &all);
    settle(&mut aggregator);
    expect(&aggregator, &all);
}

#[test]
fn what_is_forgotten_leaves_and_the_next_emit_brings_it_back() {
    let (_test, bus, mut aggregator) = small();
    let counter = bus.counter("c_total").register().expect("room");
    let histogram = bus.histogram("h").buckets([1.0]).register().expect("room");
    let summary = bus.summary("s").register().expect("room");
    let gauge = bus.gauge("g").register().expect("room");
    let other = bus.gauge("other").register().expect("room");
    counter.add(2.5);
    histogram.observe(0.5);
    summary.observe(0.5);
    gauge.set(3.0);
    other.set(1.0);
    // What lies in lanes and cells was emitted before.
    for forget in [
        counter.series(),
        histogram.series(),
        summary.series(),
        gauge.series(),
    ] {
        assert!(bus.forget(forget));
    }
    settle(&mut aggregator);
    expect(&aggregator, &[("other", 1.0)]);
    let mut reader = Reader::open(aggregator.snapshot()).expect("a snapshot");
    assert_eq!(reader.series(counter.series(), false), None);

    // A successor leaves them away.
    drop(aggregator);
    let mut aggregator = Aggregator::open(&bus, &AggregatorOptions::default()).expect("alone");
    settle(&mut aggregator);
    expect(&aggregator, &[("other", 1.0)]);

    counter.inc();
    histogram.observe(0.5);
    summary.observe(0.5);
    gauge.set(4.0);
    settle(&mut aggregator);
    let all = [
        ("c_total", 3.5),
        ("g", 4.0),
        ("h", 2.0),
        ("other", 1.0),
        ("s", 2.0),
    ];
    expect(&aggregator, &all);
    assert_eq!(bus.forgotten_ns(counter.series()), None);
}

#[test]
fn whoever_registers_again_brings_it_back() {
    let (_test, bus, mut aggregator) = small();
    let counter = bus.counter("c_total").register().expect("room");
    counter.inc();
    settle(&mut aggregator);
    counter.forget();
    settle(&mut aggregator);
    expect(&aggregator, &[]);
    bus.counter("c_total").register().expect("room");
    settle(&mut aggregator);
    expect(&aggregator, &[("c_total", 1.0)]);

    // Before the aggregator came to it.
    counter.forget();
    bus.counter("c_total").register().expect("room");
    settle(&mut aggregator);
    expect(&aggregator, &[("c_total", 1.0)]);
}

#[test]
fn a_gauge_that_is_set_after_it_was_forgotten_stays() {
    let (_test, bus, mut aggregator) = small();
    let gauge = bus.gauge("g").register().expect("room");
    gauge.set(1.0);
    gauge.forget();
    gauge.set(2.0);
    settle(&mut aggregator);
    expect(&aggregator, &[("g", 2.0)]);
    // An older value says nothing of what is there now.
    gauge.forget();
    settle(&mut aggregator);
    gauge
        .try_set_at(Clock::Precise.now_ns() - 60_000_000_000, 3.0)
        .expect("room");
    settle(&mut aggregator);
    expect(&aggregator, &[]);
}

#[test]
fn nobody_forgets_what_is_not_there() {
    let (_test, bus, mut aggregator) = small();
    assert!(!bus.forget(qbus::SeriesId(5)) && !bus.forget(qbus::SeriesId(u32::MAX)));
    settle(&mut aggregator);
    expect(&aggregator, &[]);
}

#[test]
fn what_nothing_is_emitted_to_lives_as_long_as_its_family_says() {
    let (_test, bus, mut aggregator) = small();
    let ttl = Duration::from_millis(300);
    let short = |worker: &str| bus.gauge("short").label("worker", worker).ttl(ttl);
    let [busy, idle] = ["busy", "idle"].map(|worker| short(worker).register().expect("room"));
    let long = bus.gauge("long").register().expect("room");
    long.set(1.0);
    idle.set(1.0);
    let is_over = |aggregator: &mut Aggregator| {
        busy.set(2.0);
        settle(aggregator);
        page(aggregator).iter().all(|(name, _)| name != "shortidle")
    };
    busy.set(2.0);
    settle(&mut aggregator);
    expect(
        &aggregator,
        &[("long", 1.0), ("shortbusy", 2.0), ("shortidle", 1.0)],
    );
    while !is_over(&mut aggregator) {}
    expect(&aggregator, &[("long", 1.0), ("shortbusy", 2.0)]);
    idle.set(3.0);
    settle(&mut aggregator);
    expect(
        &aggregator,
        &[("long", 1.0), ("shortbusy", 2.0), ("shortidle", 3.0)],
    );

    // Who registers it again has it on the page for as long, and a successor does not cut it short.
    while page(&aggregator)
        .iter()
        .any(|(name, _)| name == "shortidle")
    {
        settle(&mut aggregator);
    }
    short("idle").register().expect("known");
    let shows =
        |aggregator: &Aggregator| page(aggregator).iter().any(|shown| shown.0 == "shortidle");
    let (begin, mut seen, mut longest) = (Instant::now(), Duration::ZERO, Duration::ZERO);
    while begin.elapsed() < ttl * 3 {
        let step = Instant::now();
        settle(&mut aggregator);
        if shows(&aggregator) {
            seen = begin.elapsed();
        }
        longest = longest.max(step.elapsed());
    }
    // A machine that stands still for as long as that looks too seldom.
    assert!(seen + longest * 2 >= ttl / 2, "it showed for {seen:?}");
    let begin = Instant::now();
    idle.set(4.0);
    settle(&mut aggregator);
    drop(aggregator);
    let mut aggregator = Aggregator::open(&bus, &AggregatorOptions::default()).expect("alone");
    settle(&mut aggregator);
    assert!(shows(&aggregator) || begin.elapsed() >= ttl);
}

#[test]
fn a_handle_registers_again_what_was_said_of_its_series() {
    let (_test, bus, mut aggregator) = small();
    let hour = Duration::from_secs(3600);
    let gauge = bus.gauge("g").label("pid", "7").bound().ttl(hour);
    let gauge = gauge.register().expect("room");
    let counter = bus.counter("c_total").register().expect("room");
    gauge.set(1.0);
    counter.inc();
    settle(&mut aggregator);
    let (old, family) = (gauge.series(), bus.family_of(gauge.series()));
    gauge.forget();
    counter.forget();
    // More than half of what there is room for: what is forgotten gives its place back.
    for n in 0..40 {
        let other = bus.gauge("other").label("n", &n.to_string());
        other.register().expect("room");
    }
    let is_freed = || {
        let families = bus.family_ids();
        family.is_some_and(|family| !families.contains(&family))
    };
    while bus.is_registered(old) || !is_freed() {
        settle(&mut aggregator);
    }
    gauge.set(2.0);
    counter.add(5.0);
    settle(&mut aggregator);
    expect(&aggregator, &[("c_total", 5.0), ("g7", 2.0)]);
    let new = gauge.series();
    assert_ne!(new, old);
    assert!(
        bus.bound(new).is_some(),
        "it leaves the page with its process"
    );
    let family = bus.family_of(new).expect("its family");
    assert_eq!(bus.ttl_ns(family), Some(hour.as_nanos() as u64));
    assert_eq!(aggregator.globals().stale, 0);
}

#[test]
fn a_gauge_of_processes_is_found_as_one() {
    let (_test, bus, mut aggregator) = small();
    let depth = |merge| bus.gauge("depth").label("model", "m").merge(merge);
    let gauge = depth(Merge::Sum).register().expect("room");
    gauge.set(1.0);
    gauge.add(2.0);
    settle(&mut aggregator);
    expect(&aggregator, &[("depthm", 3.0)]);
    let mut reader = Reader::open(aggregator.snapshot()).expect("a snapshot");
    let labels = [("model".to_owned(), "m".to_owned())];
    let found = reader.find("depth", &labels, true).expect("the sum");
    assert_eq!(
        (found.value, found.labels),
        (Value::Gauge(3.0), labels.to_vec())
    );
    assert_eq!(found.history.len(), 2);
    assert!(
        depth(Merge::Max).register().is_err(),
        "it is merged otherwise"
    );
    let counter = bus.counter("c_total").label("pid", "7");
    assert!(counter.register().is_ok(), "a label as any other");
}

#[test]
fn names_come_and_go_as_label_sets_do() {
    let geometry = Geometry {
        families: 32,
        ..Geometry::default()
    };
    let (_test, bus, mut aggregator) = aggregated(geometry, &AggregatorOptions::default());
    for n in 0..400 {
        let name = format!("job_{n}_total");
        let counter = bus.counter(&name).register().expect("room for a name");
        counter.inc();
        if n % 8 == 7 {
            settle(&mut aggregator);
        }
        counter.forget();
    }
    bus.gauge("job_0_total")
        .register()
        .expect("another by now")
        .set(1.0);
    settle(&mut aggregator);
    settle(&mut aggregator);
    expect(&aggregator, &[("job_0_total", 1.0)]);
}

/// Somebody writes to the file: what a series was cannot be read any more. That its place cannot be
/// given back is no reason to try for ever.
#[test]
fn a_series_that_cannot_be_freed_keeps_no_round_busy() {
    let (test, bus, mut aggregator) = small();
    let value = "a value that is to be garbage";
    let counter = bus.counter("c_total").label("k", value).register();
    let counter = counter.expect("room");
    counter.inc();
    settle(&mut aggregator);
    bus.forget(counter.series());
    settle(&mut aggregator);
    let file = std::fs::read(test.address().file()).expect("a bus");
    let is_value = |bytes: &[u8]| bytes == value.as_bytes();
    let found = file.windows(value.len()).position(is_value);
    let at = found.expect("its label is there") as u64 / 8;
    plant::word(test.address().file(), at, u64::MAX);
    // Whoever wants the name for something else has it freed at once.
    let other = bus.gauge("c_total").register();
    other.expect_err("it is not free yet");
    sleep(Duration::from_millis(25));
    let is_idle = |_| aggregator.round().is_idle();
    assert!((0..10_000).any(is_idle), "rounds go on for ever");
}
