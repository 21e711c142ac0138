//! A copy of the library for a test, beside values of its own.

use std::fs;
use std::path::{Path, PathBuf};

/// Copies the library into a folder, with those values; its path.
///
/// # Panics
///
/// The library does not lie beside the test, or the folder takes no file.
pub fn copy(folder: &Path, values: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of the test");
    let library = folder.join("libnvidia-ml.so.1");
    fs::copy(test.with_file_name("libfake_nvml.so"), &library).expect("it was built beside it");
    set(folder, values);
    library
}

/// Replaces the values as a whole: the library may be reading.
///
/// # Panics
///
/// The folder takes no file.
pub fn set(folder: &Path, values: &str) {
    let new = folder.join("new.txt");
    fs::write(&new, values).expect("room");
    fs::rename(new, folder.join("values.txt")).expect("the same folder");
}
