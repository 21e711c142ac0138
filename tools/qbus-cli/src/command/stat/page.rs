//! What is known of a bus, for people.

use std::fmt::Write;
use std::time::Duration;

use qbus_aggregate::OwnerLedger;

use super::chosen;
use crate::args::Stat;
use crate::figures::{bytes, counted, grouped, percent, short, span};
use crate::health::{Finding, Severity, cause_in_words};
use crate::look::{Look, Rates, brief};

/// Processes that are listed without `--all`.
const ROWS: usize = 20;
/// Findings that are named; `qbus doctor` has all of them.
const FINDINGS: usize = 3;

/// A terminal's.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

pub(super) struct Page<'a> {
    pub(super) now: &'a Look,
    pub(super) rates: &'a Rates,
    pub(super) findings: &'a [Finding],
    pub(super) stat: &'a Stat,
    /// Of the terminal, where the page goes to one.
    pub(super) size: Option<Size>,
}

impl Page<'_> {
    pub(super) fn text(&self) -> String {
        let mut lines = self.summary();
        lines.extend(self.processes(lines.len()));
        if self.stat.lanes {
            lines.extend(self.lanes());
        }
        let columns = self.size.map_or(usize::MAX, |size| size.columns);
        let mut text = String::new();
        for line in lines {
            // A line that is too long would make two of one.
            text.extend(line.trim_end().chars().take(columns));
            text.push('\n');
        }
        text
    }

    /// What a tired person wants to know.
    fn summary(&self) -> Vec<String> {
        let now = self.now;
        let workers = counted(now.workers().count() as u64, "worker", "workers");
        let age = now.age().map_or("no page yet".to_owned(), |age| {
            format!("page {} old", span(age))
        });
        let rate = short(self.rates.all);
        let delivered = grouped(now.ledger.total.delivered);
        let mut lines = vec![
            format!("{}: {workers}, {rate} records/s; {age}", self.verdict()),
            format!("records     {delivered} delivered, {}", self.lost()),
            format!(
                "bus         {} ({} at {}), made {} ago",
                now.address,
                bytes(now.geometry.size_bytes()),
                now.address.file().display(),
                span(Duration::from_nanos(
                    now.now_ns.saturating_sub(now.created_ns)
                ))
            ),
            format!("aggregator  {}", self.aggregator()),
            format!("in use      {}", self.room()),
        ];
        let bad = self
            .findings
            .iter()
            .filter(|finding| finding.severity > Severity::Note);
        let bad: Vec<_> = bad.collect();
        for finding in bad.iter().take(FINDINGS) {
            lines.push(format!("!           {}", finding.found));
        }
        let doctor = format!("what to do: qbus doctor -b {}", now.address);
        match bad.len().saturating_sub(FINDINGS) {
            _ if bad.is_empty() => {}
            0 => lines.push(format!("            {doctor}")),
            more => lines.push(format!("            and {more} more; {doctor}")),
        }
        lines
    }

    fn verdict(&self) -> &'static str {
        match self.findings.iter().map(|finding| finding.severity).max() {
            None | Some(Severity::Note) => "healthy",
            Some(Severity::Look) => "look at it",
            Some(Severity::Losing) => "LOSING DATA",
        }
    }

    /// What was lost, by cause.
    fn lost(&self) -> String {
        let losses = self.now.ledger.losses();
        let causes: Vec<String> = losses
            .iter()
            .filter(|(_, records)| *records > 0)
            .map(|(name, records)| format!("{} {}", grouped(*records), cause_in_words(name)))
            .collect();
        if causes.is_empty() {
            return "nothing lost".to_owned();
        }
        let sum = losses
            .iter()
            .fold(0_u64, |sum, (_, records)| sum.saturating_add(*records));
        format!("{} lost ({})", grouped(sum), causes.join(", "))
    }

    fn aggregator(&self) -> String {
        let now = self.now;
        let Some(aggregator) = now.aggregator else {
            return format!("none so far; start `qbus agg -b {}`", now.address);
        };
        let life = if aggregator.alive { "alive" } else { "gone" };
        let mut text = format!("pid {} ({life})", aggregator.pid);
        if let Some(page) = &now.page {
            let size = bytes(page.size_bytes);
            let _ = write!(text, ", epoch {}, snapshot of {size}", page.epoch);
            if page.path != now.address.snapshot_link() {
                let _ = write!(text, " at {}", page.path.display());
            }
        }
        if !aggregator.alive {
            let _ = write!(text, "; start `qbus agg -b {}`", now.address);
        }
        text
    }

    fn room(&self) -> String {
        let now = self.now;
        let (leased, lanes) = now.leases();
        let living = now.living().count() as u64;
        format!(
            "{} of {} lanes, {} of {} series, {} of {} processes",
            grouped(leased),
            grouped(lanes),
            grouped(now.living_series),
            grouped(now.geometry.series),
            grouped(living),
            grouped(now.geometry.owners)
        )
    }

    /// The processes, where so many lines are above them.
    fn processes(&self, above: usize) -> Vec<String> {
        let rows = chosen(self.now, self.rates, self.stat, self.stat.all);
        let all = self.now.ledger.owners.len();
        if rows.is_empty() {
            let ended = match (all, self.stat.matching.is_empty()) {
                (0, _) => "nobody was ever attached".to_owned(),
                (_, false) => "no process matches".to_owned(),
                (ended, true) => {
                    format!(
                        "nobody is attached; {} (--all)",
                        counted(ended as u64, "has ended", "have ended")
                    )
                }
            };
            return vec![String::new(), ended];
        }
        // A page that is kept open fits its screen: a line each for the space, the heads, the rest.
        let shown = match (self.size, self.stat.watch) {
            (Some(size), Some(_)) => size.rows.saturating_sub(above + 4).max(1),
            _ if self.stat.all => usize::MAX,
            _ => ROWS,
        };
        let mut lines = vec![String::new()];
        lines.extend(self.table(&rows[..rows.len().min(shown)]));
        let more = rows.len().saturating_sub(shown);
        let ended = self
            .now
            .ledger
            .owners
            .iter()
            .filter(|row| !row.owner.alive)
            .count();
        let mut rest = Vec::new();
        if more > 0 {
            rest.push(format!("{} more", grouped(more as u64)));
        }
        if ended > 0 && !self.stat.all && self.stat.matching.is_empty() {
            rest.push(format!("{} that ended", grouped(ended as u64)));
        }
        if !rest.is_empty() {
            lines.push(format!("and {}: --all", rest.join(", ")));
        }
        lines
    }

    fn table(&self, rows: &[&OwnerLedger]) -> Vec<String> {
        let (now, slots) = (self.now, self.now.geometry.slots);
        let is_lost = |of: fn(&OwnerLedger) -> u64| rows.iter().any(|row| of(row) > 0);
        // Causes of which nobody lost anything are no columns.
        let causes: Vec<_> = CAUSES.into_iter().filter(|(_, of)| is_lost(*of)).collect();
        let mut heads = vec![
            "PID",
            "ROLE",
            "LANES",
            "FILL",
            "RECORDS/S",
            "DELIVERED",
            "LOST",
        ];
        heads.extend(causes.iter().map(|(head, _)| *head));
        if self.stat.all {
            heads.push("STATE");
        }
        heads.push("COMMAND");
        let mut table = vec![heads.into_iter().map(str::to_owned).collect::<Vec<_>>()];
        for row in rows {
            let owner = &row.owner;
            let fill = Look::fullest(now.lanes_of(owner.id));
            let mut cells = vec![
                owner.pid.to_string(),
                owner.role.clone(),
                now.lanes_of(owner.id).count().to_string(),
                percent(fill, slots),
                short(self.rates.of(owner.id)),
                grouped(row.tally.delivered),
                grouped(lost(row)),
            ];
            cells.extend(causes.iter().map(|(_, of)| grouped(of(row))));
            if self.stat.all {
                cells.push(if owner.alive { "lives" } else { "ended" }.to_owned());
            }
            cells.push(brief(&owner.command));
            table.push(cells);
        }
        aligned(&table, &["ROLE", "STATE", "COMMAND"])
    }

    fn lanes(&self) -> Vec<String> {
        let now = self.now;
        let heads = ["LANE", "OWNER", "POSITION", "WAITING", "FILL"].map(str::to_owned);
        let mut table = vec![heads.to_vec()];
        let is_idle =
            |lane: &qbus::LaneView| lane.holder.is_none() && !lane.shared && lane.fill == 0;
        for lane in now.lanes.iter().filter(|lane| !is_idle(lane)) {
            let pid = |id| {
                let owner = now.ledger.owners.iter().find(|row| row.owner.id == id);
                owner.map_or_else(String::new, |row| row.owner.pid.to_string())
            };
            let holder = if lane.shared { "shared" } else { "-" };
            table.push(vec![
                lane.index.to_string(),
                lane.holder.map_or(holder.to_owned(), pid),
                grouped(lane.head),
                grouped(lane.fill),
                percent(lane.fill, now.geometry.slots),
            ]);
        }
        let mut lines = vec![String::new()];
        lines.extend(aligned(&table, &[]));
        let idle = now.lanes.iter().filter(|lane| is_idle(lane)).count();
        if idle > 0 {
            lines.push(format!("and {idle} that are free and empty"));
        }
        lines
    }
}

/// Columns of losses, each with what it says of an owner.
type Column = (&'static str, fn(&OwnerLedger) -> u64);
const CAUSES: [Column; 6] = [
    ("FULL", |row| row.tally.dropped_full),
    ("REJECTED", |row| row.tally.rejected),
    ("TORN", |row| row.tally.torn),
    ("REVOKED", |row| row.tally.revoked),
    ("UNPLACED", |row| row.tally.unplaced),
    ("AS STATE", |row| row.owner.coalesced),
];

/// All records of an owner that are on no page. What was kept as state is.
pub(super) fn lost(row: &OwnerLedger) -> u64 {
    let tally = &row.tally;
    let parts = [tally.dropped(), tally.torn, tally.revoked, tally.unplaced];
    parts.into_iter().fold(0, u64::saturating_add)
}

/// Rows of a table, its heads first, in columns as wide as what is in them. Numbers stand on the
/// right.
fn aligned(table: &[Vec<String>], texts: &[&str]) -> Vec<String> {
    let heads = &table[0];
    let width = |column: usize| {
        let cells = table.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(heads).zip(&widths);
        let cells = cells.map(
            |((cell, head), &width)| match texts.contains(&head.as_str()) {
                true => format!("{cell:<width$}"),
                false => format!("{cell:>width$}"),
            },
        );
        cells.collect::<Vec<_>>().join("  ")
    };
    table.iter().map(line).collect()
}
