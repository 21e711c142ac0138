//! The snapshot file: it may come, go, grow and be replaced at any time.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use qbus::Clock;
use qbus_aggregate::{ReadError, Reader};

/// Why there is nothing to look at.
#[derive(Debug)]
#[non_exhaustive]
pub enum Unready {
    /// There is no snapshot, or none that can be read.
    Read(ReadError),
    /// It is older than it may be.
    Old {
        /// How long ago it was committed.
        age: Duration,
        /// How long ago that may be.
        max_age: Duration,
    },
}

impl std::error::Error for Unready {}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unready::Read(error) => {
                write!(
                    f,
                    "there is no snapshot to show: {error}; start `qbus agg -b BUS`"
                )
            }
            Unready::Old { age, max_age } => write!(
                f,
                "the snapshot is {:.1} s old, and --max-age is {:.1} s: its aggregator is gone or \
                stuck; start `qbus agg -b BUS`",
                age.as_secs_f64(),
                max_age.as_secs_f64()
            ),
        }
    }
}

/// Opens the snapshot when it is there, and anew when another file has its name.
#[derive(Debug)]
pub struct SnapshotSource {
    path: PathBuf,
    max_age: Option<Duration>,
    opened: Mutex<Option<Opened>>,
}

#[derive(Debug)]
struct Opened {
    reader: Reader,
    file: FileId,
}

/// Device and inode.
type FileId = (u64, u64);

impl SnapshotSource {
    /// Of that file, which need not be there yet, and may be a link that an aggregator has left. A
    /// snapshot that was committed longer than `max_age` ago is refused; `None` takes any.
    pub fn new(path: PathBuf, max_age: Option<Duration>) -> SnapshotSource {
        SnapshotSource {
            path,
            max_age,
            opened: Mutex::new(None),
        }
    }

    /// Reads, if there is a snapshot that is young enough. It may take long: not for an event loop.
    ///
    /// # Errors
    ///
    /// There is no snapshot, none that can be read, or it is too old.
    pub fn read<T>(
        &self,
        read: impl FnOnce(&mut Reader) -> Result<T, ReadError>,
    ) -> Result<T, Unready> {
        // Poisoned by a read that panicked: what it had opened is opened anew.
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.file();
        if now.is_none() || opened.as_ref().map(|opened| opened.file) != now {
            *opened = None;
        }
        let opened = match &mut *opened {
            Some(opened) => opened,
            none => {
                let path = qbus::snapshot_at(&self.path);
                let reader = Reader::open(&path).map_err(Unready::Read)?;
                // If it was replaced in between, the next read finds out.
                let file = now.unwrap_or_default();
                none.insert(Opened { reader, file })
            }
        };
        if opened.reader.epoch() == 0 {
            return Err(Unready::Read(ReadError::Empty));
        }
        let age = age(&opened.reader);
        match self.max_age {
            Some(max_age) if age > max_age => Err(Unready::Old { age, max_age }),
            _ => read(&mut opened.reader).map_err(Unready::Read),
        }
    }

    fn file(&self) -> Option<FileId> {
        let metadata = fs::metadata(&self.path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    }
}

/// How long ago the last commit was; nothing, when the clock was set back.
pub fn age(reader: &Reader) -> Duration {
    let now_ns = Clock::Precise.now_ns();
    Duration::from_nanos(now_ns.saturating_sub(reader.globals().unix_ns))
}
