//! Why a command failed, and with which exit code.

use std::fmt::{self, Display};
use std::io;

use qbus::{Address, OpenError};
use qbus_aggregate::ReadError;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Error {
    /// There is no bus, no snapshot, or one that is of no use any more: exit code 1.
    Absent(String),
    /// Misuse or failure: exit code 2.
    Failed(String),
    /// The program that was run ended so: it has said why.
    Ended(u8),
    /// Output could not be written; the command ends well when the reader closed the pipe.
    Io {
        /// What was being done; empty for the output itself.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn failed(error: impl Display) -> Error {
        Error::Failed(error.to_string())
    }

    /// A bus that cannot be opened; an absent one with what to start.
    pub(crate) fn opening(address: &Address, error: &OpenError) -> Error {
        match error {
            OpenError::Absent { path } => Error::Absent(format!(
                "there is no bus {address} ({} does not exist); start `qbus agg -b {address}`, or \
                `qbus create -b {address}`",
                path.display()
            )),
            OpenError::Unfinished { .. } => Error::Absent(error.to_string()),
            error => Error::failed(error),
        }
    }

    /// A snapshot that cannot be read; an absent one with what to start.
    pub(crate) fn reading(address: &Address, error: &ReadError) -> Error {
        match error {
            ReadError::Open(OpenError::Absent { path }) => Error::Absent(format!(
                "there is no snapshot of the bus {address} ({} does not exist): no aggregator has \
                run; start `qbus agg -b {address}`",
                path.display()
            )),
            // Removing the bus would not help: the next aggregator makes such a snapshot anew.
            ReadError::Open(OpenError::Unfinished { .. }) | ReadError::Empty => {
                Error::Absent(format!(
                    "the snapshot of the bus {address} is empty: its aggregator is starting, or \
                    died before it had committed anything; try again, or start `qbus agg -b \
                    {address}`"
                ))
            }
            // Of another layout, that is: what to remove is not the bus.
            ReadError::Open(OpenError::Version {
                path,
                found,
                expected,
            }) => Error::Failed(format!(
                "{} has layout version {found}, this build reads {expected}; read it with the \
                qbus that made it, or start `qbus agg -b {address}`, which moves it aside",
                path.display()
            )),
            error => Error::failed(error),
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Error::Absent(_) => 1,
            Error::Failed(_) | Error::Io { .. } => 2,
            Error::Ended(code) => *code,
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Absent(text) | Error::Failed(text) => f.write_str(text),
            Error::Ended(code) => write!(f, "the program ended with {code}"),
            Error::Io { doing, source } if doing.is_empty() => {
                write!(f, "could not write: {source}")
            }
            Error::Io { doing, source } => write!(f, "could not {doing}: {source}"),
        }
    }
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Error {
        Error::Io {
            doing: String::new(),
            source,
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Error {
        Error::from(io::Error::from(error))
    }
}

/// Says what was being done when the system refused.
pub(crate) trait Doing<T> {
    fn doing(self, doing: impl Display) -> Result<T, Error>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: impl Display) -> Result<T, Error> {
        // Not an output that a pipe's reader closed: a failure in any case.
        self.map_err(|source| Error::Failed(format!("could not {doing}: {source}")))
    }
}
