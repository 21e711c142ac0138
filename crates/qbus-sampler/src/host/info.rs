//! What the machine is, as labels, mostly as sysinfo reads it.

use std::path::{Path, PathBuf};

use sysinfo::{CpuRefreshKind, System};

use crate::kernel_file::read_once;
use crate::readings::Readings;
use crate::sampler::{Failure, Reader, Tick};
use crate::table::Reading;

/// Kernel, operating system and CPU model.
pub(crate) struct Info {
    /// `/proc/sys/kernel`.
    kernel: PathBuf,
}

impl Info {
    pub(crate) fn new(proc: &Path) -> Info {
        Info {
            kernel: proc.join("sys/kernel"),
        }
    }
}

impl Reader for Info {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let mut buffer = Vec::new();
        let mut word = |name| match read_once(&self.kernel.join(name), &mut buffer) {
            Ok(text) => text.trim().to_owned(),
            Err(_) => String::new(),
        };
        let labels = [
            ("sysname", word("ostype")),
            ("release", word("osrelease")),
            ("version", word("version")),
            ("machine", System::cpu_arch()),
            ("nodename", word("hostname")),
            ("domainname", word("domainname")),
        ];
        push_info(Reading::Uname, &labels, out);
        let os = [
            ("id", System::distribution_id()),
            ("name", System::name().unwrap_or_default()),
            ("pretty_name", System::long_os_version().unwrap_or_default()),
            ("version_id", System::os_version().unwrap_or_default()),
        ];
        push_info(Reading::Os, &os, out);
        push_cpu(out)
    }
}

fn push_cpu(out: &mut Readings) -> Result<(), Failure> {
    let mut system = System::new().map_err(|err| Failure::Failed(err.to_string()))?;
    system.refresh_cpu_list(CpuRefreshKind::nothing());
    if let Some(cpu) = system.cpus().first() {
        let labels = [
            ("vendor", cpu.vendor_id().to_owned()),
            ("model_name", cpu.brand().trim().to_owned()),
        ];
        push_info(Reading::CpuModel, &labels, out);
    }
    // Some virtual machines do not say.
    if let Ok(cores) = System::physical_core_count() {
        out.push(Reading::CpuCores, &[], cores as f64);
    }
    Ok(())
}

fn push_info(reading: Reading, labels: &[(&'static str, String)], out: &mut Readings) {
    let labels: Vec<_> = labels
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    out.push(reading, &labels, 1.0);
}
