//! The ledger: what became of all records, by owner and by cause.
//!
//! What was delivered, torn or revoked is known to the snapshot; what was dropped is known to the
//! entries of the owner table, whose counters are sums over all of their occupants. Neither ever
//! goes back, and so the sums do not either, whoever joins and leaves between two looks.

use std::io;

use qbus::{Bus, OwnerView};

use super::reader::Reader;
use super::tally::{OwnerRow, Tally};

/// What became of all records of a bus. At rest attempted = delivered + dropped + torn + revoked +
/// unplaced; and what waits in cells while the snapshot has no room for its series
/// ([`qbus::LaneView::waiting_calls`]).
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let address = format!("doc-ledger-{}", std::process::id()).parse()?;
/// # let bus = qbus::Bus::create(&address, &qbus::BusOptions::default())?;
/// use qbus_aggregate::{Aggregator, AggregatorOptions, Ledger, Reader};
/// bus.counter("tokens_total").register()?.inc();
/// Aggregator::open(&bus, &AggregatorOptions::default())?.finish();
/// let reader = Reader::open(&bus.address().snapshot())?;
/// let ledger = Ledger::read(&bus, Some(&reader))?;
/// assert_eq!((ledger.total.delivered, ledger.dropped()), (1, 0));
/// # qbus::Bus::remove(&address, qbus::Removal::Forced)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Over all processes that are or ever were attached.
    pub total: Tally,
    /// The present (or last) occupant of each entry of the owner table.
    pub owners: Vec<OwnerLedger>,
    /// Records of processes that found no place in the owner table: dropped.
    pub unowned: u64,
    /// Delivered records of series that nobody registered, or of a kind that their series does not
    /// take.
    pub undefined: u64,
    /// Slots, records and words of the region that made no sense.
    pub violations: u64,
    /// Registrations that found the registry full; what was emitted to them never became a record.
    pub refused_series: u64,
}

/// An owner and what became of its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerLedger {
    /// The process.
    pub owner: OwnerView,
    /// Its records alone, without those of earlier occupants of its entry.
    pub tally: Tally,
}

impl Ledger {
    /// Reads it from the region and, as far as there is one, from the snapshot. One of another bus
    /// (removed since, and made anew) is passed over.
    ///
    /// # Errors
    ///
    /// The system does not say which owners are alive.
    pub fn read(bus: &Bus, reader: Option<&Reader>) -> io::Result<Ledger> {
        let reader = reader.filter(|reader| reader.instance() == bus.instance());
        let rows = reader.map(Reader::owners).unwrap_or_default();
        let globals = reader.map(Reader::globals).unwrap_or_default();
        let counts = bus.counts();
        let owners = bus.owners()?;
        let row = |owner: &OwnerView| rows.get(usize::from(owner.id.index)).copied();
        let total = owners
            .iter()
            .map(|owner| of_entry(owner, row(owner).unwrap_or_default()))
            .fold(Tally::default(), |sum, tally| sum.plus(&tally));
        let owners = owners.into_iter().map(|owner| OwnerLedger {
            tally: of_occupant(&owner, row(&owner).unwrap_or_default()),
            owner,
        });
        Ok(Ledger {
            owners: owners.collect(),
            unowned: counts.dropped_unowned,
            undefined: globals.unknown_series,
            violations: total.violations.saturating_add(counts.violations),
            refused_series: counts.refused_series,
            total,
        })
    }

    /// Records that were refused when they were emitted.
    pub fn dropped(&self) -> u64 {
        self.total.dropped().saturating_add(self.unowned)
    }

    /// Every cause for which what was emitted is on no page, and how many records it cost.
    pub fn losses(&self) -> [(&'static str, u64); 7] {
        [
            ("full", self.total.dropped_full),
            ("rejected", self.total.rejected),
            ("unowned", self.unowned),
            ("torn", self.total.torn),
            ("revoked", self.total.revoked),
            ("unplaced", self.total.unplaced),
            ("undefined", self.undefined),
        ]
    }
}

/// What all occupants of an entry did.
fn of_entry(owner: &OwnerView, row: OwnerRow) -> Tally {
    let committed = row.present.plus(&row.departed);
    Tally {
        // The region is ahead of what a survey has committed; a new region knows nothing yet.
        dropped_full: committed.dropped_full.max(owner.dropped_full_total),
        rejected: committed.rejected.max(owner.rejected_total),
        ..committed
    }
}

/// What the present (or last) occupant did.
fn of_occupant(owner: &OwnerView, row: OwnerRow) -> Tally {
    let is_known = row.generation == owner.id.generation;
    Tally {
        dropped_full: owner.dropped_full,
        rejected: owner.rejected,
        ..if is_known {
            row.present
        } else {
            Tally::default()
        }
    }
}
