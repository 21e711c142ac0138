//! The text exposition format 0.0.4 of Prometheus.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};

use qbus::MetricType;

use super::number::{push, push_float};
use super::{LeftOut, Options};
use crate::series::{Family, HistogramValue, Series, Snapshot, SummaryValue, Value};

/// The media type to serve a page with. Prometheus 3 refuses a page that has none.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How much of the page gathers before it goes out.
const CHUNK_BYTES: usize = 64 * 1024;

/// Writes `snapshot` as a page of the text format 0.0.4 (Prometheus documentation, "Exposition
/// formats"), and flushes `out`.
///
/// ```text
/// # TYPE model_inference_latency gauge
/// # HELP model_inference_latency Model inference latency in seconds
/// model_inference_latency{model="qwen3-vl",input_size="large"} 0.125
/// ```
///
/// * Each family has its `TYPE` once, its `HELP` once unless the help is empty, and then all of its
///   samples.
/// * A histogram has cumulative buckets up to `le="+Inf"`, `_sum` and `_count`. There is no `_sum`
///   where a bound is negative: the sum of negative observations may shrink, which `rate()` would
///   take for a restart (OpenMetrics forbids it for that reason). JSON and CSV do tell it.
/// * A summary has its quantiles (NaN without observations), `_sum` and `_count`.
/// * A label with an empty value is not written: to Prometheus it is the same as no label.
/// * With [`Options::timestamps`] each sample ends with the time of the last record, in whole
///   milliseconds.
///
/// Nothing spoils the page: what a reader would refuse is left out and counted in the answer.
/// These are
///
/// * a family one of whose sample names an earlier family has (a gauge `foo_count` after a
///   histogram `foo`), or whose name is not `[a-zA-Z_:][a-zA-Z0-9_:]*`;
/// * a series whose labels, as a set, an earlier series of the family has; or whose type or buckets
///   are not those of the first series of the family; or with a label name that is malformed,
///   reserved (`__…`, `le` of a histogram, `quantile` of a summary) or given twice; or with buckets
///   that do not ascend, or do not end with the count.
///
/// # Errors
///
/// The first error of `out`, as it is. Part of the page may have been written by then.
pub fn prometheus(
    snapshot: &Snapshot,
    options: &Options,
    out: &mut dyn Write,
) -> io::Result<LeftOut> {
    let mut page = Page {
        out,
        text: String::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4),
        timestamps: options.timestamps,
        labels: String::new(),
        end: String::new(),
    };
    let mut names = HashSet::new();
    let mut left_out = LeftOut::default();
    for family in snapshot
        .series
        .chunk_by(|a, b| a.family.name == b.family.name)
    {
        if claim_names(&mut names, &family[0].family) {
            left_out.series += page.family(family)?;
        } else {
            left_out.families += 1;
            left_out.series += family.len() as u64;
        }
    }
    page.write_out()?;
    page.out.flush()?;
    Ok(left_out)
}

/// Takes the names of the family's samples, all or none.
fn claim_names(names: &mut HashSet<String>, family: &Family) -> bool {
    if !is_metric_name(&family.name) {
        return false;
    }
    let suffixes: &[&str] = match family.metric_type {
        MetricType::Counter | MetricType::Gauge => &[""],
        // A histogram has no sample of the bare name, but its `TYPE` line does claim it.
        MetricType::Histogram => &["", "_bucket", "_sum", "_count"],
        MetricType::Summary => &["", "_sum", "_count"],
    };
    let claimed: Vec<String> = suffixes
        .iter()
        .map(|suffix| format!("{}{suffix}", family.name))
        .collect();
    if claimed.iter().any(|name| names.contains(name)) {
        return false;
    }
    names.extend(claimed);
    true
}

/// Whether `b` has the label names of `a`, in the same order, and comes after it.
fn ascends(a: &Series, b: &Series) -> bool {
    let names_agree =
        a.labels.len() == b.labels.len() && a.labels.iter().zip(&b.labels).all(|(a, b)| a.0 == b.0);
    names_agree && a.labels < b.labels
}

struct Page<'a> {
    out: &'a mut dyn Write,
    /// What has not been written out yet.
    text: String,
    timestamps: bool,
    /// The labels of the series at hand, escaped, without braces.
    labels: String,
    /// What each sample line of the series at hand ends with.
    end: String,
}

impl Page<'_> {
    /// Writes the series of a family. Returns how many of them it left out.
    fn family(&mut self, all: &[Series]) -> io::Result<u64> {
        let family = &*all[0].family;
        let mut bounds = Vec::new();
        if family.metric_type == MetricType::Histogram {
            bounds.extend(family.buckets.iter().chain([&f64::INFINITY]).map(|&bound| {
                let mut text = String::new();
                push_float(&mut text, bound);
                text
            }));
        }
        // In order and of the same label names, as nearly all are, no two can be the same set.
        let mut seen = (!all.is_sorted_by(ascends)).then(HashSet::new);
        let (mut left_out, mut has_head) = (0, false);
        for series in all {
            let is_new = |seen: &mut HashSet<_>| seen.insert(LabelSet(&series.labels));
            if !is_sound(series, family) || !seen.as_mut().is_none_or(is_new) {
                left_out += 1;
                continue;
            }
            if !has_head {
                self.head(family);
                has_head = true;
            }
            self.series(series, &bounds);
            if self.text.len() >= CHUNK_BYTES {
                self.write_out()?;
            }
        }
        Ok(left_out)
    }

    fn head(&mut self, family: &Family) {
        let (name, metric_type) = (&family.name, family.metric_type.as_str());
        push(
            &mut self.text,
            format_args!("# TYPE {name} {metric_type}\n"),
        );
        if !family.help.is_empty() {
            push(&mut self.text, format_args!("# HELP {name} "));
            push_escaped(&mut self.text, &family.help, false);
            self.text.push('\n');
        }
    }

    fn series(&mut self, series: &Series, bounds: &[String]) {
        self.labels.clear();
        for (name, value) in series.labels.iter().filter(|(_, value)| !value.is_empty()) {
            if !self.labels.is_empty() {
                self.labels.push(',');
            }
            self.labels.push_str(name);
            self.labels.push_str("=\"");
            push_escaped(&mut self.labels, value, true);
            self.labels.push('"');
        }
        self.end.clear();
        if self.timestamps {
            push(
                &mut self.end,
                format_args!(" {}", series.timestamp_ns / 1_000_000),
            );
        }
        self.end.push('\n');
        let family = &*series.family;
        match &series.value {
            Value::Counter(value) | Value::Gauge(value) => {
                self.sample(&family.name, "", None, |text| push_float(text, *value));
            }
            Value::Histogram(value) => self.histogram(family, value, bounds),
            Value::Summary(value) => self.summary(family, value),
        }
    }

    fn histogram(&mut self, family: &Family, value: &HistogramValue, bounds: &[String]) {
        let name = &family.name;
        for (bound, count) in bounds.iter().zip(&value.cumulative) {
            let own = Some(("le", bound.as_str()));
            self.sample(name, "_bucket", own, |text| {
                push(text, format_args!("{count}"))
            });
        }
        if family.buckets.first().is_none_or(|&bound| bound >= 0.0) {
            self.sample(name, "_sum", None, |text| push_float(text, value.sum));
        }
        self.sample(name, "_count", None, |text| {
            push(text, format_args!("{}", value.count))
        });
    }

    fn summary(&mut self, family: &Family, value: &SummaryValue) {
        let name = &family.name;
        let mut label = String::new();
        for &(quantile, value) in &value.quantiles {
            label.clear();
            push_float(&mut label, quantile);
            self.sample(name, "", Some(("quantile", &label)), |text| {
                push_float(text, value)
            });
        }
        self.sample(name, "_sum", None, |text| push_float(text, value.sum));
        self.sample(name, "_count", None, |text| {
            push(text, format_args!("{}", value.count))
        });
    }

    /// Appends a line with the labels of the series and one of the format's own.
    fn sample(
        &mut self,
        name: &str,
        suffix: &str,
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
    }

    fn write_out(&mut self) -> io::Result<()> {
        self.out.write_all(self.text.as_bytes())?;
        self.text.clear();
        Ok(())
    }
}

/// Escapes `\` and line feeds, and double quotes in a label value; a help text has them bare.
fn push_escaped(out: &mut String, text: &str, quotes: bool) {
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

/// Whether the lines of a series fit the head of its family and the format.
fn is_sound(series: &Series, family: &Family) -> bool {
    if series.family.metric_type != family.metric_type || series.family.buckets != family.buckets {
        return false;
    }
    let (own, value_is_sound) = match (&series.value, family.metric_type) {
        (Value::Counter(_), MetricType::Counter) | (Value::Gauge(_), MetricType::Gauge) => {
            ("", true)
        }
        (Value::Histogram(value), MetricType::Histogram) => {
            let finite = family.buckets.iter().all(|bound| bound.is_finite());
            let ascending = family.buckets.is_sorted_by(|a, b| a < b);
            let counted = value.cumulative.is_sorted()
                && value.cumulative.len() == family.buckets.len() + 1
                && value.cumulative.last() == Some(&value.count);
            ("le", finite && ascending && counted)
        }
        (Value::Summary(value), MetricType::Summary) => {
            ("quantile", value.quantiles.is_sorted_by(|a, b| a.0 < b.0))
        }
        _ => return false,
    };
    let labels = &series.labels;
    value_is_sound
        && labels.iter().enumerate().all(|(at, (name, _))| {
            is_label_name(name)
                && !name.starts_with("__")
                && name != own
                && labels[..at].iter().all(|(earlier, _)| earlier != name)
        })
}

fn is_metric_name(name: &str) -> bool {
    is_name(name, |byte| byte == b':')
}

fn is_label_name(name: &str) -> bool {
    is_name(name, |_| false)
}

fn is_name(name: &str, is_also_legal: impl Fn(u8) -> bool) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || is_also_legal(byte);
    name.bytes().all(is_legal)
        && name
            .bytes()
            .next()
            .is_some_and(|first| !first.is_ascii_digit())
}

/// Labels that compare as Prometheus compares them: in any order, and an empty value is no label.
/// No name occurs twice.
struct LabelSet<'a>(&'a [(String, String)]);

impl LabelSet<'_> {
    fn iter(&self) -> impl Iterator<Item = &(String, String)> {
        self.0.iter().filter(|(_, value)| !value.is_empty())
    }
}

impl PartialEq for LabelSet<'_> {
    fn eq(&self, other: &Self) -> bool {
        // The same order is the usual case, and cheap.
        self.0 == other.0
            || (self.iter().count() == other.iter().count()
                && self.iter().all(|label| other.0.contains(label)))
    }
}

impl Eq for LabelSet<'_> {}

impl Hash for LabelSet<'_> {
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

#[cfg(test)]
mod tests;
