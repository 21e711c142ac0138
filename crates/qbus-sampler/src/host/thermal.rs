//! The zones and the cooling devices of `/sys/class/thermal`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::node_metric::NodeMetric;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::sysfs::{items, number, word};
use crate::table::Reading;

/// A zone that is not connected says something beyond these.
const CELSIUS: std::ops::RangeInclusive<f64> = -100.0..=300.0;

/// Reads every zone. Some are behind a slow bus, so this source has a thread of its own.
pub(crate) struct Thermal {
    class: PathBuf,
    current: Arc<NodeMetric>,
    max: Arc<NodeMetric>,
    buffer: Vec<u8>,
}

impl Thermal {
    pub(crate) fn new(sys: &Path) -> Thermal {
        Thermal {
            class: sys.join("class/thermal"),
            current: NodeMetric::gauge(
                "node_cooling_device_cur_state",
                "How strongly a cooling device cools.",
            ),
            max: NodeMetric::gauge(
                "node_cooling_device_max_state",
                "How strongly a cooling device can cool.",
            ),
            buffer: Vec::new(),
        }
    }
}

impl Probe for Thermal {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let buffer = &mut self.buffer;
        let zones = items(&self.class, "thermal_zone");
        let coolers = items(&self.class, "cooling_device");
        if zones.is_empty() && coolers.is_empty() {
            let class = self.class.display();
            return Err(Failure::Absent(format!("no thermal zone under {class}")));
        }
        for zone in zones {
            let kind = word(&zone.path.join("type"), buffer).unwrap_or_default();
            let name = zone.name.trim_start_matches("thermal_zone");
            // A zone that is switched off, as a sleeping device's is, fails to be read.
            match number(&zone.path.join("temp"), buffer).map(|number| number / 1e3) {
                Some(celsius) if CELSIUS.contains(&celsius) => {
                    let labels = [("zone", name), ("type", &*kind)];
                    out.push(Reading::ThermalZone, &labels, celsius);
                }
                _ => out.skip(1),
            }
        }
        for cooler in coolers {
            let kind = word(&cooler.path.join("type"), buffer).unwrap_or_default();
            let name = cooler.name.trim_start_matches("cooling_device");
            let labels = [("name", name), ("type", &*kind)];
            for (metric, file) in [(&self.current, "cur_state"), (&self.max, "max_state")] {
                if let Some(state) = number(&cooler.path.join(file), buffer) {
                    out.push_node(metric, &labels, state);
                }
            }
        }
        Ok(())
    }
}
