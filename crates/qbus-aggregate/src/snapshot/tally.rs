//! What the aggregator counts, over all lanes and by owner: its part of the ledger.

use qbus::OwnerCounts;

use super::layout::{GLOBALS_LEN, OWNER_LEN};

/// What is counted over all lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Globals {
    /// When the commit was made, in nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// Records folded.
    pub records: u64,
    /// Recent records kept so far: the next one's index.
    pub recent: u64,
    /// Records whose series no registry entry defines, or whose kind its type does not take.
    pub unknown_series: u64,
    /// Records for which the snapshot had no room.
    pub unplaced: u64,
    /// How often an aggregator took the snapshot over from a predecessor.
    pub restarts: u64,
    /// Lanes whose committed position did not fit the bus, at a restart.
    pub lost_positions: u64,
    /// Where the ring of recent records lies.
    pub(crate) recent_ring: u64,
    /// Nanoseconds that commits took, without the present one.
    pub commit_ns: u64,
    /// Records, and sums of cells, that came under the id of a series that had been freed.
    pub stale: u64,
}

impl Globals {
    pub(crate) fn to_words(self) -> [u64; GLOBALS_LEN] {
        let Globals {
            unix_ns,
            records,
            recent,
            unknown_series,
            unplaced,
            restarts,
            lost_positions,
            recent_ring,
            commit_ns,
            stale,
        } = self;
        [
            unix_ns,
            records,
            recent,
            unknown_series,
            unplaced,
            restarts,
            lost_positions,
            recent_ring,
            commit_ns,
            stale,
        ]
    }

    pub(crate) fn from_words(words: &[u64]) -> Option<Globals> {
        let words: Vec<u64> = words.iter().map(|&word| sane(word)).collect();
        let &[
            unix_ns,
            records,
            recent,
            unknown_series,
            unplaced,
            restarts,
            lost_positions,
            recent_ring,
            commit_ns,
            stale,
        ] = words.as_slice()
        else {
            return None;
        };
        Some(Globals {
            unix_ns,
            records,
            recent,
            unknown_series,
            unplaced,
            restarts,
            lost_positions,
            recent_ring,
            commit_ns,
            stale,
        })
    }
}

/// A count as read from a file that may hold anything: none that adding to could overflow.
pub(crate) fn sane(word: u64) -> u64 {
    word.min(1 << 62)
}

/// Words of a tally.
const TALLY_LEN: usize = 7;
const _: () = assert!(OWNER_LEN == 1 + 2 * TALLY_LEN + 2);

/// One owner's part of the ledger: attempted = delivered + dropped + torn + revoked + unplaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records folded.
    pub delivered: u64,
    /// Records that a kill tore: claimed and never published.
    pub torn: u64,
    /// Records given up while their producer was stopped inside the emit.
    pub revoked: u64,
    /// Records that met a full lane.
    pub dropped_full: u64,
    /// Records whose value their series could not take.
    pub rejected: u64,
    /// Slots and records that made no sense, and gauges set for a time that lies ahead by minutes.
    pub violations: u64,
    /// Records that reached the aggregator and are lost: the snapshot had no room for their series,
    /// or it had been freed ([`Globals::stale`]).
    pub unplaced: u64,
}

impl Tally {
    /// All records that were not accepted.
    pub fn dropped(&self) -> u64 {
        self.dropped_full.saturating_add(self.rejected)
    }

    /// The sum of two. Saturating, as the words that it comes from may hold anything.
    #[must_use]
    pub fn plus(&self, other: &Tally) -> Tally {
        Tally {
            delivered: self.delivered.saturating_add(other.delivered),
            torn: self.torn.saturating_add(other.torn),
            revoked: self.revoked.saturating_add(other.revoked),
            dropped_full: self.dropped_full.saturating_add(other.dropped_full),
            rejected: self.rejected.saturating_add(other.rejected),
            violations: self.violations.saturating_add(other.violations),
            unplaced: self.unplaced.saturating_add(other.unplaced),
        }
    }

    fn to_words(self) -> [u64; TALLY_LEN] {
        let Tally {
            delivered,
            torn,
            revoked,
            dropped_full,
            rejected,
            violations,
            unplaced,
        } = self;
        [
            delivered,
            torn,
            revoked,
            dropped_full,
            rejected,
            violations,
            unplaced,
        ]
    }

    fn from_words(words: &[u64]) -> Option<Tally> {
        let &[
            delivered,
            torn,
            revoked,
            dropped_full,
            rejected,
            violations,
            unplaced,
        ] = words
        else {
            return None;
        };
        Some(Tally {
            delivered,
            torn,
            revoked,
            dropped_full,
            rejected,
            violations,
            unplaced,
        })
    }
}

/// An entry of the owner table in the ledger: its present (or last) occupant, and all before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnerRow {
    /// The occupant's generation.
    pub generation: u16,
    /// What the occupant did.
    pub present: Tally,
    /// What its predecessors in the entry did.
    pub departed: Tally,
    /// How much of both `delivered` is calls that the owner itself counted: those to shared cells.
    pub(crate) shared_calls: [u64; 2],
}

impl OwnerRow {
    pub(crate) fn to_words(self) -> [u64; OWNER_LEN] {
        let mut words = [0; OWNER_LEN];
        words[0] = u64::from(self.generation);
        words[1..=TALLY_LEN].copy_from_slice(&self.present.to_words());
        words[1 + TALLY_LEN..][..TALLY_LEN].copy_from_slice(&self.departed.to_words());
        words[1 + 2 * TALLY_LEN..].copy_from_slice(&self.shared_calls);
        words
    }

    pub(crate) fn from_words(words: &[u64]) -> Option<OwnerRow> {
        let words: Vec<u64> = words.iter().map(|&word| sane(word)).collect();
        let present = Tally::from_words(words.get(1..=TALLY_LEN)?)?;
        let departed = Tally::from_words(words.get(1 + TALLY_LEN..=2 * TALLY_LEN)?)?;
        let &[present_calls, departed_calls] = words.get(1 + 2 * TALLY_LEN..)? else {
            return None;
        };
        Some(OwnerRow {
            generation: words[0] as u16,
            present,
            departed,
            shared_calls: [present_calls, departed_calls],
        })
    }

    /// Makes a generation the occupant: another one, if it was not, is a predecessor from now on.
    pub(crate) fn occupied_by(&mut self, generation: u16) {
        if generation == self.generation {
            return;
        }
        self.departed = self.departed.plus(&self.present);
        self.present = Tally::default();
        let [present, departed] = self.shared_calls;
        self.shared_calls = [0, departed.saturating_add(present)];
        self.generation = generation;
    }

    /// The tally of a generation: the occupant's, or its predecessors'.
    #[inline]
    pub(crate) fn tally(&mut self, generation: u16) -> &mut Tally {
        if generation == self.generation {
            &mut self.present
        } else {
            &mut self.departed
        }
    }

    /// Takes over what the owner itself has counted of its losses; whether that changed anything.
    pub(crate) fn take_losses(&mut self, counts: OwnerCounts) -> bool {
        let before = *self;
        self.occupied_by(counts.generation);
        // The entry's counters are sums over all occupants: both parts follow from them.
        self.present.dropped_full = counts.dropped_full.saturating_sub(counts.dropped_full_base);
        self.present.rejected = counts.rejected.saturating_sub(counts.rejected_base);
        self.departed.dropped_full = counts.dropped_full_base;
        self.departed.rejected = counts.rejected_base;
        *self != before
    }

    /// The same of its calls that wrote to shared cells; how many are new. None of an occupant that
    /// another one followed meanwhile: the entry's sums have them.
    pub(crate) fn take_shared_calls(&mut self, counts: OwnerCounts) -> u64 {
        if self.generation != counts.generation {
            return 0;
        }
        let mut came = 0_u64;
        let base = counts.shared_calls_base;
        let totals = [counts.shared_calls.saturating_sub(base), base];
        let parts = [&mut self.present, &mut self.departed];
        for ((part, known), total) in parts.into_iter().zip(&mut self.shared_calls).zip(totals) {
            let new = total.saturating_sub(*known);
            part.delivered = part.delivered.saturating_add(new);
            came = came.saturating_add(new);
            *known = total.max(*known);
        }
        came
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Generations wrap at 4,096: which of two is the later one cannot be told by comparing them.
    #[test]
    fn an_occupant_is_whom_the_entry_names_however_many_there_were() {
        for generation in [2, 2048, 2050, 4095, 0] {
            let mut row = OwnerRow {
                generation: 1,
                ..OwnerRow::default()
            };
            row.tally(1).delivered = 5;
            let changed = row.take_losses(OwnerCounts {
                generation,
                dropped_full: 7,
                dropped_full_base: 3,
                ..OwnerCounts::default()
            });
            assert!(changed);
            row.tally(generation).delivered += 2;
            row.tally(1).torn += 1;
            let of = |delivered, dropped_full, torn| Tally {
                delivered,
                dropped_full,
                torn,
                ..Tally::default()
            };
            assert_eq!(row.generation, generation);
            assert_eq!(row.present, of(2, 4, 0), "{generation}");
            assert_eq!(row.departed, of(5, 3, 1), "{generation}");
        }
    }
}
