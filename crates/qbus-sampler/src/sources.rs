//! The sources of [`SamplerOptions`], made ready.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::cgroup;
use crate::config::{SamplerOptions, Source};
use crate::host::file::{File, Parse};
use crate::host::{
    cpu, disk, filesystem, info, keyed, memory, network, numbers, pressure, processes, thermal,
};
use crate::kernel_file::SharedFile;
use crate::metric::Names;
use crate::probe::Probe;
use crate::process;

/// Space of file systems changes slowly, and asking them can be slow as well.
const SPACE_PERIOD: Duration = Duration::from_secs(10);

/// Temperatures change within seconds, and some sensors take milliseconds to say theirs.
const SENSOR_PERIOD: Duration = Duration::from_secs(5);

/// A scan of the process table costs microseconds for each process.
const SCAN_PERIOD: Duration = Duration::from_secs(10);

/// A machine changes its name or its system once in a blue moon.
const INFO_PERIOD: Duration = Duration::from_secs(300);

/// A source that is ready to be read.
pub(crate) struct Ready {
    pub(crate) source: Source,
    /// It is read at most once in this time.
    pub(crate) period: Duration,
    /// Whether it needs a thread of its own.
    pub(crate) may_hang: bool,
    pub(crate) probe: Box<dyn Probe>,
}

/// The sources that `config` names.
pub(crate) fn ready(config: &SamplerOptions) -> Vec<Ready> {
    let stat = SharedFile::new(config.roots.proc.join("stat"));
    // Two sources read it, and on a machine of many CPUs it is the dearest file of all.
    let stat = Arc::new(Mutex::new(stat));
    let wanted = |source: &&Source| config.sources.contains(source);
    Source::ALL
        .iter()
        .filter(wanted)
        .filter_map(|&source| one(source, config, &stat))
        .collect()
}

fn one(source: Source, config: &SamplerOptions, stat: &Arc<Mutex<SharedFile>>) -> Option<Ready> {
    let proc = &config.roots.proc;
    let file = |path: &str, parse: Parse| -> (Duration, bool, Box<dyn Probe>) {
        (
            Duration::ZERO,
            false,
            Box::new(File::new(proc.join(path), parse)),
        )
    };
    let each_tick = |probe: Box<dyn Probe>| (Duration::ZERO, false, probe);
    let (period, may_hang, probe): (Duration, bool, Box<dyn Probe>) = match source {
        Source::Cpu => {
            let per_cpu = config.per_cpu || config.names == Names::Node;
            each_tick(Box::new(cpu::Cpu::new(
                &config.roots,
                Arc::clone(stat),
                per_cpu,
            )))
        }
        Source::Stat => each_tick(Box::new(keyed::Stat {
            file: Arc::clone(stat),
        })),
        Source::Memory => each_tick(Box::<memory::Memory>::default()),
        Source::Meminfo => file("meminfo", keyed::parse_meminfo),
        Source::Vmstat => file("vmstat", keyed::parse_vmstat),
        Source::Load => file("loadavg", keyed::parse_loadavg),
        Source::Filefd => file("sys/fs/file-nr", keyed::parse_file_nr),
        Source::Entropy => each_tick(Box::new(numbers::Numbers::new(proc, numbers::ENTROPY))),
        Source::Conntrack => each_tick(Box::new(numbers::Numbers::new(proc, numbers::CONNTRACK))),
        Source::Disk => file("diskstats", disk::parse),
        Source::Network => file("net/dev", network::parse_devices),
        Source::Tcp => file("net/snmp", network::parse_tcp),
        Source::Pressure => each_tick(Box::new(pressure::Pressure::new(&proc.join("pressure")))),
        Source::Filesystem => {
            let filesystems = filesystem::Filesystems::new(&config.roots);
            (SPACE_PERIOD, true, Box::new(filesystems))
        }
        Source::Thermal => {
            let labels = config.names != Names::Node;
            let thermal = thermal::Thermal::new(&config.roots.sys, labels);
            (SENSOR_PERIOD, true, Box::new(thermal))
        }
        Source::Info => (INFO_PERIOD, false, Box::new(info::Info::new(&config.roots))),
        Source::Processes => (SCAN_PERIOD, true, Box::<processes::AllProcesses>::default()),
        Source::Process => each_tick(Box::new(process::Processes::new(config))),
        Source::Cgroup => each_tick(Box::new(cgroup::Cgroups::new(config))),
        #[cfg(feature = "gpu")]
        Source::Gpu => (
            Duration::ZERO,
            true,
            Box::new(crate::gpu::Gpus::new(config)),
        ),
        #[cfg(not(feature = "gpu"))]
        Source::Gpu => return None,
    };
    Some(Ready {
        source,
        period,
        may_hang,
        probe,
    })
}
