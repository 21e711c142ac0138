//! Starting, resetting and ending, and what is left behind: nothing.

use std::fs;
use std::time::Duration;

use qbus::{Bus, EmitError};
use qbus_collector::{AddError, Collector, CollectorOptions, Metric};
use qbus_tests::until;

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
            AddError::Emit { source, .. } => source,
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
    let delivered = collector.get_statistics().delivered;
    assert!(!collector.get_statistics().is_collecting);
    collector.add_metric(&Metric::gauge("after", 1.0)).unwrap();
    collector.get_metric("after", &[]).unwrap();
    assert_eq!(collector.get_statistics().delivered, delivered + 1);
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
        assert_eq!(value, qbus_aggregate::Value::Counter(1.0));
    }
}

#[test]
fn what_a_killed_process_left_is_swept() {
    let address: qbus::Address = format!("embedded-{}-left", std::process::id())
        .parse()
        .unwrap();
    let config = qbus::BusOptions::default();
    drop(Bus::create(&address, &config).unwrap());
    let young = collector();
    assert!(Bus::open(&address).is_ok(), "it may be coming up");
    let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    let file = fs::File::options()
        .write(true)
        .open(address.file())
        .unwrap();
    file.set_modified(hour_ago).unwrap();
    drop(file);
    let other = fs::File::options()
        .write(true)
        .open(young.bus().address().file())
        .unwrap();
    other.set_modified(hour_ago).unwrap();
    let second = collector();
    assert!(Bus::open(&address).unwrap_err().is_absent());
    assert!(
        Bus::open(young.bus().address()).is_ok(),
        "one in use is left alone"
    );
    drop(second);
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
