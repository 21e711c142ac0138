//! Drains a qbus, folds its records into series, commits them to a snapshot, and exports it.
//!
//! The data flow: drain ([`Aggregator`]) → fold → commit (the snapshot file, read with [`Reader`])
//! → [`series`] → [`export`].
#![forbid(unsafe_code)]
// A model takes the protocols out of their surroundings, which then look unused.
#![cfg_attr(loom, allow(dead_code))]

#[cfg(not(loom))]
mod aggregator;
mod counts;
mod distribution;
#[cfg(not(loom))]
pub mod export;
#[cfg(not(loom))]
mod fold;
#[cfg(not(loom))]
mod scratch;
pub mod series;
mod snapshot;
mod sum;

#[cfg(not(loom))]
pub use aggregator::{AggregateError, Aggregator, AggregatorOptions, News, Round, Spare};
pub use distribution::{Distribution, Exponential};
pub use series::{
    Exemplar, Family, HistogramValue, Point, QUANTILES, Series, Snapshot, SummaryValue, Value,
};
#[cfg(not(loom))]
pub use snapshot::file::{MovedAside, SnapshotError, Unfit};
#[cfg(not(loom))]
pub use snapshot::ledger::{Ledger, OwnerLedger};
#[cfg(not(loom))]
pub use snapshot::reader::{Listing, ReadError, ReadOptions, Reader};
pub use snapshot::ring::RecentRecord;
pub use snapshot::tally::{Globals, OwnerRow, Tally};
pub use sum::Sum;
