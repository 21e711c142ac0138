//! Block devices: what `/proc/diskstats` counts of them, and what udev knows.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Roots;
use crate::filters::Choice;
use crate::kernel_file::{KernelFile, read_once};
use crate::node_metric::NodeMetric;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::table::Reading;

/// The unit of `/proc/diskstats`, whatever the device calls a sector.
const SECTORS_PER_BYTE: f64 = 1.0 / 512.0;

const MILLISECONDS_PER_SECOND: f64 = 1e3;

/// What a disk is does not change while it is there.
const UDEV_PERIOD: Duration = Duration::from_secs(60);

/// The columns after the name of the device, with how many make a base unit; older kernels have
/// fewer.
const COLUMNS: [(Reading, f64); 17] = [
    (Reading::DiskReads, 1.0),
    (Reading::DiskReadsMerged, 1.0),
    (Reading::DiskReadBytes, SECTORS_PER_BYTE),
    (Reading::DiskReadTime, MILLISECONDS_PER_SECOND),
    (Reading::DiskWrites, 1.0),
    (Reading::DiskWritesMerged, 1.0),
    (Reading::DiskWrittenBytes, SECTORS_PER_BYTE),
    (Reading::DiskWriteTime, MILLISECONDS_PER_SECOND),
    (Reading::DiskIoNow, 1.0),
    (Reading::DiskIoTime, MILLISECONDS_PER_SECOND),
    (Reading::DiskIoTimeWeighted, MILLISECONDS_PER_SECOND),
    (Reading::DiskDiscards, 1.0),
    (Reading::DiskDiscardsMerged, 1.0),
    (Reading::DiskDiscardedBytes, SECTORS_PER_BYTE),
    (Reading::DiskDiscardTime, MILLISECONDS_PER_SECOND),
    (Reading::DiskFlushes, 1.0),
    (Reading::DiskFlushTime, MILLISECONDS_PER_SECOND),
];

/// Reads `/proc/diskstats`, and of each device the file of udev.
pub(crate) struct Disks {
    file: KernelFile,
    udev: PathBuf,
    choice: Choice,
    metrics: Metrics,
    /// By name, whether it is shown and what udev knows.
    known: HashMap<String, Disk>,
    buffer: Vec<u8>,
    udev_buffer: Vec<u8>,
}

struct Disk {
    shown: bool,
    numbers: (String, String),
    /// Properties by their names, without the `E:` before them.
    udev: HashMap<String, String>,
    read: Instant,
}

struct Metrics {
    info: Arc<NodeMetric>,
    filesystem: Arc<NodeMetric>,
    mapper: Arc<NodeMetric>,
    ata: [(&'static str, Arc<NodeMetric>); 3],
}

impl Disks {
    pub(crate) fn new(roots: &Roots, choice: &Choice) -> Disks {
        let gauge = |name: &'static str, help| NodeMetric::gauge(name, help);
        let metrics = Metrics {
            info: gauge("node_disk_info", "A disk, as labels; the value is 1."),
            filesystem: gauge(
                "node_disk_filesystem_info",
                "The file system on a disk, as labels; the value is 1.",
            ),
            mapper: gauge(
                "node_disk_device_mapper_info",
                "A mapped device, as labels; the value is 1.",
            ),
            ata: [
                (
                    "ID_ATA_WRITE_CACHE",
                    gauge(
                        "node_disk_ata_write_cache",
                        "Whether a disk has a write cache (1).",
                    ),
                ),
                (
                    "ID_ATA_WRITE_CACHE_ENABLED",
                    gauge(
                        "node_disk_ata_write_cache_enabled",
                        "Whether the write cache of a disk is on (1).",
                    ),
                ),
                (
                    "ID_ATA_ROTATION_RATE_RPM",
                    gauge(
                        "node_disk_ata_rotation_rate_rpm",
                        "Rotations of a disk per minute; 0 where nothing turns.",
                    ),
                ),
            ],
        };
        Disks {
            file: KernelFile::new(roots.proc.join("diskstats")),
            udev: roots.udev.clone(),
            choice: choice.clone(),
            metrics,
            known: HashMap::new(),
            buffer: Vec::new(),
            udev_buffer: Vec::new(),
        }
    }
}

impl Probe for Disks {
    fn read(&mut self, tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let text = match self.file.read(&mut self.buffer) {
            Ok(text) => text,
            Err(err) => return Err(Failure::io(self.file.path(), &err)),
        };
        let now = tick.now;
        let expired = |disk: &Disk| now.saturating_duration_since(disk.read) >= UDEV_PERIOD;
        self.known.retain(|_, disk| !expired(disk));
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(major), Some(minor), Some(device)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let is_same = |disk: &Disk| (&*disk.numbers.0, &*disk.numbers.1) == (major, minor);
            if !self.known.get(device).is_some_and(is_same) {
                let shown = self.choice.has(device);
                let path = self.udev.join(format!("b{major}:{minor}"));
                let udev = shown.then(|| udev(&path, &mut self.udev_buffer));
                let disk = Disk {
                    shown,
                    numbers: (major.to_owned(), minor.to_owned()),
                    udev: udev.unwrap_or_default(),
                    read: now,
                };
                self.known.insert(device.to_owned(), disk);
            }
            let disk = &self.known[device];
            if !disk.shown {
                continue;
            }
            for ((reading, per_unit), word) in COLUMNS.into_iter().zip(words) {
                match word.parse::<u64>() {
                    Ok(number) => {
                        out.push(reading, &[("device", device)], number as f64 / per_unit);
                    }
                    Err(_) => out.fail(|| format!("can't read the line `{line}`")),
                }
            }
            push_udev(&self.metrics, device, disk, out);
        }
        Ok(())
    }
}

fn push_udev(metrics: &Metrics, device: &str, disk: &Disk, out: &mut Readings) {
    let of = |key: &str| disk.udev.get(key).map_or("", String::as_str);
    let labels = [
        ("device", device),
        ("major", &*disk.numbers.0),
        ("minor", &*disk.numbers.1),
        ("path", of("ID_PATH")),
        ("wwn", of("ID_WWN")),
        ("model", of("ID_MODEL")),
        ("serial", of("ID_SERIAL_SHORT")),
        ("revision", of("ID_REVISION")),
    ];
    out.push_node(&metrics.info, &labels, 1.0);
    if !of("ID_FS_TYPE").is_empty() {
        let labels = [
            ("device", device),
            ("type", of("ID_FS_TYPE")),
            ("usage", of("ID_FS_USAGE")),
            ("uuid", of("ID_FS_UUID")),
            ("version", of("ID_FS_VERSION")),
        ];
        out.push_node(&metrics.filesystem, &labels, 1.0);
    }
    if !of("DM_NAME").is_empty() {
        let labels = [
            ("device", device),
            ("name", of("DM_NAME")),
            ("uuid", of("DM_UUID")),
            ("vg_name", of("DM_VG_NAME")),
            ("lv_name", of("DM_LV_NAME")),
            ("lv_layer", of("DM_LV_LAYER")),
        ];
        out.push_node(&metrics.mapper, &labels, 1.0);
    }
    if !of("ID_ATA").is_empty() {
        for (key, metric) in &metrics.ata {
            if let Ok(value) = of(key).parse::<f64>() {
                out.push_node(metric, &[("device", device)], value);
            }
        }
    }
}

/// The properties that udev has stored of a device; none where there is no udev.
fn udev(path: &Path, buffer: &mut Vec<u8>) -> HashMap<String, String> {
    let text = read_once(path, buffer).unwrap_or_default();
    let properties = text
        .lines()
        .filter_map(|line| line.strip_prefix("E:")?.split_once('='));
    properties
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
