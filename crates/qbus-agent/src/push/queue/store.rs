//! A folder with a file for each request that waits.
//!
//! Beside them lie `said` (see there), and `lock`, in which the time of the newest request stands.
//!
//! | offset | bytes | what                                                  |
//! |--------|-------|-------------------------------------------------------|
//! |      0 |     8 | magic                                                 |
//! |      8 |     8 | CRC-32 of all that follows                            |
//! |     16 |     8 | time, in milliseconds since the Unix epoch            |
//! |     24 |     8 | samples                                               |
//! |     32 |       | bodies: encoding (8), length (8), so many bytes; each |

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::Crc;

use super::super::batch::{Batch, Body, Encoding};

const MAGIC: &[u8; 8] = b"qbuspsh1";
const HEAD: usize = 32;
/// What file systems give to a file is a multiple of this.
const BLOCK: u64 = 4096;

#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    /// Locked for as long as the queue is this process's.
    lock: File,
}

/// What lies in a folder.
#[derive(Debug)]
pub(super) struct Found {
    /// The requests that wait, the oldest first.
    pub(super) waiting: Vec<Stored>,
    /// The time of the newest request that there was.
    pub(super) newest_ms: u64,
}

/// A request that was found.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) number: u64,
    pub(super) time_ms: u64,
    pub(super) samples: u64,
    pub(super) bytes: u64,
}

impl Store {
    /// Makes the folder if there is none; what waits in it, the oldest first.
    pub(super) fn open(folder: &Path) -> io::Result<(Store, Found)> {
        fs::create_dir_all(folder)?;
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(folder.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let why = "another process has it, or the same destination is named twice";
                return Err(io::Error::other(why));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut noted = String::new();
        // One that cannot be read says nothing.
        let _ = lock.read_to_string(&mut noted);
        let store = Store {
            folder: folder.to_owned(),
            lock,
        };
        let mut waiting = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let number = path.file_stem().and_then(OsStr::to_str);
            let Some(number) = number.and_then(|stem| stem.parse().ok()) else {
                continue;
            };
            match path.extension().and_then(OsStr::to_str) {
                Some("push") => waiting.extend(stored(&path, number)),
                // Who wrote it was killed.
                Some("tmp") => drop(fs::remove_file(&path)),
                _ => {}
            }
        }
        waiting.sort_by_key(|stored| stored.number);
        let newest_ms = waiting.last().map_or(0, |last| last.time_ms);
        let newest_ms = newest_ms.max(noted.trim().parse().unwrap_or(0));
        Ok((store, Found { waiting, newest_ms }))
    }

    fn path(&self, number: u64, extension: &str) -> PathBuf {
        self.folder.join(format!("{number:020}.{extension}"))
    }

    /// Writes a request; the room that it takes.
    pub(super) fn write(&self, number: u64, batch: &Batch) -> io::Result<u64> {
        let file = encode(batch);
        replace(&self.path(number, "tmp"), &self.path(number, "push"), &file)?;
        // Of a fixed width, so that nothing of an earlier one is left behind it.
        let noted = format!("{:020}\n", batch.time_ms);
        // The file itself says the same for as long as it waits.
        let _ = self.lock.write_all_at(noted.as_bytes(), 0);
        Ok(room(file.len() as u64))
    }

    /// What the receiver was told of last, as [`note_said`](Self::note_said) left it.
    pub(super) fn said(&self) -> Vec<u8> {
        // Without it nothing is known to have ended.
        fs::read(self.folder.join("said")).unwrap_or_default()
    }

    pub(super) fn note_said(&self, file: &[u8]) -> io::Result<()> {
        replace(
            &self.folder.join("said.tmp"),
            &self.folder.join("said"),
            file,
        )
    }

    pub(super) fn read(&self, number: u64) -> io::Result<Batch> {
        let bytes = fs::read(self.path(number, "push"))?;
        decode(&bytes).ok_or_else(|| io::Error::other("its file is damaged"))
    }

    pub(super) fn remove(&self, number: u64) {
        // If it stays, it is sent again by the next process, which changes nothing.
        let _ = fs::remove_file(self.path(number, "push"));
    }
}

/// Writes a file whole, or not at all.
fn replace(temporary: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = fs::write(temporary, bytes).and_then(|()| fs::rename(temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(temporary);
    }
    written
}

/// What a file of so many bytes takes of the disk.
pub(super) fn room(bytes: u64) -> u64 {
    bytes.max(1).next_multiple_of(BLOCK)
}

/// What a file says of itself; one that says nothing is found out when it is read.
fn stored(path: &Path, number: u64) -> Option<Stored> {
    let mut head = [0; HEAD];
    let mut file = File::open(path).ok()?;
    let bytes = room(file.metadata().ok()?.len());
    let is_whole = file.read_exact(&mut head).is_ok();
    let word = |at: usize| {
        if is_whole {
            word(&head, at).unwrap_or(0)
        } else {
            0
        }
    };
    Some(Stored {
        number,
        time_ms: word(16),
        samples: word(24),
        bytes,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let (word, _) = bytes.get(at..)?.split_first_chunk()?;
    Some(u64::from_le_bytes(*word))
}

fn encode(batch: &Batch) -> Vec<u8> {
    let mut rest = Vec::with_capacity(batch.bytes() as usize + 64);
    for word in [batch.time_ms, batch.samples] {
        rest.extend_from_slice(&word.to_le_bytes());
    }
    for body in &batch.bodies {
        rest.extend_from_slice(&(body.encoding as u64).to_le_bytes());
        rest.extend_from_slice(&(body.bytes.len() as u64).to_le_bytes());
        rest.extend_from_slice(&body.bytes);
    }
    let mut crc = Crc::new();
    crc.update(&rest);
    let head = u64::from(crc.sum()).to_le_bytes();
    [MAGIC.as_slice(), &head, &rest].concat()
}

fn decode(bytes: &[u8]) -> Option<Batch> {
    let rest = bytes.get(16..).filter(|_| bytes.starts_with(MAGIC))?;
    let mut crc = Crc::new();
    crc.update(rest);
    if word(bytes, 8)? != u64::from(crc.sum()) {
        return None;
    }
    let mut bodies = Vec::new();
    let mut at = 16;
    while at < rest.len() {
        let encoding = Encoding::from_raw(word(rest, at)?)?;
        let len = usize::try_from(word(rest, at + 8)?).ok()?;
        let end = (at + 16).checked_add(len)?;
        bodies.push(Body {
            encoding,
            bytes: rest.get(at + 16..end)?.to_vec(),
        });
        at = end;
    }
    Some(Batch {
        time_ms: word(rest, 0)?,
        samples: word(rest, 8)?,
        bodies,
    })
}
