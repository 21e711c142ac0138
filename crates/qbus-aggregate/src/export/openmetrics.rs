//! The text format OpenMetrics 1.0.

use std::io::{self, Write};

use qbus::MetricType;

use super::exposition::{Exemplars, Lines, Names, Sound, has_growing_sum, labels, push_escaped};
use super::number::{canonical, push, push_float, push_sum};
use super::{Exported, LeftOut, Options};
use crate::series::{Exemplar, Family, HistogramValue, Series, SummaryValue, Value};
use crate::snapshot::reader::Named;
use crate::sum::Sum;

/// The media type to serve an OpenMetrics page with.
pub const OPENMETRICS_CONTENT_TYPE: &str =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Nanoseconds of a second.
const NS: u64 = 1_000_000_000;

/// Writes series as a page of OpenMetrics 1.0 (`application/openmetrics-text`), and flushes
/// `out`.
///
/// ```text
/// # TYPE request_seconds histogram
/// # UNIT request_seconds seconds
/// # HELP request_seconds Time from request to answer.
/// request_seconds_bucket{le="1.0"} 2
/// request_seconds_bucket{le="+Inf"} 3
/// request_seconds_sum 2.55
/// request_seconds_count 3
/// # EOF
/// ```
///
/// It says what the page of [`prometheus()`](super::prometheus()) says, under stricter rules:
///
/// * A counter's family is named without `_total`, its sample with it. A counter that is not so
///   called, or whose short name another family has, is of the type `unknown`: its sample keeps its
///   name.
/// * `UNIT` is there where the name ends with the unit.
/// * A gauge `…_info` all of whose series are 1 is an `info`, and a gauge with a label of its own
///   name, whose series are 0 and 1, a `stateset`.
/// * A histogram whose sum can shrink (a negative bound) or is negative has neither `_sum` nor
///   `_count`, a summary with a negative sum no `_sum`. A negative quantile is not written.
/// * A counter (of that type) and the buckets of a histogram show the last record with a trace as
///   exemplar.
/// * `le` and `quantile` are floats (`1.0`), times are in seconds.
///
/// Left out, and counted, is also a series of a `counter` that is negative or NaN, and a family one
/// of whose names (`foo_created` included) an earlier one has.
///
/// # Errors
///
/// The first error of `out`, as it is. Part of the page may have been written by then.
pub fn openmetrics<'a>(
    what: impl Into<Exported<'a>>,
    options: &Options,
    out: &mut dyn Write,
) -> io::Result<LeftOut> {
    let mut page = Page {
        lines: Lines::new(out),
        timestamps: options.timestamps,
    };
    let mut names = Names::default();
    let mut left_out = LeftOut::default();
    for all in what.into().names() {
        match Group::claim(&mut names, &all) {
            Some(group) => left_out.series += page.family(&group, all)?,
            None => left_out.family(&all),
        }
    }
    page.lines.text.push_str("# EOF\n");
    page.lines.finish()?;
    Ok(left_out)
}

/// A family as this format calls it.
struct Group<'a> {
    /// Of the family: without a counter's `_total`, say.
    name: &'a str,
    /// What a sample's name has besides, for the types with one sample a series.
    suffix: &'static str,
    metric_type: &'static str,
}

impl<'a> Group<'a> {
    /// Names a family, unless others have the names that it needs.
    fn claim(names: &mut Names, all: &Named<'a>) -> Option<Group<'a>> {
        let family = all.family();
        let name = family.name.as_str();
        let mut named = |name, suffix, metric_type, suffixes: &[&str]| {
            names.claim(name, suffixes).then_some(Group {
                name,
                suffix,
                metric_type,
            })
        };
        match family.metric_type {
            MetricType::Counter => name
                .strip_suffix("_total")
                .and_then(|short| named(short, "_total", "counter", &["", "_total", "_created"]))
                .or_else(|| named(name, "", "unknown", &[""])),
            MetricType::Untyped => named(name, "", "unknown", &[""]),
            MetricType::Gauge => {
                let info = name
                    .strip_suffix("_info")
                    .filter(|_| all.iter().all(|series| is_one(&series)))
                    .and_then(|short| named(short, "_info", "info", &["", "_info"]));
                let is_stateset = || all.iter().all(|series| is_state(&series, name));
                info.or_else(|| {
                    let metric_type = if is_stateset() { "stateset" } else { "gauge" };
                    named(name, "", metric_type, &[""])
                })
            }
            MetricType::Histogram => {
                let suffixes = &["", "_bucket", "_sum", "_count", "_created"];
                named(name, "", "histogram", suffixes)
            }
            MetricType::Summary => named(name, "", "summary", &["", "_sum", "_count", "_created"]),
        }
    }
}

fn is_one(series: &Series) -> bool {
    matches!(series.value, Value::Gauge(1.0))
}

/// Whether a series says of one state of a set whether it is the present one. The states of a set
/// have to be adjacent: they are where the label that tells them apart is the last in the order of
/// names.
fn is_state(series: &Series, own: &str) -> bool {
    let says_whether = matches!(series.value, Value::Gauge(0.0 | 1.0));
    says_whether
        && labels(series).any(|(name, _)| name == own)
        && labels(series).all(|(name, _)| name.as_str() <= own)
}

struct Page<'a> {
    lines: Lines<'a>,
    timestamps: bool,
}

impl Page<'_> {
    /// Writes the series of a family. Returns how many of them it left out.
    fn family(&mut self, group: &Group<'_>, all: Named<'_>) -> io::Result<u64> {
        let family = all.family();
        let bounds: Vec<String> = match family.metric_type {
            MetricType::Histogram => family
                .buckets
                .iter()
                .chain([&f64::INFINITY])
                .map(|&bound| canonical(bound))
                .collect(),
            _ => Vec::new(),
        };
        let mut sound = Sound::new(all);
        let (mut negative, mut has_head) = (0, false);
        for series in sound.by_ref() {
            let counts = |sum: Sum| sum.value() >= 0.0;
            let is_no_count = matches!(series.value, Value::Counter(sum) if !counts(sum));
            if is_no_count && group.metric_type == "counter" {
                negative += 1;
                continue;
            }
            if !has_head {
                self.head(group, family);
                has_head = true;
            }
            self.series(group, &series, &bounds);
            self.lines.pass_on()?;
        }
        Ok(sound.left_out() + negative)
    }

    fn head(&mut self, group: &Group<'_>, family: &Family) {
        let (text, name) = (&mut self.lines.text, group.name);
        push(text, format_args!("# TYPE {name} {}\n", group.metric_type));
        let takes_unit = !matches!(group.metric_type, "info" | "stateset");
        if takes_unit && ends_with_unit(name, &family.unit) {
            push(text, format_args!("# UNIT {name} {}\n", family.unit));
        }
        if !family.help.is_empty() {
            push(text, format_args!("# HELP {name} "));
            push_escaped(text, &family.help, true);
            text.push('\n');
        }
    }

    fn series(&mut self, group: &Group<'_>, series: &Series, bounds: &[String]) {
        self.lines.begin(series);
        if self.timestamps {
            let (seconds, rest) = (series.timestamp_ns / NS, series.timestamp_ns % NS);
            let end = &mut self.lines.end;
            push(end, format_args!(" {seconds}.{:03}", rest / 1_000_000));
        }
        match &series.value {
            Value::Counter(sum) => {
                let name = [group.name, group.suffix];
                let is_counter = group.metric_type == "counter";
                self.exemplar(series.exemplars.first().filter(|_| is_counter));
                self.lines.sample(name, None, |text| push_sum(text, *sum));
            }
            Value::Gauge(value) => {
                let name = [group.name, group.suffix];
                self.lines
                    .sample(name, None, |text| push_float(text, *value));
            }
            Value::Histogram(value) => self.histogram(series, value, bounds),
            Value::Summary(value) => self.summary(group.name, value),
        }
    }

    fn histogram(&mut self, series: &Series, value: &HistogramValue, bounds: &[String]) {
        let family = &*series.family;
        let mut exemplars = Exemplars(&series.exemplars);
        let upper = family.buckets.iter().chain([&f64::INFINITY]);
        for ((bound, &upper), count) in bounds.iter().zip(upper).zip(&value.cumulative) {
            self.exemplar(exemplars.within(upper));
            let own = Some(("le", bound.as_str()));
            self.lines.sample([&family.name, "_bucket"], own, |text| {
                push(text, format_args!("{count}"))
            });
        }
        // One of the two without the other is refused.
        if has_growing_sum(family) && value.sum.value() >= 0.0 {
            self.totals(&family.name, Some(value.sum), value.count);
        }
    }

    /// Has the next sample end with it.
    fn exemplar(&mut self, exemplar: Option<&Exemplar>) {
        if let Some(exemplar) = exemplar {
            let tail = &mut self.lines.tail;
            let trace_id = exemplar.trace_id;
            push(tail, format_args!(" # {{trace_id=\"{trace_id:032x}\"}} "));
            push_float(tail, exemplar.value);
            let (seconds, rest) = (exemplar.timestamp_ns / NS, exemplar.timestamp_ns % NS);
            push(tail, format_args!(" {seconds}.{:03}", rest / 1_000_000));
        }
    }

    fn summary(&mut self, name: &str, value: &SummaryValue) {
        let told = value
            .quantiles
            .iter()
            .filter(|(_, value)| value.is_nan() || *value >= 0.0);
        for &(quantile, value) in told {
            let label = canonical(quantile);
            self.lines
                .sample([name, ""], Some(("quantile", &label)), |text| {
                    push_float(text, value)
                });
        }
        let sum = Some(value.sum).filter(|sum| sum.value() >= 0.0);
        self.totals(name, sum, value.count);
    }

    fn totals(&mut self, name: &str, sum: Option<Sum>, count: u64) {
        if let Some(sum) = sum {
            self.lines
                .sample([name, "_sum"], None, |text| push_sum(text, sum));
        }
        self.lines.sample([name, "_count"], None, |text| {
            push(text, format_args!("{count}"))
        });
    }
}

fn ends_with_unit(name: &str, unit: &str) -> bool {
    let stem = name
        .strip_suffix(unit)
        .and_then(|rest| rest.strip_suffix('_'));
    !unit.is_empty() && stem.is_some_and(|stem| !stem.is_empty())
}

#[cfg(test)]
mod tests;
