//! The registry, sequentially: what it refuses and how it says so, and garbage.

use std::time::Duration;

use super::definition::{LABELS_MAX, VALUE_MAX};
use super::heap::{HeapRegistry, counter, labels};
use super::{FamilyDefinition, FamilyId, Merge, NAME_MAX, OVERFLOW, Registry, Window};
use crate::error::RegisterError;
use crate::record::{MetricType, SeriesId};
use crate::sync::Ordering;

fn histogram(name: &str, buckets: &[f64]) -> FamilyDefinition {
    FamilyDefinition {
        metric_type: MetricType::Histogram,
        buckets: buckets.to_vec(),
        ..counter(name)
    }
}

/// What a person is told of a refused family.
fn family_refusal(registry: &Registry<'_>, family: &FamilyDefinition) -> String {
    let refusal = registry.intern_family(family).expect_err("a refusal");
    registry.told(refusal, &family.name).to_string()
}

/// The text of a refusal.
fn refusal<T: std::fmt::Debug>(result: Result<T, RegisterError>) -> String {
    result.expect_err("a refusal").to_string()
}

#[test]
fn a_key_has_one_id_whatever_the_order_of_its_labels() {
    let memory = HeapRegistry::new(8, 1024);
    let registry = memory.registry();
    let intern = |pairs: &[(&str, &str)]| registry.intern(&counter("a"), &labels(pairs)).unwrap();
    let id = intern(&[("x", "1"), ("y", "2")]);
    assert_eq!(intern(&[("y", "2"), ("x", "1")]), id);
    // An empty value is the same as no label.
    assert_eq!(intern(&[("x", "1"), ("z", ""), ("y", "2")]), id);
    assert_ne!(intern(&[("x", "2"), ("y", "1")]), id);
    assert_ne!(intern(&[("x", "12")]), intern(&[("x", "1"), ("y", "2")]));
    let series = registry.series(id).expect("a definition");
    assert_eq!(
        series.labels,
        labels(&[("x", "1"), ("y", "2")]),
        "as first given"
    );
    assert_eq!(registry.family(series.family), Some(counter("a")));
}

#[test]
fn a_full_table_names_who_filled_it() {
    let memory = HeapRegistry::new(4, 1024);
    let registry = memory.registry();
    let user = |n: usize| labels(&[("user", &n.to_string()), ("role", "r")]);
    for n in 0..4 {
        registry.intern(&counter("hits"), &user(n)).unwrap();
    }
    let text = refusal(registry.intern(&counter("hits"), &user(4)));
    for part in ["hits", "series (capacity 4)"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    let largest = registry.largest().expect("a family");
    assert_eq!((largest.family.as_str(), largest.series), ("hits", 4));
    assert_eq!(largest.label, Some(("user".to_owned(), 4)));
    let registrant = largest.registrant.expect("a process");
    assert_eq!((registrant.pid, registrant.series), (std::process::id(), 4));
    // What is there already is found all the same.
    assert!(registry.intern(&counter("hits"), &user(3)).is_ok());
    for name in ["b", "c", "d"] {
        registry.intern_family(&counter(name)).unwrap();
    }
    let text = family_refusal(&registry, &counter("e"));
    assert!(text.contains("families (capacity 4)"), "{text}");
}

#[test]
fn a_full_arena_is_an_error_and_no_entry() {
    let memory = HeapRegistry::new(8, 48);
    let registry = memory.registry();
    registry.intern_family(&counter("a")).unwrap();
    registry.intern_family(&counter("b")).unwrap();
    let text = family_refusal(&registry, &counter("c"));
    assert!(
        text.contains("words of definitions (capacity 48)"),
        "{text}"
    );
    assert_eq!(registry.family_by_name("c"), None);
    assert_eq!(memory.family_count.load(Ordering::Relaxed), 2);
}

#[test]
fn another_definition_of_a_name_is_refused_with_both() {
    let memory = HeapRegistry::new(8, 1024);
    let registry = memory.registry();
    registry
        .intern_family(&histogram("latency", &[0.1, 1.0]))
        .unwrap();
    assert!(
        registry
            .intern_family(&histogram("latency", &[0.1, 1.0]))
            .is_ok()
    );
    let text = family_refusal(&registry, &histogram("latency", &[0.5]));
    assert!(
        text.contains("[0.1, 1.0]") && text.contains("[0.5]"),
        "{text}"
    );
    let text = family_refusal(&registry, &counter("latency"));
    assert!(
        text.contains("counter latency") && text.contains("histogram latency"),
        "{text}"
    );
    let seconds = FamilyDefinition {
        unit: "seconds".to_owned(),
        ..counter("up")
    };
    registry.intern_family(&counter("up")).unwrap();
    let text = family_refusal(&registry, &seconds);
    assert!(text.contains("counter up in seconds"), "{text}");
    // The help is the first registration's, and no part of what must agree.
    let helped = FamilyDefinition {
        help: "Help.".to_owned(),
        ..counter("up")
    };
    assert!(registry.intern_family(&helped).is_ok());
}

#[test]
fn a_name_that_another_familys_samples_have_is_refused() {
    let memory = HeapRegistry::new(8, 1024);
    let registry = memory.registry();
    registry
        .intern_family(&histogram("latency", &[1.0]))
        .unwrap();
    registry.intern_family(&counter("size_count")).unwrap();
    for clash in [
        counter("latency_bucket"),
        counter("latency_sum"),
        histogram("size", &[1.0]),
    ] {
        let text = family_refusal(&registry, &clash);
        assert!(text.contains(&clash.name), "{text}");
    }
    // A counter has no samples beside its own.
    registry.intern_family(&counter("jobs")).unwrap();
    assert!(registry.intern_family(&counter("jobs_count")).is_ok());
}

#[test]
fn names_and_labels_that_no_exporter_takes_are_refused() {
    let memory = HeapRegistry::new(8, 1024);
    let registry = memory.registry();
    let long = "n".repeat(NAME_MAX + 1);
    for name in ["", "1a", "a-b", "a b", "größe", "a.b", &long] {
        let refused = registry.intern(&counter(name), &[]);
        assert!(matches!(refused, Err(RegisterError::Name { .. })), "{name}");
    }
    for buckets in [
        &[][..],
        &[1.0, 1.0],
        &[2.0, 1.0],
        &[f64::NAN],
        &[f64::INFINITY],
    ] {
        let refused = registry.intern(&histogram("h", buckets), &[]);
        assert!(
            matches!(refused, Err(RegisterError::Buckets { .. })),
            "{buckets:?}"
        );
    }
    // Those of vLLM, and of recording rules.
    assert!(registry.intern(&counter("vllm:tokens"), &[]).is_ok());
    for name in ["", "__x", "a-b", "a:b", long.as_str()] {
        let refused = registry.intern(&counter("a"), &labels(&[(name, "v")]));
        assert!(
            matches!(refused, Err(RegisterError::Label { .. })),
            "{name}"
        );
    }
    let twice = registry.intern(&counter("a"), &labels(&[("x", "1"), ("x", "2")]));
    assert!(refusal(twice).contains("twice"));
    let many: Vec<_> = (0..=LABELS_MAX)
        .map(|n| (format!("l{n}"), String::new()))
        .collect();
    let refused = registry.intern(&counter("a"), &many);
    assert!(matches!(refused, Err(RegisterError::TooLong { .. })));
}

#[test]
fn le_and_quantile_are_reserved_where_they_mean_something() {
    let memory = HeapRegistry::new(16, 4096);
    let registry = memory.registry();
    let summary = FamilyDefinition {
        metric_type: MetricType::Summary,
        ..counter("s")
    };
    let cases = [
        (counter("c"), "le", true),
        (counter("c"), "quantile", true),
        (histogram("h", &[1.0]), "quantile", true),
        (histogram("h", &[1.0]), "le", false),
        (summary.clone(), "le", true),
        (summary, "quantile", false),
    ];
    for (family, label, is_taken) in cases {
        let interned = registry.intern(&family, &labels(&[(label, "1")]));
        assert_eq!(interned.is_ok(), is_taken, "{family} {label}");
        if let Ok(id) = interned {
            assert!(registry.series(id).is_some(), "it can be read");
        }
    }
}

#[test]
fn a_window_is_a_summarys_and_part_of_its_definition() {
    let memory = HeapRegistry::new(16, 4096);
    let registry = memory.registry();
    let summary = |length, steps| FamilyDefinition {
        metric_type: MetricType::Summary,
        window: Window {
            length: Duration::from_secs(length),
            steps,
        },
        ..counter("s")
    };
    let id = registry.intern(&summary(60, 6), &[]).expect("room");
    let found = registry
        .series(id)
        .and_then(|found| registry.family(found.family));
    assert_eq!(found, Some(summary(60, 6)));
    let refused = |family: &FamilyDefinition| refusal(registry.intern(family, &[]));
    let conflict = refused(&summary(60, 5));
    assert!(
        conflict.contains("with quantiles of 1m in 6 steps"),
        "{conflict}"
    );
    assert!(
        conflict.contains("with quantiles of 1m in 5 steps"),
        "{conflict}"
    );
    assert!(refused(&summary(60, 61)).contains("expected 1 to 60 steps"));
    let counter = FamilyDefinition {
        window: Window::ALL_TIME,
        ..counter("c")
    };
    assert!(refused(&counter).contains("windows are for summaries"));
}

#[test]
fn a_value_that_is_too_long_is_cut() {
    let memory = HeapRegistry::new(16, 4096);
    let registry = memory.registry();
    // The cut would go through a character of two bytes.
    let value = format!("{}ä{}", "v".repeat(VALUE_MAX - 4), "w".repeat(5000));
    let id = registry
        .intern(&counter("a"), &labels(&[("x", &value)]))
        .expect("it is cut");
    let found = registry.series(id).expect("it is registered").labels;
    let expected = format!("{}…", "v".repeat(VALUE_MAX - 4));
    assert_eq!(found, labels(&[("x", &expected)]));
    assert_eq!(
        registry.find_series("a", &labels(&[("x", &value)])),
        Some(id)
    );
    let whole = "v".repeat(VALUE_MAX);
    let id = registry.intern(&counter("a"), &labels(&[("x", &whole)]));
    let found = registry.series(id.expect("it fits")).expect("registered");
    assert_eq!(found.labels, labels(&[("x", &whole)]));
}

#[test]
fn garbage_is_no_definition_and_stops_nobody() {
    let mut state = 1_u64;
    let mut roll = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 16
    };
    for round in 0..3000 {
        let memory = HeapRegistry::new(8, 256);
        let registry = memory.registry();
        for name in ["a", "b"] {
            registry
                .intern(&counter(name), &labels(&[("x", name)]))
                .unwrap();
        }
        for _ in 0..1 + round % 4 {
            let words = [&memory.families, &memory.series, &memory.arena][roll() as usize % 3];
            let word = &words[roll() as usize % words.len()];
            let value = [
                roll(),
                u64::MAX,
                roll() % 64,
                1 << (roll() % 64),
                !0 << 32 | 63,
            ];
            word.store(value[roll() as usize % 5], Ordering::Relaxed);
            if roll() % 8 == 0 {
                let word = [
                    &memory.arena_next,
                    &memory.family_count,
                    &memory.series_count,
                    &memory.free[0],
                ];
                word[roll() as usize % 4].store(roll().wrapping_mul(roll()), Ordering::Relaxed);
            }
        }
        for place in 0..u32::from(u8::MAX) {
            let _ = registry.family(FamilyId(place));
            let _ = registry.series(SeriesId(place));
        }
        for id in registry.series_ids().take(100) {
            registry.forget(id, 1);
            let _ = registry.free_series(id);
        }
        registry.sweep();
        for name in ["a", "b", "c"] {
            let interned = registry.intern(&counter(name), &labels(&[("x", name)]));
            if let Ok(id) = interned {
                let series = registry.series(id).expect("what was interned is there");
                assert_eq!(series.labels, labels(&[("x", name)]), "round {round}");
            }
        }
    }
}

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
    let owner = crate::owner::OwnerId {
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

/// Values of the label `l` and of others, as the registry has them.
fn labels_of(registry: &Registry<'_>, id: SeriesId) -> Vec<(String, String)> {
    let mut labels = registry.series(id).expect("a series").labels;
    labels.sort();
    labels
}

#[test]
fn beyond_its_limit_the_label_with_the_most_values_stands_for_all() {
    let memory = HeapRegistry::new(64, 4096);
    let registry = memory.registry();
    memory.family_limit.store(8, Ordering::Relaxed);
    let intern = |path: &str, method: &str| {
        let labels = labels(&[("path", path), ("method", method)]);
        registry.intern(&counter("hits"), &labels).unwrap()
    };
    let first = intern("/0", "GET");
    for n in 1..7 {
        intern(&format!("/{n}"), "GET");
    }
    let posted = intern("/0", "POST");
    let family = registry.series(first).unwrap().family;
    let size = || registry.family_size(family).unwrap();
    assert_eq!((size().series, size().limit), (8, Some(8)));
    // What is known stays so, and what is new is counted in one that stands for all paths.
    assert_eq!(intern("/0", "POST"), posted);
    let others = intern("/7", "GET");
    assert_eq!(
        labels_of(&registry, others),
        labels(&[("method", "GET"), ("path", OVERFLOW)])
    );
    assert_eq!(intern("/8", "GET"), others);
    // Where the other labels have too many values too, there is one series for all.
    for n in 1..16 {
        let own = intern("/8", &format!("M{n}"));
        assert_eq!(labels_of(&registry, own)[1].1, OVERFLOW);
    }
    let rest = intern("/8", "PATCH");
    let all = labels(&[("method", OVERFLOW), ("path", OVERFLOW)]);
    assert_eq!(labels_of(&registry, rest), all);
    assert_eq!(intern("/9", "DELETE"), rest);
    assert_eq!(size().series, 8 + 16 + 1);
    // Another family has room of its own, and one without a limit any number.
    let other = |n: usize| labels(&[("path", &n.to_string())]);
    let one = registry.intern(&counter("other"), &other(0)).unwrap();
    registry.set_limit(registry.series(one).unwrap().family, 0);
    let ids: Vec<_> = (0..20)
        .map(|n| registry.intern(&counter("other"), &other(n)).unwrap())
        .collect();
    assert_eq!(labels_of(&registry, ids[19]), other(19));
}

#[test]
fn what_is_forgotten_makes_room_below_the_limit() {
    let memory = HeapRegistry::new(64, 4096);
    let registry = memory.registry();
    memory.family_limit.store(4, Ordering::Relaxed);
    let value = |n: usize| labels(&[("l", &n.to_string())]);
    let intern = |n: usize| registry.intern(&counter("a"), &value(n)).unwrap();
    let ids: Vec<_> = (0..4).map(intern).collect();
    let family = registry.series(ids[0]).unwrap().family;
    let living = || registry.family_size(family).unwrap().series;
    let folded = intern(4);
    assert_eq!(labels_of(&registry, folded), labels(&[("l", OVERFLOW)]));
    assert_eq!(living(), 5);
    for id in [ids[0], ids[1], ids[1], folded] {
        registry.forget(id, 1);
    }
    assert_eq!(living(), 2, "what is forgotten twice counts once");
    assert_eq!(labels_of(&registry, intern(4)), value(4));
    assert_eq!(intern(0), ids[0], "what is known comes back");
    assert_eq!(living(), 4);
    registry.forget(ids[0], 2);
    assert!(registry.free_series(ids[0]));
    assert_eq!(living(), 3);
    // A registrant died before it counted: the next aggregator counts anew.
    registry.set_limit(family, 7);
    registry.count_out(Some(family));
    registry.sweep();
    assert_eq!(living(), 3);
    assert_eq!(registry.family_size(family).unwrap().limit, Some(7));
    registry.set_limit(family, 1 << 20);
    assert_eq!(registry.family_size(family).unwrap().limit, None);
}

#[test]
fn a_merged_gauge_keeps_the_label_that_tells_processes_apart() {
    let memory = HeapRegistry::new(64, 4096);
    let registry = memory.registry();
    memory.family_limit.store(2, Ordering::Relaxed);
    let family = FamilyDefinition {
        metric_type: MetricType::Gauge,
        merge: Merge::LiveSum,
        ..counter("busy")
    };
    let of = |pid: usize, queue: &str| {
        let labels = labels(&[("pid", &pid.to_string()), ("queue", queue)]);
        labels_of(&registry, registry.intern(&family, &labels).unwrap())
    };
    let own: Vec<_> = (0..6).map(|pid| of(pid, "q")).collect();
    for (pid, labels) in own.iter().enumerate() {
        assert_eq!(labels[0], ("pid".to_owned(), pid.to_string()));
    }
    assert_eq!(own[5][1], ("queue".to_owned(), OVERFLOW.to_owned()));
}

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
    let at = (family.0 as usize & 0xff) * super::GRANULE + 4;
    for word in [u64::MAX << 16, 1 << 16, 0xffff << 16, 5 << 40] {
        memory.arena[at].store(word, Ordering::Relaxed);
        assert!(help(&registry).is_some(), "{word:x}");
        registry.renew_help(family, "A text.");
        assert_eq!(help(&registry).as_deref(), Some("A text."), "{word:x}");
    }
}
