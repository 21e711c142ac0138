//! How a bus is named.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where named POSIX segments lie on Linux.
const SHM: &str = "/dev/shm";
/// What the names of snapshots end in.
const SNAPSHOT: &str = ".snapshot";
const PREVIOUS_SNAPSHOT: &str = ".snapshot.previous";
/// The longest name of a bus in bytes.
const NAME_MAX: usize = 64;
/// How the names of private buses begin.
const PRIVATE: &str = "embedded-";
/// Hexadecimal digits at their end.
const UNIQUE_DIGITS: usize = 16;

/// A bus: a name (POSIX segment `/qbus.NAME`), or the path of a file (with a slash in it).
///
/// A relative path means a file below the folder that is the working directory now, also when the
/// program goes to another one later, as daemons do.
///
/// # Examples
///
/// ```
/// use std::path::Path;
/// use qbus::Address;
///
/// # fn main() -> Result<(), qbus::AddressError> {
/// assert_eq!("default".parse::<Address>()?.file(), Path::new("/dev/shm/qbus.default"));
/// assert_eq!("/tmp/bus".parse::<Address>()?.file(), Path::new("/tmp/bus"));
/// assert!("two words".parse::<Address>().is_err());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address(Location);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Location {
    Named { name: String, file: PathBuf },
    Path { typed: String, file: PathBuf },
}

impl Address {
    /// The name of a private bus of this process: one that is made without having been named, and
    /// that the next process which makes one removes when all who used it are dead.
    pub fn private(unique: u64) -> Address {
        let (pid, width) = (std::process::id(), UNIQUE_DIGITS);
        named(format!("{PRIVATE}{pid}-{unique:0width$x}"))
    }

    /// Whether the name is one that [`private`](Self::private) makes. What somebody calls
    /// `embedded-x` is not, and is nobody's to remove.
    pub fn is_private(&self) -> bool {
        let Location::Named { name, .. } = &self.0 else {
            return false;
        };
        let is_all =
            |text: &str, is: fn(&u8) -> bool| !text.is_empty() && text.bytes().all(|b| is(&b));
        let rest = name.strip_prefix(PRIVATE);
        let parts = rest.and_then(|rest| rest.split_once('-'));
        parts.is_some_and(|(pid, unique)| {
            is_all(pid, u8::is_ascii_digit)
                && unique.len() == UNIQUE_DIGITS
                && is_all(unique, u8::is_ascii_hexdigit)
        })
    }

    /// The file that holds the region.
    pub fn file(&self) -> &Path {
        match &self.0 {
            Location::Named { file, .. } | Location::Path { file, .. } => file,
        }
    }

    /// Where the snapshot lies now: beside the region, unless an aggregator was told to keep it
    /// elsewhere and has left a link there ([`snapshot_link`](Self::snapshot_link)).
    pub fn snapshot(&self) -> PathBuf {
        snapshot_at(&self.snapshot_link())
    }

    /// Where the aggregator keeps the snapshot unless told otherwise, and where it leaves a
    /// symbolic link to it else.
    pub fn snapshot_link(&self) -> PathBuf {
        self.beside(SNAPSHOT)
    }

    /// Where an aggregator moves the snapshot of an earlier bus of the same name.
    pub(crate) fn previous_snapshot(&self) -> PathBuf {
        self.beside(PREVIOUS_SNAPSHOT)
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = OsString::from(self.file());
        path.push(suffix);
        PathBuf::from(path)
    }

    /// The POSIX name of a named segment, `/qbus.NAME`.
    pub(crate) fn segment(&self) -> Option<String> {
        match &self.0 {
            Location::Named { name, .. } => Some(format!("/qbus.{name}")),
            Location::Path { .. } => None,
        }
    }
}

/// The address of a name that is known to be one.
fn named(name: String) -> Address {
    let file = Path::new(SHM).join(format!("qbus.{name}"));
    Address(Location::Named { name, file })
}

/// The snapshot that is to be found at a path: where a link leads that an aggregator has left
/// there, or the path itself. The link of a stranger, who could lead anywhere, is not followed.
pub fn snapshot_at(path: &Path) -> PathBuf {
    let target = followed(path);
    target.unwrap_or_else(|| path.to_owned())
}

fn followed(link: &Path) -> Option<PathBuf> {
    let found = rustix::fs::lstat(link).ok()?;
    // Whoever made the bus, or could do anything anyway, may say where its snapshot lies.
    let own = rustix::process::geteuid().as_raw();
    let is_trusted = |user| user == own || user == 0 || Some(user) == owner_beside(link);
    if !is_trusted(found.st_uid) {
        return None;
    }
    let target = std::fs::read_link(link).ok()?;
    Some(link.parent()?.join(target))
}

/// Who owns the bus that a snapshot, or a link to it, lies beside.
fn owner_beside(snapshot: &Path) -> Option<u32> {
    let bus = snapshot.to_str()?.strip_suffix(SNAPSHOT)?;
    Some(rustix::fs::lstat(bus).ok()?.st_uid)
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        // Else the bus `a.snapshot` would lie where the bus `a` has its snapshot, and go with it.
        if text.ends_with(SNAPSHOT) || text.ends_with(PREVIOUS_SNAPSHOT) {
            return Err(AddressError {
                found: text.to_owned(),
            });
        }
        if text.contains('/') {
            let file = std::path::absolute(text).unwrap_or_else(|_| PathBuf::from(text));
            let typed = text.to_owned();
            return Ok(Address(Location::Path { typed, file }));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if text.is_empty() || text.len() > NAME_MAX || !text.chars().all(legal) {
            return Err(AddressError {
                found: text.to_owned(),
            });
        }
        Ok(named(text.to_owned()))
    }
}

impl TryFrom<&OsStr> for Address {
    type Error = AddressError;

    /// Names of buses are shown and stored as text: a path that is not UTF-8 is refused.
    fn try_from(text: &OsStr) -> Result<Address, AddressError> {
        let unreadable = || AddressError {
            found: text.to_string_lossy().into_owned(),
        };
        text.to_str().ok_or_else(unreadable)?.parse()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Location::Named { name, .. } => f.write_str(name),
            Location::Path { typed, .. } => f.write_str(typed),
        }
    }
}

/// A text that names no bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    /// The text, with U+FFFD for what is no UTF-8.
    pub found: String,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} names no bus: expected 1 to {NAME_MAX} letters, digits, '.', '_' or '-', or a \
            path with a slash, in UTF-8 and not another bus's snapshot (\"{SNAPSHOT}\", \
            \"{PREVIOUS_SNAPSHOT}\" at the end)",
            self.found
        )
    }
}

impl std::error::Error for AddressError {}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn what_is_no_text_names_no_bus() {
        for bytes in [&b"/tmp/\xff"[..], b"\xff", b"a\xc3"] {
            let error = Address::try_from(OsStr::from_bytes(bytes)).expect_err("no UTF-8");
            assert!(error.to_string().contains("UTF-8"), "{error}");
        }
        let named = Address::try_from(OsStr::new("/tmp/b\u{fc}s")).expect("a path");
        assert_eq!(named.file(), Path::new("/tmp/b\u{fc}s"));
    }

    #[test]
    fn only_what_was_made_as_a_private_bus_is_one() {
        let private = Address::private(7);
        assert!(private.is_private(), "{private}");
        let parsed: Address = private.to_string().parse().expect("its own name");
        assert_eq!(parsed, private);
        let others = [
            "embedded-",
            "embedded-server",
            "embedded-12345",
            "embedded-1-2",
            "embedded-1-000000000000000g",
            "embedded-x-0000000000000007",
            "embedded--0000000000000007",
            "embedded-1-0000000000000007.old",
            "/dev/shm/qbus.embedded-1-0000000000000007",
        ];
        for name in others {
            let address: Address = name.parse().expect("a name");
            assert!(!address.is_private(), "{name}");
        }
    }

    #[test]
    fn another_bus_s_snapshot_is_no_bus() {
        for text in ["a.snapshot", "a.snapshot.previous", "./a.snapshot"] {
            let error = text.parse::<Address>().expect_err(text).to_string();
            assert!(error.contains("another bus's snapshot"), "{error}");
        }
        assert!("a.snapshots".parse::<Address>().is_ok());
    }
}
