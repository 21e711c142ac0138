//! Where to listen, as it is typed: for a scrape endpoint, and for StatsD.

use std::path::PathBuf;

/// An address, or a socket in the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// Host and port.
    Host(String),
    /// A Unix socket, and who may connect to it.
    Unix {
        /// Where.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

impl Endpoint {
    /// Reads `HOST:PORT`, `[V6]:PORT`, `:PORT` (all addresses, as Prometheus' servers have it) or
    /// `unix:PATH[,mode=OCTAL]`; `None` for anything else. A socket without a mode has that one.
    pub(crate) fn parse(text: &str, mode: u32) -> Option<Endpoint> {
        if let Some(rest) = text.strip_prefix("unix:") {
            let (path, mode) = match rest.rsplit_once(",mode=") {
                Some((path, mode)) => (path, u32::from_str_radix(mode, 8).ok()?),
                None => (rest, mode),
            };
            let path = (!path.is_empty() && mode <= 0o777).then(|| path.into())?;
            return Some(Endpoint::Unix { path, mode });
        }
        let (host, port) = text.rsplit_once(':')?;
        port.parse::<u16>().ok()?;
        let is_bare_v6 = host.contains(':') && !host.starts_with('[');
        let host = if host.is_empty() { "[::]" } else { host };
        (!is_bare_v6).then(|| Endpoint::Host(format!("{host}:{port}")))
    }
}
