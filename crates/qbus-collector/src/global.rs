//! The process's own collector, and shorthands for it.

use std::sync::{Mutex, OnceLock, PoisonError};

use qbus_agent::Metric;

use crate::collector::{Collector, CollectorOptions};
use crate::error::{AddError, StartError, TrackError};
use crate::performance::Performance;

static COLLECTOR: OnceLock<Collector> = OnceLock::new();

/// The process's collector, made with [`CollectorOptions::default`] by the first call. It
/// lives as long as the process; what a private bus leaves behind is removed by
/// [`Collector::close`], else by the next process that makes one.
///
/// # Errors
///
/// As [`Collector::new`]; the next call tries again.
pub fn get_metrics_collector() -> Result<&'static Collector, StartError> {
    static MAKING: Mutex<()> = Mutex::new(());
    if let Some(collector) = COLLECTOR.get() {
        return Ok(collector);
    }
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(collector) = COLLECTOR.get() {
        return Ok(collector);
    }
    let made = Collector::new(&CollectorOptions::default())?;
    Ok(COLLECTOR.get_or_init(|| made))
}

/// Adds a gauge to the process's collector.
///
/// # Errors
///
/// There is no collector, or it does not take the metric.
pub fn add_performance_metric(
    name: &str,
    value: f64,
    labels: &[(&str, &str)],
    description: &str,
) -> Result<(), GlobalError<AddError>> {
    let metric = Metric {
        labels,
        description,
        ..Metric::gauge(name, value)
    };
    let collector = get_metrics_collector().map_err(GlobalError::Start)?;
    collector.add_metric(&metric).map_err(GlobalError::Call)
}

/// Queues a gauge at the process's collector.
///
/// # Errors
///
/// There is no collector, or it does not take the metric.
pub fn queue_performance_metric(
    name: &str,
    value: f64,
    labels: &[(&str, &str)],
    description: &str,
) -> Result<(), GlobalError<AddError>> {
    let metric = Metric {
        labels,
        description,
        ..Metric::gauge(name, value)
    };
    let collector = get_metrics_collector().map_err(GlobalError::Start)?;
    collector.queue_metric(&metric).map_err(GlobalError::Call)
}

/// Starts to track an operation.
///
/// # Errors
///
/// There is no collector.
pub fn start_performance_tracking(name: &str) -> Result<(), StartError> {
    get_metrics_collector()?.add_performance_tracker(name, None, None);
    Ok(())
}

/// Ends the tracking of an operation.
///
/// # Errors
///
/// There is no collector, or no such tracker.
pub fn end_performance_tracking(name: &str) -> Result<Performance, GlobalError<TrackError>> {
    let collector = get_metrics_collector().map_err(GlobalError::Start)?;
    collector
        .end_performance_tracker(name)
        .map_err(GlobalError::Call)
}

/// Why a shorthand did nothing.
#[derive(Debug)]
pub enum GlobalError<E> {
    /// There is no collector.
    Start(StartError),
    /// The collector refused.
    Call(E),
}

impl<E: std::fmt::Display> std::fmt::Display for GlobalError<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            GlobalError::Start(error) => error.fmt(f),
            GlobalError::Call(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error> std::error::Error for GlobalError<E> {}
