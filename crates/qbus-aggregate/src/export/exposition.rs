//! What the pages of a scraper have in common: which families and series one page can hold, and how
//! a line of text is made.
//!
//! Nothing spoils a page: what a reader would refuse is left out and counted.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};

use qbus::MetricType;

use super::LeftOut;
use crate::series::{Exemplar, Family, Series, Value};
use crate::snapshot::reader::Named;

/// How much of a page gathers before it goes out.
pub(super) const CHUNK_BYTES: usize = 16 * 1024;

/// The series of each name, of series that are sorted by it.
pub(super) fn in_families(series: &[Series]) -> impl Iterator<Item = Named<'_>> {
    let families = series.chunk_by(|a, b| a.family.name == b.family.name);
    families.map(Named::Decoded)
}

/// The sample names that the families of a page have taken so far.
#[derive(Default)]
pub(super) struct Names(HashSet<String>);

impl Names {
    /// Takes a name with each of the suffixes, all or none.
    pub(super) fn claim(&mut self, name: &str, suffixes: &[&str]) -> bool {
        if !is_metric_name(name) {
            return false;
        }
        let claimed: Vec<String> = suffixes
            .iter()
            .map(|suffix| format!("{name}{suffix}"))
            .collect();
        if claimed.iter().any(|name| self.0.contains(name)) {
            return false;
        }
        self.0.extend(claimed);
        true
    }
}

impl LeftOut {
    pub(super) fn family(&mut self, series: &Named<'_>) {
        self.families += 1;
        self.series += series.len() as u64;
    }
}

/// The series of a family that a page can hold; the others are counted.
///
/// Left out is a series whose labels, as a set, an earlier one has; or whose type or buckets are
/// not those of the first; or with a label name that is malformed, reserved (`__…`, `le` of a
/// histogram, `quantile` of a summary) or given twice; or with buckets that do not ascend, or do
/// not end with the count.
pub(super) struct Sound<'a> {
    family: &'a Family,
    all: Named<'a>,
    rest: Box<dyn Iterator<Item = Cow<'a, Series>> + 'a>,
    passed: usize,
    /// Labels of the last one, while each came after the one before and had the same label names,
    /// as nearly all do: no two can be the same set then.
    last: Option<Labels>,
    /// The sets so far, from the first on that did not come so.
    seen: Option<HashSet<LabelSet>>,
    left_out: u64,
}

/// As a series has them.
type Labels = Vec<(String, String)>;

impl<'a> Sound<'a> {
    pub(super) fn new(all: Named<'a>) -> Sound<'a> {
        Sound {
            family: all.family(),
            rest: all.iter(),
            all,
            passed: 0,
            last: None,
            seen: None,
            left_out: 0,
        }
    }

    /// How many were passed over so far.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Whether no earlier series has the same labels, as a set. `names_agree`: they are those of
    /// the last one, in the same order.
    fn is_new(&mut self, series: &Series, names_agree: bool) -> bool {
        let labels = &series.labels;
        match (&self.seen, &mut self.last) {
            (None, last @ None) => {
                *last = Some(labels.clone());
                return true;
            }
            (None, Some(last)) if names_agree && *last < *labels => {
                for ((_, last), (_, value)) in last.iter_mut().zip(labels) {
                    last.clone_from(value);
                }
                return true;
            }
            _ => {}
        }
        let (all, family, before) = (&self.all, self.family, self.passed - 1);
        let seen = self.seen.get_or_insert_with(|| {
            let earlier = all.iter().take(before);
            earlier
                .filter(|series| is_sound(series, family))
                .map(|series| LabelSet(series.into_owned().labels))
                .collect()
        });
        seen.insert(LabelSet(labels.clone()))
    }
}

impl<'a> Iterator for Sound<'a> {
    type Item = Cow<'a, Series>;

    fn next(&mut self) -> Option<Cow<'a, Series>> {
        while let Some(series) = self.rest.next() {
            self.passed += 1;
            // Names that were sound once are so again.
            let last = self.last.as_ref();
            let names_agree = last.is_some_and(|last| same_names(last, &series.labels));
            let is_sound = value_is_sound(&series, self.family)
                && (names_agree || labels_are_sound(&series.labels, self.family));
            if is_sound && self.is_new(&series, names_agree) {
                return Some(series);
            }
            self.left_out += 1;
        }
        None
    }
}

/// Whether the sum of a histogram only grows. Where a bound is negative it may shrink, which
/// `rate()` would take for a restart.
pub(super) fn has_growing_sum(family: &Family) -> bool {
    family.buckets.first().is_none_or(|&bound| bound >= 0.0)
}

/// Labels as a scraper sees them: an empty value is the same as no label.
pub(super) fn labels(series: &Series) -> impl Iterator<Item = &(String, String)> {
    series.labels.iter().filter(|(_, value)| !value.is_empty())
}

/// Exemplars of a series, bucket by bucket.
pub(super) struct Exemplars<'a>(pub(super) &'a [Exemplar]);

impl<'a> Exemplars<'a> {
    /// The one of the next bucket, which ends there. None stands for two buckets.
    pub(super) fn within(&mut self, bound: f64) -> Option<&'a Exemplar> {
        let of_bucket = self.0.iter().take_while(|one| one.value <= bound).count();
        let (mine, rest) = self.0.split_at(of_bucket);
        self.0 = rest;
        mine.last()
    }
}

/// Lines of samples, and where they go.
pub(super) struct Lines<'a> {
    out: &'a mut dyn Write,
    /// What has not been written out yet.
    pub(super) text: String,
    /// The labels of the present series, escaped, without braces.
    labels: String,
    /// What each sample of the present series ends with.
    pub(super) end: String,
    /// What the next sample ends with besides.
    pub(super) tail: String,
}

impl<'a> Lines<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Lines<'a> {
        Lines {
            out,
            text: String::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4),
            labels: String::new(),
            end: String::new(),
            tail: String::new(),
        }
    }

    /// Begins a series: its labels stand in all samples that follow, and nothing ends them yet.
    pub(super) fn begin(&mut self, series: &Series) {
        self.end.clear();
        self.labels.clear();
        for (name, value) in labels(series) {
            if !self.labels.is_empty() {
                self.labels.push(',');
            }
            self.labels.push_str(name);
            self.labels.push_str("=\"");
            push_escaped(&mut self.labels, value, true);
            self.labels.push('"');
        }
    }

    /// Appends a sample with the labels of the series and one of the format's own.
    pub(super) fn sample(
        &mut self,
        [name, suffix]: [&str; 2],
        own: Option<(&str, &str)>,
        value: impl FnOnce(&mut String),
    ) {
        let text = &mut self.text;
        text.push_str(name);
        text.push_str(suffix);
        if own.is_some() || !self.labels.is_empty() {
            text.push('{');
            text.push_str(&self.labels);
            if let Some((name, value)) = own {
                if !self.labels.is_empty() {
                    text.push(',');
                }
                text.push_str(name);
                text.push_str("=\"");
                text.push_str(value);
                text.push('"');
            }
            text.push('}');
        }
        text.push(' ');
        value(text);
        text.push_str(&self.end);
        text.push_str(&self.tail);
        self.tail.clear();
        text.push('\n');
    }

    /// Writes out what has gathered, once it is much.
    pub(super) fn pass_on(&mut self) -> io::Result<()> {
        if self.text.len() >= CHUNK_BYTES {
            self.out.write_all(self.text.as_bytes())?;
            self.text.clear();
        }
        Ok(())
    }

    pub(super) fn finish(self) -> io::Result<()> {
        self.out.write_all(self.text.as_bytes())?;
        self.out.flush()
    }
}

/// Escapes `\` and line feeds, and double quotes where the format asks for it.
pub(super) fn push_escaped(out: &mut String, text: &str, quotes: bool) {
    let mut rest = text;
    while let Some(at) = rest.find(|c| c == '\\' || c == '\n' || (quotes && c == '"')) {
        out.push_str(&rest[..at]);
        out.push_str(match rest.as_bytes()[at] {
            b'\\' => "\\\\",
            b'\n' => "\\n",
            _ => "\\\"",
        });
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

/// Whether both have the same label names, in the same order.
fn same_names(a: &[(String, String)], b: &[(String, String)]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0)
}

/// Whether a series fits its family and the format.
fn is_sound(series: &Series, family: &Family) -> bool {
    value_is_sound(series, family) && labels_are_sound(&series.labels, family)
}

fn value_is_sound(series: &Series, family: &Family) -> bool {
    if series.family.metric_type != family.metric_type || series.family.buckets != family.buckets {
        return false;
    }
    match (&series.value, family.metric_type) {
        (Value::Counter(_), MetricType::Counter)
        | (Value::Gauge(_), MetricType::Gauge | MetricType::Untyped) => true,
        (Value::Histogram(value), MetricType::Histogram) => {
            let finite = family.buckets.iter().all(|bound| bound.is_finite());
            let ascending = family.buckets.is_sorted_by(|a, b| a < b);
            let counted = value.cumulative.is_sorted()
                && value.cumulative.len() == family.buckets.len() + 1
                && value.cumulative.last() == Some(&value.count);
            finite && ascending && counted
        }
        (Value::Summary(value), MetricType::Summary) => {
            value.quantiles.is_sorted_by(|a, b| a.0 < b.0)
        }
        _ => false,
    }
}

fn labels_are_sound(labels: &[(String, String)], family: &Family) -> bool {
    // What samples of the type have as a label of their own.
    let own = match family.metric_type {
        MetricType::Histogram => "le",
        MetricType::Summary => "quantile",
        MetricType::Counter | MetricType::Gauge | MetricType::Untyped => "",
    };
    labels.iter().enumerate().all(|(at, (name, _))| {
        is_label_name(name)
            && !name.starts_with("__")
            && name != own
            && labels[..at].iter().all(|(earlier, _)| earlier != name)
    })
}

fn is_metric_name(name: &str) -> bool {
    is_word(name, |byte| byte == b':')
}

fn is_label_name(name: &str) -> bool {
    is_word(name, |_| false)
}

/// Letters, digits and `_`, and what else is taken for a letter; no digit first.
fn is_word(name: &str, is_letter: impl Fn(u8) -> bool) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || is_letter(byte);
    name.bytes().all(word)
        && name
            .bytes()
            .next()
            .is_some_and(|first| !first.is_ascii_digit())
}

/// Labels that compare as Prometheus compares them: in any order, and an empty value is no label.
/// No name occurs twice.
struct LabelSet(Labels);

impl LabelSet {
    fn iter(&self) -> impl Iterator<Item = &(String, String)> {
        self.0.iter().filter(|(_, value)| !value.is_empty())
    }
}

impl PartialEq for LabelSet {
    fn eq(&self, other: &Self) -> bool {
        // The same order is the usual case, and cheap.
        self.0 == other.0
            || (self.iter().count() == other.iter().count()
                && self.iter().all(|label| other.0.contains(label)))
    }
}

impl Eq for LabelSet {}

impl Hash for LabelSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // A sum does not depend on the order.
        let sum = self.iter().fold(0u64, |sum, label| {
            let mut hasher = DefaultHasher::new();
            label.hash(&mut hasher);
            sum.wrapping_add(hasher.finish())
        });
        state.write_u64(sum);
    }
}
