//! The snapshot file as a whole: made, found, checked.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use qbus::{Access, Bus, CreateError, MappedFile, OpenError, Words, testpoint};

use super::layout::{
    AT_ALLOCATED, AT_COMMITTED, AT_CREATED, AT_DEFINED, AT_INSTANCE, AT_MAGIC, AT_NAME, AT_SHAPE,
    AT_VERSION, MAGIC, NAME_WORDS, Shape, VERSION,
};
use super::versioned::EPOCH_MAX;

/// The heap of a new file.
const HEAP_BYTES: u64 = 2 << 20;

/// Why the aggregator has no snapshot to write to.
#[derive(Debug)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The file could not be made.
    Create(CreateError),
    /// The file is there and could not be opened.
    Open(OpenError),
    /// The file belongs to another bus and could not be moved aside.
    Aside {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // What a bus could do is of no use here.
            SnapshotError::Create(CreateError::NoSpace {
                path,
                needed_bytes,
                available_bytes,
            }) => write!(
                f,
                "no room for {}: it needs {needed_bytes} bytes ({} MiB), its file system has \
                 {available_bytes} left; fewer recent records (--recent) and shorter histories \
                 (--history) need less, and --snapshot PATH puts it elsewhere",
                path.display(),
                needed_bytes.div_ceil(1 << 20)
            ),
            SnapshotError::Create(error) => error.fmt(f),
            SnapshotError::Open(error) => error.fmt(f),
            SnapshotError::Aside { path, source } => {
                write!(
                    f,
                    "{} is of an earlier bus and could not be moved aside: {source}",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for SnapshotError {}

/// A snapshot that an aggregator could not go on with: totals begin anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MovedAside {
    /// Where it was.
    pub path: PathBuf,
    /// Where it is now.
    pub previous: PathBuf,
    /// Why it is of no use.
    pub reason: Unfit,
}

impl fmt::Display for MovedAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the snapshot {} {} and was moved to {}; totals begin anew",
            self.path.display(),
            self.reason,
            self.previous.display()
        )
    }
}

/// Why an aggregator cannot go on with a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unfit {
    /// It was made by a build with another layout.
    Version {
        /// Its version.
        found: u64,
        /// The version that this build writes.
        expected: u64,
    },
    /// It belongs to another bus: an earlier one of the same name, most likely.
    Bus,
    /// It was made for a bus of another geometry.
    Shape,
    /// It holds what no aggregator writes.
    Damaged,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unfit::Version { found, expected } => {
                write!(
                    f,
                    "has layout version {found}, this build writes {expected},"
                )
            }
            Unfit::Bus => f.write_str("belongs to another bus"),
            Unfit::Shape => f.write_str("was made for another geometry"),
            Unfit::Damaged => f.write_str("is damaged"),
        }
    }
}

/// A snapshot to write to.
pub(super) struct Opened {
    pub(super) file: MappedFile,
    /// Whether it is one to go on with.
    pub(super) is_resumed: bool,
    /// What lay in its place.
    pub(super) moved_aside: Option<MovedAside>,
}

/// Opens the snapshot of a bus for writing, or makes it with room for `extra` words more. One of
/// another bus of the same name, or of another shape, is moved aside to `PATH.previous`.
pub(super) fn open(
    path: &Path,
    bus: &Bus,
    shape: Shape,
    extra: usize,
) -> Result<Opened, SnapshotError> {
    let mut moved_aside = None;
    match MappedFile::open(path, Access::Write) {
        Ok(file) => match fit(&file, bus, shape).map_err(SnapshotError::Open)? {
            Fit::Same => {
                return Ok(Opened {
                    file,
                    is_resumed: true,
                    moved_aside,
                });
            }
            Fit::Unfinished => remove(path)?,
            Fit::Other(reason) => moved_aside = Some(move_aside(path, reason)?),
        },
        Err(OpenError::Unfinished { .. }) => remove(path)?,
        Err(OpenError::Absent { .. }) => {}
        Err(error) => return Err(SnapshotError::Open(error)),
    }
    let file = create(path, bus, shape, extra).map_err(SnapshotError::Create)?;
    Ok(Opened {
        file,
        is_resumed: false,
        moved_aside,
    })
}

/// The shape of a snapshot that somebody wants to read.
pub(super) fn check(file: &MappedFile) -> Result<Shape, OpenError> {
    let (words, path) = (file.words(), file.path().to_owned());
    if !is_snapshot(words, &path)? {
        return Err(OpenError::Unfinished { path });
    }
    let found = words.get(AT_VERSION).unwrap_or(0);
    if found != VERSION {
        return Err(OpenError::Version {
            path,
            found,
            expected: VERSION,
        });
    }
    let size = |expected| OpenError::Size {
        path,
        found: words.len() as u64 * 8,
        expected,
    };
    match shape(words) {
        Some(shape) if shape.heap() <= words.len() => Ok(shape),
        Some(shape) => Err(size(shape.heap() as u64 * 8)),
        None => Err(size(0)),
    }
}

/// Whether a file has the magic of a snapshot; false while it has none yet.
fn is_snapshot(words: Words<'_>, path: &Path) -> Result<bool, OpenError> {
    match words.get(AT_MAGIC) {
        Some(MAGIC) => {
            words.acquire();
            Ok(true)
        }
        Some(0) | None => Ok(false),
        Some(found) => Err(OpenError::NotOurs {
            path: path.to_owned(),
            expected: "a snapshot",
            found,
        }),
    }
}

fn shape(words: Words<'_>) -> Option<Shape> {
    let numbers = words.slice(AT_SHAPE, Shape::WORDS)?;
    Shape::from_words(std::array::from_fn(|index| numbers.load(index)))
}

/// Whether a file can be gone on with.
enum Fit {
    Same,
    Other(Unfit),
    Unfinished,
}

fn fit(file: &MappedFile, bus: &Bus, expected: Shape) -> Result<Fit, OpenError> {
    let words = file.words();
    if !is_snapshot(words, file.path())? {
        // Its creator died: only the aggregator makes snapshots, and that is this process now.
        return Ok(Fit::Unfinished);
    }
    let word = |index| words.get(index).unwrap_or(0);
    let found = word(AT_VERSION);
    // Nothing else is where it is looked for in another layout.
    if found != VERSION {
        let expected = VERSION;
        return Ok(Fit::Other(Unfit::Version { found, expected }));
    }
    if [word(AT_INSTANCE), word(AT_INSTANCE + 1)] != bus.instance() {
        return Ok(Fit::Other(Unfit::Bus));
    }
    if shape(words).is_some_and(|found| found != expected) {
        return Ok(Fit::Other(Unfit::Shape));
    }
    let is_whole = shape(words) == Some(expected)
        && words.len() >= expected.heap()
        && word(AT_COMMITTED) <= EPOCH_MAX;
    Ok(if is_whole {
        Fit::Same
    } else {
        Fit::Other(Unfit::Damaged)
    })
}

/// Makes the empty snapshot of a bus, with room for `extra` words more.
pub(super) fn create(
    path: &Path,
    bus: &Bus,
    shape: Shape,
    extra: usize,
) -> Result<MappedFile, CreateError> {
    let words = shape.heap().saturating_add(extra) as u64;
    let bytes = words.saturating_mul(8).saturating_add(HEAP_BYTES);
    // Whoever may emit may aggregate too, after this process: another container of a pod, say.
    let file = MappedFile::create(path, bytes.next_multiple_of(4096), 0o600)?;
    if let Ok(bus) = std::fs::metadata(bus.address().file()) {
        // Who is not of that group, as an owner that left it, keeps the file for himself.
        let _ = file.share(bus.gid(), bus.mode() & 0o660 | 0o600);
    }
    testpoint!("snapshot-made");
    let words = file.words();
    words.store(AT_VERSION, VERSION);
    for (index, value) in bus.instance().into_iter().enumerate() {
        words.store(AT_INSTANCE + index, value);
    }
    for (index, value) in shape.to_words().into_iter().enumerate() {
        words.store(AT_SHAPE + index, value);
    }
    words.store(AT_CREATED, bus.created_ns());
    let name = bus.address().to_string();
    let cut = (0..=name.len().min(NAME_WORDS * 8))
        .rev()
        .find(|&end| name.is_char_boundary(end))
        .unwrap_or(0);
    words.store(AT_NAME, cut as u64);
    for (index, chunk) in name.as_bytes()[..cut].chunks(8).enumerate() {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        words.store(AT_NAME + 1 + index, u64::from_le_bytes(bytes));
    }
    words.store(AT_ALLOCATED, shape.heap() as u64);
    words.store(AT_DEFINED, shape.definitions() as u64);
    testpoint!("snapshot-filled");
    words.publish(AT_MAGIC, MAGIC);
    testpoint!("snapshot-published");
    Ok(file)
}

/// Takes away what a dead aggregator began to make.
fn remove(path: &Path) -> Result<(), SnapshotError> {
    std::fs::remove_file(path).map_err(|source| SnapshotError::Aside {
        path: path.to_owned(),
        source,
    })?;
    testpoint!("unfinished-removed");
    Ok(())
}

/// The name beside a snapshot that is removed with its bus, too: of what was moved aside, and of
/// what is to take the snapshot's place.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".previous");
    beside.into()
}

fn move_aside(path: &Path, reason: Unfit) -> Result<MovedAside, SnapshotError> {
    let previous = beside(path);
    std::fs::rename(path, &previous).map_err(|source| SnapshotError::Aside {
        path: path.to_owned(),
        source,
    })?;
    testpoint!("moved-aside");
    Ok(MovedAside {
        path: path.to_owned(),
        previous,
        reason,
    })
}
