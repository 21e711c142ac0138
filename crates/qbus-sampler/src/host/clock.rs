//! The time of the machine, what it goes by, and how well it is kept.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use qbus_timex::Timex;

use crate::node_metric::Catalog;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::sysfs::{items, word};

/// Reads `adjtimex`.
#[derive(Default)]
pub(crate) struct TimexProbe {
    catalog: Catalog,
}

impl Probe for TimexProbe {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let timex = match qbus_timex::read() {
            Ok(timex) => timex,
            // A sandbox may forbid the call.
            Err(err) => return Err(Failure::Failed(format!("adjtimex: {err}"))),
        };
        for (end, value, help) in gauges(&timex) {
            let name = format!("node_timex_{end}");
            out.push_node(self.catalog.gauge(&name, help), &[], value);
        }
        for (end, value, help) in counters(&timex) {
            let name = format!("node_timex_{end}");
            out.push_node(self.catalog.counter(&name, help), &[], value as f64);
        }
        Ok(())
    }
}

/// End of the name, value and help.
type Named<T> = (&'static str, T, &'static str);

fn gauges(timex: &Timex) -> [Named<f64>; 13] {
    let synchronized = f64::from(u8::from(timex.is_synchronized));
    [
        (
            "offset_seconds",
            timex.offset_seconds,
            "Seconds by which the clock is off.",
        ),
        (
            "frequency_adjustment_ratio",
            timex.frequency_ratio,
            "How fast the clock runs; 1 is as the hardware does.",
        ),
        (
            "maxerror_seconds",
            timex.max_error_seconds,
            "The most that the clock can be off.",
        ),
        (
            "estimated_error_seconds",
            timex.estimated_error_seconds,
            "What the clock is estimated to be off.",
        ),
        (
            "status",
            f64::from(timex.status),
            "Status bits of the clock's discipline.",
        ),
        (
            "loop_time_constant",
            timex.loop_time_constant,
            "Time constant of the clock's discipline.",
        ),
        (
            "tick_seconds",
            timex.tick_seconds,
            "Seconds between two ticks of the clock.",
        ),
        (
            "pps_frequency_hertz",
            timex.pps_frequency_hertz,
            "Frequency of the pulse.",
        ),
        (
            "pps_jitter_seconds",
            timex.pps_jitter_seconds,
            "Jitter of the pulse.",
        ),
        (
            "pps_shift_seconds",
            timex.pps_shift_seconds,
            "Interval of the pulse.",
        ),
        (
            "pps_stability_hertz",
            timex.pps_stability_hertz,
            "Stability of the pulse.",
        ),
        (
            "tai_offset_seconds",
            timex.tai_offset_seconds,
            "Seconds from UTC to TAI.",
        ),
        (
            "sync_status",
            synchronized,
            "Whether somebody keeps the clock (1).",
        ),
    ]
}

fn counters(timex: &Timex) -> [Named<u64>; 4] {
    [
        (
            "pps_jitter_total",
            timex.pps_jitter_exceeded,
            "Times of too much jitter.",
        ),
        (
            "pps_calibration_total",
            timex.pps_calibrations,
            "Calibrations of the pulse.",
        ),
        (
            "pps_error_total",
            timex.pps_errors,
            "Calibrations of the pulse that failed.",
        ),
        (
            "pps_stability_exceeded_total",
            timex.pps_stability_exceeded,
            "Times of too little stability.",
        ),
    ]
}

/// Reads the time and the sources of the clock.
pub(crate) struct Time {
    sources: PathBuf,
    catalog: Catalog,
    buffer: Vec<u8>,
}

impl Time {
    pub(crate) fn new(sys: &Path) -> Time {
        Time {
            sources: sys.join("devices/system/clocksource"),
            catalog: Catalog::default(),
            buffer: Vec::new(),
        }
    }
}

impl Probe for Time {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let (catalog, buffer) = (&mut self.catalog, &mut self.buffer);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let help = "The time of the machine, in seconds since 1970.";
        out.push_node(
            catalog.gauge("node_time_seconds", help),
            &[],
            now.as_secs_f64(),
        );
        // Readings are in UTC, whatever the time zone of a process is.
        let help = "Seconds from UTC to the time zone.";
        let offset = catalog.gauge("node_time_zone_offset_seconds", help);
        out.push_node(offset, &[("time_zone", "UTC")], 0.0);
        for device in items(&self.sources, "clocksource") {
            let number = device.name.trim_start_matches("clocksource");
            let files = [
                (
                    "available_clocksource",
                    "node_time_clocksource_available_info",
                    "What the clock could go by, as labels; the value is 1.",
                ),
                (
                    "current_clocksource",
                    "node_time_clocksource_current_info",
                    "What the clock goes by, as labels; the value is 1.",
                ),
            ];
            for (file, name, help) in files {
                let text = word(&device.path.join(file), buffer).unwrap_or_default();
                for source in text.split_ascii_whitespace() {
                    let labels = [("device", number), ("clocksource", source)];
                    out.push_node(catalog.gauge(name, help), &labels, 1.0);
                }
            }
        }
        Ok(())
    }
}
