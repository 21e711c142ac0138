//! Names follow Prometheus' conventions.

use std::collections::HashSet;

use super::*;

fn check(names: Names, own_prefixes: &[&str]) {
    let mut seen = HashSet::new();
    for metric in metrics(names) {
        let name = &*metric.name;
        assert!(seen.insert(name), "{name} twice");
        assert!(
            metric.help.ends_with('.') && !metric.help.contains('\n'),
            "{name}"
        );
        for taken in ["_count", "_sum", "_bucket"] {
            assert!(!name.ends_with(taken), "{name}");
        }
        if own_prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            let snake = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(snake), "{name}");
            assert_eq!(
                name.ends_with("_total"),
                metric.trend == Trend::Counter,
                "{name}"
            );
            let stem = name.trim_end_matches("_total");
            assert!(
                metric.unit.is_empty() || stem.ends_with(&*metric.unit),
                "{name}"
            );
        }
    }
}

#[test]
fn names_follow_the_conventions() {
    let own = ["qbus_host_", "qbus_process_", "qbus_cgroup_", "qbus_gpu_"];
    check(Names::Qbus, &own);
    check(Names::Node, &own);
    check(Names::Seed, &own);
    let unprefixed =
        metrics(Names::Qbus).find(|m| !own.iter().any(|prefix| m.name.starts_with(prefix)));
    assert_eq!(unprefixed, None);
}
