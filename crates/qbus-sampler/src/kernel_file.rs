//! A file that the kernel writes anew at each read: opened once, then read from its start.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::probe::Failure;

/// Large enough for most files, so that their first read is their only one.
const FIRST_READ: usize = 4096;

/// No file that a source reads is larger; one that is will be refused.
const SIZE_MAX: usize = 16 << 20;

/// A path under `/proc` or `/sys` with its open descriptor.
///
/// A descriptor of `/proc/PID/…` stays with that very process: once it is gone, reading fails,
/// even if another process has got the pid since.
#[derive(Debug)]
pub(crate) struct KernelFile {
    path: PathBuf,
    file: Option<File>,
}

impl KernelFile {
    pub(crate) fn new(path: PathBuf) -> KernelFile {
        KernelFile { path, file: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the whole file into `buffer`.
    ///
    /// # Errors
    ///
    /// Those of opening and reading; the file is opened anew the next time.
    pub(crate) fn read<'b>(&mut self, buffer: &'b mut Vec<u8>) -> io::Result<&'b str> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(File::open(&self.path)?),
        };
        match read_from_start(file, buffer) {
            Ok(size) => Ok(as_text(&mut buffer[..size])),
            Err(err) => {
                self.file = None;
                Err(err)
            }
        }
    }

    /// Gives the descriptor back, for files that are too many to be kept open.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }
}

/// Reads the whole file at `path`, for what is read once or seldom.
pub(crate) fn read_once<'b>(path: &Path, buffer: &'b mut Vec<u8>) -> io::Result<&'b str> {
    let size = read_from_start(&File::open(path)?, buffer)?;
    Ok(as_text(&mut buffer[..size]))
}

/// Reads the whole file at `path` as it is.
pub(crate) fn read_bytes_once<'b>(path: &Path, buffer: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
    let size = read_from_start(&File::open(path)?, buffer)?;
    Ok(&buffer[..size])
}

/// A file that several sources parse, read once in a tick.
#[derive(Debug)]
pub(crate) struct SharedFile {
    file: KernelFile,
    buffer: Vec<u8>,
    size: usize,
    tick: Option<Instant>,
}

impl SharedFile {
    pub(crate) fn new(path: PathBuf) -> SharedFile {
        SharedFile {
            file: KernelFile::new(path),
            buffer: Vec::new(),
            size: 0,
            tick: None,
        }
    }

    /// What the file said in the tick of that time.
    pub(crate) fn read(&mut self, tick: Instant) -> Result<&str, Failure> {
        if self.tick != Some(tick) {
            self.tick = None;
            let read = self.file.read(&mut self.buffer).map(str::len);
            self.size = read.map_err(|err| Failure::io(self.file.path(), &err))?;
            self.tick = Some(tick);
        }
        Ok(str::from_utf8(&self.buffer[..self.size]).unwrap_or_default())
    }
}

fn read_from_start(file: &File, buffer: &mut Vec<u8>) -> io::Result<usize> {
    if buffer.len() < FIRST_READ {
        buffer.resize(FIRST_READ, 0);
    }
    let mut size = 0;
    loop {
        if size == buffer.len() {
            if size >= SIZE_MAX {
                return Err(io::Error::other(format!("more than {SIZE_MAX} bytes")));
            }
            buffer.resize(size * 2, 0);
        }
        match file.read_at(&mut buffer[size..], size as u64) {
            Ok(0) => return Ok(size),
            Ok(more) => size += more,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
}

/// Names that somebody chose, such as those of processes and mounts, can hold any byte: what is no
/// UTF-8 is replaced, and the rest stays.
fn as_text(bytes: &mut [u8]) -> &str {
    let mut from = 0;
    while let Err(err) = str::from_utf8(&bytes[from..]) {
        let at = from + err.valid_up_to();
        let wrong = err.error_len().unwrap_or(bytes.len() - at);
        bytes[at..at + wrong].fill(b'?');
        from = at + wrong;
    }
    str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_anew_and_grows_the_buffer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut file = KernelFile::new(path.clone());
        let mut buffer = Vec::new();
        assert_eq!(
            file.read(&mut buffer).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        std::fs::write(&path, "one").unwrap();
        assert_eq!(file.read(&mut buffer).unwrap(), "one");
        let long = "x".repeat(3 * FIRST_READ);
        std::fs::write(&path, &long).unwrap();
        assert_eq!(file.read(&mut buffer).unwrap(), long);
        std::fs::write(&path, b"n\xffme M\xc3\xa4rz \xe2\x82").unwrap();
        assert_eq!(file.read(&mut buffer).unwrap(), "n?me M\u{e4}rz ??");
    }
}
