//! Reads host, process, cgroup and GPU metrics, and hands them to a closure.
//!
//! A [`Sampler`] has one source for each subject, listed with what they read as [`Source`]. The
//! crate knows no ring and never prints: samples go to a closure, and how each source fared is in
//! its [`Outcome`].
//!
//! * **No source is at the mercy of another.** One that fails or panics is counted and reported
//!   once. What may hang (file systems, sensors, the process table, GPUs) is read on a thread of
//!   its own, and a tick goes by what that thread read last, up to the age of
//!   [`SamplerOptions::keep`].
//! * **Counters are totals** as the kernel or the driver keeps them, never differences. They start
//!   again when the machine, the device or the control group does.
//! * **No value is better than a wrong one.** What can't be read, is out of range or has no limit
//!   has no sample. Ratios over time need two ticks.
//! * **Each series occurs once in a tick.** Processes of one role and command are one series,
//!   unless [`SamplerOptions::pid_label`] is set.
//! * **Files stay open** between ticks, some 20 for the host, 3 for each of the first 64 processes
//!   and 14 for each of the first 8 control groups.
//! * **Nothing is guessed across pid namespaces**: a process that is not in the sampler's own is
//!   skipped and counted, unless the kernel itself tells which pid it has here.
//!
//! ```
//! use std::time::Instant;
//! use qbus_sampler::{SamplerOptions, Sampler};
//!
//! let mut sampler = Sampler::new(SamplerOptions::default());
//! let attached = [].into();
//! let outcomes = sampler.sample(Instant::now(), &attached, &mut |sample| {
//!     assert!(sample.metric.name.starts_with("qbus_"));
//! });
//! assert!(outcomes.iter().any(|outcome| outcome.source == "load" && outcome.samples == 3));
//! ```
#![forbid(unsafe_code)]

mod arguments;
mod cgroup;
mod config;
mod filters;
#[cfg(feature = "gpu")]
mod gpu;
mod host;
mod kernel_file;
mod metric;
mod mounts;
mod news;
mod node_metric;
mod probe;
mod probe_thread;
mod process;
mod readings;
mod sampler;
mod scrape;
mod sources;
mod sysfs;
mod table;

pub use arguments::ArgumentError;
pub use config::{Attached, Roots, SamplerOptions, Source};
pub use filters::{Choice, Filters, Pattern, PatternError};
pub use metric::{GpuNames, Metric, Names, Sample, Trend};
pub use news::News;
pub use probe::{Failure, Probe, Tick};
pub use readings::Readings;
pub use sampler::{Outcome, Sampler};
pub use table::metrics;
