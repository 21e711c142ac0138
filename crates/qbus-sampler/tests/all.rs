//! What the sampler hands over, against what the same machine says in other ways.

mod cgroup;
mod devices;
mod host;
mod process;
mod sources;
mod support;
