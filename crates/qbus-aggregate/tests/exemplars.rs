//! Exemplars: of each bucket the last record that had a trace, through to the pages.

use qbus::{Geometry, Kind, Record};
use qbus_aggregate::export::{Format, Options, export};
use qbus_aggregate::{Aggregator, AggregatorOptions, Exemplar, Reader, Snapshot};
use qbus_tests::TestBus;

use crate::{aggregated, only, read};

const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;

fn values(exemplars: &[Exemplar]) -> Vec<(f64, u128)> {
    let pair = |one: &Exemplar| (one.value, one.trace_id);
    exemplars.iter().map(pair).collect()
}

fn snapshot(aggregator: &Aggregator) -> Snapshot {
    read(&mut Reader::open(aggregator.snapshot()).expect("a snapshot"))
}

fn page(aggregator: &Aggregator, format: Format) -> String {
    let mut page = Vec::new();
    export(
        &snapshot(aggregator),
        format,
        &Options::default(),
        &mut page,
    )
    .expect("memory");
    String::from_utf8_lossy(&page).into_owned()
}

#[test]
fn each_bucket_keeps_the_last() {
    let (_test, bus, mut aggregator) =
        aggregated(Geometry::default(), &AggregatorOptions::default());
    let wait = bus.histogram("wait_seconds").buckets([0.1, 1.0]);
    let wait = wait.register().expect("room");
    for (value, trace) in [(0.05, 1), (0.06, 2), (0.1, 3), (7.0, 4)] {
        wait.observe_traced(value, TRACE + trace);
    }
    // What has no trace is no exemplar, and takes none away.
    wait.observe(0.01);
    wait.observe(0.5);
    aggregator.finish();
    let found = only(&aggregator);
    assert_eq!(
        values(&found.exemplars),
        [(0.1, TRACE + 3), (7.0, TRACE + 4)]
    );
    assert_eq!(found.records, 6);
    let seconds = |one: &Exemplar| {
        let ms = one.timestamp_ns / 1_000_000;
        format!("{}.{:03}", ms / 1000, ms % 1000)
    };
    let [first, last] = [0, 1].map(|at| seconds(&found.exemplars[at]));
    assert_eq!(
        page(&aggregator, Format::OpenMetrics),
        format!(
            "# TYPE wait_seconds histogram\n\
             wait_seconds_bucket{{le=\"0.1\"}} 4 # {{trace_id=\"{:032x}\"}} 0.1 {first}\n\
             wait_seconds_bucket{{le=\"1.0\"}} 5\n\
             wait_seconds_bucket{{le=\"+Inf\"}} 6 # {{trace_id=\"{:032x}\"}} 7 {last}\n\
             wait_seconds_sum 7.72\nwait_seconds_count 6\n# EOF\n",
            TRACE + 3,
            TRACE + 4
        )
    );
    let json = page(&aggregator, Format::Json);
    let member = format!("\"exemplars\":[{{\"trace_id\":\"{:032x}\"", TRACE + 3);
    assert!(json.contains(&member), "{json}");
}

#[test]
fn a_counter_has_one_and_a_gauge_none() {
    let (_test, bus, mut aggregator) =
        aggregated(Geometry::default(), &AggregatorOptions::default());
    let jobs = bus.counter("jobs_total").register().expect("room");
    let level = bus.gauge("level").register().expect("room");
    jobs.inc();
    jobs.add_traced(2.0, TRACE);
    jobs.inc();
    let set = Record::new(1, level.series(), Kind::Set, 3.0);
    let traced = Record {
        trace_id: TRACE,
        ..set
    };
    bus.emit(traced).expect("room");
    aggregator.finish();
    let series = snapshot(&aggregator).series;
    let found: Vec<_> = series.iter().map(|one| values(&one.exemplars)).collect();
    assert_eq!(found, [vec![(2.0, TRACE)], vec![]]);
    let text = page(&aggregator, Format::OpenMetrics);
    let line = format!("jobs_total 4 # {{trace_id=\"{TRACE:032x}\"}} 2 ");
    assert!(text.contains(&line), "{text}");
    // The older text has no place for them.
    assert!(!page(&aggregator, Format::Prometheus).contains("trace_id"));
}

#[test]
fn a_summary_keeps_one_a_power_of_four_for_its_native_histogram() {
    let (_test, bus, mut aggregator) =
        aggregated(Geometry::default(), &AggregatorOptions::default());
    let size = bus.summary("size_bytes").register().expect("room");
    for (value, trace) in [(-5.0, 1), (1.5, 2), (3.9, 3), (4.0, 4), (5.0, 5), (1e12, 6)] {
        size.observe_traced(value, trace);
    }
    aggregator.finish();
    let kept = [(-5.0, 1), (4.0, 4), (5.0, 5), (1e12, 6)];
    assert_eq!(values(&only(&aggregator).exemplars), kept);
    let page = page(&aggregator, Format::Protobuf);
    for (_, trace) in kept {
        assert!(page.contains(&format!("{trace:032x}")), "{trace}");
    }
}

#[test]
fn a_successor_goes_on_with_them() {
    let options = AggregatorOptions::default();
    let (_test, bus, mut aggregator) = aggregated(TestBus::small_geometry(), &options);
    let wait = bus.histogram("wait_seconds").buckets([0.1, 1.0]);
    let wait = wait.register().expect("room");
    let mut expected = Vec::new();
    for (round, value) in [0.05, 0.5, 5.0].into_iter().enumerate() {
        wait.observe_traced(value, TRACE + round as u128);
        expected.push((value, TRACE + round as u128));
        aggregator.round();
        assert_eq!(values(&only(&aggregator).exemplars), expected);
        drop(aggregator);
        aggregator = Aggregator::open(&bus, &options).expect("the only aggregator");
    }
    // A series that moves to a larger row takes them along.
    let size = bus.summary("wide").register().expect("room");
    size.observe_traced(1.0, TRACE);
    aggregator.round();
    for power in -60..60 {
        size.observe(2_f64.powi(power));
        aggregator.round();
    }
    aggregator.finish();
    let series = snapshot(&aggregator).series;
    let found: Vec<_> = series.iter().map(|one| values(&one.exemplars)).collect();
    assert_eq!(found, [expected, vec![(1.0, TRACE)]]);
}
