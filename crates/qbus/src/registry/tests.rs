//! The registry, sequentially: what it refuses and how it says so, and garbage.

mod freeing;
mod help;
mod limits;

use std::time::Duration;

use super::definition::{LABELS_MAX, VALUE_MAX};
use super::heap::{HeapRegistry, counter, labels};
use super::{FamilyDefinition, FamilyId, NAME_MAX, Registry, Window};
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
