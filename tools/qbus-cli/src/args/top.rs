//! What was typed after `top`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use super::parse_duration;

/// Watch the bus on a terminal: metrics, workers, machine, ledger.
///
/// It reads the snapshot alone, and what the bus says of its processes: also after the aggregator
/// is gone (it says so), or from a copy. `?` shows the keys.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  qbus top -b inference --filter model=qwen3-vl\n  \
    qbus top --once --view workers\n  \
    qbus top --snapshot copy.snap"
)]
pub(crate) struct Top {
    /// Between two readings.
    #[arg(
        short = 'i',
        long,
        default_value = "1s",
        value_parser = parse_duration,
        value_name = "DURATION"
    )]
    pub(crate) interval: Duration,
    /// Print one screen as plain text, all of its lines, and end: after one interval, as rates need
    /// two readings.
    #[arg(long)]
    pub(crate) once: bool,
    /// The view to begin with.
    #[arg(long, value_enum, default_value = "metrics", value_name = "VIEW")]
    pub(crate) view: TopView,
    /// Only what this takes: a part of a name or a label's value, label=value, /regex/; all of its
    /// words.
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT"
    )]
    pub(crate) filter: crate::top::filter::Filter,
    /// By what metrics are sorted.
    #[arg(long, value_enum, default_value = "activity", value_name = "COLUMN")]
    pub(crate) sort: TopSort,
    /// Draw with ASCII alone; so it does where the locale says so. Colours are off where NO_COLOR
    /// is set.
    #[arg(long)]
    pub(crate) ascii: bool,
    /// Read this snapshot file instead of the one beside the bus.
    #[arg(long, value_name = "FILE")]
    pub(crate) snapshot: Option<PathBuf>,
}

/// A view of `qbus top`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TopView {
    /// What the application counts and measures, and who emits.
    Metrics,
    /// The processes that emit.
    Workers,
    /// Processor, memory, disks, networks, GPUs.
    Machine,
    /// The aggregator, lanes, and what became of all records.
    Bus,
}

/// By what `qbus top` sorts metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TopSort {
    /// What moves most.
    Activity,
    /// The value, or the rate.
    Now,
    /// The 99th percentile of the last ticks.
    P99,
    /// The name.
    Name,
}
