//! What was typed after `agg` about what is sent on.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use qbus_agent::push::{Destination, Protocol};

use super::parse_interval;

/// Who receives the snapshot, and how.
#[derive(Debug, Parser)]
#[command(next_help_heading = "Sending on")]
pub(crate) struct Push {
    /// Send all series on by Prometheus' remote write (repeatable): to Prometheus, Mimir,
    /// VictoriaMetrics, Thanos, …
    ///
    /// Options follow the URL behind commas: basic=FILE (USER:PASSWORD), bearer=FILE,
    /// headers=FILE, ca=FILE, cert=FILE, key=FILE, timeout=SECONDS, native (also native
    /// histograms), v2 (remote write 2.0, and 1.0 where the receiver does not take it).
    #[arg(long, value_name = "URL[,OPTION]…", value_parser = parse_remote_write)]
    pub(crate) remote_write: Vec<Destination>,
    /// Send all series on by OTLP over HTTP (repeatable): to an OpenTelemetry collector, or what
    /// speaks as one.
    ///
    /// Without a URL as OTEL_EXPORTER_OTLP_ENDPOINT and the related variables of the environment
    /// say, else to http://localhost:4318. Options as for --remote-write; and plain, for no
    /// compression.
    #[arg(
        long,
        value_name = "URL[,OPTION]…",
        num_args = 0..=1,
        default_missing_value = "",
        value_parser = parse_otlp
    )]
    pub(crate) otlp: Vec<Destination>,
    /// Between two times that the series are sent on.
    #[arg(long, default_value = "10s", value_parser = parse_interval, value_name = "DURATION")]
    pub(crate) push_interval: Duration,
    /// Keep what waits for a receiver in this folder: it survives restarts and kills.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) push_queue: Option<PathBuf>,
    /// How much may wait for each receiver, beyond which the oldest is dropped: bytes, or with KiB,
    /// MiB or GiB.
    #[arg(long, default_value = "64MiB", value_parser = parse_bytes, value_name = "SIZE")]
    pub(crate) push_queue_size: u64,
    /// Aggregate what the bus has, send it on once, and end: after a batch job. The exit status is
    /// 2 where a receiver did not take all of it.
    #[arg(long)]
    pub(crate) push_once: bool,
}

impl Push {
    /// All who receive.
    pub(crate) fn destinations(&self) -> Vec<Destination> {
        self.remote_write
            .iter()
            .chain(&self.otlp)
            .cloned()
            .collect()
    }
}

fn parse_remote_write(text: &str) -> Result<Destination, String> {
    Destination::parse(text, Protocol::RemoteWrite).map_err(|error| error.to_string())
}

fn parse_otlp(text: &str) -> Result<Destination, String> {
    let typed = (!text.is_empty()).then_some(text);
    Destination::otlp_of_environment(typed).map_err(|error| error.to_string())
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let units = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("", 1),
    ];
    let parse = |(unit, factor): (&str, u64)| {
        let number: u64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(factor).filter(|bytes| *bytes > 0)
    };
    let found = units.into_iter().find_map(parse);
    found.ok_or_else(|| "expected a size: 1000000, 64MiB, 2GiB".to_owned())
}
