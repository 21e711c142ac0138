//! `/proc/meminfo`: the few values that everybody looks at, and all of it.

use crate::metric::Trend;
use crate::node_metric::Catalog;
use crate::probe::Failure;
use crate::readings::Readings;
use crate::table::Reading;

/// Keys that have a qbus name of their own.
const NAMED: [(&str, Reading); 20] = [
    ("Cached", Reading::MemoryCached),
    ("Buffers", Reading::MemoryBuffers),
    ("Shmem", Reading::MemoryShmem),
    ("AnonPages", Reading::MemoryAnon),
    ("Mapped", Reading::MemoryMapped),
    ("Active", Reading::MemoryActive),
    ("Inactive", Reading::MemoryInactive),
    ("Dirty", Reading::MemoryDirty),
    ("Writeback", Reading::MemoryWriteback),
    ("SReclaimable", Reading::MemorySlabReclaimable),
    ("SUnreclaim", Reading::MemorySlabUnreclaimable),
    ("PageTables", Reading::MemoryPageTables),
    ("KernelStack", Reading::MemoryKernelStack),
    ("Mlocked", Reading::MemoryMlocked),
    ("Committed_AS", Reading::MemoryCommitted),
    ("CommitLimit", Reading::MemoryCommitLimit),
    ("SwapCached", Reading::MemorySwapCached),
    ("HugePages_Total", Reading::HugePages),
    ("HugePages_Free", Reading::HugePagesFree),
    ("Hugepagesize", Reading::HugePageSize),
];

/// Keys that the source `memory` reads.
const BASIC: [&str; 5] = [
    "MemTotal",
    "MemFree",
    "MemAvailable",
    "SwapTotal",
    "SwapFree",
];

/// A line of the file: its key, its number in base units, and whether that is of bytes.
fn lines(text: &str) -> impl Iterator<Item = (&str, Option<f64>, bool)> {
    text.lines().filter_map(|line| {
        let (key, rest) = line.split_once(':')?;
        let mut words = rest.split_ascii_whitespace();
        let number = words.next()?.parse::<u64>().ok();
        let is_size = words.next() == Some("kB");
        let factor = if is_size { 1024.0 } else { 1.0 };
        Some((key, number.map(|number| number as f64 * factor), is_size))
    })
}

/// Total, available, free and used.
pub(crate) fn parse_basic(text: &str, out: &mut Readings) -> Result<(), Failure> {
    let value = |wanted: &str| {
        let found = lines(text).find(|(key, _, _)| *key == wanted)?;
        found.1
    };
    let Some(total) = value("MemTotal").filter(|total| *total > 0.0) else {
        return Err(Failure::Failed("meminfo has no MemTotal".to_owned()));
    };
    out.push(Reading::MemoryTotal, &[], total);
    if let Some(free) = value("MemFree") {
        out.push(Reading::MemoryFree, &[], free);
    }
    // Kernels before 3.14 do not say it, and nobody else can.
    if let Some(available) = value("MemAvailable") {
        out.push(Reading::MemoryAvailable, &[], available);
        out.push(Reading::MemoryUsed, &[], total - available);
        out.push(Reading::MemoryUsedRatio, &[], 1.0 - available / total);
    }
    if let (Some(total), Some(free)) = (value("SwapTotal"), value("SwapFree")) {
        out.push(Reading::SwapTotal, &[], total);
        out.push(Reading::SwapFree, &[], free);
        out.push(Reading::SwapUsed, &[], (total - free).max(0.0));
    }
    Ok(())
}

/// Everything else.
pub(crate) fn parse_whole(
    text: &str,
    catalog: &mut Catalog,
    out: &mut Readings,
) -> Result<(), Failure> {
    for (key, value, is_size) in lines(text).filter(|(key, _, _)| !BASIC.contains(key)) {
        let Some(value) = value else {
            out.fail(|| format!("can't read the value of {key} in meminfo"));
            continue;
        };
        if let Some((_, reading)) = NAMED.iter().find(|(named, _)| *named == key) {
            out.push(*reading, &[], value);
            continue;
        }
        // `Active(anon)` is `Active_anon`.
        let key = key.replace('(', "_").replace(')', "");
        let end = if is_size { "_bytes" } else { "" };
        let help = "Memory information field.";
        let name = format!("node_memory_{key}{end}");
        out.push_node(
            catalog.get(&name, Trend::Gauge, Trend::Gauge, help),
            &[],
            value,
        );
    }
    Ok(())
}
