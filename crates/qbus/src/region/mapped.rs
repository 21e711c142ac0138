//! A mapped file of words: a snapshot, say.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::MmapRaw;
use rustix::fs::Mode;
use rustix::mm::MapFlags;
use rustix::process::Gid;

use super::files::{available_bytes, create_file, open_checked, reserve, set_mode};
use super::growing::{Addresses, Grower, Grown};
use super::{Access, map_file, view};
use crate::error::{CreateError, OpenError, creating, opening};
use crate::liveness::FileId;
use crate::words::Words;

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
pub(super) struct KeptFile {
    /// Always there until it is dropped.
    file: Option<File>,
    id: FileId,
    access: Access,
}

impl KeptFile {
    pub(super) fn new(file: File, access: Access) -> io::Result<KeptFile> {
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
    pub(super) fn with<T>(
        &self,
        path: &Path,
        what: impl FnOnce(&File) -> io::Result<T>,
    ) -> io::Result<T> {
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
