//! An error enum per verb.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use qbus_aggregate::AggregateError;

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
