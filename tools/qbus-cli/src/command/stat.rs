//! `qbus stat`

mod page;
mod report;

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use qbus::{Address, Bus};
use qbus_aggregate::OwnerLedger;
use rustix::termios::tcgetwinsize;

use crate::args::{Column, Stat};
use crate::command::{open, sleep, until_signal};
use crate::error::Error;
use crate::health::judge;
use crate::look::{Look, Rates, brief};
use page::{Page, Size};
use report::Report;

/// Between the two looks that a rate needs.
const APART: Duration = Duration::from_millis(250);

pub(crate) fn run(address: &Address, stat: &Stat, out: &mut dyn Write) -> Result<(), Error> {
    let bus = open(address)?;
    let mut before = Look::at(&bus, stat.snapshot.as_deref())?;
    let Some(interval) = stat.watch else {
        if stat.json {
            // At once, and so without rates.
            let findings = judge(&bus, &before, &before);
            let report = Report::of(&before, &findings, None, stat);
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)?;
            return Ok(());
        }
        thread::sleep(APART);
        let now = Look::at(&bus, stat.snapshot.as_deref())?;
        return show(&bus, &before, &now, stat, out);
    };
    let stop = until_signal()?;
    // A rate needs two looks, and nobody wants to wait for the first page.
    let mut pause = interval.min(APART);
    while sleep(pause, &stop) {
        let now = Look::at(&bus, stat.snapshot.as_deref())?;
        show(&bus, &before, &now, stat, out)?;
        out.flush()?;
        if now.is_removed {
            let name = &now.address;
            return Err(Error::Absent(format!("the bus {name} was removed")));
        }
        (before, pause) = (now, interval);
    }
    Ok(())
}

fn show(
    bus: &Bus,
    before: &Look,
    now: &Look,
    stat: &Stat,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let findings = judge(bus, before, now);
    let rates = now.rates_since(before);
    if stat.json {
        serde_json::to_writer(&mut *out, &Report::of(now, &findings, Some(&rates), stat))?;
        writeln!(out)?;
        return Ok(());
    }
    let size = terminal();
    let page = Page {
        now,
        rates: &rates,
        findings: &findings,
        stat,
        size,
    };
    let text = page.text();
    match (size, stat.watch) {
        // From the top of the screen, and nothing of the last page below.
        (Some(_), Some(_)) => write!(out, "\x1b[H\x1b[J{text}")?,
        (None, Some(_)) => writeln!(out, "{text}")?,
        (_, None) => write!(out, "{text}")?,
    }
    Ok(())
}

/// How large the terminal is that the output goes to, if it does.
fn terminal() -> Option<Size> {
    let out = io::stdout();
    let size = out.is_terminal().then(|| tcgetwinsize(&out).ok())??;
    // A terminal that does not know has no size.
    (size.ws_col > 0 && size.ws_row > 0).then(|| Size {
        columns: usize::from(size.ws_col),
        rows: usize::from(size.ws_row),
    })
}

/// The selected owners, in the selected order.
fn chosen<'a>(now: &'a Look, rates: &Rates, stat: &Stat, with_ended: bool) -> Vec<&'a OwnerLedger> {
    let is_meant = |row: &&OwnerLedger| {
        let owner = &row.owner;
        let command = brief(&owner.command);
        let program = command.split(' ').next().unwrap_or_default();
        let texts = [&*owner.pid.to_string(), &*owner.role, program, &*command];
        let is_wanted = |glob: &glob::Pattern| texts.iter().any(|text| glob.matches(text));
        (owner.alive || with_ended)
            && (stat.matching.is_empty() || stat.matching.iter().any(is_wanted))
    };
    let mut rows: Vec<_> = now.ledger.owners.iter().filter(is_meant).collect();
    sort(&mut rows, stat.sort, now, rates);
    rows
}

/// Sorts by a column; what is the same by what is delivered, then by pid.
fn sort(rows: &mut [&OwnerLedger], column: Column, now: &Look, rates: &Rates) {
    let most = |row: &&OwnerLedger| -> f64 {
        let owner = &row.owner;
        match column {
            Column::Rate => rates.of(owner.id),
            Column::Lost => page::lost(row) as f64,
            Column::Fill => Look::fullest(now.lanes_of(owner.id)) as f64,
            Column::Lanes => now.lanes_of(owner.id).count() as f64,
            Column::Joined => owner.joined_ns as f64,
            Column::Pid => -(owner.pid as f64),
            Column::Delivered | Column::Role | Column::Command => 0.0,
        }
    };
    let text = |row: &&OwnerLedger| match column {
        Column::Role => row.owner.role.clone(),
        Column::Command => brief(&row.owner.command),
        _ => String::new(),
    };
    rows.sort_by(|a, b| {
        let by_text = text(a).cmp(&text(b));
        let by_delivered = b.tally.delivered.cmp(&a.tally.delivered);
        let then = by_delivered.then(a.owner.pid.cmp(&b.owner.pid));
        by_text.then(most(b).total_cmp(&most(a))).then(then)
    });
}
