//! What a source read in one tick, kept without allocating once the buffers have grown.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use crate::metric::{GpuNames, Metric, Names, Sample};
use crate::node_metric::NodeMetric;
use crate::table::Reading;

/// More labels than any source uses.
const LABELS_MAX: usize = 24;

/// Things of one source, such as GPUs or mounts, whose failures are kept apart in one read.
const TROUBLES_MAX: usize = 64;

/// The values that a source read, in the order in which it pushed them.
#[derive(Debug, Default)]
pub struct Readings {
    rows: Vec<Row>,
    labels: Vec<(Range<usize>, Range<usize>)>,
    /// All names and values of labels, one after another.
    text: String,
    /// Hashes of all series: names that are no text, or that somebody chose, may come out alike.
    seen: HashSet<u64>,
    trouble: Troubles,
}

/// What went wrong within a read that otherwise succeeded.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    pub(crate) failures: u64,
    pub(crate) skipped: u64,
    /// Of each thing in trouble the first failure: the following ones mostly have the same cause.
    pub(crate) things: Vec<Trouble>,
}

/// A thing of the source that fails; the source as a whole has no name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) thing: String,
    pub(crate) message: String,
}

#[derive(Debug)]
struct Row {
    what: What,
    labels: Range<usize>,
    value: f64,
}

#[derive(Clone, Debug)]
enum What {
    Known(Reading),
    Node(Arc<NodeMetric>),
    Own(&'static Metric),
}

impl Readings {
    /// Keeps a value of the sampler's own table.
    pub(crate) fn push(&mut self, reading: Reading, labels: &[(&str, &str)], value: f64) {
        self.push_row(What::Known(reading), labels, value);
    }

    /// Keeps a value of a metric that is named by node_exporter's name.
    pub(crate) fn push_node(
        &mut self,
        metric: &Arc<NodeMetric>,
        labels: &[(&str, &str)],
        value: f64,
    ) {
        self.push_row(What::Node(Arc::clone(metric)), labels, value);
    }

    /// Keeps a value of a metric of the caller's. A value that is no finite number counts as a
    /// failure of the source and is left out, as are labels beyond the twenty-fourth.
    pub fn push_metric(&mut self, metric: &'static Metric, labels: &[(&str, &str)], value: f64) {
        self.push_row(What::Own(metric), labels, value);
    }

    /// Counts a failure that left other values of the source intact.
    pub fn fail(&mut self, message: impl FnOnce() -> String) {
        self.fail_of("", message);
    }

    /// Counts a failure of one thing of the source, such as a mount: its loss and its recovery are
    /// reported apart from those of other things.
    pub fn fail_of(&mut self, thing: &str, message: impl FnOnce() -> String) {
        self.trouble.failures += 1;
        self.still_fails(thing, message);
    }

    /// Says that a thing is in trouble without counting a failure: it was not asked again.
    pub fn still_fails(&mut self, thing: &str, message: impl FnOnce() -> String) {
        let things = &mut self.trouble.things;
        if things.len() < TROUBLES_MAX && things.iter().all(|trouble| trouble.thing != thing) {
            things.push(Trouble {
                thing: thing.to_owned(),
                message: message(),
            });
        }
    }

    /// Counts things that were left out on purpose, such as a process of another pid namespace.
    pub fn skip(&mut self, things: u64) {
        self.trouble.skipped += things;
    }

    fn push_row(&mut self, what: What, labels: &[(&str, &str)], value: f64) {
        if !value.is_finite() {
            self.fail(|| format!("a value was {value}"));
            return;
        }
        if !self.seen.insert(hash(&what, labels)) {
            self.fail(|| {
                let label = |(name, value): &(&str, &str)| format!("{name}={value:?}");
                let labels: Vec<String> = labels.iter().map(label).collect();
                format!(
                    "two series are alike: {}{{{}}}",
                    what.name(),
                    labels.join(",")
                )
            });
            return;
        }
        let first = self.labels.len();
        for (name, value) in labels.iter().take(LABELS_MAX) {
            // An empty label value is the same series as no label.
            if value.is_empty() {
                continue;
            }
            let start = self.text.len();
            self.text.push_str(name);
            let end_of_name = self.text.len();
            self.text.push_str(value);
            self.labels
                .push((start..end_of_name, end_of_name..self.text.len()));
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
        let trouble = other.take_trouble();
        self.trouble.failures += trouble.failures;
        self.trouble.skipped += trouble.skipped;
        for Trouble { thing, message } in trouble.things {
            self.still_fails(&thing, || message);
        }
        let (text, labels) = (self.text.len(), self.labels.len());
        let moved = |range: &Range<usize>, by: usize| range.start + by..range.end + by;
        self.text.push_str(&other.text);
        let moved_labels = other
            .labels
            .iter()
            .map(|(name, value)| (moved(name, text), moved(value, text)));
        self.labels.extend(moved_labels);
        self.rows.extend(other.rows.iter().map(|row| Row {
            what: row.what.clone(),
            labels: moved(&row.labels, labels),
            value: row.value,
        }));
    }

    /// How many values there are.
    #[cfg(feature = "gpu")]
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Drops the values, and keeps what went wrong.
    pub(crate) fn clear_values(&mut self) {
        self.rows.clear();
        self.labels.clear();
        self.text.clear();
        self.seen.clear();
    }

    pub(crate) fn clear(&mut self) {
        self.clear_values();
        self.trouble = Troubles::default();
    }

    /// Drops the values that bear a label of that value.
    #[cfg(feature = "gpu")]
    pub(crate) fn remove_labelled(&mut self, name: &str, value: &str) {
        let (labels, text) = (&self.labels, &self.text);
        self.rows.retain(|row| {
            let bears = |(found, of): &(Range<usize>, Range<usize>)| {
                (&text[found.clone()], &text[of.clone()]) == (name, value)
            };
            !labels[row.labels.clone()].iter().any(bears)
        });
    }

    /// What is left of the readings of a source that hangs: that its things are down.
    pub(crate) fn keep_only_down(&mut self) {
        // What was counted here holds as well.
        self.rows.retain_mut(|row| match row.what {
            What::Known(Reading::GpuUp) => {
                row.value = 0.0;
                true
            }
            What::Known(Reading::GpuXidErrors | Reading::GpuLastXid) => true,
            _ => false,
        });
    }

    pub(crate) fn take_trouble(&mut self) -> Troubles {
        std::mem::take(&mut self.trouble)
    }

    /// Hands every value over under its name, and says how many there were.
    pub(crate) fn emit(
        &self,
        source: &'static str,
        (names, gpu_names): (Names, GpuNames),
        emit: &mut dyn FnMut(Sample<'_>),
    ) -> usize {
        let mut emitted = 0;
        for row in &self.rows {
            let texts = self.labels[row.labels.clone()]
                .iter()
                .map(|(name, value)| (&self.text[name.clone()], &self.text[value.clone()]));
            let published = match &row.what {
                What::Own(metric) => Some((*metric, 1.0, "")),
                What::Node(metric) => Some((metric.published(names), 1.0, "")),
                What::Known(reading) => of_dcgm(*reading, gpu_names, texts.clone()).or_else(|| {
                    let (metric, scale) = reading.published(names)?;
                    Some((metric, scale, ""))
                }),
            };
            let Some((metric, scale, in_its_name)) = published else {
                continue;
            };
            let (mut labels, mut count) = ([("", ""); LABELS_MAX], 0);
            for text in texts.filter(|(name, _)| *name != in_its_name) {
                labels[count] = text;
                count += 1;
            }
            emit(Sample {
                source,
                metric,
                labels: &labels[..count],
                value: row.value * scale,
            });
            emitted += 1;
        }
        emitted
    }
}

impl What {
    /// A name that it has in some set.
    fn name(&self) -> &str {
        match self {
            What::Known(reading) => reading
                .published(Names::Qbus)
                .map_or("", |(metric, _)| &metric.name),
            What::Node(metric) => &metric.published(Names::Node).name,
            What::Own(metric) => &metric.name,
        }
    }
}

fn hash(what: &What, labels: &[(&str, &str)]) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.name().hash(&mut hasher);
    for label in labels.iter().filter(|(_, value)| !value.is_empty()) {
        label.hash(&mut hasher);
    }
    hasher.finish()
}

/// The metric of dcgm-exporter, the factor of its values, and the label that its name implies.
fn of_dcgm<'a>(
    reading: Reading,
    names: GpuNames,
    labels: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> Option<(&'static Metric, f64, &'static str)> {
    #[cfg(feature = "gpu")]
    if names == GpuNames::Dcgm {
        return crate::gpu::published(reading, labels);
    }
    let _ = (reading, names, labels);
    None
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::metric::Trend;

    static METRIC: Metric = Metric {
        name: Cow::Borrowed("own_things"),
        trend: Trend::Gauge,
        unit: Cow::Borrowed(""),
        help: Cow::Borrowed("Things."),
    };

    #[test]
    fn values_and_labels_come_back_as_pushed() {
        let mut readings = Readings::default();
        readings.push_metric(&METRIC, &[("a", "x"), ("b", ""), ("c", "z")], 1.5);
        readings.push_metric(&METRIC, &[("a", "y")], f64::NAN);
        readings.push(Reading::CpuUsage, &[], 0.25);
        let mut seen = Vec::new();
        let emitted = readings.emit("test", (Names::Seed, GpuNames::Same), &mut |sample| {
            seen.push(format!(
                "{} {:?} {}",
                sample.metric.name, sample.labels, sample.value
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
        assert_eq!(trouble.failures, 1);
        assert_eq!(trouble.things[0].message, "a value was NaN");
    }
}
