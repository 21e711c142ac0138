//! A bus as others see it.

use crate::owner::OwnerId;

/// The aggregator as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AggregatorView {
    /// Its pid, in its own pid namespace.
    pub pid: u64,
    /// Whether it holds its byte.
    pub alive: bool,
    /// When it started, in nanoseconds since the Unix epoch.
    pub started_ns: u64,
}

/// A lane as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneView {
    /// Its place among the lanes.
    pub index: usize,
    /// Whether any number of producers share it.
    pub shared: bool,
    /// Who leases it.
    pub holder: Option<OwnerId>,
    /// Position of the next record to drain.
    pub head: u64,
    /// Slots that wait to be drained and committed.
    pub fill: u64,
}

/// What the bus as a whole has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusCounts {
    /// Registered families.
    pub families: u64,
    /// Registered series.
    pub series: u64,
    /// Words of the arena in use.
    pub arena_words: u64,
    /// Records of processes that found no place in the owner table, or that used a producer which a
    /// fork had made theirs.
    pub dropped_unowned: u64,
    /// Registrations that found the registry full.
    pub refused_series: u64,
    /// Words that somebody overwrote, and that were put right.
    pub violations: u64,
    /// Processes that joined so far.
    pub joined: u64,
    /// Owners that were found dead, and repaired.
    pub reaped: u64,
}
