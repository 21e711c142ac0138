//! Starting, resetting and ending, and what is left behind: nothing.

use std::env;
use std::io::{self, Write};
use std::process::Command;
use std::time::Duration;

use qbus::{Address, Bus, BusOptions, EmitError, Removal};
use qbus_collector::{AddError, Collector, CollectorOptions, Metric, MetricError};
use qbus_tests::{Process, until};

use crate::collector;

#[test]
fn a_private_bus_goes_with_its_collector() {
    let collector = collector();
    assert!(collector.is_embedded());
    let address = collector.bus().address().clone();
    assert!(Bus::open(&address).is_ok());
    collector.close();
    assert!(Bus::open(&address).unwrap_err().is_absent());
    assert!(!address.snapshot().exists());
    let late = collector
        .add_metric(&Metric::gauge("late", 1.0))
        .map_err(|error| match error {
            AddError::Metric(MetricError::Emit { source, .. }) => source,
            other => panic!("{other}"),
        });
    // Before this thread's first emit: it cannot join any more.
    assert_eq!(late, Err(EmitError::Removed));
}

#[test]
fn the_machine_is_sampled_from_start_to_stop() {
    let config = CollectorOptions {
        collection_interval: Duration::from_millis(20),
        ..CollectorOptions::default()
    };
    let collector = Collector::new(&config).unwrap();
    assert_eq!(collector.get_metric("system_memory_total_bytes", &[]), None);
    collector.start_collection();
    collector.start_collection();
    assert!(collector.get_statistics().is_collecting);
    until("the machine is sampled", || {
        let names = ["system_cpu_percent", "process_memory_rss_bytes"];
        names
            .iter()
            .all(|name| collector.get_metric(name, &[]).is_some())
    });
    collector.stop_collection();
    collector.stop_collection();
    // Waits until what was sampled last is delivered.
    collector.get_metric("system_cpu_percent", &[]).unwrap();
    let delivered = collector.get_statistics().delivered;
    assert!(!collector.get_statistics().is_collecting);
    collector.add_metric(&Metric::gauge("after", 1.0)).unwrap();
    collector.get_metric("after", &[]).unwrap();
    assert_eq!(collector.get_statistics().delivered, delivered + 1);
}

/// In a container the host lies elsewhere.
#[test]
fn the_host_is_sampled_where_it_is_said_to_be() {
    let host = tempfile::tempdir().unwrap();
    let meminfo = "MemTotal: 8 kB\nMemFree: 1 kB\nMemAvailable: 4 kB\n";
    std::fs::write(host.path().join("meminfo"), meminfo).unwrap();
    let mut config = CollectorOptions {
        collection_interval: Duration::from_millis(20),
        ..CollectorOptions::default()
    };
    let proc = host.path().to_str().unwrap();
    config.sampler.set_argument("path.procfs", proc).unwrap();
    let collector = Collector::new(&config).unwrap();
    collector.start_collection();
    let total = || collector.get_metric("system_memory_total_bytes", &[]);
    until("the machine is sampled", || total().is_some());
    assert_eq!(total().unwrap().value, qbus_aggregate::Value::Gauge(8192.0));
}

#[test]
fn a_reset_forgets_everything_and_handles_go_on() {
    let collector = collector();
    let handle = collector
        .bus()
        .counter("requests_total")
        .register()
        .unwrap();
    for round in 1..=3 {
        handle.add(5.0);
        collector.add_metric(&Metric::gauge("gone", 1.0)).unwrap();
        collector.reset().unwrap();
        assert_eq!(
            collector.get_all_current_metrics(),
            [],
            "after reset {round}"
        );
        assert_eq!(collector.get_all_metrics_buffer(), []);
        handle.inc();
        let value = collector.get_metric("requests_total", &[]).unwrap().value;
        assert_eq!(value, qbus_aggregate::Value::Counter(1.0.into()));
    }
}

/// Another process with a private collector that has added 1 to `calls_total`; and its bus.
fn other_process() -> (Process, Address) {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "lifecycle::another_process", "--nocapture"])
        .env("TEST_ANOTHER_PROCESS", "1");
    let process = Process::spawn(command);
    let address = loop {
        if let Some(bus) = process.line().strip_prefix("bus ") {
            break bus.parse().unwrap();
        }
    };
    (process, address)
}

/// What [`other_process`] runs, and nothing in a run of the tests.
#[test]
fn another_process() {
    if env::var_os("TEST_ANOTHER_PROCESS").is_none() {
        return;
    }
    let collector = collector();
    collector
        .add_metric(&Metric::counter("calls_total", 1.0))
        .unwrap();
    writeln!(io::stdout(), "bus {}", collector.bus().address()).unwrap();
    // It is killed, or its input is closed.
    let _ = io::stdin().read_line(&mut String::new());
}

#[test]
fn what_a_killed_process_left_is_swept_at_once() {
    let (process, left) = other_process();
    let (alive, in_use) = other_process();
    process.kill();
    assert!(left.file().exists() && left.snapshot().exists());
    let collector = collector();
    assert!(!left.file().exists() && !left.snapshot().exists());
    assert!(Bus::open(&in_use).is_ok(), "one in use is left alone");
    assert!(Bus::open(collector.bus().address()).is_ok());
    alive.end_well();
    assert!(!in_use.file().exists() && !in_use.snapshot().exists());
}

#[test]
fn a_bus_that_somebody_named_so_is_not_swept() {
    let name = format!("embedded-server{}", std::process::id());
    let address: Address = name.parse().expect("a name");
    Bus::create(&address, &BusOptions::default()).expect("made");
    let _private = collector();
    let removed = Bus::remove(&address, Removal::Forced);
    removed.expect("a bus with a name stays, also when nobody uses it");
}

#[test]
fn who_finds_that_nobody_aggregates_a_private_bus_does_so() {
    let (process, address) = other_process();
    let config = CollectorOptions {
        bus: Some(address.clone()),
        ..CollectorOptions::default()
    };
    let worker = Collector::new(&config).unwrap();
    assert!(!worker.is_embedded());
    let total = || worker.get_metric("calls_total", &[]).unwrap().value;
    let add = || worker.add_metric(&Metric::counter("calls_total", 1.0));
    add().unwrap();
    assert_eq!(total(), qbus_aggregate::Value::Counter(2.0.into()));
    process.kill();
    assert!(!worker.get_statistics().has_aggregator);
    add().unwrap();
    assert_eq!(total(), qbus_aggregate::Value::Counter(3.0.into()));
    assert!(worker.get_statistics().has_aggregator);
    assert_eq!(worker.get_statistics().last_background_error, None);
    drop(worker);
    assert!(!address.file().exists() && !address.snapshot().exists());
}

#[test]
fn what_full_lanes_keep_for_want_of_an_aggregator_is_all_there_for_who_reads() {
    let (process, address) = other_process();
    let config = CollectorOptions {
        bus: Some(address),
        ..CollectorOptions::default()
    };
    let worker = Collector::new(&config).unwrap();
    process.kill();
    // More than any lane holds, and nothing is read meanwhile: what does not fit is kept as state.
    let calls = 3 * worker.bus().geometry().slots;
    for _ in 0..calls {
        let queued = worker.queue_metric(&Metric::counter("calls_total", 1.0));
        queued.expect("a full lane loses no increment");
    }
    let found = worker.get_metric("calls_total", &[]).unwrap().value;
    let all = 1.0 + calls as f64;
    assert_eq!(found, qbus_aggregate::Value::Counter(all.into()));
    assert!(worker.get_statistics().has_aggregator);
}

#[test]
fn the_process_has_one_collector_and_shorthands_for_it() {
    use qbus_aggregate::Value;
    use qbus_collector::{
        add_performance_metric, end_performance_tracking, get_metrics_collector,
        queue_performance_metric, start_performance_tracking,
    };
    let global = get_metrics_collector().unwrap();
    assert!(std::ptr::eq(global, get_metrics_collector().unwrap()));
    let labels = [("model", "qwen3-vl")];
    add_performance_metric("tokens_per_second", 71.5, &labels, "Decoded tokens.").unwrap();
    queue_performance_metric("tokens_per_second", 72.5, &labels, "").unwrap();
    let found = global.get_metric("tokens_per_second", &labels).unwrap();
    assert_eq!(found.value, Value::Gauge(72.5));
    assert_eq!(found.family.help, "Decoded tokens.");
    start_performance_tracking("inference").unwrap();
    let performance = end_performance_tracking("inference").unwrap();
    assert!(performance.duration < Duration::from_secs(60));
    let unknown = end_performance_tracking("inference").unwrap_err();
    assert!(unknown.to_string().contains("\"inference\""), "{unknown}");
    let refused = add_performance_metric("no name", 1.0, &[], "").unwrap_err();
    assert!(
        refused.to_string().contains("is no metric name"),
        "{refused}"
    );
    // A static is never dropped.
    global.close();
}
