//! What node_exporter says of its own collectors, on a page of its names.

use std::sync::Arc;

use crate::config::Source;
use crate::metric::{Names, Sample};
use crate::node_metric::NodeMetric;
use crate::sampler::Outcome;

/// The metrics of a scrape.
pub(crate) struct Scrape {
    success: Arc<NodeMetric>,
    duration: Arc<NodeMetric>,
    build: Arc<NodeMetric>,
}

impl Default for Scrape {
    fn default() -> Scrape {
        Scrape {
            success: NodeMetric::gauge(
                "node_scrape_collector_success",
                "Whether the last read of a collector succeeded (1).",
            ),
            duration: NodeMetric::gauge(
                "node_scrape_collector_duration_seconds",
                "Time that the last read of a collector took.",
            ),
            build: NodeMetric::gauge(
                "node_exporter_build_info",
                "What hands these metrics over, as labels; the value is 1.",
            ),
        }
    }
}

impl Scrape {
    /// Hands over how each source fared, under the names of the collectors that read the same.
    pub(crate) fn emit(&self, outcomes: &[Outcome], emit: &mut dyn FnMut(Sample<'_>)) {
        let mut push = |metric: &NodeMetric, labels: &[(&str, &str)], value| {
            emit(Sample {
                source: "sampler",
                metric: metric.published(Names::Node),
                labels,
                value,
            });
        };
        for outcome in outcomes {
            let source = Source::from_name(outcome.source);
            for collector in source.map_or(&[][..], Source::node_collectors) {
                let labels = [("collector", *collector)];
                let success = f64::from(u8::from(outcome.success));
                push(&self.success, &labels, success);
                push(&self.duration, &labels, outcome.took.as_secs_f64());
            }
        }
        let build = [
            ("branch", "qbus"),
            ("goversion", "none"),
            ("revision", "qbus"),
            ("version", env!("CARGO_PKG_VERSION")),
        ];
        push(&self.build, &build, 1.0);
    }
}
