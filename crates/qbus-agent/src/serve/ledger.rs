//! The ledger as JSON: what became of all records, and who is attached.

use std::sync::{Mutex, PoisonError};

use qbus::{Address, Bus, LaneView};
use qbus_aggregate::{Ledger, Reader, Tally};
use serde::Serialize;

use super::source::{Source, Unready, age};

/// The wire form.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    bus: String,
    epoch: u64,
    age_seconds: f64,
    series: usize,
    snapshot_bytes: u64,
    aggregator: Aggregator,
    records: Records,
    /// Nothing where the bus cannot be opened: the snapshot does not know who is who.
    owners: Option<Vec<Owner>>,
    lanes: Option<Lanes>,
}

#[derive(Debug, Serialize)]
struct Aggregator {
    pid: u64,
    started_ns: u64,
    /// Unknown where the bus cannot be opened.
    alive: Option<bool>,
    restarts: u64,
    commit_seconds_total: f64,
}

#[derive(Debug, Serialize)]
struct Records {
    delivered: u64,
    lost: Vec<Lost>,
    violations: u64,
    refused_series: u64,
}

#[derive(Debug, Serialize)]
struct Lost {
    cause: &'static str,
    records: u64,
    remedy: &'static str,
}

#[derive(Debug, Serialize)]
struct Owner {
    id: String,
    pid: u64,
    role: String,
    command: String,
    alive: bool,
    joined_ns: u64,
    lanes: usize,
    /// Of its fullest lane.
    fill_ratio: f64,
    delivered: u64,
    dropped: u64,
    torn: u64,
    revoked: u64,
}

#[derive(Debug, Serialize)]
struct Lanes {
    all: usize,
    shared: usize,
    leased: usize,
    fullest_ratio: f64,
}

/// The bus, if there is one; opened when it is first asked for, and again when it was made anew.
#[derive(Debug)]
pub(super) struct Ledgers {
    address: Option<Address>,
    bus: Mutex<Option<Bus>>,
}

impl Ledgers {
    pub(super) fn new(address: Option<Address>) -> Ledgers {
        Ledgers {
            address,
            bus: Mutex::new(None),
        }
    }

    /// Reads it. Not for the event loop.
    pub(super) fn read(&self, source: &Source) -> Result<Report, Unready> {
        source.read(|reader| Ok(self.of(reader)))
    }

    /// Reads it beside a snapshot.
    pub(super) fn of(&self, reader: &Reader) -> Report {
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
            snapshot_bytes: reader.size_bytes(),
            aggregator: Aggregator {
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
