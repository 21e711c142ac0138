//! An error enum per verb.

use std::error::Error;
use std::fmt;
use std::io;

use qbus::{AddressError, OpenOrCreateError};
use qbus_agent::MetricError;
use qbus_aggregate::ReadError;
use qbus_aggregate::export::Format;

/// Why there is no collector.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The environment's `QBUS` names no bus.
    Address(AddressError),
    /// The bus cannot be opened or created.
    Bus(OpenOrCreateError),
    /// The private bus cannot be aggregated.
    Agent(qbus_agent::StartError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Address(error) => write!(f, "the environment's QBUS: {error}"),
            StartError::Bus(error) => error.fmt(f),
            StartError::Agent(error) => error.fmt(f),
        }
    }
}

impl Error for StartError {}

/// Why a metric was not added.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum AddError {
    /// The metric is invalid, or the bus did not take it.
    Metric(MetricError),
    /// A rule of [`register_validation_rule`](crate::Collector::register_validation_rule) refused
    /// it.
    Invalid {
        /// The metric.
        metric: String,
        /// The value.
        found: f64,
    },
}

impl AddError {
    /// Whether there was no room, or no bus any more: the metric itself is as it should be.
    pub fn is_refusal(&self) -> bool {
        match self {
            AddError::Metric(error) => error.is_refusal(),
            AddError::Invalid { .. } => false,
        }
    }
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddError::Metric(error) => error.fmt(f),
            AddError::Invalid { metric, found } => {
                write!(
                    f,
                    "metric {metric}: its validation rule refuses the value {found}"
                )
            }
        }
    }
}

impl Error for AddError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            AddError::Metric(error) => error.source(),
            AddError::Invalid { .. } => None,
        }
    }
}

/// Why nothing was exported.
#[derive(Debug)]
#[non_exhaustive]
pub enum ExportError {
    /// [`enable_prometheus_export`](crate::CollectorOptions::enable_prometheus_export) is off.
    Disabled,
    /// The format has no text.
    NotText {
        /// The format.
        format: Format,
    },
    /// The snapshot cannot be read.
    Read(ReadError),
    /// The file cannot be written.
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExportError::Disabled => write!(
                f,
                "Prometheus export is off: the collector was made with \
                enable_prometheus_export=False"
            ),
            ExportError::NotText { format } => {
                write!(f, "{format} is no text: write it to a file")
            }
            ExportError::Read(error) => error.fmt(f),
            ExportError::Write { path, source } => {
                write!(f, "could not write {}: {source}", path.display())
            }
        }
    }
}

impl Error for ExportError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ExportError::Write { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Why there is no result of a performance tracker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrackError {
    /// No tracker of that name was started, or it was ended already.
    Unknown {
        /// The name.
        name: String,
    },
}

impl fmt::Display for TrackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TrackError::Unknown { name } = self;
        write!(
            f,
            "no performance tracker {name:?} is running: it was not started, or ended already"
        )
    }
}

impl Error for TrackError {}

/// Why the metrics were not reset.
#[derive(Debug)]
#[non_exhaustive]
pub enum ResetError {
    /// The bus is not this collector's own: its totals are others' too.
    Shared {
        /// The bus.
        bus: String,
    },
    /// The aggregator did not begin anew.
    Agent(qbus_agent::ResetError),
}

impl fmt::Display for ResetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResetError::Shared { bus } => write!(
                f,
                "the bus {bus} is not this process's own: its totals are those of other processes \
                too, and are never reset; `qbus rm -b {bus}` removes it"
            ),
            ResetError::Agent(error) => error.fmt(f),
        }
    }
}

impl Error for ResetError {}
