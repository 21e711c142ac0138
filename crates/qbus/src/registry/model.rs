//! Models of the registry.

use std::sync::Arc;

use loom::thread;

use super::block::{GRANULE, HELP};
use super::heap::{HeapRegistry, counter, labels};
use super::limit::Room;
use super::{Arena, FamilyDefinition, FamilyId, Registry, name_hash};
use crate::model::explore;
use crate::record::SeriesId;
use crate::sync::{AtomicU64, Fault};

/// All that a reader finds at one time: the names of families, and how many series. Each entry that
/// it sees must be whole.
fn look(memory: &HeapRegistry) -> (Vec<String>, usize) {
    let registry = memory.registry();
    let mut names = Vec::new();
    for (bucket, head) in memory.families.iter().enumerate() {
        head.peek();
        let mut entries = Vec::new();
        registry
            .families
            .entries(&registry.blocks, bucket, &mut entries);
        for (block, life) in entries {
            let family = registry.family(FamilyId(registry.blocks.id(block, life)));
            names.push(family.expect("a whole family").name);
        }
    }
    let mut series = 0;
    let mut ids = Vec::new();
    for (bucket, head) in memory.series.iter().enumerate() {
        head.peek();
        registry.chain_ids(bucket, &mut ids);
        for &id in &ids {
            let found = registry.series(id).expect("a whole series");
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
        let memory = Arc::new(HeapRegistry::new(2, 96));
        memory.series.iter().for_each(AtomicU64::watch);
        let registrants = [1, 2].map(|_| {
            let memory = memory.clone();
            thread::spawn(move || {
                let labels = labels(&[("l", "v")]);
                memory
                    .registry()
                    .intern_checked(&counter("a"), &labels)
                    .unwrap()
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

/// Two names of one chain, of four.
fn colliding() -> [String; 2] {
    let place = |name: &str| name_hash(name, "") & 3;
    let other = ('b'..='z').map(String::from);
    let mut other = other.filter(|name| place(name) == place("a"));
    ["a".to_owned(), other.next().expect("one of 25 collides")]
}

fn two_keys(name: &str, prepare: impl Fn(&HeapRegistry) + Send + Sync + 'static) {
    let seen = explore(name, move |outcomes| {
        let memory = Arc::new(HeapRegistry::new(2, 64));
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
            assert_eq!(family.map(|family| family.name), Some(name.clone()));
            assert_eq!(memory.registry().find_family(&name), Some(id));
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

/// One chain, so that all collide, and an arena with room for one block more than there are.
struct Small(HeapRegistry);

impl Small {
    fn registry(&self) -> Registry<'_> {
        let memory = &self.0;
        let registry = memory.registry();
        let mut series = registry.series;
        series.heads = &memory.series[..1];
        let arena = Arena {
            words: &memory.arena,
            next: &memory.arena_next,
            free: &memory.free,
            changes: &memory.changes,
            freed: &memory.freed,
            family_limit: &memory.family_limit,
        };
        Registry::new(registry.families, series, &arena)
    }

    fn intern(&self, value: &str) -> Option<SeriesId> {
        let labels = labels(&[("l", value)]);
        // Its limit is a word that is read alone.
        let registry = self.registry();
        let interned = registry.intern_within(&counter("a"), &labels, Room::Any);
        interned.ok()
    }

    fn find(&self, value: &str) -> Option<SeriesId> {
        self.registry().find_series("a", &labels(&[("l", value)]))
    }

    /// What an id leads to; `None` when it is stale.
    fn value(&self, id: SeriesId) -> Option<String> {
        Some(self.registry().series(id)?.labels[0].1.clone())
    }
}

/// A series is freed while its place is taken by another one, and a third party looks for `sought`
/// and emits under what it found. What is found for a living series is its own, and right; what is
/// found for the other leads to it or nowhere.
fn freeing(name: &str, sought: &'static str, prepare: impl Fn(&Small) + Send + Sync + 'static) {
    let seen = explore(name, move |outcomes| {
        let memory = Arc::new(Small(HeapRegistry::new(4, 64)));
        let old = memory.intern("x").expect("room");
        memory.registry().forget(old, 1);
        prepare(&memory);
        let registrant = {
            let memory = memory.clone();
            thread::spawn(move || memory.intern("y").expect("a block is left, or was freed"))
        };
        let looker = {
            let memory = memory.clone();
            thread::spawn(move || memory.find(sought).map(|id| (id, memory.value(id))))
        };
        // The aggregator.
        let is_freed = memory.registry().free_series(old);
        assert!(is_freed, "nobody registers it again");
        let new = registrant.join().unwrap();
        assert_ne!(new, old);
        assert_eq!(memory.value(new).as_deref(), Some("y"), "the living series");
        assert_eq!(memory.find("y"), Some(new), "it is found");
        assert_eq!((memory.value(old), memory.find("x")), (None, None));
        let found = looker.join().unwrap();
        if let Some((id, read)) = &found {
            assert!(
                read.is_none() || read.as_deref() == Some(sought),
                "{read:?}"
            );
            let now = memory.value(*id);
            match sought {
                "y" => assert_eq!(*id, new, "a living series was found under another id"),
                _ => assert_eq!(now, None, "a stale id leads to {now:?}"),
            }
        }
        let is_reused = new.0 & 7 == old.0 & 7;
        outcomes.note((found.is_some(), is_reused));
    });
    if sought == "x" {
        assert!(
            seen.contains(&(true, false)) && seen.contains(&(false, true)),
            "{seen:?}"
        );
    }
}

#[test]
fn a_lookup_of_a_series_that_is_freed_finds_it_or_nothing() {
    freeing("registry, free against lookup", "x", |_| {});
}

#[test]
fn a_lookup_of_the_series_that_takes_its_place_finds_it_or_nothing() {
    freeing("registry, free against intern", "y", |_| {});
}

#[test]
#[should_panic]
fn without_fences_a_lookup_finds_another_series() {
    freeing("registry, no fences", "x", |memory| {
        memory.0.families[0].peek();
        crate::sync::drop_fences(true);
    });
}

#[test]
#[should_panic]
fn without_an_exchange_of_heads_a_series_is_lost() {
    freeing("registry, heads not atomic", "y", |memory| {
        memory.0.series[0].inject(Fault::NotAtomic);
    });
}

/// Two register a series that is about to be freed, and a reader counts how often it is there.
#[test]
fn who_registers_a_series_that_is_freed_has_it_or_another_and_never_two() {
    let seen = explore("registry, free against intern of the same", |outcomes| {
        let memory = Arc::new(Small(HeapRegistry::new(4, 64)));
        let old = memory.intern("x").expect("room");
        memory.registry().forget(old, 1);
        let registrant = {
            let memory = memory.clone();
            thread::spawn(move || memory.intern("x").expect("a block is left, or was freed"))
        };
        let is_freed = memory.registry().free_series(old);
        let id = registrant.join().unwrap();
        assert_eq!(id == old, !is_freed);
        assert_eq!(memory.value(id).as_deref(), Some("x"));
        assert_eq!(memory.find("x"), Some(id));
        let open: Vec<_> = memory.registry().series_ids().collect();
        assert_eq!(open, [id]);
        outcomes.note(is_freed);
    });
    assert_eq!(seen.len(), 2, "both came first");
}

/// A family is freed while a series of it is registered.
#[test]
fn a_series_always_has_its_family() {
    let seen = explore("registry, a family freed against intern", |outcomes| {
        let memory = Arc::new(Small(HeapRegistry::new(4, 96)));
        let family = memory.registry().intern_family(&counter("a")).unwrap();
        let registrant = {
            let memory = memory.clone();
            thread::spawn(move || memory.intern("x").expect("room"))
        };
        let registry = memory.registry();
        let is_marked = registry.suspect_family(family);
        let has_none = registry
            .series_ids()
            .all(|id| registry.family_of(id) != Some(family));
        let is_freed = is_marked && has_none && registry.free_family(family);
        let id = registrant.join().unwrap();
        let found = registry.series(id).expect("it is registered");
        let name = registry.family(found.family).map(|family| family.name);
        assert_eq!(name.as_deref(), Some("a"), "the family of a living series");
        assert_eq!(found.family == family, !is_freed);
        outcomes.note(is_freed);
    });
    assert_eq!(seen.len(), 2, "both came first");
}

/// A help text is replaced twice, so that the second comes to lie where the first one did, or by
/// two at once; whoever reads finds a whole one.
fn describing(
    name: &str,
    texts: [&'static [&'static str]; 2],
    prepare: impl Fn() + Send + Sync + 'static,
) {
    const TEXTS: [&str; 4] = [
        "",
        "first and longer",
        "another one ....",
        "the last of them",
    ];
    let seen = explore(name, move |outcomes| {
        let memory = Arc::new(HeapRegistry::new(2, 96));
        let family = memory.registry().intern_family(&counter("a")).unwrap();
        // Whoever replaces a text loads this word first.
        let told = family.0 as usize * GRANULE + HELP;
        memory.arena[told].watch();
        prepare();
        let registrants = texts.map(|texts| {
            let memory = memory.clone();
            thread::spawn(move || {
                texts
                    .iter()
                    .for_each(|text| memory.registry().renew_help(family, text));
            })
        });
        let help = || {
            memory
                .registry()
                .family(family)
                .map(|FamilyDefinition { help, .. }| help)
        };
        memory.arena[told].peek();
        let early = help().expect("a family");
        assert!(TEXTS.contains(&&*early), "{early}");
        registrants
            .into_iter()
            .for_each(|registrant| registrant.join().unwrap());
        let last = help().expect("a family");
        assert!(
            texts.iter().any(|texts| texts.last() == Some(&&*last)),
            "{last}"
        );
        // One block is in use: what was replaced is given back.
        let free: Vec<_> = memory.free[0..1]
            .iter()
            .map(|top| top.load(crate::sync::Ordering::Relaxed) as u32)
            .collect();
        outcomes.note((early, last, free));
    });
    assert!(seen.len() > 2, "{seen:?}");
}

#[test]
fn a_help_text_is_read_whole_while_it_is_replaced() {
    let twice = &["first and longer", "another one ....", "the last of them"];
    describing("registry, a help text replaced", [twice, &[]], || {});
}

#[test]
fn of_two_that_describe_a_family_one_is_the_last() {
    describing(
        "registry, two help texts",
        [&["first and longer"], &["another one ...."]],
        || {},
    );
}

#[test]
#[should_panic]
fn without_fences_a_help_text_is_half_another() {
    let twice = &["first and longer", "another one ....", "the last of them"];
    describing("registry, help without fences", [twice, &[]], || {
        crate::sync::drop_fences(true)
    });
}
