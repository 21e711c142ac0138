//! Files as a bus needs them: made where nothing is, opened if they can be trusted, reserved in
//! full.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FallocateFlags, FileType, Mode, OFlags, Stat};
use rustix::process::{Resource, getrlimit};
use shared_memory::{ShmemConf, ShmemError};

use super::Access;
use crate::error::{CreateError, OpenError, creating, opening};

/// A file system without blocks (a tmpfs without a limit) says nothing of what it has left.
pub(super) fn available_bytes(file: impl AsFd) -> u64 {
    match rustix::fs::fstatvfs(file) {
        Ok(fs) if fs.f_blocks > 0 => fs.f_bavail.saturating_mul(fs.f_frsize),
        _ => u64::MAX,
    }
}

/// Reserves bytes of a file that nobody has written to; with zeros in a file system that has no
/// better way (ramfs, some network and FUSE file systems).
pub(super) fn fallocate(file: impl AsFd, offset: u64, bytes: u64) -> rustix::io::Result<()> {
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), offset, bytes) {
        Err(rustix::io::Errno::OPNOTSUPP) => {}
        reserved => return reserved,
    }
    let (zeros, end) = ([0; 1 << 16], offset + bytes);
    let mut at = offset;
    while at < end {
        let len = zeros.len().min((end - at) as usize);
        at += rustix::io::pwrite(&file, &zeros[..len], at)? as u64;
    }
    Ok(())
}

/// Makes a file that nobody else has.
pub(super) fn create_file(path: &Path) -> Result<OwnedFd, CreateError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map_err(|errno| match errno {
        rustix::io::Errno::EXIST => CreateError::Exists {
            path: path.to_owned(),
        },
        errno => creating("create", path, errno),
    })
}

/// Makes a POSIX segment that nobody else has, and opens its file.
pub(super) fn create_segment(name: &str, path: &Path, bytes: u64) -> Result<OwnedFd, CreateError> {
    check_size_limit(path, bytes)?;
    let segment = ShmemConf::new().os_id(name).size(bytes as usize);
    let mut segment = segment.create().map_err(|error| match error {
        ShmemError::MappingIdExists => CreateError::Exists {
            path: path.to_owned(),
        },
        error => creating("create", path, shmem_error(error)),
    })?;
    // Else it would take the name away when it is dropped, at the end of this function: the crate
    // neither reserves memory nor says what is missing, and keeps a descriptor.
    segment.set_owner(false);
    let opened = open_checked(path, Access::Write);
    let opened = opened.map_err(|error| creating("open again", path, io::Error::other(error)));
    opened.map(|(file, _)| file).inspect_err(|_| {
        let _ = rustix::fs::unlink(path);
    })
}

fn shmem_error(error: ShmemError) -> io::Error {
    match error {
        ShmemError::MapCreateFailed(code)
        | ShmemError::MapOpenFailed(code)
        | ShmemError::UnknownOsError(code) => io::Error::from_raw_os_error(code as i32),
        error => io::Error::other(error),
    }
}

/// Opens a file, and refuses what a stranger may have put in its place.
pub(super) fn open_checked(path: &Path, access: Access) -> Result<(OwnedFd, Stat), OpenError> {
    let mode = if access == Access::Write {
        OFlags::RDWR
    } else {
        OFlags::RDONLY
    };
    // NONBLOCK: opening a planted FIFO must not wait.
    let flags = mode | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        rustix::io::Errno::NOENT => OpenError::Absent {
            path: path.to_owned(),
        },
        rustix::io::Errno::LOOP | rustix::io::Errno::ISDIR => OpenError::NotAFile {
            path: path.to_owned(),
        },
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => foreign_or_refused(path, errno),
        errno => opening("open", path, errno),
    })?;
    let stat = rustix::fs::fstat(&file).map_err(|errno| opening("look at", path, errno))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(OpenError::NotAFile {
            path: path.to_owned(),
        });
    }
    if access == Access::Write {
        check_trust(path, &stat)?;
    }
    Ok((file, stat))
}

/// The kernel refused to open it: does it belong to another user?
fn foreign_or_refused(path: &Path, errno: rustix::io::Errno) -> OpenError {
    match rustix::fs::stat(path) {
        Ok(stat) if stat.st_uid != rustix::process::geteuid().as_raw() => foreign(path, &stat),
        _ => opening("open", path, errno),
    }
}

fn foreign(path: &Path, stat: &Stat) -> OpenError {
    let expected = rustix::process::geteuid().as_raw();
    OpenError::Foreign {
        path: path.to_owned(),
        found: stat.st_uid,
        expected,
    }
}

fn check_trust(path: &Path, stat: &Stat) -> Result<(), OpenError> {
    let mode = stat.st_mode & 0o7777;
    if mode & 0o002 != 0 {
        return Err(OpenError::Mode {
            path: path.to_owned(),
            found: mode,
        });
    }
    let group_shared = mode & 0o060 == 0o060;
    if stat.st_uid != rustix::process::geteuid().as_raw() && !group_shared {
        return Err(foreign(path, stat));
    }
    Ok(())
}

/// Reserves `bytes` from the start of a new file: a full file system is an error here, and never a
/// SIGBUS later.
pub(super) fn reserve(file: impl AsFd, path: &Path, bytes: u64) -> Result<(), CreateError> {
    check_size_limit(path, bytes)?;
    let available = available_bytes(&file);
    let no_space = || CreateError::NoSpace {
        path: path.to_owned(),
        needed_bytes: bytes,
        available_bytes: available,
    };
    // Some file systems would fill themselves to the last byte before they say so.
    if available < bytes {
        return Err(no_space());
    }
    match fallocate(&file, 0, bytes) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT | rustix::io::Errno::FBIG) => {
            Err(no_space())
        }
        Err(errno) => Err(creating("reserve room for", path, errno)),
    }
}

/// A file that grows beyond RLIMIT_FSIZE ends the process (SIGXFSZ): that is refused before.
pub(super) fn check_size_limit(path: &Path, bytes: u64) -> Result<(), CreateError> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if limit < bytes => {
            let why = format!(
                "it needs {bytes} bytes, and this process may write files of {limit} alone (ulimit \
                -f)"
            );
            Err(creating("reserve room for", path, io::Error::other(why)))
        }
        _ => Ok(()),
    }
}

/// Only the bits that two users could share by: 0600, 0640, 0660.
pub(super) fn set_mode(file: impl AsFd, path: &Path, mode: u32) -> Result<(), CreateError> {
    if mode & !0o660 != 0 || mode & 0o600 != 0o600 {
        return Err(CreateError::Mode { found: mode });
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))
        .map_err(|errno| creating("set the mode of", path, errno))
}
