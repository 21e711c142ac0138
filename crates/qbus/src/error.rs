//! An error enum per verb: what was found, what was expected, what to do next.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::layout::GeometryError;
use crate::record::{Kind, MetricType};
use crate::registry::{Merge, Window};

/// Why a bus (or a snapshot file) could not be created.
#[derive(Debug)]
#[non_exhaustive]
pub enum CreateError {
    /// The name is taken.
    Exists {
        /// The file of that name.
        path: PathBuf,
    },
    /// A number of the geometry cannot be.
    Geometry(GeometryError),
    /// The file system has no room for the reserved size.
    NoSpace {
        /// The file that was to be made.
        path: PathBuf,
        /// What it needs.
        needed_bytes: u64,
        /// What its file system has left.
        available_bytes: u64,
    },
    /// A mode that would let everybody write, or not even the owner.
    Mode {
        /// The mode that was asked for.
        found: u32,
    },
    /// The system refused.
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CreateError::Exists { path } => {
                write!(
                    f,
                    "{} exists already; open it, or remove it with `qbus rm`",
                    path.display()
                )
            }
            CreateError::Geometry(error) => write!(f, "no such geometry: {error}"),
            CreateError::NoSpace {
                path,
                needed_bytes,
                available_bytes,
            } => {
                let mebibytes = needed_bytes.div_ceil(1 << 20);
                write!(
                    f,
                    "no room for {}: it needs {needed_bytes} bytes ({mebibytes} MiB), its file system has \
                     {available_bytes} left; make it smaller (--lanes, --slots, --max-series), or the place \
                     larger (a container's /dev/shm: docker run --shm-size={}m; Kubernetes: an emptyDir with \
                     medium: Memory)",
                    path.display(),
                    (mebibytes * 2).max(64),
                )
            }
            CreateError::Mode { found } => {
                write!(
                    f,
                    "mode is {found:04o}, expected 0600 (this user) or 0660 (this user and group)"
                )
            }
            CreateError::Io {
                doing,
                path,
                source,
            } => write!(f, "could not {doing} {}: {source}", path.display()),
        }
    }
}

impl Error for CreateError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            CreateError::Geometry(error) => Some(error),
            CreateError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Why a bus (or a snapshot file) could not be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such file.
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a bus that this build can trust.
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What it was expected to be.
        expected: &'static str,
        /// Its first word.
        found: u64,
    },
    /// Its creator has not finished, or died before it had.
    Unfinished {
        /// The file.
        path: PathBuf,
    },
    /// It was made by a build with another layout.
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The version that this build reads.
        expected: u64,
    },
    /// It belongs to another user and is not shared with a group.
    Foreign {
        /// The file.
        path: PathBuf,
        /// The uid of its owner.
        found: u32,
        /// The effective uid of this process.
        expected: u32,
    },
    /// Everybody may write to it.
    Mode {
        /// The file.
        path: PathBuf,
        /// Its mode.
        found: u32,
    },
    /// It is a symbolic link, a directory, a device.
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// It is shorter or longer than its header says.
    Size {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        found: u64,
        /// What its header says.
        expected: u64,
    },
    /// Its header has a geometry that cannot be.
    Geometry {
        /// The file.
        path: PathBuf,
        /// Which number.
        source: GeometryError,
    },
    /// The system refused.
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl OpenError {
    /// Whether there is nothing to open (yet, or any more), as opposed to something that is wrong.
    pub fn is_absent(&self) -> bool {
        matches!(self, OpenError::Absent { .. })
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Absent { path } => write!(f, "there is no {}", path.display()),
            OpenError::NotOurs {
                path,
                expected,
                found,
            } => {
                write!(
                    f,
                    "{} is not {expected}: it starts with {found:#018x}",
                    path.display()
                )
            }
            OpenError::Unfinished { path } => write!(
                f,
                "{} is unfinished: its creator is still at work, or died; if it died, `qbus rm --force` takes it away",
                path.display()
            ),
            OpenError::Version {
                path,
                found,
                expected,
            } => write!(
                f,
                "{} has layout version {found}, this build reads {expected}; use the qbus that made it, or remove it \
                 (`qbus rm`) when nobody uses it any more, and make it anew",
                path.display()
            ),
            OpenError::Foreign {
                path,
                found,
                expected,
            } => write!(
                f,
                "{} belongs to uid {found}, this process runs as uid {expected}; run as its user, or have it created \
                 with --mode 0660 in a common group",
                path.display()
            ),
            OpenError::Mode { path, found } => write!(
                f,
                "{} has mode {found:04o}: everybody could write to it; expected 0600 or 0660",
                path.display()
            ),
            OpenError::NotAFile { path } => {
                write!(
                    f,
                    "{} is not a regular file (a symbolic link is not followed)",
                    path.display()
                )
            }
            OpenError::Size {
                path,
                found,
                expected,
            } => write!(
                f,
                "{} has {found} bytes, its header says {expected}: it was truncated, or is not finished",
                path.display()
            ),
            OpenError::Geometry { path, source } => {
                write!(f, "{} has an impossible header: {source}", path.display())
            }
            OpenError::Io {
                doing,
                path,
                source,
            } => write!(f, "could not {doing} {}: {source}", path.display()),
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            OpenError::Geometry { source, .. } => Some(source),
            OpenError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Wraps a system error with what was being done to which file.
pub(crate) fn opening(doing: &'static str, path: &Path, source: impl Into<io::Error>) -> OpenError {
    OpenError::Io {
        doing,
        path: path.to_owned(),
        source: source.into(),
    }
}

/// Wraps a system error with what was being done to which file.
pub(crate) fn creating(
    doing: &'static str,
    path: &Path,
    source: impl Into<io::Error>,
) -> CreateError {
    CreateError::Io {
        doing,
        path: path.to_owned(),
        source: source.into(),
    }
}

/// Why a bus could not be opened or, failing that, created.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenOrCreateError {
    /// It exists, and cannot be opened.
    Open(OpenError),
    /// It does not exist, and cannot be created.
    Create(CreateError),
}

impl fmt::Display for OpenOrCreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenOrCreateError::Open(error) => error.fmt(f),
            OpenOrCreateError::Create(error) => error.fmt(f),
        }
    }
}

impl Error for OpenOrCreateError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            OpenOrCreateError::Open(error) => error.source(),
            OpenOrCreateError::Create(error) => error.source(),
        }
    }
}

/// Why a bus was not removed.
#[derive(Debug)]
#[non_exhaustive]
pub enum RemoveError {
    /// It could not be opened.
    Open(OpenError),
    /// Processes are attached.
    InUse {
        /// Their pids, the aggregator's first if there is one.
        pids: Vec<u64>,
    },
    /// Another process is making or removing it right now.
    Busy,
    /// The name means another bus by now.
    Replaced,
    /// The system refused.
    Io(io::Error),
}

impl fmt::Display for RemoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RemoveError::Open(error) => error.fmt(f),
            RemoveError::InUse { pids } => {
                write!(f, "the bus is in use by pid")?;
                for pid in pids.iter().take(8) {
                    write!(f, " {pid}")?;
                }
                if pids.len() > 8 {
                    write!(f, " and {} more", pids.len() - 8)?;
                }
                write!(f, "; stop them first, or use --force")
            }
            RemoveError::Busy => write!(
                f,
                "another process is creating or removing this bus; try again"
            ),
            RemoveError::Replaced => {
                write!(f, "the name means another bus by now; nothing was removed")
            }
            RemoveError::Io(source) => write!(f, "could not remove the bus: {source}"),
        }
    }
}

impl Error for RemoveError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            RemoveError::Open(error) => error.source(),
            RemoveError::Io(source) => Some(source),
            _ => None,
        }
    }
}

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
    /// Another thread is joining, or the one that this signal handler interrupted.
    Busy,
    /// The system refused.
    Io(io::Error),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::OwnersFull { owners } => write!(
                f,
                "all {owners} places of the bus are taken by living processes; create it with more owners"
            ),
            JoinError::NoLane { lanes } => write!(
                f,
                "all {lanes} lanes are leased and the bus has no shared lane; create it with more --lanes, or with \
                 --shared-lanes"
            ),
            JoinError::Removed => {
                write!(
                    f,
                    "the bus was removed under this process; open it again to join a new one of that name"
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
                "metric {metric}: buckets are {found:?}, expected finite bounds, each larger than the one before"
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
                "metric {metric}: a window of {length:?} in {steps} steps, expected 1 to {} steps of at \
                 least {:?} each, and whole milliseconds",
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
                    "metric {metric} is registered as {existing}, and was asked for as {requested}: keep to the \
                     registered definition, or have the bus forget the old one (`qbus forget {metric}`, or \
                     `qbus rm` for the whole bus)"
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
}

impl fmt::Display for FlushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FlushError::NoAggregator => write!(
                f,
                "no aggregator is running; start `qbus agg`: what was emitted waits in the lanes until then"
            ),
            FlushError::TimedOut { lanes } => write!(
                f,
                "{lanes} lanes were not committed in time: the aggregator lags, or is stopped"
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
                    "the bus has an aggregator already: pid {pid}; stop it first, or use another bus"
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
