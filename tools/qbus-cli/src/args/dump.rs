//! What was typed after `dump`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use qbus_aggregate::export::Format;

use super::{parse_duration, parse_format, parse_interval, parse_static_label};

/// Print the snapshot as JSON, CSV, Prometheus text, OpenMetrics or Prometheus protobuf.
///
/// It reads the snapshot alone: also while the aggregator runs, after it is gone, or from a copy.
///
/// JSON and CSV load in pandas, polars, DuckDB and jq as they are. A spreadsheet takes a cell that
/// begins with =, +, - or @ for a formula: the column `description` can, since it says what
/// producers wrote, and is left as it is. Import it as text unless you trust all who emit.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  qbus dump\n  qbus dump -f csv -o metrics.csv --match 'model_*' \
                  --match 'demo_*'\n  qbus dump --follow 15s -o /var/lib/node_exporter/qbus.prom \
                  --label host=$(hostname)\n  qbus dump -f csv --follow --match queue_depth | tee \
                  queue.csv\n\n\
                  Quantiles of a summary are of its window, the last ten minutes unless it was \
                  registered with\n\
                  another, and NaN where nothing was observed in it; its count and sum are of all \
                  time. Those of a\n\
                  histogram are Prometheus' to make: histogram_quantile(0.99, \
                  rate(NAME_bucket[5m]))."
)]
pub(crate) struct Dump {
    /// The format: json, csv, prometheus, openmetrics or protobuf.
    #[arg(short, long, default_value = "prometheus", value_parser = parse_format)]
    pub(crate) format: Format,
    /// Write to a file, which is replaced as a whole; `-` is standard output. Links are followed,
    /// devices and pipes are written to.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Only metrics whose name matches the pattern (`*`, `?`, `[…]`; repeatable: any of them).
    #[arg(long = "match", value_name = "GLOB")]
    pub(crate) matching: Vec<glob::Pattern>,
    /// No metrics whose name matches the pattern (repeatable), whatever --match says.
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<glob::Pattern>,
    /// A label for every series (repeatable); one that has a label of the name keeps its own.
    #[arg(long = "label", value_parser = parse_static_label, value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<(String, String)>,
    /// Also the histories (JSON and CSV).
    #[arg(long)]
    pub(crate) history: bool,
    /// Timestamps behind the samples of the formats of Prometheus; JSON and CSV always have them.
    #[arg(long)]
    pub(crate) timestamps: bool,
    /// Again after each second, or DURATION, until ^C, where there was a commit since: a file is
    /// replaced each time; standard output gets one document after the other, and of CSV the header
    /// once, and then the rows of series that something was emitted to.
    #[arg(
        long,
        num_args = 0..=1,
        default_missing_value = "1s",
        conflicts_with = "history",
        value_parser = parse_interval,
        value_name = "DURATION"
    )]
    pub(crate) follow: Option<Duration>,
    /// Read this snapshot file, and no bus.
    #[arg(long, value_name = "FILE")]
    pub(crate) snapshot: Option<PathBuf>,
    /// Print nothing, and exit with 1, when the last commit is longer ago. (The sampler of `qbus
    /// agg` sees to a commit a second; where it is off, an idle bus ages.)
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) max_age: Option<Duration>,
}

impl Dump {
    /// Whether a metric of that name is wanted.
    pub(crate) fn takes(&self, name: &str) -> bool {
        let is_like = |pattern: &glob::Pattern| pattern.matches(name);
        let is_meant = self.matching.is_empty() || self.matching.iter().any(is_like);
        is_meant && !self.exclude.iter().any(is_like)
    }
}
