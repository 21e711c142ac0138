//! Models of the commit: against readers, and cut by a death at every store.

use std::sync::Arc;

use loom::thread;
use qbus::model::explore;
use qbus::{Fault, HeapWords};

use super::{Found, Row, commit, committed, row_words};

const COMMITTED: usize = 0;
/// Two rows and a head.
const ROWS: [Row; 3] = [row(0), row(1), row(2)];
/// Stores of a version: its tag twice, and two words.
const STORES: u64 = 4;

const fn row(at: usize) -> Row {
    Row {
        start: 1 + at * row_words(2),
        len: 2,
    }
}

fn memory() -> Arc<HeapWords> {
    let memory = HeapWords::new(1 + 3 * row_words(2));
    for row in ROWS {
        row.tags().into_iter().for_each(|tag| memory.watch(tag));
    }
    memory.watch(COMMITTED);
    Arc::new(memory)
}

/// Writes a value to some rows, and commits.
fn commit_all(memory: &HeapWords, epoch: u64, rows: &[Row], value: u64) {
    for row in rows {
        row.write(memory.words(), epoch, &[value, value]);
    }
    commit(memory.words(), COMMITTED, epoch);
}

/// The epoch that a reader finds, and what its rows say; `None` when one was overtaken.
fn cut(memory: &HeapWords) -> (u64, Option<Vec<u64>>) {
    memory.peek(COMMITTED);
    let epoch = committed(memory.words(), COMMITTED).expect("a word");
    let mut values = Some(Vec::new());
    for row in ROWS {
        row.tags().into_iter().for_each(|tag| memory.peek(tag));
        let mut version = Vec::new();
        match row.read(memory.words(), epoch, None, &mut version) {
            Found::Version => {
                assert_eq!(version[0], version[1], "a torn version");
                if let Some(values) = &mut values {
                    values.push(version[0]);
                }
            }
            Found::Overtaken => values = None,
            Found::Nothing => panic!("a row of epoch {epoch} is lost"),
        }
    }
    (epoch, values)
}

/// More epochs, of which the third leaves a row alone, against a reader.
fn commit_against_reader(
    name: &str,
    last: u64,
    prepare: impl Fn(&HeapWords) + Send + Sync + 'static,
) {
    let seen = explore(name, move |outcomes| {
        let memory = memory();
        prepare(&memory);
        commit_all(&memory, 1, &ROWS, 1);
        let shared = memory.clone();
        let writer = thread::spawn(move || {
            for epoch in 2..=last {
                let rows = if epoch == 3 { &ROWS[1..] } else { &ROWS };
                commit_all(&shared, epoch, rows, epoch);
            }
        });
        let shared = memory.clone();
        let reader = thread::spawn(move || cut(&shared));
        let (epoch, values) = reader.join().unwrap();
        writer.join().unwrap();
        let first = if epoch == 3 { 2 } else { epoch };
        if let Some(values) = &values {
            assert_eq!(*values, [first, epoch, epoch], "a cut of two epochs");
        }
        outcomes.note((epoch, values.is_some()));
    });
    for epoch in 1..=last {
        assert!(seen.contains(&(epoch, true)), "no cut at {epoch}: {seen:?}");
    }
    assert_eq!(seen.contains(&(1, false)), last > 2, "{seen:?}");
}

#[test]
fn a_cut_is_of_one_epoch() {
    commit_against_reader("snapshot, one commit", 2, |_| {});
}

#[test]
fn a_reader_that_is_overtaken_knows() {
    commit_against_reader("snapshot, two commits", 3, |_| {});
}

#[test]
#[should_panic(expected = "a cut of two epochs")]
fn without_s1_an_epoch_counts_too_early() {
    commit_against_reader("snapshot, no S1", 2, |memory| {
        memory.inject(COMMITTED, Fault::Unordered);
    });
}

/// A reader that takes what there is, when the version that counts is gone: it is whole, and no
/// older.
fn newest_against_commits(name: &str, prepare: impl Fn(&HeapWords) + Send + Sync + 'static) {
    let seen = explore(name, move |outcomes| {
        let memory = memory();
        prepare(&memory);
        commit_all(&memory, 1, &ROWS[..1], 1);
        let shared = memory.clone();
        let writer = thread::spawn(move || {
            for epoch in 2..=3 {
                commit_all(&shared, epoch, &ROWS[..1], epoch);
            }
        });
        let shared = memory.clone();
        let reader = thread::spawn(move || {
            shared.peek(COMMITTED);
            let epoch = committed(shared.words(), COMMITTED).expect("a word");
            for tag in ROWS[0].tags() {
                shared.peek(tag);
            }
            let mut version = Vec::new();
            let found = ROWS[0].read(shared.words(), epoch, Some(COMMITTED), &mut version);
            assert_eq!(found, Found::Version);
            (epoch, version)
        });
        let (epoch, version) = reader.join().unwrap();
        writer.join().unwrap();
        assert_eq!(version[0], version[1], "a torn version");
        assert!(version[0] >= epoch, "an older version");
        outcomes.note((epoch, version[0]));
    });
    for ends in [(1, 1), (2, 2), (3, 3), (1, 3)] {
        assert!(seen.contains(&ends), "{ends:?} never happened: {seen:?}");
    }
}

#[test]
fn the_newest_version_is_whole() {
    newest_against_commits("snapshot, newest version", |_| {});
}

// Torn, or not found at all: the tags carry S4 too.
#[test]
#[should_panic]
fn without_s2_a_version_is_torn() {
    newest_against_commits("snapshot, no S2", |memory| {
        for tag in ROWS[0].tags() {
            memory.inject(tag, Fault::Unordered);
        }
    });
}

#[test]
#[should_panic]
fn without_s3_a_version_is_torn_or_lost() {
    commit_against_reader("snapshot, no S3", 3, HeapWords::drop_fences);
}

/// A writer is cut after so many stores of its second commit; its successor restarts and commits to
/// the rows after the first. A reader comes at any time.
fn crash_and_restart(stores: u64, is_erased: bool) {
    let whole = stores > 3 * STORES;
    let name = format!("snapshot, death after {stores} stores");
    let seen = explore(&name, move |outcomes| {
        let memory = memory();
        commit_all(&memory, 1, &ROWS, 1);
        let shared = memory.clone();
        let writer = thread::spawn(move || {
            shared.cut_after(stores);
            commit_all(&shared, 2, &ROWS, 2);
            shared.cut_after(u64::MAX);
            let epoch = committed(shared.words(), COMMITTED).expect("a word");
            assert_eq!(epoch, if whole { 2 } else { 1 });
            for row in ROWS.iter().filter(|_| is_erased) {
                row.erase(shared.words(), epoch);
            }
            commit_all(&shared, epoch + 1, &ROWS[1..], 3);
        });
        let shared = memory.clone();
        // After a whole commit this is what a reader of ordinary commits sees, which costs most to
        // explore.
        let reader = (!whole).then(|| thread::spawn(move || cut(&shared)));
        let early = reader.map(|reader| reader.join().unwrap());
        writer.join().unwrap();
        let expected = |epoch| match (epoch, whole) {
            (1, _) => [1, 1, 1],
            (2, true) => [2, 2, 2],
            (2, false) => [1, 3, 3],
            _ => [2, 3, 3],
        };
        if let Some((epoch, Some(values))) = &early {
            assert_eq!(*values, expected(*epoch), "not what was committed");
        }
        let (last, values) = cut(&memory);
        assert_eq!(last, if whole { 3 } else { 2 });
        assert_eq!(
            values,
            Some(expected(last).to_vec()),
            "not what was committed"
        );
        outcomes.note(early);
    });
    assert_eq!(seen.len(), if whole { 1 } else { 2 }, "{seen:?}");
}

#[test]
fn a_commit_may_be_cut_after_any_store() {
    for stores in 0..=3 * STORES + 1 {
        crash_and_restart(stores, true);
    }
}

#[test]
#[should_panic(expected = "not what was committed")]
fn without_the_erasure_half_a_commit_comes_to_count() {
    crash_and_restart(2 * STORES, false);
}
