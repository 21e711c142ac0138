//! What a stranger, or an accident, may put where a bus or a snapshot should be.

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};

/// The text of [`text`] begins with this.
pub const TEXT: &str = "not a bus ";

/// A pipe with a name.
///
/// # Panics
///
/// Something is there already. (As all of these: the file system does not do as it is told.)
pub fn fifo(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a fifo");
}

/// A file of something else, which only this user may read.
///
/// # Panics
///
/// As [`fifo`].
pub fn text(path: &Path) {
    fs::write(path, TEXT.repeat(1000)).expect("written");
    fs::set_permissions(path, Permissions::from_mode(0o600)).expect("a mode");
}

/// Another word in a file that is there.
///
/// # Panics
///
/// As [`fifo`].
pub fn word(path: &Path, at: u64, value: u64) {
    let file = OpenOptions::new().write(true).open(path);
    let written = file.and_then(|file| file.write_all_at(&value.to_le_bytes(), at * 8));
    written.expect("written");
}

/// The end of a file that is there.
///
/// # Panics
///
/// As [`fifo`].
pub fn end(path: &Path, len: u64) {
    let file = OpenOptions::new().write(true).open(path);
    file.and_then(|file| file.set_len(len)).expect("truncated");
}
