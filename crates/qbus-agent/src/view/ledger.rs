//! What became of all records, and who is attached.

use std::sync::{Mutex, PoisonError};

use qbus::{Address, Bus, LaneView};
use qbus_aggregate::{Ledger, Reader, Tally};

use super::source::{SnapshotSource, Unready, age};

/// What is known of a bus beside its series.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "http", derive(serde::Serialize))]
pub struct Report {
    /// Its name, as the snapshot has it.
    pub bus: String,
    /// Commits so far.
    pub epoch: u64,
    /// How long ago the last commit was.
    pub age_seconds: f64,
    /// Series of the snapshot.
    pub series: usize,
    /// Series that can be registered; unknown where the bus cannot be opened.
    pub series_capacity: Option<u64>,
    /// Size of the snapshot file.
    pub snapshot_bytes: u64,
    /// Who writes the snapshot, or wrote it last.
    pub aggregator: AggregatorReport,
    /// What became of all records.
    pub records: Records,
    /// Nothing where the bus cannot be opened: the snapshot does not know who is who.
    pub owners: Option<Vec<Owner>>,
    /// Nothing where the bus cannot be opened.
    pub lanes: Option<Lanes>,
}

/// The aggregator of a bus.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "http", derive(serde::Serialize))]
pub struct AggregatorReport {
    /// Its pid, in its own pid namespace.
    pub pid: u64,
    /// When it started, in nanoseconds since the Unix epoch.
    pub started_ns: u64,
    /// Unknown where the bus cannot be opened.
    pub alive: Option<bool>,
    /// Times that an aggregator went on with the snapshot of another.
    pub restarts: u64,
    /// Time that commits took, in all.
    pub commit_seconds_total: f64,
}

/// What became of all records.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "http", derive(serde::Serialize))]
pub struct Records {
    /// Records that are on the page.
    pub delivered: u64,
    /// Those that are not, by cause: every cause, also where it cost nothing.
    pub lost: Vec<Lost>,
    /// Slots, records and words of the region that made no sense.
    pub violations: u64,
    /// Registrations that found the registry full.
    pub refused_series: u64,
}

impl Records {
    /// All that are on no page, whatever the cause.
    pub fn lost(&self) -> u64 {
        self.lost
            .iter()
            .fold(0, |sum, lost| sum.saturating_add(lost.records))
    }
}

/// Records that are lost for one cause.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "http", derive(serde::Serialize))]
pub struct Lost {
    /// The cause, in one word.
    pub cause: &'static str,
    /// How many.
    pub records: u64,
    /// What to do about it.
    pub remedy: &'static str,
}

/// A process that is, or was last, in an entry of the owner table.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "http", derive(serde::Serialize))]
pub struct Owner {
    /// Entry and generation.
    pub id: String,
    /// Its pid, in its own pid namespace.
    pub pid: u64,
    /// What it calls itself; may be empty.
    pub role: String,
    /// Its command line, cut short.
    pub command: String,
    /// Whether it is attached.
    pub alive: bool,
    /// When it joined, in nanoseconds since the Unix epoch.
    pub joined_ns: u64,
    /// Lanes that it leases.
    pub lanes: usize,
    /// Part of its fullest lane that waits to be committed.
    pub fill_ratio: f64,
    /// Its records that are on the page.
    pub delivered: u64,
    /// Its records that were refused when they were emitted.
    pub dropped: u64,
    /// Its records that a kill tore.
    pub torn: u64,
    /// Its records that were given up while it was stopped inside the emit.
    pub revoked: u64,
    /// Its records that met a full lane and were kept as state: in the totals, and without a point
    /// of their own in any history.
    pub coalesced: u64,
}

/// The lanes of a bus.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "http", derive(serde::Serialize))]
pub struct Lanes {
    /// All of them.
    pub all: usize,
    /// Those that any number of producers share.
    pub shared: usize,
    /// Those that a producer leases.
    pub leased: usize,
    /// Part of the fullest lane that waits to be committed.
    pub fullest_ratio: f64,
}

/// The bus, if there is one; opened when it is first asked for, and again when it was made anew.
#[derive(Debug)]
pub struct Ledgers {
    address: Option<Address>,
    bus: Mutex<Option<Bus>>,
}

impl Ledgers {
    /// Of that bus; of none, where only the snapshot is to be looked at.
    pub fn new(address: Option<Address>) -> Ledgers {
        Ledgers {
            address,
            bus: Mutex::new(None),
        }
    }

    /// Reads it beside a snapshot that has yet to be opened. Not for an event loop.
    ///
    /// # Errors
    ///
    /// There is no snapshot to look at.
    pub fn read(&self, source: &SnapshotSource) -> Result<Report, Unready> {
        source.read(|reader| Ok(self.of(reader)))
    }

    /// Reads it beside a snapshot.
    pub fn of(&self, reader: &Reader) -> Report {
        let bus = self.bus().filter(|bus| bus.instance() == reader.instance());
        let ledger = bus
            .as_ref()
            .and_then(|bus| Ledger::read(bus, Some(reader)).ok());
        let (pid, started_ns) = reader.writer();
        let globals = reader.globals();
        let alive = bus
            .as_ref()
            .and_then(Bus::aggregator)
            .map(|aggregator| aggregator.alive);
        let lanes = bus.as_ref().map(Bus::lanes);
        let slots = bus.as_ref().map_or(1, |bus| bus.geometry().slots.max(1));
        let records = match &ledger {
            Some(ledger) => Records {
                delivered: ledger.total.delivered,
                lost: losses(ledger),
                violations: ledger.violations,
                refused_series: ledger.refused_series,
            },
            None => of_snapshot(reader),
        };
        Report {
            bus: reader.bus_name(),
            epoch: reader.epoch(),
            age_seconds: age(reader).as_secs_f64(),
            series: reader.series_count(),
            series_capacity: bus.as_ref().map(|bus| bus.geometry().series),
            snapshot_bytes: reader.size_bytes(),
            aggregator: AggregatorReport {
                pid,
                started_ns,
                alive,
                restarts: globals.restarts,
                commit_seconds_total: globals.commit_ns as f64 / 1e9,
            },
            records,
            owners: ledger.map(|ledger| owners(ledger, lanes.as_deref().unwrap_or(&[]), slots)),
            lanes: lanes.as_deref().map(|lanes| summed(lanes, slots)),
        }
    }

    fn bus(&self) -> Option<Bus> {
        let mut bus = self.bus.lock().unwrap_or_else(PoisonError::into_inner);
        if bus.as_ref().is_none_or(Bus::is_removed) {
            *bus = self
                .address
                .as_ref()
                .and_then(|address| Bus::open(address).ok());
        }
        bus.clone()
    }
}

/// What the snapshot alone knows.
fn of_snapshot(reader: &Reader) -> Records {
    let rows = reader.owners();
    let total = rows.iter().fold(Tally::default(), |sum, row| {
        sum.plus(&row.present).plus(&row.departed)
    });
    let globals = reader.globals();
    let ledger = Ledger {
        total,
        undefined: globals.unknown_series,
        ..Ledger::default()
    };
    Records {
        delivered: total.delivered,
        lost: losses(&ledger),
        violations: total.violations,
        refused_series: 0,
    }
}

fn losses(ledger: &Ledger) -> Vec<Lost> {
    let told = |(cause, records)| Lost {
        cause,
        records,
        remedy: remedy(cause),
    };
    ledger.losses().into_iter().map(told).collect()
}

/// What to do about a loss.
fn remedy(cause: &str) -> &'static str {
    match cause {
        "full" => {
            "more slots (qbus create --slots), or an aggregator that gets more processor time"
        }
        "rejected" => {
            "a value that its metric cannot take (NaN, a negative increment): mend the caller"
        }
        "unowned" => "more owners (qbus create --max-owners)",
        "torn" => "a producer was killed in the middle of an emit; nothing to do",
        "revoked" => "a producer was stopped in the middle of an emit for over a second",
        "unplaced" => "room for the snapshot: see the aggregator's log and df",
        _ => "a producer of another bus or version emits here",
    }
}

fn owners(ledger: Ledger, lanes: &[LaneView], slots: u64) -> Vec<Owner> {
    let told = |ledger: qbus_aggregate::OwnerLedger| {
        let owner = ledger.owner;
        let held = || lanes.iter().filter(|lane| lane.holder == Some(owner.id));
        let fill = held().map(|lane| lane.fill).max().unwrap_or(0);
        Owner {
            id: owner.id.to_string(),
            pid: owner.pid,
            alive: owner.alive,
            joined_ns: owner.joined_ns,
            lanes: held().count(),
            fill_ratio: fill as f64 / slots as f64,
            delivered: ledger.tally.delivered,
            dropped: ledger.tally.dropped(),
            torn: ledger.tally.torn,
            revoked: ledger.tally.revoked,
            coalesced: owner.coalesced,
            role: owner.role,
            command: owner.command,
        }
    };
    ledger.owners.into_iter().map(told).collect()
}

fn summed(lanes: &[LaneView], slots: u64) -> Lanes {
    let fullest = lanes.iter().map(|lane| lane.fill).max().unwrap_or(0);
    Lanes {
        all: lanes.len(),
        shared: lanes.iter().filter(|lane| lane.shared).count(),
        leased: lanes.iter().filter(|lane| lane.holder.is_some()).count(),
        fullest_ratio: fullest as f64 / slots as f64,
    }
}

/// The last part of the path of a command line's program: what the sampler calls a process.
pub fn program(command: &str) -> &str {
    let path = command.split(' ').next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}
