//! Files that hold a number after a key in each line, or a row of numbers.

use std::sync::{Arc, Mutex, PoisonError};

use crate::filters::Pattern;
use crate::kernel_file::SharedFile;
use crate::metric::Trend;
use crate::node_metric::Catalog;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::table::Reading;

/// A key of a file, what its number is, and the factor to the base unit.
type Key = (&'static str, Reading, f64);

/// `/proc/vmstat`, which counts paging in KiB.
const VMSTAT: &[Key] = &[
    ("pgpgin", Reading::PageInBytes, 1024.0),
    ("pgpgout", Reading::PageOutBytes, 1024.0),
    ("pswpin", Reading::SwapInPages, 1.0),
    ("pswpout", Reading::SwapOutPages, 1.0),
    ("pgfault", Reading::PageFaults, 1.0),
    ("pgmajfault", Reading::MajorPageFaults, 1.0),
    ("oom_kill", Reading::OomKills, 1.0),
];

/// `/proc/stat` below its lines of CPUs.
const STAT: &[Key] = &[
    ("intr", Reading::Interrupts, 1.0),
    ("ctxt", Reading::ContextSwitches, 1.0),
    ("btime", Reading::BootTime, 1.0),
    ("processes", Reading::Forks, 1.0),
    ("procs_running", Reading::ProcsRunning, 1.0),
    ("procs_blocked", Reading::ProcsBlocked, 1.0),
    ("softirq", Reading::SoftInterrupts, 1.0),
];

/// Reads `/proc/vmstat`: the fields that are wanted.
pub(crate) fn parse_vmstat(
    text: &str,
    fields: &Pattern,
    catalog: &mut Catalog,
    out: &mut Readings,
) -> Result<(), Failure> {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    for (key, number) in lines.filter(|(key, _)| fields.matches(key)) {
        let Ok(number) = number.parse::<u64>().map(|number| number as f64) else {
            out.fail(|| format!("can't read the value of {key} in vmstat"));
            continue;
        };
        if let Some((_, reading, factor)) = VMSTAT.iter().find(|(named, _, _)| *named == key) {
            out.push(*reading, &[], number * factor);
            continue;
        }
        // What counts pages in a state says so; all else counts events.
        let is_level = key.starts_with("nr_");
        let trend = if is_level {
            Trend::Gauge
        } else {
            Trend::Counter
        };
        let help = "Statistic of the memory management.";
        let name = format!("node_vmstat_{key}");
        out.push_node(catalog.get(&name, Trend::Untyped, trend, help), &[], number);
    }
    Ok(())
}

/// Reads `/proc/loadavg`.
pub(crate) fn parse_loadavg(text: &str, out: &mut Readings) -> Result<(), Failure> {
    push_columns(
        text,
        &[
            Some(Reading::Load1),
            Some(Reading::Load5),
            Some(Reading::Load15),
        ],
        out,
    )
}

/// Reads `/proc/sys/fs/file-nr`, whose second column has been zero for twenty years.
pub(crate) fn parse_file_nr(text: &str, out: &mut Readings) -> Result<(), Failure> {
    push_columns(
        text,
        &[Some(Reading::OpenFiles), None, Some(Reading::OpenFilesMax)],
        out,
    )
}

/// `/proc/stat`, without the CPUs.
pub(crate) struct Stat {
    pub(crate) file: Arc<Mutex<SharedFile>>,
}

impl Probe for Stat {
    fn read(&mut self, tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        push_keys(file.read(tick.now)?, STAT, out)
    }
}

fn push_columns(
    text: &str,
    columns: &[Option<Reading>],
    out: &mut Readings,
) -> Result<(), Failure> {
    let mut found = text.split_ascii_whitespace();
    for column in columns {
        let number = found.next().and_then(|number| number.parse::<f64>().ok());
        match (column, number) {
            (Some(reading), Some(number)) => out.push(*reading, &[], number),
            (Some(_), None) => out.fail(|| format!("can't read `{}`", text.trim_end())),
            (None, _) => {}
        }
    }
    Ok(())
}

fn push_keys(text: &str, keys: &[Key], out: &mut Readings) -> Result<(), Failure> {
    let mut found = false;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(key), Some(number)) = (words.next(), words.next()) else {
            continue;
        };
        let Some((_, reading, factor)) = keys.iter().find(|(known, _, _)| *known == key) else {
            continue;
        };
        match number.parse::<u64>() {
            Ok(number) => out.push(*reading, &[], number as f64 * factor),
            Err(_) => out.fail(|| format!("can't read the line `{line}`")),
        }
        found = true;
    }
    match found {
        true => Ok(()),
        false => Err(Failure::Failed(
            "none of the known keys is there".to_owned(),
        )),
    }
}
