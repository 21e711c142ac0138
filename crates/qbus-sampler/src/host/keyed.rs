//! Files that hold a number after a key in each line, or a row of numbers.

use std::sync::{Arc, Mutex, PoisonError};

use crate::kernel_file::SharedFile;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::table::Reading;

/// A key of a file, what its number is, and the factor to the base unit.
type Key = (&'static str, Reading, f64);

/// `/proc/meminfo`.
const MEMINFO: &[Key] = &[
    ("Cached:", Reading::MemoryCached, 1024.0),
    ("Buffers:", Reading::MemoryBuffers, 1024.0),
    ("Shmem:", Reading::MemoryShmem, 1024.0),
    ("AnonPages:", Reading::MemoryAnon, 1024.0),
    ("Mapped:", Reading::MemoryMapped, 1024.0),
    ("Active:", Reading::MemoryActive, 1024.0),
    ("Inactive:", Reading::MemoryInactive, 1024.0),
    ("Dirty:", Reading::MemoryDirty, 1024.0),
    ("Writeback:", Reading::MemoryWriteback, 1024.0),
    ("SReclaimable:", Reading::MemorySlabReclaimable, 1024.0),
    ("SUnreclaim:", Reading::MemorySlabUnreclaimable, 1024.0),
    ("PageTables:", Reading::MemoryPageTables, 1024.0),
    ("KernelStack:", Reading::MemoryKernelStack, 1024.0),
    ("Mlocked:", Reading::MemoryMlocked, 1024.0),
    ("Committed_AS:", Reading::MemoryCommitted, 1024.0),
    ("CommitLimit:", Reading::MemoryCommitLimit, 1024.0),
    ("SwapCached:", Reading::MemorySwapCached, 1024.0),
    ("HugePages_Total:", Reading::HugePages, 1.0),
    ("HugePages_Free:", Reading::HugePagesFree, 1.0),
    ("Hugepagesize:", Reading::HugePageSize, 1024.0),
];

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

/// Reads `/proc/meminfo`.
pub(crate) fn parse_meminfo(text: &str, out: &mut Readings) -> Result<(), Failure> {
    push_keys(text, MEMINFO, out)
}

/// Reads `/proc/vmstat`.
pub(crate) fn parse_vmstat(text: &str, out: &mut Readings) -> Result<(), Failure> {
    push_keys(text, VMSTAT, out)
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
