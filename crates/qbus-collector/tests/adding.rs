//! Adding and queueing, and what is refused.

use qbus::MetricType;
use qbus_aggregate::Value;
use qbus_collector::{AddError, Metric, MetricError};

use crate::collector;

#[test]
fn what_was_added_is_there_at_once() {
    let collector = collector();
    for n in 0..200 {
        collector
            .add_metric(&Metric::gauge("round", f64::from(n)))
            .unwrap();
        let found = collector.get_metric("round", &[]).unwrap();
        assert_eq!(found.value, Value::Gauge(f64::from(n)));
    }
}

#[test]
fn counters_add_up_and_take_no_steps_back() {
    let collector = collector();
    let labels = [("endpoint", "/api/predict")];
    let request = Metric {
        labels: &labels,
        ..Metric::counter("requests_total", 2.0)
    };
    for _ in 0..10 {
        collector.queue_metric(&request).unwrap();
    }
    let error = collector
        .queue_metric(&Metric {
            value: -1.0,
            ..request
        })
        .unwrap_err();
    assert!(!error.is_refusal());
    assert_eq!(
        error.to_string(),
        "metric requests_total: counter increment is -1, expected a finite number, 0 or more"
    );
    let found = collector.get_metric("requests_total", &labels).unwrap();
    assert_eq!(found.value, Value::Counter(20.0.into()));
    assert_eq!(collector.get_statistics().invalid, 1);
}

#[test]
fn each_type_keeps_what_it_is_for() {
    let collector = collector();
    for metric_type in MetricType::ALL {
        let name = format!("a_{metric_type}");
        for value in [0.25, 0.75] {
            collector
                .add_metric(&Metric::new(&name, value, metric_type))
                .unwrap();
        }
    }
    let value = |name| collector.get_metric(name, &[]).unwrap().value;
    assert_eq!(value("a_counter"), Value::Counter(1.0.into()));
    assert_eq!(value("a_gauge"), Value::Gauge(0.75));
    let Value::Histogram(histogram) = value("a_histogram") else {
        panic!("not a histogram")
    };
    assert_eq!((histogram.count, histogram.sum.value()), (2, 1.0));
    let Value::Summary(summary) = value("a_summary") else {
        panic!("not a summary")
    };
    assert_eq!((summary.count, summary.last), (2, 0.75));
}

#[test]
fn a_value_that_cannot_be_registers_nothing() {
    let collector = collector();
    let refused = [
        Metric::counter("a", f64::INFINITY),
        Metric::histogram("b", f64::NAN),
        Metric {
            timestamp: Some(-1.0),
            ..Metric::gauge("c", 1.0)
        },
        Metric {
            timestamp: Some(f64::NAN),
            ..Metric::gauge("d", 1.0)
        },
    ];
    for metric in refused {
        let error = collector.add_metric(&metric).unwrap_err();
        assert!(error.to_string().contains("expected"), "{error}");
    }
    assert_eq!(collector.get_statistics().series, 0);
    let no_name = collector.add_metric(&Metric::gauge("no name", 1.0));
    assert!(
        matches!(no_name, Err(AddError::Metric(MetricError::Register(_)))),
        "{no_name:?}"
    );
    collector.add_metric(&Metric::gauge("taken", 1.0)).unwrap();
    let other_type = collector
        .add_metric(&Metric::counter("taken", 1.0))
        .unwrap_err();
    assert!(
        other_type
            .to_string()
            .contains("is registered as gauge taken"),
        "{other_type}"
    );
}

#[test]
fn a_family_with_buckets_of_its_own_keeps_them() {
    let collector = collector();
    let registration = collector.bus().histogram("latency").unit("seconds");
    registration.buckets([1.0, 2.0]).register().unwrap();
    collector
        .add_metric(&Metric::histogram("latency", 1.5))
        .unwrap();
    let found = collector.get_metric("latency", &[]).unwrap();
    assert_eq!(found.family.buckets, [1.0, 2.0]);
}

#[test]
fn unbounded_labels_are_refused_one_by_one_and_the_rest_goes_on() {
    let collector = collector();
    collector.bus().set_max_series_per_family(0);
    let capacity = collector.bus().geometry().series;
    let (mut added, mut refused) = (0, 0);
    for batch in 0..capacity + 500 {
        let batch = batch.to_string();
        let labels = [("epoch", "0"), ("batch", batch.as_str())];
        let metric = Metric {
            labels: &labels,
            ..Metric::gauge("training_batch_time", 0.5)
        };
        match collector.add_metric(&metric) {
            Ok(()) => added += 1,
            Err(error) => {
                assert!(error.is_refusal());
                refused += 1;
            }
        }
    }
    assert!(refused >= 500, "{refused}");
    assert_eq!(collector.get_statistics().refused, refused);
    let labels = [("batch", "0"), ("epoch", "0")];
    let known = Metric {
        labels: &labels,
        ..Metric::gauge("training_batch_time", 0.75)
    };
    collector.add_metric(&known).unwrap();
    let found = collector
        .get_metric("training_batch_time", &labels)
        .unwrap();
    assert_eq!(found.value, Value::Gauge(0.75));
    assert_eq!(collector.get_all_current_metrics().len(), added);
}

#[test]
fn rules_are_asked_unless_validation_is_off() {
    let collector = collector();
    collector.register_validation_rule("positive_metric", |value| value > 0.0);
    assert!(collector.validate_metric("positive_metric", 42.0));
    assert!(!collector.validate_metric("positive_metric", -1.0));
    assert!(!collector.validate_metric("no name", 1.0));
    let refused = collector.queue_metric(&Metric::gauge("positive_metric", -1.0));
    assert!(
        matches!(refused, Err(AddError::Invalid { .. })),
        "{refused:?}"
    );
    collector
        .queue_metric(&Metric::gauge("positive_metric", 1.0))
        .unwrap();
    let config = qbus_collector::CollectorOptions {
        validation_enabled: false,
        ..qbus_collector::CollectorOptions::default()
    };
    let lenient = qbus_collector::Collector::new(&config).unwrap();
    lenient.register_validation_rule("positive_metric", |value| value > 0.0);
    lenient
        .add_metric(&Metric::gauge("positive_metric", -1.0))
        .unwrap();
}

#[test]
fn threads_share_it() {
    let collector = collector();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let collector = &collector;
            scope.spawn(move || {
                let thread = thread.to_string();
                let labels = [("thread", thread.as_str())];
                for _ in 0..5000 {
                    for labels in [&labels[..], &[]] {
                        let metric = Metric {
                            labels,
                            ..Metric::counter("work_total", 1.0)
                        };
                        collector.add_metric(&metric).unwrap();
                    }
                }
            });
        }
    });
    let sum = |series: &qbus_aggregate::Series| match series.value {
        Value::Counter(sum) => sum.value(),
        _ => panic!("not a counter"),
    };
    let all = collector.get_all_current_metrics();
    assert_eq!(all.iter().map(sum).sum::<f64>(), 40_000.0);
    assert_eq!(sum(&all[0]), 20_000.0, "the one without labels");
}
