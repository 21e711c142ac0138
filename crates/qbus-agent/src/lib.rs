//! The aggregator process as a library.
//!
//! An [`Agent`] drains a bus into its snapshot on one thread and samples the machine on another,
//! until it is stopped. `qbus agg` is arguments and signals around an agent; an embedded collector
//! is an agent on threads of its own process. An [`Emitter`] is for all who know a metric by its
//! name. Nothing here prints: what a person should know goes to a closure.
#![forbid(unsafe_code)]

mod agent;
mod by_name;
#[cfg(any(feature = "http", feature = "statsd"))]
mod endpoint;
mod error;
#[cfg(feature = "statsd")]
pub mod listen;
#[cfg(feature = "push")]
pub mod push;
mod sampling;
mod self_metrics;
#[cfg(feature = "http")]
pub mod serve;
pub mod view;

pub use agent::{Agent, AgentOptions};
pub use by_name::{Emitter, Metric, owned};
pub use error::{MetricError, ResetError, StartError};
pub use sampling::{SamplingOptions, metric_type};

/// Hears what a person should know.
type Log = std::sync::Arc<dyn Fn(String) + Send + Sync>;
