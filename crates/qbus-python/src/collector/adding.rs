//! A value that is added by name.

use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use qbus::{Kind, Record, SeriesId};

use super::MetricsCollector;
use crate::convert::{self, metric_type, number, text, timestamp, with_labels};
use crate::known::Objects;
use crate::{error, waiting};

/// What a metric is added with.
pub(super) struct Arguments<'a, 'py> {
    pub(super) name: &'a Bound<'py, PyAny>,
    pub(super) value: &'a Bound<'py, PyAny>,
    pub(super) metric_type: &'a Bound<'py, PyAny>,
    pub(super) labels: Option<&'a Bound<'py, PyAny>>,
    pub(super) description: Option<&'a Bound<'py, PyAny>>,
    pub(super) timestamp: Option<&'a Bound<'py, PyAny>>,
}

impl MetricsCollector {
    /// Whether it was accepted.
    pub(super) fn add(&self, arguments: Arguments<'_, '_>) -> PyResult<bool> {
        let Arguments {
            name,
            value,
            metric_type: of_type,
            labels,
            description,
            timestamp: at,
        } = arguments;
        let (py, called) = (name.py(), text("name", name)?);
        let value = number("value", value)?;
        let description = convert::description(description)?;
        let objects = Objects::new(name, of_type, labels);
        if at.is_none()
            && let (Some(collector), Some(objects)) = (&self.collector, &objects)
            && let Some((series, kind)) = self.known.find(objects)
            && collector.bus().is_registered(series)
        {
            waiting::get_ready(py, collector.bus());
            return match collector.queue_value(called, series, kind, value) {
                Ok(()) => Ok(true),
                Err(error) => error::refused(py, &error, collector.bus()),
            };
        }
        let mut metric = qbus_collector::Metric::new(called, value, metric_type(of_type)?);
        metric.description = &description;
        metric.timestamp = timestamp(at)?;
        let Some(collector) = &self.collector else {
            self.count_lost();
            return Ok(false);
        };
        waiting::get_ready(name.py(), collector.bus());
        let forgotten = self.known.forgotten();
        let added = with_labels(labels, |labels| {
            let metric = qbus_collector::Metric { labels, ..metric };
            let added = collector.queue_metric(&metric);
            if let (Some(objects), Ok(()), true) = (&objects, &added, self.known.is_due()) {
                let series = collector.series_of(&metric);
                self.known.keep(objects, series, metric.kind(), forgotten);
            }
            added
        })?;
        match added {
            Ok(()) => Ok(true),
            Err(error) => error::refused(name.py(), &error, collector.bus()),
        }
    }

    /// Counts a value for which there is no series. The ledger of the bus has it among the
    /// rejected.
    pub(crate) fn count_lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        if let Some(collector) = &self.collector {
            let nobodys = Record::new(0, SeriesId(u32::MAX), Kind::Observe, f64::NAN);
            let _ = collector.bus().emit(nobodys);
        }
    }
}
