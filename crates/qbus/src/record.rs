//! What a producer emits.

use std::fmt;

/// The type of a metric family, fixed at its registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MetricType {
    /// A sum that only grows; records are increments.
    Counter,
    /// A value that goes up and down; the last one counts.
    Gauge,
    /// Observations counted in buckets that are configured at registration.
    Histogram,
    /// Observations whose quantiles are kept within 1.1 %.
    Summary,
}

impl MetricType {
    /// The word that the export formats use: `counter`, `gauge`, `histogram` or `summary`.
    pub fn as_str(self) -> &'static str {
        match self {
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
            MetricType::Summary => "summary",
        }
    }
}

impl fmt::Display for MetricType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
