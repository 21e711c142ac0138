//! What the sampler hands over, against what the same machine says in other ways.

mod host;
mod process;
mod support;
