//! What is read, from where and how often.

use std::path::PathBuf;
use std::time::Duration;

use crate::metric::Names;

/// What a [`Sampler`](crate::Sampler) reads and how.
#[derive(Clone, Debug)]
pub struct SamplerOptions {
    /// The sources to read.
    pub sources: Vec<Source>,
    /// The names that samples bear.
    pub names: Names,
    /// CPU values for each CPU beside those of the whole machine.
    pub per_cpu: bool,
    /// A label `pid` on the values of a process. Without it, processes of the same role and command
    /// are one series: their values are added up.
    pub pid_label: bool,
    /// The role of this very process; it is read as if it were attached. `None` leaves it out.
    pub own_role: Option<String>,
    /// Where `/proc`, `/sys` and the root directory are.
    pub roots: Roots,
    /// How long a tick waits for sources that have a thread of their own and were asked in that
    /// tick. Later answers are handed over in the next tick, and a source that hangs is waited for
    /// once, not in every tick.
    pub patience: Duration,
    /// How long the last values of a source that hangs are handed over.
    pub keep: Duration,
    /// How long a source that this machine lacks is left alone before it is tried again.
    pub retry: Duration,
    /// The NVIDIA management library; `None` lets the loader look for `libnvidia-ml.so.1`.
    pub nvml: Option<PathBuf>,
    /// How often the GPU calls are made that take milliseconds: process lists, ECC, fans, PCIe.
    pub gpu_slow_period: Duration,
}

impl Default for SamplerOptions {
    fn default() -> SamplerOptions {
        SamplerOptions {
            sources: Source::ALL
                .iter()
                .copied()
                .filter(|source| source.on_by_default())
                .collect(),
            names: Names::Qbus,
            per_cpu: false,
            pid_label: false,
            own_role: Some("aggregator".to_owned()),
            roots: Roots::default(),
            patience: Duration::from_millis(20),
            keep: Duration::from_secs(30),
            retry: Duration::from_secs(60),
            nvml: None,
            gpu_slow_period: Duration::from_secs(10),
        }
    }
}

/// Where the kernel's file systems are mounted.
///
/// What sysinfo reads is of the running machine whatever stands here: the sources `memory` and
/// `processes`, and the CPU model of `info`.
#[derive(Clone, Debug)]
pub struct Roots {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// The host's `/`, for a sampler in a container that has it mounted elsewhere.
    pub root: PathBuf,
}

impl Default for Roots {
    fn default() -> Roots {
        Roots {
            proc: "/proc".into(),
            sys: "/sys".into(),
            root: "/".into(),
        }
    }
}

macro_rules! sources {
    ($($source:ident $name:literal $on:literal $about:literal;)*) => {
        /// A subject that can be switched on and off.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Source {
            $(#[doc = $about] $source,)*
        }

        impl Source {
            /// Every source, in the order in which they are read.
            pub const ALL: &[Source] = &[$(Source::$source,)*];

            /// Its name on a command line.
            pub fn name(self) -> &'static str {
                match self { $(Source::$source => $name,)* }
            }

            /// Whether [`SamplerOptions::default`] has it.
            pub fn on_by_default(self) -> bool {
                match self { $(Source::$source => $on,)* }
            }

            /// What it reads, in one sentence.
            pub fn about(self) -> &'static str {
                match self { $(Source::$source => $about,)* }
            }
        }
    };
}

sources! {
    Cpu "cpu" true "CPU seconds by mode, usage and frequency.";
    Stat "stat" true "Context switches, forks, interrupts, running and blocked processes, boot time.";
    Memory "memory" true "Memory and swap: total, available, free and used.";
    Meminfo "meminfo" true "What the memory holds: cache, buffers, slab, dirty pages and more.";
    Vmstat "vmstat" true "Page faults, paging, swapping, and kills for want of memory.";
    Load "load" true "Load averages.";
    Pressure "pressure" true "Pressure stall information.";
    Filefd "filefd" true "Open files of the whole machine.";
    Entropy "entropy" true "Entropy of the kernel's random numbers.";
    Conntrack "conntrack" true "Connections that the firewall tracks.";
    Disk "disk" true "Operations, bytes and time of block devices.";
    Filesystem "filesystem" true "Size and free space of mounted file systems.";
    Network "network" true "Bytes, packets, errors and drops of network devices.";
    Tcp "tcp" true "TCP connections, segments and retransmissions.";
    Thermal "thermal" true "Temperatures of sensors and thermal zones.";
    Info "info" true "Kernel, operating system and CPU model, as labels.";
    Processes "processes" false "All processes by state: a scan of the whole process table.";
    Process "process" true "Attached processes and this one.";
    Cgroup "cgroup" true "Control groups (version 2) of attached processes and of this one.";
    Gpu "gpu" true "NVIDIA GPUs, in a build with the feature `gpu`.";
}

impl Source {
    /// The source of that name.
    pub fn from_name(name: &str) -> Option<Source> {
        Source::ALL
            .iter()
            .copied()
            .find(|source| source.name() == name)
    }
}

/// A process that is attached to the bus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attached {
    /// Its pid, as it knows itself.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`). Another process
    /// that has got the same pid since is then not taken for it.
    pub started: Option<u64>,
    /// What it is for, as it says itself.
    pub role: String,
    /// Its command; the kernel's name of it where this is empty.
    pub command: String,
    /// The inode of its `/proc/self/ns/pid`. A process of another pid namespace than the sampler's
    /// is skipped. `None` says that it is known to be of the same.
    pub pid_namespace: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_sources_are_found_again() {
        for &source in Source::ALL {
            assert_eq!(Source::from_name(source.name()), Some(source));
        }
        assert_eq!(Source::from_name("cpus"), None);
    }
}
