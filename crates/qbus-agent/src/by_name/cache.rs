//! Series that this thread has met: what a metric says of its series → id, without a lock.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use qbus::{MetricType, SeriesId};

use super::Metric;

/// More than a registry holds by default: only who writes the same labels in several orders has
/// more.
const ENTRIES_MAX: usize = 1 << 16;

#[derive(Debug)]
struct Entry {
    /// Which emitter it is of.
    emitter: u64,
    hash: u64,
    metric_type: MetricType,
    name: Box<str>,
    unit: Box<str>,
    buckets: Box<[f64]>,
    native: bool,
    labels: Box<[(Box<str>, Box<str>)]>,
    series: SeriesId,
}

impl Entry {
    fn is_of(&self, emitter: u64, metric: &Metric<'_>) -> bool {
        self.emitter == emitter
            && self.metric_type == metric.metric_type
            && *self.name == *metric.name
            && *self.unit == *metric.unit
            && *self.buckets == *metric.buckets
            && self.native == metric.native
            && self.labels.len() == metric.labels.len()
            && self
                .labels
                .iter()
                .zip(metric.labels)
                .all(|(known, (name, value))| *known.0 == **name && *known.1 == **value)
    }
}

thread_local! {
    static CACHE: RefCell<HashTable<Entry>> = const { RefCell::new(HashTable::new()) };
}

/// The series of a metric: as this thread knows it, unless it was freed, else as `register` says.
pub(crate) fn series<E>(
    emitter: u64,
    metric: &Metric<'_>,
    is_registered: impl Fn(SeriesId) -> bool,
    register: impl FnOnce() -> Result<SeriesId, E>,
) -> Result<SeriesId, E> {
    let hash = hash(metric);
    let known = CACHE.try_with(|cache| {
        let cache = cache.try_borrow().ok()?;
        let entry = cache.find(hash, |entry| entry.is_of(emitter, metric));
        entry.map(|entry| entry.series)
    });
    let is_known = matches!(known, Ok(Some(_)));
    if let Ok(Some(series)) = known
        && is_registered(series)
    {
        return Ok(series);
    }
    let series = register()?;
    // A thread past its end, or a signal handler that interrupted this, goes on without.
    let _ = CACHE.try_with(|cache| {
        let Ok(mut cache) = cache.try_borrow_mut() else {
            return;
        };
        if is_known {
            let found = cache.find_mut(hash, |entry| entry.is_of(emitter, metric));
            if let Some(entry) = found {
                entry.series = series;
                return;
            }
        }
        if cache.len() >= ENTRIES_MAX {
            cache.clear();
        }
        let label = |&(name, value): &(&str, &str)| (name.into(), value.into());
        let entry = Entry {
            emitter,
            hash,
            metric_type: metric.metric_type,
            name: metric.name.into(),
            unit: metric.unit.into(),
            buckets: metric.buckets.into(),
            native: metric.native,
            labels: metric.labels.iter().map(label).collect(),
            series,
        };
        cache.insert_unique(hash, entry, |entry| entry.hash);
    });
    Ok(series)
}

#[inline]
fn hash(metric: &Metric<'_>) -> u64 {
    // Colliding keys are the process's own: nothing is to be gained by a secret seed.
    let mut hasher = FixedState::with_seed(0).build_hasher();
    hasher.write(metric.name.as_bytes());
    for (name, value) in metric.labels {
        hasher.write(name.as_bytes());
        hasher.write(value.as_bytes());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(emitter: u64, metric: &Metric<'_>) -> Option<SeriesId> {
        series(emitter, metric, |_| true, || Err(())).ok()
    }

    #[test]
    fn a_series_that_was_freed_is_registered_again() {
        let metric = Metric::gauge("freed", 1.0);
        let first = series::<()>(8, &metric, |_| true, || Ok(SeriesId(1)));
        assert_eq!(first, Ok(SeriesId(1)));
        let again = series::<()>(8, &metric, |_| false, || Ok(SeriesId(2)));
        assert_eq!(
            (again, known(8, &metric)),
            (Ok(SeriesId(2)), Some(SeriesId(2)))
        );
    }

    #[test]
    fn a_series_is_found_by_all_of_its_key() {
        let metric = Metric {
            labels: &[("a", "1"), ("b", "2")],
            ..Metric::gauge("name", 0.0)
        };
        assert_eq!(known(7, &metric), None);
        assert_eq!(
            series::<()>(7, &metric, |_| true, || Ok(SeriesId(3))),
            Ok(SeriesId(3))
        );
        assert_eq!(known(7, &metric), Some(SeriesId(3)));
        let other_value = [("a", "1"), ("b", "3")];
        let others = [
            Metric {
                labels: &other_value,
                ..metric
            },
            Metric {
                labels: &metric.labels[..1],
                ..metric
            },
            Metric {
                metric_type: MetricType::Counter,
                ..metric
            },
            Metric {
                name: "names",
                ..metric
            },
            Metric {
                unit: "seconds",
                ..metric
            },
            Metric {
                buckets: &[1.0],
                ..metric
            },
        ];
        for other in others {
            assert_eq!(known(7, &other), None);
        }
        assert_eq!(known(8, &metric), None, "another emitter's");
    }

    #[test]
    fn it_does_not_grow_without_bound() {
        for n in 0..=ENTRIES_MAX {
            let name = format!("name_{n}");
            let metric = Metric::gauge(&name, 0.0);
            let made = series::<()>(9, &metric, |_| true, || Ok(SeriesId(n as u32)));
            assert_eq!(made, Ok(SeriesId(n as u32)));
        }
        assert_eq!(known(9, &Metric::gauge("name_0", 0.0)), None);
    }
}
