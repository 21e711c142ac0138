//! A bus as others see it.

use std::io;

use super::Bus;
use crate::liveness::{AGGREGATOR_BYTE, owner_byte};
use crate::owner::{OwnerId, OwnerPhase, OwnerView};
use crate::sync::{AtomicU64, Ordering};

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
    /// Calls that wrote to its cells so far, by all of its holders, modulo 2^48.
    pub calls: u64,
    /// Those of them, at most, that wait to be committed.
    pub waiting_calls: u64,
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
    /// Label values that were longer than 1,024 bytes, and cut, by registrations.
    pub cut_values: u64,
}

impl Bus {
    /// Everybody who is or was attached: entries never used are left out.
    ///
    /// # Errors
    ///
    /// The locks cannot be asked.
    pub fn owners(&self) -> io::Result<Vec<OwnerView>> {
        let locks = self.mapped().locks()?;
        let mut owners = Vec::new();
        for (index, entry) in self.mapped().owners().iter().enumerate() {
            if entry.state().phase != OwnerPhase::Free {
                let held = locks
                    .as_ref()
                    .map(|locks| locks.is_held(owner_byte(index)))
                    .transpose()?;
                owners.push(entry.view(index, held.unwrap_or(false)));
            }
        }
        Ok(owners)
    }

    /// Who is, or was last, in an entry of the owner table; `None` when there is no such entry, or
    /// it was never used.
    pub fn occupant(&self, index: u16) -> Option<OwnerId> {
        let state = self.mapped().owners().get(usize::from(index))?.state();
        (state.phase != OwnerPhase::Free).then_some(OwnerId {
            index,
            generation: state.generation,
        })
    }

    /// The aggregator; `None` when there never was one.
    pub fn aggregator(&self) -> Option<AggregatorView> {
        let header = self.mapped().header();
        let pid = header.aggregator_pid.load(Ordering::Acquire);
        let held = self
            .mapped
            .locks()
            .ok()
            .flatten()
            .and_then(|locks| locks.is_held(AGGREGATOR_BYTE).ok());
        let started_ns = header.aggregator_started_ns.load(Ordering::Relaxed);
        (pid != 0).then(|| AggregatorView {
            pid,
            alive: held.unwrap_or(false),
            started_ns,
        })
    }

    /// All lanes, the shared ones first.
    pub fn lanes(&self) -> Vec<LaneView> {
        let shared = self.mapped().geometry.shared_lanes as usize;
        let view = |index| {
            let lane = self.mapped().lane(index);
            let fill = self
                .end(index)
                .saturating_sub(lane.head())
                .min(lane.capacity());
            LaneView {
                index,
                shared: index < shared,
                holder: lane.holder(),
                head: lane.head(),
                fill,
                calls: self.mapped().bank(index).calls(),
                waiting_calls: self.mapped().bank(index).waiting_calls(),
            }
        };
        (0..self.mapped().geometry.lanes as usize)
            .map(view)
            .collect()
    }

    /// What the bus as a whole has counted.
    pub fn counts(&self) -> BusCounts {
        let header = self.mapped().header();
        let relaxed = |word: &AtomicU64| word.load(Ordering::Relaxed);
        BusCounts {
            families: relaxed(&header.family_count),
            series: relaxed(&header.series_count),
            arena_words: relaxed(&header.arena_next),
            dropped_unowned: relaxed(&header.dropped_unowned),
            refused_series: relaxed(&header.refused_series),
            violations: relaxed(&header.violations),
            joined: relaxed(&header.joined),
            reaped: relaxed(&header.reaped),
            cut_values: relaxed(&header.cut_values),
        }
    }
}
