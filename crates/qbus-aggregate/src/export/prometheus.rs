//! The text exposition format 0.0.4 of Prometheus.

use std::io::{self, Write};

use qbus::MetricType;

use super::exposition::{Lines, Names, Sound, push_escaped};
use super::number::{push, push_float, push_sum};
use super::{Exported, LeftOut, Options};
use crate::series::{Family, HistogramValue, Series, SummaryValue, Value};
use crate::snapshot::reader::Named;
use crate::sum::Sum;

/// The media type to serve a page with. Prometheus 3 refuses a page that has none.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Writes series as a page of the text format 0.0.4 (Prometheus documentation, "Exposition
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
/// * A histogram has cumulative buckets up to `le="+Inf"`, `_sum` and `_count`. (OpenMetrics
///   forbids a sum that can shrink; here a reader would take 0 for one that is missing.)
/// * A summary has its quantiles (of its window, [`Family::window`]; NaN where nothing was observed
///   in it), and `_sum` and `_count`, which are of all time.
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
pub fn prometheus<'a>(
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
        let family = all.family();
        if names.claim(&family.name, suffixes(family.metric_type)) {
            left_out.series += page.family(all)?;
        } else {
            left_out.family(&all);
        }
    }
    page.lines.finish()?;
    Ok(left_out)
}

/// What the names of a type's samples end with.
pub(super) fn suffixes(metric_type: MetricType) -> &'static [&'static str] {
    match metric_type {
        MetricType::Counter | MetricType::Gauge | MetricType::Untyped => &[""],
        // A histogram has no sample of the bare name, but its `TYPE` line does claim it.
        MetricType::Histogram => &["", "_bucket", "_sum", "_count"],
        MetricType::Summary => &["", "_sum", "_count"],
    }
}

struct Page<'a> {
    lines: Lines<'a>,
    timestamps: bool,
}

impl Page<'_> {
    /// Writes the series of a family. Returns how many of them it left out.
    fn family(&mut self, all: Named<'_>) -> io::Result<u64> {
        let family = all.family();
        let mut bounds = Vec::new();
        if family.metric_type == MetricType::Histogram {
            bounds.extend(family.buckets.iter().chain([&f64::INFINITY]).map(|&bound| {
                let mut text = String::new();
                push_float(&mut text, bound);
                text
            }));
        }
        let mut sound = Sound::new(all);
        let mut has_head = false;
        for series in sound.by_ref() {
            if !has_head {
                self.head(family);
                has_head = true;
            }
            self.series(&series, &bounds);
            self.lines.pass_on()?;
        }
        Ok(sound.left_out())
    }

    fn head(&mut self, family: &Family) {
        let (name, metric_type) = (&family.name, family.metric_type.as_str());
        let text = &mut self.lines.text;
        push(text, format_args!("# TYPE {name} {metric_type}\n"));
        if !family.help.is_empty() {
            push(text, format_args!("# HELP {name} "));
            push_escaped(text, &family.help, false);
            text.push('\n');
        }
    }

    fn series(&mut self, series: &Series, bounds: &[String]) {
        self.lines.begin(series);
        if self.timestamps {
            let milliseconds = series.timestamp_ns / 1_000_000;
            push(&mut self.lines.end, format_args!(" {milliseconds}"));
        }
        let family = &*series.family;
        match &series.value {
            Value::Counter(sum) => {
                self.lines
                    .sample([&family.name, ""], None, |text| push_sum(text, *sum));
            }
            Value::Gauge(value) => {
                self.lines
                    .sample([&family.name, ""], None, |text| push_float(text, *value));
            }
            Value::Histogram(value) => self.histogram(family, value, bounds),
            Value::Summary(value) => self.summary(family, value),
        }
    }

    fn histogram(&mut self, family: &Family, value: &HistogramValue, bounds: &[String]) {
        for (bound, count) in bounds.iter().zip(&value.cumulative) {
            let own = Some(("le", bound.as_str()));
            self.lines.sample([&family.name, "_bucket"], own, |text| {
                push(text, format_args!("{count}"))
            });
        }
        self.totals(&family.name, value.sum, value.count);
    }

    fn summary(&mut self, family: &Family, value: &SummaryValue) {
        let name = &family.name;
        let mut label = String::new();
        for &(quantile, value) in &value.quantiles {
            label.clear();
            push_float(&mut label, quantile);
            let own = Some(("quantile", label.as_str()));
            self.lines
                .sample([name, ""], own, |text| push_float(text, value));
        }
        self.totals(name, value.sum, value.count);
    }

    fn totals(&mut self, name: &str, sum: Sum, count: u64) {
        self.lines
            .sample([name, "_sum"], None, |text| push_sum(text, sum));
        self.lines.sample([name, "_count"], None, |text| {
            push(text, format_args!("{count}"))
        });
    }
}

#[cfg(test)]
mod tests;
