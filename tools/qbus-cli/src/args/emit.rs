//! What was typed after `emit`.

use clap::Parser;
use qbus::{Merge, MetricType, Window};

use super::{parse_label, parse_merge, parse_number, parse_trace_id, parse_type, parse_window};

/// Emit one value, or a JSON line for each from standard input.
///
/// A line: {"name", "value", "type", "labels", "description", "unit", "buckets", "native", "total",
/// "add", "merge", "window", "timestamp", "trace_id"} with name and value required, the type
/// "gauge" when none is given, "native", "total" and "add" true or false, and the timestamp in
/// seconds since 1970. A bad line is reported with its number, the others go on, and the exit
/// status is 2. Where the bus is aggregated, a dump shows what was emitted from the end of the
/// command on; it waits two seconds for that at most.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  qbus emit batch_size 32 --label model=qwen3-vl\n  \
    qbus emit queue_depth -1 --add\n  \
    qbus emit backup_bytes_total \"$(du -sb /backup | cut -f1)\" --total\n  \
    echo '{\"name\":\"jobs_total\",\"value\":1,\"type\":\"counter\"}' | qbus emit --stdin\n\n\
    A summary's quantiles are of its last ten minutes (--window), its count and sum of all time. \
    For\n\
    quantiles of any time span, or over several hosts, emit a histogram, of which Prometheus makes \
    them."
)]
pub(crate) struct Emit {
    /// The metric.
    #[arg(required_unless_present = "stdin", conflicts_with = "stdin")]
    pub(crate) name: Option<String>,
    /// Its value: an increment, a level or an observation.
    #[arg(
        required_unless_present = "stdin",
        // So that -5e-3 and -Inf are values.
        allow_hyphen_values = true,
        value_parser = parse_number
    )]
    pub(crate) value: Option<f64>,
    /// Read JSON lines from standard input.
    #[arg(long)]
    pub(crate) stdin: bool,
    /// The metric's type: counter, gauge, histogram, summary or untyped; gauge, unless --total says
    /// that it is a counter.
    #[arg(long = "type", value_parser = parse_type, value_name = "TYPE")]
    pub(crate) metric_type: Option<MetricType>,
    /// A label (repeatable).
    #[arg(long = "label", value_parser = parse_label, value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<(String, String)>,
    /// What the metric means.
    #[arg(long, default_value = "")]
    pub(crate) description: String,
    /// Its base unit: seconds, bytes, …
    #[arg(long, default_value = "")]
    pub(crate) unit: String,
    /// Upper bounds of a histogram's buckets.
    #[arg(
        long,
        value_delimiter = ',',
        // A list that starts with a negative number is not a number.
        allow_hyphen_values = true,
        value_parser = parse_number,
        value_name = "BOUNDS"
    )]
    pub(crate) buckets: Vec<f64>,
    /// Count finer than the buckets too, as Prometheus' native histograms do.
    #[arg(long, conflicts_with = "stdin")]
    pub(crate) native: bool,
    /// The value is the counter's total, which is kept elsewhere, and no increment. Only one
    /// process should say it; a smaller one than before is a restart.
    #[arg(long, conflicts_with_all = ["add", "stdin"])]
    pub(crate) total: bool,
    /// Add the value to what the gauge is; it may be negative.
    #[arg(long, conflicts_with = "stdin")]
    pub(crate) add: bool,
    /// What several processes make of the gauge: last, sum, min, max, all or mostrecent, or one of
    /// these with "live" before it.
    #[arg(long, value_parser = parse_merge, conflicts_with = "stdin", default_value = "last",
        hide_default_value = true, value_name = "HOW")]
    pub(crate) merge: Merge,
    /// What the quantiles of a summary are of: the last minute (1m), in steps of ten seconds
    /// (1m/6), or all time (all). Ten minutes in five steps, unless the metric has another.
    #[arg(long, value_parser = parse_window, conflicts_with = "stdin", value_name = "WINDOW")]
    pub(crate) window: Option<Window>,
    /// When it was so, in seconds since 1970; now, unless given.
    #[arg(long, value_parser = parse_number, allow_hyphen_values = true, value_name = "SECONDS")]
    pub(crate) timestamp: Option<f64>,
    /// The trace that it belongs to, 32 hexadecimal digits: pages show it as an exemplar.
    #[arg(
        long,
        visible_alias = "exemplar",
        value_parser = parse_trace_id,
        default_value = "0",
        hide_default_value = true
    )]
    pub(crate) trace_id: u128,
}

impl Emit {
    /// The metric's type: as typed, or as the value's meaning has it.
    pub(crate) fn metric_type(&self) -> MetricType {
        let meant = if self.total {
            MetricType::Counter
        } else {
            MetricType::Gauge
        };
        self.metric_type.unwrap_or(meant)
    }
}
