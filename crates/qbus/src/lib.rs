//! A lock-free shared-memory telemetry bus: the part that a producer links.

mod record;

pub use record::MetricType;
