//! What is read, from where and how often.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::filters::Filters;
use crate::metric::{GpuNames, Names};

/// What a [`Sampler`](crate::Sampler) reads and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SamplerOptions {
    /// The sources to read.
    pub sources: Vec<Source>,
    /// The names that samples bear.
    pub names: Names,
    /// The names that samples of NVIDIA GPUs bear.
    pub gpu_names: GpuNames,
    /// CPU values for each CPU beside those of the whole machine.
    pub per_cpu: bool,
    /// A label `pid` on the values of a process. Without it, processes of the same role and command
    /// are one series: their values are added up.
    pub pid_label: bool,
    /// The role of this very process; it is read as if it were attached. `None` leaves it out.
    pub own_role: Option<String>,
    /// Where `/proc`, `/sys`, the root directory and the data of udev are.
    pub roots: Roots,
    /// What is left out.
    pub filters: Filters,
    /// How long file systems have to answer, once nothing else is left to ask.
    pub mount_timeout: Duration,
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
    /// Also the activity of NVIDIA GPUs (SM, tensor, memory, NVLink) by GPM, where the hardware has
    /// it (Hopper and later). Off by default: GPM and profilers share counters of the hardware, so
    /// that one may take them from the other.
    pub gpm: bool,
    /// How often the GPU calls are made that take milliseconds: process lists, ECC, fans, PCIe.
    pub gpu_slow_period: Duration,
}

impl Default for SamplerOptions {
    fn default() -> SamplerOptions {
        SamplerOptions {
            sources: Source::defaults(Names::Qbus),
            names: Names::Qbus,
            gpu_names: GpuNames::Same,
            per_cpu: false,
            pid_label: false,
            own_role: Some("aggregator".to_owned()),
            roots: Roots::default(),
            filters: Filters::default(),
            mount_timeout: Duration::from_secs(1),
            patience: Duration::from_millis(20),
            keep: Duration::from_secs(30),
            retry: Duration::from_secs(60),
            nvml: None,
            gpm: false,
            gpu_slow_period: Duration::from_secs(10),
        }
    }
}

/// Where the host is, for every source: a container has it mounted elsewhere. Only the clock
/// (`timex`, `time`) and the GPUs of NVIDIA are those of the running machine whatever stands here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// The host's `/`.
    pub root: PathBuf,
    /// What udev knows of devices.
    pub udev: PathBuf,
}

impl Default for Roots {
    fn default() -> Roots {
        Roots {
            proc: "/proc".into(),
            sys: "/sys".into(),
            root: "/".into(),
            udev: "/run/udev/data".into(),
        }
    }
}

impl Roots {
    /// The network's files. In a container with the host's `/proc`, `net` is what the reader's own
    /// network is: the first process has the host's.
    pub(crate) fn net(&self) -> PathBuf {
        let of_first = self.proc.join("1/net");
        match self.proc != Path::new("/proc") && of_first.join("dev").exists() {
            true => of_first,
            false => self.proc.join("net"),
        }
    }
}

macro_rules! sources {
    ($($source:ident $name:literal $on:literal [$($collector:literal)*] $about:literal;)*) => {
        /// A subject that can be switched on and off.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Source {
            $(#[doc = $about] $source,)*
        }

        impl Source {
            /// Every source, from the most useful to the least. Samples are handed over in this
            /// order, so that what finds no place in a registry is what would be missed least.
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

            /// The collectors of node_exporter that read the same.
            pub fn node_collectors(self) -> &'static [&'static str] {
                match self { $(Source::$source => &[$($collector),*],)* }
            }
        }
    };
}

// One row, one line.
#[rustfmt::skip]
sources! {
    Cpu "cpu" true ["cpu"] "CPU seconds by mode, usage and throttling.";
    Memory "memory" true [] "Memory and swap: total, available, free and used.";
    Load "load" true ["loadavg"] "Load averages.";
    Process "process" true [] "Attached processes and this one.";
    Cgroup "cgroup" true [] "Control groups (version 2) of attached processes and of this one.";
    Gpu "gpu" true [] "NVIDIA GPUs, in a build with the feature `gpu`.";
    Amdgpu "amdgpu" true [] "AMD GPUs: use, memory, power and temperature.";
    Filesystem "filesystem" true ["filesystem"] "Size and free space of mounted file systems.";
    Disk "disk" true ["diskstats"]
        "Operations, bytes and time of block devices, and what they are.";
    Network "network" true ["netdev"] "Bytes, packets, errors and drops of network devices.";
    Pressure "pressure" true ["pressure"] "Pressure stall information.";
    Stat "stat" true ["stat"]
        "Context switches, forks, interrupts, running and blocked processes, boot time.";
    Netstat "netstat" true ["netstat"]
        "TCP, UDP, IP and ICMP: connections, segments, errors and drops.";
    Vmstat "vmstat" true ["vmstat"] "Page faults, paging, swapping, and kills for want of memory.";
    Meminfo "meminfo" true ["meminfo"]
        "What the memory holds: cache, buffers, slab, dirty pages and more.";
    Filefd "filefd" true ["filefd"] "Open files of the whole machine.";
    Conntrack "conntrack" true ["conntrack"] "Connections that the firewall tracks.";
    Timex "timex" true ["timex"] "How well the clock is kept.";
    Time "time" false ["time"] "The time of the machine, and the clock that it goes by.";
    Cpufreq "cpufreq" true ["cpufreq"] "Frequencies of CPUs, and their limits.";
    Thermal "thermal" true ["thermal_zone"] "Temperatures of thermal zones, and cooling devices.";
    Hwmon "hwmon" true ["hwmon"] "Sensors: temperatures, fans, voltages, power.";
    Edac "edac" true ["edac"] "Errors of the machine's memory.";
    Md "md" true ["mdadm"] "Arrays of disks (RAID) in software.";
    Bonding "bonding" true ["bonding"] "Bonds of network devices.";
    Infiniband "infiniband" true ["infiniband"] "InfiniBand ports.";
    Nvme "nvme" true ["nvme"] "NVMe disks, as labels.";
    Power "power" true ["powersupplyclass"] "Batteries and power supplies.";
    Rapl "rapl" true ["rapl"] "Energy that CPU packages have used.";
    Info "info" true ["os" "uname"] "Kernel, operating system and CPU model, as labels.";
    Textfile "textfile" true ["textfile"]
        "Metrics that other programs write to files, in a folder that is given.";
    Sockstat "sockstat" false ["sockstat"] "Sockets by protocol, and their memory.";
    Softnet "softnet" false ["softnet"] "Packets that each CPU processed.";
    Netclass "netclass" false ["netclass"] "State, speed and more of network devices.";
    Schedstat "schedstat" false ["schedstat"] "Time that threads ran and waited on each CPU.";
    Arp "arp" false ["arp"] "Neighbours of network devices.";
    UdpQueues "udp_queues" false ["udp_queues"] "Bytes that wait in the queues of UDP sockets.";
    Entropy "entropy" false ["entropy"] "Entropy of the kernel's random numbers.";
    Selinux "selinux" false ["selinux"] "Whether SELinux is on.";
    Dmi "dmi" false ["dmi"] "What the firmware says of the machine, as labels.";
    Zfs "zfs" false ["zfs"] "ZFS: caches, pools and data sets.";
    Xfs "xfs" false ["xfs"] "XFS: extents, blocks, directories and inodes.";
    Btrfs "btrfs" false ["btrfs"] "Btrfs: devices, and space by kind and layout.";
    Bcache "bcache" false ["bcache"] "Caches of block devices.";
    Nfs "nfs" false ["nfs"] "What this machine asks of NFS servers.";
    Nfsd "nfsd" false ["nfsd"] "What this machine serves by NFS.";
    Ipvs "ipvs" false ["ipvs"] "Virtual servers in the kernel.";
    FibreChannel "fibrechannel" false ["fibrechannel"] "Fibre channel adapters.";
    Tapes "tapes" false ["tapestats"] "Tapes.";
    Processes "processes" false [] "All processes by state: a scan of the whole process table.";
}

impl Source {
    /// The source of that name, be it ours or that of a collector of node_exporter.
    pub fn from_name(name: &str) -> Option<Source> {
        let named =
            |source: &&Source| source.name() == name || source.node_collectors().contains(&name);
        Source::ALL.iter().find(named).copied()
    }

    /// The sources that are on by default under these names: with those of node_exporter, all that
    /// it reads by default as well.
    pub fn defaults(names: Names) -> Vec<Source> {
        let is_on = |source: &Source| {
            let of_node = names == Names::Node && !source.node_collectors().is_empty();
            source.on_by_default() || of_node
        };
        Source::ALL.iter().copied().filter(is_on).collect()
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
            for collector in source.node_collectors() {
                assert_eq!(Source::from_name(collector), Some(source));
            }
        }
        assert_eq!(Source::from_name("cpus"), None);
    }
}
