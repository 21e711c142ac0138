//! Gauges of which each process has a value: the merged value.

use std::collections::HashMap;
use std::mem::take;

use qbus::Merge;

use crate::series::{Family, Point, Series, Value};

/// Whether the series of a family are merged.
pub(crate) fn is_merged(family: &Family) -> bool {
    let merge = family.merge;
    merge.is_by_process() && !matches!(merge, Merge::All | Merge::LiveAll)
}

/// Merges the series of processes, of families that ask for it. The order stays that of names and
/// labels.
pub(crate) fn merged(series: Vec<Series>) -> Vec<Series> {
    if !series.iter().any(|series| is_merged(&series.family)) {
        return series;
    }
    let mut out: Vec<Series> = Vec::with_capacity(series.len());
    let mut series = series.into_iter().peekable();
    while let Some(first) = series.next() {
        if !is_merged(&first.family) {
            out.push(first);
            continue;
        }
        let family = first.family.clone();
        let mut members = vec![first];
        while let Some(next) = series.next_if(|next| next.family.name == family.name) {
            members.push(next);
        }
        out.extend(groups(members).into_iter().filter_map(group));
    }
    out
}

/// Series that differ in their process alone, in the order of their first ones.
fn groups(members: Vec<Series>) -> Vec<Vec<Series>> {
    let mut groups: Vec<Vec<Series>> = Vec::new();
    let mut known: HashMap<Vec<(String, String)>, usize> = HashMap::new();
    for mut series in members {
        series
            .labels
            .retain(|(name, _)| name != Merge::PROCESS_LABEL);
        let mut key = series.labels.clone();
        key.sort_unstable();
        let at = *known.entry(key).or_insert(groups.len());
        if at == groups.len() {
            groups.push(Vec::new());
        }
        groups[at].push(series);
    }
    groups
}

/// The merged value of a group.
fn group(mut members: Vec<Series>) -> Option<Series> {
    let merge = members.first()?.family.merge;
    let value = |series: &Series| match series.value {
        Value::Gauge(value) => value,
        _ => f64::NAN,
    };
    let values = || members.iter().map(value);
    let merged = match merge {
        Merge::Sum | Merge::LiveSum => values().sum(),
        Merge::Min | Merge::LiveMin => values().fold(f64::NAN, f64::min),
        Merge::Max | Merge::LiveMax => values().fold(f64::NAN, f64::max),
        _ => value(members.iter().max_by_key(|series| series.timestamp_ns)?),
    };
    let timestamp_ns = members.iter().map(|series| series.timestamp_ns).max()?;
    let start_ns = members.iter().map(|series| series.start_ns).min()?;
    let records = members
        .iter()
        .fold(0, |sum: u64, series| sum.saturating_add(series.records));
    let histories = members
        .iter_mut()
        .map(|series| take(&mut series.history))
        .collect();
    let first = members.into_iter().next()?;
    Some(Series {
        value: Value::Gauge(merged),
        timestamp_ns,
        start_ns,
        records,
        history: history(merge, histories),
        ..first
    })
}

/// The merged history: at each point of any process, the value of those that had one by then.
fn history(merge: Merge, histories: Vec<Vec<Point>>) -> Vec<Point> {
    let mut points: Vec<(usize, Point)> = Vec::new();
    for (member, history) in histories.iter().enumerate() {
        points.extend(history.iter().map(|point| (member, *point)));
    }
    points.sort_by_key(|(_, point)| point.timestamp_ns);
    let mut now: Vec<Option<f64>> = vec![None; histories.len()];
    let mut out = Vec::with_capacity(points.len());
    for (member, point) in points {
        now[member] = Some(point.value);
        let values = now.iter().copied().flatten();
        let value = match merge {
            Merge::Sum | Merge::LiveSum => values.sum(),
            Merge::Min | Merge::LiveMin => values.fold(f64::NAN, f64::min),
            Merge::Max | Merge::LiveMax => values.fold(f64::NAN, f64::max),
            _ => point.value,
        };
        out.push(Point { value, ..point });
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use qbus::MetricType;

    use super::*;
    use crate::series::Family;

    fn series(merge: Merge, model: &str, pid: &str, value: f64, at: u64) -> Series {
        let family = Family {
            merge,
            ..Family::new("g", MetricType::Gauge)
        };
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let point = |timestamp_ns, value| Point {
            timestamp_ns,
            value,
        };
        Series {
            family: Arc::new(family),
            labels: vec![label("model", model), label("pid", pid)],
            value: Value::Gauge(value),
            timestamp_ns: at,
            start_ns: at,
            records: 1,
            history: vec![point(at, value)],
            exemplars: Vec::new(),
        }
    }

    fn merged_values(merge: Merge) -> Vec<(String, f64)> {
        let all = vec![
            series(merge, "a", "1", 3.0, 10),
            series(merge, "a", "2", 5.0, 30),
            series(merge, "a", "3", 4.0, 20),
            series(merge, "b", "1", 7.0, 10),
        ];
        let value = |series: Series| {
            let Value::Gauge(value) = series.value else {
                panic!("a gauge");
            };
            let labels: Vec<_> = series.labels.into_iter().map(|label| label.1).collect();
            (labels.join(" "), value)
        };
        merged(all).into_iter().map(value).collect()
    }

    #[test]
    fn values_come_to_one_as_the_family_says() {
        let cases = [
            (Merge::LiveSum, 12.0),
            (Merge::Min, 3.0),
            (Merge::LiveMax, 5.0),
            (Merge::MostRecent, 5.0),
        ];
        for (merge, expected) in cases {
            let expected = [("a".to_owned(), expected), ("b".to_owned(), 7.0)];
            assert_eq!(merged_values(merge), expected, "{merge}");
        }
        assert_eq!(merged_values(Merge::All).len(), 4);
        assert_eq!(merged_values(Merge::All)[0].0, "a 1");
    }

    #[test]
    fn a_history_has_what_they_came_to_at_each_time() {
        let both = vec![
            series(Merge::Sum, "a", "1", 3.0, 10),
            series(Merge::Sum, "a", "2", 5.0, 30),
        ];
        let found = merged(both);
        let history: Vec<_> = found[0].history.iter().map(|point| point.value).collect();
        assert_eq!(history, [3.0, 8.0]);
    }
}
