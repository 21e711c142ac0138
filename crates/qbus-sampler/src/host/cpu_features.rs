//! What `/sys/devices/system/cpu` and `/proc/cpuinfo` say of CPUs beside their times:
//! throttling, isolation, model and flags.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::config::SamplerOptions;
use crate::filters::{Filters, Pattern};
use crate::kernel_file::read_once;
use crate::node_metric::Catalog;
use crate::readings::Readings;
use crate::sysfs::{items, number, word};

/// Most of it never changes, and throttling is seldom.
const PERIOD: Duration = Duration::from_secs(10);

/// A value of a metric, which is a counter or not, with its labels.
type Kept = (String, bool, Vec<(&'static str, String)>, f64);

/// Reads what the last read is too old of.
pub(crate) struct Features {
    cpus: PathBuf,
    cpuinfo: PathBuf,
    filters: Filters,
    catalog: Catalog,
    kept: Vec<Kept>,
    read: Option<Instant>,
    buffer: Vec<u8>,
}

impl Features {
    pub(crate) fn new(config: &SamplerOptions) -> Features {
        Features {
            cpus: config.roots.sys.join("devices/system/cpu"),
            cpuinfo: config.roots.proc.join("cpuinfo"),
            filters: config.filters.clone(),
            catalog: Catalog::default(),
            kept: Vec::new(),
            read: None,
            buffer: Vec::new(),
        }
    }

    pub(crate) fn read(&mut self, now: Instant, out: &mut Readings) {
        let fresh = |read: Instant| now.saturating_duration_since(read) < PERIOD;
        if !self.read.is_some_and(fresh) {
            self.read = Some(now);
            self.kept.clear();
            self.read_throttling();
            self.read_isolated();
            self.read_info();
        }
        for (name, is_counter, labels, value) in &self.kept {
            let help = "What a CPU says of itself.";
            let metric = match is_counter {
                true => self.catalog.counter(name, help),
                false => self.catalog.gauge(name, help),
            };
            let labels: Vec<_> = labels
                .iter()
                .map(|(name, value)| (*name, &**value))
                .collect();
            out.push_node(metric, &labels, *value);
        }
    }

    fn keep(&mut self, name: &str, labels: &[(&'static str, &str)], value: f64) {
        let labels = labels
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        let is_counter = name.ends_with("_total");
        let kept = (
            format!("node_cpu_{name}"),
            is_counter,
            labels.collect(),
            value,
        );
        self.kept.push(kept);
    }

    /// Threads of one core count the same.
    fn read_throttling(&mut self) {
        let (mut cores, mut packages) = (BTreeMap::new(), BTreeMap::new());
        for cpu in items(&self.cpus, "cpu") {
            let buffer = &mut self.buffer;
            let throttle = cpu.path.join("thermal_throttle");
            let topology = cpu.path.join("topology");
            let Some(package) = word(&topology.join("physical_package_id"), buffer) else {
                continue;
            };
            let Some(core) = word(&topology.join("core_id"), buffer) else {
                continue;
            };
            if let Some(times) = number(&throttle.join("package_throttle_count"), buffer) {
                packages.entry(package.clone()).or_insert(times);
            }
            if let Some(times) = number(&throttle.join("core_throttle_count"), buffer) {
                cores.entry((package, core)).or_insert(times);
            }
        }
        for ((package, core), times) in cores {
            let labels = [("package", &*package), ("core", &*core)];
            self.keep("core_throttles_total", &labels, times);
        }
        for (package, times) in packages {
            self.keep("package_throttles_total", &[("package", &package)], times);
        }
    }

    /// `1,3-5,9`
    fn read_isolated(&mut self) {
        let text = word(&self.cpus.join("isolated"), &mut self.buffer).unwrap_or_default();
        for range in text.split(',').filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else {
                continue;
            };
            // No machine has more CPUs: a text that says so is malformed.
            for cpu in first..=last.min(first.saturating_add(8191)) {
                self.keep("isolated", &[("cpu", &cpu.to_string())], 1.0);
            }
        }
    }

    /// Model and flags, where they are asked for.
    fn read_info(&mut self) {
        let wants_flags =
            self.filters.cpu_flags_include.is_some() || self.filters.cpu_bugs_include.is_some();
        if !self.filters.cpu_info && !wants_flags {
            return;
        }
        let text = read_once(&self.cpuinfo, &mut self.buffer)
            .unwrap_or_default()
            .to_owned();
        let blocks = text.split("\n\n").filter(|block| !block.trim().is_empty());
        for (place, block) in blocks.enumerate() {
            let field = |wanted: &str| {
                let fields = block.lines().filter_map(|line| line.split_once(':'));
                let mut fields = fields.map(|(key, value)| (key.trim(), value.trim()));
                fields
                    .find(|(key, _)| *key == wanted)
                    .map_or("", |(_, value)| value)
            };
            if self.filters.cpu_info {
                let labels = [
                    ("package", field("physical id")),
                    ("core", field("core id")),
                    ("cpu", field("processor")),
                    ("vendor", field("vendor_id")),
                    ("family", field("cpu family")),
                    ("model", field("model")),
                    ("model_name", field("model name")),
                    ("microcode", field("microcode")),
                    ("stepping", field("stepping")),
                    ("cachesize", field("cache size")),
                ];
                self.keep("info", &labels, 1.0);
            }
            // All CPUs of a machine have the same.
            if place > 0 {
                continue;
            }
            let wanted = |words: &str, only: &Option<Pattern>| -> Vec<String> {
                let Some(only) = only else { return Vec::new() };
                let words = words.split(' ').filter(|word| only.matches(word));
                words.map(str::to_owned).collect()
            };
            for flag in wanted(field("flags"), &self.filters.cpu_flags_include) {
                self.keep("flag_info", &[("flag", &flag)], 1.0);
            }
            for bug in wanted(field("bugs"), &self.filters.cpu_bugs_include) {
                self.keep("bug_info", &[("bug", &bug)], 1.0);
            }
        }
    }
}
