//! Which series have ended between two readings.

use std::collections::HashSet;

use qbus_aggregate::Series;

/// The series of `before` that `now` has no more, in their order.
pub(super) fn ended(before: Vec<Series>, now: &[Series]) -> Vec<Series> {
    let same = |a: &Series, b: &Series| a.family.name == b.family.name && a.labels == b.labels;
    // As a rule they are the same ones.
    if before.len() == now.len() && before.iter().zip(now).all(|(a, b)| same(a, b)) {
        return Vec::new();
    }
    let known: HashSet<(&str, &[(String, String)])> = now
        .iter()
        .map(|series| (series.family.name.as_str(), series.labels.as_slice()))
        .collect();
    let is_gone =
        |series: &Series| !known.contains(&(series.family.name.as_str(), series.labels.as_slice()));
    before.into_iter().filter(is_gone).collect()
}
