//! File systems and caches that say much of themselves: ZFS, XFS, Btrfs, bcache.

use std::fs;
use std::path::Path;

use super::hardware::Hardware;
use crate::kernel_file::read_once;
use crate::metric::Trend;
use crate::node_metric::Catalog;
use crate::readings::Readings;
use crate::sysfs::{Item, items, number, word};

impl Hardware {
    pub(crate) fn zfs(proc: &Path) -> Hardware {
        Hardware::new(proc.join("spl/kstat/zfs"), Box::new(push_zfs))
    }

    pub(crate) fn xfs(sys: &Path) -> Hardware {
        Hardware::new(sys.join("fs/xfs"), Box::new(push_xfs))
    }

    pub(crate) fn btrfs(sys: &Path) -> Hardware {
        Hardware::new(sys.join("fs/btrfs"), Box::new(push_btrfs))
    }

    pub(crate) fn bcache(sys: &Path) -> Hardware {
        Hardware::new(sys.join("fs/bcache"), Box::new(push_bcache))
    }
}

/// Files of statistics of ZFS as a whole, and how their metrics begin.
const KSTATS: [(&str, &str); 12] = [
    ("abdstats", "abd"),
    ("arcstats", "arc"),
    ("dbuf_stats", "dbuf"),
    ("dbufstats", "dbuf"),
    ("dmu_tx", "dmu_tx"),
    ("dnodestats", "dnode"),
    ("fm", "fm"),
    ("vdev_cache_stats", "vdev_cache"),
    ("vdev_mirror_stats", "vdev_mirror"),
    ("xuio_stats", "xuio"),
    ("zfetchstats", "zfetch"),
    ("zil", "zil"),
];

fn push_zfs(
    folder: &Path,
    catalog: &mut Catalog,
    buffer: &mut Vec<u8>,
    out: &mut Readings,
) -> bool {
    for (file, begins) in KSTATS {
        // Each version of ZFS has some of them.
        if let Ok(text) = read_once(&folder.join(file), buffer) {
            for (name, value) in kstat(text) {
                push_untyped(
                    &format!("node_zfs_{begins}_{name}"),
                    &[],
                    value,
                    catalog,
                    out,
                );
            }
        }
    }
    for pool in folders(folder) {
        let label = ("zpool", pool.name.as_str());
        if let Ok(text) = read_once(&pool.path.join("io"), buffer) {
            let mut lines = text.lines().skip(1).map(str::split_ascii_whitespace);
            if let (Some(names), Some(values)) = (lines.next(), lines.next()) {
                for (name, value) in names.zip(values) {
                    let name = format!("node_zfs_zpool_{name}");
                    push_untyped(&name, &[label], value, catalog, out);
                }
            }
        }
        for set in items(&pool.path, "objset-") {
            let Ok(text) = read_once(&set.path, buffer) else {
                continue;
            };
            let is_name = |line: &&str| line.starts_with("dataset_name ");
            let name = text
                .lines()
                .find(is_name)
                .and_then(|line| line.split_ascii_whitespace().nth(2));
            let labels = [label, ("dataset", name.unwrap_or_default())];
            for (name, value) in kstat(text) {
                let name = format!("node_zfs_zpool_dataset_{name}");
                push_untyped(&name, &labels, value, catalog, out);
            }
        }
        if let Some(state) = word(&pool.path.join("state"), buffer) {
            const STATES: [&str; 6] = [
                "online", "degraded", "faulted", "offline", "removed", "unavail",
            ];
            for known in STATES {
                let help = "Whether a pool is in that state (1).";
                let metric = catalog.gauge("node_zfs_zpool_state", help);
                let is_so = state.trim().eq_ignore_ascii_case(known);
                let labels = [label, ("state", known)];
                out.push_node(metric, &labels, f64::from(u8::from(is_so)));
            }
        }
    }
    folder.is_dir()
}

/// Lines `NAME TYPE VALUE` of unsigned numbers, which are of the type 4.
fn kstat(text: &str) -> impl Iterator<Item = (String, &str)> {
    text.lines().skip(2).filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (name, kind, value) = (words.next()?, words.next()?, words.next()?);
        (kind == "4").then(|| (name.replace('-', "_"), value))
    })
}

fn push_untyped(
    name: &str,
    labels: &[(&str, &str)],
    value: &str,
    catalog: &mut Catalog,
    out: &mut Readings,
) {
    if let Ok(value) = value.parse::<u64>() {
        let help = "What ZFS says of itself under this name.";
        let metric = catalog.get(name, Trend::Untyped, Trend::Untyped, help);
        out.push_node(metric, labels, value as f64);
    }
}

/// Keys of the statistics of XFS, and what their numbers are, in order; nothing where no metric has
/// it.
const XFS: [(&str, &[&str]); 8] = [
    (
        "extent_alloc",
        &[
            "extent_allocation_extents_allocated",
            "extent_allocation_blocks_allocated",
            "extent_allocation_extents_freed",
            "extent_allocation_blocks_freed",
        ],
    ),
    (
        "abt",
        &[
            "allocation_btree_lookups",
            "allocation_btree_compares",
            "allocation_btree_records_inserted",
            "allocation_btree_records_deleted",
        ],
    ),
    (
        "blk_map",
        &[
            "block_mapping_reads",
            "block_mapping_writes",
            "block_mapping_unmaps",
            "block_mapping_extent_list_insertions",
            "block_mapping_extent_list_deletions",
            "block_mapping_extent_list_lookups",
            "block_mapping_extent_list_compares",
        ],
    ),
    (
        "bmbt",
        &[
            "block_map_btree_lookups",
            "block_map_btree_compares",
            "block_map_btree_records_inserted",
            "block_map_btree_records_deleted",
        ],
    ),
    (
        "dir",
        &[
            "directory_operation_lookup",
            "directory_operation_create",
            "directory_operation_remove",
            "directory_operation_getdents",
        ],
    ),
    (
        "ig",
        &[
            "inode_operation_attempts",
            "inode_operation_found",
            "inode_operation_recycled",
            "inode_operation_missed",
            "inode_operation_duplicates",
            "inode_operation_reclaims",
            "inode_operation_attribute_changes",
        ],
    ),
    ("rw", &["write_calls", "read_calls"]),
    (
        "vnodes",
        &[
            "vnode_active",
            "vnode_allocate",
            "vnode_get",
            "vnode_hold",
            "vnode_release",
            "vnode_reclaim",
            "vnode_remove",
        ],
    ),
];

fn push_xfs(
    folder: &Path,
    catalog: &mut Catalog,
    buffer: &mut Vec<u8>,
    out: &mut Readings,
) -> bool {
    let mut found = false;
    // `stats` beside the devices is the sum of all.
    for device in folders(folder) {
        let Ok(text) = read_once(&device.path.join("stats/stats"), buffer) else {
            continue;
        };
        found = true;
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let key = words.next().unwrap_or_default();
            let names = XFS
                .iter()
                .find(|(known, _)| *known == key)
                .map(|(_, names)| *names);
            for (name, value) in names.unwrap_or_default().iter().zip(words) {
                if let Ok(value) = value.parse::<u64>() {
                    let help = "What XFS counted under this name.";
                    let metric = catalog.counter(&format!("node_xfs_{name}_total"), help);
                    out.push_node(metric, &[("device", &device.name)], value as f64);
                }
            }
        }
    }
    found
}

fn push_btrfs(
    folder: &Path,
    catalog: &mut Catalog,
    buffer: &mut Vec<u8>,
    out: &mut Readings,
) -> bool {
    let mut filesystems = folders(folder);
    // `features` stands beside the file systems.
    filesystems.retain(|filesystem| filesystem.path.join("allocation").is_dir());
    for Item { name, path } in &filesystems {
        let uuid = word(&path.join("metadata_uuid"), buffer).filter(|uuid| !uuid.is_empty());
        let uuid = ("uuid", uuid.as_ref().unwrap_or(name).as_str());
        let help = "What Btrfs says under this name.";
        let mut push = |name: &str, labels: &[(&str, &str)], value: Option<f64>| {
            if let Some(value) = value {
                let metric = catalog.gauge(&format!("node_btrfs_{name}"), help);
                out.push_node(metric, &[&[uuid], labels].concat(), value);
            }
        };
        let label = word(&path.join("label"), buffer).unwrap_or_default();
        push("info", &[("label", &label)], Some(1.0));
        let reserve = number(&path.join("allocation/global_rsv_size"), buffer);
        push("global_rsv_size_bytes", &[], reserve);
        let devices = items(&path.join("devices"), "");
        for device in &devices {
            let sectors = number(&device.path.join("size"), buffer);
            let label = ("device", device.name.as_str());
            push(
                "device_size_bytes",
                &[label],
                sectors.map(|sectors| sectors * 512.0),
            );
        }
        for kind in ["data", "metadata", "system"] {
            let path = path.join("allocation").join(kind);
            let kind = ("block_group_type", kind);
            push(
                "reserved_bytes",
                &[kind],
                number(&path.join("bytes_reserved"), buffer),
            );
            for Item { name: mode, path } in folders(&path) {
                let labels = [kind, ("mode", mode.as_str())];
                push(
                    "size_bytes",
                    &labels,
                    number(&path.join("total_bytes"), buffer),
                );
                push(
                    "used_bytes",
                    &labels,
                    number(&path.join("used_bytes"), buffer),
                );
                push(
                    "allocation_ratio",
                    &labels,
                    copies(&mode, devices.len() as f64),
                );
            }
        }
    }
    !filesystems.is_empty()
}

/// Bytes on so many devices for each byte of data.
fn copies(layout: &str, devices: f64) -> Option<f64> {
    let ratio = match layout {
        "single" | "raid0" => 1.0,
        "dup" | "raid1" | "raid10" => 2.0,
        "raid1c3" => 3.0,
        "raid1c4" => 4.0,
        "raid5" => devices / (devices - 1.0),
        "raid6" => devices / (devices - 2.0),
        _ => return None,
    };
    (ratio.is_finite() && ratio > 0.0).then_some(ratio)
}

/// Files of bcache, how their metrics go on, and how many make a unit.
const BCACHE: [(&str, &str, f64); 10] = [
    ("average_key_size", "average_key_size_sectors", 1.0),
    ("btree_cache_size", "btree_cache_size_bytes", 1.0),
    ("cache_available_percent", "cache_available_percent", 1.0),
    ("congested", "congested", 1.0),
    ("root_usage_percent", "root_usage_percent", 1.0),
    ("tree_depth", "tree_depth", 1.0),
    (
        "internal/active_journal_entries",
        "active_journal_entries",
        1.0,
    ),
    ("internal/btree_nodes", "btree_nodes", 1.0),
    // The kernel says nanoseconds there.
    (
        "internal/btree_read_average_duration_us",
        "btree_read_average_duration_seconds",
        1e9,
    ),
    ("internal/cache_read_races", "cache_read_races_total", 1.0),
];

const BCACHE_BACKING: [(&str, &str, f64); 8] = [
    ("dirty_data", "dirty_data_bytes", 1.0),
    ("stats_total/bypassed", "bypassed_bytes_total", 1.0),
    ("stats_total/cache_hits", "cache_hits_total", 1.0),
    ("stats_total/cache_misses", "cache_misses_total", 1.0),
    (
        "stats_total/cache_bypass_hits",
        "cache_bypass_hits_total",
        1.0,
    ),
    (
        "stats_total/cache_bypass_misses",
        "cache_bypass_misses_total",
        1.0,
    ),
    (
        "stats_total/cache_miss_collisions",
        "cache_miss_collisions_total",
        1.0,
    ),
    (
        "stats_total/cache_readaheads",
        "cache_readaheads_total",
        1.0,
    ),
];

const BCACHE_CACHE: [(&str, &str, f64); 3] = [
    ("io_errors", "io_errors", 1.0),
    ("metadata_written", "metadata_written_bytes_total", 1.0),
    ("written", "written_bytes_total", 1.0),
];

const BCACHE_WRITEBACK: [(&str, &str); 5] = [
    ("rate:", "writeback_rate"),
    ("target:", "dirty_target_bytes"),
    ("proportional:", "writeback_rate_proportional_term"),
    ("integral:", "writeback_rate_integral_term"),
    ("change:", "writeback_change"),
];

fn push_bcache(
    folder: &Path,
    catalog: &mut Catalog,
    buffer: &mut Vec<u8>,
    out: &mut Readings,
) -> bool {
    let mut found = false;
    let mut push = |name: &str, labels: &[(&str, &str)], value: f64| {
        let (name, help) = (
            format!("node_bcache_{name}"),
            "What bcache says under this name.",
        );
        let metric = match name.ends_with("_total") {
            true => catalog.counter(&name, help),
            false => catalog.gauge(&name, help),
        };
        out.push_node(metric, labels, value);
    };
    for cache in folders(folder)
        .iter()
        .filter(|cache| cache.name.contains('-'))
    {
        found = true;
        let uuid = ("uuid", cache.name.as_str());
        let mut push_files = |folder: &Path, files: &[(&str, &str, f64)], labels: &[_]| {
            for (file, name, per_unit) in files {
                if let Some(value) = human(&folder.join(file), buffer) {
                    push(name, labels, value / per_unit);
                }
            }
        };
        push_files(&cache.path, &BCACHE, &[uuid]);
        let backing = items(&cache.path, "bdev");
        for device in &backing {
            let labels = [("backing_device", device.name.as_str()), uuid];
            push_files(&device.path, &BCACHE_BACKING, &labels);
        }
        for device in items(&cache.path, "cache")
            .iter()
            .filter(|item| item.path.is_dir())
        {
            let labels = [("cache_device", device.name.as_str()), uuid];
            push_files(&device.path, &BCACHE_CACHE, &labels);
        }
        for device in &backing {
            let labels = [("backing_device", device.name.as_str()), uuid];
            let path = device.path.join("writeback_rate_debug");
            let text = read_once(&path, buffer).unwrap_or_default();
            for line in text.lines() {
                let (key, value) = line.split_at(line.find(':').map_or(0, |colon| colon + 1));
                let name = BCACHE_WRITEBACK.iter().find(|(known, _)| *known == key);
                let value = of_human(value.trim().trim_end_matches("/sec"));
                if let (Some((_, name)), Some(value)) = (name, value) {
                    push(name, &labels, value);
                }
            }
        }
    }
    found
}

fn human(path: &Path, buffer: &mut Vec<u8>) -> Option<f64> {
    of_human(read_once(path, buffer).ok()?.trim())
}

/// `1.1M`, as bcache writes 1,150,976: the whole units, and behind the point hundreds of the next
/// smaller unit for each tenth.
fn of_human(text: &str) -> Option<f64> {
    const UNITS: &str = "kMGTPEZY";
    let last = text.chars().last()?;
    let Some(power) = UNITS.find(last) else {
        return text.parse::<f64>().ok().filter(|value| value.is_finite());
    };
    let (digits, smaller) = (&text[..text.len() - 1], 1024_f64.powi(power as i32));
    let (whole, tenths) = digits.split_once('.').unwrap_or((digits, "0"));
    let (whole, tenths): (i64, u8) = (whole.parse().ok()?, tenths.parse().ok()?);
    let part = f64::from(tenths) * 100.0 * if whole < 0 { -1.0 } else { 1.0 };
    Some((whole as f64 * 1024.0 + part) * smaller)
}

/// Folders of a folder.
fn folders(folder: &Path) -> Vec<Item> {
    let mut folders = items(folder, "");
    folders.retain(|item| fs::metadata(&item.path).is_ok_and(|found| found.is_dir()));
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bcache_writes_for_people() {
        for (text, value) in [
            ("0", Some(0.0)),
            ("512", Some(512.0)),
            ("20.4G", Some(21_894_266_880.0)),
            ("427.5k", Some(437_748.0)),
            ("-1.1M", Some(-1_150_976.0)),
            ("3k", Some(3072.0)),
            ("", None),
            ("much", None),
        ] {
            assert_eq!(of_human(text), value, "{text}");
        }
    }
}
