//! What the alerts, rules and dashboards of node_exporter's mixin ask for is on the page.

use std::os::linux::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use qbus_sampler::{Names, Source};

use crate::support::{sampler, tick, write_tree};

/// Metrics that the expressions of the mixin name for Linux, with its defaults
/// (prometheus/node_exporter, `docs/node-mixin` of 1.5.0 and of 2026). The two of systemd
/// (`node_systemd_unit_state`, `node_systemd_service_restart_total`) come from a collector that is
/// off by default.
const ASKED_FOR: [&str; 46] = [
    "node_bonding_active",
    "node_bonding_slaves",
    "node_cpu_seconds_total",
    "node_disk_io_time_seconds_total",
    "node_disk_io_time_weighted_seconds_total",
    "node_disk_read_bytes_total",
    "node_disk_written_bytes_total",
    "node_exporter_build_info",
    "node_filefd_allocated",
    "node_filefd_maximum",
    "node_filesystem_avail_bytes",
    "node_filesystem_files",
    "node_filesystem_files_free",
    "node_filesystem_readonly",
    "node_filesystem_size_bytes",
    "node_load1",
    "node_load15",
    "node_load5",
    "node_md_disks",
    "node_md_disks_required",
    "node_memory_Buffers_bytes",
    "node_memory_Cached_bytes",
    "node_memory_MemAvailable_bytes",
    "node_memory_MemFree_bytes",
    "node_memory_MemTotal_bytes",
    "node_memory_Slab_bytes",
    "node_network_receive_bytes_total",
    "node_network_receive_drop_total",
    "node_network_receive_errs_total",
    "node_network_receive_packets_total",
    "node_network_transmit_bytes_total",
    "node_network_transmit_drop_total",
    "node_network_transmit_errs_total",
    "node_network_transmit_packets_total",
    "node_nf_conntrack_entries",
    "node_nf_conntrack_entries_limit",
    "node_scrape_collector_success",
    "node_scrape_collector_duration_seconds",
    "node_textfile_scrape_error",
    "node_time_seconds",
    "node_timex_maxerror_seconds",
    "node_timex_offset_seconds",
    "node_timex_sync_status",
    "node_uname_info",
    "node_vmstat_pgmajfault",
    "node_boot_time_seconds",
];

/// A host of which all that is needed can be read.
fn write_host(root: &Path) {
    let device = std::fs::metadata(root).unwrap().st_dev();
    let number = format!(
        "{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    let mounts = format!("36 35 {number} / /data rw,noatime - ext4 /dev/sda1 rw\n");
    let stat = "cpu 1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\nbtime 1700000000\n";
    let meminfo = "MemTotal: 8 kB\nMemFree: 1 kB\nMemAvailable: 2 kB\nBuffers: 1 kB\nCached: 1 kB\n\
        Slab: 1 kB\n";
    let disks = "8 0 sda 1 2 3 4 5 6 7 8 9 10 11\n";
    let arrays = "md0 : active raid1 sdb1[1] sda1[0]\n      100 blocks [2/2] [UU]\n\n";
    write_tree(
        root,
        &[
            ("proc/stat", stat),
            ("proc/meminfo", meminfo),
            ("proc/vmstat", "pgmajfault 7\n"),
            ("proc/loadavg", "0.5 0.25 0.125 1/2 3\n"),
            ("proc/diskstats", disks),
            ("proc/mdstat", arrays),
            ("proc/sys/fs/file-nr", "1024 0 1631329\n"),
            ("proc/sys/net/netfilter/nf_conntrack_count", "123\n"),
            ("proc/sys/net/netfilter/nf_conntrack_max", "65536\n"),
            (
                "proc/1/net/dev",
                "eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
            ),
            ("proc/1/mountinfo", &mounts),
            ("proc/sys/kernel/hostname", "fixture\n"),
            ("sys/class/net/bonding_masters", "bond0\n"),
            ("sys/class/net/bond0/bonding/slaves", "eth0\n"),
            (
                "sys/class/net/bond0/lower_eth0/bonding_slave/mii_status",
                "up\n",
            ),
            ("data/file", ""),
            ("metrics/a.prom", "fine 1\n"),
        ],
    );
}

#[test]
fn every_metric_that_the_mixin_asks_for_is_there() {
    let dir = tempfile::tempdir().unwrap();
    write_host(dir.path());
    let mut sampler = sampler(&Source::defaults(Names::Node), |options| {
        options.names = Names::Node;
        options.roots.root = dir.path().into();
        options.roots.proc = dir.path().join("proc");
        options.roots.sys = dir.path().join("sys");
        options.roots.udev = dir.path().join("udev");
        options.filters.textfile_directory = Some(dir.path().join("metrics"));
    });
    let page = tick(&mut sampler, Instant::now(), &[]);
    let there = |name: &&str| page.trends.contains_key(*name);
    let missing: Vec<_> = ASKED_FOR.iter().filter(|name| !there(name)).collect();
    assert_eq!(missing, Vec::<&&str>::new(), "{page:#?}");
}
