//! The mount table.

use std::io;
use std::path::{Path, PathBuf};

use crate::kernel_file::read_once;

/// One line of `mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// What of the file system is mounted.
    pub(crate) root: String,
    pub(crate) mount_point: String,
    pub(crate) fs_type: String,
    pub(crate) device: String,
    pub(crate) read_only: bool,
}

/// Reads the mount table of a process.
///
/// # Errors
///
/// Those of reading the file.
pub(crate) fn read_mounts(process: &Path) -> io::Result<Vec<Mount>> {
    let mut buffer = Vec::new();
    let path: PathBuf = process.join("mountinfo");
    Ok(read_once(&path, &mut buffer)?
        .lines()
        .filter_map(Mount::parse)
        .collect())
}

impl Mount {
    fn parse(line: &str) -> Option<Mount> {
        // Optional fields of any number stand before the dash.
        let (head, tail) = line.split_once(" - ")?;
        let mut head = head.split(' ').skip(3);
        let (root, mount_point, options) = (head.next()?, head.next()?, head.next()?);
        let mut tail = tail.split(' ');
        let (fs_type, device) = (tail.next()?, tail.next()?);
        let super_options = tail.next().unwrap_or_default();
        let read_only = |options: &str| options.split(',').any(|option| option == "ro");
        Some(Mount {
            root: unescape(root),
            mount_point: unescape(mount_point),
            fs_type: unescape(fs_type),
            device: unescape(device),
            read_only: read_only(options) || read_only(super_options),
        })
    }
}

/// Blanks, tabs, line feeds and backslashes stand as `\040` and so on.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        plain.push_str(before);
        let code = after
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if code.is_ascii() => {
                plain.push(char::from(code));
                rest = &after[3..];
            }
            _ => {
                plain.push('\\');
                rest = after;
            }
        }
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes_is_read() {
        let line =
            r"36 35 98:0 /mnt1 /mnt\040two rw,noatime master:1 shared:2 - ext3 /dev/a\134b ro,x";
        let mount = Mount {
            root: "/mnt1".into(),
            mount_point: "/mnt two".into(),
            fs_type: "ext3".into(),
            device: r"/dev/a\b".into(),
            read_only: true,
        };
        assert_eq!(Mount::parse(line), Some(mount));
        assert_eq!(Mount::parse("36 35 98:0 / /"), None);
    }
}
