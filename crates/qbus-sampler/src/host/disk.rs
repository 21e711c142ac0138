//! Block devices, as `/proc/diskstats` counts them.

use crate::probe::Failure;
use crate::readings::Readings;
use crate::table::Reading;

/// The unit of `/proc/diskstats`, whatever the device calls a sector.
const SECTORS_PER_BYTE: f64 = 1.0 / 512.0;

const MILLISECONDS_PER_SECOND: f64 = 1e3;

/// The columns after the name of the device, with how many make a base unit; older kernels have
/// fewer.
const COLUMNS: [(Option<Reading>, f64); 17] = [
    (Some(Reading::DiskReads), 1.0),
    (Some(Reading::DiskReadsMerged), 1.0),
    (Some(Reading::DiskReadBytes), SECTORS_PER_BYTE),
    (Some(Reading::DiskReadTime), MILLISECONDS_PER_SECOND),
    (Some(Reading::DiskWrites), 1.0),
    (Some(Reading::DiskWritesMerged), 1.0),
    (Some(Reading::DiskWrittenBytes), SECTORS_PER_BYTE),
    (Some(Reading::DiskWriteTime), MILLISECONDS_PER_SECOND),
    (Some(Reading::DiskIoNow), 1.0),
    (Some(Reading::DiskIoTime), MILLISECONDS_PER_SECOND),
    (Some(Reading::DiskIoTimeWeighted), MILLISECONDS_PER_SECOND),
    (Some(Reading::DiskDiscards), 1.0),
    (None, 1.0),
    (Some(Reading::DiskDiscardedBytes), SECTORS_PER_BYTE),
    (None, 1.0),
    (Some(Reading::DiskFlushes), 1.0),
    (Some(Reading::DiskFlushTime), MILLISECONDS_PER_SECOND),
];

/// Reads `/proc/diskstats`.
pub(crate) fn parse(text: &str, out: &mut Readings) -> Result<(), Failure> {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace().skip(2);
        let Some(device) = words.next() else { continue };
        if !is_whole_device(device) {
            continue;
        }
        for ((reading, per_unit), word) in COLUMNS.into_iter().zip(words) {
            match (reading, word.parse::<u64>()) {
                (Some(reading), Ok(number)) => {
                    out.push(reading, &[("device", device)], number as f64 / per_unit);
                }
                (None, _) => {}
                (_, Err(_)) => out.fail(|| format!("can't read the line `{line}`")),
            }
        }
    }
    Ok(())
}

/// Partitions count again what their disk has counted; loops, RAM disks and floppies are no disks.
fn is_whole_device(device: &str) -> bool {
    let stem = device.trim_end_matches(|c: char| c.is_ascii_digit());
    if stem.len() == device.len() {
        return true;
    }
    match stem {
        "loop" | "ram" | "zram" | "fd" => false,
        // `nvme0n1p2`, `mmcblk0p1`: the number before the `p` tells them from a name in `p`.
        _ if stem.ends_with('p') => !stem
            .trim_end_matches('p')
            .ends_with(|c: char| c.is_ascii_digit()),
        _ => !["hd", "sd", "vd", "xvd"].iter().any(|kind| {
            stem.strip_prefix(kind).is_some_and(|letters| {
                !letters.is_empty() && letters.bytes().all(|byte| byte.is_ascii_lowercase())
            })
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_and_loops_are_told_from_disks() {
        for disk in [
            "sda", "vda", "xvdb", "nvme0n1", "mmcblk0", "dm-0", "md127", "sr0", "sdaa",
        ] {
            assert!(is_whole_device(disk), "{disk}");
        }
        for part in [
            "sda1",
            "vdb12",
            "xvda1",
            "nvme0n1p2",
            "mmcblk0p1",
            "loop3",
            "zram0",
            "sdaa3",
        ] {
            assert!(!is_whole_device(part), "{part}");
        }
    }
}
