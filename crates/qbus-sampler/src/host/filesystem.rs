//! Mounted file systems. Asking one whose server is gone hangs, for hours if it is a hard mount.
//!
//! One thread asks them all, in turn. If it stands still, another one goes on with the rest, so
//! that a file system that hangs costs a thread and delays no other. It is not asked again before
//! its thread has come back.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{major, minor, stat, statfs, statvfs};

use crate::config::SamplerOptions;
use crate::filters::FilesystemFilter;
use crate::metric::Names;
use crate::mounts::{Mount, read_mounts};
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::table::Reading;

/// How long the threads may stand still before another one goes on with the rest.
const STEP: Duration = Duration::from_millis(25);

/// Threads that may stand still at once. One more is always granted: the file systems that come
/// last in the table must not pay for those that hang.
const HANGING_MAX: usize = 64;

/// A thread that asks needs little.
const STACK_BYTES: usize = 64 << 10;

/// Types that another machine serves, asked last.
const SERVED: [&str; 9] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "ceph",
    "9p",
    "glusterfs",
    "lustre",
    "afs",
];

/// The magic number of btrfs, whose files are on another device than the mount table says: each
/// subvolume has a number of its own.
const BTRFS: i64 = 0x9123_683E;

/// What a file system says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Space {
    pub(crate) device_number: (u32, u32),
    pub(crate) is_btrfs: bool,
    pub(crate) size_bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) available_bytes: u64,
    pub(crate) files: u64,
    pub(crate) files_free: u64,
}

/// The calls that may hang.
type Ask = Arc<dyn Fn(&Path) -> io::Result<Space> + Send + Sync>;

/// Reads the mount table and asks each file system.
pub(crate) struct Filesystems {
    proc: PathBuf,
    root: PathBuf,
    filter: FilesystemFilter,
    patience: Duration,
    ask: Ask,
    /// By mount point; the thread that asks holds the other end, and lets go when it is back.
    hanging: BTreeMap<PathBuf, Arc<()>>,
}

/// What became of asking.
enum Answer {
    Space(Space),
    /// It answers with an error, hangs, or another file system answered in its place.
    Broken(String),
    /// There was no time for it.
    NotAsked,
}

struct Request {
    place: usize,
    path: PathBuf,
    hold: Arc<()>,
}

/// The requests that no thread has taken yet.
type Queue = Arc<Mutex<VecDeque<Request>>>;

impl Filesystems {
    pub(crate) fn new(config: &SamplerOptions) -> Filesystems {
        Filesystems::with(config, Arc::new(space))
    }

    fn with(config: &SamplerOptions, ask: Ask) -> Filesystems {
        Filesystems {
            proc: config.roots.proc.clone(),
            root: config.roots.root.clone(),
            filter: config.filters.filesystems(config.names == Names::Node),
            patience: config.mount_timeout,
            ask,
            hanging: BTreeMap::new(),
        }
    }

    /// The mounts of the world that the paths are looked up in: our own, or, where the host's root
    /// is mounted for us, the host's.
    fn mounts(&self) -> Result<Vec<Mount>, Failure> {
        let is_own = self.root == Path::new("/");
        let order = if is_own { ["self", "1"] } else { ["1", "self"] };
        let first = self.proc.join(order[0]);
        let (mounts, from) = match read_mounts(&first) {
            Ok(mounts) => (mounts, order[0]),
            Err(err) => {
                let mounts = read_mounts(&self.proc.join(order[1]));
                let mounts = mounts.map_err(|_| Failure::io(&first.join("mountinfo"), &err))?;
                (mounts, order[1])
            }
        };
        let foreign = is_own || from == "1";
        let below_root = |mut mount: Mount| {
            // In our own table the host's mounts stand below its root.
            let below = mount.mount_point.strip_prefix(&self.root).ok()?;
            mount.mount_point = Path::new("/").join(below);
            Some(mount)
        };
        Ok(match foreign {
            true => mounts,
            false => mounts.into_iter().filter_map(below_root).collect(),
        })
    }

    /// Of several mounts at one place the last one is seen.
    fn shown(&self, mounts: Vec<Mount>) -> Vec<Mount> {
        let mut last: HashMap<&OsStr, usize> = HashMap::new();
        for (place, mount) in mounts.iter().enumerate() {
            last.insert(mount.mount_point.as_os_str(), place);
        }
        let seen = |place: usize, mount: &Mount| {
            last.get(mount.mount_point.as_os_str()) == Some(&place)
                && self
                    .filter
                    .has(&mount.mount_point.to_string_lossy(), &mount.fs_type)
        };
        let keep: Vec<bool> = mounts
            .iter()
            .enumerate()
            .map(|(place, mount)| seen(place, mount))
            .collect();
        let mut keep = keep.into_iter();
        let mut shown = mounts;
        shown.retain(|_| keep.next().unwrap_or_default());
        shown.sort_by_key(|mount| {
            SERVED.contains(&mount.fs_type.as_str()) || mount.fs_type.starts_with("fuse")
        });
        shown
    }

    fn ask_all(&mut self, mounts: &[Mount]) -> Vec<Answer> {
        self.hanging.retain(|_, hold| Arc::strong_count(hold) > 1);
        let mut answers: Vec<Answer> = mounts.iter().map(|_| Answer::NotAsked).collect();
        let mut queue = VecDeque::new();
        let mut asked = Vec::new();
        for (place, mount) in mounts.iter().enumerate() {
            if self.hanging.contains_key(&mount.mount_point) {
                answers[place] = Answer::Broken("still hangs".to_owned());
                continue;
            }
            let hold = Arc::new(());
            asked.push((place, Arc::clone(&hold)));
            queue.push_back(Request {
                place,
                path: under(&self.root, &mount.mount_point),
                hold,
            });
        }
        let queue: Queue = Arc::new(Mutex::new(queue));
        let left = self.gather(asked.len(), &queue, mounts, &mut answers);
        for (place, hold) in asked {
            // Two ends are ours and the queue's; what is asked has its second end in a thread.
            let waits = matches!(answers[place], Answer::NotAsked) && !left.contains(&place);
            if waits {
                answers[place] = Answer::Broken("does not answer".to_owned());
                self.hanging.insert(mounts[place].mount_point.clone(), hold);
            }
        }
        answers
    }

    /// Waits for the answers, and says which places nobody has asked in the end.
    fn gather(
        &self,
        count: usize,
        queue: &Queue,
        mounts: &[Mount],
        answers: &mut [Answer],
    ) -> Vec<usize> {
        let (outbox, inbox) = mpsc::channel();
        let threads_max = HANGING_MAX.saturating_sub(self.hanging.len()).max(1);
        let mut threads = 0;
        let mut start = |deadline: &mut Instant| {
            if threads < threads_max && start_thread(&self.ask, queue, &outbox).is_ok() {
                threads += 1;
                *deadline = Instant::now() + self.patience;
            }
        };
        let mut deadline = Instant::now() + self.patience;
        start(&mut deadline);
        let mut missing = count;
        while missing > 0 && Instant::now() < deadline {
            match inbox.recv_timeout(STEP) {
                Ok((place, answer)) => {
                    let mount: &Mount = &mounts[place];
                    answers[place] = judged(mount, answer);
                    missing -= 1;
                    deadline = deadline.max(Instant::now() + STEP);
                }
                Err(RecvTimeoutError::Timeout) if !locked(queue).is_empty() => {
                    start(&mut deadline);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        let left = std::mem::take(&mut *locked(queue));
        left.iter().map(|request| request.place).collect()
    }
}

/// Rejects the answer of another file system than the one in the table: in a container a path of
/// the host can lead to one of the container's own.
fn judged(mount: &Mount, answer: io::Result<Space>) -> Answer {
    match answer {
        Err(err) => Answer::Broken(err.to_string()),
        Ok(space)
            if space.device_number == mount.device_number
                || (space.is_btrfs && mount.fs_type == "btrfs") =>
        {
            Answer::Space(space)
        }
        Ok(Space { device_number, .. }) => {
            let found = (device_number, mount.device_number);
            let ((major, minor), (expected_major, expected_minor)) = found;
            Answer::Broken(format!(
                "found a file system on device {major}:{minor}, expected the one on \
                 {expected_major}:{expected_minor}; give the host's root with --path.rootfs"
            ))
        }
    }
}

impl Probe for Filesystems {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let mounts = self.mounts()?;
        let mounts = self.shown(mounts);
        let answers = self.ask_all(&mounts);
        for (mount, answer) in mounts.iter().zip(answers) {
            let mount_point = mount.label();
            let labels = [
                ("device", mount.device.as_str()),
                ("fstype", mount.fs_type.as_str()),
                ("mountpoint", mount_point.as_str()),
            ];
            let broken = match answer {
                Answer::NotAsked => {
                    out.fail_of(&mount_point, || format!("{mount_point}: no time to ask it"));
                    continue;
                }
                Answer::Broken(why) => {
                    out.fail_of(&mount_point, || format!("{mount_point}: {why}"));
                    1.0
                }
                Answer::Space(space) => {
                    push_space(&space, &labels, out);
                    let read_only = f64::from(u8::from(mount.read_only));
                    out.push(Reading::FilesystemReadonly, &labels, read_only);
                    0.0
                }
            };
            out.push(Reading::FilesystemError, &labels, broken);
        }
        Ok(())
    }
}

fn push_space(space: &Space, labels: &[(&str, &str)], out: &mut Readings) {
    out.push(Reading::FilesystemSize, labels, space.size_bytes as f64);
    out.push(Reading::FilesystemFree, labels, space.free_bytes as f64);
    let available = space.available_bytes as f64;
    out.push(Reading::FilesystemAvailable, labels, available);
    // Some file systems make inodes as they need them and say zero, which node_exporter shows.
    out.push(Reading::FilesystemFiles, labels, space.files as f64);
    let files_free = space.files_free as f64;
    out.push(Reading::FilesystemFilesFree, labels, files_free);
}

/// Where a path of the host is for us.
fn under(root: &Path, path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    let relative = bytes.strip_prefix(b"/").unwrap_or(bytes);
    root.join(OsStr::from_bytes(relative))
}

fn locked(queue: &Queue) -> std::sync::MutexGuard<'_, VecDeque<Request>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A thread that asks until the queue is empty, or nobody listens.
fn start_thread(
    ask: &Ask,
    queue: &Queue,
    outbox: &Sender<(usize, io::Result<Space>)>,
) -> io::Result<()> {
    let (ask, queue, outbox) = (Arc::clone(ask), Arc::clone(queue), outbox.clone());
    let thread = thread::Builder::new()
        .name("qbus-statvfs".to_owned())
        .stack_size(STACK_BYTES);
    thread.spawn(move || {
        loop {
            let Some(Request { place, path, hold }) = locked(&queue).pop_front() else {
                return;
            };
            let answer = ask(&path);
            drop(hold);
            if outbox.send((place, answer)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

fn space(path: &Path) -> io::Result<Space> {
    let device = stat(path)?.st_dev;
    let space = statvfs(path)?;
    Ok(Space {
        device_number: (major(device), minor(device)),
        is_btrfs: statfs(path)?.f_type as i64 == BTRFS,
        size_bytes: space.f_blocks.saturating_mul(space.f_frsize),
        free_bytes: space.f_bfree.saturating_mul(space.f_frsize),
        available_bytes: space.f_bavail.saturating_mul(space.f_frsize),
        files: space.f_files,
        files_free: space.f_ffree,
    })
}

#[cfg(test)]
mod tests;
