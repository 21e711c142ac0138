//! A folder with a file for each request that waits.
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
use std::path::{Path, PathBuf};

use flate2::Crc;

use super::super::batch::{Batch, Body, Encoding};

const MAGIC: &[u8; 8] = b"qbuspsh1";
const HEAD: usize = 32;

#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    /// Locked for as long as the queue is this process's.
    _lock: File,
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
    pub(super) fn open(folder: &Path) -> io::Result<(Store, Vec<Stored>)> {
        fs::create_dir_all(folder)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another process has it"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let store = Store {
            folder: folder.to_owned(),
            _lock: lock,
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let number = path.file_stem().and_then(OsStr::to_str);
            let Some(number) = number.and_then(|stem| stem.parse().ok()) else {
                continue;
            };
            match path.extension().and_then(OsStr::to_str) {
                Some("push") => found.extend(stored(&path, number)),
                // Who wrote it was killed.
                Some("tmp") => drop(fs::remove_file(&path)),
                _ => {}
            }
        }
        found.sort_by_key(|stored| stored.number);
        Ok((store, found))
    }

    fn path(&self, number: u64, extension: &str) -> PathBuf {
        self.folder.join(format!("{number:020}.{extension}"))
    }

    pub(super) fn write(&self, number: u64, batch: &Batch) -> io::Result<()> {
        let temporary = self.path(number, "tmp");
        let written = fs::write(&temporary, encode(batch))
            .and_then(|()| fs::rename(&temporary, self.path(number, "push")));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
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

/// What a file says of itself; one that says nothing is found out when it is read.
fn stored(path: &Path, number: u64) -> Option<Stored> {
    let mut head = [0; HEAD];
    let mut file = File::open(path).ok()?;
    let bytes = file.metadata().ok()?.len();
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
