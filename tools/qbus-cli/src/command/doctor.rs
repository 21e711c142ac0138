//! `qbus doctor`

mod files;
mod processes;

use std::io::Write;
use std::thread;
use std::time::Duration;

use qbus::{Address, Bus, OpenError};
use serde::Serialize;

use crate::args::Doctor;
use crate::error::Error;
use crate::health::{Finding, Severity, judge, sort};
use crate::look::Look;

/// Between the two readings: long enough to see a loss that happens seldom.
const APART: Duration = Duration::from_secs(1);
/// Columns of a page.
const WIDTH: usize = 80;

/// The wire form of `--json`.
#[derive(Debug, Serialize)]
struct Report<'a> {
    bus: String,
    severity: Option<Severity>,
    findings: &'a [Finding],
}

pub(crate) fn run(address: &Address, doctor: &Doctor, out: &mut dyn Write) -> Result<(), Error> {
    let mut findings = match Bus::open(address) {
        Ok(bus) => of_bus(&bus, doctor)?,
        Err(error) => vec![of_no_bus(address, &error)],
    };
    findings.extend(files::left_behind(address));
    sort(&mut findings);
    let severity = findings.iter().map(|finding| finding.severity).max();
    if doctor.json {
        let report = Report {
            bus: address.to_string(),
            severity,
            findings: &findings,
        };
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        print(address, &findings, out)?;
    }
    out.flush()?;
    match severity {
        None | Some(Severity::Note) => Ok(()),
        Some(Severity::Look) => Err(Error::Ended(1)),
        Some(Severity::Losing) => Err(Error::Ended(2)),
    }
}

fn of_bus(bus: &Bus, doctor: &Doctor) -> Result<Vec<Finding>, Error> {
    let snapshot = doctor.snapshot.as_deref();
    let before = Look::at(bus, snapshot)?;
    thread::sleep(APART);
    let now = Look::at(bus, snapshot)?;
    let mut findings = judge(bus, &before, &now);
    findings.extend(processes::findings(&now));
    findings.extend(files::modes(&now));
    Ok(findings)
}

/// A bus that cannot be opened: the error says what to do.
fn of_no_bus(address: &Address, error: &OpenError) -> Finding {
    let path = address.file().display();
    if !matches!(error, OpenError::Absent { .. }) {
        let found = format!("the bus {address} cannot be opened");
        let mend = match error {
            OpenError::NotOurs { .. } | OpenError::NotAFile { .. } => {
                format!("another name, or another place for what is at {path}")
            }
            OpenError::Foreign { .. } | OpenError::Mode { .. } | OpenError::Io { .. } => {
                format!("as its owner: ls -l {path}")
            }
            _ => format!("when nobody needs it: qbus rm --force -b {address}"),
        };
        return Finding::new(Severity::Look, found, error.to_string(), mend);
    }
    let others = files::buses();
    let elsewhere = match others.is_empty() {
        true => "no other bus is there either".to_owned(),
        false => format!("there are others: {}", others.join(", ")),
    };
    Finding::new(
        Severity::Look,
        format!("there is no bus {address}: {path} does not exist"),
        format!("nobody emits to it, and nothing is collected; {elsewhere}"),
        format!("qbus agg -b {address}; to look at another one: qbus doctor -b NAME"),
    )
}

fn print(address: &Address, findings: &[Finding], out: &mut dyn Write) -> Result<(), Error> {
    for finding in findings {
        let word = match finding.severity {
            Severity::Note => "note",
            Severity::Look => "look",
            Severity::Losing => "LOSING",
        };
        for (head, text) in [(word, &finding.found), ("", &finding.meaning)] {
            for (index, line) in wrapped(text, WIDTH - 8).iter().enumerate() {
                let head = if index == 0 { head } else { "" };
                writeln!(out, "{head:<6}  {line}")?;
            }
        }
        // Never cut: a command is there to be copied.
        writeln!(out, "->      {}\n", finding.mend)?;
    }
    let needing = findings
        .iter()
        .filter(|finding| finding.severity > Severity::Note)
        .count();
    match needing {
        0 => writeln!(out, "The bus {address} is healthy.")?,
        1 => writeln!(out, "The bus {address}: one thing to look at.")?,
        more => writeln!(out, "The bus {address}: {more} things to look at.")?,
    }
    Ok(())
}

/// A text in lines of so many characters, as far as its words allow.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}
