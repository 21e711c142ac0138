//! Models of the registry.

use std::sync::Arc;

use loom::thread;

use super::heap::{HeapRegistry, counter, labels};
use super::{FamilyId, name_hash};
use crate::model::explore;
use crate::record::SeriesId;
use crate::sync::{AtomicU64, Fault};

/// All that a reader finds at one time: the names of families, and how many series. Each entry that
/// it sees must be whole.
fn look(memory: &HeapRegistry) -> (Vec<String>, usize) {
    let registry = memory.registry();
    let is_there = |word: &AtomicU64| {
        word.peek();
        super::offset_of(super::word(word)).is_some()
    };
    let mut names = Vec::new();
    for (place, word) in memory.families.iter().enumerate() {
        if is_there(word) {
            let family = registry.family(FamilyId(place as u32));
            names.push(family.expect("a whole family").name);
        }
    }
    let mut series = 0;
    for (place, word) in memory.series.iter().enumerate() {
        if is_there(word) {
            let found = registry.series(SeriesId(place as u32));
            let found = found.expect("a whole series");
            registry
                .family(found.family)
                .expect("the family of a series");
            series += 1;
        }
    }
    names.sort();
    (names, series)
}

#[test]
fn two_registrants_of_a_key_get_one_id() {
    let seen = explore("registry, one key", |outcomes| {
        let memory = Arc::new(HeapRegistry::new(2, 32));
        memory.series.iter().for_each(AtomicU64::watch);
        let registrants = [1, 2].map(|_| {
            let memory = memory.clone();
            thread::spawn(move || {
                let labels = labels(&[("l", "v")]);
                memory.registry().intern(&counter("a"), &labels).unwrap()
            })
        });
        let (_, early) = look(&memory);
        let [first, second] = registrants.map(|registrant| registrant.join().unwrap());
        assert_eq!(first, second);
        assert_eq!(look(&memory), (vec!["a".to_owned()], 1));
        outcomes.note(early);
    });
    assert_eq!(seen.len(), 2, "a reader came early and late");
}

/// Two names whose probe sequences begin at the same place of an index of four.
fn colliding() -> [String; 2] {
    let place = |name: &str| name_hash(name) & 3;
    let other = ('b'..='z').map(String::from);
    let mut other = other.filter(|name| place(name) == place("a"));
    ["a".to_owned(), other.next().expect("one of 25 collides")]
}

fn two_keys(name: &str, prepare: impl Fn(&HeapRegistry) + Send + Sync + 'static) {
    let seen = explore(name, move |outcomes| {
        let memory = Arc::new(HeapRegistry::new(2, 32));
        memory.families.iter().for_each(AtomicU64::watch);
        prepare(&memory);
        let registrants = colliding().map(|name| {
            let memory = memory.clone();
            thread::spawn(move || memory.registry().intern_family(&counter(&name)).unwrap())
        });
        let (early, _) = look(&memory);
        let ids = registrants.map(|registrant| registrant.join().unwrap());
        assert_ne!(ids[0], ids[1]);
        for (id, name) in ids.into_iter().zip(colliding()) {
            let family = memory.registry().family(id);
            assert_eq!(family.map(|family| family.name), Some(name));
        }
        outcomes.note((ids, early));
    });
    assert!(seen.iter().any(|(_, early)| early.len() == 1), "{seen:?}");
    let orders: Vec<_> = seen.iter().map(|(ids, _)| ids[0] < ids[1]).collect();
    assert!(orders.contains(&true) && orders.contains(&false));
}

#[test]
fn keys_that_collide_get_an_id_each() {
    two_keys("registry, two keys", |_| {});
}

#[test]
#[should_panic(expected = "a whole family")]
fn without_e5_a_reader_finds_half_a_definition() {
    two_keys("registry, no E5", |memory| {
        for word in &memory.families {
            word.inject(Fault::Unordered);
        }
    });
}

#[test]
#[should_panic]
fn an_entry_that_is_no_exchange_is_lost() {
    two_keys("registry, entries not atomic", |memory| {
        for word in &memory.families {
            word.inject(Fault::NotAtomic);
        }
    });
}
