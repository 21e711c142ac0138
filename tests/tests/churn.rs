//! Series that live and die: many times as many label sets as a bus has series go through it, and
//! its aggregator is killed now and then.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use qbus::Geometry;
use qbus_aggregate::{ReadOptions, Value};
use qbus_tests::{Place, Process, TestBus};

const AGGREGATOR: &str = env!("CARGO_BIN_EXE_test-aggregator");
const CHURNER: &str = env!("CARGO_BIN_EXE_test-churner");
const WORKERS: u64 = 4;

/// How many label sets in all: `QBUS_CHURN` says more. 10^6 take four minutes in a release build.
fn sets() -> u64 {
    let asked = std::env::var("QBUS_CHURN").ok();
    asked.map_or(60_000, |sets| sets.parse().expect("a number"))
}

struct Sizes {
    snapshot: u64,
    arena_words: u64,
}

fn sizes(test: &TestBus) -> Sizes {
    let snapshot = std::fs::metadata(test.address().snapshot());
    Sizes {
        snapshot: snapshot.expect("a snapshot").len(),
        arena_words: test.open().counts().arena_words,
    }
}

#[test]
fn label_sets_come_and_go_and_the_living_are_exact() {
    // A long run goes through a bus of the default size; a short one fills a small one as often.
    let (series, window) = match sets() {
        ..1_000_000 => (2048, 200),
        _ => (16_384, 1600),
    };
    let geometry = Geometry {
        series,
        cells: 4096,
        ..TestBus::small_geometry()
    };
    let test = TestBus::create(Place::Named, geometry.with_arena());
    let mut aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
    let each = sets() / WORKERS;
    let start = |worker: u64| {
        let args = [worker, each, window].map(|number| number.to_string());
        Process::ready(CHURNER, test.address(), &args)
    };
    let mut churners: Vec<Process> = (0..WORKERS).map(start).collect();
    let mut kills = 0_u64;
    let mut early = None;
    // How far they are: each registration counts once.
    let registered = || test.open().registry_version().0;
    let mut expected = BTreeMap::new();
    while registered() < each * WORKERS {
        sleep(Duration::from_millis(20 + kills * 7 % 50));
        if registered() > each * WORKERS / 3 && early.is_none() {
            early = Some(sizes(&test));
        }
        aggregator.kill();
        kills += 1;
        aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
    }
    for (worker, churner) in churners.iter().enumerate() {
        loop {
            let line = churner.line();
            let mut words = line.split(' ');
            let (Some(what), Some(set), Some(calls)) = (words.next(), words.next(), words.next())
            else {
                assert_eq!(line, "done");
                break;
            };
            let calls: f64 = calls.parse().expect("a number");
            expected.insert(
                (worker.to_string(), set.to_owned()),
                (what.to_owned(), calls),
            );
        }
    }
    churners.drain(..).for_each(Process::end_well);
    aggregator.end_well();
    let late = sizes(&test);
    let mut reader = test.reader();
    let globals = reader.globals();
    let snapshot = reader.read(&ReadOptions::default()).expect("an epoch");
    let mut left_over = 0;
    for series in &snapshot.series {
        let label = |name: &str| series.labels.iter().find(|label| label.0 == name);
        let text = |name: &str| label(name).expect("its label").1.clone();
        let set = text("set").trim_end_matches('-').to_owned();
        let Some((what, calls)) = expected.remove(&(text("worker"), set.clone())) else {
            // Forgotten last, and not retired yet when the aggregator was told to end.
            left_over += 1;
            continue;
        };
        let found = match &series.value {
            Value::Counter(sum) => sum.value(),
            Value::Histogram(histogram) => histogram.count as f64,
            other => panic!("{other:?}"),
        };
        // A handle of a series that was kept goes on from its sum, else from 0.
        let is_right = match what.as_str() {
            "kept" => found == 2.0 || found == calls + 2.0,
            _ => found == calls,
        };
        assert!(
            is_right,
            "{} {set}: {found}, expected {calls} ({what})",
            series.family.name
        );
    }
    println!(
        "{} label sets, {kills} kills; {} living, {left_over} about to leave; {} stale; snapshot \
         {} KiB early, {} KiB late; {} words of definitions early, {} late",
        registered(),
        snapshot.series.len(),
        globals.stale,
        early.as_ref().map_or(0, |early| early.snapshot >> 10),
        late.snapshot >> 10,
        early.as_ref().map_or(0, |early| early.arena_words),
        late.arena_words,
    );
    let missing: Vec<_> = expected.iter().take(9).collect();
    assert!(missing.is_empty(), "not on the page: {missing:?}");
    // What a forgotten series had in its cells when it was freed is nobody's, and counted: beside
    // cells that get other keys, a few.
    assert!(globals.stale < kills, "{} stale", globals.stale);
    assert_eq!(globals.unknown_series, 0);
    let early = early.expect("a look at a third of the way");
    assert!(
        late.snapshot <= early.snapshot + (4 << 20),
        "the snapshot grows"
    );
    assert!(kills > 1);
}
