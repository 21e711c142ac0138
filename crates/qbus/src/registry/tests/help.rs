//! Help texts that are replaced.

use super::super::heap::{HeapRegistry, counter};
use super::super::{FamilyDefinition, GRANULE, Registry};
use crate::sync::Ordering;

#[test]
fn a_later_help_text_replaces_an_earlier_one() {
    let memory = HeapRegistry::new(8, 1024);
    let registry = memory.registry();
    let described = |help: &str| FamilyDefinition {
        help: help.to_owned(),
        ..counter("hits")
    };
    let intern = |help: &str| registry.intern(&described(help), &[]).unwrap();
    let id = intern("Hits.");
    let family = registry.series(id).unwrap().family;
    let help = || registry.family(family).unwrap().help;
    let used = || memory.arena_next.load(Ordering::Relaxed);
    assert_eq!(help(), "Hits.");
    let (version, before) = (registry.version(), used());
    assert_eq!(intern(""), id);
    assert_eq!(intern("Hits."), id);
    assert_eq!(
        (registry.version(), used()),
        (version, before),
        "nothing new"
    );
    let long = "Requests that found what they asked for, whatever it was. ".repeat(8);
    for text in ["Hits of the cache.", &long, "Hits.", &long, "Hits."] {
        let version = registry.help_version(family);
        assert_eq!(intern(text), id);
        assert_eq!(help(), text);
        assert_ne!(registry.help_version(family), version);
    }
    // Blocks of texts are used again.
    let settled = used();
    for _ in 0..100 {
        intern(&long);
        intern("Hits.");
    }
    assert_eq!(used(), settled);
    // A handle whose series was freed registers it again, and says nothing new.
    let earlier = registry.intern_checked(&described("An earlier one."), &[]);
    assert_eq!((earlier.unwrap(), help().as_str()), (id, "Hits."));
    // With the family its text goes.
    registry.forget(id, 1);
    assert!(registry.free_series(id) && registry.suspect_family(family));
    assert!(registry.free_family(family));
    let again = registry.intern(&described(""), &[]).unwrap();
    assert_eq!(
        registry
            .family(registry.series(again).unwrap().family)
            .unwrap()
            .help,
        ""
    );
}

#[test]
fn a_help_text_that_is_garbage_is_none() {
    let memory = HeapRegistry::new(8, 1024);
    let registry = memory.registry();
    let family = registry.intern_family(&counter("hits")).unwrap();
    let help = |registry: &Registry<'_>| registry.family(family).map(|family| family.help);
    // The fifth word of its block, whatever the generation is.
    let at = (family.0 as usize & 0xff) * GRANULE + 4;
    for word in [u64::MAX << 16, 1 << 16, 0xffff << 16, 5 << 40] {
        memory.arena[at].store(word, Ordering::Relaxed);
        assert!(help(&registry).is_some(), "{word:x}");
        registry.renew_help(family, "A text.");
        assert_eq!(help(&registry).as_deref(), Some("A text."), "{word:x}");
    }
}
