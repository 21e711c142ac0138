//! The state of a collector, as Python has it.

use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use qbus_collector::Statistics;

use super::MetricsCollector;
use crate::ending;

impl MetricsCollector {
    /// The state of a collector and its bus.
    pub(super) fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        let lost = self.lost.load(Ordering::Relaxed);
        let Some(collector) = &self.collector else {
            self.statistics_without_bus(&dict, lost)?;
            return Ok(dict);
        };
        let Statistics {
            bus,
            is_embedded,
            has_aggregator,
            is_collecting,
            uptime,
            families,
            series,
            series_capacity,
            delivered,
            dropped,
            torn,
            revoked,
            unplaced,
            queued,
            lane_capacity,
            buffered,
            refused,
            invalid,
            validation_rules,
            active_trackers,
            background_errors,
            last_background_error,
            ..
        } = ending::detach(py, || collector.get_statistics());
        dict.set_item("bus", bus)?;
        dict.set_item("is_embedded", is_embedded)?;
        dict.set_item("has_aggregator", has_aggregator)?;
        dict.set_item("is_collecting", is_collecting)?;
        dict.set_item("uptime_seconds", uptime.as_secs_f64())?;
        dict.set_item("families", families)?;
        dict.set_item("series", series)?;
        dict.set_item("series_capacity", series_capacity)?;
        dict.set_item("delivered", delivered)?;
        dict.set_item("dropped", dropped)?;
        dict.set_item("torn", torn)?;
        dict.set_item("revoked", revoked)?;
        dict.set_item("unplaced", unplaced)?;
        dict.set_item("queued", queued)?;
        dict.set_item("lane_capacity", lane_capacity)?;
        dict.set_item("buffered", buffered)?;
        dict.set_item("buffer_capacity", self.config.max_metrics_buffer)?;
        dict.set_item("refused", refused + lost)?;
        dict.set_item("invalid", invalid)?;
        dict.set_item("validation_rules", validation_rules)?;
        dict.set_item("active_trackers", active_trackers)?;
        dict.set_item("background_errors", background_errors)?;
        dict.set_item("last_background_error", last_background_error)?;
        Ok(dict)
    }

    /// The same keys, of a collector whose bus could not be had.
    fn statistics_without_bus(&self, dict: &Bound<'_, PyDict>, lost: u64) -> PyResult<()> {
        dict.set_item("bus", "")?;
        for name in ["is_embedded", "has_aggregator", "is_collecting"] {
            dict.set_item(name, false)?;
        }
        dict.set_item("uptime_seconds", self.made.elapsed().as_secs_f64())?;
        for name in [
            "families",
            "series",
            "series_capacity",
            "delivered",
            "dropped",
            "torn",
            "revoked",
            "unplaced",
            "queued",
            "lane_capacity",
            "buffered",
            "buffer_capacity",
            "invalid",
            "validation_rules",
        ] {
            dict.set_item(name, 0)?;
        }
        dict.set_item("refused", lost)?;
        dict.set_item("active_trackers", self.started(|started| started.len()))?;
        dict.set_item("background_errors", 1)?;
        dict.set_item("last_background_error", &self.why)
    }
}
