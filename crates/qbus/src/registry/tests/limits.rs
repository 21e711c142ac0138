//! How many series a family may have, and what stands for the others.

use super::super::heap::{HeapRegistry, counter, labels};
use super::super::{FamilyDefinition, Merge, OVERFLOW, Registry};
use crate::record::{MetricType, SeriesId};
use crate::sync::Ordering;

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
