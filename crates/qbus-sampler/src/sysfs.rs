//! Folders of small files, as `/sys` has them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::kernel_file::{read_bytes_once, read_once};

/// A file or folder with its name as text.
pub(crate) struct Item {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// What lies in a folder and is named so, by number where names end in one; nothing where there is
/// no such folder.
pub(crate) fn items(folder: &Path, prefix: &str) -> Vec<Item> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let item = |entry: fs::DirEntry| Item {
        name: entry.file_name().to_string_lossy().into_owned(),
        path: entry.path(),
    };
    let mut items: Vec<Item> = entries
        .flatten()
        .map(item)
        .filter(|item| item.name.starts_with(prefix))
        .collect();
    items.sort_by(|a, b| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
    items
}

/// The text of a file without the line feed at its end; `None` where it can't be read.
pub(crate) fn word(path: &Path, buffer: &mut Vec<u8>) -> Option<String> {
    let bytes = read_bytes_once(path, buffer).ok()?;
    let text = String::from_utf8_lossy(bytes);
    // Firmware writes what it likes: a run of bytes that are no text is one sign.
    let mut word = String::with_capacity(text.len());
    for c in text.trim_end_matches('\n').chars() {
        if c != char::REPLACEMENT_CHARACTER || !word.ends_with(c) {
            word.push(c);
        }
    }
    Some(word)
}

/// The number that a file holds, decimal or, behind `0x`, hexadecimal.
pub(crate) fn number(path: &Path, buffer: &mut Vec<u8>) -> Option<f64> {
    let text = read_once(path, buffer).ok()?.trim();
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok().map(|n| n as f64),
        None => text.parse::<f64>().ok().filter(|n| n.is_finite()),
    }
}

/// The last part of a path, as text.
pub(crate) fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
