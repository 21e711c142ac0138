//! The sources of [`SamplerOptions`], made ready.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::cgroup;
use crate::config::{SamplerOptions, Source};
use crate::host::amd_gpu::AmdGpus;
use crate::host::cpu_frequency::CpuFrequencies;
use crate::host::file::{File, Parse};
use crate::host::hardware::Hardware;
use crate::host::net_files::NetFiles;
use crate::host::{
    clock, cpu, disk, filesystem, hwmon, infiniband, info, keyed, md, memory, net_class, netstat,
    network, numbers, pressure, processes, textfile, thermal,
};
use crate::kernel_file::SharedFile;
use crate::node_metric::Catalog;
use crate::probe::Probe;
use crate::process;

/// Space of file systems changes slowly, and asking them can be slow as well.
const SPACE_PERIOD: Duration = Duration::from_secs(10);

/// Temperatures change within seconds, and some sensors take milliseconds to say theirs.
const SENSOR_PERIOD: Duration = Duration::from_secs(5);

/// Folders of `/sys` cost some microseconds for each of their many files.
const CLASS_PERIOD: Duration = Duration::from_secs(10);

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

/// How a source is read: at most once in a time, on a thread of its own or not, and by what.
type Plan = (Duration, bool, Box<dyn Probe>);

fn one(source: Source, config: &SamplerOptions, stat: &Arc<Mutex<SharedFile>>) -> Option<Ready> {
    let (period, may_hang, probe) = of_files(source, config, stat)
        .or_else(|| of_devices(source, config))
        .or_else(|| of_users(source, config))?;
    Some(Ready {
        source,
        period,
        may_hang,
        probe,
    })
}

fn each_tick(probe: impl Probe + 'static) -> Option<Plan> {
    Some((Duration::ZERO, false, Box::new(probe)))
}

fn seldom(period: Duration, probe: impl Probe + 'static) -> Option<Plan> {
    Some((period, false, Box::new(probe)))
}

/// On a thread of its own.
fn apart(period: Duration, probe: impl Probe + 'static) -> Option<Plan> {
    Some((period, true, Box::new(probe)))
}

/// What the kernel says in files of `/proc`.
fn of_files(
    source: Source,
    config: &SamplerOptions,
    stat: &Arc<Mutex<SharedFile>>,
) -> Option<Plan> {
    let (proc, filters) = (&config.roots.proc, &config.filters);
    let file = |path: &str, parse: Parse| each_tick(File::new(proc.join(path), parse));
    let mut catalog = Catalog::default();
    match source {
        Source::Cpu => each_tick(cpu::Cpu::new(config, Arc::clone(stat))),
        Source::Stat => each_tick(keyed::Stat {
            file: Arc::clone(stat),
        }),
        Source::Memory => file("meminfo", Box::new(memory::parse_basic)),
        Source::Meminfo => file(
            "meminfo",
            Box::new(move |text, out| memory::parse_whole(text, &mut catalog, out)),
        ),
        Source::Vmstat => {
            let fields = filters.vmstat_fields.clone();
            file(
                "vmstat",
                Box::new(move |text, out| keyed::parse_vmstat(text, &fields, &mut catalog, out)),
            )
        }
        Source::Load => file("loadavg", Box::new(keyed::parse_loadavg)),
        Source::Filefd => file("sys/fs/file-nr", Box::new(keyed::parse_file_nr)),
        Source::Md => file(
            "mdstat",
            Box::new(move |text, out| md::parse(text, &mut catalog, out)),
        ),
        Source::Network => {
            let choice = filters.netdev.clone();
            let parse: Parse =
                Box::new(move |text, out| network::parse_devices(text, &choice, out));
            each_tick(File::new(config.roots.net().join("dev"), parse))
        }
        Source::Netstat => each_tick(netstat::Netstat::new(
            &config.roots.net(),
            &filters.netstat_fields,
        )),
        Source::Sockstat => each_tick(NetFiles::sockstat(&config.roots.net())),
        Source::Softnet => each_tick(NetFiles::softnet(&config.roots.net())),
        Source::Arp => each_tick(NetFiles::arp(&config.roots.net(), &filters.arp)),
        Source::UdpQueues => each_tick(NetFiles::udp_queues(&config.roots.net())),
        Source::Schedstat => each_tick(NetFiles::schedstat(proc)),
        Source::Conntrack => each_tick(NetFiles::conntrack(&config.roots)),
        Source::Entropy => each_tick(numbers::Numbers::new(proc, numbers::ENTROPY)),
        Source::Pressure => each_tick(pressure::Pressure::new(&proc.join("pressure"))),
        Source::Disk => each_tick(disk::Disks::new(&config.roots, &filters.diskstats)),
        Source::Info => seldom(INFO_PERIOD, info::Info::new(&config.roots)),
        Source::Processes => apart(SCAN_PERIOD, processes::AllProcesses::new(proc.clone())),
        _ => None,
    }
}

/// What `/sys` says of devices, and what mounts and clocks say. Some devices are behind a slow bus.
fn of_devices(source: Source, config: &SamplerOptions) -> Option<Plan> {
    let (proc, sys, filters) = (&config.roots.proc, &config.roots.sys, &config.filters);
    match source {
        Source::Filesystem => apart(SPACE_PERIOD, filesystem::Filesystems::new(config)),
        Source::Thermal => apart(SENSOR_PERIOD, thermal::Thermal::new(sys)),
        Source::Hwmon => {
            let hwmon = hwmon::Hwmon::new(sys, &filters.hwmon, config.names);
            apart(SENSOR_PERIOD, hwmon)
        }
        Source::Cpufreq => apart(SENSOR_PERIOD, CpuFrequencies::new(config)),
        Source::Netclass => apart(
            CLASS_PERIOD,
            net_class::NetClass::new(sys, &filters.netclass),
        ),
        Source::Bonding => each_tick(net_class::Bonds::new(sys)),
        Source::Infiniband => apart(CLASS_PERIOD, infiniband::Infiniband::new(sys)),
        Source::Edac => seldom(CLASS_PERIOD, Hardware::edac(sys)),
        Source::Nvme => apart(INFO_PERIOD, Hardware::nvme(sys)),
        Source::Power => apart(CLASS_PERIOD, Hardware::power(sys, &filters.power_supply)),
        Source::Rapl => apart(SENSOR_PERIOD, Hardware::rapl(sys)),
        Source::Dmi => seldom(INFO_PERIOD, Hardware::dmi(sys)),
        Source::Selinux => seldom(INFO_PERIOD, Hardware::selinux(sys)),
        Source::Amdgpu => apart(Duration::ZERO, AmdGpus::new(sys)),
        Source::Zfs => seldom(CLASS_PERIOD, Hardware::zfs(proc)),
        Source::Xfs => seldom(CLASS_PERIOD, Hardware::xfs(sys)),
        Source::Btrfs => seldom(CLASS_PERIOD, Hardware::btrfs(sys)),
        Source::Bcache => seldom(CLASS_PERIOD, Hardware::bcache(sys)),
        Source::Nfs => seldom(CLASS_PERIOD, Hardware::nfs(&config.roots.net())),
        Source::Nfsd => seldom(CLASS_PERIOD, Hardware::nfsd(&config.roots.net())),
        Source::Ipvs => seldom(CLASS_PERIOD, Hardware::ipvs(&config.roots.net())),
        Source::FibreChannel => apart(CLASS_PERIOD, Hardware::fibre_channel(sys)),
        Source::Tapes => apart(CLASS_PERIOD, Hardware::tapes(sys)),
        Source::Timex => each_tick(clock::TimexProbe::default()),
        Source::Time => each_tick(clock::Time::new(sys)),
        Source::Textfile => {
            let folder = filters.textfile_directory.clone();
            apart(SENSOR_PERIOD, textfile::Textfiles::new(folder))
        }
        _ => None,
    }
}

/// What is known of those who use the machine.
fn of_users(source: Source, config: &SamplerOptions) -> Option<Plan> {
    match source {
        Source::Process => each_tick(process::Processes::new(config)),
        Source::Cgroup => each_tick(cgroup::Cgroups::new(config)),
        #[cfg(feature = "gpu")]
        Source::Gpu => apart(Duration::ZERO, crate::gpu::Gpus::new(config)),
        _ => None,
    }
}
