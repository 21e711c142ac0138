//! Series that this thread has met: what a metric says of its series → id, without a lock.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Weak};

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use qbus::{MetricType, SeriesId};

use super::Metric;

/// More than a registry holds by default: only who writes the same labels in several orders has
/// more.
const ENTRIES_MAX: usize = 1 << 16;

/// As many entries are kept without a look whether their emitters are still there.
const FEW: usize = 256;

/// Which emitter it is: its address is nobody else's for as long as an entry has it.
#[derive(Debug, Default)]
pub(crate) struct Identity(Arc<()>);

#[derive(Debug)]
struct Entry {
    /// Which emitter it is of, if that is still there.
    emitter: Weak<()>,
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
    fn is_of(&self, emitter: &Identity, metric: &Metric<'_>) -> bool {
        self.emitter.as_ptr() == Arc::as_ptr(&emitter.0)
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
    static CACHE: RefCell<Cache> = const {
        RefCell::new(Cache { entries: HashTable::new(), looked_at: 0 })
    };
}

struct Cache {
    entries: HashTable<Entry>,
    /// How many entries there were when it was last looked for emitters that are gone.
    looked_at: usize,
}

impl Cache {
    fn insert(&mut self, entry: Entry) {
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.clear();
        }
        // Each is looked at once in a while, so a thread that outlives its buses keeps nothing of
        // them.
        if self.entries.len() >= FEW.max(2 * self.looked_at) {
            self.entries
                .retain(|entry| entry.emitter.strong_count() > 0);
            self.looked_at = self.entries.len();
        }
        self.entries
            .insert_unique(entry.hash, entry, |entry| entry.hash);
    }
}

/// The series of a metric: as this thread knows it, unless it was freed, else as `register` says.
pub(crate) fn series<E>(
    emitter: &Identity,
    metric: &Metric<'_>,
    is_registered: impl Fn(SeriesId) -> bool,
    register: impl FnOnce() -> Result<SeriesId, E>,
) -> Result<SeriesId, E> {
    let hash = hash(emitter, metric);
    let known = CACHE.try_with(|cache| {
        let cache = cache.try_borrow().ok()?;
        let entry = cache
            .entries
            .find(hash, |entry| entry.is_of(emitter, metric));
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
            let found = cache
                .entries
                .find_mut(hash, |entry| entry.is_of(emitter, metric));
            if let Some(entry) = found {
                entry.series = series;
                return;
            }
        }
        let label = |&(name, value): &(&str, &str)| (name.into(), value.into());
        cache.insert(Entry {
            emitter: Arc::downgrade(&emitter.0),
            hash,
            metric_type: metric.metric_type,
            name: metric.name.into(),
            unit: metric.unit.into(),
            buckets: metric.buckets.into(),
            native: metric.native,
            labels: metric.labels.iter().map(label).collect(),
            series,
        });
    });
    Ok(series)
}

#[inline]
fn hash(emitter: &Identity, metric: &Metric<'_>) -> u64 {
    // Colliding keys are the process's own: nothing is to be gained by a secret seed.
    let mut hasher = FixedState::with_seed(0).build_hasher();
    hasher.write_usize(Arc::as_ptr(&emitter.0).addr());
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

    fn known(emitter: &Identity, metric: &Metric<'_>) -> Option<SeriesId> {
        series(emitter, metric, |_| true, || Err(())).ok()
    }

    #[test]
    fn a_series_that_was_freed_is_registered_again() {
        let emitter = Identity::default();
        let metric = Metric::gauge("freed", 1.0);
        let first = series::<()>(&emitter, &metric, |_| true, || Ok(SeriesId(1)));
        assert_eq!(first, Ok(SeriesId(1)));
        let again = series::<()>(&emitter, &metric, |_| false, || Ok(SeriesId(2)));
        assert_eq!(
            (again, known(&emitter, &metric)),
            (Ok(SeriesId(2)), Some(SeriesId(2)))
        );
    }

    #[test]
    fn a_series_is_found_by_all_of_its_key() {
        let emitter = Identity::default();
        let metric = Metric {
            labels: &[("a", "1"), ("b", "2")],
            ..Metric::gauge("name", 0.0)
        };
        assert_eq!(known(&emitter, &metric), None);
        assert_eq!(
            series::<()>(&emitter, &metric, |_| true, || Ok(SeriesId(3))),
            Ok(SeriesId(3))
        );
        assert_eq!(known(&emitter, &metric), Some(SeriesId(3)));
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
            assert_eq!(known(&emitter, &other), None);
        }
        assert_eq!(
            known(&Identity::default(), &metric),
            None,
            "another emitter's"
        );
    }

    #[test]
    fn it_does_not_grow_without_bound() {
        let emitter = Identity::default();
        for n in 0..=ENTRIES_MAX {
            let name = format!("name_{n}");
            let metric = Metric::gauge(&name, 0.0);
            let made = series::<()>(&emitter, &metric, |_| true, || Ok(SeriesId(n as u32)));
            assert_eq!(made, Ok(SeriesId(n as u32)));
        }
        assert_eq!(known(&emitter, &Metric::gauge("name_0", 0.0)), None);
    }

    #[test]
    fn emitters_that_are_gone_leave_nothing_behind() {
        let stays = Identity::default();
        let metric = Metric::gauge("of_many", 0.0);
        let made = |emitter: &Identity, id| {
            assert_eq!(
                series::<()>(emitter, &metric, |_| true, || Ok(SeriesId(id))),
                Ok(SeriesId(id))
            );
        };
        made(&stays, 1);
        for _ in 0..10 * FEW {
            made(&Identity::default(), 2);
        }
        let entries = CACHE.with_borrow(|cache| cache.entries.len());
        assert!(entries <= FEW, "{entries} entries");
        assert_eq!(known(&stays, &metric), Some(SeriesId(1)));
    }
}
