//! The sensors of `/sys/class/hwmon`: temperatures, fans, voltages, currents, power.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::filters::Choice;
use crate::kernel_file::KernelFile;
use crate::metric::Names;
use crate::node_metric::{Catalog, NodeMetric};
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::sysfs::{Item, file_name, items, word};
use crate::table::Reading;

/// Sensors come and go with their modules, which is seldom.
const LIST_PERIOD: Duration = Duration::from_secs(60);

/// A temperature that is not connected says something beyond these.
const CELSIUS: std::ops::RangeInclusive<f64> = -100.0..=300.0;

/// Sensors whose files stay open between two reads.
const KEPT_OPEN_MAX: usize = 64;

/// Kinds of sensors, as file names begin.
const KINDS: [&str; 13] = [
    "vrm",
    "beep_enable",
    "update_interval",
    "in",
    "cpu",
    "fan",
    "pwm",
    "temp",
    "curr",
    "power",
    "energy",
    "humidity",
    "intrusion",
];

/// Reads every sensor. Some are behind a slow bus, so this source has a thread of its own.
pub(crate) struct Hwmon {
    class: PathBuf,
    choice: Choice,
    names: Names,
    catalog: Catalog,
    sensors: Vec<Sensor>,
    infos: Vec<Info>,
    listed: Option<Instant>,
    buffer: Vec<u8>,
}

struct Sensor {
    file: KernelFile,
    is_kept_open: bool,
    what: What,
    labels: Vec<(&'static str, String)>,
}

enum What {
    /// A temperature, which has a range, in thousandths.
    Celsius(Reading),
    Other(Arc<NodeMetric>, f64),
}

struct Info {
    metric: Arc<NodeMetric>,
    labels: Vec<(&'static str, String)>,
}

impl Hwmon {
    pub(crate) fn new(sys: &Path, choice: &Choice, names: Names) -> Hwmon {
        Hwmon {
            class: sys.join("class/hwmon"),
            choice: choice.clone(),
            names,
            catalog: Catalog::default(),
            sensors: Vec::new(),
            infos: Vec::new(),
            listed: None,
            buffer: Vec::new(),
        }
    }

    fn list(&mut self) {
        self.sensors.clear();
        self.infos.clear();
        let monitors = items(&self.class, "hwmon");
        for (monitor, chip) in monitors.iter().zip(chip_names(&monitors, &mut self.buffer)) {
            if !self.choice.has(&chip) {
                continue;
            }
            let name = word(&monitor.path.join("name"), &mut self.buffer).unwrap_or_default();
            let name = clean(&name);
            if !name.is_empty() {
                let metric = self.catalog.gauge(
                    "node_hwmon_chip_names",
                    "What a chip calls itself, as labels; the value is 1.",
                );
                self.infos.push(Info {
                    metric: Arc::clone(metric),
                    labels: vec![("chip", chip.clone()), ("chip_name", name)],
                });
            }
            self.list_folder(&monitor.path, &chip);
            // Older drivers have their files one folder higher.
            self.list_folder(&monitor.path.join("device"), &chip);
        }
        for (place, sensor) in self.sensors.iter_mut().enumerate() {
            sensor.is_kept_open = place < KEPT_OPEN_MAX;
        }
    }

    fn list_folder(&mut self, folder: &Path, chip: &str) {
        let files = items(folder, "");
        let parsed = files.iter().filter_map(|file| {
            let (kind, number, property) = parts(&file.name)?;
            let sensor = format!("{kind}{}", if number.is_empty() { "0" } else { number });
            Some((file, kind, sensor, property))
        });
        let parsed: Vec<_> = parsed.collect();
        let mut texts = HashMap::new();
        for (file, _, sensor, property) in &parsed {
            if *property == "label" {
                let text = word(&file.path, &mut self.buffer).unwrap_or_default();
                texts.insert(sensor.clone(), text);
            }
        }
        for (file, kind, sensor, property) in &parsed {
            let of = |text: &String| text.trim().to_owned();
            let label = texts.get(sensor).map(of).unwrap_or_default();
            if *property == "label" {
                let help = "What a sensor calls itself, as a label; the value is 1.";
                let metric = self.catalog.gauge("node_hwmon_sensor_label", help);
                let text = texts.get(sensor).cloned().unwrap_or_default();
                self.infos.push(Info {
                    metric: Arc::clone(metric),
                    labels: vec![
                        ("chip", chip.to_owned()),
                        ("sensor", sensor.clone()),
                        ("label", text),
                    ],
                });
                continue;
            }
            let bare = parsed
                .iter()
                .any(|(_, _, other, property)| (other, *property) == (sensor, ""));
            let Some(what) = self.what(kind, property, bare) else {
                continue;
            };
            let mut labels = vec![("chip", chip.to_owned()), ("sensor", sensor.clone())];
            // node_exporter has the label of a sensor in a metric of its own alone.
            if matches!(what, What::Celsius(_)) && self.names != Names::Node {
                labels.push(("label", label));
            }
            self.sensors.push(Sensor {
                file: KernelFile::new(file.path.clone()),
                is_kept_open: false,
                what,
                labels,
            });
        }
    }

    /// The metric of a file; `bare` says that the sensor also has a file without a property.
    fn what(&mut self, kind: &str, property: &str, bare: bool) -> Option<What> {
        let reading = match (kind, property) {
            ("temp", "input") if !bare => Some(Reading::SensorTemperature),
            ("temp", "max") => Some(Reading::SensorTemperatureMax),
            ("temp", "crit") => Some(Reading::SensorTemperatureCritical),
            _ => None,
        };
        if let Some(reading) = reading {
            return Some(What::Celsius(reading));
        }
        // What no dashboard shows stays with node_exporter's names: a fan controller alone has
        // thirty files.
        if self.names != Names::Node && !matches!(property, "input" | "average" | "") {
            return None;
        }
        let mut name = format!("node_hwmon_{kind}");
        if property != "input" && !property.is_empty() {
            name = name + "_" + &clean(property);
        } else if property == "input" && bare {
            name += "_input";
        }
        const MILLI: f64 = 1e-3;
        const MICRO: f64 = 1e-6;
        let (end, scale) = match (kind, property) {
            ("beep_enable", _) => {
                let metric = self.catalog.gauge("node_hwmon_beep_enabled", HELP);
                return Some(What::Other(Arc::clone(metric), 1.0));
            }
            ("vrm", _) => {
                let name = "node_hwmon_voltage_regulator_version";
                return Some(What::Other(Arc::clone(self.catalog.gauge(name, HELP)), 1.0));
            }
            ("update_interval", _) => {
                let name = "node_hwmon_update_interval_seconds";
                return Some(What::Other(
                    Arc::clone(self.catalog.gauge(name, HELP)),
                    MILLI,
                ));
            }
            (_, "fault" | "alarm") => ("", 1.0),
            (_, "beep") => ("_enabled", 1.0),
            ("in" | "cpu", _) => ("_volts", MILLI),
            ("temp", "type") => ("", 1.0),
            ("temp", _) => ("_celsius", MILLI),
            ("curr", _) => ("_amps", MILLI),
            ("energy", _) => {
                let name = name + "_joule_total";
                return Some(What::Other(
                    Arc::clone(self.catalog.counter(&name, HELP)),
                    MICRO,
                ));
            }
            ("power", "accuracy") | ("humidity", _) => ("", MICRO),
            ("power", "average_interval" | "average_interval_min" | "average_interval_max") => {
                ("_seconds", MILLI)
            }
            ("power", _) => ("_watt", MICRO),
            ("fan", "input" | "min" | "max" | "target") => ("_rpm", 1.0),
            _ => ("", 1.0),
        };
        Some(What::Other(
            Arc::clone(self.catalog.gauge(&(name + end), HELP)),
            scale,
        ))
    }
}

const HELP: &str = "What a sensor of the machine says.";

impl Probe for Hwmon {
    fn read(&mut self, tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let fresh = |listed| tick.now.saturating_duration_since(listed) < LIST_PERIOD;
        if !self.listed.is_some_and(fresh) {
            self.list();
            self.listed = Some(tick.now);
        }
        if self.sensors.is_empty() {
            self.listed = None;
            let class = self.class.display();
            return Err(Failure::Absent(format!("no sensor under {class}")));
        }
        for info in &self.infos {
            out.push_node(&info.metric, &borrowed(&info.labels), 1.0);
        }
        let mut vanished = false;
        for sensor in &mut self.sensors {
            // A sensor that is switched off, as a sleeping device's is, fails to be read.
            let number = match sensor.file.read(&mut self.buffer) {
                Ok(text) => text.trim().parse::<f64>().ok(),
                Err(err) => {
                    vanished |= err.kind() == std::io::ErrorKind::NotFound;
                    None
                }
            };
            if !sensor.is_kept_open {
                sensor.file.close();
            }
            let labels = borrowed(&sensor.labels);
            match (&sensor.what, number) {
                (What::Celsius(reading), Some(number)) if CELSIUS.contains(&(number / 1e3)) => {
                    out.push(*reading, &labels, number / 1e3);
                }
                (What::Other(metric, scale), Some(number)) => {
                    out.push_node(metric, &labels, number * scale);
                }
                _ => out.skip(1),
            }
        }
        if vanished {
            self.listed = None;
        }
        Ok(())
    }
}

fn borrowed<'a>(labels: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    labels
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}

/// `temp1_crit_alarm` is the property `crit_alarm` of number 1 of the kind `temp`.
fn parts(file: &str) -> Option<(&str, &str, &str)> {
    let end = file.find(|c: char| c.is_ascii_digit());
    let (head, number, property) = match end {
        Some(end) => {
            let rest = &file[end..];
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, property) = rest.split_at(digits);
            let property = match property {
                "" => "",
                property => property.strip_prefix('_')?,
            };
            (&file[..end], number, property)
        }
        None => (file, "", ""),
    };
    KINDS.contains(&head).then_some((head, number, property))
}

/// The names of chips, each of which is told from the others: `platform_coretemp_0` by the device
/// behind the sensors, so that it outlives a reboot, which the number of a `hwmon` does not; else
/// the driver's name. Several chips on one device have their driver's name added, or their number.
fn chip_names(monitors: &[Item], buffer: &mut Vec<u8>) -> Vec<String> {
    let mut name_of = |monitor: &Item| {
        let name = word(&monitor.path.join("name"), buffer).unwrap_or_default();
        clean(&name)
    };
    let drivers: Vec<String> = monitors.iter().map(&mut name_of).collect();
    let places = monitors.iter().zip(&drivers);
    let mut names: Vec<String> = places
        .map(|(monitor, driver)| device_name(monitor).unwrap_or_else(|| driver.clone()))
        .collect();
    for ends in [
        drivers,
        monitors.iter().map(|item| item.name.clone()).collect(),
    ] {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for name in &names {
            *counts.entry(name.clone()).or_default() += 1;
        }
        for (name, end) in names.iter_mut().zip(&ends) {
            if name.is_empty() {
                name.clone_from(end);
            } else if counts[name] > 1 && name != end {
                *name = format!("{name}_{end}");
            }
        }
    }
    names
}

/// The name of the device that a monitor is of, with that of the bus that it is on.
fn device_name(monitor: &Item) -> Option<String> {
    let device = fs::canonicalize(monitor.path.join("device")).ok()?;
    let name = clean(&file_name(&device));
    let bus = device.parent().map(|parent| clean(&file_name(parent)));
    match (bus.unwrap_or_default().as_str(), name.as_str()) {
        (_, "") => None,
        ("", _) => Some(name),
        (bus, _) => Some(format!("{bus}_{name}")),
    }
}

fn clean(name: &str) -> String {
    let plain = |c: char| match c.is_ascii_alphanumeric() || c == ':' {
        true => c.to_ascii_lowercase(),
        false => '_',
    };
    let plain: String = name.trim().chars().map(plain).collect();
    plain.trim_matches('_').to_owned()
}
