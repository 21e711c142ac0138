//! Series that were added to by name before, found by which objects name, type and labels are.
//!
//! A program adds with the same strings again and again: they stand in its text. What is the same
//! object has the same text, since strings do not change, and who is kept here stays alive. So a
//! series is found without a look at the text, which costs more than the emit.

use std::sync::RwLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use qbus::{Kind, SeriesId};

/// As many series are kept, each in the one place that its objects lead to.
const PLACES: usize = 512;
/// See [`Known::is_due`].
const KEPT_ONE_IN: usize = 8;
/// As many labels are looked at.
const LABELS_MAX: usize = 6;

/// What a series was asked for with: the name, the type, and pairs of a label's name and value.
pub(crate) struct Objects<'a, 'py> {
    name: &'a Bound<'py, PyAny>,
    of_type: &'a Bound<'py, PyAny>,
    labels: Option<&'a Bound<'py, PyDict>>,
    /// Their addresses.
    all: [usize; 2 + 2 * LABELS_MAX],
    len: usize,
    place: usize,
}

impl<'a, 'py> Objects<'a, 'py> {
    /// `None` when there are too many labels, or they are no dict.
    #[inline]
    pub(crate) fn new(
        name: &'a Bound<'py, PyAny>,
        of_type: &'a Bound<'py, PyAny>,
        labels: Option<&'a Bound<'py, PyAny>>,
    ) -> Option<Objects<'a, 'py>> {
        let labels = match labels.filter(|labels| !labels.is_none()) {
            Some(labels) => Some(labels.cast_exact::<PyDict>().ok()?),
            None => None,
        };
        let mut all = [0; 2 + 2 * LABELS_MAX];
        (all[0], all[1]) = (address(name), address(of_type));
        let mut len = 2;
        if let Some(labels) = labels {
            if labels.len() > LABELS_MAX {
                return None;
            }
            for (name, value) in labels.iter() {
                let pair = all.get_mut(len..len + 2)?;
                (pair[0], pair[1]) = (address(&name), address(&value));
                len += 2;
            }
        }
        let mix = |hash: usize, one: &usize| (hash ^ one).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let hash = all[..len].iter().fold(0, mix);
        Some(Objects {
            name,
            of_type,
            labels,
            all,
            len,
            place: (hash >> 32) % PLACES,
        })
    }

    fn addresses(&self) -> &[usize] {
        &self.all[..self.len]
    }

    /// All of them, to be kept alive; `None` when one of them can change.
    fn hold(&self) -> Option<Vec<Py<PyAny>>> {
        if !self.name.is_exact_instance_of::<PyString>() {
            return None;
        }
        let mut held = vec![self.name.clone().unbind(), self.of_type.clone().unbind()];
        for (name, value) in self.labels.iter().flat_map(|labels| labels.iter()) {
            for text in [name, value] {
                if !text.is_exact_instance_of::<PyString>() {
                    return None;
                }
                held.push(text.unbind());
            }
        }
        Some(held)
    }
}

fn address(object: &Bound<'_, PyAny>) -> usize {
    object.as_ptr().addr()
}

struct Entry {
    /// See [`Known::forgotten`].
    forgotten: usize,
    objects: Vec<Py<PyAny>>,
    series: SeriesId,
    kind: Kind,
}

impl Entry {
    #[inline]
    fn is_of(&self, objects: &Objects<'_, '_>) -> bool {
        let own = self.objects.iter().map(|object| object.as_ptr().addr());
        own.eq(objects.addresses().iter().copied())
    }
}

/// The series that are known. Nobody waits for the lock: who does not get it goes the long way.
/// Where the interpreter has a lock of its own, who holds this one has that one too, so no fork
/// finds it held; elsewhere a child of a fork that does goes the long way each time.
#[derive(Default)]
pub(crate) struct Known {
    entries: RwLock<Vec<Option<Entry>>>,
    missed: AtomicUsize,
    /// How many times all of them were forgotten: what is older is not known any more.
    forgotten: AtomicUsize,
}

impl Known {
    /// Whether a series that was not found is to be kept: one in a few, since a program whose texts
    /// are new each time would pay for all and find none.
    pub(crate) fn is_due(&self) -> bool {
        let missed = self.missed.fetch_add(1, Ordering::Relaxed);
        missed.is_multiple_of(KEPT_ONE_IN)
    }

    /// The series of these objects, and what a value does to it.
    #[inline]
    pub(crate) fn find(&self, objects: &Objects<'_, '_>) -> Option<(SeriesId, Kind)> {
        let entries = self.entries.try_read().ok()?;
        let entry = entries.get(objects.place)?.as_ref()?;
        let is_known = entry.forgotten == self.forgotten();
        (is_known && entry.is_of(objects)).then_some((entry.series, entry.kind))
    }

    /// How many times all of them were forgotten so far.
    pub(crate) fn forgotten(&self) -> usize {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// Keeps a series, in the place of another one perhaps, if nothing was forgotten since so many
    /// times.
    pub(crate) fn keep(
        &self,
        objects: &Objects<'_, '_>,
        series: Option<SeriesId>,
        kind: Kind,
        forgotten: usize,
    ) {
        let (Some(series), Some(held)) = (series, objects.hold()) else {
            return;
        };
        let entry = Entry {
            forgotten,
            objects: held,
            series,
            kind,
        };
        let replaced = self.entries.try_write().ok().and_then(|mut entries| {
            entries.resize_with(PLACES, || None);
            entries[objects.place].replace(entry)
        });
        // Outside of the lock: what is freed may be looked for.
        drop(replaced);
    }

    /// Knows nothing any more.
    pub(crate) fn forget(&self) {
        self.forgotten.fetch_add(1, Ordering::Relaxed);
    }
}
