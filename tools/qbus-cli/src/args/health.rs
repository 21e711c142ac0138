//! What was typed after `stat` and `doctor`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use super::parse_interval;

/// Show how a bus is: a summary first, then who is attached.
///
/// The first line says whether all is well; lines that begin with ! say what is not, and `qbus
/// doctor` what to do about it. Losses are counted by cause. Rates are those of a quarter of a
/// second, or of the time between two pages.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  qbus stat --watch\n  qbus stat --all --sort lost --match 'vllm*'\n  \
                  qbus stat --json | jq .ledger"
)]
pub(crate) struct Stat {
    /// Also processes that have ended, and all rows where there are many.
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Only processes whose role, program, command line or pid matches the pattern (`*`, `?`,
    /// `[…]`; repeatable: any of them).
    #[arg(long = "match", value_name = "GLOB")]
    pub(crate) matching: Vec<glob::Pattern>,
    /// The order of the processes.
    #[arg(long, value_enum, default_value_t, value_name = "COLUMN")]
    pub(crate) sort: Column,
    /// Also the lanes.
    #[arg(long)]
    pub(crate) lanes: bool,
    /// Show it again after each second, or DURATION, until ^C; with --json a line each.
    #[arg(
        short,
        long,
        num_args = 0..=1,
        default_missing_value = "1s",
        value_parser = parse_interval,
        value_name = "DURATION"
    )]
    pub(crate) watch: Option<Duration>,
    /// As JSON: all processes, those that have ended as well.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the snapshot lies instead of beside the bus.
    #[arg(long, value_name = "FILE")]
    pub(crate) snapshot: Option<PathBuf>,
}

/// What processes are sorted by: the most first, names and numbers of processes in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Column {
    /// Records a second, then records in all.
    #[default]
    Rate,
    /// Records in all.
    Delivered,
    /// Records lost.
    Lost,
    /// How full its fullest lane is.
    Fill,
    /// Lanes.
    Lanes,
    /// Pids.
    Pid,
    /// Roles.
    Role,
    /// Command lines.
    Command,
    /// When they joined, the last first.
    Joined,
}

/// Find out what is wrong with a bus, and what to do about it.
///
/// It looks twice, a second apart: what was lost meanwhile is being lost now. Exit status: 0 where
/// nothing needs to be done, 1 where somebody should look at it (also where there is no bus), 2
/// where data is being lost now.
#[derive(Debug, Parser)]
#[command(
    after_help = "Example:\n  qbus doctor -b inference || mail -s \"qbus on $(hostname)\" oncall"
)]
pub(crate) struct Doctor {
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the snapshot lies instead of beside the bus.
    #[arg(long, value_name = "FILE")]
    pub(crate) snapshot: Option<PathBuf>,
}
