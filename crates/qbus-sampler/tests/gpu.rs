//! GPUs, by way of a fake management library that is loaded as the real one is.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use qbus_sampler::{Attached, Names, News, Sampler, SamplerOptions, Source};
use tempfile::TempDir;

use crate::support::{Page, Running, sampler, tick};

/// Two GPUs: one that has everything, and one of which little is known.
pub(crate) const TWO: &str = "
    driver = 580.82.07
    count = 2
    0.uuid = GPU-one
    0.name = NVIDIA H100
    0.pci = 00000000:3B:00.0
    0.memory = 85899345920 1073741824 4294967296
    0.utilization = 40 7
    0.temperature0 = 55
    0.power = 250500
    0.power_limit = 700000
    0.energy = 123456789
    0.clock0 = 1980
    0.clock1 = 1980
    0.clock2 = 2619
    0.clock3 = 1545
    0.performance_state = 0
    0.throttle_reasons = 4
    0.encoder = 3 1000
    0.decoder = 4 1000
    0.fans = 2
    0.fan0 = 30
    0.fan1 = 31
    0.ecc0_0 = 1
    0.ecc0_1 = 2
    0.ecc1_0 = 0
    0.ecc1_1 = 5
    0.violation0 = 1500000000
    0.field197 = 3 21474836489
    0.field198 = 3 7
    0.pcie_generation = 5
    0.pcie_width = 16
    0.pcie_replays = 9
    0.mig_mode = 0 0
    1.uuid = GPU-two
    1.temperature0 = 60
";

/// A copy of the fake with values of its own.
pub(crate) struct Fake {
    dir: TempDir,
    library: PathBuf,
}

impl Fake {
    pub(crate) fn new(values: &str) -> Fake {
        let dir = tempfile::tempdir().unwrap();
        let library = fake_nvml::copy(dir.path(), values);
        Fake { dir, library }
    }

    pub(crate) fn set(&self, values: &str) {
        fake_nvml::set(self.dir.path(), values);
    }

    pub(crate) fn sampler(&self, change: impl FnOnce(&mut SamplerOptions)) -> Sampler {
        sampler(&[Source::Gpu, Source::Load], |config| {
            config.nvml = Some(self.library.clone());
            change(config);
        })
    }
}

/// `TWO`, with other answers for some keys.
pub(crate) fn two_with(changes: &[(&str, &str)]) -> String {
    let kept = TWO.lines().filter(|line| {
        !changes
            .iter()
            .any(|(key, _)| line.trim_start().starts_with(&format!("{key} ")))
    });
    let changed = changes
        .iter()
        .map(|(key, answer)| format!("{key} = {answer}"));
    kept.map(str::to_owned)
        .chain(changed)
        .collect::<Vec<_>>()
        .join("\n")
}

pub(crate) const ONE: &str = r#"gpu="0",uuid="GPU-one""#;

#[track_caller]
pub(crate) fn value(page: &Page, name: &str, more: &str) -> f64 {
    page.value(&format!("qbus_gpu_{name}{{{ONE}{more}}}"))
}

#[test]
fn every_value_has_its_base_unit() {
    let fake = Fake::new(TWO);
    let page = tick(&mut fake.sampler(|_| {}), Instant::now(), &[]);
    let expected = [
        ("memory_total_bytes", "", 85_899_345_920.0),
        ("memory_used_bytes", "", 4_294_967_296.0),
        ("memory_reserved_bytes", "", 1_073_741_824.0),
        ("memory_free_bytes", "", 80_530_636_800.0),
        ("utilization_ratio", "", 0.4),
        ("memory_utilization_ratio", "", 0.07),
        ("temperature_celsius", "", 55.0),
        ("power_watts", "", 250.5),
        ("power_limit_watts", "", 700.0),
        ("energy_joules_total", "", 123_456.789),
        ("clock_hertz", ",clock=\"sm\"", 1.98e9),
        ("clock_hertz", ",clock=\"memory\"", 2.619e9),
        ("performance_state", "", 0.0),
        ("throttle_active", ",reason=\"sw_power_cap\"", 1.0),
        ("throttle_active", ",reason=\"hw_slowdown\"", 0.0),
        ("throttle_seconds_total", ",reason=\"power\"", 1.5),
        ("encoder_utilization_ratio", "", 0.03),
        ("decoder_utilization_ratio", "", 0.04),
        ("fan_speed_ratio", ",fan=\"1\"", 0.31),
        (
            "ecc_errors_total",
            ",kind=\"uncorrected\",scope=\"aggregate\"",
            5.0,
        ),
        ("pcie_transmit_bytes_total", "", 21_474_836_489.0),
        ("pcie_receive_bytes_total", "", 7.0),
        ("pcie_link_generation", "", 5.0),
        ("pcie_link_lanes", "", 16.0),
        ("pcie_replays_total", "", 9.0),
        ("up", "", 1.0),
    ];
    for (name, more, expected) in expected {
        let found = value(&page, name, more);
        assert!(
            (found - expected).abs() <= 1e-9 * expected,
            "{name}{more}: {found}"
        );
    }
    let info = ",name=\"NVIDIA H100\",pci_bus_id=\"00000000:3B:00.0\",driver_version=\"580.82.07\"";
    assert_eq!(value(&page, "info", info), 1.0);
    assert_eq!(
        page.value(r#"qbus_gpu_temperature_celsius{gpu="1",uuid="GPU-two"}"#),
        60.0
    );
    assert!(
        !page.has(r#"qbus_gpu_power_watts{gpu="1",uuid="GPU-two"}"#),
        "it doesn't say"
    );
    assert_eq!(
        page.outcome("gpu").failures,
        0,
        "what is not supported is no failure: {page:#?}"
    );
    let page = tick(
        &mut fake.sampler(|config| config.names = Names::Seed),
        Instant::now(),
        &[],
    );
    assert_eq!(
        page.value(&format!("gpu_utilization_percent{{{ONE}}}")),
        40.0
    );
    assert_eq!(
        page.value(&format!("gpu_memory_allocated_bytes{{{ONE}}}")),
        4_294_967_296.0
    );
}

#[test]
fn a_machine_without_the_library_is_a_normal_machine() {
    let mut sampler = sampler(&[Source::Gpu, Source::Load], |config| {
        config.nvml = Some(Path::new("/nonexistent/libnvidia-ml.so.1").into());
    });
    let now = Instant::now();
    let mut news = Vec::new();
    for second in 0..130 {
        let page = tick(&mut sampler, now + Duration::from_secs(second), &[]);
        assert_eq!(page.outcome("gpu").failures, 0);
        assert_eq!(page.samples.len(), 3, "the load goes on");
        news.extend(page.outcome("gpu").news.clone());
    }
    assert!(
        matches!(news.as_slice(), [News::Absent(_)]),
        "one line, then silence: {news:?}"
    );
}

#[test]
fn a_driver_that_comes_later_is_found() {
    let fake = Fake::new("init = error 9");
    let mut sampler = fake.sampler(|_| {});
    let now = Instant::now();
    let page = tick(&mut sampler, now, &[]);
    assert!(matches!(page.outcome("gpu").news[..], [News::Absent(_)]));
    assert_eq!(page.outcome("gpu").failures, 0);
    fake.set(TWO);
    assert!(!tick(&mut sampler, now + Duration::from_secs(59), &[]).has("qbus_gpu_up"));
    let page = tick(&mut sampler, now + Duration::from_secs(60), &[]);
    assert_eq!(value(&page, "up", ""), 1.0);
    assert_eq!(page.outcome("gpu").news, [News::Recovered(String::new())]);
}

#[test]
fn nonsense_is_left_out_and_counted() {
    let fake = Fake::new(&two_with(&[
        ("0.temperature0", "4294967295"),
        ("0.utilization", "101 7"),
        ("0.power", "4294967295"),
        ("0.memory", "1000 0 2000"),
        ("0.energy", "18446744073709551615"),
        ("0.field197", "2 21474836489"),
        ("0.ecc0_0", "18446744073709551615"),
        ("0.performance_state", "32"),
    ]));
    let page = tick(&mut fake.sampler(|_| {}), Instant::now(), &[]);
    for name in [
        "temperature_celsius",
        "utilization_ratio",
        "power_watts",
        "memory_used_bytes",
        "memory_total_bytes",
        "energy_joules_total",
        "pcie_transmit_bytes_total",
        "performance_state",
    ] {
        assert!(!page.has(&format!("qbus_gpu_{name}{{{ONE}}}")), "{name}");
    }
    assert_eq!(value(&page, "memory_utilization_ratio", ""), 0.07);
    assert_eq!(value(&page, "clock_hertz", ",clock=\"sm\""), 1.98e9);
    assert_eq!(page.outcome("gpu").failures, 9, "{page:#?}");
}

/// What an error of one call does to that call, to its GPU and to the other one.
#[test]
fn each_error_has_its_own_consequence() {
    let has = |page: &Page, name: &str| page.has(&format!("qbus_gpu_{name}{{{ONE}}}"));
    // code, failures counted, whether the call is made again in the next tick
    for (code, failures, again) in [
        (3, 0, false),  // not supported
        (4, 1, false),  // no permission
        (13, 1, false), // function not found: the driver is old, and that is said
        (21, 0, true),  // no data
        (10, 0, true),  // timeout
        (999, 1, true), // unknown
        (250, 1, true), // a code that the wrapper doesn't know
    ] {
        let fake = Fake::new(&two_with(&[("0.power", &format!("error {code}"))]));
        let mut sampler = fake.sampler(|_| {});
        let now = Instant::now();
        let page = tick(&mut sampler, now, &[]);
        assert_eq!(page.outcome("gpu").failures, failures, "{code}: {page:#?}");
        assert!(
            !has(&page, "power_watts") && has(&page, "temperature_celsius"),
            "{code}"
        );
        assert_eq!(value(&page, "up", ""), 1.0);
        fake.set(TWO);
        let page = tick(&mut sampler, now + Duration::from_secs(1), &[]);
        assert_eq!(has(&page, "power_watts"), again, "{code}");
        let page = tick(&mut sampler, now + Duration::from_secs(700), &[]);
        assert!(has(&page, "power_watts"), "{code}: asked again in the end");
    }
}

#[test]
fn each_loss_of_a_gpu_is_said_once_and_leaves_no_value() {
    let fake = Fake::new(TWO);
    let mut sampler = fake.sampler(|_| {});
    let start = Instant::now();
    tick(&mut sampler, start, &[]);
    for round in 0..2_u64 {
        let at = |second: u64| start + Duration::from_secs(round * 1000 + second);
        fake.set(&two_with(&[("0.handle", "error 15")]));
        let mut said = Vec::new();
        for second in 1..25 {
            let page = tick(&mut sampler, at(second), &[]);
            said.extend(page.outcome("gpu").news.clone());
            let left = page.samples.keys().filter(|key| key.contains(ONE));
            let left: Vec<_> = left.collect();
            assert_eq!(left, [&format!("qbus_gpu_up{{{ONE}}}")], "round {round}");
            assert_eq!(value(&page, "up", ""), 0.0);
        }
        assert!(matches!(&said[..], [News::Failed(_)]), "{said:?}");
        fake.set(TWO);
        let page = tick(&mut sampler, at(60), &[]);
        assert_eq!(page.outcome("gpu").news, [News::Recovered("GPU 0".into())]);
        assert_eq!(value(&page, "up", ""), 1.0);
    }
}

#[test]
fn a_lost_gpu_leaves_the_other_alone() {
    let fake = Fake::new(TWO);
    let mut sampler = fake.sampler(|_| {});
    let now = Instant::now();
    assert_eq!(value(&tick(&mut sampler, now, &[]), "up", ""), 1.0);
    fake.set(&two_with(&[
        ("0.handle", "error 15"),
        ("0.temperature0", "error 15"),
    ]));
    for second in 1..5 {
        let page = tick(&mut sampler, now + Duration::from_secs(second), &[]);
        assert_eq!(value(&page, "up", ""), 0.0);
        assert!(!page.has(&format!("qbus_gpu_temperature_celsius{{{ONE}}}")));
        assert_eq!(page.value(r#"qbus_gpu_up{gpu="1",uuid="GPU-two"}"#), 1.0);
        assert_eq!(
            page.value(r#"qbus_gpu_temperature_celsius{gpu="1",uuid="GPU-two"}"#),
            60.0
        );
        assert_eq!(page.outcome("gpu").failures, 1, "one loss is one failure");
    }
    fake.set(TWO);
    let page = tick(&mut sampler, now + Duration::from_secs(40), &[]);
    assert_eq!(value(&page, "up", ""), 1.0);
    // Some drivers count it no more.
    fake.set(&two_with(&[("count", "1")]));
    let page = tick(&mut sampler, now + Duration::from_secs(41), &[]);
    assert_eq!(page.value(r#"qbus_gpu_up{gpu="1",uuid="GPU-two"}"#), 0.0);
}

#[test]
fn a_gpu_that_is_not_for_this_container_is_skipped() {
    let fake = Fake::new(&two_with(&[("1.handle", "error 4")]));
    let page = tick(&mut fake.sampler(|_| {}), Instant::now(), &[]);
    assert_eq!(value(&page, "up", ""), 1.0);
    assert!(
        !page.samples.keys().any(|key| key.contains("gpu=\"1\"")),
        "{page:#?}"
    );
    let outcome = page.outcome("gpu");
    assert_eq!((outcome.failures, outcome.skipped), (0, 1));
}

#[test]
fn a_library_that_is_another_one_is_a_failure_said_once() {
    let mut sampler = sampler(&[Source::Gpu], |config| {
        config.nvml = Some("libc.so.6".into())
    });
    let now = Instant::now();
    let page = tick(&mut sampler, now, &[]);
    assert!(
        matches!(page.outcome("gpu").news[..], [News::Failed(_)]),
        "{page:#?}"
    );
    let page = tick(&mut sampler, now + Duration::from_secs(1), &[]);
    assert_eq!(
        (page.outcome("gpu").failures, &page.outcome("gpu").news),
        (1, &vec![])
    );
}

#[test]
fn a_driver_that_goes_away_is_loaded_anew() {
    let fake = Fake::new(TWO);
    let mut sampler = fake.sampler(|_| {});
    let now = Instant::now();
    tick(&mut sampler, now, &[]);
    for code in ["error 1", "error 18"] {
        fake.set(&two_with(&[("count", code)]));
        let later = now + Duration::from_secs(if code == "error 1" { 1 } else { 100 });
        let page = tick(&mut sampler, later, &[]);
        assert!(
            matches!(page.outcome("gpu").news[..], [News::Failed(_)]),
            "{page:#?}"
        );
        fake.set(TWO);
        let page = tick(&mut sampler, later + Duration::from_secs(1), &[]);
        assert_eq!(value(&page, "up", ""), 0.0, "without a driver it is not up");
        let page = tick(&mut sampler, later + Duration::from_secs(61), &[]);
        assert_eq!(value(&page, "up", ""), 1.0);
    }
}

#[test]
fn slow_calls_are_made_seldom_and_their_values_stay() {
    let fake = Fake::new(TWO);
    let mut sampler = fake.sampler(|_| {});
    let now = Instant::now();
    tick(&mut sampler, now, &[]);
    fake.set(&two_with(&[("0.fan0", "99"), ("0.temperature0", "56")]));
    let page = tick(&mut sampler, now + Duration::from_secs(1), &[]);
    assert_eq!(value(&page, "temperature_celsius", ""), 56.0);
    assert_eq!(value(&page, "fan_speed_ratio", ",fan=\"0\""), 0.3);
    let page = tick(&mut sampler, now + Duration::from_secs(10), &[]);
    assert_eq!(value(&page, "fan_speed_ratio", ",fan=\"0\""), 0.99);
}

#[test]
fn a_call_that_hangs_delays_no_other_source() {
    let fake = Fake::new(TWO);
    let mut sampler = fake.sampler(|config| config.patience = Duration::from_millis(100));
    let now = Instant::now();
    let at = |second| now + Duration::from_secs(second);
    let up = format!("qbus_gpu_up{{{ONE}}}");
    // The sampler's time stands still while the test waits: no value gets old by that.
    while !tick(&mut sampler, at(0), &[]).has(&up) {}
    fake.set(&two_with(&[("0.power", "hang")]));
    tick(&mut sampler, at(1), &[]);
    let page = tick(&mut sampler, at(2), &[]);
    assert!(page.outcome("gpu").hanging);
    assert_eq!(
        value(&page, "temperature_celsius", ""),
        55.0,
        "the last values are kept"
    );
    assert_eq!(page.outcome("load").samples, 3);
    let page = tick(&mut sampler, at(61), &[]);
    assert!(
        page.samples
            .keys()
            .filter(|key| key.starts_with("qbus_gpu"))
            .all(|key| key.starts_with("qbus_gpu_up")),
        "not for ever: {page:#?}"
    );
    assert_eq!(page.value(&up), 0.0, "a GPU that does not answer is not up");
    assert_eq!(page.outcome("gpu").failures, 1);
    fake.set(TWO);
    while !tick(&mut sampler, at(62), &[]).has(&up) {}
}

#[test]
fn memory_of_attached_processes_is_found_by_their_pids() {
    let own = std::process::id();
    let fake = Fake::new(&two_with(&[
        ("0.compute_processes", &format!("{own} 1000 4000000 5000")),
        ("0.graphics_processes", &format!("{own} 1000")),
        (
            "1.compute_processes",
            &format!("{own} 18446744073709551615"),
        ),
    ]));
    let attached = |pid_namespace| Attached {
        pid: own,
        role: "worker".into(),
        command: "train".into(),
        pid_namespace,
        ..Attached::default()
    };
    let page = tick(&mut fake.sampler(|_| {}), Instant::now(), &[attached(None)]);
    assert_eq!(value(&page, "processes", ""), 2.0);
    let memory = "process_memory_bytes";
    let labels = ",role=\"worker\",command=\"train\"";
    let host = fs::read_link("/proc/self/ns/pid").unwrap() == Path::new("pid:[4026531836]");
    if host {
        assert_eq!(
            value(&page, memory, labels),
            1000.0,
            "it stands in both lists"
        );
        let other = format!("qbus_gpu_{memory}{{gpu=\"1\",uuid=\"GPU-two\"{labels}}}");
        assert!(!page.has(&other), "the driver does not know");
    } else {
        assert!(
            !page.samples.keys().any(|key| key.contains(memory)),
            "{page:#?}"
        );
    }
    // The same number in another namespace is another process.
    let page = tick(
        &mut fake.sampler(|_| {}),
        Instant::now(),
        &[attached(Some(1))],
    );
    assert!(
        !page.samples.keys().any(|key| key.contains(memory)),
        "{page:#?}"
    );
}

#[test]
fn mig_devices_have_their_own_memory_and_processes() {
    let own = std::process::id();
    let fake = Fake::new(&two_with(&[
        ("0.mig_mode", "1 1"),
        ("0.mig_max", "7"),
        ("0.utilization", "error 3"),
        ("0.mig0.uuid", "MIG-a"),
        ("0.mig0.memory", "10000 0 4000"),
        ("0.mig0.compute_processes", &format!("{own} 1000")),
        ("0.mig3.uuid", "MIG-b"),
        ("0.mig3.memory", "20000 0 5000"),
        ("0.mig3.compute_processes", &format!("{own} 3000")),
    ]));
    let attached = Attached {
        pid: own,
        role: "worker".into(),
        command: "train".into(),
        ..Attached::default()
    };
    let page = tick(&mut fake.sampler(|_| {}), Instant::now(), &[attached]);
    assert_eq!(
        value(&page, "mig_memory_total_bytes", ",mig_uuid=\"MIG-a\""),
        10_000.0
    );
    assert_eq!(
        value(&page, "mig_memory_used_bytes", ",mig_uuid=\"MIG-b\""),
        5000.0
    );
    assert_eq!(value(&page, "processes", ",mig_uuid=\"MIG-a\""), 1.0);
    assert!(!page.has(&format!("qbus_gpu_utilization_ratio{{{ONE}}}")));
    if fs::read_link("/proc/self/ns/pid").unwrap() == Path::new("pid:[4026531836]") {
        let labels = ",mig_uuid=\"MIG-b\",role=\"worker\",command=\"train\"";
        assert_eq!(value(&page, "process_memory_bytes", labels), 3000.0);
    }
    assert_eq!(page.outcome("gpu").failures, 0, "{page:#?}");
}

/// Where this test may make a pid namespace: a process in it, with the pid that the host sees.
fn process_in_a_container() -> Option<(Running, u32)> {
    let unshare = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "sleep", "600"])
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut unshare = Running(unshare);
    // Not every kernel lists children.
    fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id())).ok()?;
    let children = format!("/proc/{0}/task/{0}/children", unshare.0.id());
    loop {
        let text = fs::read_to_string(&children).unwrap_or_default();
        if let Some(pid) = text.split_whitespace().next() {
            return Some((unshare, pid.parse().unwrap()));
        }
        if unshare.0.try_wait().unwrap().is_some() {
            return None;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_process_in_a_container_is_known_by_both_its_pids() {
    let host = fs::read_link("/proc/self/ns/pid").unwrap() == Path::new("pid:[4026531836]");
    if !host {
        return;
    }
    let Some((unshare, host_pid)) = process_in_a_container() else {
        return;
    };
    let inode = fs::metadata(format!("/proc/{host_pid}/ns/pid"))
        .unwrap()
        .ino();
    let fake = Fake::new(&two_with(&[(
        "0.compute_processes",
        &format!("{host_pid} 4096"),
    )]));
    let attached = |namespace| Attached {
        pid: 1,
        role: "worker".into(),
        command: "train".into(),
        pid_namespace: Some(namespace),
        ..Attached::default()
    };
    let mut sampler = sampler(&[Source::Gpu, Source::Process], |config| {
        config.nvml = Some(fake.library.clone());
    });
    let now = Instant::now();
    let page = tick(&mut sampler, now, &[attached(inode)]);
    let other = tick(
        &mut sampler,
        now + Duration::from_secs(10),
        &[attached(inode + 1)],
    );
    drop(unshare);
    let labels = ",role=\"worker\",command=\"train\"";
    assert_eq!(value(&page, "process_memory_bytes", labels), 4096.0);
    assert!(!page.has(&format!("qbus_process_threads{{{}}}", &labels[1..])));
    assert_eq!(
        page.outcome("process").skipped,
        1,
        "its files are not looked for by its own pid"
    );
    assert!(
        !other
            .samples
            .keys()
            .any(|key| key.contains("process_memory_bytes"))
    );
}
