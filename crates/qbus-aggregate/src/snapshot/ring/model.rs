//! A model of the claim: no reader takes a point of a later lap for one of its own.

use std::sync::Arc;

use loom::thread;
use qbus::HeapWords;
use qbus::model::explore;

use super::{HEADER, Points, Ring, copy};
use crate::snapshot::row::Span;

/// A ring of two points, all of which are overwritten while a reader copies them.
fn overwritten_while_read(name: &str, has_fences: bool) {
    let seen = explore(name, move |outcomes| {
        let memory = Arc::new(HeapWords::new(Points::History.ring_words(2)));
        for word in [1, HEADER, HEADER + 2] {
            memory.watch(word);
        }
        let words = memory.words();
        let mut ring = Ring::resume(words, 0, 2, Points::History, 0);
        for point in 0..2 {
            ring.push(words, &[point, point]);
        }
        if !has_fences {
            memory.drop_fences();
        }
        let shared = memory.clone();
        let writer = thread::spawn(move || {
            for point in 2..4 {
                ring.push(shared.words(), &[point, point]);
            }
        });
        let shared = memory.clone();
        let reader = thread::spawn(move || {
            for word in [1, HEADER, HEADER + 2] {
                shared.peek(word);
            }
            // As of an epoch in which there were two points.
            let span = Span {
                ring: 0,
                first: 0,
                next: 2,
            };
            copy(shared.words(), 2, Points::History, span)
        });
        let copied = reader.join().unwrap();
        writer.join().unwrap();
        for point in copied.chunks(2) {
            assert!(point[0] < 2 && point[0] == point[1], "not of its epoch");
        }
        outcomes.note(copied.len() / 2);
    });
    for points in 0..=2 {
        assert!(seen.contains(&points), "{points} points: {seen:?}");
    }
}

#[test]
fn a_point_that_is_kept_is_of_the_readers_epoch() {
    overwritten_while_read("history, overwritten", true);
}

#[test]
#[should_panic(expected = "not of its epoch")]
fn without_r1_a_later_point_is_kept() {
    overwritten_while_read("history, no R1", false);
}
