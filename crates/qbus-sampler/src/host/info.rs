//! What the machine is, as labels: kernel and system by their own files, the CPU by sysinfo.

use std::path::PathBuf;

use sysinfo::{CpuRefreshKind, System};

use crate::config::Roots;
use crate::kernel_file::read_once;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::table::Reading;

/// The keys of `os-release` that are labels, in small letters.
const OS_LABELS: [&str; 9] = [
    "id",
    "id_like",
    "name",
    "pretty_name",
    "variant",
    "variant_id",
    "version",
    "version_codename",
    "version_id",
];

/// Kernel, operating system and CPU model.
pub(crate) struct Info {
    /// `/proc/sys/kernel`.
    kernel: PathBuf,
    root: PathBuf,
}

impl Info {
    pub(crate) fn new(roots: &Roots) -> Info {
        Info {
            kernel: roots.proc.join("sys/kernel"),
            root: roots.root.clone(),
        }
    }
}

impl Probe for Info {
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
        let text = ["etc/os-release", "usr/lib/os-release"]
            .iter()
            .find_map(|place| {
                let text = read_once(&self.root.join(place), &mut buffer);
                text.ok().map(str::to_owned)
            });
        if let Some(text) = text {
            let value = |label: &str| os_value(&text, label).unwrap_or_default().to_owned();
            push_info(
                Reading::Os,
                &OS_LABELS.map(|label| (label, value(label))),
                out,
            );
        }
        push_cpu(out)
    }
}

/// The value of a key, which may stand in quotes.
fn os_value<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    let key = label.to_ascii_uppercase();
    let is_key = |line: &&str| line.split_once('=').is_some_and(|(found, _)| found == key);
    let (_, value) = text.lines().find(is_key)?.split_once('=')?;
    Some(value.trim().trim_matches(['"', '\'']))
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
