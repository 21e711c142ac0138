//! What was typed after `agg` about StatsD.

use std::path::PathBuf;

use clap::Parser;
use qbus_agent::listen::{ListenOptions, StatsdAddress};

/// Where StatsD is listened for.
#[derive(Debug, Parser)]
#[command(next_help_heading = "StatsD")]
pub(crate) struct Statsd {
    /// Also take metrics of StatsD and DogStatsD clients at this address (repeatable):
    /// 127.0.0.1:8125, :8125 (all addresses), or unix:PATH[,mode=0660], for datagrams.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) statsd: Vec<StatsdAddress>,
    /// How StatsD's names become metrics and labels: a file in the format of statsd_exporter.
    #[arg(long, value_name = "FILE", requires = "statsd")]
    pub(crate) statsd_mapping: Option<PathBuf>,
    /// A gauge's value with a sign is a change (StatsD), and not a value (DogStatsD).
    #[arg(long, requires = "statsd")]
    pub(crate) statsd_gauge_deltas: bool,
}

impl Statsd {
    /// What was typed, as listeners want it.
    pub(crate) fn options(&self) -> ListenOptions {
        ListenOptions {
            statsd: self.statsd.clone(),
            mapping: self.statsd_mapping.clone(),
            gauge_deltas: self.statsd_gauge_deltas,
        }
    }
}
