//! The mount table. Paths are bytes: a mount point need not be text.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::kernel_file::read_bytes_once;

/// One line of `mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Major and minor number of the device that files of it say they are on.
    pub(crate) device_number: (u32, u32),
    /// What of the file system is mounted.
    pub(crate) root: String,
    pub(crate) mount_point: PathBuf,
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
    let bytes = read_bytes_once(&process.join("mountinfo"), &mut buffer)?;
    let lines = bytes.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(Mount::parse).collect())
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Mount> {
        let mut words = line.split(|byte| *byte == b' ').skip(2);
        let number = str::from_utf8(words.next()?).ok()?;
        let (major, minor) = number.split_once(':')?;
        let device_number = (major.parse().ok()?, minor.parse().ok()?);
        let (root, mount_point, options) = (words.next()?, words.next()?, words.next()?);
        // Optional fields of any number stand before the dash.
        let mut words = words.skip_while(|word| *word != b"-").skip(1);
        let (fs_type, device) = (words.next()?, words.next()?);
        let super_options = words.next().unwrap_or_default();
        let read_only = |options: &[u8]| {
            let mut options = options.split(|byte| *byte == b',');
            options.any(|option| option == b"ro")
        };
        Some(Mount {
            device_number,
            root: text(root),
            mount_point: OsString::from_vec(unescape(mount_point)).into(),
            fs_type: text(fs_type),
            device: text(device),
            read_only: read_only(options) || read_only(super_options),
        })
    }

    /// The mount point as a label; what is no UTF-8 in it is replaced.
    pub(crate) fn label(&self) -> String {
        self.mount_point.to_string_lossy().into_owned()
    }
}

fn text(escaped: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(escaped)).into_owned()
}

/// Blanks, tabs, line feeds and backslashes stand as `\040` and so on.
fn unescape(mut escaped: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(escaped.len());
    while let [first, rest @ ..] = escaped {
        let digits = rest.get(..3).filter(|_| *first == b'\\');
        let code = digits
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(code.unwrap_or(*first));
        escaped = if code.is_some() { &rest[3..] } else { rest };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes_is_read() {
        let line =
            br"36 35 98:0 /mnt1 /mnt\040two rw,noatime master:1 shared:2 - ext3 /dev/a\134b ro,x";
        let mount = Mount {
            device_number: (98, 0),
            root: "/mnt1".into(),
            mount_point: "/mnt two".into(),
            fs_type: "ext3".into(),
            device: r"/dev/a\b".into(),
            read_only: true,
        };
        assert_eq!(Mount::parse(line), Some(mount));
        assert_eq!(Mount::parse(b"36 35 98:0 / /"), None);
    }

    #[test]
    fn one_mount_point_that_is_no_text_changes_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let table =
            b"1 0 8:1 / /m\xc3\xa4rz rw - ext4 /dev/a rw\n2 0 8:2 / /n\xff rw - ext4 b rw\n";
        std::fs::write(dir.path().join("mountinfo"), table).unwrap();
        let mounts = read_mounts(dir.path()).unwrap();
        assert_eq!(mounts[0].label(), "/m\u{e4}rz");
        assert_eq!(mounts[1].label(), "/n\u{fffd}");
        let raw = OsString::from_vec(b"/n\xff".to_vec());
        assert_eq!(mounts[1].mount_point, PathBuf::from(raw));
    }
}
