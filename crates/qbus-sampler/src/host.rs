//! The sources of [`SamplerOptions`], made ready.

mod cpu;
mod disk;
mod file;
mod filesystem;
mod info;
mod keyed;
mod memory;
mod network;
pub(crate) mod pressure;
mod processes;
mod thermal;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::cgroup;
use crate::config::{SamplerOptions, Source};
use crate::family::Names;
use crate::kernel_file::SharedFile;
use crate::process;
use crate::sampler::{Reader, Sampler};
use file::{File, Parse};

/// Space of file systems changes slowly, and asking them can be slow as well.
const SPACE_PERIOD: Duration = Duration::from_secs(10);

/// Temperatures change within seconds, and some sensors take milliseconds to say theirs.
const SENSOR_PERIOD: Duration = Duration::from_secs(5);

/// A scan of the process table costs microseconds for each process.
const SCAN_PERIOD: Duration = Duration::from_secs(10);

/// A machine changes its name or its system once in a blue moon.
const INFO_PERIOD: Duration = Duration::from_secs(300);

/// Gives `sampler` the sources that `config` names.
pub(crate) fn add_sources(sampler: &mut Sampler, config: &SamplerOptions) {
    let proc = &config.roots.proc;
    // Two sources read it, and on a machine of many CPUs it is the dearest file of all.
    let stat = Arc::new(Mutex::new(SharedFile::new(proc.join("stat"))));
    for &source in Source::ALL
        .iter()
        .filter(|source| config.sources.contains(source))
    {
        let each_tick = Duration::ZERO;
        let mut add = |period, may_hang, reader: Box<dyn Reader>| {
            sampler.add(source.name(), period, may_hang, reader);
        };
        let file = |path: &str, parse: Parse| Box::new(File::new(proc.join(path), parse));
        match source {
            Source::Cpu => {
                let per_cpu = config.per_cpu || config.names == Names::Node;
                let reader = cpu::Cpu::new(&config.roots, Arc::clone(&stat), per_cpu);
                add(each_tick, false, Box::new(reader));
            }
            Source::Stat => {
                add(
                    each_tick,
                    false,
                    Box::new(keyed::Stat {
                        file: Arc::clone(&stat),
                    }),
                );
            }
            Source::Memory => add(each_tick, false, Box::<memory::Memory>::default()),
            Source::Meminfo => add(each_tick, false, file("meminfo", keyed::parse_meminfo)),
            Source::Vmstat => add(each_tick, false, file("vmstat", keyed::parse_vmstat)),
            Source::Load => add(each_tick, false, file("loadavg", keyed::parse_loadavg)),
            Source::Filefd => add(
                each_tick,
                false,
                file("sys/fs/file-nr", keyed::parse_file_nr),
            ),
            Source::Disk => add(each_tick, false, file("diskstats", disk::parse)),
            Source::Network => add(each_tick, false, file("net/dev", network::parse_devices)),
            Source::Tcp => add(each_tick, false, file("net/snmp", network::parse_tcp)),
            Source::Pressure => {
                add(
                    each_tick,
                    false,
                    Box::new(pressure::Pressure::new(&proc.join("pressure"))),
                );
            }
            Source::Filesystem => {
                add(
                    SPACE_PERIOD,
                    true,
                    Box::new(filesystem::Filesystems::new(&config.roots)),
                );
            }
            Source::Thermal => {
                let labels = config.names != Names::Node;
                let reader = thermal::Thermal::new(&config.roots.sys, labels);
                add(SENSOR_PERIOD, true, Box::new(reader));
            }
            Source::Info => add(INFO_PERIOD, false, Box::new(info::Info::new(&config.roots))),
            Source::Processes => {
                add(SCAN_PERIOD, true, Box::<processes::AllProcesses>::default());
            }
            Source::Process => add(each_tick, false, Box::new(process::Processes::new(config))),
            Source::Cgroup => add(each_tick, false, Box::new(cgroup::Cgroups::new(config))),
            #[cfg(feature = "gpu")]
            Source::Gpu => add(each_tick, true, Box::new(crate::gpu::Gpus::new(config))),
            #[cfg(not(feature = "gpu"))]
            Source::Gpu => {}
        }
    }
}
