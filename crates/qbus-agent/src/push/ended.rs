//! Which series have ended between two readings.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use qbus_aggregate::{Family, Series};

/// Whether two readings have the same series, in the same order: as a rule they have.
pub(super) fn are_same(before: &[Series], now: &[Series]) -> bool {
    let is_same =
        |(a, b): (&Series, &Series)| is_like(&a.family, &b.family) && a.labels == b.labels;
    before.len() == now.len() && before.iter().zip(now).all(is_same)
}

/// The series of `before` that `now` has no more, in their order. One that has another type, unit
/// or other buckets now is another one: it may have had samples that nobody renews.
pub(super) fn ended(before: Vec<Series>, now: &[Series]) -> Vec<Series> {
    if before.is_empty() || are_same(&before, now) {
        return Vec::new();
    }
    let now: HashMap<Key<'_>, &Family, RandomState> = now
        .iter()
        .map(|series| (key(series), &*series.family))
        .collect();
    let is_gone = |series: &Series| {
        let known = now.get(&key(series));
        known.is_none_or(|family| !is_like(family, &series.family))
    };
    // Asked of each while it is still there.
    let gone: Vec<bool> = before.iter().map(is_gone).collect();
    let all = before.into_iter().zip(gone);
    all.filter_map(|(series, is_gone)| is_gone.then_some(series))
        .collect()
}

/// What a receiver tells series apart by: the order of labels is nothing to it, and an empty value
/// is no label.
type Key<'a> = (&'a str, Vec<(&'a str, &'a str)>);

fn key(series: &Series) -> Key<'_> {
    let labels = series.labels.iter().filter(|(_, value)| !value.is_empty());
    let mut labels: Vec<(&str, &str)> = labels.map(|(name, value)| (&**name, &**value)).collect();
    labels.sort_unstable();
    (&series.family.name, labels)
}

/// Whether a receiver sees the same samples of both.
fn is_like(a: &Family, b: &Family) -> bool {
    a.name == b.name
        && a.metric_type == b.metric_type
        && a.native == b.native
        && a.unit == b.unit
        && a.buckets == b.buckets
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use qbus::MetricType;

    use super::*;

    fn series(name: &str, buckets: &[f64], labels: &[(&str, &str)]) -> Series {
        let family = Family {
            name: name.to_owned(),
            metric_type: MetricType::Histogram,
            help: String::new(),
            unit: String::new(),
            buckets: buckets.to_vec(),
            native: false,
            merge: Default::default(),
            window: Default::default(),
        };
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Series::named(Arc::new(family), labels.collect())
    }

    #[test]
    fn what_a_receiver_takes_for_the_same_has_not_ended() {
        let ab = [("a", "1"), ("b", "2"), ("c", "")];
        let now = [
            series("x", &[1.0], &[("b", "2"), ("a", "1")]),
            series("y", &[1.0], &[]),
        ];
        assert_eq!(ended(vec![series("x", &[1.0], &ab)], &now), []);
        for gone in [
            series("x", &[1.0], &[("a", "1")]),
            series("x", &[1.0], &[("a", "1"), ("b", "3")]),
            // Its bucket has no series now.
            series("x", &[2.0], &ab),
            series("z", &[1.0], &[]),
        ] {
            let before = vec![gone.clone(), series("y", &[1.0], &[])];
            // Without observations they are NaN in parts, which equals nothing.
            let found = ended(before, &now);
            assert_eq!(format!("{found:?}"), format!("{:?}", [gone]));
        }
        assert_eq!(ended(Vec::new(), &now), []);
        assert!(are_same(&now, &now) && !are_same(&now[..1], &now));
    }
}
