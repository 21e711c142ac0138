//! What was typed of serving.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use qbus_agent::serve::Listen;

use super::{parse_duration, parse_static_label};
use crate::log::Level;

/// Serve the snapshot over HTTP: /metrics for scrapers, the dashboard at /.
///
/// It needs the snapshot alone, and survives every restart of the aggregator. Without a snapshot,
/// or with an old one, it answers 503 and says why. /metrics answers in OpenMetrics, text or
/// protobuf (with native histograms), as the scraper asks.
#[derive(Debug, Parser)]
#[command(
    after_help = "Examples:\n  qbus serve\n  qbus serve --listen '[::1]:9464' --listen \
        unix:/run/qbus.sock,mode=0660"
)]
pub(crate) struct Serve {
    /// Where to listen (repeatable): 127.0.0.1:9464, [::1]:9464, :9464 (all addresses),
    /// unix:PATH[,mode=0660], or systemd for the sockets of its unit.
    #[arg(
        long,
        alias = "web.listen-address",
        default_value = "127.0.0.1:9464",
        value_name = "ADDRESS"
    )]
    pub(crate) listen: Vec<Listen>,
    /// Serve this snapshot file instead of the one beside the bus.
    #[arg(long, value_name = "FILE")]
    pub(crate) snapshot: Option<PathBuf>,
    /// Answer 503 when the last commit is longer ago, or "off". (The sampler of `qbus agg` sees to
    /// a commit a second; where it is off, an idle bus ages.)
    #[arg(long, default_value = "1m", value_name = "DURATION")]
    pub(crate) max_age: MaxAge,
    /// A label for every series of a page (repeatable), `host=a7` say; one that has a label of the
    /// name keeps its own. The dashboard shows them without.
    #[arg(long = "label", value_parser = parse_static_label, value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) web: Web,
    /// What is said on standard error.
    #[arg(long, value_enum, default_value_t, value_name = "LEVEL")]
    pub(crate) log_level: Level,
}

/// How it is served: who may ask, and how much.
#[derive(Debug, Parser)]
pub(crate) struct Web {
    /// TLS and passwords: a file in the format of Prometheus' exporter toolkit, read again when it
    /// changes.
    #[arg(long = "web.config.file", value_name = "FILE")]
    pub(crate) web_config: Option<PathBuf>,
    /// Answer 503 to more requests at once; 0 for no limit.
    #[arg(long = "web.max-requests", default_value_t = 40, value_name = "NUMBER")]
    pub(crate) max_requests: usize,
    /// A name of this host by which its own clients may call it (repeatable), beside localhost,
    /// addresses and the host's name. Clients from elsewhere may use any.
    #[arg(long = "web.allowed-host", value_name = "NAME")]
    pub(crate) allowed_hosts: Vec<String>,
}

impl Web {
    /// Whether anything of it was typed that would change what is served.
    pub(crate) fn is_typed(&self) -> bool {
        self.web_config.is_some() || !self.allowed_hosts.is_empty()
    }
}

/// How old a snapshot may be that is served.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MaxAge(pub(crate) Option<Duration>);

impl std::str::FromStr for MaxAge {
    type Err = String;

    fn from_str(text: &str) -> Result<MaxAge, String> {
        if text == "off" {
            return Ok(MaxAge(None));
        }
        parse_duration(text).map(|age| MaxAge(Some(age)))
    }
}
