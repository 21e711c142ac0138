//! Reads host, process, cgroup and GPU metrics, and hands them to a closure.
//!
//! A [`Sampler`] has one source for each subject. A source that fails or hangs stops no other:
//! what may hang is read on a thread of its own, and [`Sampler::sample`] goes by what that thread
//! read last, up to a bounded age. The crate knows no ring and never prints: what went wrong is in
//! the [`Outcome`] of each source.
//!
//! ```
//! use std::time::Instant;
//! use qbus_sampler::{Config, Sampler};
//!
//! let mut sampler = Sampler::new(Config::default());
//! let attached = [].into();
//! let outcomes = sampler.sample(Instant::now(), &attached, &mut |sample| {
//!     assert!(sample.family.name.starts_with("qbus_"));
//! });
//! assert!(outcomes.iter().any(|outcome| outcome.source == "load" && outcome.samples == 3));
//! ```
#![forbid(unsafe_code)]

mod cgroup;
mod config;
mod family;
#[cfg(feature = "gpu")]
mod gpu;
mod host;
mod kernel_file;
mod mounts;
mod process;
mod readings;
mod sampler;
mod table;
mod worker;

pub use config::{Attached, Config, Roots, Source};
pub use family::{Family, Kind, Names, Sample};
pub use readings::Readings;
pub use sampler::{Failure, News, Outcome, Reader, Sampler, Tick};
pub use table::families;
