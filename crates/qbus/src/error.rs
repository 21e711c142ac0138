//! An error enum per verb: what was found, what was expected, what to do next.

mod place;

use std::error::Error;
use std::fmt;
use std::io;

use crate::record::{Kind, MetricType};
use crate::registry::{Merge, Window};
pub use place::{CreateError, OpenError, OpenOrCreateError, RemoveError};
pub(crate) use place::{creating, opening};

/// Why this process could not become an owner, or got no lane.
#[derive(Debug)]
#[non_exhaustive]
pub enum JoinError {
    /// All entries of the owner table are taken by living processes.
    OwnersFull {
        /// How many entries there are.
        owners: u64,
    },
    /// All exclusive lanes are leased, and the bus has no shared one.
    NoLane {
        /// How many lanes there are.
        lanes: u64,
    },
    /// The bus was removed; a new one of the same name can be opened.
    Removed,
    /// Another thread is joining, or the one that this signal handler interrupted; or a process
    /// removes the bus right now, which nobody used.
    Busy,
    /// The system refused.
    Io(io::Error),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::OwnersFull { owners } => write!(
                f,
                "all {owners} places of the bus are taken by living processes; create it with more \
                owners"
            ),
            JoinError::NoLane { lanes } => write!(
                f,
                "all {lanes} lanes are leased and the bus has no shared lane; create it with more \
                --lanes, or with --shared-lanes"
            ),
            JoinError::Removed => {
                write!(
                    f,
                    "the bus was removed under this process; open it again to join a new one of \
                    that name"
                )
            }
            JoinError::Busy => write!(f, "the process is joining the bus right now; try again"),
            JoinError::Io(source) => write!(f, "could not join the bus: {source}"),
        }
    }
}

impl Error for JoinError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            JoinError::Io(source) => Some(source),
            _ => None,
        }
    }
}

/// The family that has the most series of a bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Largest {
    /// Its name.
    pub family: String,
    /// How many series it has.
    pub series: usize,
    /// Its label with the most values, and how many.
    pub label: Option<(String, usize)>,
    /// The process that registered most of them.
    pub registrant: Option<Registrant>,
}

/// A process that registered series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registrant {
    /// Its pid, in its own pid namespace.
    pub pid: u32,
    /// How it was started; empty when it is attached no more.
    pub command: String,
    /// How many series of the family it registered.
    pub series: usize,
}

impl fmt::Display for Registrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)?;
        if !self.command.is_empty() {
            write!(f, " ({})", self.command)?;
        }
        Ok(())
    }
}

/// Why a metric could not be registered.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RegisterError {
    /// The metric's name is not `[a-zA-Z_:][a-zA-Z0-9_:]*`, or too long.
    Name {
        /// The name.
        found: String,
    },
    /// The label's name is not `[a-zA-Z_][a-zA-Z0-9_]*`, reserved, given twice, or too long.
    Label {
        /// The metric.
        metric: String,
        /// The label's name.
        found: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A text, or a list, is longer than it can be.
    TooLong {
        /// The metric.
        metric: String,
        /// Which text or list.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The longest that it can be.
        longest: usize,
    },
    /// Bounds of buckets are not finite and ascending.
    Buckets {
        /// The metric.
        metric: String,
        /// The bounds.
        found: Vec<f64>,
    },
    /// Buckets for something that is no histogram.
    NoBuckets {
        /// The metric.
        metric: String,
        /// Its type.
        metric_type: MetricType,
    },
    /// A way to merge values of something that is no gauge.
    Merge {
        /// The metric.
        metric: String,
        /// Its type.
        metric_type: MetricType,
        /// How its values were to be merged.
        merge: Merge,
    },
    /// A window that a summary cannot have, or one of something that is no summary.
    Window {
        /// The metric.
        metric: String,
        /// Its type.
        metric_type: MetricType,
        /// The window.
        window: Window,
    },
    /// The name is registered with another type, unit, buckets or window, or merged in another way.
    Conflict {
        /// The metric.
        metric: String,
        /// What is registered.
        existing: String,
        /// What was asked for.
        requested: String,
    },
    /// A sample of this metric would bear the name of another one's.
    Clash {
        /// The metric.
        metric: String,
        /// The registered metric that it would clash with.
        existing: String,
    },
    /// There is no room for another family or series.
    Full {
        /// The metric.
        metric: String,
        /// What is full: families, series or definitions.
        what: &'static str,
        /// How many fit.
        capacity: u64,
        /// Who filled it.
        largest: Option<Box<Largest>>,
    },
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegisterError::Name { found } => write!(
                f,
                "{found:?} is no metric name: expected [a-zA-Z_:][a-zA-Z0-9_:]*, at most {} bytes",
                crate::registry::NAME_MAX
            ),
            RegisterError::Label {
                metric,
                found,
                reason,
            } => {
                write!(f, "metric {metric}: label {found:?} {reason}")
            }
            RegisterError::TooLong {
                metric,
                what,
                found,
                longest,
            } => {
                write!(
                    f,
                    "metric {metric}: {what} is {found} long, expected at most {longest}"
                )
            }
            RegisterError::Buckets { metric, found } => write!(
                f,
                "metric {metric}: buckets are {found:?}, expected finite bounds, each larger than \
                the one before"
            ),
            RegisterError::NoBuckets {
                metric,
                metric_type,
            } => write!(
                f,
                "metric {metric}: buckets are for histograms, and this is a {metric_type}"
            ),
            RegisterError::Merge {
                metric,
                metric_type,
                merge,
            } => write!(
                f,
                "metric {metric}: values are merged by {merge} for gauges alone, and this is a \
                 {metric_type}"
            ),
            RegisterError::Window {
                metric,
                metric_type: MetricType::Summary,
                window: Window { length, steps },
            } => write!(
                f,
                "metric {metric}: a window of {length:?} in {steps} steps, expected 1 to {} steps \
                of at least {:?} each, and whole milliseconds",
                Window::STEPS_MAX,
                Window::STEP_MIN
            ),
            RegisterError::Window {
                metric,
                metric_type,
                ..
            } => write!(
                f,
                "metric {metric}: windows are for summaries, and this is a {metric_type}"
            ),
            RegisterError::Conflict {
                metric,
                existing,
                requested,
            } => {
                write!(
                    f,
                    "metric {metric} is registered as {existing}, and was asked for as \
                    {requested}: keep to the registered definition, or have the bus forget the old \
                    one (`qbus forget -b BUS {metric}`, or `qbus rm -b BUS` for the whole bus)"
                )
            }
            RegisterError::Clash { metric, existing } => write!(
                f,
                "metric {metric} would share sample names with the {existing}; choose another name"
            ),
            RegisterError::Full {
                metric,
                what,
                capacity,
                largest,
            } => {
                write!(
                    f,
                    "metric {metric}: no room for more {what} (capacity {capacity})"
                )?;
                if let Some(Largest {
                    family,
                    series,
                    label,
                    registrant,
                }) = largest.as_deref()
                {
                    write!(f, "; the largest family is {family} with {series} series")?;
                    if let Some((label, values)) = label {
                        write!(f, ", its label {label} has {values} values")?;
                    }
                    if let Some(registrant) = registrant {
                        write!(
                            f,
                            ", {} registered {} of them",
                            registrant, registrant.series
                        )?;
                    }
                }
                write!(f, "; known series go on")
            }
        }
    }
}

impl Error for RegisterError {}

/// Why a record was not accepted. It was counted in the owner's part of the ledger.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum EmitError {
    /// The lane is full: the aggregator is slower than the producers, or not there.
    Full,
    /// The kind cannot take the value: a negative or infinite increment, a NaN observation.
    Value {
        /// The value.
        found: f64,
        /// What it was to do.
        kind: Kind,
    },
    /// This process was stopped for so long inside the emit that its slot was taken back.
    Revoked,
    /// This process could not join the bus ([`JoinError`] says why when asked for a producer).
    NotJoined,
    /// The bus was removed.
    Removed,
    /// The series was freed, and the registry has no room to register it again.
    Unregistered,
}

impl fmt::Display for EmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EmitError::Full => write!(f, "the lane is full: the aggregator lags or is not running"),
            EmitError::Value {
                found,
                kind: Kind::Increment | Kind::Total,
            } => {
                write!(
                    f,
                    "counter increment is {found}, expected a finite number, 0 or more"
                )
            }
            EmitError::Value { found, .. } => {
                write!(f, "value is {found}, expected a number")
            }
            EmitError::Revoked => write!(
                f,
                "the process was stopped inside the emit, and the record given up"
            ),
            EmitError::NotJoined => write!(f, "the process could not join the bus"),
            EmitError::Unregistered => write!(
                f,
                "the series was freed, and the registry has no room to register it again"
            ),
            EmitError::Removed => write!(
                f,
                "the bus was removed; open it again to join a new one of that name"
            ),
        }
    }
}

impl Error for EmitError {}

/// Why it is not known that all that was emitted is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlushError {
    /// No aggregator is running. What was emitted waits in the lanes for the next one.
    NoAggregator,
    /// It was not committed in time.
    TimedOut {
        /// How many lanes hold what is not committed.
        lanes: usize,
    },
    /// The snapshot has no room for some series: what was emitted to them waits in their cells.
    /// All else is committed.
    NoRoom {
        /// How many lanes hold such series.
        lanes: usize,
    },
}

impl fmt::Display for FlushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlushError::NoAggregator => write!(
                f,
                "no aggregator is running; start `qbus agg -b BUS`: what was emitted waits in the \
                lanes until then"
            ),
            FlushError::TimedOut { lanes } => write!(
                f,
                "{lanes} lanes were not committed in time: the aggregator lags, or is stopped"
            ),
            FlushError::NoRoom { lanes } => write!(
                f,
                "the snapshot has no room for some series, which wait in the cells of {lanes} \
                lanes: the file system of the snapshot is full"
            ),
        }
    }
}

impl Error for FlushError {}

/// Why this process did not become the aggregator.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConsumeError {
    /// There is one.
    Taken {
        /// Its pid, in its own pid namespace.
        pid: u64,
    },
    /// The bus was removed.
    Removed,
    /// The system refused.
    Io(io::Error),
}

impl fmt::Display for ConsumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConsumeError::Taken { pid } => {
                write!(
                    f,
                    "the bus has an aggregator already: pid {pid}; stop it first, or use another \
                    bus"
                )
            }
            ConsumeError::Removed => write!(f, "the bus was removed while it was being opened"),
            ConsumeError::Io(source) => write!(f, "could not become the aggregator: {source}"),
        }
    }
}

impl Error for ConsumeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ConsumeError::Io(source) => Some(source),
            _ => None,
        }
    }
}
