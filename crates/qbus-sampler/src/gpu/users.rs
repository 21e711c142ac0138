//! Which attached process uses how much of a GPU: its memory, and its time.
//!
//! NVML speaks of pids of the initial pid namespace. A process of that namespace knows itself by
//! the same pid; of one in a container the kernel tells both pids and the namespace, and only if
//! all of them agree are they taken for one. A sampler in a container can do neither.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nvml_wrapper::Device;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;

use super::calls::Sink;
use crate::config::Attached;
use crate::kernel_file::read_once;
use crate::process::pid_namespace;
use crate::table::Reading;

/// The inode of the initial pid namespace, which the kernel never changes.
const INITIAL_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Processes that are one series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group<'a> {
    role: &'a str,
    command: String,
    pid: String,
}

impl Group<'_> {
    fn labels(&self) -> [(&str, &str); 3] {
        [
            ("role", self.role),
            ("command", &self.command),
            ("pid", &self.pid),
        ]
    }
}

/// Joins processes on a GPU to attached ones.
pub(super) struct Users {
    proc: PathBuf,
    own_namespace: Option<u64>,
    pid_label: bool,
}

impl Users {
    pub(super) fn new(proc: &Path, pid_label: bool) -> Users {
        Users {
            proc: proc.to_owned(),
            own_namespace: pid_namespace(proc),
            pid_label,
        }
    }

    /// Pushes the memory of the attached processes on each part of a GPU: the MIG devices with
    /// their UUIDs, or the whole GPU with none.
    ///
    /// # Errors
    ///
    /// Those of listing the processes.
    pub(super) fn read(
        &self,
        parts: &[(&str, &Device<'_>)],
        attached: &[Attached],
        sink: &mut Sink<'_>,
    ) -> Result<(), NvmlError> {
        for (mig, device) in parts {
            let processes = memory_by_pid(device)?;
            let labels = sink.labelled(&[("mig_uuid", *mig)]);
            sink.out
                .push(Reading::GpuProcesses, &labels, processes.len() as f64);
            if self.own_namespace != Some(INITIAL_NAMESPACE) {
                sink.out.skip(processes.len() as u64);
                continue;
            }
            let mut sums = BTreeMap::new();
            for (pid, bytes) in processes {
                if let (Some(group), Some(bytes)) = (self.group(pid, attached), bytes) {
                    *sums.entry(group).or_insert(0.0) += bytes as f64;
                }
            }
            for (group, bytes) in sums {
                let labels = [&labels[..], &group.labels()].concat();
                sink.out.push(Reading::GpuProcessMemory, &labels, bytes);
            }
        }
        Ok(())
    }

    /// Pushes which share of the time since `asked_us` attached processes used a GPU. The driver
    /// names those that did anything; the others of its processes did nothing.
    ///
    /// # Errors
    ///
    /// Errors of the call; that no process did anything is not an error.
    pub(super) fn read_use(
        &self,
        device: &Device<'_>,
        asked_us: &mut u64,
        attached: &[Attached],
        sink: &mut Sink<'_>,
    ) -> Result<(), NvmlError> {
        if self.own_namespace != Some(INITIAL_NAMESPACE) || attached.is_empty() {
            return Ok(());
        }
        let samples = match device.process_utilization_stats(*asked_us) {
            Ok(samples) => samples,
            Err(NvmlError::NotFound) => Vec::new(),
            Err(err) => return Err(err),
        };
        // Of several samples of a process the last one counts.
        let mut last = BTreeMap::new();
        for sample in samples {
            *asked_us = (*asked_us).max(sample.timestamp);
            if sample.sm_util > 100 || sample.mem_util > 100 {
                let (pid, sm, memory) = (sample.pid, sample.sm_util, sample.mem_util);
                sink.out.fail(|| {
                    format!("process {pid} uses {sm} % of the SMs and {memory} % of the memory")
                });
                continue;
            }
            let known = last.entry(sample.pid).or_insert((0, 0, 0));
            *known = (*known).max((sample.timestamp, sample.sm_util, sample.mem_util));
        }
        let mut sums: BTreeMap<Group<'_>, (f64, f64)> = BTreeMap::new();
        for pid in memory_by_pid(device)?.keys() {
            let Some(group) = self.group(*pid, attached) else {
                continue;
            };
            let (_, sm, memory) = last.get(pid).copied().unwrap_or_default();
            let sum = sums.entry(group).or_default();
            sum.0 += f64::from(sm);
            sum.1 += f64::from(memory);
        }
        for (group, (sm, memory)) in sums {
            let labels = sink.labelled(&group.labels());
            sink.out.push(Reading::GpuProcessSm, &labels, sm / 100.0);
            sink.out
                .push(Reading::GpuProcessMemoryUse, &labels, memory / 100.0);
        }
        Ok(())
    }

    /// Role and command of the attached process that has this pid in the initial namespace.
    fn group<'a>(&self, pid: u32, attached: &'a [Attached]) -> Option<Group<'a>> {
        let owner = self.owner(pid, attached)?;
        let command = match owner.command.as_str() {
            "" => self.command(pid),
            command => command.to_owned(),
        };
        let label = self.pid_label.then(|| owner.pid.to_string());
        Some(Group {
            role: &owner.role,
            command,
            pid: label.unwrap_or_default(),
        })
    }

    /// The attached process that has this pid in the initial namespace.
    fn owner<'a>(&self, pid: u32, attached: &'a [Attached]) -> Option<&'a Attached> {
        let is_near = |attached: &&Attached| {
            attached
                .pid_namespace
                .is_none_or(|namespace| Some(namespace) == self.own_namespace)
        };
        if let Some(near) = attached.iter().filter(is_near).find(|near| near.pid == pid) {
            return Some(near);
        }
        if attached.iter().all(|attached| is_near(&attached)) {
            return None;
        }
        let process = self.proc.join(pid.to_string());
        let namespace = fs::metadata(process.join("ns/pid")).ok()?.ino();
        let mut buffer = Vec::new();
        let status = read_once(&process.join("status"), &mut buffer).ok()?;
        let pids = status
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))?;
        // From the outermost namespace to its own.
        let innermost: u32 = pids.split_ascii_whitespace().last()?.parse().ok()?;
        attached
            .iter()
            .find(|far| (far.pid, far.pid_namespace) == (innermost, Some(namespace)))
    }

    fn command(&self, pid: u32) -> String {
        let mut buffer = Vec::new();
        let path = self.proc.join(pid.to_string()).join("comm");
        read_once(&path, &mut buffer)
            .unwrap_or_default()
            .trim_end()
            .to_owned()
    }
}

/// The memory of each process, as far as the driver knows it. One that both computes and draws
/// stands in both lists with the same memory.
fn memory_by_pid(device: &Device<'_>) -> Result<BTreeMap<u32, Option<u64>>, NvmlError> {
    let drawing = match device.running_graphics_processes() {
        Ok(processes) => processes,
        // Not every GPU can draw.
        Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => Vec::new(),
        Err(err) => return Err(err),
    };
    let computing = match device.running_compute_processes() {
        // A driver of before 2022.
        Err(NvmlError::FailedToLoadSymbol(_)) => device.running_compute_processes_v2()?,
        known => known?,
    };
    let mut processes = BTreeMap::new();
    for process in computing.into_iter().chain(drawing) {
        let bytes = match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        };
        let known = processes.entry(process.pid).or_insert(bytes);
        *known = bytes.max(*known);
    }
    Ok(processes)
}
