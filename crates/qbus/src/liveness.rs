//! Who is alive: possession of a lock, and nothing else.
//!
//! Byte i of the bus file is held with an open-file-description lock (F_OFD_SETLK, see
//! fcntl_locking(2)) on an open of its own. The kernel drops it when the last descriptor of that
//! open goes, so at death at the latest, and across pid namespaces. Such locks conflict between two
//! opens of one process too, and closing another descriptor of the file leaves them alone, which
//! the older F_SETLK does not. The open is never mapped: a mapping would keep it, and with it the
//! lock, in a forked child. What is given back is unlocked before it is closed: a copy that
//! somebody else made of the descriptor must not keep it.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::fork::ForkClosed;
use crate::testpoint;

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
    /// A place for an open that comes later, and more than once: [`reopen`](Self::reopen).
    pub(crate) fn reserve() -> Locks {
        Locks {
            file: ForkClosed::reserve(),
        }
    }

    /// Opens `path`; `None` when it is not (or no longer) the file `id`.
    pub(crate) fn open(path: &Path, id: FileId) -> io::Result<Option<Locks>> {
        let locks = Locks::reserve();
        Ok(locks.reopen(path, id)?.then_some(locks))
    }

    /// Opens `path` in place of what was open; false when it is not (or no longer) the file `id`.
    /// Allocates nothing but for a path of over 255 bytes.
    pub(crate) fn reopen(&self, path: &Path, id: FileId) -> io::Result<bool> {
        self.close();
        // Appending tells the descriptor from all others of the file (`fork`), and keeps what
        // foreign code writes to a number that it takes for its own behind the end of the bus.
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = self
            .file
            .open(id, || rustix::fs::open(path, flags, Mode::empty()));
        match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            opened => opened,
        }
    }

    /// Whether it is still open: neither a fork nor foreign code has taken the descriptor away.
    pub(crate) fn is_open(&self) -> bool {
        self.file.raw().is_some()
    }

    /// How many names the file still has; `None` when it is not open.
    pub(crate) fn names(&self) -> Option<u64> {
        // SAFETY: the descriptor was open and ours just now; were it closed in this instant, the
        // call would be refused, or look at another file.
        let file = unsafe { BorrowedFd::borrow_raw(self.file.raw()?) };
        let stat = rustix::fs::fstat(file).ok()?;
        Some(stat.st_nlink as u64)
    }

    /// Gives all bytes back, and closes.
    pub(crate) fn close(&self) {
        if self.file.raw().is_some() {
            let _ = self.set(libc::F_UNLCK, 0, 0);
            testpoint!("lock-unlocked");
        }
        self.file.close();
    }

    /// Takes a byte; false when another open holds it.
    pub(crate) fn try_lock(&self, byte: u64) -> io::Result<bool> {
        self.try_set(byte, 1)
    }

    /// Takes all bytes from `byte` on; false when another open holds one of them: until they are
    /// given back nobody can join, or aggregate.
    pub(crate) fn try_lock_from(&self, byte: u64) -> io::Result<bool> {
        // A length of 0 is all that follow.
        self.try_set(byte, 0)
    }

    fn try_set(&self, byte: u64, count: u64) -> io::Result<bool> {
        match self.set(libc::F_WRLCK, byte, count) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives a byte back.
    pub(crate) fn unlock(&self, byte: u64) -> io::Result<()> {
        self.set(libc::F_UNLCK, byte, 1)
    }

    /// Whether another open holds the byte. The answer may be old when it arrives; only
    /// [`try_lock`](Self::try_lock) makes it last.
    pub(crate) fn is_held(&self, byte: u64) -> io::Result<bool> {
        self.are_held(byte, 1)
    }

    /// Whether another open holds any byte from `byte` on: somebody uses the file, whatever its
    /// layout.
    pub(crate) fn is_any_held_from(&self, byte: u64) -> io::Result<bool> {
        // A length of 0 is all that follow.
        self.are_held(byte, 0)
    }

    fn are_held(&self, byte: u64, count: u64) -> io::Result<bool> {
        let (file, mut lock) = (self.raw()?, request(libc::F_WRLCK, byte, count));
        // SAFETY: `lock` is a valid flock that outlives the call.
        let result = unsafe { libc::fcntl(file, libc::F_OFD_GETLK, &raw mut lock) };
        if result != 0 {
            return Err(lock_error());
        }
        Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
    }

    fn set(&self, kind: libc::c_int, byte: u64, len: u64) -> io::Result<()> {
        let (file, lock) = (self.raw()?, request(kind, byte, len));
        // SAFETY: `lock` is a valid flock that outlives the call.
        let result = unsafe { libc::fcntl(file, libc::F_OFD_SETLK, &raw const lock) };
        if result != 0 {
            return Err(lock_error());
        }
        Ok(())
    }

    fn raw(&self) -> io::Result<RawFd> {
        let raw = self.file.raw();
        raw.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        self.close();
    }
}

/// Why the kernel refused a lock.
fn lock_error() -> io::Error {
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::ENOLCK | libc::EOPNOTSUPP) => io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "open file description locks are not available here ({error}): use a local file \
                system, and a Linux kernel of its own"
            ),
        ),
        _ => error,
    }
}

/// A length of 0 is all that follows.
fn request(kind: libc::c_int, byte: u64, len: u64) -> libc::flock {
    // `l_pid` must be 0 for these locks.
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte as libc::off_t,
        l_len: len as libc::off_t,
        l_pid: 0,
    }
}
