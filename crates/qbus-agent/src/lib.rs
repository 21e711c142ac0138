//! The aggregator process as a library.
//!
//! An [`Agent`] drains a bus into its snapshot on one thread and samples the machine on another, until
//! it is stopped. `qbus agg` is arguments and signals around an agent; an embedded collector is an agent
//! on threads of its own process. Nothing here prints: what a person should know goes to a closure.
#![forbid(unsafe_code)]

mod agent;
mod error;
mod sampling;
mod self_metrics;

pub use agent::{Agent, AgentOptions};
pub use error::{ResetError, StartError};
pub use sampling::{SamplingOptions, definition, owned};
