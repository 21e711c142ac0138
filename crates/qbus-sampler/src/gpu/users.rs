//! Which attached process uses how much of a GPU's memory.
//!
//! NVML speaks of pids of the initial pid namespace. A process of that namespace knows itself by
//! the same pid; of one in a container the kernel tells both pids and the namespace, and only if all
//! of them agree are they taken for one. A sampler in a container can do neither.

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

    /// Pushes the memory of the attached processes on each part of a GPU: the MIG devices with their
    /// UUIDs, or the whole GPU with none.
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
        let [gpu, uuid] = *sink.labels;
        for (mig, device) in parts {
            let processes = memory_by_pid(device)?;
            let labels = [gpu, uuid, ("mig_uuid", *mig)];
            sink.out
                .push(Reading::GpuProcesses, &labels, processes.len() as f64);
            if self.own_namespace != Some(INITIAL_NAMESPACE) {
                sink.out.skip(processes.len() as u64);
                continue;
            }
            let mut sums = BTreeMap::new();
            for (pid, bytes) in processes {
                let (Some(owner), Some(bytes)) = (self.owner(pid, attached), bytes) else {
                    continue;
                };
                let command = match owner.command.as_str() {
                    "" => self.command(pid),
                    command => command.to_owned(),
                };
                let label = if self.pid_label {
                    owner.pid.to_string()
                } else {
                    String::new()
                };
                *sums.entry((&owner.role, command, label)).or_insert(0.0) += bytes as f64;
            }
            for ((role, command, pid), bytes) in sums {
                let own = [
                    ("role", role.as_str()),
                    ("command", &command),
                    ("pid", &pid),
                ];
                let labels = [labels[0], labels[1], labels[2], own[0], own[1], own[2]];
                sink.out.push(Reading::GpuProcessMemory, &labels, bytes);
            }
        }
        Ok(())
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
    let mut processes = BTreeMap::new();
    for process in device
        .running_compute_processes()?
        .into_iter()
        .chain(drawing)
    {
        let bytes = match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        };
        let known = processes.entry(process.pid).or_insert(bytes);
        *known = bytes.max(*known);
    }
    Ok(processes)
}
