//! AMD GPUs by the files of their driver.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::sysfs::{file_name, items, number, word};
use crate::table::Reading;

/// The vendor's number on the PCI bus.
const AMD: &str = "0x1002";

/// A file, what it says, how many of that make a unit, and what is no sentinel or fault of the
/// driver.
type File = (&'static str, Reading, f64, RangeInclusive<f64>);

const RATIO: RangeInclusive<f64> = 0.0..=1.0;
const BYTES: RangeInclusive<f64> = 0.0..=(1_u64 << 50) as f64;
const WATTS: RangeInclusive<f64> = 0.0..=1e5;
const CELSIUS: RangeInclusive<f64> = -50.0..=200.0;

const OF_DEVICE: [File; 4] = [
    ("gpu_busy_percent", Reading::GpuUtilization, 100.0, RATIO),
    (
        "mem_busy_percent",
        Reading::GpuMemoryUtilization,
        100.0,
        RATIO,
    ),
    ("mem_info_vram_total", Reading::GpuMemoryTotal, 1.0, BYTES),
    ("mem_info_vram_used", Reading::GpuMemoryUsed, 1.0, BYTES),
];

const OF_MONITOR: [File; 2] = [
    ("power1_cap", Reading::GpuPowerLimit, 1e6, WATTS),
    ("temp1_input", Reading::GpuTemperature, 1e3, CELSIUS),
];

/// A mean of the power; newer cards say what they draw right now instead.
const POWER: [File; 2] = [
    ("power1_average", Reading::GpuPower, 1e6, WATTS),
    ("power1_input", Reading::GpuPower, 1e6, WATTS),
];

/// Reads the cards of `/sys/class/drm` that are AMD's.
pub(crate) struct AmdGpus {
    class: PathBuf,
    buffer: Vec<u8>,
}

impl AmdGpus {
    pub(crate) fn new(sys: &Path) -> AmdGpus {
        AmdGpus {
            class: sys.join("class/drm"),
            buffer: Vec::new(),
        }
    }

    fn push(&mut self, index: &str, device: &Path, out: &mut Readings) {
        let buffer = &mut self.buffer;
        let pci = file_name(&fs::canonicalize(device).unwrap_or_default());
        let uuid = word(&device.join("unique_id"), buffer).unwrap_or_else(|| pci.clone());
        let labels = [("gpu", index), ("uuid", &*uuid)];
        let mut push = |folder: &Path, files: &[File]| {
            for (file, reading, per_unit, range) in files {
                let path = folder.join(file);
                let value = number(&path, buffer).map(|value| value / per_unit);
                match value {
                    None => {}
                    Some(value) if range.contains(&value) => out.push(*reading, &labels, value),
                    Some(value) => {
                        out.fail(|| format!("{}: {value} is out of range", path.display()));
                    }
                }
            }
        };
        push(device, &OF_DEVICE);
        if let Some(monitor) = items(&device.join("hwmon"), "hwmon").first() {
            push(&monitor.path, &OF_MONITOR);
            let has_mean = monitor.path.join(POWER[0].0).exists();
            push(&monitor.path, &POWER[usize::from(!has_mean)..][..1]);
        }
        let name = word(&device.join("product_name"), buffer).unwrap_or_default();
        let what = [("name", &*name), ("pci_bus_id", &*pci)];
        out.push(Reading::GpuInfo, &[labels, what].concat(), 1.0);
        out.push(Reading::GpuUp, &labels, 1.0);
    }
}

impl Probe for AmdGpus {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let mut found = false;
        // `card0-DP-1` is a plug of `card0`.
        let cards = items(&self.class, "card");
        for card in cards.iter().filter(|card| !card.name.contains('-')) {
            let device = card.path.join("device");
            let vendor = word(&device.join("vendor"), &mut self.buffer);
            if vendor.as_deref() == Some(AMD) {
                found = true;
                self.push(card.name.trim_start_matches("card"), &device, out);
            }
        }
        match found {
            true => Ok(()),
            false => Err(Failure::Absent("no AMD GPU".to_owned())),
        }
    }
}
