//! Files that hold anything: a kernel that is newer, older or wrong, a driver that is broken. No
//! source panics, says a value that is none, or one series twice, whatever stands in its files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use qbus_sampler::{Names, Source};

use crate::support::{sampler, tick};

/// A host with something for every source, each file as it should be.
pub(crate) const HOST: &[(&str, &str)] = &[
    (
        "proc/stat",
        "cpu 1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\ncpu1 1 2 3 4 5 6 7 8 9 10\nintr 5 1\n\
         ctxt 7\nbtime 1700000000\nprocesses 3\nprocs_running 1\nprocs_blocked 0\n\
         softirq 55 1 2 3 4 5 6 7 8 9 10\n",
    ),
    (
        "proc/meminfo",
        "MemTotal: 8192 kB\nMemFree: 1024 kB\nMemAvailable: 2048 kB\nActive(anon): 7 kB\n\
         HugePages_Total: 3\n",
    ),
    (
        "proc/vmstat",
        "pgfault 10\npgmajfault 7\npgpgin 5\noom_kill 1\n",
    ),
    ("proc/loadavg", "0.5 0.25 0.125 1/200 3\n"),
    (
        "proc/diskstats",
        "8 0 sda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n\
         259 1 nvme0n1 1 2 3 4 5 6 7 8 9 10 11\n",
    ),
    (
        "proc/mdstat",
        "Personalities : [raid1]\nmd0 : active raid1 sdb1[1] sda1[0]\n      100 blocks super 1.2 \
         [2/1] [U_]\n      [=>...]  recovery =  8.5% (16775552/195310144) finish=17.0min \
         speed=259783K/sec\n\nunused devices: <none>\n",
    ),
    (
        "proc/cpuinfo",
        "processor\t: 0\nvendor_id\t: X\nflags\t\t: a b\nbugs\t\t: c\n\nprocessor\t: 1\n",
    ),
    (
        "proc/schedstat",
        "version 15\ncpu0 498494191 0 3533438552 2553969831 3853684107 2465731542 2045936778163 \
         343796328169361 4767485306\n",
    ),
    ("proc/sys/fs/file-nr", "1024\t0\t1631329\n"),
    ("proc/sys/net/netfilter/nf_conntrack_count", "123\n"),
    ("proc/sys/net/netfilter/nf_conntrack_max", "65536\n"),
    ("proc/sys/kernel/random/entropy_avail", "256\n"),
    ("proc/sys/kernel/random/poolsize", "256\n"),
    (
        "proc/pressure/cpu",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=14036781\n",
    ),
    (
        "proc/pressure/io",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n\
         full avg10=0.00 avg60=0.00 avg300=0.00 total=2\n",
    ),
    (
        "proc/pressure/memory",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=3\n\
         full avg10=0.00 avg60=0.00 avg300=0.00 total=4\n",
    ),
    (
        "proc/1/net/dev",
        "Inter-| Receive\n face |bytes\n\
         eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  lo:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 \
         16\n",
    ),
    (
        "proc/1/net/snmp",
        "Tcp: ActiveOpens CurrEstab\nTcp: 3 4\nUdp: InErrors\nUdp: 5\n",
    ),
    (
        "proc/1/net/netstat",
        "TcpExt: ListenDrops SyncookiesSent\nTcpExt: 1 2\n",
    ),
    ("proc/1/net/snmp6", "Ip6InOctets 12\nUdp6InErrors 3\n"),
    (
        "proc/1/net/sockstat",
        "sockets: used 229\nTCP: inuse 4 orphan 0 tw 4 alloc 17 mem 1\n",
    ),
    ("proc/1/net/sockstat6", "TCP6: inuse 17\n"),
    (
        "proc/1/net/softnet_stat",
        "00049279 00000000 00000001 00000000 00000000 00000000 00000000 00000000 00000000 \
         00000000\n",
    ),
    (
        "proc/1/net/arp",
        "IP address HW type Flags HW address Mask Device\n\
         192.168.1.1 0x1 0x2 cc:aa:dd:ee:aa:bb * eth0\n",
    ),
    (
        "proc/1/net/udp",
        "sl local_address rem_address st tx_queue rx_queue\n\
         0: 00000000:0016 00000000:0000 0A 00000015:00000000 00:00000000 00000000 0 0 2740 1 0 0\n",
    ),
    (
        "proc/1/net/stat/nf_conntrack",
        "entries clashres found new invalid ignore delete chainlength insert insert_failed drop \
         early_drop icmp_error expect_new expect_create expect_delete search_restart\n\
         00000021 00000001 00000002 00000003 00000004 0000588a 00000000 00000000 00000005 00000006 \
         00000007 00000008 00000000 00000000 00000000 00000000 00000009\n",
    ),
    (
        "proc/1/net/rpc/nfs",
        "net 70 70 69 45\nrpc 12 3 15\nproc2 18 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n\
         proc3 22 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24\n\
         proc4 59 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 \
         31 32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59\n",
    ),
    (
        "proc/1/net/rpc/nfsd",
        "rc 0 6 18622\nfh 0 0 0 0 0\nio 157286400 72864\nth 8 0\nra 32 0 0 0 0 0 0 0 0 0 0 0\n\
         net 972 55 917 1\nrpc 18628 0 0 0 0\n\
         proc2 18 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n\
         proc3 22 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26\nproc4 2 2 10853\n\
         proc4ops 39 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 \
         30 31 32 33 34 35 36 37 38 39 40\n",
    ),
    (
        "proc/1/net/ip_vs_stats",
        " Total\n Conns\n 16AA370 E33656E5 0 51D8C8883AB3 0\n",
    ),
    (
        "proc/1/net/ip_vs",
        "IP\nProt\nTCP  C0A80016:0CEA wlc\n  -> C0A85216:0CEA Tunnel 100 248 2\n",
    ),
    (
        "proc/1/mountinfo",
        "36 35 8:1 / /data rw,noatime - ext4 /dev/sda1 rw\n",
    ),
    (
        "proc/7/stat",
        "7 (a b) S 1 7 7 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 100 1000 10 1 1\n",
    ),
    (
        "proc/spl/kstat/zfs/arcstats",
        "7 1 0x01 21 5712 1 2\nname type data\nhits 4 8772612\n",
    ),
    (
        "proc/spl/kstat/zfs/tank/io",
        "12 3 0x00 1 80 1 2\n\
         nread nwritten reads writes wtime wlentime wupdate rtime rlentime rupdate wcnt rcnt\n\
         1 2 3 4 5 6 7 8 9 10 11 12\n",
    ),
    ("proc/spl/kstat/zfs/tank/state", "ONLINE\n"),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
        "1699981\n",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq",
        "3700000\n",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_min_freq",
        "800000\n",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_transition_latency",
        "0\n",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq",
        "3700000\n",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq",
        "800000\n",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_available_governors",
        "performance powersave\n",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver",
        "intel_pstate\n",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
        "powersave\n",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_setspeed",
        "<unsupported>\n",
    ),
    ("sys/devices/system/cpu/cpu0/cpufreq/related_cpus", "0\n"),
    (
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count",
        "5\n",
    ),
    ("sys/devices/system/cpu/cpu0/topology/core_id", "0\n"),
    (
        "sys/devices/system/cpu/cpu0/topology/physical_package_id",
        "0\n",
    ),
    ("sys/devices/system/edac/mc/mc0/ce_count", "1\n"),
    ("sys/devices/system/edac/mc/mc0/ce_noinfo_count", "2\n"),
    ("sys/devices/system/edac/mc/mc0/ue_count", "5\n"),
    ("sys/devices/system/edac/mc/mc0/ue_noinfo_count", "6\n"),
    ("sys/devices/system/edac/mc/mc0/csrow0/ce_count", "3\n"),
    ("sys/devices/system/edac/mc/mc0/csrow0/ue_count", "4\n"),
    (
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        "tsc\n",
    ),
    (
        "sys/devices/system/clocksource/clocksource0/available_clocksource",
        "tsc hpet\n",
    ),
    ("sys/class/thermal/thermal_zone0/temp", "45500\n"),
    ("sys/class/thermal/thermal_zone0/type", "x86\n"),
    ("sys/class/thermal/thermal_zone0/policy", "step_wise\n"),
    ("sys/class/thermal/cooling_device0/type", "Processor\n"),
    ("sys/class/thermal/cooling_device0/cur_state", "0\n"),
    ("sys/class/thermal/cooling_device0/max_state", "3\n"),
    ("sys/class/hwmon/hwmon0/name", "coretemp\n"),
    ("sys/class/hwmon/hwmon0/temp1_input", "51000\n"),
    ("sys/class/hwmon/hwmon0/temp1_label", "Package\n"),
    ("sys/class/hwmon/hwmon0/fan1_input", "1200\n"),
    ("sys/class/net/eth0/mtu", "1500\n"),
    ("sys/class/net/eth0/speed", "1000\n"),
    ("sys/class/net/eth0/operstate", "up\n"),
    ("sys/class/net/bonding_masters", "bond0\n"),
    ("sys/class/net/bond0/bonding/slaves", "eth0 eth1\n"),
    (
        "sys/class/net/bond0/lower_eth0/bonding_slave/mii_status",
        "up\n",
    ),
    (
        "sys/class/net/bond0/lower_eth1/bonding_slave/mii_status",
        "down\n",
    ),
    ("sys/class/infiniband/mlx4_0/ports/1/state", "4: ACTIVE\n"),
    ("sys/class/infiniband/mlx4_0/board_id", "SM_1\n"),
    ("sys/class/infiniband/mlx4_0/fw_ver", "2.31.5050\n"),
    ("sys/class/infiniband/mlx4_0/hca_type", "MT4099\n"),
    (
        "sys/class/infiniband/mlx4_0/ports/1/phys_state",
        "5: LinkUp\n",
    ),
    (
        "sys/class/infiniband/mlx4_0/ports/1/counters/port_xmit_data",
        "3\n",
    ),
    (
        "sys/class/infiniband/mlx4_0/ports/1/counters/link_downed",
        "1\n",
    ),
    (
        "sys/class/infiniband/mlx4_0/ports/1/counters/port_rcv_data",
        "4631917\n",
    ),
    (
        "sys/class/infiniband/mlx4_0/ports/1/rate",
        "40 Gb/sec (4X QDR)\n",
    ),
    ("sys/class/nvme/nvme0/model", "Samsung\n"),
    ("sys/class/nvme/nvme0/firmware_rev", "1B2QEXP7\n"),
    ("sys/class/nvme/nvme0/serial", "S680HF8N190894I\n"),
    ("sys/class/nvme/nvme0/state", "live\n"),
    ("sys/class/power_supply/BAT0/capacity", "98\n"),
    ("sys/class/powercap/intel-rapl:0/name", "package-0\n"),
    (
        "sys/class/powercap/intel-rapl:0/energy_uj",
        "240422366267\n",
    ),
    (
        "sys/class/powercap/intel-rapl:0/max_energy_range_uj",
        "262143328850\n",
    ),
    ("sys/class/dmi/id/bios_vendor", "Dell\n"),
    ("sys/class/fc_host/host0/speed", "16 Gbit\n"),
    ("sys/class/fc_host/host0/port_state", "Online\n"),
    ("sys/class/fc_host/host0/port_type", "Point-To-Point\n"),
    ("sys/class/fc_host/host0/node_name", "0x2000e0071bce95f2\n"),
    ("sys/class/fc_host/host0/port_id", "0x000002\n"),
    ("sys/class/fc_host/host0/port_name", "0x1000e0071bce95f2\n"),
    ("sys/class/fc_host/host0/fabric_name", "0x0\n"),
    ("sys/class/fc_host/host0/dev_loss_tmo", "30\n"),
    ("sys/class/fc_host/host0/symbolic_name", "Emulex\n"),
    ("sys/class/fc_host/host0/supported_classes", "Class 3\n"),
    ("sys/class/fc_host/host0/supported_speeds", "16 Gbit\n"),
    ("sys/class/fc_host/host0/statistics/rx_frames", "0x3\n"),
    ("sys/class/scsi_tape/st0/stats/in_flight", "1\n"),
    ("sys/class/drm/card0/device/vendor", "0x1002\n"),
    ("sys/class/drm/card0/device/gpu_busy_percent", "37\n"),
    ("sys/fs/selinux/enforce", "1\n"),
    (
        "sys/fs/xfs/sda1/stats/stats",
        "extent_alloc 1 872 0 0\nrw 28 0\n",
    ),
    (
        "sys/fs/btrfs/u-1/allocation/data/raid5/total_bytes",
        "300\n",
    ),
    ("sys/fs/btrfs/u-1/devices/sda/size", "20\n"),
    ("sys/fs/btrfs/u-1/devices/sdb/size", "20\n"),
    ("sys/fs/btrfs/u-1/devices/sdc/size", "20\n"),
    ("sys/fs/btrfs/u-1/label", "home\n"),
    ("sys/fs/btrfs/u-1/metadata_uuid", "u-1\n"),
    ("sys/fs/btrfs/u-1/features/raid56", "1\n"),
    ("sys/fs/btrfs/u-1/allocation/global_rsv_size", "4096\n"),
    ("sys/fs/btrfs/u-1/allocation/data/bytes_reserved", "7\n"),
    ("sys/fs/btrfs/u-1/allocation/data/raid5/used_bytes", "100\n"),
    ("sys/fs/btrfs/u-1/allocation/metadata/bytes_reserved", "8\n"),
    ("sys/fs/btrfs/u-1/allocation/system/bytes_reserved", "9\n"),
    (
        "sys/fs/bcache/a-b/bdev0/writeback_rate_debug",
        "rate: 1.1M/sec\ntarget: 20.4G\n",
    ),
    ("sys/fs/bcache/a-b/tree_depth", "1\n"),
    (
        "metrics/a.prom",
        "# TYPE jobs_total counter\njobs_total{q=\"a\\\"b\"} 4\n",
    ),
    ("udev/b8:0", "E:ID_MODEL=Fast\nE:ID_SERIAL_SHORT=S\n"),
    (
        "etc/os-release",
        "NAME=\"Debian\"\nVERSION_ID=\"12.5\"\nID=debian\n",
    ),
];

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % bound.max(1) as u64) as usize
    }
}

/// The text, or something that was a text once.
fn changed(text: &str, random: &mut Random) -> Vec<u8> {
    const WORDS: [&str; 14] = [
        "-1",
        "18446744073709551615",
        "18446744073709551616",
        "NaN",
        "inf",
        "1e400",
        "0x",
        "0xffffffffffffffff",
        "",
        ":",
        "[",
        "(",
        "\u{e4}",
        "=",
    ];
    let mut bytes = text.as_bytes().to_vec();
    match random.below(8) {
        0 => bytes.clear(),
        1 => bytes.truncate(random.below(bytes.len())),
        2 => {
            let words: Vec<&str> = text.split(' ').collect();
            let at = random.below(words.len());
            let mut words: Vec<&str> = words;
            words[at] = WORDS[random.below(WORDS.len())];
            bytes = words.join(" ").into_bytes();
        }
        3 => bytes.extend_from_within(..),
        4 => {
            for _ in 0..3 {
                let at = random.below(bytes.len());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random.below(256) as u8;
                }
            }
        }
        5 => bytes.retain(|byte| *byte != b'\n'),
        6 => {
            let mut lines: Vec<&str> = text.lines().collect();
            lines.reverse();
            bytes = lines.join("\n").into_bytes();
        }
        _ => {}
    }
    bytes
}

fn write(root: &Path, files: &BTreeMap<&str, Vec<u8>>) {
    for (path, bytes) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn whatever_stands_in_its_files_no_source_panics_or_repeats_itself() {
    let dir = tempfile::tempdir().unwrap();
    let host: BTreeMap<&str, Vec<u8>> = HOST
        .iter()
        .map(|(path, text)| (*path, text.as_bytes().to_vec()))
        .collect();
    for seed in 0..12 {
        let mut random = Random(seed);
        write(dir.path(), &host);
        let names = [Names::Node, Names::Qbus][random.below(2)];
        let mut sampler = sampler(Source::ALL, |options| {
            options.names = names;
            options.per_cpu = true;
            options.roots.root = dir.path().into();
            options.roots.proc = dir.path().join("proc");
            options.roots.sys = dir.path().join("sys");
            options.roots.udev = dir.path().join("udev");
            options.filters.textfile_directory = Some(dir.path().join("metrics"));
            options.filters.cpu_info = true;
            options.nvml = Some("/nonexistent".into());
            options.own_role = None;
        });
        let start = Instant::now();
        for second in 0..3 {
            // As it should be at first, then worse and worse.
            let page = tick(&mut sampler, start + Duration::from_secs(second * 400), &[]);
            for outcome in &page.outcomes {
                for news in &outcome.news {
                    let told = news.told(outcome.source);
                    assert!(!told.contains("panicked"), "seed {seed}: {told}");
                    // Nor are a program's own words for its values an operator's.
                    let is_told = !told.contains(" { ") && !told.contains("(\"");
                    assert!(is_told, "seed {seed}: {told}");
                }
            }
            let least = if second == 0 { 150 } else { 0 };
            assert!(page.samples.len() > least, "seed {seed}: {page:#?}");
            let mut changes = BTreeMap::new();
            for (path, text) in HOST {
                if random.below(2) == 0 {
                    changes.insert(*path, changed(text, &mut random));
                }
            }
            write(dir.path(), &changes);
        }
    }
}
