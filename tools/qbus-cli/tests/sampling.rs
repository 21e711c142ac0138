//! What the sampler puts on the bus, and what `qbus sample` prints.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use qbus_aggregate::{ReadOptions, Reader, Value};
use qbus_tests::{Place, Process, TestBus, run, until};

use crate::support::{qbus, stop, typed, well};

/// Samples of a page of Prometheus text, by name and labels as written.
fn samples(page: &str) -> BTreeMap<&str, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            (series, value.parse().expect("a number"))
        })
        .collect()
}

/// What a committed series is by now, wherever its labels begin with these.
fn value(bus: &TestBus, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut reader = Reader::open(&bus.address().snapshot()).ok()?;
    let snapshot = reader.read(&ReadOptions::default()).ok()?;
    let has = |have: &[(String, String)]| {
        labels
            .iter()
            .all(|(name, value)| have.iter().any(|(n, v)| n == name && v == value))
    };
    let series = snapshot
        .series
        .iter()
        .find(|series| series.family.name == name && has(&series.labels))?;
    match series.value {
        Value::Counter(sum) => Some(sum.value()),
        Value::Gauge(value) => Some(value),
        Value::Histogram(_) | Value::Summary(_) => None,
    }
}

fn aggregator(bus: &TestBus, args: &str) -> Process {
    let mut command = typed(&format!("agg --interval 50ms -b {} {args}", bus.address()));
    command.stderr(Stdio::null());
    Process::spawn(command)
}

#[test]
fn each_set_of_names_says_what_the_machine_says() {
    let bus = TestBus::reserve(Place::Named);
    let meminfo = fs::read_to_string("/proc/meminfo").expect("Linux");
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .expect("it has one");
    let kibibytes: f64 = total
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    for (names, memory, cpu) in [
        (
            "qbus",
            "qbus_host_memory_total_bytes",
            "qbus_host_cpu_usage_ratio",
        ),
        (
            "node",
            "node_memory_MemTotal_bytes",
            "node_cpu_seconds_total{cpu=\"0\",mode=\"idle\"}",
        ),
        ("seed", "system_memory_total_bytes", "system_cpu_percent"),
    ] {
        let page = well(&bus, &format!("sample --names {names}"));
        let samples = samples(&page);
        assert_eq!(samples.get(memory), Some(&(kibibytes * 1024.0)), "{names}");
        assert!(samples.contains_key(cpu), "{names}: no {cpu} in {page}");
    }
}

/// node_exporter publishes what it takes from the kernel by name without a type.
#[test]
fn what_has_no_type_for_node_exporter_has_none_on_the_page() {
    let bus = TestBus::reserve(Place::Named);
    let aggregator = aggregator(&bus, "--names node");
    until("the machine is sampled", || {
        value(&bus, "node_vmstat_pgfault", &[]).is_some_and(|faults| faults > 0.0)
    });
    let text = well(&bus, "dump");
    let open_metrics = well(&bus, "dump --format openmetrics");
    let json = well(&bus, "dump --format json");
    stop(aggregator);
    assert!(
        text.contains("# TYPE node_vmstat_pgfault untyped\n"),
        "{text}"
    );
    assert!(text.contains("# TYPE node_load1 gauge\n"), "{text}");
    assert!(text.contains("# TYPE node_forks_total counter\n"), "{text}");
    assert!(
        open_metrics.contains("# TYPE node_vmstat_pgfault unknown\n"),
        "{open_metrics}"
    );
    assert!(json.contains("\"untyped\""), "{json}");
}

#[test]
fn a_source_can_be_left_out() {
    let bus = TestBus::reserve(Place::Named);
    let page = well(&bus, "sample --once --no-collect load --no-collect gpu");
    let samples = samples(&page);
    assert!(!samples.contains_key("qbus_host_load1"));
    assert!(
        samples.contains_key("qbus_host_boot_time_seconds"),
        "{page}"
    );
    let listed = well(&bus, "sample --list");
    assert_eq!(
        listed
            .lines()
            .filter(|line| line.starts_with("load "))
            .count(),
        1
    );
}

#[test]
fn the_whole_page_of_an_aggregator_passes_promtool() {
    let bus = TestBus::reserve(Place::Named);
    let aggregator = aggregator(&bus, "");
    until("its own metrics are committed", || {
        value(&bus, "qbus_bus_records_total", &[]).is_some_and(|records| records > 0.0)
            && value(&bus, "qbus_host_cpu_usage_ratio", &[]).is_some()
    });
    let page = well(&bus, "dump");
    stop(aggregator);
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]);
    if std::env::var_os("QBUS_REQUIRE_PROMTOOL").is_none()
        && Command::new("promtool").arg("--version").output().is_err()
    {
        eprintln!("skipped: promtool is not installed");
        return;
    }
    let checked = run(&mut promtool, &page);
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

#[test]
fn an_attached_process_is_sampled_by_its_role() {
    let bus = TestBus::reserve(Place::Named);
    let aggregator = aggregator(&bus, "--no-gpu");
    until("the bus is there", || {
        bus.address().file().exists() && qbus::Bus::open(bus.address()).is_ok()
    });
    let attached = bus.open();
    attached.set_role("inference");
    let _producer = attached.producer().expect("a free lane");
    let threads = || value(&bus, "qbus_process_threads", &[("role", "inference")]);
    until("this process is sampled", || {
        threads().is_some_and(|threads| threads >= 1.0)
    });
    let resident = value(
        &bus,
        "qbus_process_resident_memory_bytes",
        &[("role", "inference")],
    );
    assert!(resident.is_some_and(|bytes| bytes > 1e6), "{resident:?}");
    stop(aggregator);
}

#[test]
fn gpus_are_sampled_through_the_library_that_was_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let library = fake(folder.path());
    let bus = TestBus::reserve(Place::Named);
    let aggregator = aggregator(&bus, &format!("--nvml {library}"));
    let used = || value(&bus, "qbus_gpu_memory_used_bytes", &[("uuid", "GPU-one")]);
    until("the GPU is sampled", || used() == Some(4_294_967_296.0));
    // A call that hangs delays neither the host nor the bus.
    fake_nvml::set(
        folder.path(),
        &GPU.replace("0.power = 250500", "0.power = hang"),
    );
    until("the hanging source is told", || {
        value(&bus, "qbus_sampler_source_hanging", &[("source", "gpu")]) == Some(1.0)
    });
    let switches = || value(&bus, "qbus_host_context_switches_total", &[]).unwrap_or(0.0);
    let before = switches();
    until("the host is sampled all the same", || switches() > before);
    // Only then does the library's thread return.
    fake_nvml::set(folder.path(), GPU);
    stop(aggregator);
}

/// The host by the names of node_exporter, its GPUs by those of dcgm-exporter.
#[test]
fn each_exporter_is_stood_in_for_by_its_own_names() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let library = fake(folder.path());
    let bus = TestBus::reserve(Place::Named);
    let args = format!("sample --once --names node,dcgm --nvml {library}");
    let page = well(&bus, &args);
    assert!(page.contains("node_load1 "), "{page}");
    let used = page
        .lines()
        .find(|line| line.starts_with("DCGM_FI_DEV_FB_USED{gpu=\"0\",UUID=\"GPU-one\","));
    assert!(
        used.is_some_and(|line| line.ends_with(" 4096.0") || line.ends_with(" 4096")),
        "{page}"
    );
    assert!(!page.contains("qbus_gpu_memory_used_bytes"), "{page}");
}

/// The arguments of a unit file of node_exporter, of this version and of earlier ones.
#[test]
fn the_arguments_of_a_unit_file_can_move() {
    let bus = TestBus::reserve(Place::Named);
    let page = well(
        &bus,
        "sample --once --names=node --path.procfs=/proc --path.sysfs=/sys --path.rootfs=/ \
         '--collector.filesystem.ignored-mount-points=^/(dev|sys)($|/)' \
         '--collector.filesystem.fs-types-exclude=^proc$' \
         '--collector.netdev.device-blacklist=^lo$' --collector.netclass.ignored-devices=^veth \
         --collector.cpu.guest --collector.netdev.netlink \
         --collector.textfile.directory=/nonexistent-but-off --no-collector.textfile \
         --no-collector.wifi --no-collector.hwmon --log.level=warn",
    );
    assert!(page.contains("node_load1 "), "{page}");
    assert!(
        !page.contains("node_network_receive_bytes_total{device=\"lo\"}"),
        "{page}"
    );
}

#[test]
fn a_source_that_fails_is_named_and_the_others_are_shown() {
    let host = tempfile::tempdir().expect("a temporary folder");
    fs::write(host.path().join("loadavg"), "0.5 0.25 0.125 1/2 3\n").expect("room");
    // It is there, and cannot be read.
    fs::create_dir(host.path().join("meminfo")).expect("room");
    let proc = host.path().to_str().expect("text");
    let bus = TestBus::reserve(Place::Named);
    let chosen = "--collector.disable-defaults --collector.meminfo --collector.loadavg";
    let finished = qbus(
        &bus,
        &format!("sample --once --path.procfs {proc} {chosen}"),
    );
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.out.contains("qbus_host_load1 0.5"), "{finished:?}");
    let said = format!("qbus: sampling meminfo failed: {proc}/meminfo: ");
    assert!(finished.err.starts_with(&said), "{finished:?}");
    assert_eq!(finished.err.lines().count(), 1, "{finished:?}");
}

const GPU: &str = "
    driver = 580.82.07
    count = 1
    0.uuid = GPU-one
    0.name = NVIDIA H100
    0.memory = 85899345920 1073741824 4294967296
    0.utilization = 40 7
    0.power = 250500
    0.temperature0 = 55
";

/// A copy of the fake library with values of its own; its path.
fn fake(folder: &Path) -> String {
    fake_nvml::copy(folder, GPU).display().to_string()
}

#[test]
fn what_is_gone_from_the_machine_leaves_the_page() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let links = |names: &[&str]| {
        for net in ["net", "1/net"] {
            let net = folder.path().join(net);
            fs::create_dir_all(&net).expect("room");
            let line = |name: &&str| format!("  {name}: 7 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n");
            let lines: String = names.iter().map(line).collect();
            // In place: files of the kernel are opened once.
            fs::write(net.join("dev"), format!("Inter-|\n face |\n{lines}")).expect("room");
        }
    };
    links(&["eth0", "veth7"]);
    let bus = TestBus::reserve(Place::Named);
    let procfs = folder.path().display().to_string();
    let args = format!("--path.procfs {procfs} --no-gpu");
    let running = aggregator(&bus, &args);
    let bytes = "qbus_host_network_receive_bytes_total";
    let link = |link: &str| value(&bus, bytes, &[("device", link)]);
    until("both show", || {
        link("eth0").is_some() && link("veth7").is_some()
    });
    links(&["eth0"]);
    until("the one that is gone does so no more", || {
        link("veth7").is_none()
    });
    until("the other one stays", || link("eth0") == Some(7.0));
    links(&["eth0", "veth7"]);
    until("it is back", || link("veth7") == Some(7.0));
    let load = || value(&bus, "qbus_host_load1", &[]);
    fs::write(folder.path().join("loadavg"), "0.5 0.25 0.125 1/2 3\n").expect("room");
    stop(running);

    // What goes while nobody samples is noticed by the next aggregator.
    let running = aggregator(&bus, &args);
    until("the load shows", || load() == Some(0.5));
    stop(running);
    fs::remove_file(folder.path().join("loadavg")).expect("it is there");
    links(&["eth1"]);
    let running = aggregator(&bus, &args);
    until("only the new one shows", || {
        link("eth1").is_some() && link("eth0").is_none() && link("veth7").is_none()
    });
    until("nor does the load", || load().is_none());
    stop(running);
}

#[test]
fn the_sampler_leaves_room_for_those_who_emit() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let net = folder.path().join("net");
    fs::create_dir_all(&net).expect("room");
    let line = |n: usize| format!("  veth{n}: 7 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n");
    let lines: String = (0..600).map(line).collect();
    fs::write(net.join("dev"), format!("Inter-|\n face |\n{lines}")).expect("room");
    let bus = TestBus::reserve(Place::Named);
    well(&bus, "create --max-series 1024");
    let procfs = folder.path().display().to_string();
    let args = format!("--path.procfs {procfs} --no-gpu --no-self");
    let running = aggregator(&bus, &args);
    let registered = || bus.open().counts().series;
    until("the sampler has its share", || registered() >= 256);
    // Whoever emits finds three quarters of the room.
    for n in 0..700 {
        let counter = bus
            .open()
            .counter("requests_total")
            .label("n", &n.to_string())
            .register();
        counter.expect("room").inc();
    }
    assert!(registered() <= 256 + 700, "{}", registered());
    stop(running);
}
