//! Metrics that node_exporter has too, and whose qbus names follow from its names.
//!
//! The table of readings spells what qbus names in its own words. What has no entry there (a key of
//! `/proc/vmstat`, a class of `/sys`) is named by its node_exporter name: `node_` becomes
//! `qbus_host_`, capitals become small, and a total ends in `_total`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::metric::{Metric, Names, Trend};

/// Units that a name can end in; the unit of a metric is the one that its name says.
const UNITS: [&str; 11] = [
    "bytes", "seconds", "celsius", "volts", "amperes", "watts", "joules", "hertz", "ratio", "rpm",
    "packets",
];

/// What node_exporter abbreviates or has in the singular.
const PLURALS: [(&str, &str); 4] = [
    ("_amps", "_amperes"),
    ("_watt", "_watts"),
    ("_volt", "_volts"),
    ("_joule", "_joules"),
];

/// Metrics that were met, by their node_exporter names.
#[derive(Debug, Default)]
pub(crate) struct Catalog(HashMap<String, Arc<NodeMetric>>);

impl Catalog {
    /// A total.
    pub(crate) fn counter(&mut self, node: &str, help: &str) -> &Arc<NodeMetric> {
        self.get(node, Trend::Counter, Trend::Counter, help)
    }

    /// A value that goes up and down.
    pub(crate) fn gauge(&mut self, node: &str, help: &str) -> &Arc<NodeMetric> {
        self.get(node, Trend::Gauge, Trend::Gauge, help)
    }

    /// What node_exporter has under the type `in_node`, and is in truth of the type `trend`.
    pub(crate) fn get(
        &mut self,
        node: &str,
        in_node: Trend,
        trend: Trend,
        help: &str,
    ) -> &Arc<NodeMetric> {
        if !self.0.contains_key(node) {
            let name = Cow::Owned(node.to_owned());
            let metric = NodeMetric::new(name, in_node, trend, Cow::Owned(help.to_owned()));
            self.0.insert(node.to_owned(), metric);
        }
        &self.0[node]
    }
}

/// A metric under node_exporter's name, and under the qbus name that follows from it.
#[derive(Debug)]
pub(crate) struct NodeMetric {
    node: Metric,
    qbus: Metric,
}

impl NodeMetric {
    /// A value that goes up and down.
    pub(crate) fn gauge(node: impl Into<Cow<'static, str>>, help: &'static str) -> Arc<Self> {
        NodeMetric::new(node.into(), Trend::Gauge, Trend::Gauge, help.into())
    }

    /// A metric of somebody else's naming, which every set of names has as it is.
    pub(crate) fn as_named(name: String, trend: Trend, help: String) -> Arc<Self> {
        let metric = Metric {
            unit: Cow::Borrowed(""),
            name: name.into(),
            trend,
            help: help.into(),
        };
        Arc::new(NodeMetric {
            node: metric.clone(),
            qbus: metric,
        })
    }

    fn new(
        node: Cow<'static, str>,
        in_node: Trend,
        trend: Trend,
        help: Cow<'static, str>,
    ) -> Arc<Self> {
        let name = qbus_name(&node, trend);
        let stem = name.trim_end_matches("_total");
        let unit = UNITS.iter().find(|unit| stem.ends_with(*unit));
        let unit = Cow::Borrowed(unit.copied().unwrap_or_default());
        Arc::new(NodeMetric {
            node: Metric {
                name: node,
                trend: in_node,
                unit: unit.clone(),
                help: help.clone(),
            },
            qbus: Metric {
                name: name.into(),
                trend,
                unit,
                help,
            },
        })
    }

    pub(crate) fn published(&self, names: Names) -> &Metric {
        match names {
            Names::Node => &self.node,
            Names::Qbus | Names::Seed => &self.qbus,
        }
    }
}

/// `node_netstat_TcpExt_ListenDrops` is `qbus_host_netstat_tcpext_listen_drops_total`.
fn qbus_name(node: &str, trend: Trend) -> String {
    // `sec` would be read as the unit.
    let tail = node
        .strip_prefix("node_")
        .unwrap_or(node)
        .replace("Sec", "Secondary");
    let mut name = String::from("qbus_host_");
    let mut after_small = false;
    for c in tail.chars() {
        if c.is_ascii_uppercase() && after_small {
            name.push('_');
        }
        after_small = c.is_ascii_lowercase();
        name.push(match c {
            c if c.is_ascii_alphanumeric() || c == '_' => c.to_ascii_lowercase(),
            _ => '_',
        });
    }
    // Names end in no unit that is not a base unit, and in nothing that histograms add.
    let mut stem = name.as_str();
    for end in ["_total", "_bits", "_count"] {
        stem = stem.strip_suffix(end).unwrap_or(stem);
    }
    let plural = PLURALS.iter().find(|(one, _)| stem.ends_with(one));
    let stem = match plural {
        Some((one, many)) => stem[..stem.len() - one.len()].to_owned() + many,
        None => stem.to_owned(),
    };
    match trend {
        Trend::Counter => stem + "_total",
        Trend::Gauge | Trend::Untyped => stem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qbus_name_follows_from_that_of_node_exporter() {
        let drops = "node_netstat_TcpExt_ListenDrops".to_owned();
        let help = Cow::Borrowed("Drops.");
        let drops = NodeMetric::new(drops.into(), Trend::Untyped, Trend::Counter, help);
        let name = &drops.published(Names::Qbus).name;
        assert_eq!(name, "qbus_host_netstat_tcp_ext_listen_drops_total");
        assert_eq!(drops.published(Names::Node).trend, Trend::Untyped);
        let volts = NodeMetric::gauge("node_hwmon_in_volts", "Voltage.");
        assert_eq!(volts.published(Names::Qbus).unit, "volts");
    }
}
