//! Hosts that are odd: several chips on one device, roots elsewhere, files of metrics that are
//! wrong.

use std::os::unix::fs::symlink;
use std::time::Instant;

use qbus_sampler::{Choice, News, Source};

use crate::support::{sampler, tick, write_tree};

#[test]
fn several_chips_on_one_device_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(
        dir.path(),
        &[
            ("devices/pci0/0000:01/vendor", ""),
            ("class/hwmon/hwmon0/name", "mlx5\n"),
            ("class/hwmon/hwmon0/temp1_input", "41000\n"),
            ("class/hwmon/hwmon1/name", "phy\n"),
            ("class/hwmon/hwmon1/temp1_input", "42000\n"),
            ("class/hwmon/hwmon2/name", "phy\n"),
            ("class/hwmon/hwmon2/temp1_input", "43000\n"),
        ],
    );
    for number in 0..3 {
        let link = dir.path().join(format!("class/hwmon/hwmon{number}/device"));
        symlink(dir.path().join("devices/pci0/0000:01"), link).unwrap();
    }
    let mut sampler = sampler(&[Source::Hwmon], |options| {
        options.roots.sys = dir.path().into();
    });
    let page = tick(&mut sampler, Instant::now(), &[]);
    for (chip, celsius) in [
        ("pci0_0000:01_mlx5", 41.0),
        ("pci0_0000:01_phy_hwmon1", 42.0),
        ("pci0_0000:01_phy_hwmon2", 43.0),
    ] {
        let name = "qbus_host_sensor_temperature_celsius";
        let key = format!("{name}{{chip={chip:?},sensor=\"temp1\"}}");
        assert_eq!(page.value(&key), celsius);
    }
}

#[test]
fn roots_and_filters_hold_for_memory_disks_and_networks() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(
        dir.path(),
        &[
            (
                "proc/meminfo",
                "MemTotal: 8 kB\nMemFree: 1 kB\nMemAvailable: 2 kB\nNew: 3 kB\n",
            ),
            ("proc/diskstats", "8 0 sda 1\n8 16 sdb 2\n"),
            ("proc/1/net/dev", "eth0: 7 1\nveth1: 8 1\n"),
            ("udev/b8:0", "E:ID_MODEL=Fast\n"),
        ],
    );
    let sources = [
        Source::Memory,
        Source::Meminfo,
        Source::Disk,
        Source::Network,
    ];
    let mut sampler = sampler(&sources, |options| {
        options.roots.proc = dir.path().join("proc");
        options.roots.udev = dir.path().join("udev");
        options.filters.netdev = Choice {
            include: None,
            exclude: Some("^veth".parse().unwrap()),
        };
        options.filters.diskstats.include = Some("^sda$".parse().unwrap());
    });
    let page = tick(&mut sampler, Instant::now(), &[]);
    assert_eq!(page.value("qbus_host_memory_total_bytes"), 8192.0);
    assert_eq!(page.value("qbus_host_memory_new_bytes"), 3072.0);
    let info = r#"qbus_host_disk_info{device="sda",major="8",minor="0",model="Fast"}"#;
    assert_eq!(page.value(info), 1.0);
    let received = r#"qbus_host_network_receive_bytes_total{device="eth0"}"#;
    assert_eq!(page.value(received), 7.0);
    let hidden = |key: &String| key.contains("sdb") || key.contains("veth");
    assert!(!page.samples.keys().any(hidden), "{page:#?}");
}

/// Whoever comes second is wrong, whatever the order of labels, and none of its file is shown.
#[test]
fn a_series_of_two_files_is_that_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(
        dir.path(),
        &[
            ("a.prom", "jobs{a=\"1\",b=\"2\"} 4\n"),
            ("b.prom", "alone 1\njobs{b=\"2\",a=\"1\"} 5\n"),
            ("c.prom", "twice 1\nonce 1\ntwice 2\n"),
        ],
    );
    let mut sampler = sampler(&[Source::Textfile], |options| {
        options.filters.textfile_directory = Some(dir.path().into());
    });
    let page = tick(&mut sampler, Instant::now(), &[]);
    assert_eq!(page.value(r#"jobs{a="1",b="2"}"#), 4.0);
    for name in ["alone", "once", "twice"] {
        assert!(!page.has(name), "{page:#?}");
    }
    let said: Vec<_> = page
        .outcome("textfile")
        .news
        .iter()
        .map(|news| news.told(""))
        .collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].ends_with(r#"b.prom: another file has jobs{a="1",b="2"} as well"#),
        "{said:?}"
    );
    assert!(
        said[1].ends_with("c.prom: some series is there twice"),
        "{said:?}"
    );
}

#[test]
fn half_a_file_of_metrics_is_no_answer_and_the_others_are_read() {
    let dir = tempfile::tempdir().unwrap();
    write_tree(
        dir.path(),
        &[
            (
                "a.prom",
                "# TYPE jobs_total counter\njobs_total{q=\"a\\\"b\"} 4\n",
            ),
            ("b.prom", "fine 1\nnot a line\n"),
        ],
    );
    let mut sampler = sampler(&[Source::Textfile], |options| {
        options.filters.textfile_directory = Some(dir.path().into());
    });
    let page = tick(&mut sampler, Instant::now(), &[]);
    assert_eq!(page.value(r#"jobs_total{q="a\"b"}"#), 4.0);
    assert!(!page.has("fine"), "{page:#?}");
    assert_eq!(page.value("qbus_host_textfile_scrape_error"), 1.0);
    let [News::Failed(said)] = &page.outcome("textfile").news[..] else {
        panic!("{page:#?}");
    };
    assert!(said.contains("b.prom: line 2"), "{said}");
}
