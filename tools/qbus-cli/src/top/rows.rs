//! What a list has: families, and the series of those that are opened, in an order.

use std::collections::HashSet;

use super::filter::Filter;
use super::store::{FamilyView, SeriesView, Store};

/// A part of all families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Application,
    Workers,
    Machine,
    Bus,
}

impl Part {
    /// Whose a family is, by its name.
    pub(crate) fn of(name: &str) -> Part {
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        if begins(&[
            "qbus_bus_",
            "qbus_sampler_",
            "qbus_serve_",
            "qbus_push_",
            "qbus_statsd_",
            "qbus_family_",
            "qbus_overflow_",
        ]) {
            Part::Bus
        } else if begins(&["qbus_process_", "process_"]) {
            Part::Workers
        } else if begins(&[
            "qbus_host_",
            "qbus_gpu_",
            "qbus_cgroup_",
            "node_",
            "system_",
            "DCGM_",
            "gpu_",
        ]) {
            Part::Machine
        } else {
            Part::Application
        }
    }
}

/// By what metrics are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Activity,
    Now,
    P99,
    Name,
}

impl Sort {
    pub(crate) const ALL: [(Sort, &'static str); 4] = [
        (Sort::Activity, "activity"),
        (Sort::Now, "now"),
        (Sort::P99, "p99"),
        (Sort::Name, "name"),
    ];
}

/// A line of a list: a family, or one of its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) family: usize,
    pub(crate) series: Option<usize>,
}

/// What a list is to have.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) part: Part,
    pub(crate) filter: &'a Filter,
    pub(crate) sort: Sort,
    pub(crate) reversed: bool,
    /// Families whose series are listed below them.
    pub(crate) expanded: &'a HashSet<String>,
}

/// The rows of a list.
pub(crate) fn rows(store: &Store, wanted: &Wanted<'_>) -> Vec<Row> {
    let filter = wanted.filter;
    let takes = |view: &FamilyView| {
        filter.is_empty()
            || view
                .series
                .iter()
                .any(|one| filter.takes(&view.family.name, &one.labels))
    };
    let mut families: Vec<usize> = (0..store.families.len())
        .filter(|&at| {
            let view = &store.families[at];
            Part::of(&view.family.name) == wanted.part && takes(view)
        })
        .collect();
    let key = |view: &FamilyView| match wanted.sort {
        Sort::Activity => view.activity,
        Sort::Now => view.now,
        Sort::P99 => view.window.quantile(&view.family, 0.99, store.tick),
        Sort::Name => 0.0,
    };
    sort_by_key(
        &mut families,
        wanted.reversed,
        |at| key(&store.families[at]),
    );
    if wanted.part == Part::Machine && wanted.sort == Sort::Activity {
        families.sort_by_key(|&at| place(&store.families[at].family.name));
    }
    let mut rows = Vec::new();
    for family in families {
        rows.push(Row {
            family,
            series: None,
        });
        let view = &store.families[family];
        if wanted.expanded.contains(&view.family.name) {
            let some = series(store, view, filter, wanted.sort, wanted.reversed);
            rows.extend(some.into_iter().map(|at| Row {
                family,
                series: Some(at),
            }));
        }
    }
    rows
}

/// The series of a family that a filter takes, in an order.
pub(crate) fn series(
    store: &Store,
    view: &FamilyView,
    filter: &Filter,
    sort: Sort,
    reversed: bool,
) -> Vec<usize> {
    let takes =
        |one: &SeriesView| filter.is_empty() || filter.takes(&view.family.name, &one.labels);
    let mut some: Vec<usize> = (0..view.series.len())
        .filter(|&at| takes(&view.series[at]))
        .collect();
    let key = |one: &SeriesView| match sort {
        Sort::Activity => one.activity,
        Sort::Now => one.now,
        Sort::P99 => quantile(view, one, 0.99, store.tick),
        Sort::Name => 0.0,
    };
    sort_by_key(&mut some, reversed, |at| key(&view.series[at]));
    some
}

/// A quantile of a series' last observations.
pub(crate) fn quantile(view: &FamilyView, one: &SeriesView, part: f64, tick: u64) -> f64 {
    let window = one.window.as_ref();
    window.map_or(f64::NAN, |window| window.quantile(&view.family, part, tick))
}

/// The largest first, what is not known last; equal ones stay in the order of their names.
fn sort_by_key(places: &mut [usize], reversed: bool, key: impl Fn(usize) -> f64) {
    let mut keyed: Vec<(f64, usize)> = places.iter().map(|&at| (key(at), at)).collect();
    keyed.sort_by(|(a, _), (b, _)| match (a.is_nan(), b.is_nan()) {
        (false, false) => b.total_cmp(a),
        (a, b) => a.cmp(&b),
    });
    if reversed {
        keyed.reverse();
    }
    for (place, (_, at)) in places.iter_mut().zip(keyed) {
        *place = at;
    }
}

/// Parts of a machine, in the order in which one looks at them.
const PLACES: [&[&str]; 7] = [
    &["gpu_", "DCGM_"],
    &["cpu_usage", "load", "procs_", "cpu_seconds"],
    &[
        "memory_used",
        "memory_available",
        "MemAvailable",
        "swap_used",
    ],
    &["pressure"],
    &[
        "disk_read_bytes",
        "disk_written_bytes",
        "disk_io_time",
        "filesystem_avail",
    ],
    &["network_receive_bytes", "network_transmit_bytes", "tcp_"],
    &["cgroup_"],
];

fn place(name: &str) -> usize {
    if name.ends_with("_info") {
        return PLACES.len() + 1;
    }
    let found = PLACES
        .iter()
        .position(|parts| parts.iter().any(|part| name.contains(part)));
    found.unwrap_or(PLACES.len())
}

/// The labels that tell the series of a family apart, the one with the most values first.
pub(crate) fn label_order(view: &FamilyView) -> Vec<String> {
    /// So many series show which labels vary.
    const ENOUGH: usize = 500;
    let looked_at = view.series.len().min(ENOUGH);
    let mut found: Vec<(&str, usize, HashSet<&str>)> = Vec::new();
    for (name, value) in view.series.iter().take(ENOUGH).flat_map(|one| &one.labels) {
        match found.iter_mut().find(|(known, ..)| known == name) {
            Some((_, count, values)) => {
                *count += 1;
                values.insert(value);
            }
            None => found.push((name, 1, HashSet::from([value.as_str()]))),
        }
    }
    // What all series have alike tells none apart.
    found
        .retain(|(_, count, values)| values.len() > 1 || *count < looked_at || looked_at == ENOUGH);
    found.sort_by(|a, b| b.2.len().cmp(&a.2.len()).then(a.0.cmp(b.0)));
    found
        .into_iter()
        .map(|(name, ..)| name.to_owned())
        .collect()
}

/// Labels as they are written: `name="value", …`.
pub(crate) fn label_text(labels: &[(String, String)]) -> String {
    let written = labels
        .iter()
        .map(|(name, value)| format!("{name}={value:?}"));
    written.collect::<Vec<_>>().join(", ")
}

/// Those of the labels that are in the order, or all when none is.
pub(crate) fn telling_text(labels: &[(String, String)], order: &[String]) -> String {
    let known = order
        .iter()
        .filter_map(|name| labels.iter().find(|(own, _)| own == name));
    let told: Vec<(String, String)> = known.cloned().collect();
    label_text(if told.is_empty() { labels } else { &told })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_bus_says_of_itself_is_not_the_application_s() {
        for name in [
            "qbus_bus_records_total",
            "qbus_statsd_values_total",
            "qbus_family_limit",
            "qbus_overflow_records_total",
        ] {
            assert_eq!(Part::of(name), Part::Bus, "{name}");
        }
        assert_eq!(Part::of("qbus_load_work_total"), Part::Application);
    }
}
