//! What is known of a bus, for programs: the wire form of `--json`.

use qbus::LaneView;
use qbus_aggregate::{Ledger, OwnerLedger};
use serde::Serialize;

use super::chosen;
use crate::args::Stat;
use crate::health::{Finding, Severity};
use crate::look::{Look, Rates};

#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    bus: BusReport,
    aggregator: Option<AggregatorReport>,
    /// Why there is a snapshot and what it counts is missing here.
    no_snapshot: Option<&'a str>,
    health: Health<'a>,
    /// Between this look and the last one; none at the first.
    records_per_second: Option<f64>,
    owners: Vec<OwnerReport<'a>>,
    lanes: Vec<LaneReport>,
    series: SeriesReport,
    ledger: LedgerReport,
}

#[derive(Debug, Serialize)]
struct Health<'a> {
    /// Of the worst finding; none when there is none.
    severity: Option<Severity>,
    findings: &'a [Finding],
}

#[derive(Debug, Serialize)]
struct BusReport {
    name: String,
    path: String,
    size_bytes: u64,
    created_ns: u64,
    removed: bool,
    lanes: u64,
    shared_lanes: u64,
    slots: u64,
    max_owners: u64,
    max_families: u64,
    max_series: u64,
}

#[derive(Debug, Serialize)]
struct AggregatorReport {
    alive: bool,
    pid: u64,
    started_ns: u64,
    epoch: u64,
    commit_age_seconds: Option<f64>,
    restarts: u64,
    snapshot: Option<String>,
    snapshot_bytes: u64,
}

#[derive(Debug, Serialize)]
struct OwnerReport<'a> {
    id: String,
    pid: u64,
    /// The inode of its pid namespace: its pid means something there.
    pid_namespace: u64,
    command: &'a str,
    role: &'a str,
    alive: bool,
    joined_ns: u64,
    lanes: usize,
    records_per_second: Option<f64>,
    delivered: u64,
    dropped: u64,
    dropped_full: u64,
    rejected: u64,
    torn: u64,
    revoked: u64,
    unplaced: u64,
    /// Kept as state: in the totals, and without a point of their own.
    coalesced: u64,
    violations: u64,
}

#[derive(Debug, Serialize)]
struct LaneReport {
    index: usize,
    shared: bool,
    owner: Option<String>,
    position: u64,
    fill: u64,
}

#[derive(Debug, Serialize)]
struct SeriesReport {
    families: u64,
    registered: u64,
    capacity: u64,
    committed: usize,
    refused: u64,
}

/// What became of all records.
#[derive(Debug, Default, Serialize)]
struct LedgerReport {
    delivered: u64,
    dropped: u64,
    torn: u64,
    revoked: u64,
    dropped_full: u64,
    rejected: u64,
    dropped_unowned: u64,
    violations: u64,
    unknown_series: u64,
    unplaced: u64,
}

impl<'a> Report<'a> {
    /// Programs choose for themselves: those that ended are among the owners.
    pub(super) fn of(
        now: &'a Look,
        findings: &'a [Finding],
        rates: Option<&Rates>,
        stat: &Stat,
    ) -> Report<'a> {
        let unknown = Rates::default();
        let owners = chosen(now, rates.unwrap_or(&unknown), stat, true);
        Report {
            bus: BusReport::of(now),
            aggregator: AggregatorReport::of(now),
            no_snapshot: now.no_page.as_deref(),
            health: Health {
                severity: findings.iter().map(|finding| finding.severity).max(),
                findings,
            },
            records_per_second: rates.map(|rates| rates.all),
            owners: owners
                .into_iter()
                .map(|row| OwnerReport::of(row, now, rates))
                .collect(),
            lanes: now.lanes.iter().map(LaneReport::of).collect(),
            series: SeriesReport {
                families: now.counts.families,
                registered: now.counts.series,
                capacity: now.geometry.series,
                committed: now.page.as_ref().map_or(0, |page| page.series),
                refused: now.counts.refused_series,
            },
            ledger: LedgerReport::of(&now.ledger),
        }
    }
}

impl BusReport {
    fn of(now: &Look) -> BusReport {
        let geometry = &now.geometry;
        BusReport {
            name: now.address.to_string(),
            path: now.address.file().display().to_string(),
            size_bytes: geometry.size_bytes(),
            created_ns: now.created_ns,
            removed: now.is_removed,
            lanes: geometry.lanes,
            shared_lanes: geometry.shared_lanes,
            slots: geometry.slots,
            max_owners: geometry.owners,
            max_families: geometry.families,
            max_series: geometry.series,
        }
    }
}

impl AggregatorReport {
    fn of(now: &Look) -> Option<AggregatorReport> {
        let (aggregator, page) = (now.aggregator?, now.page.as_ref());
        Some(AggregatorReport {
            alive: aggregator.alive,
            pid: aggregator.pid,
            started_ns: aggregator.started_ns,
            epoch: page.map_or(0, |page| page.epoch),
            commit_age_seconds: now.age().map(|age| age.as_secs_f64()),
            restarts: page.map_or(0, |page| page.restarts),
            snapshot: page.map(|page| page.path.display().to_string()),
            snapshot_bytes: page.map_or(0, |page| page.size_bytes),
        })
    }
}

impl<'a> OwnerReport<'a> {
    fn of(row: &'a OwnerLedger, now: &Look, rates: Option<&Rates>) -> OwnerReport<'a> {
        let OwnerLedger { owner, tally } = row;
        OwnerReport {
            id: owner.id.to_string(),
            pid: owner.pid,
            pid_namespace: owner.pid_namespace,
            command: &owner.command,
            role: &owner.role,
            alive: owner.alive,
            joined_ns: owner.joined_ns,
            lanes: now.lanes_of(owner.id).count(),
            records_per_second: rates.map(|rates| rates.of(owner.id)),
            delivered: tally.delivered,
            dropped: tally.dropped(),
            dropped_full: tally.dropped_full,
            rejected: tally.rejected,
            torn: tally.torn,
            revoked: tally.revoked,
            unplaced: tally.unplaced,
            coalesced: owner.coalesced,
            violations: tally.violations,
        }
    }
}

impl LaneReport {
    fn of(lane: &LaneView) -> LaneReport {
        LaneReport {
            index: lane.index,
            shared: lane.shared,
            owner: lane.holder.map(|owner| owner.to_string()),
            position: lane.head,
            fill: lane.fill,
        }
    }
}

impl LedgerReport {
    fn of(ledger: &Ledger) -> LedgerReport {
        LedgerReport {
            delivered: ledger.total.delivered,
            dropped: ledger.dropped(),
            torn: ledger.total.torn,
            revoked: ledger.total.revoked,
            dropped_full: ledger.total.dropped_full,
            rejected: ledger.total.rejected,
            dropped_unowned: ledger.unowned,
            violations: ledger.violations,
            unknown_series: ledger.undefined,
            unplaced: ledger.total.unplaced,
        }
    }
}
