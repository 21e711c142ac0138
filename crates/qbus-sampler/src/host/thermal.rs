//! Temperatures: the sensors of `/sys/class/hwmon` and the zones of `/sys/class/thermal`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::kernel_file::{KernelFile, read_once};
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::table::Reading;

/// Sensors come and go with their modules, which is seldom.
const LIST_PERIOD: Duration = Duration::from_secs(60);

/// A sensor that is not connected says something beyond these.
const CELSIUS: std::ops::RangeInclusive<f64> = -100.0..=300.0;

/// Reads every sensor. Some are behind a slow bus, so this source has a thread of its own.
pub(crate) struct Thermal {
    class: PathBuf,
    /// node_exporter has the label of a sensor in a metric of its own.
    sensor_labels: bool,
    sensors: Vec<Sensor>,
    listed: Option<Instant>,
    buffer: Vec<u8>,
}

struct Sensor {
    file: KernelFile,
    reading: Reading,
    labels: Vec<(&'static str, String)>,
}

impl Thermal {
    pub(crate) fn new(sys: &Path, sensor_labels: bool) -> Thermal {
        Thermal {
            class: sys.join("class"),
            sensor_labels,
            sensors: Vec::new(),
            listed: None,
            buffer: Vec::new(),
        }
    }

    fn list(&mut self) {
        self.sensors.clear();
        for zone in entries(&self.class.join("thermal"), "thermal_zone") {
            let text = |name| read_word(&zone.join(name));
            let name = file_name(&zone);
            self.sensors.push(Sensor {
                file: KernelFile::new(zone.join("temp")),
                reading: Reading::ThermalZone,
                labels: vec![
                    ("zone", name.trim_start_matches("thermal_zone").to_owned()),
                    ("type", text("type").unwrap_or_default()),
                ],
            });
        }
        for monitor in entries(&self.class.join("hwmon"), "hwmon") {
            let chip = chip_name(&monitor);
            for path in entries(&monitor, "temp") {
                let file = file_name(&path);
                let Some((sensor, kind)) = file.split_once('_') else {
                    continue;
                };
                let reading = match kind {
                    "input" => Reading::SensorTemperature,
                    "max" => Reading::SensorTemperatureMax,
                    "crit" => Reading::SensorTemperatureCritical,
                    _ => continue,
                };
                let mut labels = vec![("chip", chip.clone()), ("sensor", sensor.to_owned())];
                if self.sensor_labels {
                    let label = read_word(&monitor.join(format!("{sensor}_label")));
                    labels.push(("label", label.unwrap_or_default()));
                }
                self.sensors.push(Sensor {
                    file: KernelFile::new(path),
                    reading,
                    labels,
                });
            }
        }
    }
}

impl Probe for Thermal {
    fn read(&mut self, tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let fresh = |listed| tick.now.saturating_duration_since(listed) < LIST_PERIOD;
        if !self.listed.is_some_and(fresh) {
            self.list();
            self.listed = Some(tick.now);
        }
        if self.sensors.is_empty() {
            self.listed = None;
            let class = self.class.display();
            return Err(Failure::Absent(format!(
                "no temperature sensor under {class}"
            )));
        }
        for sensor in &mut self.sensors {
            // A sensor that is switched off, as a sleeping device's is, fails to be read.
            let millidegrees = match sensor.file.read(&mut self.buffer) {
                Ok(text) => text.trim().parse::<i64>().ok(),
                Err(_) => None,
            };
            match millidegrees.map(|millidegrees| millidegrees as f64 / 1e3) {
                Some(celsius) if CELSIUS.contains(&celsius) => {
                    let labels: Vec<_> = sensor
                        .labels
                        .iter()
                        .map(|(name, value)| (*name, value.as_str()))
                        .collect();
                    out.push(sensor.reading, &labels, celsius);
                }
                _ => out.skip(1),
            }
        }
        Ok(())
    }
}

/// The entries of a directory that begin so, in order.
fn entries(directory: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    paths
}

/// `platform_coretemp_0`: the device behind the sensor, so that the name outlives a reboot, which
/// the number of the `hwmon` does not; else the driver's name.
fn chip_name(monitor: &Path) -> String {
    if let Ok(device) = fs::canonicalize(monitor.join("device")) {
        let name = clean(&file_name(&device));
        let parent = device
            .parent()
            .map(|parent| clean(&file_name(parent)))
            .unwrap_or_default();
        match (parent.as_str(), name.as_str()) {
            (_, "") => {}
            ("", _) => return name,
            _ => return format!("{parent}_{name}"),
        }
    }
    match read_word(&monitor.join("name")).map(|name| clean(&name)) {
        Some(name) if !name.is_empty() => name,
        _ => file_name(monitor),
    }
}

fn clean(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == ':' {
            c.to_ascii_lowercase()
        } else {
            '_'
        }
    };
    name.trim()
        .chars()
        .map(plain)
        .collect::<String>()
        .trim_matches('_')
        .to_owned()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn read_word(path: &Path) -> Option<String> {
    let mut buffer = Vec::new();
    read_once(path, &mut buffer)
        .ok()
        .map(|text| text.trim().to_owned())
}
