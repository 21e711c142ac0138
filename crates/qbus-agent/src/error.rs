//! An error enum per verb.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use qbus::{EmitError, RegisterError};
use qbus_aggregate::AggregateError;

/// Why a metric was not emitted.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum MetricError {
    /// Its name, a label or its type is invalid, or the registry is full.
    Register(RegisterError),
    /// The registry was full a moment ago, and this series is not in it.
    Full {
        /// The metric.
        metric: String,
    },
    /// The sampler has as many series as it may: the rest is for those who emit.
    Share {
        /// The metric.
        metric: String,
        /// How many series a sampler may have.
        series: usize,
        /// How many the bus has room for.
        capacity: u64,
    },
    /// The timestamp is negative, no number, or ahead of the clock.
    Timestamp {
        /// The metric.
        metric: String,
        /// Seconds since the Unix epoch.
        found: f64,
    },
    /// Its type does not take the value, or the bus did not take the record now.
    Emit {
        /// The metric.
        metric: String,
        /// Why.
        source: EmitError,
    },
}

impl MetricError {
    /// Whether there was no room, or no bus any more: the metric itself is as it should be.
    pub fn is_refusal(&self) -> bool {
        match self {
            MetricError::Register(error) => matches!(error, RegisterError::Full { .. }),
            MetricError::Emit { source, .. } => !matches!(source, EmitError::Value { .. }),
            MetricError::Full { .. } | MetricError::Share { .. } => true,
            MetricError::Timestamp { .. } => false,
        }
    }
}

impl fmt::Display for MetricError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetricError::Register(error) => error.fmt(f),
            MetricError::Full { metric } => {
                write!(
                    f,
                    "metric {metric}: the registry was full a moment ago; known series go on"
                )
            }
            MetricError::Share {
                metric,
                series,
                capacity,
            } => write!(
                f,
                "{metric} and what else is new to the sampler is left out: it has {series} series, \
                a quarter of the {capacity} that the bus has room for; leave sources out \
                (--no-collect), or make a bus with more (qbus create --max-series)"
            ),
            MetricError::Timestamp { metric, found } => write!(
                f,
                "metric {metric}: timestamp is {found}, expected seconds since 1970, at most five \
                minutes ahead of this machine's clock"
            ),
            MetricError::Emit { metric, source } => write!(f, "metric {metric}: {source}"),
        }
    }
}

impl Error for MetricError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            MetricError::Register(error) => Some(error),
            MetricError::Emit { source, .. } => Some(source),
            MetricError::Full { .. }
            | MetricError::Share { .. }
            | MetricError::Timestamp { .. } => None,
        }
    }
}

/// Why an agent did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The bus cannot be aggregated by this process.
    Aggregate(AggregateError),
    /// The system starts no thread for it.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Aggregate(error) => error.fmt(f),
            StartError::Thread(error) => write!(f, "could not start the aggregator: {error}"),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            StartError::Aggregate(error) => Some(error),
            StartError::Thread(error) => Some(error),
        }
    }
}

/// Why an agent did not begin with an empty snapshot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ResetError {
    /// The agent was stopped, or its bus was removed.
    Ended,
    /// The bus cannot be aggregated at the moment; the agent keeps trying.
    Aggregate(Arc<AggregateError>),
}

impl fmt::Display for ResetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResetError::Ended => write!(f, "nothing is aggregated any more"),
            ResetError::Aggregate(error) => write!(f, "could not begin anew: {error}"),
        }
    }
}

impl Error for ResetError {}
