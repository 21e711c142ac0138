//! How fast CPUs run, and may run. Some kernels take ten milliseconds to measure that of an idle
//! CPU, one after another: the source has a thread of its own.

use std::path::{Path, PathBuf};

use crate::config::SamplerOptions;
use crate::kernel_file::read_once;
use crate::metric::Names;
use crate::node_metric::Catalog;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::sysfs::{items, number};
use crate::table::Reading;

/// Files below `cpufreq`, and how the metric goes on behind `node_cpu_`. What the driver itself
/// measures is for root to read.
const FILES: [(&str, &str); 5] = [
    ("cpuinfo_cur_freq", "frequency_hertz"),
    ("cpuinfo_min_freq", "frequency_min_hertz"),
    ("cpuinfo_max_freq", "frequency_max_hertz"),
    ("scaling_min_freq", "scaling_frequency_min_hertz"),
    ("scaling_max_freq", "scaling_frequency_max_hertz"),
];

/// Reads `/sys/devices/system/cpu`.
pub(crate) struct CpuFrequencies {
    cpus: PathBuf,
    cpuinfo: PathBuf,
    per_cpu: bool,
    node_names: bool,
    catalog: Catalog,
    buffer: Vec<u8>,
}

impl CpuFrequencies {
    pub(crate) fn new(config: &SamplerOptions) -> CpuFrequencies {
        let node_names = config.names == Names::Node;
        CpuFrequencies {
            cpus: config.roots.sys.join("devices/system/cpu"),
            cpuinfo: config.roots.proc.join("cpuinfo"),
            per_cpu: config.per_cpu || node_names,
            node_names,
            catalog: Catalog::default(),
            buffer: Vec::new(),
        }
    }

    /// The frequency of each CPU by its driver. Zero is no reading.
    fn of_drivers(&mut self, out: &mut Readings) -> Vec<(String, f64)> {
        let mut frequencies = Vec::new();
        for cpu in items(&self.cpus, "cpu") {
            let label = cpu.name.trim_start_matches("cpu");
            let folder = cpu.path.join("cpufreq");
            let mut hertz = |file: &str| {
                let kilohertz = number(&folder.join(file), &mut self.buffer);
                kilohertz.map(|kilohertz| kilohertz * 1e3)
            };
            if let Some(current) = hertz("scaling_cur_freq").filter(|hertz| *hertz > 0.0) {
                frequencies.push((label.to_owned(), current));
            }
            for (file, name) in FILES.iter().filter(|_| self.per_cpu) {
                if let Some(hertz) = hertz(file) {
                    let help = "What the driver of a CPU's frequency says.";
                    let metric = self.catalog.gauge(&format!("node_cpu_{name}"), help);
                    out.push_node(metric, &[("cpu", label)], hertz);
                }
            }
        }
        frequencies
    }
}

impl Probe for CpuFrequencies {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let of_drivers = self.of_drivers(out);
        // Without a driver, as in most virtual machines, `/proc/cpuinfo` may say a frequency.
        let is_from_driver = !of_drivers.is_empty();
        let frequencies = match is_from_driver {
            true => of_drivers,
            false => of_cpuinfo(&self.cpuinfo, &mut self.buffer),
        };
        if frequencies.is_empty() {
            let cpus = self.cpus.display();
            let message = format!("no frequency under {cpus}, nor in cpuinfo");
            return Err(Failure::Absent(message));
        }
        // A governor scales what its driver says alone.
        if self.per_cpu && (is_from_driver || !self.node_names) {
            for (cpu, hertz) in &frequencies {
                out.push(Reading::CpuCoreFrequency, &[("cpu", cpu)], *hertz);
            }
        }
        let sum: f64 = frequencies.iter().map(|(_, hertz)| hertz).sum();
        out.push(Reading::CpuFrequency, &[], sum / frequencies.len() as f64);
        Ok(())
    }
}

fn of_cpuinfo(path: &Path, buffer: &mut Vec<u8>) -> Vec<(String, f64)> {
    let mut frequencies = Vec::new();
    let mut cpu = None;
    for line in read_once(path, buffer).unwrap_or_default().lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        match key.trim() {
            "processor" => cpu = Some(value.trim().to_owned()),
            "cpu MHz" => {
                let hertz = value.trim().parse::<f64>().map(|megahertz| megahertz * 1e6);
                if let (Some(cpu), Ok(hertz)) = (cpu.take(), hertz)
                    && hertz > 0.0
                {
                    frequencies.push((cpu, hertz));
                }
            }
            _ => {}
        }
    }
    frequencies
}
