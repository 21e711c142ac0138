//! A round is short, whatever there is to be done.

use qbus::Geometry;
use qbus_aggregate::AggregatorOptions;

use crate::aggregated;

/// The default without cells: all goes through the rings.
fn rings() -> Geometry {
    Geometry {
        cells: 0,
        ..Geometry::default()
    }
}

#[test]
fn series_that_are_new_are_made_in_portions() {
    let (_test, bus, mut aggregator) = aggregated(rings(), &AggregatorOptions::default());
    for i in 0..1000 {
        let counter = bus.counter("x_total").label("i", &i.to_string());
        counter.register().expect("room").inc();
    }
    let round = aggregator.round();
    assert!(round.drained > 0 && round.drained < 1000, "{round:?}");
    assert!(
        aggregator.series_count() < 400,
        "{}",
        aggregator.series_count()
    );
    aggregator.finish();
    assert_eq!(aggregator.series_count(), 1000);
    assert_eq!(aggregator.globals().records, 1000);
}

#[test]
fn rows_are_written_in_portions_and_no_lane_is_forgotten() {
    let (_test, bus, mut aggregator) = aggregated(rings(), &AggregatorOptions::default());
    let counters: Vec<_> = (0..8000)
        .map(|i| {
            let counter = bus.counter("x_total").label("i", &i.to_string());
            counter.max_series(0).register()
        })
        .collect::<Result<_, _>>()
        .expect("room");
    for part in counters.chunks(1000) {
        part.iter().for_each(qbus::Counter::inc);
        aggregator.finish();
    }
    // Eight threads, each with a lane of its own and series of its own.
    std::thread::scope(|scope| {
        for part in counters.chunks(1000) {
            let (emitted, is_emitted) = std::sync::mpsc::channel();
            scope.spawn(move || {
                part.iter().for_each(qbus::Counter::inc);
                emitted.send(()).expect("somebody waits");
            });
            is_emitted.recv().expect("it emits");
        }
    });
    let before = aggregator.globals().records;
    let round = aggregator.round();
    assert!(!round.is_whole, "{round:?}");
    let mut rounds = 1;
    while aggregator.globals().records < before + 8000 {
        assert!(aggregator.round().drained > 0, "after {rounds} rounds");
        rounds += 1;
    }
    assert!(rounds < 10, "{rounds} rounds");
}
