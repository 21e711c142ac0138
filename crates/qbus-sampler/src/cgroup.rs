//! Control groups, version 2: those of the attached processes and this one's own.

mod files;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::{Attached, Roots, SamplerOptions};
use crate::kernel_file::read_once;
use crate::mounts::{Mount, read_mounts};
use crate::probe::{Failure, Probe, Tick};
use crate::process::pid_namespace;
use crate::readings::Readings;
use crate::sysfs::file_name;
use crate::table::Reading;
use files::Files;

/// How often it is looked up which group a process is in, and what the limits are: both are
/// changed by hand or at a start.
const LOOKUP_PERIOD: Duration = Duration::from_secs(5);

/// Groups whose files stay open between ticks, at some fifteen descriptors each.
const KEPT_OPEN_MAX: usize = 8;

/// Reads the groups under the mount of `cgroup2`.
pub(crate) struct Cgroups {
    roots: Roots,
    own: bool,
    own_namespace: Option<u64>,
    hierarchy: Option<Hierarchy>,
    /// The group of each process, by pid and start time.
    members: HashMap<(u32, Option<u64>), Member>,
    /// By path, as `/proc/PID/cgroup` has it.
    groups: BTreeMap<String, Group>,
    /// Names of block devices by their numbers.
    devices: HashMap<String, String>,
    buffer: Vec<u8>,
}

/// Where the hierarchy is mounted, and which part of it.
struct Hierarchy {
    mount_point: PathBuf,
    root: String,
}

struct Member {
    group: String,
    looked_up: Instant,
}

struct Group {
    files: Files,
    directory: PathBuf,
    attached: u32,
    limits: Limits,
    limits_read: Option<Instant>,
}

/// What holds for a group, be it set there or further up.
#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    memory_bytes: Option<f64>,
    cpus: Option<f64>,
}

impl Cgroups {
    pub(crate) fn new(config: &SamplerOptions) -> Cgroups {
        Cgroups {
            roots: config.roots.clone(),
            own: config.own_role.is_some(),
            own_namespace: pid_namespace(&config.roots.proc),
            hierarchy: None,
            members: HashMap::new(),
            groups: BTreeMap::new(),
            devices: HashMap::new(),
            buffer: Vec::new(),
        }
    }

    fn join(&mut self, name: &str, key: (u32, Option<u64>), now: Instant, out: &mut Readings) {
        let known = self
            .members
            .get(&key)
            .filter(|member| is_fresh(member.looked_up, now));
        let path = match known {
            Some(member) => member.group.clone(),
            None => match group_of(&self.roots.proc.join(name), &mut self.buffer) {
                Ok(Some(path)) => path,
                // It ended, or the hierarchy of version 2 doesn't have it.
                Ok(None) => return out.skip(1),
                Err(err) if err.kind() == io::ErrorKind::NotFound => return out.skip(1),
                Err(err) => return out.fail(|| format!("cgroup of process {name}: {err}")),
            },
        };
        let hierarchy = self.hierarchy.as_ref();
        let Some(directory) = hierarchy.and_then(|hierarchy| hierarchy.directory(&path)) else {
            return out.skip(1);
        };
        let group = self.groups.entry(path.clone()).or_insert_with(|| Group {
            files: Files::new(&directory),
            directory,
            attached: 0,
            limits: Limits::default(),
            limits_read: None,
        });
        group.attached += 1;
        self.members.entry(key).or_insert(Member {
            group: path,
            looked_up: now,
        });
    }
}

impl Probe for Cgroups {
    fn read(&mut self, tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        if self.hierarchy.is_none() {
            self.hierarchy = Some(Hierarchy::find(&self.roots)?);
        }
        let now = tick.now;
        self.members.retain(|(pid, started), member| {
            let own = *pid == 0;
            let listed = |other: &Attached| (other.pid, other.started) == (*pid, *started);
            is_fresh(member.looked_up, now) && (own || tick.attached.iter().any(listed))
        });
        self.groups
            .values_mut()
            .for_each(|group| group.attached = 0);
        if self.own {
            self.join("self", (0, None), now, out);
        }
        for attached in tick.attached {
            match attached.pid_namespace {
                Some(namespace) if Some(namespace) != self.own_namespace => out.skip(1),
                _ => {
                    let key = (attached.pid, attached.started);
                    self.join(&attached.pid.to_string(), key, now, out);
                }
            }
        }
        self.groups.retain(|_, group| group.attached > 0);
        let mount_point = self
            .hierarchy
            .as_ref()
            .map(|hierarchy| hierarchy.mount_point.as_path());
        let mount_point = mount_point.unwrap_or(Path::new("/"));
        for (place, (path, group)) in self.groups.iter_mut().enumerate() {
            let labels = [("cgroup", path.as_str())];
            out.push(Reading::CgroupAttached, &labels, f64::from(group.attached));
            if !group.limits_read.is_some_and(|read| is_fresh(read, now)) {
                group.limits = Limits::of(&group.directory, mount_point, &mut self.buffer);
                group.limits_read = Some(now);
            }
            group.limits.push(&labels, out);
            let mut device =
                |numbers: &str| device_name(&self.roots.sys, &mut self.devices, numbers);
            group
                .files
                .read(path, now, &mut device, &mut self.buffer, out);
            if place >= KEPT_OPEN_MAX {
                group.files.close();
            }
        }
        Ok(())
    }
}

fn is_fresh(read: Instant, now: Instant) -> bool {
    now.saturating_duration_since(read) < LOOKUP_PERIOD
}

/// The path of the group that a process is in, by the hierarchy of version 2.
fn group_of(process: &Path, buffer: &mut Vec<u8>) -> io::Result<Option<String>> {
    let text = read_once(&process.join("cgroup"), buffer)?;
    // A group that was removed under its last process has this at its end.
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    Ok(path.map(|path| path.trim_end_matches(" (deleted)").to_owned()))
}

impl Hierarchy {
    fn find(roots: &Roots) -> Result<Hierarchy, Failure> {
        let process = roots.proc.join("self");
        let mounts =
            read_mounts(&process).map_err(|err| Failure::io(&process.join("mountinfo"), &err))?;
        let mount = unified(&mounts)?;
        let mount_point = match mount.mount_point.strip_prefix("/sys") {
            Ok(below) => roots.sys.join(below),
            Err(_) => roots.root.join(
                mount
                    .mount_point
                    .strip_prefix("/")
                    .unwrap_or(&mount.mount_point),
            ),
        };
        Ok(Hierarchy {
            mount_point,
            root: mount.root.clone(),
        })
    }

    /// Where the files of a group are; `None` for the root of all groups, and for one outside of
    /// what is mounted, as groups are that are outside of a container.
    fn directory(&self, path: &str) -> Option<PathBuf> {
        let below = match self.root.as_str() {
            "/" => path,
            root => path
                .strip_prefix(root)
                .filter(|rest| rest.is_empty() || rest.starts_with('/'))?,
        };
        if below.split('/').any(|part| part == "..") {
            return None;
        }
        let directory = self.mount_point.join(below.trim_start_matches('/'));
        // The root of all groups is the machine, which other sources read; a container's own group
        // looks like it, and has files that the root lacks.
        let is_root = self.root == "/" && below.trim_matches('/').is_empty();
        (!is_root || directory.join("cgroup.events").exists()).then_some(directory)
    }
}

/// The mount of version 2, if it has the controllers that are read here. On a machine of version 1,
/// or of both, what version 2 says of a group is nothing, or worse, that of another group.
fn unified(mounts: &[Mount]) -> Result<&Mount, Failure> {
    let first = mounts
        .iter()
        .filter(|mount| mount.fs_type == "cgroup")
        .map(|mount| file_name(&mount.mount_point));
    let old: Vec<String> = first
        .filter(|name| {
            name.split(',')
                .any(|part| ["cpu", "memory"].contains(&part))
        })
        .collect();
    let mount = mounts.iter().find(|mount| mount.fs_type == "cgroup2");
    match mount {
        Some(mount) if old.is_empty() => Ok(mount),
        None if old.is_empty() => Err(Failure::Absent("cgroup2 is not mounted".to_owned())),
        _ => Err(Failure::Absent(format!(
            "the controllers {} are of version 1, which is not read; expected version 2: boot with \
             systemd.unified_cgroup_hierarchy=1",
            old.join(" and ")
        ))),
    }
}

impl Limits {
    /// The tightest limits on the way up to the root, as far as it can be seen.
    fn of(directory: &Path, mount_point: &Path, buffer: &mut Vec<u8>) -> Limits {
        let mut limits = Limits::default();
        let tighter = |known: Option<f64>, found: Option<f64>| match (known, found) {
            (Some(known), Some(found)) => Some(known.min(found)),
            (known, found) => known.or(found),
        };
        for above in directory
            .ancestors()
            .take_while(|above| above.starts_with(mount_point))
        {
            let bytes = read_once(&above.join("memory.max"), buffer).ok();
            let bytes = bytes.and_then(|text| text.trim().parse::<u64>().ok());
            limits.memory_bytes = tighter(limits.memory_bytes, bytes.map(|bytes| bytes as f64));
            let cpus = read_once(&above.join("cpu.max"), buffer)
                .ok()
                .and_then(parse_cpu_max);
            limits.cpus = tighter(limits.cpus, cpus);
        }
        limits
    }

    fn push(&self, labels: &[(&'static str, &str)], out: &mut Readings) {
        if let Some(bytes) = self.memory_bytes {
            out.push(Reading::CgroupMemoryLimit, labels, bytes);
        }
        if let Some(cpus) = self.cpus {
            out.push(Reading::CgroupCpuLimit, labels, cpus);
        }
    }
}

/// `QUOTA PERIOD`, in microseconds; the quota may be `max`.
fn parse_cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
    (period > 0).then(|| quota as f64 / period as f64)
}

/// `8:0` is `sda`: `/sys/dev/block` knows. What it doesn't know keeps its numbers.
fn device_name(sys: &Path, known: &mut HashMap<String, String>, numbers: &str) -> String {
    if let Some(name) = known.get(numbers) {
        return name.clone();
    }
    let link = fs::read_link(sys.join("dev/block").join(numbers));
    let name = link
        .ok()
        .and_then(|link| Some(link.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_else(|| numbers.to_owned());
    known.insert(numbers.to_owned(), name.clone());
    name
}
