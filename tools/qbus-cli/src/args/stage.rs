//! What was typed after `load`, `bench` and `demo`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, value_parser};
use qbus::MetricType;
#[cfg(feature = "http")]
use qbus_agent::serve::Listen;

use super::parse_type;

/// Generate load: worker processes that emit as fast as they can, or at a rate.
///
/// Their series leave the page, and give their room back, when they have ended.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  qbus load --producers 4 --records 1000000 --kind histogram")]
pub(crate) struct Load {
    /// Worker processes.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..))]
    pub(crate) producers: u32,
    /// Records that each of them emits.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) records: u64,
    /// Records a second and worker, instead of as fast as it goes.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Series of each worker.
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u64).range(1..))]
    pub(crate) series: u64,
    /// The type of its metric: counter, gauge, histogram or summary.
    #[arg(long, default_value = "counter", value_parser = parse_load)]
    pub(crate) kind: MetricType,
    /// Wait while the lane is full, instead of dropping the record: for as long as nobody
    /// aggregates the bus.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Keep the series on the page.
    #[arg(long)]
    pub(crate) keep: bool,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Be the worker of that number.
    #[arg(long, hide = true)]
    pub(crate) worker: Option<u32>,
}

/// Measure this machine: cost of an emit, visibility, sustained rate; with advice.
///
/// On a bus of its own, which is removed at the end.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  qbus bench --json | jq .advice")]
pub(crate) struct Bench {
    /// How long to measure, in all.
    #[arg(long, default_value = "10", value_parser = parse_seconds)]
    pub(crate) seconds: Duration,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show all of it at work: workers, an aggregator, the dashboard, and the three formats.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  qbus demo --workers 8 --seconds 20\n  qbus demo --stay")]
pub(crate) struct Demo {
    /// Worker processes.
    #[arg(long, default_value_t = 4, value_parser = value_parser!(u32).range(1..))]
    pub(crate) workers: u32,
    /// How long they work.
    #[arg(long, default_value = "8", value_parser = parse_seconds)]
    pub(crate) seconds: Duration,
    /// Keep everything running after that, until ^C: time to look at the dashboard.
    #[arg(long)]
    pub(crate) stay: bool,
    /// Where the dashboard is served; a free port of this machine when this one is taken.
    #[cfg(feature = "http")]
    #[arg(long, default_value = "127.0.0.1:9464", value_name = "ADDRESS")]
    pub(crate) listen: Listen,
    /// Where the dumps go; a new folder in the temporary directory when not given.
    #[arg(short, long, value_name = "FOLDER")]
    pub(crate) output: Option<PathBuf>,
    /// Be the worker of that number.
    #[arg(long, hide = true)]
    pub(crate) worker: Option<u32>,
}

/// What has handles of its own.
fn parse_load(text: &str) -> Result<MetricType, String> {
    let found = parse_type(text)
        .ok()
        .filter(|&found| found != MetricType::Untyped);
    found.ok_or_else(|| "expected counter, gauge, histogram or summary".to_owned())
}

/// A year is longer than anybody measures, or shows something.
const SECONDS_MAX: Duration = Duration::from_hours(365 * 24);

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let found = text.parse().ok().map(Duration::try_from_secs_f64);
    let found = found
        .and_then(Result::ok)
        .filter(|time| !time.is_zero() && *time <= SECONDS_MAX);
    found.ok_or_else(|| "expected a number of seconds, more than 0 and at most a year".to_owned())
}
