//! `qbus stat`

use std::io::Write;

use qbus::{Address, Bus, Clock, LaneView};
use qbus_aggregate::{Ledger, OwnerLedger, Reader};
use serde::Serialize;

use crate::args::Stat;
use crate::command::{open, open_snapshot};
use crate::error::Error;

pub(crate) fn run(address: &Address, stat: &Stat, out: &mut dyn Write) -> Result<(), Error> {
    let bus = open(address)?;
    // A bus without a snapshot has not been aggregated yet, which is worth showing.
    let opened = open_snapshot(address, stat.snapshot.as_deref());
    let (reader, no_snapshot) = match opened {
        Ok(reader) if reader.instance() == bus.instance() => (Some(reader), None),
        Ok(_) => (None, Some("it belongs to another bus".to_owned())),
        // Nobody has aggregated so far, or somebody is about to.
        Err(Error::Absent(_)) => (None, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let report = Report::new(&bus, reader.as_ref()).map_err(Error::failed)?;
    let report = Report {
        no_snapshot,
        ..report
    };
    if stat.json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
        return Ok(());
    }
    report.print(out)
}

/// What is known of a bus: the wire form of `--json`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    bus: BusReport,
    aggregator: Option<AggregatorReport>,
    /// Why there is a snapshot and what it counts is missing here.
    no_snapshot: Option<String>,
    owners: Vec<OwnerReport>,
    lanes: Vec<LaneReport>,
    series: SeriesReport,
    pub(crate) ledger: LedgerReport,
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
    snapshot_bytes: u64,
}

#[derive(Debug, Serialize)]
struct OwnerReport {
    id: String,
    pid: u64,
    command: String,
    role: String,
    alive: bool,
    lanes: usize,
    delivered: u64,
    dropped: u64,
    torn: u64,
    revoked: u64,
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
pub(crate) struct LedgerReport {
    pub(crate) delivered: u64,
    pub(crate) dropped: u64,
    pub(crate) torn: u64,
    pub(crate) revoked: u64,
    dropped_full: u64,
    rejected: u64,
    dropped_unowned: u64,
    violations: u64,
    unknown_series: u64,
    unplaced: u64,
}

impl Report {
    pub(crate) fn new(bus: &Bus, reader: Option<&Reader>) -> std::io::Result<Report> {
        let (geometry, counts) = (bus.geometry(), bus.counts());
        let globals = reader.map(Reader::globals).unwrap_or_default();
        let ledger = Ledger::read(bus, reader)?;
        let lanes = bus.lanes();
        let commit_age =
            |unix_ns: u64| Clock::Precise.now_ns().saturating_sub(unix_ns) as f64 / 1e9;
        let aggregator = bus.aggregator().map(|aggregator| AggregatorReport {
            alive: aggregator.alive,
            pid: aggregator.pid,
            started_ns: aggregator.started_ns,
            epoch: reader.map_or(0, Reader::epoch),
            commit_age_seconds: reader.map(|_| commit_age(globals.unix_ns)),
            restarts: globals.restarts,
            snapshot_bytes: reader.map_or(0, Reader::size_bytes),
        });
        Ok(Report {
            bus: BusReport {
                name: bus.address().to_string(),
                path: bus.address().file().display().to_string(),
                size_bytes: geometry.size_bytes(),
                created_ns: bus.created_ns(),
                removed: bus.is_removed(),
                lanes: geometry.lanes,
                shared_lanes: geometry.shared_lanes,
                slots: geometry.slots,
                max_owners: geometry.owners,
                max_families: geometry.families,
                max_series: geometry.series,
            },
            aggregator,
            no_snapshot: None,
            owners: ledger
                .owners
                .iter()
                .map(|owner| owner_report(owner, &lanes))
                .collect(),
            lanes: lanes.iter().map(lane_report).collect(),
            series: SeriesReport {
                families: counts.families,
                registered: counts.series,
                capacity: geometry.series,
                committed: reader.map_or(0, Reader::series_count),
                refused: counts.refused_series,
            },
            ledger: LedgerReport::of(&ledger),
        })
    }

    fn print(&self, out: &mut dyn Write) -> Result<(), Error> {
        let bus = &self.bus;
        let mebibytes = bus.size_bytes.div_ceil(1 << 20);
        writeln!(
            out,
            "bus         {} ({mebibytes} MiB at {})",
            bus.name, bus.path
        )?;
        match &self.aggregator {
            None => writeln!(
                out,
                "aggregator  none so far; start `qbus agg -b {}`",
                bus.name
            )?,
            Some(aggregator) => {
                let life = if aggregator.alive { "alive" } else { "gone" };
                write!(
                    out,
                    "aggregator  pid {} ({life}), epoch {}",
                    aggregator.pid, aggregator.epoch
                )?;
                if let Some(age) = aggregator.commit_age_seconds {
                    write!(out, ", last commit {age:.3} s ago")?;
                }
                writeln!(out)?;
            }
        }
        if let Some(why) = &self.no_snapshot {
            writeln!(
                out,
                "snapshot    not read, what it counts is missing below: {why}"
            )?;
        }
        let series = &self.series;
        writeln!(
            out,
            "series      {} of {} in {} families; {} refused",
            series.registered, series.capacity, series.families, series.refused
        )?;
        let leased = self
            .lanes
            .iter()
            .filter(|lane| lane.owner.is_some())
            .count();
        writeln!(
            out,
            "lanes       {leased} of {} leased, {} more are shared; {} slots each",
            bus.lanes - bus.shared_lanes,
            bus.shared_lanes,
            bus.slots
        )?;
        let ledger = &self.ledger;
        writeln!(
            out,
            "ledger      {} delivered, {} dropped, {} torn, {} revoked",
            ledger.delivered, ledger.dropped, ledger.torn, ledger.revoked
        )?;
        for (count, what) in [
            (
                ledger.dropped_unowned,
                "of the dropped by processes that found no place in the bus",
            ),
            (ledger.violations, "records or slots that made no sense"),
            (
                ledger.unplaced,
                "records lost for want of room in the snapshot",
            ),
        ] {
            if count > 0 {
                writeln!(out, "            {count} {what}")?;
            }
        }
        self.print_owners(out)?;
        self.print_lanes(out)
    }

    fn print_owners(&self, out: &mut dyn Write) -> Result<(), Error> {
        writeln!(
            out,
            "\n{:<8} {:>8} {:<5} {:>13} {:>9} {:>5} {:>7}  command",
            "owner", "pid", "alive", "delivered", "dropped", "torn", "revoked"
        )?;
        for owner in &self.owners {
            let alive = if owner.alive { "yes" } else { "no" };
            // 80 columns hold what matters; --json has it whole.
            let command: String = owner.command.chars().take(17).collect();
            writeln!(
                out,
                "{:<8} {:>8} {alive:<5} {:>13} {:>9} {:>5} {:>7}  {command}",
                owner.id, owner.pid, owner.delivered, owner.dropped, owner.torn, owner.revoked
            )?;
        }
        Ok(())
    }

    fn print_lanes(&self, out: &mut dyn Write) -> Result<(), Error> {
        writeln!(
            out,
            "\n{:<5} {:<10} {:>20} {:>6}",
            "lane", "owner", "position", "fill"
        )?;
        let idle = |lane: &&LaneReport| lane.owner.is_none() && !lane.shared && lane.fill == 0;
        for lane in self.lanes.iter().filter(|lane| !idle(lane)) {
            let owner = lane
                .owner
                .as_deref()
                .unwrap_or(if lane.shared { "(shared)" } else { "-" });
            writeln!(
                out,
                "{:<5} {owner:<10} {:>20} {:>6}",
                lane.index, lane.position, lane.fill
            )?;
        }
        let idle = self.lanes.iter().filter(idle).count();
        if idle > 0 {
            writeln!(out, "and {idle} that are free and empty")?;
        }
        Ok(())
    }
}

fn owner_report(OwnerLedger { owner, tally }: &OwnerLedger, lanes: &[LaneView]) -> OwnerReport {
    OwnerReport {
        id: owner.id.to_string(),
        pid: owner.pid,
        command: owner.command.clone(),
        role: owner.role.clone(),
        alive: owner.alive,
        lanes: lanes
            .iter()
            .filter(|lane| lane.holder == Some(owner.id))
            .count(),
        delivered: tally.delivered,
        dropped: tally.dropped(),
        torn: tally.torn,
        revoked: tally.revoked,
        violations: tally.violations,
    }
}

fn lane_report(lane: &LaneView) -> LaneReport {
    LaneReport {
        index: lane.index,
        shared: lane.shared,
        owner: lane.holder.map(|owner| owner.to_string()),
        position: lane.head,
        fill: lane.fill,
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
