//! What comes back: history, buffer, exports, statistics.

use std::fs;
use std::path::Path;

use qbus_aggregate::Value;
use qbus_aggregate::export::Options;
use qbus_collector::{Collector, CollectorOptions, ExportError, Format, Metric};

use crate::collector;

/// The metric that the documented examples of the three formats show.
fn latency(collector: &Collector) {
    collector
        .add_metric(&Metric {
            labels: &[("model", "qwen3-vl"), ("input_size", "large")],
            description: "Model inference latency in seconds",
            timestamp: Some(1_696_161_600.0),
            ..Metric::gauge("model_inference_latency", 0.125)
        })
        .unwrap();
}

#[test]
fn the_formats_are_those_of_the_document() {
    let collector = collector();
    latency(&collector);
    assert_eq!(
        collector.export_to_prometheus(true).unwrap(),
        "# TYPE model_inference_latency gauge\n\
         # HELP model_inference_latency Model inference latency in seconds\n\
         model_inference_latency{model=\"qwen3-vl\",input_size=\"large\"} 0.125 1696161600000\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.csv");
    collector.export_to_csv(&path, false).unwrap();
    let csv = fs::read_to_string(&path).unwrap();
    assert_eq!(
        csv.lines().nth(1).unwrap(),
        concat!(
            r#"model_inference_latency,0.125,gauge,"{""model"":""qwen3-vl"",""#,
            r#""input_size"":""large""}",Model inference latency in seconds,"#,
            "1696161600.0,2023-10-01T12:00:00.000000000Z"
        )
    );
    let options = Options::default();
    assert_eq!(collector.export(Format::Csv, &options).unwrap(), csv);
    let json: serde_json::Value =
        serde_json::from_str(&collector.export_to_json(true).unwrap()).unwrap();
    let metric = &json["metrics"][0];
    assert_eq!(metric["name"], "model_inference_latency");
    assert_eq!(metric["labels"]["model"], "qwen3-vl");
    assert_eq!(metric["timestamp"], 1_696_161_600.0);
    assert_eq!(
        json["history"]["model_inference_latency"][0]["value"],
        0.125
    );
}

#[test]
fn an_export_that_fails_says_where() {
    let collector = collector();
    let error = collector
        .export_to_csv(Path::new("/nowhere/metrics.csv"), false)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("could not write /nowhere/metrics.csv: "),
        "{error}"
    );
    let config = CollectorOptions {
        enable_prometheus_export: false,
        ..CollectorOptions::default()
    };
    let without = Collector::new(&config).unwrap();
    assert!(matches!(
        without.export_to_prometheus(false),
        Err(ExportError::Disabled)
    ));
    assert!(without.export_to_json(false).is_ok());
}

#[test]
fn history_and_buffer_are_bounded() {
    let config = CollectorOptions {
        max_history_per_metric: 10,
        max_metrics_buffer: 15,
        ..CollectorOptions::default()
    };
    let collector = Collector::new(&config).unwrap();
    for n in 0..20 {
        let worker = ["a", "b"][n % 2];
        let labels = [("worker", worker)];
        let metric = Metric {
            labels: &labels,
            timestamp: Some(n as f64),
            ..Metric::gauge("value", n as f64)
        };
        collector.add_metric(&metric).unwrap();
    }
    let values = |readings: Vec<qbus_collector::Reading>| {
        readings
            .iter()
            .map(|reading| reading.value)
            .collect::<Vec<_>>()
    };
    let all: Vec<f64> = (0..20).map(f64::from).collect();
    assert_eq!(values(collector.get_metrics_history("value", None)), all);
    assert_eq!(
        values(collector.get_metrics_history("value", Some(3))),
        [17.0, 18.0, 19.0]
    );
    assert!(collector.get_metrics_history("other", None).is_empty());
    let buffer = collector.get_all_metrics_buffer();
    assert_eq!(buffer[14].labels, [("worker".into(), "b".into())]);
    assert_eq!(values(buffer), all[5..]);
    assert_eq!(collector.get_statistics().buffered, 15);
}

#[test]
fn without_labels_the_last_of_a_name_is_found() {
    let collector = collector();
    for worker in ["b", "a"] {
        let labels = [("worker", worker)];
        let metric = Metric {
            labels: &labels,
            ..Metric::gauge("value", worker.len() as f64)
        };
        collector.add_metric(&metric).unwrap();
    }
    let found = collector.get_metric("value", &[]).unwrap();
    assert_eq!(found.labels, [("worker".into(), "a".into())]);
    collector.add_metric(&Metric::gauge("value", 7.0)).unwrap();
    let found = collector.get_metric("value", &[]).unwrap();
    assert_eq!(found.value, Value::Gauge(7.0));
    assert_eq!(collector.get_metric("value", &[("worker", "c")]), None);
    assert_eq!(collector.get_metric("other", &[]), None);
}

#[test]
fn trackers_nest_and_tell_time_and_memory() {
    let collector = collector();
    collector.add_performance_tracker("outer", None, None);
    collector.add_performance_tracker("outer", None, Some(0));
    let inner = collector.end_performance_tracker("outer").unwrap();
    assert!(
        inner.memory_delta > 1 << 20,
        "all of the resident memory: {inner:?}"
    );
    let outer = collector.end_performance_tracker("outer").unwrap();
    assert!(outer.duration >= inner.duration);
    let error = collector.end_performance_tracker("outer").unwrap_err();
    assert!(error.to_string().contains("\"outer\""), "{error}");
    let labels = [("operation", "outer")];
    let series = collector
        .get_metric("performance_duration_seconds", &labels)
        .unwrap();
    assert_eq!(series.records, 2);
}
