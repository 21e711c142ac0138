//! What a source read in one tick, kept without allocating once the buffers have grown.

use std::ops::Range;

use crate::family::{Family, Names, Sample};
use crate::table::Reading;

/// More labels than any source uses.
const LABELS_MAX: usize = 12;

/// The values that a source read, in the order in which it pushed them.
#[derive(Debug, Default)]
pub struct Readings {
    rows: Vec<Row>,
    labels: Vec<(&'static str, Range<usize>)>,
    /// All label values, one after another.
    text: String,
    trouble: Trouble,
}

/// What went wrong within a read that otherwise succeeded.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    pub(crate) failures: u64,
    pub(crate) skipped: u64,
    /// The first failure of the read: the following ones mostly have the same cause.
    pub(crate) first: Option<String>,
}

#[derive(Debug)]
struct Row {
    what: What,
    labels: Range<usize>,
    value: f64,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Known(Reading),
    Own(&'static Family),
}

impl Readings {
    /// Keeps a value of the sampler's own table.
    pub(crate) fn push(&mut self, reading: Reading, labels: &[(&'static str, &str)], value: f64) {
        self.push_row(What::Known(reading), labels, value);
    }

    /// Keeps a value of a family of the caller's. A value that is no finite number counts as a
    /// failure of the source and is left out, as are labels beyond the twelfth.
    pub fn push_family(
        &mut self,
        family: &'static Family,
        labels: &[(&'static str, &str)],
        value: f64,
    ) {
        self.push_row(What::Own(family), labels, value);
    }

    /// Counts a failure that left other values of the source intact.
    pub fn fail(&mut self, message: impl FnOnce() -> String) {
        self.trouble.failures += 1;
        if self.trouble.first.is_none() {
            self.trouble.first = Some(message());
        }
    }

    /// Counts things that were left out on purpose, such as a process of another pid namespace.
    pub fn skip(&mut self, things: u64) {
        self.trouble.skipped += things;
    }

    fn push_row(&mut self, what: What, labels: &[(&'static str, &str)], value: f64) {
        if !value.is_finite() {
            self.fail(|| format!("a value was {value}"));
            return;
        }
        let first = self.labels.len();
        for (name, text) in labels.iter().take(LABELS_MAX) {
            // An empty label value is the same series as no label.
            if text.is_empty() {
                continue;
            }
            let start = self.text.len();
            self.text.push_str(text);
            self.labels.push((name, start..self.text.len()));
        }
        self.rows.push(Row {
            what,
            labels: first..self.labels.len(),
            value,
        });
    }

    /// Copies the values of `other`, and takes over what went wrong there.
    #[cfg(feature = "gpu")]
    pub(crate) fn append(&mut self, other: &mut Readings) {
        let (text, labels) = (self.text.len(), self.labels.len());
        let moved = |range: &Range<usize>, by: usize| range.start + by..range.end + by;
        self.text.push_str(&other.text);
        self.labels.extend(
            other
                .labels
                .iter()
                .map(|(name, at)| (*name, moved(at, text))),
        );
        self.rows.extend(other.rows.iter().map(|row| Row {
            what: row.what,
            labels: moved(&row.labels, labels),
            value: row.value,
        }));
        let trouble = other.take_trouble();
        self.trouble.failures += trouble.failures;
        self.trouble.skipped += trouble.skipped;
        self.trouble.first = self.trouble.first.take().or(trouble.first);
    }

    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.labels.clear();
        self.text.clear();
        self.trouble = Trouble::default();
    }

    pub(crate) fn take_trouble(&mut self) -> Trouble {
        std::mem::take(&mut self.trouble)
    }

    /// Hands every value over under its name, and says how many there were.
    pub(crate) fn emit(&self, names: Names, emit: &mut dyn FnMut(Sample<'_>)) -> usize {
        let mut emitted = 0;
        for row in &self.rows {
            let (family, scale) = match &row.what {
                What::Own(family) => (*family, 1.0),
                What::Known(reading) => match reading.published(names) {
                    Some(published) => published,
                    None => continue,
                },
            };
            let mut labels = [("", ""); LABELS_MAX];
            let kept = &self.labels[row.labels.clone()];
            for (label, (name, text)) in labels.iter_mut().zip(kept) {
                *label = (name, &self.text[text.clone()]);
            }
            emit(Sample {
                family,
                labels: &labels[..kept.len()],
                value: row.value * scale,
            });
            emitted += 1;
        }
        emitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::Kind;

    static FAMILY: Family = Family {
        name: "own_things",
        kind: Kind::Gauge,
        unit: "",
        help: "Things.",
    };

    #[test]
    fn values_and_labels_come_back_as_pushed() {
        let mut readings = Readings::default();
        readings.push_family(&FAMILY, &[("a", "x"), ("b", ""), ("c", "z")], 1.5);
        readings.push_family(&FAMILY, &[("a", "y")], f64::NAN);
        readings.push(Reading::CpuUsage, &[], 0.25);
        let mut seen = Vec::new();
        let emitted = readings.emit(Names::Seed, &mut |sample| {
            seen.push(format!(
                "{} {:?} {}",
                sample.family.name, sample.labels, sample.value
            ));
        });
        assert_eq!(emitted, 2);
        assert_eq!(
            seen,
            [
                r#"own_things [("a", "x"), ("c", "z")] 1.5"#,
                "system_cpu_percent [] 25"
            ]
        );
        let trouble = readings.take_trouble();
        assert_eq!(
            (trouble.failures, trouble.first.as_deref()),
            (1, Some("a value was NaN"))
        );
    }
}
