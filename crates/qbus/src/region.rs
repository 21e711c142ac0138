//! The bytes of a bus: a named POSIX segment or a file, created, checked, mapped.
//!
//! # Trust
//!
//! All who can open the file (one user, or one group with mode 0660) trust each other with its
//! existence: a peer that truncates it ends every process that maps it with SIGBUS. What a peer
//! writes is never trusted: every word is checked where it is read.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, FileType, Mode, OFlags, Stat};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::process::{Gid, Resource, getrlimit};
use shared_memory::{ShmemConf, ShmemError};

use crate::address::Address;
use crate::error::{CreateError, OpenError, creating, opening};
use crate::layout::{Cell, CellHead, Header, LaneHead, LaneTail, OwnerEntry, Slot};
use crate::liveness::FileId;
use crate::sync::AtomicU64;
use crate::words::Words;

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

/// A mapped file of words that can grow: the form of a snapshot, and of a bus with a path.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    file: KeptFile,
    map: Map,
    /// The words of `map`, for no longer than it.
    words: Words<'static>,
    access: Access,
}

/// A file that stays open. Foreign code may close its descriptor, and the number then means
/// something else: it is used, and closed, only while it is that file. Where it is not, the file is
/// opened by its name again.
#[derive(Debug)]
struct KeptFile {
    /// Always there until it is dropped.
    file: Option<File>,
    id: FileId,
    access: Access,
}

impl KeptFile {
    fn new(file: File, access: Access) -> io::Result<KeptFile> {
        let id = FileId::of(&rustix::fs::fstat(&file)?);
        let file = Some(file);
        Ok(KeptFile { file, id, access })
    }

    fn kept(&self) -> Option<&File> {
        let is_this =
            |file: &&File| rustix::fs::fstat(file).is_ok_and(|stat| FileId::of(&stat) == self.id);
        self.file.as_ref().filter(is_this)
    }

    /// Does something with the file, whose name is `path`.
    fn with<T>(&self, path: &Path, what: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        if let Some(file) = self.kept() {
            return what(file);
        }
        let (file, stat) = open_checked(path, self.access).map_err(io::Error::other)?;
        if FileId::of(&stat) != self.id {
            let why = "its descriptor was closed, and its name means another file by now";
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        what(&File::from(file))
    }
}

impl Drop for KeptFile {
    fn drop(&mut self) {
        if self.kept().is_none() {
            std::mem::forget(self.file.take());
        }
    }
}

/// Where a file is mapped.
#[derive(Debug)]
enum Map {
    /// As long as the file was.
    Whole(MmapRaw),
    /// At the start of addresses that nothing else takes; so many bytes of them by now.
    Growing(Arc<Addresses>, usize),
}

impl Map {
    fn as_ptr(&self) -> *const u8 {
        match self {
            Map::Whole(map) => map.as_ptr(),
            Map::Growing(addresses, _) => addresses.start,
        }
    }

    fn len(&self) -> usize {
        match self {
            Map::Whole(map) => map.len(),
            Map::Growing(_, len) => *len,
        }
    }
}

impl MappedFile {
    /// Makes a new file of `bytes` zero bytes, all of them reserved, and maps it.
    ///
    /// # Errors
    ///
    /// The file exists, has no room, or the system refuses; nothing is left behind.
    pub fn create(path: &Path, bytes: u64, mode: u32) -> Result<MappedFile, CreateError> {
        let file = create_file(path)?;
        let made = reserve(file.as_fd(), path, bytes).and_then(|()| {
            set_mode(file.as_fd(), path, mode)?;
            Self::map(path.to_owned(), File::from(file), Access::Write)
                .map_err(|source| creating("map", path, source))
        });
        if made.is_err() {
            let _ = rustix::fs::unlink(path);
        }
        made
    }

    /// Opens a regular file and maps it whole.
    ///
    /// # Errors
    ///
    /// The file is absent, a link, or no regular file; opened for writing also: it is another
    /// user's, or everybody may write to it.
    pub fn open(path: &Path, access: Access) -> Result<MappedFile, OpenError> {
        let (file, stat) = open_checked(path, access)?;
        if stat.st_size < 8 {
            return Err(OpenError::Unfinished {
                path: path.to_owned(),
            });
        }
        Self::map(path.to_owned(), File::from(file), access)
            .map_err(|source| opening("map", path, source))
    }

    fn map(path: PathBuf, file: File, access: Access) -> io::Result<MappedFile> {
        let map = Map::Whole(map_file(&file, access)?);
        // SAFETY: the words go with the map, into one value.
        let words = unsafe { all_words(&map) };
        Ok(MappedFile {
            path,
            file: KeptFile::new(file, access)?,
            map,
            words,
            access,
        })
    }

    /// The mapped words. What is stored through a mapping with [`Access::Read`] stays in this
    /// process.
    #[inline]
    pub fn words(&self) -> Words<'_> {
        self.words
    }

    /// Maps a file that is open for writing anew, where it can grow to `longest` bytes in place, or
    /// to as much of that as the process may map. What it returns makes it grow, in another thread
    /// if need be.
    ///
    /// # Errors
    ///
    /// The process may map no more than it does.
    pub fn growing(&mut self, longest: u64) -> io::Result<Grower> {
        let (len, addresses, file) = self.file.with(&self.path, |file| {
            let len = file.metadata()?.len() as usize;
            let addresses = Arc::new(Addresses::reserve(len, longest as usize)?);
            addresses.map(file, 0, len, MapFlags::empty())?;
            Ok((len, addresses, file.try_clone()?))
        })?;
        let grower = Grower {
            path: self.path.clone(),
            file: KeptFile::new(file, self.access)?,
            addresses: addresses.clone(),
            len,
        };
        self.map = Map::Growing(addresses, len);
        // SAFETY: the words go when the map is replaced.
        self.words = unsafe { all_words(&self.map) };
        Ok(grower)
    }

    /// Takes over what a [`Grower`] of this file has added. What was there stays; words of before
    /// the call are the same words after it.
    pub fn extend(&mut self, grown: &Grown) {
        if let Map::Growing(addresses, len) = &mut self.map
            && Arc::ptr_eq(addresses, &grown.addresses)
        {
            *len = grown.len.max(*len);
            // SAFETY: the words go when the map is replaced.
            self.words = unsafe { all_words(&self.map) };
        }
    }

    /// Maps the file anew if it has grown; whether it had.
    ///
    /// # Errors
    ///
    /// The system refuses to map it.
    pub fn remap(&mut self) -> io::Result<bool> {
        let grown = self.file.with(&self.path, |file| {
            let is_longer = file.metadata()?.len() > self.map.len() as u64;
            is_longer.then(|| map_file(file, self.access)).transpose()
        })?;
        let Some(map) = grown else {
            return Ok(false);
        };
        self.map = Map::Whole(map);
        // SAFETY: the words go when the map is replaced.
        self.words = unsafe { all_words(&self.map) };
        Ok(true)
    }

    /// Gives the file to a group, which may do with it what `mode` says.
    ///
    /// # Errors
    ///
    /// This process may not give it to that group: the mode is as it was.
    pub fn share(&self, group: u32, mode: u32) -> io::Result<()> {
        self.file.with(&self.path, |file| {
            // A sandbox may forbid even what changes nothing.
            if rustix::fs::fstat(file)?.st_gid != group {
                rustix::fs::fchown(file, None, Some(Gid::from_raw(group)))?;
            }
            Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?)
        })
    }

    /// Gives the file another name, in the place of whatever has that name.
    ///
    /// # Errors
    ///
    /// The system refuses; the file keeps its name.
    pub fn rename(&mut self, to: &Path) -> io::Result<()> {
        rustix::fs::rename(&self.path, to)?;
        to.clone_into(&mut self.path);
        Ok(())
    }

    /// The path that the file was opened by, or has since it was renamed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that the file's file system has left for this user; 0 when the file cannot be opened
    /// again.
    pub fn available_bytes(&self) -> u64 {
        let available = self.file.with(&self.path, |file| Ok(available_bytes(file)));
        available.unwrap_or(0)
    }
}

/// Makes a [`MappedFile`] grow in place, in this thread or another.
#[derive(Debug)]
pub struct Grower {
    path: PathBuf,
    file: KeptFile,
    addresses: Arc<Addresses>,
    /// Bytes of the file.
    len: usize,
}

/// What a [`Grower`] has added: reserved, mapped, and touched once, so that its first use waits for
/// nothing.
#[derive(Debug)]
pub struct Grown {
    addresses: Arc<Addresses>,
    len: usize,
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
            // What a failed reservation took would be nobody's.
            let _ = rustix::fs::ftruncate(file, offset);
            return Err(error);
        }
        Ok((from + bytes, available_bytes(file)))
    }
}

/// What files are mapped in units of.
const PAGE: usize = 4096;

/// Addresses of this process that nothing else takes, for a file that grows.
#[derive(Debug)]
struct Addresses {
    start: *mut u8,
    len: usize,
}

// SAFETY: addresses, which are given back when the last who has them is gone. All access to what is
// mapped there is atomic.
unsafe impl Send for Addresses {}
// SAFETY: as for `Send`.
unsafe impl Sync for Addresses {}

impl Addresses {
    /// As many addresses as there are, from `longest` bytes down to those for `least`.
    fn reserve(least: usize, longest: usize) -> io::Result<Addresses> {
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
    fn map(&self, file: &File, offset: usize, len: usize, flags: MapFlags) -> io::Result<()> {
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

/// The words of a mapping.
///
/// # Safety
///
/// The caller keeps the mapping for as long as it has the words.
unsafe fn all_words(map: &Map) -> Words<'static> {
    // SAFETY: as above.
    let words = unsafe { view(map.as_ptr(), map.len(), 0, map.len() / 8) };
    Words::new(words.unwrap_or(&[]))
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

/// A file system without blocks (a tmpfs without a limit) says nothing of what it has left.
fn available_bytes(file: impl AsFd) -> u64 {
    match rustix::fs::fstatvfs(file) {
        Ok(fs) if fs.f_blocks > 0 => fs.f_bavail.saturating_mul(fs.f_frsize),
        _ => u64::MAX,
    }
}

/// Reserves bytes of a file that nobody has written to; with zeros in a file system that has no
/// better way (ramfs, some network and FUSE file systems).
fn fallocate(file: impl AsFd, offset: u64, bytes: u64) -> rustix::io::Result<()> {
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

/// Makes a file that nobody else has.
fn create_file(path: &Path) -> Result<OwnedFd, CreateError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map_err(|errno| match errno {
        rustix::io::Errno::EXIST => CreateError::Exists {
            path: path.to_owned(),
        },
        errno => creating("create", path, errno),
    })
}

/// Makes a POSIX segment that nobody else has, and opens its file.
fn create_segment(name: &str, path: &Path, bytes: u64) -> Result<OwnedFd, CreateError> {
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
fn open_checked(path: &Path, access: Access) -> Result<(OwnedFd, Stat), OpenError> {
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

/// The kernel refused to open: because it is somebody else's?
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
fn reserve(file: impl AsFd, path: &Path, bytes: u64) -> Result<(), CreateError> {
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
fn check_size_limit(path: &Path, bytes: u64) -> Result<(), CreateError> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if limit < bytes => {
            let why = format!(
                "it needs {bytes} bytes, and this process may write files of {limit} alone (ulimit -f)"
            );
            Err(creating("reserve room for", path, io::Error::other(why)))
        }
        _ => Ok(()),
    }
}

/// Only the bits that two users could share by: 0600, 0640, 0660.
fn set_mode(file: impl AsFd, path: &Path, mode: u32) -> Result<(), CreateError> {
    if mode & !0o660 != 0 || mode & 0o600 != 0o600 {
        return Err(CreateError::Mode { found: mode });
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))
        .map_err(|errno| creating("set the mode of", path, errno))
}
