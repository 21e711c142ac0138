//! Who is alive: possession of a lock, and nothing else.
//!
//! Byte i of the bus file is held with an open-file-description lock (F_OFD_SETLK, see
//! fcntl_locking(2)) on an open of its own. The kernel drops it when the last descriptor of that
//! open goes, so at death at the latest, and across pid namespaces. Such locks conflict between two
//! opens of one process too, and closing another descriptor of the file leaves them alone, which
//! the older F_SETLK does not. The open is never mapped: a mapping would keep it, and with it the
//! lock, in a forked child.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::fork::ForkClosed;

/// Held while a bus is being made or taken away.
pub(crate) const CREATE_BYTE: u64 = 0;
/// Held by the aggregator.
pub(crate) const AGGREGATOR_BYTE: u64 = 1;

/// Held by the process in entry `index` of the owner table.
pub(crate) fn owner_byte(index: usize) -> u64 {
    16 + index as u64
}

/// An open of the bus file for locks alone.
#[derive(Debug)]
pub(crate) struct Locks {
    file: ForkClosed,
}

/// A file, whatever its name is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl FileId {
    pub(crate) fn of(stat: &rustix::fs::Stat) -> FileId {
        FileId {
            device: stat.st_dev,
            inode: stat.st_ino,
        }
    }
}

impl Locks {
    /// Opens `path`; `None` when it is not (or no longer) the file `id`.
    pub(crate) fn open(path: &Path, id: FileId) -> io::Result<Option<Locks>> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file: OwnedFd = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => file,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let found = FileId::of(&rustix::fs::fstat(&file)?);
        Ok((found == id).then(|| Locks {
            file: ForkClosed::new(file),
        }))
    }

    /// Takes a byte; false when another open holds it.
    pub(crate) fn try_lock(&self, byte: u64) -> io::Result<bool> {
        match self.set(libc::F_WRLCK, byte) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives a byte back.
    pub(crate) fn unlock(&self, byte: u64) -> io::Result<()> {
        self.set(libc::F_UNLCK, byte)
    }

    /// Whether another open holds the byte. The answer may be old when it arrives; only
    /// [`try_lock`](Self::try_lock) makes it last.
    pub(crate) fn is_held(&self, byte: u64) -> io::Result<bool> {
        self.are_held(byte, 1)
    }

    /// Whether another open holds any byte from `byte` on: somebody uses the file, whatever its layout.
    pub(crate) fn is_any_held_from(&self, byte: u64) -> io::Result<bool> {
        // A length of 0 is all that follow.
        self.are_held(byte, 0)
    }

    fn are_held(&self, byte: u64, count: libc::off_t) -> io::Result<bool> {
        let mut lock = libc::flock {
            l_len: count,
            ..request(libc::F_WRLCK, byte)
        };
        // SAFETY: `lock` is a valid flock that outlives the call.
        let result = unsafe { libc::fcntl(self.file.raw(), libc::F_OFD_GETLK, &raw mut lock) };
        if result != 0 {
            return Err(lock_error());
        }
        Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
    }

    fn set(&self, kind: libc::c_int, byte: u64) -> io::Result<()> {
        let lock = request(kind, byte);
        // SAFETY: `lock` is a valid flock that outlives the call.
        let result = unsafe { libc::fcntl(self.file.raw(), libc::F_OFD_SETLK, &raw const lock) };
        if result != 0 {
            return Err(lock_error());
        }
        Ok(())
    }
}

/// Why the kernel refused a lock.
fn lock_error() -> io::Error {
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOLCK | libc::EOPNOTSUPP) => io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "open file description locks are not to be had here ({error}): use a local file system, and a Linux kernel of its own"
            ),
        ),
        _ => error,
    }
}

fn request(kind: libc::c_int, byte: u64) -> libc::flock {
    // `l_pid` must be 0 for these locks.
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte as libc::off_t,
        l_len: 1,
        l_pid: 0,
    }
}
