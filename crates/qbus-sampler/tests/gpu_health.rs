//! Whether GPUs are well, who uses them for what, and under which names: errors, rows, links,
//! activity.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use qbus_sampler::{Attached, GpuNames, Sampler};

use crate::gpu::{Fake, ONE, TWO, two_with, value};
use crate::support::{Page, tick};

/// A page of which that is true; what is waited for comes from a thread that listens.
#[track_caller]
fn page_with(sampler: &mut Sampler, now: Instant, is_so: impl Fn(&Page) -> bool) -> Page {
    let start = Instant::now();
    loop {
        let page = tick(sampler, now, &[]);
        if is_so(&page) {
            return page;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{page:#?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn xids(xid: u64) -> String {
    format!("qbus_gpu_xid_errors_total{{{ONE},xid=\"{xid}\"}}")
}

#[test]
fn errors_by_number_are_counted_as_they_happen() {
    let listening = [("0.event_types", "8"), ("events", "0:13")];
    let fake = Fake::new(&two_with(&listening));
    let mut sampler = fake.sampler(|_| {});
    let now = Instant::now();
    let page = page_with(&mut sampler, now, |page| page.has(&xids(79)));
    assert_eq!(
        page.value(&xids(79)),
        0.0,
        "an alert needs it before the first"
    );
    assert!(!page.has(&xids(13)), "what happened before is not known");
    assert!(
        !page
            .samples
            .keys()
            .any(|key| key.contains("xid") && key.contains("GPU-two")),
        "of a GPU that says nothing nothing is known: {page:#?}"
    );
    let mut events = "0:13 0:31 0:79 0:31".to_owned();
    fake.set(&two_with(&[listening[0], ("events", &events)]));
    let page = page_with(&mut sampler, now, |page| {
        page.samples.get(&xids(31)) == Some(&2.0)
    });
    assert_eq!(page.value(&xids(79)), 1.0);
    assert_eq!(value(&page, "last_xid", ""), 31.0);
    // A GPU that fell off the bus says nothing but that: the error is what one wants to see.
    events += " 0:79";
    fake.set(&two_with(&[
        listening[0],
        ("events", &events),
        ("0.handle", "error 15"),
    ]));
    let later = now + Duration::from_secs(1);
    let page = page_with(&mut sampler, later, |page| {
        page.samples.get(&xids(79)) == Some(&2.0)
    });
    assert_eq!(value(&page, "up", ""), 0.0);
    assert!(!page.has(&format!("qbus_gpu_power_watts{{{ONE}}}")));
}

#[test]
fn who_stops_listening_says_so_and_totals_stay() {
    let fake = Fake::new(&two_with(&[("0.event_types", "8"), ("events", "")]));
    let mut sampler = fake.sampler(|_| {});
    let now = Instant::now();
    page_with(&mut sampler, now, |page| page.has(&xids(79)));
    fake.set(&two_with(&[("0.event_types", "8"), ("events", "0:48")]));
    page_with(&mut sampler, now, |page| {
        page.samples.get(&xids(48)) == Some(&1.0)
    });
    fake.set(&two_with(&[("0.event_types", "8"), ("events", "error 15")]));
    let ended = |page: &Page| {
        let news = &page.outcome("gpu").news;
        news.iter()
            .any(|news| news.told("gpu").contains("listening to GPUs ended"))
    };
    let page = page_with(&mut sampler, now, ended);
    assert_eq!(page.value(&xids(48)), 1.0);
    assert_eq!(value(&page, "up", ""), 1.0, "the GPU is another matter");
    // It is tried again after a while, and what happens then counts on top.
    fake.set(&two_with(&[("0.event_types", "8"), ("events", "0:48")]));
    let later = now + Duration::from_secs(31);
    page_with(&mut sampler, later, |page| {
        page.outcome("gpu")
            .news
            .iter()
            .any(|news| news.told("").contains("works again"))
    });
    fake.set(&two_with(&[
        ("0.event_types", "8"),
        ("events", "0:48 0:48"),
    ]));
    page_with(&mut sampler, later, |page| {
        page.samples.get(&xids(48)) == Some(&2.0)
    });
}

#[test]
fn rows_pages_links_and_the_memorys_temperature() {
    let fake = Fake::new(&two_with(&[
        ("0.field82", "1 71"),
        ("0.field142", "1 3"),
        ("0.field143", "1 1"),
        ("0.field144", "1 1"),
        ("0.field145", "1 0"),
        ("0.link0", "1 1 2 3 4"),
        ("0.link1", "0 0 0 0 0"),
        ("0.link2", "1 10 20 30 40"),
        ("1.field29", "1 5"),
        ("1.field30", "1 0"),
        ("1.field31", "1 1"),
    ]));
    let page = tick(&mut fake.sampler(|_| {}), Instant::now(), &[]);
    for (name, more, expected) in [
        ("memory_temperature_celsius", "", 71.0),
        ("remapped_rows_total", ",kind=\"correctable\"", 3.0),
        ("remapped_rows_total", ",kind=\"uncorrectable\"", 1.0),
        ("row_remapping_pending", "", 1.0),
        ("row_remapping_failed", "", 0.0),
        ("nvlinks_active", "", 2.0),
        ("nvlink_errors_total", ",kind=\"replay\"", 11.0),
        ("nvlink_errors_total", ",kind=\"recovery\"", 22.0),
        ("nvlink_errors_total", ",kind=\"crc_flit\"", 33.0),
        ("nvlink_errors_total", ",kind=\"crc_data\"", 44.0),
    ] {
        assert_eq!(value(&page, name, more), expected, "{name}{more}");
    }
    let two = |name: &str, more: &str| {
        page.value(&format!(
            "qbus_gpu_{name}{{gpu=\"1\",uuid=\"GPU-two\"{more}}}"
        ))
    };
    assert_eq!(two("retired_pages_total", ",kind=\"correctable\""), 5.0);
    assert_eq!(two("page_retirement_pending", ""), 1.0);
    let foreign = page.samples.keys().filter(|key| key.contains("GPU-two"));
    let foreign: Vec<_> = foreign
        .filter(|key| key.contains("link") || key.contains("row"))
        .collect();
    assert_eq!(foreign, Vec::<&String>::new(), "what it lacks is not 0");
    assert_eq!(page.outcome("gpu").failures, 0, "{page:#?}");
    let fake = Fake::new(&two_with(&[
        ("0.field145", "1 7"),
        ("0.field82", "1 4294967295"),
    ]));
    let page = tick(&mut fake.sampler(|_| {}), Instant::now(), &[]);
    assert!(!page.has(&format!("qbus_gpu_row_remapping_failed{{{ONE}}}")));
    assert_eq!(
        page.outcome("gpu").failures,
        2,
        "nonsense is counted: {page:#?}"
    );
}

#[test]
fn activity_is_read_where_it_is_asked_for() {
    let with_gpm = two_with(&[
        ("0.gpm", "1"),
        ("0.gpm2", "61.5"),
        ("0.gpm5", "12.25"),
        ("0.gpm10", "101"),
        ("0.gpm60", "3"),
    ]);
    let fake = Fake::new(&with_gpm);
    let now = Instant::now();
    let active = format!("qbus_gpu_sm_active_ratio{{{ONE}}}");
    let mut sampler = fake.sampler(|config| config.gpm = true);
    let page = page_with(&mut sampler, now, |page| page.has(&active));
    assert_eq!(page.value(&active), 0.615);
    assert_eq!(value(&page, "tensor_active_ratio", ""), 0.1225);
    assert_eq!(
        value(&page, "nvlink_receive_bytes_per_second", ""),
        3_145_728.0
    );
    assert!(
        !page.has(&format!("qbus_gpu_dram_active_ratio{{{ONE}}}")),
        "out of range"
    );
    let page = tick(&mut fake.sampler(|_| {}), now, &[]);
    assert!(!page.has(&active), "it is off by default");
}

#[test]
fn use_by_processes_is_joined_to_workers() {
    if fs::read_link("/proc/self/ns/pid").unwrap() != Path::new("pid:[4026531836]") {
        eprintln!("skipped: pids of the driver mean nothing outside of the initial pid namespace");
        return;
    }
    let own = std::process::id();
    let in_memory = format!("{own} 1000 4000000 5000");
    let uses = format!("{own} 7 30 5 4000000 7 60 9 {own} 8 40 6");
    let values = |uses: &str| {
        two_with(&[
            ("0.compute_processes", in_memory.as_str()),
            ("0.process_use", uses),
        ])
    };
    let fake = Fake::new(&values(&uses));
    let attached = [Attached {
        pid: own,
        role: "decode".into(),
        command: "serve".into(),
        ..Attached::default()
    }];
    let mut sampler = fake.sampler(|_| {});
    let now = Instant::now();
    let page = tick(&mut sampler, now, &attached);
    let labels = ",role=\"decode\",command=\"serve\"";
    assert_eq!(value(&page, "process_sm_utilization_ratio", labels), 0.4);
    assert_eq!(
        value(&page, "process_memory_utilization_ratio", labels),
        0.06
    );
    // Nothing new since: it did nothing.
    let page = tick(&mut sampler, now + Duration::from_secs(10), &attached);
    assert_eq!(value(&page, "process_sm_utilization_ratio", labels), 0.0);
    fake.set(&values(&format!("{own} 9 200 5")));
    let page = tick(&mut sampler, now + Duration::from_secs(20), &attached);
    assert_eq!(
        page.outcome("gpu").failures,
        1,
        "no share is that large: {page:#?}"
    );
}

/// Each call may fail in each way, or say anything: that is said, and nothing panics.
#[test]
fn whatever_the_library_says_no_value_is_nonsense() {
    const ANSWERS: [&str; 16] = [
        "error 1",
        "error 2",
        "error 3",
        "error 4",
        "error 6",
        "error 7",
        "error 9",
        "error 10",
        "error 13",
        "error 15",
        "error 16",
        "error 18",
        "error 999",
        "4294967295",
        "18446744073709551615",
        "0",
    ];
    let more = [
        ("0.event_types", "8"),
        ("events", "0:31"),
        ("0.field142", "1 3"),
        ("0.link0", "1 1 2 3 4"),
        ("0.mig_max", "7"),
        ("0.gpm", "1"),
        ("0.gpm2", "61.5"),
        ("0.compute_processes", "1 4096"),
        ("0.process_use", "1 7 30 5"),
    ];
    let well = two_with(&more);
    let keys: Vec<&str> = well
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, _)| key.trim())
        .collect();
    let fake = Fake::new(&well);
    let attached = [Attached {
        pid: 1,
        role: "worker".into(),
        ..Attached::default()
    }];
    let mut sampler = fake.sampler(|config| config.gpm = true);
    let start = Instant::now();
    for (round, key) in (0_u64..).zip(&keys) {
        for (turn, answer) in (0_u64..).zip(ANSWERS) {
            fake.set(&well.replace(&format!("{key} ="), &format!("{key} = {answer} #")));
            let later = start + Duration::from_secs(2000 * (16 * round + turn));
            let page = tick(&mut sampler, later, &attached);
            for news in &page.outcome("gpu").news {
                let told = news.told("gpu");
                assert!(!told.contains("panicked"), "{key} = {answer}: {told}");
            }
            for (series, value) in &page.samples {
                let is_ratio = series.contains("_ratio{") && !series.contains("fan_speed");
                assert!(
                    !is_ratio || (0.0..=1.0).contains(value),
                    "{key} = {answer}: {series} {value}"
                );
            }
        }
    }
}

#[test]
fn a_mig_device_says_its_profile() {
    let fake = Fake::new(&two_with(&[
        ("0.mig_mode", "1 1"),
        ("0.mig_max", "7"),
        ("0.mig0.uuid", "MIG-a"),
        ("0.mig0.name", "NVIDIA H100 MIG 1g.10gb"),
        ("0.mig3.uuid", "MIG-b"),
        ("0.mig3.attributes", "2 20096"),
    ]));
    let page = tick(&mut fake.sampler(|_| {}), Instant::now(), &[]);
    for (uuid, profile, place) in [("MIG-a", "1g.10gb", 0), ("MIG-b", "2g.20gb", 3)] {
        let labels =
            format!(",mig_uuid=\"{uuid}\",mig_profile=\"{profile}\",mig_index=\"{place}\"");
        assert_eq!(value(&page, "mig_info", &labels), 1.0);
    }
}

#[test]
fn the_names_of_dcgm_exporter() {
    let fake = Fake::new(&two_with(&[
        ("0.minor", "2"),
        ("0.field142", "1 3"),
        ("0.field143", "1 1"),
        ("0.event_types", "8"),
        ("events", ""),
    ]));
    let mut sampler = fake.sampler(|config| config.gpu_names = GpuNames::Dcgm);
    let now = Instant::now();
    let has_xids = |page: &Page| {
        page.samples
            .keys()
            .any(|key| key.starts_with("DCGM_FI_DEV_XID"))
    };
    let page = page_with(&mut sampler, now, has_xids);
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let labels = format!(
        "gpu=\"0\",UUID=\"GPU-one\",pci_bus_id=\"00000000:3B:00.0\",device=\"nvidia2\",\
         modelName=\"NVIDIA H100\",hostname={:?},DCGM_FI_DRIVER_VERSION=\"580.82.07\"",
        host.trim_end()
    );
    for (name, expected) in [
        ("DEV_SM_CLOCK", 1980.0),
        ("DEV_MEM_CLOCK", 2619.0),
        ("DEV_GPU_TEMP", 55.0),
        ("DEV_POWER_USAGE", 250.5),
        ("DEV_TOTAL_ENERGY_CONSUMPTION", 123_456_789.0),
        ("DEV_PCIE_REPLAY_COUNTER", 9.0),
        ("DEV_GPU_UTIL", 40.0),
        ("DEV_MEM_COPY_UTIL", 7.0),
        ("DEV_ENC_UTIL", 3.0),
        ("DEV_DEC_UTIL", 4.0),
        ("DEV_XID_ERRORS", 0.0),
        ("DEV_FB_FREE", 76_800.0),
        ("DEV_FB_USED", 4096.0),
        ("DEV_FB_RESERVED", 1024.0),
        ("DEV_UNCORRECTABLE_REMAPPED_ROWS", 1.0),
        ("DEV_CORRECTABLE_REMAPPED_ROWS", 3.0),
        ("DEV_POWER_VIOLATION", 1.5e9),
    ] {
        let found = page.value(&format!("DCGM_FI_{name}{{{labels}}}"));
        assert!(
            (found - expected).abs() <= 1e-9 * expected,
            "{name}: {found}"
        );
    }
    assert_eq!(page.value(&format!("qbus_gpu_up{{{labels}}}")), 1.0);
    assert!(page.has(&format!("qbus_gpu_clock_hertz{{{labels},clock=\"video\"}}")));
    // A GPU that is lost leaves its labels.
    fake.set(&two_with(&[("0.handle", "error 15")]));
    let page = tick(&mut sampler, now + Duration::from_secs(1), &[]);
    assert_eq!(page.value(&format!("qbus_gpu_up{{{labels}}}")), 0.0);
    assert!(!page.has(&format!("DCGM_FI_DEV_GPU_UTIL{{{labels}}}")));
    fake.set(TWO);
}
