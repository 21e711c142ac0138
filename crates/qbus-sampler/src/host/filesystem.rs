//! Mounted file systems. Asking one whose server is gone hangs, for hours if it is a hard mount.
//!
//! One prober thread asks them all. If a file system does not answer in time, the prober is left
//! with it and a new one goes on with the next; the file system is not asked again before its
//! prober has come back.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use rustix::fs::statvfs;

use crate::config::Roots;
use crate::mounts::{Mount, read_mounts};
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::table::Reading;

/// How long a file system has to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Threads that may be lost to file systems that hang; the rest is then not asked any more.
const HANGING_MAX: usize = 8;

/// Types that hold no space of their own, or none that anyone could fill.
const VIRTUAL: [&str; 27] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "erofs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "ramfs",
    "rootfs",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tracefs",
    "fuse.lxcfs",
];

/// Mounts that container runtimes and the system make for themselves by the dozen.
const HIDDEN: [&str; 6] = [
    "/dev",
    "/proc",
    "/sys",
    "/run/credentials",
    "/var/lib/docker",
    "/var/lib/containers/storage",
];

/// What a file system says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Space {
    pub(crate) size_bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) available_bytes: u64,
    pub(crate) files: u64,
    pub(crate) files_free: u64,
}

/// The call that may hang.
pub(crate) type Ask = Arc<dyn Fn(&Path) -> io::Result<Space> + Send + Sync>;

/// Reads the mount table and asks each file system.
pub(crate) struct Filesystems {
    proc: PathBuf,
    root: PathBuf,
    patience: Duration,
    probe: Ask,
    prober: Option<Prober>,
    /// By mount point.
    hanging: BTreeMap<String, Prober>,
}

struct Prober {
    requests: Sender<PathBuf>,
    answers: Receiver<io::Result<Space>>,
}

impl Filesystems {
    pub(crate) fn new(roots: &Roots) -> Filesystems {
        Filesystems::with_probe(roots, PATIENCE, Arc::new(space))
    }

    fn with_probe(roots: &Roots, patience: Duration, probe: Ask) -> Filesystems {
        Filesystems {
            proc: roots.proc.clone(),
            root: roots.root.clone(),
            patience,
            probe,
            prober: None,
            hanging: BTreeMap::new(),
        }
    }

    fn ask(&mut self, mount: &Mount) -> Result<Space, String> {
        let mount_point = &mount.mount_point;
        if let Some(prober) = self.hanging.get(mount_point) {
            if prober.answers.try_recv().is_err() {
                return Err(format!("{mount_point} still hangs"));
            }
            self.hanging.remove(mount_point);
        }
        if self.hanging.len() >= HANGING_MAX {
            return Err(format!(
                "{HANGING_MAX} file systems hang, the others are not asked"
            ));
        }
        let prober = match self.prober.take() {
            Some(prober) => prober,
            None => Prober::start(Arc::clone(&self.probe)).map_err(|err| err.to_string())?,
        };
        let path = self.root.join(mount_point.trim_start_matches('/'));
        // A prober that is gone says so at the answer.
        let _ = prober.requests.send(path);
        match prober.answers.recv_timeout(self.patience) {
            Ok(answer) => {
                self.prober = Some(prober);
                answer.map_err(|err| format!("{mount_point}: {err}"))
            }
            Err(RecvTimeoutError::Timeout) => {
                self.hanging.insert(mount_point.clone(), prober);
                Err(format!("{mount_point} does not answer"))
            }
            Err(RecvTimeoutError::Disconnected) => Err(format!("{mount_point}: its thread died")),
        }
    }
}

impl Probe for Filesystems {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        // The first process sees what the host mounted; ours may live in a smaller world.
        let mounts = read_mounts(&self.proc.join("1"))
            .or_else(|_| read_mounts(&self.proc.join("self")))
            .map_err(|err| Failure::io(&self.proc.join("self/mountinfo"), &err))?;
        self.hanging
            .retain(|point, _| mounts.iter().any(|mount| mount.mount_point == *point));
        for (at, mount) in mounts.iter().enumerate() {
            let covered = mounts[at + 1..]
                .iter()
                .any(|m| m.mount_point == mount.mount_point);
            if covered || !is_of_interest(mount) {
                continue;
            }
            let labels = [
                ("device", mount.device.as_str()),
                ("fstype", mount.fs_type.as_str()),
                ("mountpoint", mount.mount_point.as_str()),
            ];
            let answer = self.ask(mount);
            let broken = answer.is_err();
            out.push(
                Reading::FilesystemError,
                &labels,
                f64::from(u8::from(broken)),
            );
            out.push(
                Reading::FilesystemReadonly,
                &labels,
                f64::from(u8::from(mount.read_only)),
            );
            match answer {
                Ok(space) => push_space(&space, &labels, out),
                Err(message) => out.fail(|| message),
            }
        }
        Ok(())
    }
}

fn push_space(space: &Space, labels: &[(&'static str, &str)], out: &mut Readings) {
    out.push(Reading::FilesystemSize, labels, space.size_bytes as f64);
    out.push(Reading::FilesystemFree, labels, space.free_bytes as f64);
    out.push(
        Reading::FilesystemAvailable,
        labels,
        space.available_bytes as f64,
    );
    // Some file systems make inodes as they need them and say zero.
    if space.files > 0 {
        out.push(Reading::FilesystemFiles, labels, space.files as f64);
        out.push(
            Reading::FilesystemFilesFree,
            labels,
            space.files_free as f64,
        );
    }
}

/// A container's root is an overlay, and the bus itself lies in `/dev/shm`: both are kept.
fn is_of_interest(mount: &Mount) -> bool {
    let point = mount.mount_point.as_str();
    if VIRTUAL.contains(&mount.fs_type.as_str()) || (mount.fs_type == "overlay" && point != "/") {
        return false;
    }
    let below = |directory: &&str| {
        point
            .strip_prefix(*directory)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    point == "/dev/shm" || !HIDDEN.iter().any(below)
}

impl Prober {
    fn start(probe: Ask) -> io::Result<Prober> {
        let (requests, inbox) = mpsc::channel::<PathBuf>();
        let (outbox, answers) = mpsc::channel();
        thread::Builder::new()
            .name("qbus-statvfs".to_owned())
            .spawn(move || {
                while let Ok(path) = inbox.recv() {
                    if outbox.send(probe(&path)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Prober { requests, answers })
    }
}

fn space(path: &Path) -> io::Result<Space> {
    let stat = statvfs(path)?;
    Ok(Space {
        size_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        free_bytes: stat.f_bfree.saturating_mul(stat.f_frsize),
        available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        files: stat.f_files,
        files_free: stat.f_ffree,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;
    use crate::metric::Names;

    const MOUNTS: &str = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
        2 1 0:2 / /dead rw - nfs4 gone:/export rw\n\
        3 1 0:3 / /proc rw - proc proc rw\n\
        4 1 0:4 / /dev/shm rw - tmpfs tmpfs rw\n\
        5 1 8:2 / /data ro - xfs /dev/sdb1 ro\n";

    fn read(source: &mut Filesystems) -> (BTreeMap<String, f64>, Option<String>) {
        let mut out = Readings::default();
        let tick = Tick {
            now: Instant::now(),
            attached: &[],
        };
        source.read(&tick, &mut out).unwrap();
        let first = out
            .take_trouble()
            .things
            .pop()
            .map(|trouble| trouble.message);
        let mut page = BTreeMap::new();
        out.emit("filesystem", Names::Qbus, &mut |sample| {
            let mount_point = sample.labels.last().unwrap().1;
            let name = sample
                .metric
                .name
                .trim_start_matches("qbus_host_filesystem_");
            page.insert(format!("{name} {mount_point}"), sample.value);
        });
        (page, first)
    }

    #[test]
    fn a_mount_that_hangs_delays_no_other_and_recovers() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("1")).unwrap();
        fs::write(dir.path().join("1/mountinfo"), MOUNTS).unwrap();
        let roots = Roots {
            proc: dir.path().into(),
            ..Roots::default()
        };
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let (returned, has_returned) = mpsc::channel::<()>();
        let probe = move |path: &Path| {
            if path == Path::new("/dead") {
                // Hangs until the test lets it go; all calls after that come back at once.
                let _ = released.lock().unwrap().recv();
                let _ = returned.send(());
            }
            Ok(Space {
                size_bytes: 7,
                ..Space::default()
            })
        };
        let patience = Duration::from_millis(200);
        let mut source = Filesystems::with_probe(&roots, patience, Arc::new(probe));
        let (page, first) = read(&mut source);
        assert_eq!(first.as_deref(), Some("/dead does not answer"));
        assert_eq!(page["device_error /dead"], 1.0);
        assert!(!page.contains_key("size_bytes /dead"));
        for mount_point in ["/", "/dev/shm", "/data"] {
            assert_eq!(
                page[&format!("size_bytes {mount_point}")],
                7.0,
                "{mount_point}"
            );
            assert_eq!(page[&format!("device_error {mount_point}")], 0.0);
        }
        assert_eq!((page["readonly /data"], page["readonly /"]), (1.0, 0.0));
        assert!(!page.contains_key("size_bytes /proc"));
        // It is not asked again: a second thread would hang as well.
        let (_, first) = read(&mut source);
        assert_eq!(first.as_deref(), Some("/dead still hangs"));
        assert_eq!(source.hanging.len(), 1);
        drop(release);
        has_returned.recv().unwrap();
        // The answer of the lost prober is on its way now.
        while read(&mut source).0["device_error /dead"] == 1.0 {
            thread::yield_now();
        }
        assert!(source.hanging.is_empty());
    }
}
