//! The snapshot: what was folded, committed so that a kill at any instruction leaves a whole epoch.

#[cfg(not(loom))]
pub(crate) mod exemplars;
#[cfg(not(loom))]
pub(crate) mod file;
#[cfg(all(test, not(loom)))]
mod format;
#[cfg(not(loom))]
mod gaps;
#[cfg(not(loom))]
mod heap;
pub(crate) mod layout;
#[cfg(not(loom))]
pub(crate) mod ledger;
#[cfg(not(loom))]
mod merged;
#[cfg(not(loom))]
mod order;
#[cfg(not(loom))]
pub(crate) mod place;
#[cfg(not(loom))]
pub(crate) mod reader;
pub(crate) mod ring;
pub(crate) mod row;
pub(crate) mod tally;
pub(crate) mod versioned;
pub(crate) mod window;
#[cfg(not(loom))]
pub(crate) mod writer;
