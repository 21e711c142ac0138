//! Draws the tables of `docs/format.md` that tell of the snapshot.

#[path = "../../../../docs/drawn.rs"]
mod drawn;

use drawn::{check, table, words};
use qbus::MetricType;

use super::layout::{
    AT_ALLOCATED, AT_COMMITTED, AT_CREATED, AT_DEFINED, AT_GLOBALS, AT_HISTORIES, AT_INSTANCE,
    AT_MAGIC, AT_NAME, AT_PID, AT_SHAPE, AT_STARTED, AT_VERSION, BLOCK_HEADER, BLOCK_WORDS,
    GLOBALS_LEN, MAGIC, NAME_WORDS, OWNER_LEN, PLAIN_LEN, Shape, VERSION,
};
use super::ring::Points;
use super::row::{Observed, Plain, Span};
use super::tally::{Globals, OwnerRow, Tally};
use super::versioned::row_words;
use super::window::Steps;
use crate::counts::Counts;
use crate::distribution::Distribution;
use crate::sum::Sum;

fn row<const N: usize>(cells: [&dyn ToString; N]) -> Vec<String> {
    cells.map(ToString::to_string).to_vec()
}

#[test]
fn header() {
    let rows = [
        row([&AT_MAGIC, &1, &"`qbussnap`; stored last, with release"]),
        row([&AT_VERSION, &1, &"layout version"]),
        row([&AT_INSTANCE, &2, &"the bus's instance"]),
        row([
            &AT_SHAPE,
            &Shape::WORDS,
            &"lanes, owners, series ids, series, words for definitions, cells",
        ]),
        row([&AT_CREATED, &1, &"when the bus was created"]),
        row([
            &AT_NAME,
            &(1 + NAME_WORDS),
            &"the bus's name: length in bytes, then its text",
        ]),
        row([&AT_ALLOCATED, &1, &"next free word of the heap"]),
        row([&AT_DEFINED, &1, &"next free word of the definitions"]),
        row([&AT_HISTORIES, &1, &"words of the heap that histories took"]),
        row([&AT_COMMITTED, &1, &"`committed`: the epoch that counts"]),
        row([&AT_PID, &1, &"pid of the last aggregator"]),
        row([&AT_STARTED, &1, &"when it started"]),
        row([&AT_GLOBALS, &row_words(GLOBALS_LEN), &"globals: a row"]),
    ];
    let drawn = table(&["word", "words", "what"], &rows);
    let numbers = format!("\nMagic `{MAGIC:016x}`, layout version {VERSION}.\n");
    check("snapshot header", &(drawn + &numbers));
}

#[test]
fn sections() {
    let shape = Shape {
        lanes: 64,
        owners: 1024,
        series_places: 40_965,
        series: 16_384,
        arena_words: 655_424,
        cells: 2048,
    };
    let rows = [
        row([
            &"heads",
            &shape.heads(),
            &row_words(1),
            &"lanes: a row each, the committed position",
        ]),
        row([
            &"owners",
            &shape.owner_rows(),
            &row_words(OWNER_LEN),
            &"owners: a row each",
        ]),
        row([
            &"cells",
            &shape.cell_rows(),
            &row_words(shape.cells_len()),
            &"lanes × 4: a row for each group of cells",
        ]),
        row([
            &"directory",
            &shape.directory(),
            &1,
            &"places: where a series' block lies; 0 = nowhere",
        ]),
        row([
            &"blocks",
            &shape.blocks(),
            &BLOCK_WORDS,
            &"series: a counter's or a gauge's block",
        ]),
        row([
            &"definitions",
            &shape.definitions(),
            &1,
            &"words for definitions",
        ]),
        row([
            &"heap",
            &shape.heap(),
            &1,
            &"what follows, to the end of the file",
        ]),
    ];
    check(
        "snapshot sections",
        &table(
            &["section", "word", "words each", "number, and what"],
            &rows,
        ),
    );
}

/// Each field of a struct gets the number of its place, so that the words tell where it went.
#[test]
fn rows() {
    let globals = Globals {
        unix_ns: 0,
        records: 1,
        recent: 2,
        unknown_series: 3,
        unplaced: 4,
        restarts: 5,
        lost_positions: 6,
        recent_ring: 7,
        commit_ns: 8,
        stale: 9,
    };
    let numbered: Vec<u64> = (0..GLOBALS_LEN as u64).collect();
    assert_eq!(
        globals.to_words().to_vec(),
        numbered,
        "the list in docs/format.md is in this order"
    );
    let tally = |first| Tally {
        delivered: first,
        torn: first + 1,
        revoked: first + 2,
        dropped_full: first + 3,
        rejected: first + 4,
        violations: first + 5,
        unplaced: first + 6,
    };
    let owner = OwnerRow {
        generation: 0,
        present: tally(1),
        departed: tally(8),
        shared_calls: [15, 16],
    };
    let numbered: Vec<u64> = (0..OWNER_LEN as u64).collect();
    assert_eq!(
        owner.to_words().to_vec(),
        numbered,
        "the list in docs/format.md is in this order"
    );
}

#[test]
fn series() {
    let plain = Plain {
        records: 3,
        last_ns: 0x2222,
        start_ns: 0x1111,
        value: Sum::from_parts(2.5, 0.0),
        history: Span {
            ring: 0x9999,
            first: 1,
            next: 3,
        },
        retired_ns: 0,
    };
    let mut version = Vec::new();
    plain.encode(&mut version);
    assert_eq!(version.len(), PLAIN_LEN);
    check("plain row", &words(&version));

    let mut observed = Observed::new(MetricType::Histogram, 2, false).expect("it observes");
    observed.count = 3;
    observed.sum = Sum::from_parts(0.75, 0.0);
    (observed.min, observed.max) = (0.125, 0.5);
    let mut version = Vec::new();
    observed.encode(&mut version);
    check("observed row", &words(&version));

    let mut distribution = Distribution::default();
    distribution.observe(1.0, 3);
    let before = Counts::of(&distribution);
    distribution.observe(1.01, 200);
    let over = vec![Counts::of(&distribution).minus(&before)];
    let steps = Steps { before, over };
    check("window", &words(&steps.encode()));

    let rows = [
        row([
            &"block",
            &BLOCK_HEADER,
            &"series id; where the definitions of its family and of itself lie; where its \
                exemplars lie, 0 = nowhere; length of a version; then its row",
        ]),
        row([&"history", &Points::History.words(), &"timestamp, value"]),
        row([
            &"recent records",
            &Points::Recent.words(),
            &"timestamp; series << 32 and kind; value; count",
        ]),
        row([
            &"exemplars",
            &1,
            &"length of a version; then a row: value, timestamp, trace id (high, low) of each \
                bucket",
        ]),
        row([
            &"window",
            &1,
            &"words, this one too; then bytes: what came before the present step",
        ]),
    ];
    check("rings", &table(&["of", "words", "what"], &rows));
}
