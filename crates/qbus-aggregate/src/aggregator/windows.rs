//! Tests of windows on clocks of their own.

use std::time::Duration;

use qbus::{Bus, Geometry, Summary};
use qbus_tests::{Place, TestBus};

use super::{Aggregator, AggregatorOptions, Now, Round};
use crate::series::{SummaryValue, Value};
use crate::snapshot::reader::{ReadOptions, Reader};

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;

/// An aggregator on clocks of its own.
struct Clocked {
    _test: TestBus,
    bus: Bus,
    aggregator: Option<Aggregator>,
    now: Now,
}

impl Clocked {
    fn new() -> Clocked {
        let test = TestBus::create(Place::Path, Geometry::default());
        let mut clocked = Clocked {
            bus: test.open(),
            _test: test,
            aggregator: None,
            now: Now {
                unix_ns: 1_700_000_000 * SECOND,
                monotonic_ns: 1000 * SECOND,
            },
        };
        clocked.start();
        clocked
    }

    fn start(&mut self) {
        let options = AggregatorOptions::default();
        let aggregator = Aggregator::open_at(&self.bus, &options, self.now);
        self.aggregator = Some(aggregator.expect("the only aggregator"));
    }

    fn end(&mut self) {
        self.aggregator = None;
    }

    fn pass(&mut self, ns: u64) {
        self.now.unix_ns += ns;
        self.now.monotonic_ns += ns;
    }

    /// Lets time pass, with a round each second.
    fn run(&mut self, ns: u64) {
        for _ in 0..ns / SECOND {
            self.pass(SECOND);
            self.round();
        }
    }

    fn round(&mut self) -> Round {
        let now = self.now;
        let aggregator = self.aggregator.as_mut().expect("it runs");
        aggregator.round_at(now)
    }

    fn observe(&mut self, summary: &Summary, value: f64, times: usize) {
        (0..times).for_each(|_| summary.observe(value));
        self.round();
    }

    fn read(&self, name: &str) -> SummaryValue {
        let mut reader = Reader::open(&self.bus.address().snapshot()).expect("a snapshot");
        let found = reader.find(name, &[], false).expect("the series");
        let snapshot = reader.read(&ReadOptions::default()).expect("a page");
        let listed = snapshot
            .series
            .into_iter()
            .find(|series| series.family.name == name);
        let Value::Summary(value) = listed.expect("it is listed").value else {
            panic!("a summary");
        };
        // NaN is not itself.
        let shown = format!("{:?}", Value::Summary(value.clone()));
        assert_eq!(shown, format!("{:?}", found.value), "found and listed");
        value
    }

    fn median(&self, name: &str) -> f64 {
        values(&self.read(name))[0]
    }
}

/// The values at its quantiles, without the error of a bucket.
fn values(summary: &SummaryValue) -> Vec<f64> {
    summary
        .quantiles
        .iter()
        .map(|(_, value)| value.round())
        .collect()
}

#[test]
fn quantiles_are_of_the_window_and_the_rest_of_all_time() {
    let mut clocked = Clocked::new();
    let summary = clocked.bus.summary("s").register().expect("room");
    let forever = clocked
        .bus
        .summary("forever")
        .all_time()
        .register()
        .expect("room");
    while !clocked.round().is_idle() {}
    assert!(clocked.median("s").is_nan());
    for both in [&summary, &forever] {
        clocked.observe(both, 1.0, 100);
    }
    clocked.run(7 * MINUTE);
    for both in [&summary, &forever] {
        clocked.observe(both, 5.0, 10);
    }
    // Those of seven minutes ago count still.
    assert_eq!(clocked.median("s"), 1.0);
    clocked.run(3 * MINUTE);
    let after = clocked.read("s");
    assert_eq!(values(&after), [5.0; 5]);
    assert_eq!((after.count, after.sum.value()), (110, 150.0));
    assert_eq!((after.min, after.max, after.last), (1.0, 5.0, 5.0));
    assert_eq!(after.distribution.count(), 110);
    assert_eq!(clocked.median("forever"), 1.0);
}

#[test]
fn a_series_that_is_observed_no_more_shows_no_quantiles_in_the_end() {
    let mut clocked = Clocked::new();
    let summary = clocked.bus.summary("s").register().expect("room");
    clocked.observe(&summary, 3.0, 7);
    clocked.run(8 * MINUTE - SECOND);
    assert_eq!(clocked.median("s"), 3.0);
    clocked.run(2 * MINUTE + SECOND);
    let idle = clocked.read("s");
    assert!(values(&idle).iter().all(|value| value.is_nan()), "{idle:?}");
    assert_eq!((idle.count, idle.sum.value(), idle.max), (7, 21.0, 3.0));
    // From then on nothing is to be done for it.
    let epoch = clocked.aggregator.as_ref().expect("it runs").epoch();
    clocked.run(30 * MINUTE);
    assert_eq!(clocked.aggregator.as_ref().expect("it runs").epoch(), epoch);
    // What comes then is all that there is, wherever its buckets were counted before.
    clocked.observe(&summary, 3.0, 1);
    clocked.observe(&summary, 9.0, 2);
    assert_eq!(clocked.median("s"), 9.0);
    clocked.run(10 * MINUTE);
    assert!(clocked.median("s").is_nan());
}

#[test]
fn a_family_has_a_window_of_its_own() {
    let mut clocked = Clocked::new();
    let short = clocked
        .bus
        .summary("short")
        .window(Duration::from_secs(6), 2);
    let short = short.register().expect("room");
    let single = clocked
        .bus
        .summary("single")
        .window(Duration::from_secs(60), 1);
    let single = single.register().expect("room");
    clocked.observe(&short, 1.0, 1);
    clocked.observe(&single, 1.0, 1);
    clocked.run(4 * SECOND);
    assert_eq!(
        (clocked.median("short"), clocked.median("single")),
        (1.0, 1.0)
    );
    clocked.run(3 * SECOND);
    assert!(clocked.median("short").is_nan());
    clocked.run(MINUTE - 8 * SECOND);
    assert_eq!(clocked.median("single"), 1.0);
    clocked.run(SECOND);
    assert!(clocked.median("single").is_nan());
}

#[test]
fn a_step_of_the_wall_clock_moves_no_window() {
    for step in [1_000_000 * SECOND as i64, -1_000_000 * SECOND as i64] {
        let mut clocked = Clocked::new();
        let summary = clocked.bus.summary("s").register().expect("room");
        clocked.observe(&summary, 3.0, 5);
        clocked.run(3 * MINUTE);
        clocked.now.unix_ns = clocked.now.unix_ns.saturating_add_signed(step);
        clocked.run(4 * MINUTE);
        assert_eq!(clocked.median("s"), 3.0, "emptied by {step}");
        clocked.run(3 * MINUTE);
        assert!(clocked.median("s").is_nan(), "frozen by {step}");
    }
}

#[test]
fn a_window_goes_on_where_a_predecessor_left_it() {
    let mut clocked = Clocked::new();
    let summary = clocked.bus.summary("s").register().expect("room");
    clocked.observe(&summary, 1.0, 9);
    clocked.run(5 * MINUTE);
    clocked.observe(&summary, 2.0, 90);
    clocked.end();
    // Nobody aggregates: a reader sees the last window.
    assert_eq!(clocked.median("s"), 2.0);
    summary.observe(7.0);
    clocked.pass(MINUTE);
    clocked.start();
    clocked.round();
    let found = clocked.read("s");
    assert_eq!(
        (found.count, values(&found)),
        (100, vec![2.0, 2.0, 2.0, 2.0, 7.0])
    );
    clocked.run(8 * MINUTE);
    assert_eq!(values(&clocked.read("s")), [7.0; 5]);
    clocked.end();
    // So long that all of it is too old, but for what was emitted meanwhile.
    summary.observe(8.0);
    clocked.pass(60 * MINUTE);
    clocked.start();
    assert!(clocked.median("s").is_nan());
    clocked.round();
    assert_eq!(values(&clocked.read("s")), [8.0; 5]);
    clocked.end();
    // Another boot: its clock begins anew.
    clocked.now.monotonic_ns = SECOND;
    clocked.start();
    clocked.run(8 * MINUTE);
    assert_eq!(clocked.median("s"), 8.0);
    clocked.run(3 * MINUTE);
    assert!(clocked.median("s").is_nan());
}

#[test]
fn a_stopped_aggregator_does_not_pass_off_old_observations_as_new_ones() {
    let mut clocked = Clocked::new();
    let [idle, busy] = ["idle", "busy"].map(|name| {
        let summary = clocked.bus.summary(name).register().expect("room");
        clocked.observe(&summary, 1.0, 5);
        summary
    });
    clocked.pass(5 * MINUTE);
    busy.observe(2.0);
    clocked.round();
    clocked.run(3 * MINUTE);
    assert_eq!(clocked.median("idle"), 1.0);
    clocked.run(2 * MINUTE);
    assert!(clocked.median("idle").is_nan());
    assert_eq!(clocked.median("busy"), 2.0);
    drop(idle);
}

#[test]
fn many_series_take_many_rounds() {
    let mut clocked = Clocked::new();
    let family = |at: usize| clocked.bus.summary("s").label("at", &at.to_string());
    let all: Vec<_> = (0..300)
        .map(|at| family(at).register().expect("room"))
        .collect();
    all.iter().for_each(|summary| summary.observe(1.0));
    while !clocked.round().is_idle() {}
    clocked.pass(2 * MINUTE + SECOND);
    let waiting = (0..).take_while(|_| clocked.round().is_waiting).count();
    assert!((6..12).contains(&waiting), "{waiting}");
}

/// What a page was made of a while ago refers to words that have others' windows by now.
#[test]
fn a_page_that_is_decoded_late_takes_nobody_elses_window() {
    const SERIES: i32 = 40;
    let mut clocked = Clocked::new();
    let register = |n: i32| {
        let summary = clocked.bus.summary("s").label("n", &n.to_string());
        summary.register().expect("room")
    };
    let all: Vec<Summary> = (0..SERIES).map(register).collect();
    // Each has seen values of its own, and more and more others, so that windows change places.
    for (n, summary) in (0..).zip(&all) {
        clocked.observe(summary, f64::from(n - 50).exp2(), 9);
    }
    clocked.run(10 * MINUTE);
    let mut reader = Reader::open(&clocked.bus.address().snapshot()).expect("a snapshot");
    for minute in 0..9 {
        for (n, summary) in (0..).zip(&all) {
            for value in 0..(n + minute * 7) % 40 + 1 {
                summary.observe(f64::from(value).exp2() * 1000.0);
            }
        }
        clocked.round();
        let listing = reader.list(&ReadOptions::default()).expect("a page");
        clocked.run(4 * MINUTE + SECOND);
        let names = listing.names();
        let mut found = 0;
        for series in names.iter().flat_map(|named| named.iter()) {
            let Value::Summary(value) = &series.value else {
                panic!("a summary");
            };
            assert!(value.quantiles[0].1 > 900.0, "{value:?}");
            found += 1;
        }
        assert_eq!(found, SERIES);
    }
}

#[test]
fn a_page_that_is_decoded_late_has_no_points_ahead_of_its_values() {
    let mut clocked = Clocked::new();
    let counter = clocked.bus.counter("x_total").register().expect("room");
    let mut reader = Reader::open(&clocked.bus.address().snapshot()).expect("a snapshot");
    let options = ReadOptions {
        history: true,
        ..ReadOptions::default()
    };
    // Rings begin with a few points, and move whenever these do not suffice.
    let mut is_long = false;
    for before in 1..40_u64 {
        counter.inc();
        clocked.run(SECOND);
        let listing = reader.list(&options).expect("a page");
        for _ in 0..4 {
            counter.inc();
            clocked.run(SECOND);
        }
        let names = listing.names();
        let Some(series) = names.iter().flat_map(|named| named.iter()).next() else {
            panic!("a counter");
        };
        let value = (before * 5 - 4) as f64;
        assert_eq!(series.value, Value::Counter(value.into()));
        let points: Vec<f64> = series.history.iter().map(|point| point.value).collect();
        assert_eq!(points.last(), Some(&value), "{points:?}");
        assert!(points.is_sorted(), "{points:?}");
        is_long |= points.len() > 100;
    }
    assert!(is_long, "the ring has moved several times");
}
