//! Host values against `/proc`, read here in another way.

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use qbus_sampler::{Names, Source};

use crate::support::{assert_between, page, sampler, tick, write_tree};

/// The first number after `key` in a file.
fn number(path: &str, key: &str) -> f64 {
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line[key.len()..]
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn memory_is_what_meminfo_says() {
    let read = |key| number("/proc/meminfo", key) * 1024.0;
    let (free, available) = (read("MemFree:"), read("MemAvailable:"));
    let page = page(&[Source::Memory, Source::Meminfo]);
    let slack = f64::from(512 << 20);
    assert_eq!(
        page.value("qbus_host_memory_total_bytes"),
        read("MemTotal:")
    );
    assert_between(
        free,
        page.value("qbus_host_memory_free_bytes"),
        read("MemFree:"),
        slack,
    );
    let got = page.value("qbus_host_memory_available_bytes");
    assert_between(available, got, read("MemAvailable:"), slack);
    let total = page.value("qbus_host_memory_total_bytes");
    assert_eq!(page.value("qbus_host_memory_used_bytes"), total - got);
    assert!((page.value("qbus_host_memory_used_ratio") - (total - got) / total).abs() < 1e-12);
    assert_eq!(page.value("qbus_host_swap_total_bytes"), read("SwapTotal:"));
    assert_between(
        read("Cached:"),
        page.value("qbus_host_memory_cached_bytes"),
        read("Cached:"),
        slack,
    );
    assert_eq!(
        page.value("qbus_host_huge_page_size_bytes"),
        read("Hugepagesize:")
    );
}

#[test]
fn totals_lie_between_two_readings_of_proc() {
    let read = || {
        [
            number("/proc/stat", "ctxt"),
            number("/proc/stat", "processes"),
            number("/proc/stat", "intr"),
            number("/proc/vmstat", "pgfault"),
            number("/proc/vmstat", "pgpgout") * 1024.0,
        ]
    };
    let before = read();
    let page = page(&[Source::Stat, Source::Vmstat, Source::Load, Source::Filefd]);
    let after = read();
    let names = [
        "qbus_host_context_switches_total",
        "qbus_host_forks_total",
        "qbus_host_interrupts_total",
        "qbus_host_page_faults_total",
        "qbus_host_page_out_bytes_total",
    ];
    for (at, name) in names.into_iter().enumerate() {
        // The kernel folds its per-CPU counts now and then, and a reading can run ahead of that.
        assert_between(before[at], page.value(name), after[at], 1e6);
    }
    assert_eq!(
        page.value("qbus_host_boot_time_seconds"),
        number("/proc/stat", "btime")
    );
    assert_eq!(page.outcome("load").samples, 3);
    assert!(page.value("qbus_host_open_files") > 3.0);
    assert!(page.value("qbus_host_open_files_max") >= page.value("qbus_host_open_files"));
}

/// Burns CPU until the kernel has booked `seconds` of it to this thread.
pub(crate) fn burn(seconds: f64) {
    let booked = || {
        let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        stat.split_whitespace()
            .next()
            .unwrap()
            .parse::<f64>()
            .unwrap()
            / 1e9
    };
    let start = booked();
    while booked() - start < seconds {
        (0..100_000_u64).for_each(|n| {
            black_box(n);
        });
    }
}

#[test]
fn a_busy_loop_shows_in_cpu_time_and_usage() {
    let mut sampler = sampler(&[Source::Cpu], |config| config.per_cpu = true);
    let now = Instant::now();
    let busy = |page: &crate::support::Page| {
        ["user", "nice", "system", "irq", "softirq", "steal"]
            .map(|mode| page.value(&format!("qbus_host_cpu_seconds_total{{mode={mode:?}}}")))
            .iter()
            .sum::<f64>()
    };
    let first = tick(&mut sampler, now, &[]);
    assert!(
        !first.has("qbus_host_cpu_usage_ratio"),
        "a rate needs two readings"
    );
    burn(0.5);
    let second = tick(&mut sampler, Instant::now(), &[]);
    let elapsed = now.elapsed().as_secs_f64();
    let cpus = second.value("qbus_host_cpus_online");
    assert_eq!(
        cpus,
        fs::read_to_string("/proc/stat")
            .unwrap()
            .matches("\ncpu")
            .count() as f64
    );
    assert_between(0.5, busy(&second) - busy(&first), elapsed * cpus, 0.2);
    let usage = second.value("qbus_host_cpu_usage_ratio");
    assert_between(0.05, usage, 1.0, 0.0);
    assert!(second.has(r#"qbus_host_cpu_core_usage_ratio{cpu="0"}"#));
    let of_cores: f64 = (0..cpus as u32)
        .map(|cpu| {
            second.value(&format!(
                "qbus_host_cpu_core_seconds_total{{cpu=\"{cpu}\",mode=\"user\"}}"
            ))
        })
        .sum();
    let user = second.value(r#"qbus_host_cpu_seconds_total{mode="user"}"#);
    assert!((of_cores - user).abs() < 0.1 * cpus, "{of_cores} {user}");
}

#[test]
fn the_other_names_have_their_own_units() {
    let mut sampler = sampler(&[Source::Cpu, Source::Cpufreq, Source::Memory], |config| {
        config.names = Names::Seed
    });
    let now = Instant::now();
    tick(&mut sampler, now, &[]);
    burn(0.1);
    let page = tick(&mut sampler, now + Duration::from_secs(1), &[]);
    assert_between(0.0, page.value("system_cpu_percent"), 100.0, 0.0);
    assert_between(0.1, page.value("system_memory_percent"), 100.0, 0.0);
    if let Some(megahertz) = page.samples.get("system_cpu_frequency_mhz") {
        assert_between(100.0, *megahertz, 10_000.0, 0.0);
    }
    let mut sampler = self::sampler(&[Source::Cpu, Source::Memory], |config| {
        config.names = Names::Node;
    });
    let page = tick(&mut sampler, now, &[]);
    assert!(page.has(r#"node_cpu_seconds_total{cpu="0",mode="iowait"}"#));
    assert!(!page.has(r#"qbus_host_cpu_seconds_total{mode="user"}"#));
    assert!(page.has("node_memory_MemAvailable_bytes"));
}

#[test]
fn frequencies_are_those_of_drivers_or_else_of_cpuinfo() {
    let dir = tempfile::tempdir().unwrap();
    let cpuinfo = "processor : 0\ncpu MHz : 2000.5\n\nprocessor : 1\ncpu MHz : 0\n";
    write_tree(dir.path(), &[("proc/cpuinfo", cpuinfo)]);
    let page = |names| {
        let mut sampler = sampler(&[Source::Cpufreq], |config| {
            config.names = names;
            config.roots.proc = dir.path().join("proc");
            config.roots.sys = dir.path().join("sys");
        });
        tick(&mut sampler, Instant::now(), &[])
    };
    assert_eq!(
        page(Names::Qbus).value("qbus_host_cpu_frequency_hertz"),
        2.0005e9
    );
    let scaling = r#"node_cpu_scaling_frequency_hertz{cpu="1"}"#;
    assert!(
        !page(Names::Node)
            .samples
            .keys()
            .any(|key| key.contains("scaling"))
    );
    let cpu = "sys/devices/system/cpu";
    write_tree(
        dir.path(),
        &[
            (format!("{cpu}/cpu0/cpufreq/scaling_cur_freq"), "3100000\n"),
            (format!("{cpu}/cpu1/cpufreq/scaling_cur_freq"), "1100000\n"),
            (format!("{cpu}/cpu1/cpufreq/scaling_max_freq"), "4000000\n"),
            (format!("{cpu}/cpu2/cpufreq/scaling_cur_freq"), "0\n"),
            (format!("{cpu}/cpufreq/boost"), "1\n"),
        ],
    );
    let of_drivers = page(Names::Qbus);
    assert_eq!(of_drivers.value("qbus_host_cpu_frequency_hertz"), 2.1e9);
    assert_eq!(of_drivers.samples.len(), 1, "{of_drivers:#?}");
    let of_node = page(Names::Node);
    assert_eq!(of_node.value(scaling), 1.1e9);
    let limit = r#"node_cpu_scaling_frequency_max_hertz{cpu="1"}"#;
    assert_eq!(of_node.value(limit), 4e9);
}

#[test]
fn times_that_go_back_a_little_stand_still() {
    let dir = tempfile::tempdir().unwrap();
    let write = |user: u64, iowait: u64| {
        let line = format!("{user} 0 0 1000 {iowait} 0 0 100 7 8");
        let stat = format!("cpu  {line}\ncpu0 {line}\nctxt 5\n");
        write_tree(dir.path(), &[("proc/stat", &*stat)]);
    };
    let mut sampler = sampler(&[Source::Cpu, Source::Stat], |config| {
        config.roots.proc = dir.path().join("proc");
        config.roots.sys = dir.path().join("sys");
    });
    let now = Instant::now();
    write(1000, 500);
    let page = tick(&mut sampler, now, &[]);
    assert_eq!(
        page.value(r#"qbus_host_cpu_seconds_total{mode="iowait"}"#),
        5.0
    );
    assert_eq!(
        page.value(r#"qbus_host_cpu_guest_seconds_total{mode="nice"}"#),
        0.08
    );
    assert_eq!(page.value("qbus_host_context_switches_total"), 5.0);
    write(1100, 490);
    let page = tick(&mut sampler, now + Duration::from_secs(1), &[]);
    assert_eq!(
        page.value(r#"qbus_host_cpu_seconds_total{mode="iowait"}"#),
        5.0
    );
    assert_eq!(page.value("qbus_host_cpu_usage_ratio"), 1.0);
    write(1100, 10);
    let page = tick(&mut sampler, now + Duration::from_secs(2), &[]);
    assert_eq!(
        page.value(r#"qbus_host_cpu_seconds_total{mode="iowait"}"#),
        5.0,
        "the kernel takes back waiting of any length, and no CPU was offline"
    );
}
