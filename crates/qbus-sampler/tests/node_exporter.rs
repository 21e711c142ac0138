//! The names of node_exporter against node_exporter itself, where there is one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use qbus_sampler::{Names, Source, Trend};

use crate::garbage::HOST;
use crate::support::{Page, Running, sampler, tick, write_tree};

/// Its page, or `None` where there is no such program.
fn exporter_page(args: &[String]) -> Option<String> {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let address = format!("127.0.0.1:{port}");
    let child = ["prometheus-node-exporter", "node_exporter"]
        .iter()
        .find_map(|program| {
            Command::new(program)
                .arg(format!("--web.listen-address={address}"))
                .args(args)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .ok()
        })?;
    let mut exporter = Running(child);
    loop {
        if let Ok(mut stream) = TcpStream::connect(&address) {
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
            let mut page = String::new();
            stream.read_to_string(&mut page).unwrap();
            return Some(page);
        }
        assert_eq!(exporter.0.try_wait().unwrap(), None, "it could not start");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Series with their values, by family.
type Families = BTreeMap<String, BTreeMap<String, f64>>;

/// Series of a page by family, labels sorted, those without a value left out.
fn parse(page: &str) -> Families {
    let mut families: Families = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("node_")) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = sorted(labels);
        families
            .entry(name.to_owned())
            .or_default()
            .insert(labels, value.parse().unwrap());
    }
    families
}

/// The type of each family of a page.
fn types(page: &str) -> BTreeMap<&str, &str> {
    let heads = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    heads.filter_map(|head| head.split_once(' ')).collect()
}

fn sorted(labels: &str) -> String {
    let labels = labels
        .trim_end_matches('}')
        .split_inclusive("\",")
        .map(|l| l.trim_end_matches(','));
    let labels: BTreeSet<_> = labels
        .filter(|l| !l.is_empty() && !l.ends_with("=\"\""))
        .collect();
    labels.into_iter().collect::<Vec<_>>().join(",")
}

fn render(page: &Page) -> String {
    page.samples
        .iter()
        .map(|(series, value)| format!("{series} {value}\n"))
        .collect()
}

#[test]
fn names_and_labels_are_those_of_node_exporter() {
    let Some(theirs) = exporter_page(&[]) else {
        return;
    };
    let their_types = types(&theirs);
    let theirs = parse(&theirs);
    let mut sampler = sampler(Source::ALL, |config| config.names = Names::Node);
    let page = tick(&mut sampler, Instant::now(), &[]);
    for (name, their_type) in their_types {
        let ours = page
            .trends
            .get(name)
            .map(|trend| format!("{trend:?}").to_lowercase());
        assert!(
            ours.as_ref().is_none_or(|ours| ours == their_type),
            "{name}: {their_type}, not {ours:?}"
        );
    }
    assert_eq!(page.trends["node_vmstat_pgfault"], Trend::Untyped);
    let ours = parse(&render(&page));
    assert!(ours.len() > 50, "{ours:#?}");
    // These it reads with collectors that are off by default, or from a driver alone.
    let off = [
        "node_processes_state",
        "node_cpu_scaling_frequency_hertz",
        // Whose build it is can't be the same.
        "node_exporter_build_info",
        "node_scrape_collector_success",
        "node_scrape_collector_duration_seconds",
    ];
    // Of these both leave out what the other shows.
    let chosen = ["node_filesystem_", "node_network_"];
    for (name, series) in &ours {
        if off.contains(&name.as_str()) {
            continue;
        }
        let known = theirs
            .get(name)
            .unwrap_or_else(|| panic!("node_exporter has no {name}"));
        if chosen.iter().any(|prefix| name.starts_with(prefix)) {
            assert!(
                series.keys().any(|labels| known.contains_key(labels)),
                "{name}: {known:#?}"
            );
            continue;
        }
        for labels in series.keys() {
            assert!(known.contains_key(labels), "{name}{{{labels}}}: {known:#?}");
        }
    }
    // A speed that nobody knows has no value with us; systemd is read by no default.
    let known = [
        "node_network_speed_bytes",
        "node_systemd",
        "node_scrape",
        "node_exporter",
    ];
    let is_known = |name: &str| known.iter().any(|prefix| name.starts_with(prefix));
    let missing: Vec<&String> = theirs
        .keys()
        .filter(|name| !ours.contains_key(*name) && !is_known(name))
        .collect();
    assert_eq!(missing, Vec::<&String>::new());
    check_values(&ours, &theirs);
}

/// Of the same machine, one moment and the next.
fn check_values(ours: &Families, theirs: &Families) {
    for steady in [
        "node_boot_time_seconds",
        "node_memory_MemTotal_bytes",
        "node_uname_info",
    ] {
        assert_eq!(ours[steady], theirs[steady]);
    }
    // What only grows had grown no further when it was asked.
    for counter in [
        "node_cpu_seconds_total",
        "node_disk_written_bytes_total",
        "node_vmstat_pgpgout",
    ] {
        for (labels, value) in &ours[counter] {
            let before = theirs[counter][labels];
            assert!(
                *value >= before && *value <= before + before.max(1e6),
                "{counter}{{{labels}}}"
            );
        }
    }
}

/// Its page over files that are written here.
fn page_over_files(root: &Path) -> Option<String> {
    write_tree(root, HOST);
    // It reads the networks of its own process, which over files is `net`.
    for (path, text) in HOST {
        if let Some(path) = path.strip_prefix("proc/1/net/") {
            write_tree(&root.join("proc/net"), &[(path, text)]);
        }
    }
    let argument = |name: &str, folder: &str| format!("--{name}={}", root.join(folder).display());
    exporter_page(&[
        argument("path.procfs", "proc"),
        argument("path.sysfs", "sys"),
        argument("path.rootfs", ""),
        argument("path.udev.data", "udev"),
        argument("collector.textfile.directory", "metrics"),
    ])
}

/// Over the same files both say the same: every series with its value, every type, none more.
#[test]
fn over_the_same_files_both_pages_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str| dir.path().join(name);
    let Some(theirs) = page_over_files(dir.path()) else {
        return;
    };
    let mut sampler = sampler(&Source::defaults(Names::Node), |options| {
        options.names = Names::Node;
        options.roots.root = folder("");
        options.roots.proc = folder("proc");
        options.roots.sys = folder("sys");
        options.roots.udev = folder("udev");
        options.filters.textfile_directory = Some(folder("metrics"));
    });
    let page = tick(&mut sampler, Instant::now(), &[]);
    let ours = parse(&render(&page));
    let their_types = types(&theirs);
    let theirs = parse(&theirs);
    let failed: Vec<&String> = theirs["node_scrape_collector_success"]
        .iter()
        .filter(|(_, success)| **success == 0.0)
        .map(|(collector, _)| collector)
        .collect();
    eprintln!("what node_exporter could not read: {failed:?}");
    // These are of the running machine, or of the exporter itself.
    let of_machine = [
        "node_exporter_",
        "node_scrape_",
        "node_time",
        "node_uname",
        "node_network_receive_",
        "node_network_transmit_",
        "node_filesystem_",
        "node_os_",
        "node_selinux_",
    ];
    let is_compared = |name: &str| !of_machine.iter().any(|own| name.starts_with(own));
    let series = |page: &Families| -> BTreeMap<String, f64> {
        let families = page.iter().filter(|(name, _)| is_compared(name));
        let all = families.flat_map(|(name, series)| {
            series
                .iter()
                .map(move |(labels, value)| (format!("{name}{{{labels}}}"), *value))
        });
        all.collect()
    };
    let (ours, theirs) = (series(&ours), series(&theirs));
    // What has no file is 0 with some of its collectors, and has no series with us.
    let is_missing = |(key, value): &(&String, &f64)| **value != 0.0 && !ours.contains_key(*key);
    let missing: Vec<_> = theirs.iter().filter(is_missing).collect();
    let extra: Vec<_> = ours
        .keys()
        .filter(|key| !theirs.contains_key(*key))
        .collect();
    let mut shared = 0;
    for (key, value) in &ours {
        let Some(their_value) = theirs.get(key) else {
            continue;
        };
        shared += 1;
        assert!(
            (value - their_value).abs() <= 1e-9 * their_value.abs(),
            "{key}: {value}, not {their_value}"
        );
        let name = key.split('{').next().unwrap();
        let own = format!("{:?}", page.trends[name]).to_lowercase();
        assert_eq!(own, their_types[name], "{name}");
    }
    eprintln!("{shared} series of {} shared", theirs.len());
    assert_eq!((missing, extra), (vec![], vec![]));
    assert!(shared > 350, "the files are read");
}
