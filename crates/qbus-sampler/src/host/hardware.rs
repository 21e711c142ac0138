//! Devices that `/sys` has a folder each of: memory controllers, NVMe disks, batteries, energy
//! counters, firmware.

use std::path::{Path, PathBuf};

use crate::filters::Choice;
use crate::node_metric::Catalog;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::sysfs::{items, number, word};

/// One kind of devices.
pub(crate) struct Hardware {
    folder: PathBuf,
    read: Read,
    catalog: Catalog,
    buffer: Vec<u8>,
}

/// Pushes what is found in a folder, and says whether there was anything.
pub(super) type Read =
    Box<dyn FnMut(&Path, &mut Catalog, &mut Vec<u8>, &mut Readings) -> bool + Send>;

impl Hardware {
    pub(super) fn new(folder: PathBuf, read: Read) -> Hardware {
        Hardware {
            folder,
            read,
            catalog: Catalog::default(),
            buffer: Vec::new(),
        }
    }

    pub(crate) fn edac(sys: &Path) -> Hardware {
        Hardware::new(sys.join("devices/system/edac/mc"), Box::new(push_edac))
    }

    pub(crate) fn nvme(sys: &Path) -> Hardware {
        Hardware::new(sys.join("class/nvme"), Box::new(push_nvme))
    }

    pub(crate) fn rapl(sys: &Path) -> Hardware {
        Hardware::new(sys.join("class/powercap"), Box::new(push_rapl))
    }

    pub(crate) fn dmi(sys: &Path) -> Hardware {
        Hardware::new(sys.join("class/dmi/id"), Box::new(push_dmi))
    }

    pub(crate) fn selinux(sys: &Path) -> Hardware {
        Hardware::new(sys.join("fs/selinux"), Box::new(push_selinux))
    }

    pub(crate) fn power(sys: &Path, choice: &Choice) -> Hardware {
        let choice = choice.clone();
        let folder = sys.join("class/power_supply");
        let read = move |folder: &Path,
                         catalog: &mut Catalog,
                         buffer: &mut Vec<u8>,
                         out: &mut Readings| {
            push_power(folder, &choice, catalog, buffer, out)
        };
        Hardware::new(folder, Box::new(read))
    }
}

impl Probe for Hardware {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        match (self.read)(&self.folder, &mut self.catalog, &mut self.buffer, out) {
            true => Ok(()),
            false => Err(Failure::Absent(format!(
                "nothing in {}",
                self.folder.display()
            ))),
        }
    }
}

fn push_edac(
    folder: &Path,
    catalog: &mut Catalog,
    buffer: &mut Vec<u8>,
    out: &mut Readings,
) -> bool {
    const KINDS: [(&str, &str, &str); 2] = [
        (
            "ce",
            "correctable",
            "Errors of the memory that were corrected.",
        ),
        (
            "ue",
            "uncorrectable",
            "Errors of the memory that could not be corrected.",
        ),
    ];
    let controllers = items(folder, "mc");
    for controller in &controllers {
        let name = controller.name.trim_start_matches("mc");
        for (short, kind, help) in KINDS {
            let mut push = |file: PathBuf, metric: String, labels: &[(&str, &str)]| {
                if let Some(errors) = number(&file, buffer) {
                    out.push_node(catalog.counter(&metric, help), labels, errors);
                }
            };
            let of_controller = format!("node_edac_{kind}_errors_total");
            let label = ("controller", name);
            push(
                controller.path.join(format!("{short}_count")),
                of_controller,
                &[label],
            );
            let of_row = format!("node_edac_csrow_{kind}_errors_total");
            let unknown = controller.path.join(format!("{short}_noinfo_count"));
            push(unknown, of_row.clone(), &[label, ("csrow", "unknown")]);
            for row in items(&controller.path, "csrow") {
                let labels = [label, ("csrow", row.name.trim_start_matches("csrow"))];
                push(
                    row.path.join(format!("{short}_count")),
                    of_row.clone(),
                    &labels,
                );
            }
        }
    }
    !controllers.is_empty()
}

fn push_nvme(
    folder: &Path,
    catalog: &mut Catalog,
    buffer: &mut Vec<u8>,
    out: &mut Readings,
) -> bool {
    let disks = items(folder, "nvme");
    for disk in &disks {
        let mut text = |file| {
            let text = word(&disk.path.join(file), buffer).unwrap_or_default();
            text.trim().to_owned()
        };
        let labels = [
            ("device", disk.name.as_str()),
            ("firmware_revision", &text("firmware_rev")),
            ("model", &text("model")),
            ("serial", &text("serial")),
            ("state", &text("state")),
        ];
        let help = "An NVMe disk, as labels; the value is 1.";
        out.push_node(catalog.gauge("node_nvme_info", help), &labels, 1.0);
    }
    !disks.is_empty()
}

/// The counters of a zone count microjoules up to its own limit and start again, as counters may.
/// Since 2020 only root reads them.
fn push_rapl(
    folder: &Path,
    catalog: &mut Catalog,
    buffer: &mut Vec<u8>,
    out: &mut Readings,
) -> bool {
    let zones = items(folder, "intel-rapl:");
    for zone in &zones {
        let Some(name) = word(&zone.path.join("name"), buffer) else {
            continue;
        };
        let Some(microjoules) = number(&zone.path.join("energy_uj"), buffer) else {
            let path = zone.path.join("energy_uj");
            out.fail_of(&zone.name, || format!("{}: can't be read", path.display()));
            continue;
        };
        // `package-1` is the zone `package` with the index 1; all else goes by its number.
        let (kind, index) = match name.rsplit_once('-') {
            Some((kind, index)) if index.bytes().all(|byte| byte.is_ascii_digit()) => {
                (kind.to_owned(), index.to_owned())
            }
            _ => {
                let same = zones.iter().take_while(|other| other.path != zone.path);
                let before = same
                    .filter(|other| word(&other.path.join("name"), buffer).as_ref() == Some(&name));
                (name.clone(), before.count().to_string())
            }
        };
        let kind: String = kind
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        let metric = format!("node_rapl_{kind}_joules_total");
        let path = zone.path.to_string_lossy();
        let labels = [("index", index.as_str()), ("path", &path)];
        let help = "Energy that a part of the CPU has used.";
        out.push_node(catalog.counter(&metric, help), &labels, microjoules / 1e6);
    }
    !zones.is_empty()
}

fn push_dmi(
    folder: &Path,
    catalog: &mut Catalog,
    buffer: &mut Vec<u8>,
    out: &mut Readings,
) -> bool {
    const FILES: [&str; 20] = [
        "bios_date",
        "bios_release",
        "bios_vendor",
        "bios_version",
        "board_asset_tag",
        "board_name",
        "board_serial",
        "board_vendor",
        "board_version",
        "chassis_asset_tag",
        "chassis_serial",
        "chassis_vendor",
        "chassis_version",
        "product_family",
        "product_name",
        "product_serial",
        "product_sku",
        "product_uuid",
        "product_version",
        "sys_vendor",
    ];
    if !folder.is_dir() {
        return false;
    }
    // Serial numbers are for root to read.
    let texts = FILES.map(|file| word(&folder.join(file), buffer).unwrap_or_default());
    let labels: Vec<(&str, &str)> = FILES
        .iter()
        .map(|file| match *file {
            "sys_vendor" => "system_vendor",
            file => file,
        })
        .zip(texts.iter().map(|text| text.trim()))
        .collect();
    let help = "What the firmware says of the machine, as labels; the value is 1.";
    out.push_node(catalog.gauge("node_dmi_info", help), &labels, 1.0);
    true
}

fn push_selinux(
    folder: &Path,
    catalog: &mut Catalog,
    buffer: &mut Vec<u8>,
    out: &mut Readings,
) -> bool {
    let is_on = folder.join("enforce").exists();
    let enabled = catalog.gauge("node_selinux_enabled", "Whether SELinux is on (1).");
    out.push_node(enabled, &[], f64::from(u8::from(is_on)));
    if let Some(mode) = number(&folder.join("enforce"), buffer) {
        let help = "Whether SELinux enforces its rules (1).";
        out.push_node(catalog.gauge("node_selinux_current_mode", help), &[], mode);
    }
    true
}

/// Files of a power supply, how the metric goes on, and how many make a unit.
const POWER: [(&str, &str, f64); 51] = [
    ("authentic", "authentic", 1.0),
    ("calibrate", "calibrate", 1.0),
    ("capacity", "capacity", 1.0),
    ("capacity_alert_max", "capacity_alert_max", 1.0),
    ("capacity_alert_min", "capacity_alert_min", 1.0),
    ("cycle_count", "cyclecount", 1.0),
    ("online", "online", 1.0),
    ("present", "present", 1.0),
    ("time_to_empty_now", "time_to_empty_seconds", 1.0),
    ("time_to_full_now", "time_to_full_seconds", 1.0),
    ("current_boot", "current_boot", 1e6),
    ("current_max", "current_max", 1e6),
    ("current_now", "current_ampere", 1e6),
    ("energy_empty", "energy_empty", 1e6),
    ("energy_empty_design", "energy_empty_design", 1e6),
    ("energy_full", "energy_full", 1e6),
    ("energy_full_design", "energy_full_design", 1e6),
    ("energy_now", "energy_watthour", 1e6),
    ("voltage_boot", "voltage_boot", 1e6),
    ("voltage_max", "voltage_max", 1e6),
    ("voltage_max_design", "voltage_max_design", 1e6),
    ("voltage_min", "voltage_min", 1e6),
    ("voltage_min_design", "voltage_min_design", 1e6),
    ("voltage_now", "voltage_volt", 1e6),
    ("voltage_ocv", "voltage_ocv", 1e6),
    ("charge_control_limit", "charge_control_limit", 1e6),
    ("charge_control_limit_max", "charge_control_limit_max", 1e6),
    ("charge_counter", "charge_counter", 1e6),
    ("charge_empty", "charge_empty", 1e6),
    ("charge_empty_design", "charge_empty_design", 1e6),
    ("charge_full", "charge_full", 1e6),
    ("charge_full_design", "charge_full_design", 1e6),
    ("charge_now", "charge_ampere", 1e6),
    ("charge_term_current", "charge_term_current", 1e6),
    ("constant_charge_current", "constant_charge_current", 1e6),
    (
        "constant_charge_current_max",
        "constant_charge_current_max",
        1e6,
    ),
    ("constant_charge_voltage", "constant_charge_voltage", 1e6),
    (
        "constant_charge_voltage_max",
        "constant_charge_voltage_max",
        1e6,
    ),
    ("precharge_current", "precharge_current", 1e6),
    ("input_current_limit", "input_current_limit", 1e6),
    ("power_now", "power_watt", 1e6),
    ("temp", "temp_celsius", 10.0),
    ("temp_alert_max", "temp_alert_max_celsius", 10.0),
    ("temp_alert_min", "temp_alert_min_celsius", 10.0),
    ("temp_ambient", "temp_ambient_celsius", 10.0),
    ("temp_ambient_max", "temp_ambient_max_celsius", 10.0),
    ("temp_ambient_min", "temp_ambient_min_celsius", 10.0),
    ("temp_max", "temp_max_celsius", 10.0),
    ("temp_min", "temp_min_celsius", 10.0),
    ("time_to_empty_avg", "time_to_empty_avg_seconds", 1.0),
    ("time_to_full_avg", "time_to_full_avg_seconds", 1.0),
];

fn push_power(
    folder: &Path,
    choice: &Choice,
    catalog: &mut Catalog,
    buffer: &mut Vec<u8>,
    out: &mut Readings,
) -> bool {
    const TEXTS: [&str; 11] = [
        "capacity_level",
        "charge_type",
        "health",
        "manufacturer",
        "model_name",
        "serial_number",
        "status",
        "technology",
        "type",
        "usb_type",
        "scope",
    ];
    let supplies = items(folder, "");
    for supply in supplies.iter().filter(|supply| choice.has(&supply.name)) {
        let label = ("power_supply", supply.name.as_str());
        // A battery that is absent refuses most of them.
        for (file, end, per_unit) in POWER {
            if let Some(value) = number(&supply.path.join(file), buffer) {
                let name = format!("node_power_supply_{end}");
                let help = "What a power supply or a battery says of itself.";
                out.push_node(catalog.gauge(&name, help), &[label], value / per_unit);
            }
        }
        let texts = TEXTS.map(|file| word(&supply.path.join(file), buffer).unwrap_or_default());
        let mut labels = vec![label];
        labels.extend(
            TEXTS
                .iter()
                .copied()
                .zip(texts.iter().map(|text| text.trim())),
        );
        let help = "A power supply, as labels; the value is 1.";
        out.push_node(catalog.gauge("node_power_supply_info", help), &labels, 1.0);
    }
    !supplies.is_empty()
}
