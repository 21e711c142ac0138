//! What the sampler hands over, against what the same machine says in other ways.

mod cgroup;
mod devices;
mod garbage;
#[cfg(feature = "gpu")]
mod gpu;
#[cfg(feature = "gpu")]
mod gpu_health;
mod host;
mod mixin;
mod names;
mod node_exporter;
mod odd_hosts;
mod process;
mod roots;
mod sources;
mod support;
mod volumes;
