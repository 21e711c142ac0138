//! The bus as those see it who look at it: servers, and `qbus top`.
//!
//! It needs the snapshot file alone, maps it read-only, and survives every restart of the
//! aggregator; what else is to be known of the bus comes from its region, where that can be opened.

mod ledger;
mod source;

pub use ledger::{AggregatorReport, Lanes, Ledgers, Lost, Owner, Records, Report, program};
pub use source::{SnapshotSource, Unready, age};
