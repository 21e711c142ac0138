//! The sources of [`Config`], made ready.

mod cpu;
mod keyed;
mod memory;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::config::{Config, Source};
use crate::family::Names;
use crate::kernel_file::SharedFile;
use crate::process;
use crate::sampler::{Reader, Sampler};

/// Gives `sampler` the sources that `config` names.
pub(crate) fn add_sources(sampler: &mut Sampler, config: &Config) {
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
        match source {
            Source::Cpu => {
                let per_cpu = config.per_cpu || config.names == Names::Node;
                let reader = cpu::Cpu::new(&config.roots, Arc::clone(&stat), per_cpu);
                add(each_tick, false, Box::new(reader));
            }
            Source::Memory => add(each_tick, false, Box::<memory::Memory>::default()),
            Source::Stat => {
                add(
                    each_tick,
                    false,
                    Box::new(keyed::Stat {
                        file: Arc::clone(&stat),
                    }),
                );
            }
            Source::Meminfo => {
                let reader = keyed::Keyed::new(proc.join("meminfo"), keyed::MEMINFO);
                add(each_tick, false, Box::new(reader));
            }
            Source::Vmstat => {
                let reader = keyed::Keyed::new(proc.join("vmstat"), keyed::VMSTAT);
                add(each_tick, false, Box::new(reader));
            }
            Source::Load => {
                let reader = keyed::Columns::new(proc.join("loadavg"), keyed::LOADAVG);
                add(each_tick, false, Box::new(reader));
            }
            Source::Filefd => {
                let reader = keyed::Columns::new(proc.join("sys/fs/file-nr"), keyed::FILE_NR);
                add(each_tick, false, Box::new(reader));
            }
            Source::Process => add(each_tick, false, Box::new(process::Processes::new(config))),
            _ => {}
        }
    }
}
