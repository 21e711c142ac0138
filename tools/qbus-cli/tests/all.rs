//! The command as a user meets it: what it prints, where, and with which exit code.

mod aggregating;
mod bad_metrics;
mod bad_places;
mod benching;
mod dumping;
mod emitting;
mod forgetting;
mod health;
mod installing;
#[cfg(feature = "statsd")]
mod listening;
mod reports;
mod sampling;
#[cfg(feature = "http")]
mod serving;
mod support;
#[cfg(feature = "top")]
mod watching;
