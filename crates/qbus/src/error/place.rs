//! Why a file could not be made, opened or removed.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::layout::GeometryError;

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
                    "{path} exists already: open it as it is, take another name, or remove it with \
                    `qbus rm -b {path}`",
                    path = path.display()
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
                    "no room for {}: it needs {needed_bytes} bytes ({mebibytes} MiB), its file \
                    system has {available_bytes} left; make it smaller (--lanes, --slots, \
                    --max-series), or the place larger (a container's /dev/shm: docker run \
                    --shm-size={}m; Kubernetes: an emptyDir with medium: Memory)",
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
                    "{} is not {expected}: it starts with {found:#018x}; name another file, or \
                    move this one away",
                    path.display()
                )
            }
            OpenError::Unfinished { path } => write!(
                f,
                "{path} is unfinished: its creator is still at work, or died; if it died, `qbus rm \
                --force -b {path}` takes it away",
                path = path.display()
            ),
            OpenError::Version {
                path,
                found,
                expected,
            } => write!(
                f,
                "{path} has layout version {found}, this build reads {expected}; use the qbus that \
                made it, or remove it (`qbus rm -b {path}`) when nobody uses it any more, and make \
                it anew",
                path = path.display()
            ),
            OpenError::Foreign {
                path,
                found,
                expected,
            } => write!(
                f,
                "{} belongs to uid {found}, this process runs as uid {expected}; run as its user, \
                or have it created with --mode 0660 in a common group",
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
                    "{} is not a regular file (a symbolic link is not followed); name the file \
                    itself",
                    path.display()
                )
            }
            OpenError::Size {
                path,
                found,
                expected,
            } => write!(
                f,
                "{} has {found} bytes, its header says {expected}: it was truncated, or is not \
                finished",
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
