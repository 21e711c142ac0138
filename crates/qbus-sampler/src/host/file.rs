//! A source that is one file.

use std::path::PathBuf;

use crate::kernel_file::KernelFile;
use crate::readings::Readings;
use crate::sampler::{Failure, Reader, Tick};

/// Pushes what the text of a file says.
pub(super) type Parse = fn(&str, &mut Readings) -> Result<(), Failure>;

/// A file and how it is read.
pub(super) struct File {
    file: KernelFile,
    parse: Parse,
    buffer: Vec<u8>,
}

impl File {
    pub(super) fn new(path: PathBuf, parse: Parse) -> File {
        File {
            file: KernelFile::new(path),
            parse,
            buffer: Vec::new(),
        }
    }
}

impl Reader for File {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        match self.file.read(&mut self.buffer) {
            Ok(text) => (self.parse)(text, out),
            Err(err) => Err(Failure::io(self.file.path(), &err)),
        }
    }
}
