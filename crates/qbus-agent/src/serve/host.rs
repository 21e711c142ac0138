//! By which name a client calls this host.
//!
//! A page of a stranger can make its reader's browser ask a server on the reader's own machine,
//! once the stranger's name resolves to 127.0.0.1 (DNS rebinding); the browser then takes the
//! answer for the stranger's. But it says by which name it asks. So who comes over the loopback
//! interface has to use a name that no stranger can own.

use std::fs;
use std::net::IpAddr;

/// How a client comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locality {
    /// From this machine, over TCP: as a browser does.
    Loopback,
    /// From elsewhere, where every name may be right.
    Network,
    /// Over a unix socket, as no browser does.
    Unix,
}

/// The names that this host is called by.
#[derive(Debug)]
pub(super) struct Names(Vec<String>);

impl Names {
    /// `localhost`, the host's own, and those.
    pub(super) fn new(allowed: &[String]) -> Names {
        let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let own = own.trim().to_ascii_lowercase();
        let allowed = allowed.iter().map(|name| name.to_ascii_lowercase());
        Names(allowed.chain([own, "localhost".to_owned()]).collect())
    }

    /// Whether a `Host` header names this server: a page that rebinds its DNS name to it names
    /// itself.
    pub(super) fn takes(&self, host: Option<&str>, locality: Locality) -> bool {
        let Some(host) = host.filter(|_| locality == Locality::Loopback) else {
            return true;
        };
        let name = without_port(host).to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok()
            || name.ends_with(".localhost")
            || (!name.is_empty() && self.0.contains(&name))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_s_name_is_refused_on_the_loopback_alone() {
        let names = Names::new(&["Metrics.example".to_owned()]);
        for host in [
            "localhost",
            "LOCALHOST:9464",
            "a.localhost:1",
            "127.0.0.1:9464",
            "[::1]:9464",
            "[::1]",
            "10.0.0.1",
            "metrics.example:80",
        ] {
            assert!(names.takes(Some(host), Locality::Loopback), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:9464",
            "",
            "127.0.0.1.evil.example",
            ":80",
        ] {
            assert!(!names.takes(Some(host), Locality::Loopback), "{host}");
            assert!(names.takes(Some(host), Locality::Network));
            assert!(names.takes(Some(host), Locality::Unix));
        }
        // HTTP/1.0 has no such header, and no browser speaks it.
        assert!(names.takes(None, Locality::Loopback));
    }
}
