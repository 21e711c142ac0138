//! What families and series are registered as, and what their names may be.

use std::fmt;

use super::merge::Merge;
use super::window::Window;
use crate::error::RegisterError;
use crate::record::MetricType;
use crate::words::{Cursor, Words, pack_text};

/// The longest metric, unit or label name in bytes.
pub(crate) const NAME_MAX: usize = 255;
/// The longest label value in bytes.
pub(super) const VALUE_MAX: usize = 1024;
/// The longest help text in bytes.
pub(super) const HELP_MAX: usize = 2048;
/// The most labels of a series.
pub(super) const LABELS_MAX: usize = 32;
/// The most buckets of a histogram.
const BUCKETS_MAX: usize = 256;

/// Where words of a definition go, one after the other.
pub(super) type Sink<'a> = dyn FnMut(u64) + 'a;

/// What a family is registered as.
#[derive(Clone, Debug, PartialEq)]
pub struct FamilyDefinition {
    /// Matches `[a-zA-Z_:][a-zA-Z0-9_:]*`.
    pub name: String,
    /// How its records are folded.
    pub metric_type: MetricType,
    /// What it means, for people; the last registration's counts.
    pub help: String,
    /// Its base unit; may be empty.
    pub unit: String,
    /// Upper bounds of a histogram's buckets, ascending, without `+Inf`; else empty.
    pub buckets: Vec<f64>,
    /// Of a histogram: whether it counts finer than its buckets too, as Prometheus' native
    /// histograms do.
    pub native: bool,
    /// Of a gauge: what several processes make of it.
    pub merge: Merge,
    /// Of a summary: what its quantiles are of. Else as by default.
    pub window: Window,
}

impl FamilyDefinition {
    /// A family of which nothing is said but its name and its type.
    pub fn new(name: &str, metric_type: MetricType) -> FamilyDefinition {
        FamilyDefinition {
            name: name.to_owned(),
            metric_type,
            help: String::new(),
            unit: String::new(),
            buckets: Vec::new(),
            native: false,
            merge: Merge::Last,
            window: Window::default(),
        }
    }
}

/// Where a family's first word says, above its type, whether it is native, how it is merged, and
/// what its window is.
const NATIVE_SHIFT: u32 = 8;
const MERGE_SHIFT: u32 = 16;
const WINDOW_SHIFT: u32 = 24;

/// The type that a family's first word says.
pub(super) fn metric_type(first: u64) -> Option<MetricType> {
    let is_known =
        first >> NATIVE_SHIFT & 0xff <= 1 && merge(first).is_some() && window(first).is_some();
    MetricType::from_raw(first & ((1 << NATIVE_SHIFT) - 1)).filter(|_| is_known)
}

/// Whether a family's first word says that it is native.
pub(super) fn is_native(first: u64) -> bool {
    first >> NATIVE_SHIFT & 0xff == 1
}

fn merge(first: u64) -> Option<Merge> {
    Merge::from_raw(first >> MERGE_SHIFT & 0xff)
}

fn window(first: u64) -> Option<Window> {
    Window::from_raw(first >> WINDOW_SHIFT)
}

/// What a series is registered as.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesDefinition {
    /// The family, and where its definition lies: the same for all its series.
    pub family: FamilyId,
    /// Names and values in the order of the first registration; no name twice, no value empty.
    pub labels: Vec<(String, String)>,
}

/// Names a family of one bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FamilyId(pub u32);

impl FamilyDefinition {
    /// What its first word says.
    fn first(&self) -> u64 {
        let native = u64::from(self.native) << NATIVE_SHIFT;
        let window = self.window.to_raw() << WINDOW_SHIFT;
        self.metric_type.to_raw() | native | self.merge.to_raw() << MERGE_SHIFT | window
    }

    /// As words of shared memory: type, lengths, texts, buckets.
    pub fn encode(&self) -> Vec<u64> {
        let mut words = Vec::new();
        self.write(&mut |word| words.push(word));
        words
    }

    pub(super) fn write(&self, out: &mut Sink<'_>) {
        let lengths = self.name.len() as u64
            | (self.unit.len() as u64) << 16
            | (self.help.len() as u64) << 32
            | (self.buckets.len() as u64) << 48;
        out(self.first());
        out(lengths);
        for text in [&self.name, &self.unit, &self.help] {
            pack_text(text, out);
        }
        self.buckets.iter().for_each(|bound| out(bound.to_bits()));
    }

    /// Whether the family that lies there has that name: both together.
    pub(super) fn is_named(words: Words<'_>, at: usize, name: &str, suffix: &str) -> bool {
        let is_named = || {
            let len = words.get(at + 1)? as usize & 0xffff;
            if len != name.len() + suffix.len() {
                return Some(false);
            }
            let mut cursor = Cursor::new(words, at + 2);
            cursor.is_text(name.bytes().chain(suffix.bytes()))
        };
        is_named() == Some(true)
    }

    /// Whether the family that lies there [agrees](Self::agrees); without a copy of it.
    pub(super) fn is_like(&self, words: Words<'_>, at: usize) -> bool {
        // As `write` has it, without the help.
        let is_like = || {
            let mut cursor = Cursor::new(words, at);
            let (first, lengths) = (cursor.word()?, cursor.word()?);
            let length = |shift: u32| (lengths >> shift) as usize & 0xffff;
            let is_of_size = length(0) == self.name.len()
                && length(16) == self.unit.len()
                && length(48) == self.buckets.len();
            if first != self.first()
                || !is_of_size
                || !cursor.is_text(self.name.bytes())?
                || !cursor.is_text(self.unit.bytes())?
            {
                return Some(false);
            }
            cursor.skip(length(32).div_ceil(8));
            for bound in &self.buckets {
                if cursor.word()? != bound.to_bits() {
                    return Some(false);
                }
            }
            Some(true)
        };
        is_like() == Some(true)
    }

    /// Whether the family that lies there has that help text, as it was registered first.
    pub(super) fn is_described(words: Words<'_>, at: usize, help: &str) -> bool {
        let is_described = || {
            let lengths = words.get(at + 1)?;
            let length = |shift: u32| (lengths >> shift) as usize & 0xffff;
            let before = length(0).div_ceil(8) + length(16).div_ceil(8);
            let mut cursor = Cursor::new(words, at + 2 + before);
            Some(length(32) == help.len() && cursor.is_text(help.bytes())?)
        };
        is_described() == Some(true)
    }

    /// Whether it is what lies there, help text and all; without a copy of it.
    pub fn is_at(&self, words: Words<'_>, at: usize) -> bool {
        self.is_like(words, at) && Self::is_described(words, at, &self.help)
    }

    /// Decodes and checks words that another process wrote; `None` when they are no definition.
    pub fn decode(words: Words<'_>, start: usize) -> Option<FamilyDefinition> {
        let mut cursor = Cursor::new(words, start);
        let first = cursor.word()?;
        let metric_type = metric_type(first)?;
        let lengths = cursor.word()?;
        let length = |shift: u32| (lengths >> shift) as usize & 0xffff;
        let name = cursor.text(length(0))?;
        let unit = cursor.text(length(16))?;
        let help = cursor.text(length(32))?;
        let mut buckets = Vec::new();
        for _ in 0..length(48) {
            buckets.push(f64::from_bits(cursor.word()?));
        }
        let family = FamilyDefinition {
            name,
            metric_type,
            help,
            unit,
            buckets,
            native: is_native(first),
            merge: merge(first)?,
            window: window(first)?,
        };
        family.check().is_ok().then_some(family)
    }

    /// Whether series of both can be of one family: name, type, unit, buckets, merging and window
    /// are the same.
    pub fn agrees(&self, other: &FamilyDefinition) -> bool {
        self.name == other.name
            && self.metric_type == other.metric_type
            && self.unit == other.unit
            && self.buckets == other.buckets
            && self.native == other.native
            && self.merge == other.merge
            && self.window == other.window
    }

    pub(super) fn check(&self) -> Result<(), RegisterError> {
        if !is_metric_name(&self.name) {
            return Err(RegisterError::Name {
                found: self.name.clone(),
            });
        }
        let within = |what, found, longest| {
            if found <= longest {
                return Ok(());
            }
            Err(RegisterError::TooLong {
                metric: self.name.clone(),
                what,
                found,
                longest,
            })
        };
        within("the unit", self.unit.len(), NAME_MAX)?;
        within("the help text", self.help.len(), HELP_MAX)?;
        within("the list of buckets", self.buckets.len(), BUCKETS_MAX)?;
        let is_histogram = self.metric_type == MetricType::Histogram;
        if !is_histogram && !self.buckets.is_empty() {
            return Err(RegisterError::NoBuckets {
                metric: self.name.clone(),
                metric_type: self.metric_type,
            });
        }
        let ascending = self.buckets.is_sorted_by(|a, b| a < b)
            && self.buckets.iter().all(|bound| bound.is_finite());
        if !ascending || is_histogram == self.buckets.is_empty() || (self.native && !is_histogram) {
            return Err(RegisterError::Buckets {
                metric: self.name.clone(),
                found: self.buckets.clone(),
            });
        }
        let is_level = matches!(self.metric_type, MetricType::Gauge | MetricType::Untyped);
        if self.merge != Merge::Last && !is_level {
            return Err(RegisterError::Merge {
                metric: self.name.clone(),
                metric_type: self.metric_type,
                merge: self.merge,
            });
        }
        let is_summary = self.metric_type == MetricType::Summary;
        if !self.window.is_valid() || (!is_summary && self.window != Window::default()) {
            return Err(RegisterError::Window {
                metric: self.name.clone(),
                metric_type: self.metric_type,
                window: self.window,
            });
        }
        Ok(())
    }

    /// Names of the samples that this family's series turn into, beside its own name.
    pub(super) fn sample_suffixes(&self) -> &'static [&'static str] {
        match self.metric_type {
            MetricType::Counter | MetricType::Gauge | MetricType::Untyped => &[],
            MetricType::Histogram => &["_bucket", "_sum", "_count"],
            MetricType::Summary => &["_sum", "_count"],
        }
    }
}

impl fmt::Display for FamilyDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.metric_type, self.name)?;
        if !self.unit.is_empty() {
            write!(f, " in {}", self.unit)?;
        }
        if !self.buckets.is_empty() {
            let native = if self.native { ", native" } else { "" };
            write!(f, " with buckets {:?}{native}", self.buckets)?;
        }
        if self.merge != Merge::Last {
            write!(f, " merged by {}", self.merge)?;
        }
        if self.window != Window::default() {
            write!(f, " with quantiles of {}", self.window)?;
        }
        Ok(())
    }
}

impl SeriesDefinition {
    /// As words of shared memory: family, number of labels, then lengths and texts.
    pub fn encode(&self) -> Vec<u64> {
        let mut words = Vec::new();
        Self::write(self.family, &self.labels, &mut |word| words.push(word));
        words
    }

    pub(super) fn write(family: FamilyId, labels: &[(String, String)], out: &mut Sink<'_>) {
        out(u64::from(family.0) << 32 | labels.len() as u64);
        for (name, value) in labels {
            out((name.len() as u64) << 32 | value.len() as u64);
            pack_text(name, out);
            pack_text(value, out);
        }
    }

    /// Whether the series that lies there is of that family and has these labels, whatever their
    /// order; without a copy of it. Names are there once each, here and there.
    pub(super) fn is_at(
        words: Words<'_>,
        at: usize,
        family: FamilyId,
        labels: &[(String, String)],
    ) -> bool {
        let first = u64::from(family.0) << 32 | labels.len() as u64;
        if words.get(at) != Some(first) {
            return false;
        }
        let mut cursor = Cursor::new(words, at + 1);
        let mut is_there = |index: usize| {
            let lengths = cursor.word()?;
            let (name, value) = ((lengths >> 32) as usize, lengths as u32 as usize);
            let is_it = |(ours, our_value): &(String, String)| {
                let mut text = cursor.clone();
                ours.len() == name
                    && our_value.len() == value
                    && text.is_text(ours.bytes()) == Some(true)
                    && text.is_text(our_value.bytes()) == Some(true)
            };
            // As a rule their order is the same.
            let found = labels.get(index).is_some_and(is_it) || labels.iter().any(is_it);
            cursor.skip(name.div_ceil(8) + value.div_ceil(8));
            Some(found)
        };
        (0..labels.len()).all(|index| is_there(index) == Some(true))
    }

    /// Appends names and values, each with a 0 behind it: as bytes they sort as the labels do.
    /// Whether there was a definition.
    pub fn sort_key(words: Words<'_>, start: usize, key: &mut Vec<u8>) -> bool {
        let mut cursor = Cursor::new(words, start);
        let mut append = || {
            for _ in 0..(cursor.word()? as u32 as usize).min(LABELS_MAX) {
                let lengths = cursor.word()?;
                for len in [lengths >> 32, u64::from(lengths as u32)] {
                    cursor.bytes((len as usize).min(VALUE_MAX), key)?;
                    key.push(0);
                }
            }
            Some(())
        };
        append().is_some()
    }

    /// Decodes and checks words that another process wrote; `None` when they are no definition.
    pub fn decode(words: Words<'_>, start: usize) -> Option<SeriesDefinition> {
        let mut cursor = Cursor::new(words, start);
        let first = cursor.word()?;
        let family = FamilyId((first >> 32) as u32);
        let count = first as u32 as usize;
        if count > LABELS_MAX {
            return None;
        }
        let mut labels = Vec::with_capacity(count);
        for _ in 0..count {
            let lengths = cursor.word()?;
            let (name, value) = ((lengths >> 32) as usize, lengths as u32 as usize);
            if name > NAME_MAX || value > VALUE_MAX {
                return None;
            }
            labels.push((cursor.text(name)?, cursor.text(value)?));
        }
        check_labels("", &labels)
            .is_ok()
            .then_some(SeriesDefinition { family, labels })
    }
}

/// Labels as they are registered: an empty value is the same as no label, and one that is too long
/// is cut, with a mark.
pub(crate) fn registered(labels: &[(String, String)]) -> Vec<(String, String)> {
    let with_value = labels.iter().filter(|(_, value)| !value.is_empty());
    let cut = with_value.map(|(name, value)| (name.clone(), shortened(value)));
    cut.collect()
}

/// Whether a label of that value is registered as it is.
pub(super) fn is_as_given(value: &str) -> bool {
    !value.is_empty() && value.len() <= VALUE_MAX
}

/// What the end of a value that was cut says.
const CUT: char = '…';

fn shortened(value: &str) -> String {
    if value.len() <= VALUE_MAX {
        return value.to_owned();
    }
    let end = value.floor_char_boundary(VALUE_MAX - CUT.len_utf8());
    format!("{}{CUT}", &value[..end])
}

/// How many of these values are cut.
pub(crate) fn cut_values(labels: &[(String, String)]) -> u64 {
    let too_long = labels.iter().filter(|(_, value)| value.len() > VALUE_MAX);
    too_long.count() as u64
}

/// Whether a metric can have that name: `[a-zA-Z_:][a-zA-Z0-9_:]*`, at most 255 bytes.
pub fn is_metric_name(name: &str) -> bool {
    is_name(name, |c| c == ':')
}

/// Whether a label can have that name: `[a-zA-Z_][a-zA-Z0-9_]*`, at most 255 bytes.
fn is_label_name(name: &str) -> bool {
    is_name(name, |_| false)
}

fn is_name(name: &str, is_also_legal: impl Fn(char) -> bool) -> bool {
    let is_legal = |(at, c): (usize, char)| {
        c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit()) || is_also_legal(c)
    };
    !name.is_empty() && name.len() <= NAME_MAX && name.chars().enumerate().all(is_legal)
}

/// Whether a series of `metric`, of that type, can have a label of that name.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_label(metric: &str, metric_type: MetricType, name: &str) -> Result<(), RegisterError> {
    check_label_name(metric, name)?;
    let reserved = match metric_type {
        MetricType::Histogram => Some("le"),
        MetricType::Summary => Some("quantile"),
        MetricType::Counter | MetricType::Gauge | MetricType::Untyped => None,
    };
    if reserved != Some(name) {
        return Ok(());
    }
    Err(RegisterError::Label {
        metric: metric.to_owned(),
        found: name.to_owned(),
        reason: "is reserved for the samples of a metric of this type",
    })
}

fn check_label_name(metric: &str, name: &str) -> Result<(), RegisterError> {
    let refuse = |reason| {
        Err(RegisterError::Label {
            metric: metric.to_owned(),
            found: name.to_owned(),
            reason,
        })
    };
    if !is_label_name(name) {
        return refuse("is no label name: expected [a-zA-Z_][a-zA-Z0-9_]*, at most 255 bytes");
    }
    if name.starts_with("__") {
        return refuse("starts with two underscores: such names are reserved");
    }
    Ok(())
}

pub(super) fn check_labels(metric: &str, labels: &[(String, String)]) -> Result<(), RegisterError> {
    let too_long = |what, found, longest| RegisterError::TooLong {
        metric: metric.to_owned(),
        what,
        found,
        longest,
    };
    if labels.len() > LABELS_MAX {
        return Err(too_long("the list of labels", labels.len(), LABELS_MAX));
    }
    for (at, (name, _)) in labels.iter().enumerate() {
        check_label_name(metric, name)?;
        if labels[..at].iter().any(|(earlier, _)| earlier == name) {
            return Err(RegisterError::Label {
                metric: metric.to_owned(),
                found: name.clone(),
                reason: "is given twice",
            });
        }
    }
    Ok(())
}
