//! The Collector: add metrics from any thread and process, read them back, export them.
//!
//! Without set-up a [`Collector`] embeds everything: a private bus and an aggregator thread. With a
//! bus named (in [`CollectorOptions::bus`], or the environment's `QBUS`) it emits to that one and
//! reads its snapshot, and `qbus agg` does the rest for all processes together.
//!
//! ```
//! use qbus_collector::{Collector, CollectorOptions, Metric};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let collector = Collector::new(&CollectorOptions::default())?;
//! collector.add_metric(&Metric {
//!     labels: &[("model", "qwen3-vl"), ("input_size", "large")],
//!     description: "Model inference latency in seconds",
//!     ..Metric::gauge("model_inference_latency", 0.125)
//! })?;
//! let page = collector.export_to_prometheus(false)?;
//! let line = r#"model_inference_latency{model="qwen3-vl",input_size="large"} 0.125"#;
//! assert!(page.lines().any(|found| found == line));
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod collector;
mod embedded;
mod error;
mod global;
#[cfg(feature = "statsd")]
mod listen;
mod performance;
#[cfg(feature = "push")]
mod push;
mod query;
mod reading;
#[cfg(feature = "http")]
mod serve;
mod statistics;
mod validation;

pub use collector::{Collector, CollectorOptions};
pub use error::{AddError, ExportError, ResetError, StartError, TrackError};
pub use global::{
    GlobalError, add_performance_metric, end_performance_tracking, get_metrics_collector,
    queue_performance_metric, start_performance_tracking,
};
pub use performance::Performance;
pub use qbus::MetricType;
#[cfg(feature = "statsd")]
pub use qbus_agent::listen::{ListenError, ListenOptions, Listeners};
#[cfg(feature = "push")]
pub use qbus_agent::push::{Destination, Protocol, PushError, PushOptions, Pusher};
#[cfg(feature = "http")]
pub use qbus_agent::serve::{Listen, ServeError, Server};
pub use qbus_agent::{Metric, MetricError};
pub use qbus_aggregate::export::Format;
pub use qbus_sampler::SamplerOptions;
pub use reading::Reading;
pub use statistics::Statistics;
