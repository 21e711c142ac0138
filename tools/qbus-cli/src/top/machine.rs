//! The few numbers that sum the machine up, from whichever names the sampler gives them.

use super::store::{FamilyView, SeriesView, Store};

/// How a metric is called, and what its value is multiplied by to be in base units.
type Names = &'static [(&'static str, f64)];

const CPU_USAGE: Names = &[
    ("qbus_host_cpu_usage_ratio", 1.0),
    ("system_cpu_percent", 0.01),
];
const MEMORY_TOTAL: Names = &[
    ("qbus_host_memory_total_bytes", 1.0),
    ("node_memory_MemTotal_bytes", 1.0),
    ("system_memory_total_bytes", 1.0),
];
const MEMORY_AVAILABLE: Names = &[
    ("qbus_host_memory_available_bytes", 1.0),
    ("node_memory_MemAvailable_bytes", 1.0),
    ("system_memory_available_bytes", 1.0),
];
const LOAD: Names = &[("qbus_host_load1", 1.0), ("node_load1", 1.0)];
const MEBIBYTE: f64 = 1_048_576.0;
const GPU_USAGE: Names = &[
    ("qbus_gpu_utilization_ratio", 1.0),
    ("DCGM_FI_DEV_GPU_UTIL", 0.01),
    ("gpu_utilization_percent", 0.01),
];
const GPU_MEMORY_USED: Names = &[
    ("qbus_gpu_memory_used_bytes", 1.0),
    ("DCGM_FI_DEV_FB_USED", MEBIBYTE),
    ("gpu_memory_allocated_bytes", 1.0),
];
const GPU_MEMORY_TOTAL: Names = &[
    ("qbus_gpu_memory_total_bytes", 1.0),
    ("gpu_memory_total_bytes", 1.0),
];
const GPU_MEMORY_FREE: Names = &[("DCGM_FI_DEV_FB_FREE", MEBIBYTE)];
const GPU_TEMPERATURE: Names = &[
    ("qbus_gpu_temperature_celsius", 1.0),
    ("DCGM_FI_DEV_GPU_TEMP", 1.0),
    ("gpu_temperature_celsius", 1.0),
];
const GPU_POWER: Names = &[
    ("qbus_gpu_power_watts", 1.0),
    ("DCGM_FI_DEV_POWER_USAGE", 1.0),
    ("gpu_power_watts", 1.0),
];

/// Rates of all of a kind: of disks, of networks; the loopback device is left out.
const SUMS: [(&str, &[&str]); 4] = [
    (
        "read",
        &[
            "qbus_host_disk_read_bytes_total",
            "node_disk_read_bytes_total",
        ],
    ),
    (
        "written",
        &[
            "qbus_host_disk_written_bytes_total",
            "node_disk_written_bytes_total",
        ],
    ),
    (
        "received",
        &[
            "qbus_host_network_receive_bytes_total",
            "node_network_receive_bytes_total",
        ],
    ),
    (
        "sent",
        &[
            "qbus_host_network_transmit_bytes_total",
            "node_network_transmit_bytes_total",
        ],
    ),
];
/// Shares of time in which something waited.
const PRESSURES: [(&str, &[&str]); 3] = [
    (
        "cpu",
        &[
            "qbus_host_pressure_cpu_waiting_seconds_total",
            "node_pressure_cpu_waiting_seconds_total",
        ],
    ),
    (
        "memory",
        &[
            "qbus_host_pressure_memory_waiting_seconds_total",
            "node_pressure_memory_waiting_seconds_total",
        ],
    ),
    (
        "io",
        &[
            "qbus_host_pressure_io_waiting_seconds_total",
            "node_pressure_io_waiting_seconds_total",
        ],
    ),
];

/// The machine; NaN stands for what nobody sampled.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    pub(crate) cpu: f64,
    pub(crate) cpu_bars: Vec<f32>,
    pub(crate) cores: Vec<(String, f64)>,
    pub(crate) memory_used: f64,
    pub(crate) memory_total: f64,
    pub(crate) load: f64,
    pub(crate) rates: Vec<(&'static str, f64)>,
    pub(crate) pressures: Vec<(&'static str, f64)>,
    /// Of the control group that limits this machine's workers, if one does.
    pub(crate) limits: Vec<(String, f64, f64)>,
    pub(crate) gpus: Vec<Gpu>,
}

/// A GPU.
#[derive(Debug)]
pub(crate) struct Gpu {
    pub(crate) name: String,
    pub(crate) usage: f64,
    pub(crate) bars: Vec<f32>,
    pub(crate) memory_used: f64,
    pub(crate) memory_total: f64,
    pub(crate) temperature: f64,
    pub(crate) power: f64,
}

fn label<'a>(one: &'a SeriesView, name: &str) -> Option<&'a str> {
    let found = one.labels.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

fn family(store: &Store, names: Names) -> Option<(&FamilyView, f64)> {
    let found = names
        .iter()
        .find_map(|(name, factor)| Some((store.find(name)?, *factor)));
    found.filter(|(view, _)| !view.series.is_empty())
}

fn value(store: &Store, names: Names) -> f64 {
    family(store, names).map_or(f64::NAN, |(view, factor)| view.now * factor)
}

/// The value of the series with that label.
fn value_of(store: &Store, names: Names, gpu: &str) -> f64 {
    let found = family(store, names).and_then(|(view, factor)| {
        let one = view
            .series
            .iter()
            .find(|one| label(one, "gpu") == Some(gpu))?;
        Some(one.now * factor)
    });
    found.unwrap_or(f64::NAN)
}

/// Of node_exporter's names: the part of all time that was not idle, nor waited for a disk, nor
/// another guest's.
fn node_cpu(store: &Store) -> f64 {
    const IDLE: [&str; 3] = ["idle", "iowait", "steal"];
    let Some(view) = store.find("node_cpu_seconds_total") else {
        return f64::NAN;
    };
    let modes = view
        .series
        .iter()
        .map(|one| (label(one, "mode").unwrap_or(""), one.now));
    let known = modes.filter(|(_, rate)| !rate.is_nan());
    let (busy, all) = known.fold((0.0, 0.0), |(busy, all), (mode, rate)| {
        match IDLE.contains(&mode) {
            true => (busy, all + rate),
            false => (busy + rate, all + rate),
        }
    });
    if all > 0.0 { busy / all } else { f64::NAN }
}

impl Machine {
    /// As of the last reading, with a minute in so many columns.
    pub(crate) fn of(store: &Store, columns: usize) -> Machine {
        let bars = |view: &FamilyView| view.ring.last(store.tick, 60, columns);
        let cpu = value(store, CPU_USAGE);
        let total = value(store, MEMORY_TOTAL);
        let rate = |names: &[&str]| {
            let view = names.iter().find_map(|name| store.find(name))?;
            let outward = view
                .series
                .iter()
                .filter(|one| label(one, "device") != Some("lo"));
            let known = outward.map(|one| one.now).filter(|now| !now.is_nan());
            Some(known.fold(
                f64::NAN,
                |sum, now| if sum.is_nan() { now } else { sum + now },
            ))
        };
        let all = |table: &[(&'static str, &[&str])]| {
            let known = table
                .iter()
                .filter_map(|(title, names)| Some((*title, rate(names)?)));
            known.collect()
        };
        Machine {
            cpu: if cpu.is_nan() { node_cpu(store) } else { cpu },
            cpu_bars: family(store, CPU_USAGE).map_or_else(Vec::new, |(view, _)| bars(view)),
            cores: cores(store),
            memory_used: total - value(store, MEMORY_AVAILABLE),
            memory_total: total,
            load: value(store, LOAD),
            rates: all(&SUMS),
            pressures: all(&PRESSURES),
            limits: limits(store),
            gpus: gpus(store, columns),
        }
    }
}

fn cores(store: &Store) -> Vec<(String, f64)> {
    let Some(view) = store.find("qbus_host_cpu_core_usage_ratio") else {
        return Vec::new();
    };
    let named = view
        .series
        .iter()
        .map(|one| (label(one, "cpu").unwrap_or("").to_owned(), one.now));
    let mut cores: Vec<_> = named.collect();
    cores.sort_by_key(|(name, _)| (name.len(), name.clone()));
    cores
}

/// What a control group uses of the memory that it may use.
fn limits(store: &Store) -> Vec<(String, f64, f64)> {
    let (Some(limit), Some(used)) = (
        store.find("qbus_cgroup_memory_limit_bytes"),
        store.find("qbus_cgroup_memory_working_set_bytes"),
    ) else {
        return Vec::new();
    };
    let of = |one: &SeriesView| {
        let used = used
            .series
            .iter()
            .find(|other| other.labels == one.labels)?;
        let name = one
            .labels
            .iter()
            .map(|(_, value)| value.as_str())
            .collect::<Vec<_>>();
        Some((name.join(" "), used.now, one.now))
    };
    let bounded = limit.series.iter().filter(|one| one.now.is_finite());
    bounded.filter_map(of).collect()
}

fn gpus(store: &Store, columns: usize) -> Vec<Gpu> {
    let named = [GPU_USAGE, GPU_MEMORY_USED]
        .into_iter()
        .find_map(|names| family(store, names));
    let Some((view, _)) = named else {
        return Vec::new();
    };
    let mut names: Vec<&str> = view
        .series
        .iter()
        .filter_map(|one| label(one, "gpu"))
        .collect();
    names.sort_by_key(|name| (name.len(), *name));
    names.dedup();
    let gpu = |name: &str| {
        let usage = family(store, GPU_USAGE).and_then(|(view, _)| {
            view.series
                .iter()
                .find(|one| label(one, "gpu") == Some(name))
        });
        let bars = usage.and_then(|one| one.ring.as_ref());
        let used = value_of(store, GPU_MEMORY_USED, name);
        let total = value_of(store, GPU_MEMORY_TOTAL, name);
        Gpu {
            name: name.to_owned(),
            usage: value_of(store, GPU_USAGE, name),
            bars: bars.map_or_else(Vec::new, |ring| ring.last(store.tick, 60, columns)),
            memory_used: used,
            memory_total: if total.is_nan() {
                used + value_of(store, GPU_MEMORY_FREE, name)
            } else {
                total
            },
            temperature: value_of(store, GPU_TEMPERATURE, name),
            power: value_of(store, GPU_POWER, name),
        }
    };
    names.into_iter().map(gpu).collect()
}
