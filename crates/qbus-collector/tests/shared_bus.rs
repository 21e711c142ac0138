//! On a bus that others share.

use qbus_aggregate::{Aggregator, Value};
use qbus_collector::{Collector, CollectorOptions, Metric, ResetError};
use qbus_tests::{Place, TestBus, until};

fn on(test: &TestBus) -> Collector {
    let config = CollectorOptions {
        bus: Some(test.address().clone()),
        max_history_per_metric: 2,
        ..CollectorOptions::default()
    };
    Collector::new(&config).unwrap()
}

#[test]
fn collectors_of_a_bus_see_each_other() {
    for place in Place::ALL {
        let test = TestBus::reserve(place);
        let (one, other) = (on(&test), on(&test));
        assert!(!one.is_embedded());
        // Nobody aggregates yet: it waits in the lanes.
        one.add_metric(&Metric::counter("requests_total", 1.0))
            .unwrap();
        assert_eq!(one.get_metric("requests_total", &[]), None);
        assert!(!one.get_statistics().has_aggregator);
        let bus = test.open();
        let mut aggregator =
            Aggregator::open(&bus, &qbus_aggregate::AggregatorOptions::default()).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stopped = || stop.load(std::sync::atomic::Ordering::Relaxed);
            scope.spawn(move || aggregator.run(false, &stopped, &mut |news| panic!("{news:?}")));
            other
                .add_metric(&Metric::counter("requests_total", 2.0))
                .unwrap();
            for collector in [&one, &other] {
                let value = collector.get_metric("requests_total", &[]).unwrap().value;
                assert_eq!(value, Value::Counter(3.0.into()));
            }
            for n in 0..4 {
                let value = f64::from(n);
                one.add_metric(&Metric {
                    timestamp: Some(value),
                    ..Metric::gauge("value", value)
                })
                .unwrap();
            }
            assert_eq!(
                one.get_metrics_history("value", None).len(),
                2,
                "as this collector was told"
            );
            let refused = one.reset().unwrap_err();
            assert!(matches!(refused, ResetError::Shared { .. }), "{refused}");
            one.close();
            assert!(qbus::Bus::open(test.address()).is_ok(), "it is not its own");
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}

/// What is asked by name is of the bus that has the name now, whose series have other ids.
#[test]
fn a_bus_that_was_made_anew_is_the_one_that_is_read() {
    let test = TestBus::small(Place::Named);
    let (collector, options) = (on(&test), qbus_aggregate::AggregatorOptions::default());
    collector.add_metric(&Metric::gauge("first", 1.0)).unwrap();
    qbus::Bus::remove(test.address(), qbus::Removal::Forced).unwrap();
    let bus = test.make(TestBus::small_geometry());
    let mut aggregator = Aggregator::open(&bus, &options).unwrap();
    bus.gauge("other").register().unwrap().set(7.0);
    until("the collector to find the bus", || {
        collector.queue_metric(&Metric::gauge("first", 2.0)).is_ok()
    });
    collector
        .queue_metric(&Metric::gauge("second", 3.0))
        .unwrap();
    aggregator.finish();
    for (name, value) in [("first", 2.0), ("second", 3.0), ("other", 7.0)] {
        let found = collector.get_metric(name, &[]).map(|series| series.value);
        assert_eq!(found, Some(Value::Gauge(value)), "{name}");
    }
    assert!(collector.get_statistics().has_aggregator);
    let newest = collector.get_all_metrics_buffer();
    let names: Vec<&str> = newest.iter().map(|reading| &*reading.family.name).collect();
    assert_eq!(names, ["other", "first", "second"]);
}
