//! A mapped file that grows in place: addresses are reserved for the largest size that it may have.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::ptr;
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags};

use super::PAGE;
use super::files::{available_bytes, check_size_limit, fallocate};
use super::mapped::KeptFile;
use crate::error::{CreateError, creating};

/// Makes a [`MappedFile`](crate::MappedFile) grow in place, in this thread or another.
#[derive(Debug)]
pub struct Grower {
    pub(super) path: PathBuf,
    pub(super) file: KeptFile,
    pub(super) addresses: Arc<Addresses>,
    /// Bytes of the file.
    pub(super) len: usize,
}

/// What a [`Grower`] has added: reserved, mapped, and touched once, so that its first use waits for
/// nothing.
#[derive(Debug)]
pub struct Grown {
    pub(super) addresses: Arc<Addresses>,
    pub(super) len: usize,
    /// Bytes that the file system has left.
    pub available_bytes: u64,
}

impl Grower {
    /// Makes the file longer by `bytes`, rounded up to whole pages.
    ///
    /// # Errors
    ///
    /// The file system has not so much left, or the process may map no more; the file is as it was.
    pub fn grow(&mut self, bytes: u64) -> Result<Grown, CreateError> {
        let bytes = (bytes as usize).next_multiple_of(PAGE);
        let grown = self
            .file
            .with(&self.path, |file| Ok(self.grow_file(file, bytes)));
        let (len, available_bytes) =
            grown.unwrap_or_else(|why| Err(creating("open again", &self.path, why)))?;
        self.len = len;
        Ok(Grown {
            addresses: self.addresses.clone(),
            len,
            available_bytes,
        })
    }

    /// How long the file is then, and what its file system has left.
    fn grow_file(&self, file: &File, bytes: usize) -> Result<(usize, u64), CreateError> {
        let no_space = |available_bytes| CreateError::NoSpace {
            path: self.path.clone(),
            needed_bytes: bytes as u64,
            available_bytes,
        };
        // Some file systems would fill themselves to the last byte before they say so.
        let available = available_bytes(file);
        if available < bytes as u64 {
            return Err(no_space(available));
        }
        let from = self.len.next_multiple_of(PAGE);
        if from + bytes > self.addresses.len {
            let why = io::Error::from(io::ErrorKind::OutOfMemory);
            return Err(creating("map more of", &self.path, why));
        }
        let (offset, more) = (self.len as u64, (from + bytes - self.len) as u64);
        check_size_limit(&self.path, offset + more)?;
        let made = fallocate(file, offset, more)
            .map_err(|errno| match errno {
                rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT => no_space(available),
                errno => creating("reserve room for", &self.path, errno),
            })
            .and_then(|()| {
                self.addresses
                    .map(file, from, bytes, MapFlags::POPULATE)
                    .map_err(|source| creating("map", &self.path, source))
            });
        if let Err(error) = made {
            // What a failed reservation took would never be released.
            let _ = rustix::fs::ftruncate(file, offset);
            return Err(error);
        }
        Ok((from + bytes, available_bytes(file)))
    }
}

/// Addresses of this process that nothing else takes, for a file that grows.
#[derive(Debug)]
pub(super) struct Addresses {
    pub(super) start: *mut u8,
    len: usize,
}

// SAFETY: addresses, which are given back when the last who has them is gone. All access to what is
// mapped there is atomic.
unsafe impl Send for Addresses {}
// SAFETY: as for `Send`.
unsafe impl Sync for Addresses {}

impl Addresses {
    /// As many addresses as there are, from `longest` bytes down to those for `least`.
    pub(super) fn reserve(least: usize, longest: usize) -> io::Result<Addresses> {
        let least = least.next_multiple_of(PAGE);
        let mut len = longest.max(least).next_multiple_of(PAGE);
        loop {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            // SAFETY: the kernel chooses addresses that nothing has; no access is allowed to them.
            let start = unsafe {
                rustix::mm::mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags)
            };
            match start {
                Ok(start) => {
                    return Ok(Addresses {
                        start: start.cast(),
                        len,
                    });
                }
                // A limit on addresses: the half may do.
                Err(_) if len > least => len = (len / 2).max(least).next_multiple_of(PAGE),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Maps `len` bytes of a file from `offset` at the same offset of the addresses.
    pub(super) fn map(
        &self,
        file: &File,
        offset: usize,
        len: usize,
        flags: MapFlags,
    ) -> io::Result<()> {
        assert!(
            offset.is_multiple_of(PAGE) && offset + len <= self.len.next_multiple_of(PAGE),
            "the addresses are reserved"
        );
        // SAFETY: within what `mmap_anonymous` gave for this alone. Whoever has words of a part
        // that is mapped already is not touched: a grower maps what lies behind it.
        unsafe {
            rustix::mm::mmap(
                self.start.wrapping_add(offset).cast(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED | flags,
                file,
                offset as u64,
            )
        }?;
        Ok(())
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        // SAFETY: they are this value's, and no `MappedFile` has words of them any more.
        let _ = unsafe { rustix::mm::munmap(self.start.cast(), self.len) };
    }
}
