//! A source that is one file.

use std::path::PathBuf;

use crate::kernel_file::KernelFile;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;

/// Pushes what the text of a file says.
pub(crate) type Parse = Box<dyn FnMut(&str, &mut Readings) -> Result<(), Failure> + Send>;

/// A file and how it is read.
pub(crate) struct File {
    file: KernelFile,
    parse: Parse,
    buffer: Vec<u8>,
}

impl File {
    pub(crate) fn new(path: PathBuf, parse: Parse) -> File {
        File {
            file: KernelFile::new(path),
            parse,
            buffer: Vec::new(),
        }
    }
}

impl Probe for File {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        match self.file.read(&mut self.buffer) {
            Ok(text) => (self.parse)(text, out),
            Err(err) => Err(Failure::io(self.file.path(), &err)),
        }
    }
}
