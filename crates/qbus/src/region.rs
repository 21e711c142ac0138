//! The bytes of a bus: a named POSIX segment or a file, created, checked, mapped.
//!
//! # Trust
//!
//! All who can open the file (one user, or one group with mode 0660) trust each other with its
//! existence: a peer that truncates it ends every process that maps it with SIGBUS. What a peer
//! writes is never trusted: every word is checked where it is read.

mod files;
mod growing;
mod mapped;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use memmap2::{MmapOptions, MmapRaw};

use crate::address::Address;
use crate::error::{CreateError, OpenError, creating, opening};
use crate::layout::{Cell, CellHead, Header, LaneHead, LaneTail, OwnerEntry, Slot};
use crate::liveness::FileId;
use crate::sync::AtomicU64;
use files::{create_file, create_segment, open_checked, reserve, set_mode};
pub use growing::{Grower, Grown};
pub use mapped::MappedFile;

/// What files are mapped in units of.
const PAGE: usize = 4096;

/// What a process may do with a file that it maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Load words.
    Read,
    /// Load and store words.
    Write,
}

/// Types that may lie in shared memory.
///
/// # Safety
///
/// The type is `repr(C)` and made of [`AtomicU64`] alone: every bit pattern is legal, and nothing
/// of it is ever accessed other than as whole atomic words.
unsafe trait Shared {}
// SAFETY: one word.
unsafe impl Shared for AtomicU64 {}
// SAFETY: repr(C), words alone (layout.rs).
unsafe impl Shared for Header {}
// SAFETY: repr(C), words alone (layout.rs).
unsafe impl Shared for OwnerEntry {}
// SAFETY: repr(C), words alone (layout.rs).
unsafe impl Shared for LaneTail {}
// SAFETY: repr(C), words alone (layout.rs).
unsafe impl Shared for LaneHead {}
// SAFETY: repr(C), words alone (layout.rs).
unsafe impl Shared for Slot {}
// SAFETY: repr(C), words alone (layout.rs).
unsafe impl Shared for CellHead {}
// SAFETY: repr(C), words alone (layout.rs).
unsafe impl Shared for Cell {}

/// The region of a bus, mapped for reading and writing. It keeps no descriptor: foreign code may
/// close one, and its number then means something else.
#[derive(Debug)]
pub(crate) struct Region {
    map: MmapRaw,
    id: FileId,
}

impl Region {
    /// Makes a region of zeros, reserved in full; the caller writes the header.
    pub(crate) fn create(address: &Address, bytes: u64, mode: u32) -> Result<Region, CreateError> {
        let path = address.file();
        let file = match address.segment() {
            Some(segment) => create_segment(&segment, path, bytes)?,
            None => create_file(path)?,
        };
        let made = reserve(file.as_fd(), path, bytes).and_then(|()| {
            set_mode(file.as_fd(), path, mode)?;
            Region::map(file).map_err(|source| creating("map", path, source))
        });
        if made.is_err() {
            let _ = rustix::fs::unlink(path);
        }
        made
    }

    /// Opens and maps a region; the caller checks the header.
    pub(crate) fn open(address: &Address) -> Result<Region, OpenError> {
        let path = address.file();
        let (file, stat) = open_checked(path, Access::Write)?;
        if (stat.st_size as usize) < size_of::<Header>() {
            return Err(OpenError::Unfinished {
                path: path.to_owned(),
            });
        }
        Region::map(file).map_err(|source| opening("map", path, source))
    }

    fn map(file: OwnedFd) -> io::Result<Region> {
        let id = FileId::of(&rustix::fs::fstat(&file)?);
        let map = map_file(&File::from(file), Access::Write)?;
        Ok(Region { map, id })
    }

    /// Which file this is, whatever its name means by now.
    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn header(&self) -> &Header {
        // Both `create` and `open` saw to the length.
        &self.view::<Header>(0, 1).expect("a region has a header")[0]
    }

    pub(crate) fn owners(&self, offset: usize, count: usize) -> Option<&[OwnerEntry]> {
        self.view(offset, count)
    }

    pub(crate) fn tails(&self, offset: usize, count: usize) -> Option<&[LaneTail]> {
        self.view(offset, count)
    }

    pub(crate) fn heads(&self, offset: usize, count: usize) -> Option<&[LaneHead]> {
        self.view(offset, count)
    }

    pub(crate) fn slots(&self, offset: usize, count: usize) -> Option<&[Slot]> {
        self.view(offset, count)
    }

    pub(crate) fn cell_heads(&self, offset: usize, count: usize) -> Option<&[CellHead]> {
        self.view(offset, count)
    }

    pub(crate) fn cells(&self, offset: usize, count: usize) -> Option<&[Cell]> {
        self.view(offset, count)
    }

    pub(crate) fn words(&self, offset: usize, count: usize) -> Option<&[AtomicU64]> {
        self.view(offset, count)
    }

    /// Has the pages of some bytes mapped now, for writing: each would else be a fault of some
    /// microseconds when it is first written to. They are reserved since the file was made, so
    /// nothing more is taken of the file system. Kernels before 5.14 cannot; what they refuse is
    /// faulted in later.
    pub(crate) fn populate(&self, offset: usize, bytes: usize) {
        let from = offset / PAGE * PAGE;
        let end = (offset + bytes).min(self.len());
        if from >= end {
            return;
        }
        let start = self.map.as_mut_ptr().wrapping_add(from);
        // SAFETY: the bytes lie in the mapping, which is shared and writable; their contents stay.
        unsafe { libc::madvise(start.cast(), end - from, libc::MADV_POPULATE_WRITE) };
    }

    fn view<T: Shared>(&self, offset: usize, count: usize) -> Option<&[T]> {
        // SAFETY: the mapping lives as long as the borrow of this region.
        unsafe { view(self.map.as_ptr(), self.len(), offset, count) }
    }
}

fn map_file(file: &File, access: Access) -> io::Result<MmapRaw> {
    match access {
        Access::Read => {
            let mut options = MmapOptions::new();
            // Private rather than read-only: a store, which safe code can make, must do no harm.
            // SAFETY: others write to the file; all access to it is atomic.
            let map = unsafe { options.no_reserve_swap().map_copy(file) };
            map.map(MmapRaw::from)
        }
        Access::Write => MmapOptions::new().map_raw(file),
    }
}

/// The only place where a pointer becomes a reference to shared memory.
///
/// # Safety
///
/// `len` bytes from `start` on are mapped, for at least as long as the result lives.
unsafe fn view<'a, T: Shared>(
    start: *const u8,
    len: usize,
    offset: usize,
    count: usize,
) -> Option<&'a [T]> {
    let end = count.checked_mul(size_of::<T>())?.checked_add(offset)?;
    if end > len {
        return None;
    }
    let first = start.wrapping_add(offset).cast::<T>();
    if !first.is_aligned() {
        return None;
    }
    // SAFETY: the bytes lie in the mapping, which the caller keeps; they are aligned; and
    // `Shared` makes every bit pattern legal and every access atomic, whoever else writes.
    Some(unsafe { std::slice::from_raw_parts(first, count) })
}
