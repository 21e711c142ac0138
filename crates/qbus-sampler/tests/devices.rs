//! Disks, file systems, networks, sensors and pressure: against `df`, `/proc`, a transfer of known
//! size, and fixture trees for what the machine at hand may lack.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use qbus_sampler::{Names, News, Source};

use crate::support::{assert_between, page, sampler, tick, write_tree};

#[test]
fn file_systems_are_as_large_as_df_says() {
    let page = page(&[Source::Filesystem]);
    let df = Command::new("df")
        .args(["-B1", "--output=source,fstype,size,avail", "/"])
        .output();
    let Ok(df) = df else { return };
    let text = String::from_utf8(df.stdout).unwrap();
    let words: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    let labels = format!("fstype={:?},mountpoint=\"/\"}}", words[1]);
    let value = |name: &str| {
        let name = format!("{name}{{");
        let mut found = page
            .samples
            .iter()
            .filter(|(key, _)| key.starts_with(&name) && key.ends_with(&labels));
        *found
            .next()
            .unwrap_or_else(|| panic!("no {name}…{labels} in {page:#?}"))
            .1
    };
    let number = |word: &str| word.parse::<f64>().unwrap();
    assert_eq!(value("qbus_host_filesystem_size_bytes"), number(words[2]));
    let available = value("qbus_host_filesystem_avail_bytes");
    assert_between(number(words[3]), available, number(words[3]), 4e9);
    assert!(value("qbus_host_filesystem_free_bytes") >= available);
    assert_eq!(value("qbus_host_filesystem_device_error"), 0.0);
}

#[test]
fn a_transfer_on_loopback_shows_in_bytes_and_segments() {
    let mut sampler = sampler(&[Source::Network, Source::Netstat], |_| {});
    let now = Instant::now();
    let before = tick(&mut sampler, now, &[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let size = 8 << 20;
    let sender = std::thread::spawn(move || {
        TcpStream::connect(address)
            .unwrap()
            .write_all(&vec![1; size])
            .unwrap();
    });
    let mut received = Vec::new();
    listener
        .accept()
        .unwrap()
        .0
        .read_to_end(&mut received)
        .unwrap();
    sender.join().unwrap();
    assert_eq!(received.len(), size);
    let after = tick(&mut sampler, now + Duration::from_secs(1), &[]);
    for name in ["receive", "transmit"] {
        let key = format!("qbus_host_network_{name}_bytes_total{{device=\"lo\"}}");
        let grown = after.value(&key) - before.value(&key);
        // Headers, acknowledgements, and whatever others send to themselves meanwhile.
        assert_between(size as f64, grown, size as f64, 64e6);
        assert!(grown >= size as f64, "{grown}");
    }
    let opens = "qbus_host_tcp_active_opens_total";
    assert!(after.value(opens) > before.value(opens));
}

#[test]
fn disks_count_in_bytes_and_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let line = |device: &str| {
        format!(" 8 0 {device} 10 1 200 3000 20 2 400 5000 6 7000 8000 9 1 100 2 30 4000\n")
    };
    write_tree(
        dir.path(),
        &[("diskstats", &(line("sda") + &line("sda1") + &line("loop0")))],
    );
    let mut sampler = sampler(&[Source::Disk], |config| {
        config.roots.proc = dir.path().into()
    });
    let page = tick(&mut sampler, Instant::now(), &[]);
    let expected = [
        ("reads_completed_total", 10.0),
        ("reads_merged_total", 1.0),
        ("read_bytes_total", 102_400.0),
        ("read_time_seconds_total", 3.0),
        ("writes_completed_total", 20.0),
        ("writes_merged_total", 2.0),
        ("written_bytes_total", 204_800.0),
        ("write_time_seconds_total", 5.0),
        ("io_now", 6.0),
        ("io_time_seconds_total", 7.0),
        ("io_time_weighted_seconds_total", 8.0),
        ("discards_completed_total", 9.0),
        ("discards_merged_total", 1.0),
        ("discarded_bytes_total", 51_200.0),
        ("discard_time_seconds_total", 0.002),
        ("flush_requests_total", 30.0),
        ("flush_requests_time_seconds_total", 4.0),
    ];
    for (name, value) in expected {
        assert_eq!(
            page.value(&format!("qbus_host_disk_{name}{{device=\"sda\"}}")),
            value
        );
    }
    assert_eq!(
        page.samples.len(),
        expected.len() + 1,
        "only the disk, and what it is: {page:#?}"
    );
}

#[test]
fn sensors_and_zones_are_found_and_nonsense_left_out() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(
        dir.path(),
        &[
            ("class/thermal/thermal_zone0/temp", "45500\n"),
            ("class/thermal/thermal_zone0/type", "x86_pkg_temp\n"),
            ("class/thermal/cooling_device0/type", "Processor\n"),
            ("devices/platform/coretemp.0/name", ""),
            ("class/hwmon/hwmon0/name", "coretemp\n"),
            ("class/hwmon/hwmon0/temp1_input", "51000\n"),
            ("class/hwmon/hwmon0/temp1_label", "Package id 0\n"),
            ("class/hwmon/hwmon0/temp1_max", "84000\n"),
            ("class/hwmon/hwmon0/temp1_crit", "100000\n"),
            ("class/hwmon/hwmon0/temp2_input", "-128000\n"),
            ("class/hwmon/hwmon1/name", "nvme\n"),
            ("class/hwmon/hwmon1/temp1_input", "38850\n"),
        ],
    );
    let device = dir.path().join("class/hwmon/hwmon0/device");
    std::os::unix::fs::symlink(dir.path().join("devices/platform/coretemp.0"), device).unwrap();
    let mut sampler = sampler(&[Source::Thermal, Source::Hwmon], |config| {
        config.roots.sys = dir.path().into()
    });
    let page = tick(&mut sampler, Instant::now(), &[]);
    let package = r#"{chip="platform_coretemp_0",sensor="temp1",label="Package id 0"}"#;
    let expected = [
        (
            r#"thermal_zone_celsius{zone="0",type="x86_pkg_temp"}"#.to_owned(),
            45.5,
        ),
        (format!("sensor_temperature_celsius{package}"), 51.0),
        (format!("sensor_temperature_max_celsius{package}"), 84.0),
        (
            format!("sensor_temperature_critical_celsius{package}"),
            100.0,
        ),
        (
            r#"sensor_temperature_celsius{chip="nvme",sensor="temp1"}"#.to_owned(),
            38.85,
        ),
    ];
    for (name, value) in &expected {
        assert_eq!(page.value(&format!("qbus_host_{name}")), *value);
    }
    assert_eq!(
        (page.samples.len(), page.outcome("hwmon").skipped),
        (expected.len() + 3, 1),
        "with two chips and a label"
    );
    let mut sampler = self::sampler(&[Source::Thermal, Source::Hwmon], |config| {
        config.roots.sys = dir.path().into();
        config.names = Names::Node;
    });
    let page = tick(&mut sampler, Instant::now(), &[]);
    assert!(page.has(r#"node_hwmon_temp_celsius{chip="platform_coretemp_0",sensor="temp1"}"#));
    assert!(page.has(r#"node_thermal_zone_temp{zone="0",type="x86_pkg_temp"}"#));
}

#[test]
fn amd_gpus_are_read_from_their_drivers_files() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(
        dir.path(),
        &[
            ("class/drm/card0/device/vendor", "0x8086\n"),
            ("class/drm/card1/device/vendor", "0x1002\n"),
            ("class/drm/card1/device/unique_id", "4d2f\n"),
            ("class/drm/card1/device/product_name", "Instinct MI300X\n"),
            ("class/drm/card1/device/gpu_busy_percent", "37\n"),
            (
                "class/drm/card1/device/mem_info_vram_total",
                "206141652992\n",
            ),
            ("class/drm/card1/device/mem_info_vram_used", "1048576\n"),
            (
                "class/drm/card1/device/hwmon/hwmon4/power1_average",
                "150000000\n",
            ),
            (
                "class/drm/card1/device/hwmon/hwmon4/power1_cap",
                "750000000\n",
            ),
            ("class/drm/card1/device/hwmon/hwmon4/temp1_input", "45000\n"),
            ("class/drm/card1-DP-1/status", "connected\n"),
        ],
    );
    let mut sampler = sampler(&[Source::Amdgpu], |config| {
        config.roots.sys = dir.path().into()
    });
    let now = Instant::now();
    let page = tick(&mut sampler, now, &[]);
    for (name, expected) in [
        ("up", 1.0),
        ("utilization_ratio", 0.37),
        ("memory_total_bytes", 206_141_652_992.0),
        ("memory_used_bytes", 1_048_576.0),
        ("power_watts", 150.0),
        ("power_limit_watts", 750.0),
        ("temperature_celsius", 45.0),
    ] {
        let key = format!("qbus_gpu_{name}{{gpu=\"1\",uuid=\"4d2f\"}}");
        assert_eq!(page.value(&key), expected, "{name}");
    }
    let info = page
        .samples
        .keys()
        .find(|key| key.starts_with("qbus_gpu_info"));
    assert!(
        info.is_some_and(|info| info.contains("name=\"Instinct MI300X\"")),
        "{page:#?}"
    );
    assert!(
        !page.has("qbus_gpu_memory_utilization_ratio"),
        "what it does not say is not 0"
    );
    assert_eq!(page.samples.len(), 8, "{page:#?}");
    // Nonsense is no value.
    std::fs::write(
        dir.path().join("class/drm/card1/device/gpu_busy_percent"),
        "4294967295\n",
    )
    .unwrap();
    let page = tick(&mut sampler, now + Duration::from_secs(1), &[]);
    assert!(
        !page.has("qbus_gpu_utilization_ratio{gpu=\"1\",uuid=\"4d2f\"}"),
        "{page:#?}"
    );
    assert_eq!(page.outcome("amdgpu").failures, 1);
}

#[test]
fn pressure_is_read_where_the_kernel_tells_it() {
    let dir = tempfile::tempdir().unwrap();
    let some = "some avg10=0.00 avg60=0.06 avg300=0.32 total=4990992\n";
    let full = "full avg10=0.15 avg60=0.12 avg300=0.47 total=4861850\n";
    let roots = |config: &mut qbus_sampler::SamplerOptions| config.roots.proc = dir.path().into();
    let mut sampler = sampler(&[Source::Pressure], roots);
    let now = Instant::now();
    let page = tick(&mut sampler, now, &[]);
    assert!(
        matches!(page.outcome("pressure").news[..], [News::Absent(_)]),
        "{page:?}"
    );
    assert_eq!(
        page.outcome("pressure").failures,
        0,
        "a kernel without it is no failure"
    );
    write_tree(
        dir.path(),
        &[
            ("pressure/cpu", &format!("{some}{full}")),
            ("pressure/irq", full),
        ],
    );
    // It is looked for again, only not at once.
    let page = tick(&mut sampler, now + Duration::from_secs(1), &[]);
    assert!(page.samples.is_empty() && page.outcome("pressure").news.is_empty());
    let page = tick(&mut sampler, now + Duration::from_secs(61), &[]);
    assert_eq!(
        page.outcome("pressure").news,
        [News::Recovered(String::new())]
    );
    let close = |key: &str, value: f64| assert!((page.value(key) - value).abs() < 1e-9, "{key}");
    close("qbus_host_pressure_cpu_waiting_seconds_total", 4.990992);
    close("qbus_host_pressure_irq_stalled_seconds_total", 4.861850);
    assert_eq!(page.samples.len(), 2);
}

#[test]
fn the_machine_says_what_it_is() {
    let page = page(&[Source::Info, Source::Processes]);
    let uname = Command::new("uname").args(["-srm"]).output();
    if let Ok(uname) = uname {
        let text = String::from_utf8(uname.stdout).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        let series = page
            .samples
            .keys()
            .find(|key| key.starts_with("qbus_host_uname_info"))
            .unwrap();
        for (label, word) in ["sysname", "release", "machine"].into_iter().zip(words) {
            assert!(series.contains(&format!("{label}={word:?}")), "{series}");
        }
    }
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    if let Some(name) = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
    {
        let label = format!("pretty_name=\"{}\"", name.trim_matches('"'));
        let series = page
            .samples
            .keys()
            .find(|key| key.starts_with("qbus_host_os_info"))
            .unwrap();
        assert!(series.contains(&label), "{series}");
    }
    let processes: f64 = page
        .samples
        .iter()
        .filter(|(key, _)| key.starts_with("qbus_host_processes{"))
        .map(|(_, value)| value)
        .sum();
    let listed = fs::read_dir("/proc").unwrap().flatten();
    let listed = listed.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    let listed = listed.count() as f64;
    assert_between(listed, processes, listed, 50.0);
}
