//! What is forgotten is freed, and its words are used again.

use super::super::FamilyDefinition;
use super::super::heap::{HeapRegistry, counter, labels};
use super::histogram;
use crate::owner::OwnerId;
use crate::record::SeriesId;
use crate::sync::Ordering;

/// The id of a counter's series with that value of its one label.
fn series(memory: &HeapRegistry, name: &str, value: &str) -> SeriesId {
    let labels = labels(&[("l", value)]);
    memory.registry().intern(&counter(name), &labels).unwrap()
}

#[test]
fn what_is_freed_is_used_again_and_its_id_is_stale() {
    let memory = HeapRegistry::new(4, 1024);
    let registry = memory.registry();
    let old = series(&memory, "a", "x");
    assert!(!registry.free_series(old), "nobody forgot it");
    assert!(registry.forget(old, 5));
    assert_eq!(registry.forgotten(old), Some((5, false)));
    assert!(registry.free_series(old));
    assert!(!registry.is_open(old) && registry.series(old).is_none());
    assert_eq!(registry.find_series("a", &labels(&[("l", "x")])), None);
    assert!(!registry.forget(old, 6) && !registry.free_series(old));
    let used = memory.arena_next.load(Ordering::Relaxed);
    let new = series(&memory, "a", "y");
    assert_ne!(new, old);
    assert_eq!(memory.arena_next.load(Ordering::Relaxed), used, "its block");
    assert_eq!(registry.forgotten(new), None);
    let again = series(&memory, "a", "x");
    assert!(again != old && again != new);
    assert_eq!(registry.version().0, 3, "so many were registered");
}

#[test]
fn a_million_keys_go_through_a_small_registry() {
    let memory = HeapRegistry::new(64, 4096);
    let registry = memory.registry();
    let mut living = std::collections::VecDeque::new();
    for n in 0..100_000_u32 {
        // Of several sizes, each its own class.
        let value = "v".repeat(n as usize % 5 * 40) + &n.to_string();
        living.push_back((series(&memory, "a", &value), value));
        if living.len() == 48 {
            let (id, value) = living.pop_front().unwrap();
            let found = registry.series(id).expect("it lives");
            assert_eq!(found.labels[0].1, value);
            assert!(registry.forget(id, 1) && registry.free_series(id));
        }
    }
    assert_eq!(registry.series_ids().count(), living.len());
    for (id, value) in living {
        assert_eq!(
            registry.find_series("a", &labels(&[("l", &value)])),
            Some(id)
        );
    }
}

#[test]
fn who_registers_it_in_time_keeps_a_series() {
    let memory = HeapRegistry::new(4, 1024);
    let registry = memory.registry();
    let id = series(&memory, "a", "x");
    registry.forget(id, 5);
    assert_eq!(series(&memory, "a", "x"), id);
    assert!(!registry.free_series(id));
    registry.forget(id, 5);
    registry.forget(id, 7);
    // What was emitted came before the second time.
    registry.revive(id, 5);
    assert_eq!(registry.forgotten(id), Some((7, false)));
    registry.revive(id, 7);
    assert_eq!(registry.forgotten(id), None);
}

#[test]
fn a_binding_and_a_time_to_live_end_with_the_life_they_are_of() {
    let memory = HeapRegistry::new(4, 1024);
    let registry = memory.registry();
    let owner = OwnerId {
        index: 3,
        generation: 9,
    };
    let old = series(&memory, "a", "x");
    registry.bind(old, owner);
    assert_eq!(registry.bound(old), Some(owner));
    let family = registry.family_of(old).unwrap();
    registry.set_ttl_us(family, 17);
    assert_eq!(registry.ttl_us(family), 17);
    registry.forget(old, 5);
    assert!(registry.free_series(old));
    assert!(!registry.unbind(old, owner));
    let new = series(&memory, "a", "y");
    assert_eq!(registry.bound(new), None);
    registry.forget(new, 5);
    assert!(registry.free_series(new));
    assert!(registry.suspect_family(family) && registry.free_family(family));
    let id = series(&memory, "b", "x");
    assert_eq!(registry.ttl_us(registry.family_of(id).unwrap()), 0);
}

#[test]
fn a_family_that_is_freed_can_be_another() {
    let memory = HeapRegistry::new(4, 1024);
    let registry = memory.registry();
    let intern = |family: &FamilyDefinition| registry.intern(family, &[]);
    let id = intern(&histogram("h", &[1.0])).unwrap();
    let family = registry.family_of(id).unwrap();
    assert!(intern(&histogram("h", &[2.0])).is_err());
    registry.forget(id, 1);
    assert!(registry.free_series(id));
    // Somebody registers a series of it while it is looked for one.
    assert!(registry.suspect_family(family));
    let id = intern(&histogram("h", &[1.0])).unwrap();
    assert!(!registry.free_family(family));
    registry.forget(id, 1);
    assert!(registry.free_series(id));
    assert!(registry.suspect_family(family) && registry.free_family(family));
    assert!(registry.family(family).is_none());
    assert!(intern(&histogram("h", &[2.0])).is_ok());
}

#[test]
fn a_successor_takes_out_what_was_closed() {
    let memory = HeapRegistry::new(4, 1024);
    let registry = memory.registry();
    let ids = ["x", "y", "z"].map(|value| series(&memory, "a", value));
    registry.forget(ids[1], 1);
    // As after a kill at `closed`.
    let (block, life) = registry.blocks.find(ids[1].0).unwrap();
    assert!(registry.close(block, life));
    let again = series(&memory, "a", "y");
    registry.sweep();
    assert_eq!(memory.series_count.load(Ordering::Relaxed), 3);
    assert_eq!(registry.series_ids().count(), 3);
    assert_eq!(
        registry.find_series("a", &labels(&[("l", "y")])),
        Some(again)
    );
}

/// Whoever knows the hash can give a program label values that all lie in one chain.
#[test]
fn a_chain_holds_as_many_as_there_are() {
    const SERIES: usize = 6000;
    let memory = HeapRegistry::new(8192, 16 * 8192);
    let registry = memory.registry();
    let mut one_chain = registry;
    one_chain.series.heads = &memory.series[..1];
    let intern = |n: usize| {
        let labels = labels(&[("l", &n.to_string())]);
        one_chain.intern_checked(&counter("a"), &labels).unwrap()
    };
    let ids: Vec<SeriesId> = (0..SERIES).map(intern).collect();
    for n in [0, 1, SERIES / 2, SERIES - 1] {
        assert_eq!(intern(n), ids[n], "it is there once");
    }
    assert_eq!(one_chain.series_ids().count(), SERIES);
    // Also taken out from its end.
    assert!(one_chain.forget(ids[0], 1) && one_chain.free_series(ids[0]));
    assert_ne!(intern(0), ids[0]);
}
