//! An aggregator that is killed at any moment loses nothing and counts nothing twice.

use qbus::{Kind, MetricType};
use qbus_aggregate::{ReadOptions, Reader, Value};
use qbus_tests::{Lane, Load, Place, Process, Report, TestBus, Totals, check_load, until};

const AGGREGATOR: &str = env!("CARGO_BIN_EXE_test-aggregator");
const PRODUCER: &str = env!("CARGO_BIN_EXE_test-producer");
const KILLS: u64 = 12;

/// Kills aggregators in a row during a load of that sort of lane, and checks every total.
fn check(place: Place, lane: Lane) {
    let test = TestBus::small(place);
    let loads = MetricType::ALL.map(|metric_type| Load {
        metric_type,
        threads: 1,
        records: 0,
        lane,
        worker: "w".to_owned(),
    });
    let mut aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
    let begin = |load: &Load| load.begin(PRODUCER, test.address());
    let mut producers: Vec<Process> = loads.iter().map(begin).collect();
    let mut reader = test.reader();
    for kill in 0..KILLS {
        // Not at the same point of its life each time.
        let goal = reader.globals().records + 1 + kill * 311;
        until("the aggregator to get on", || {
            reader.globals().records >= goal
        });
        let (before, epoch) = (counted(&mut reader), reader.epoch());
        aggregator.kill();
        aggregator = Process::ready(AGGREGATOR, test.address(), &[]);
        assert!(
            reader.epoch() > epoch,
            "a successor goes on with the epochs"
        );
        let after = counted(&mut reader);
        assert!(after >= before, "counted back from {before} to {after}");
    }
    for producer in &mut producers {
        producer.close_input();
    }
    let ended = producers.iter_mut().zip(&loads);
    let reports: Vec<Vec<Report>> = ended
        .map(|(producer, load)| load.reports(producer))
        .collect();
    let pids: Vec<u64> = producers.iter().map(Process::pid).collect();
    producers.into_iter().for_each(Process::end_well);
    aggregator.end_well();
    let totals = Totals::read(&test.open(), &mut test.reader());
    assert_eq!(test.reader().globals().restarts, KILLS);
    for ((load, reports), pid) in loads.iter().zip(&reports).zip(pids) {
        assert!(reports[0].accepted > 0, "{load:?}, pid {pid}");
        check_load(&totals, load, pid, reports);
    }
}

fn counted(reader: &mut Reader) -> f64 {
    let snapshot = reader.read(&ReadOptions::default()).expect("a snapshot");
    let value = |series: &qbus_aggregate::Series| match &series.value {
        Value::Counter(sum) => sum.value(),
        Value::Histogram(histogram) => histogram.count as f64,
        Value::Summary(summary) => summary.count as f64,
        Value::Gauge(_) => 0.0,
    };
    snapshot.series.iter().map(value).sum()
}

#[test]
fn kills_during_load_lose_nothing_and_count_nothing_twice() {
    for place in Place::ALL {
        check(place, Lane::Wait);
    }
}

#[test]
fn kills_during_load_that_drops_leave_the_ledger_exact() {
    check(Place::Named, Lane::Handle);
}

#[test]
fn kills_during_load_on_a_shared_lane_count_exactly() {
    check(Place::Path, Lane::SharedWait);
}

#[test]
fn history_and_recent_records_go_on_after_a_kill() {
    for place in Place::ALL {
        let test = TestBus::small(place);
        let bus = test.open();
        let gauge = bus.gauge("test_gauge").register().expect("it fits");
        let counter = bus.counter("test_counter").register().expect("it fits");
        let (mut first, mut emitted) = (1, Vec::new());
        for _ in 0..3 {
            let aggregator =
                Process::ready(AGGREGATOR, test.address(), &["8", "10"].map(String::from));
            for n in first..first + 5 {
                gauge.try_set_at(n * 1000, n as f64).expect("there is room");
                emitted.push(n);
            }
            counter.try_add(2.0).expect("there is room");
            first += 5;
            let delivered = first - 1 + first / 5;
            until("the records to be committed", || {
                test.reader().globals().records == delivered
            });
            aggregator.kill();
        }
        Process::ready(AGGREGATOR, test.address(), &["8", "10"].map(String::from)).end_well();

        let mut reader = test.reader();
        let totals = Totals::read(&bus, &mut reader);
        let series = totals.get("test_gauge", &[]).expect("the gauge");
        let points: Vec<(u64, f64)> = series
            .history
            .iter()
            .map(|point| (point.timestamp_ns, point.value))
            .collect();
        let last: Vec<(u64, f64)> = emitted[7..].iter().map(|&n| (n * 1000, n as f64)).collect();
        assert_eq!(points, last, "the last eight, none twice");
        assert_eq!((series.records, &series.value), (15, &Value::Gauge(15.0)));
        assert_eq!(totals.counter("test_counter"), 6.0);

        let recent = reader.recent();
        assert_eq!(recent.len(), 10);
        let set = recent.iter().filter(|record| record.kind == Kind::Set);
        let set: Vec<f64> = set.map(|record| record.value).collect();
        // An aggregator that begins looks at all cells at once: it may find the increment of its
        // time before the last records of the gauge.
        assert!((8..=9).contains(&set.len()), "{recent:?}");
        let last = emitted[emitted.len() - set.len()..].iter();
        assert_eq!(set, last.map(|&n| n as f64).collect::<Vec<_>>());
    }
}

#[test]
fn another_length_of_history_keeps_the_totals() {
    let test = TestBus::small(Place::Named);
    let bus = test.open();
    let counter = bus.counter("test_counter").register().expect("it fits");
    for lengths in [["8", "10"], ["16", "10"], ["8", "20"]] {
        counter.try_add(2.0).expect("there is room");
        Process::ready(AGGREGATOR, test.address(), &lengths.map(String::from)).end_well();
    }
    let totals = Totals::read(&bus, &mut test.reader());
    assert_eq!(totals.counter("test_counter"), 6.0);
}
