//! The messages are read back by a decoder that knows nothing of the writer; a real receiver reads
//! them in the command's tests.

use super::*;
use crate::export::decoded::{
    Fields, decode, messages, numbers, rows, signed, text, varint, words,
};
use crate::export::samples::{NOON_NS, each_type, empty_summary, histogram, series, with_family};
use crate::series::SummaryValue;

fn requests(series: &[Series], is_end: bool) -> Vec<(Fields, u64)> {
    let resource = [("service.name".to_owned(), "inference".to_owned())];
    let options = OtlpOptions {
        time_ns: NOON_NS + 10,
        resource: &resource,
        exemplars_since_ns: 0,
        is_end,
    };
    let mut requests = Vec::new();
    otlp(series, &options, &mut |request| {
        requests.push((decode(&request.message), request.samples));
    });
    requests
}

fn metrics(request: &Fields) -> Vec<Fields> {
    let all = &messages(request, 1)[0];
    let scope = &messages(all, 2)[0];
    assert_eq!(text(&messages(scope, 1)[0], 1), "qbus");
    messages(scope, 2)
}

fn only_point(series: Series, data: u64) -> Fields {
    let metric = metrics(&requests(&[series], false)[0].0).remove(0);
    messages(&messages(&metric, data)[0], 1).remove(0)
}

fn attributes(fields: &Fields, field: u64) -> Vec<(String, String)> {
    let pair = |one: &Fields| (text(one, 1), text(&messages(one, 2)[0], 1));
    messages(fields, field).iter().map(pair).collect()
}

#[test]
fn each_type_has_its_kind_of_data() {
    let (request, points) = requests(&each_type().series, false).remove(0);
    assert_eq!(points, 4);
    let resource = &messages(&messages(&request, 1)[0], 1)[0];
    assert_eq!(
        attributes(resource, 1),
        [("service.name".into(), "inference".into())]
    );
    let all = metrics(&request);
    let kinds: Vec<_> = all
        .iter()
        .map(|metric| (text(metric, 1), *metric.keys().max().expect("data")))
        .collect();
    let expected = [
        ("model_inference_latency", 5),
        ("requests_total", 7),
        ("size_bytes", 10),
        ("wait_seconds", 9),
    ];
    assert_eq!(kinds, expected.map(|(name, kind)| (name.to_owned(), kind)));
    let sum = &messages(&all[1], 7)[0];
    assert_eq!(
        (numbers(sum, 2), numbers(sum, 3)),
        (vec![2], vec![1]),
        "cumulative, monotonic"
    );
    let point = &messages(sum, 1)[0];
    assert_eq!(numbers(point, 4), [3.0_f64.to_bits()]);
    assert_eq!(
        (numbers(point, 2), numbers(point, 3)),
        (vec![NOON_NS], vec![NOON_NS + 10])
    );
    let gauge = messages(&messages(&all[0], 5)[0], 1).remove(0);
    assert_eq!(numbers(&gauge, 2), [0; 0], "a level has no start");
    assert_eq!(
        attributes(&gauge, 7)[0],
        ("model".into(), "qwen3-vl".into())
    );
    assert_eq!(text(&all[3], 3), "s");
}

#[test]
fn a_histogram_has_a_count_more_than_bounds() {
    let mut one = series("a", &[], histogram());
    one.exemplars = vec![Exemplar {
        value: 0.5,
        timestamp_ns: NOON_NS,
        trace_id: 0xabc,
    }];
    let point = only_point(one, 9);
    assert_eq!(numbers(&point, 4), [3]);
    assert_eq!(words(&point, 6), [1, 1, 1]);
    assert_eq!(words(&point, 7), [0.1_f64, 1.0].map(f64::to_bits));
    assert_eq!(
        [numbers(&point, 11), numbers(&point, 12)],
        [[0.05_f64.to_bits()], [2.0_f64.to_bits()]]
    );
    let exemplar = &messages(&point, 8)[0];
    assert_eq!(rows(exemplar, 5), [0xabc_u128.to_be_bytes()]);
    // Where values can be negative the sum says nothing of a reset.
    let negative = with_family(series("a", &[], histogram()), |family| {
        family.buckets = vec![-1.0, 1.0]
    });
    assert_eq!(numbers(&only_point(negative, 9), 5), [0; 0]);
}

fn summary(values: &[(f64, u64)]) -> Series {
    let mut distribution = Distribution::default();
    for &(value, count) in values {
        distribution.observe(value, count);
    }
    let value = SummaryValue {
        last: 1.0,
        count: distribution.count(),
        sum: 1.0.into(),
        min: values.iter().map(|one| one.0).fold(f64::INFINITY, f64::min),
        max: values
            .iter()
            .map(|one| one.0)
            .fold(f64::NEG_INFINITY, f64::max),
        quantiles: Vec::new(),
        distribution,
    };
    series("a", &[], Value::Summary(value))
}

/// Offset and counts of a side.
fn side(point: &Fields, field: u64) -> (i64, Vec<u64>) {
    let buckets = &messages(point, field)[0];
    let mut row = rows(buckets, 2)[0];
    let mut counts = Vec::new();
    while !row.is_empty() {
        counts.push(varint(&mut row));
    }
    (signed(numbers(buckets, 1)[0]), counts)
}

#[test]
fn a_summary_is_an_exponential_histogram() {
    let point = only_point(summary(&[(0.0, 2), (0.5, 3), (0.53, 4), (-2.0, 5)]), 10);
    assert_eq!(
        (numbers(&point, 4), numbers(&point, 7)),
        (vec![14], vec![2])
    );
    assert_eq!(signed(numbers(&point, 6)[0]), 5);
    // 0.5 is the upper end of its bucket; 0.53 is 2.7 buckets further.
    assert_eq!(side(&point, 8), (-33, vec![3, 0, 0, 4]));
    assert_eq!(side(&point, 9), (31, vec![5]));
    assert_eq!(numbers(&point, 5), [0; 0], "a sum of both signs");
    assert_eq!(numbers(&point, 14), [f64::MIN_POSITIVE.to_bits()]);
    let empty = only_point(series("a", &[], empty_summary()), 10);
    assert_eq!((numbers(&empty, 4), numbers(&empty, 12)), (vec![0], vec![]));
}

#[test]
fn buckets_are_few_however_wide_they_reach() {
    for values in [
        [(1e-300, 1), (1e300, 2)],
        [(1.0, 1), (32.0, 2)],
        [(1.0, 1), (31.9, 2)],
    ] {
        let point = only_point(summary(&values), 10);
        let (offset, counts) = side(&point, 8);
        assert!(counts.len() <= 160, "{values:?}: {}", counts.len());
        assert_eq!(counts.iter().sum::<u64>(), 3);
        // Each value is in its bucket, (2^(i/2^s), 2^((i+1)/2^s)].
        let scale = signed(numbers(&point, 6)[0]) as i32;
        for (at, (value, count)) in [0, counts.len() - 1].into_iter().zip(values) {
            assert_eq!(counts[at], count);
            let width = f64::from(-scale).exp2();
            let lower = (offset + at as i64) as f64 * width;
            let log = value.log2();
            assert!(
                lower - 1e-9 <= log && log <= lower + width + 1e-9,
                "{value} at {at}"
            );
        }
    }
}

#[test]
fn an_end_is_a_point_without_a_value() {
    for (metric, field) in metrics(&requests(&each_type().series, true)[0].0)
        .iter()
        .zip([5, 7, 10, 9])
    {
        let point = messages(&messages(metric, field)[0], 1).remove(0);
        let flags = if field < 9 { 8 } else { 10 };
        assert_eq!(numbers(&point, flags), [1]);
        assert_eq!(numbers(&point, 4), [0; 0], "{field}");
    }
}

#[test]
fn requests_are_bounded_and_lose_nothing() {
    let many: Vec<Series> = (0..60_000)
        .map(|n| {
            let value = "x".repeat(100);
            series(
                "a_total",
                &[("n", &n.to_string()), ("x", &value)],
                Value::Counter(1.0.into()),
            )
        })
        .collect();
    let sent = requests(&many, false);
    assert!(sent.len() > 2, "{}", sent.len());
    assert_eq!(sent.iter().map(|request| request.1).sum::<u64>(), 60_000);
    for (request, points) in &sent {
        let metric = &metrics(request)[0];
        let sum = &messages(metric, 7)[0];
        assert_eq!(
            (messages(sum, 1).len() as u64, numbers(sum, 2)),
            (*points, vec![2])
        );
    }
}

#[test]
fn units_are_symbols_or_annotations() {
    let found = [
        "seconds", "bytes", "celsius", "ratio", "", "tokens", "a{b} ü",
    ]
    .map(ucum);
    assert_eq!(found, ["s", "By", "Cel", "1", "", "{tokens}", "{ab}"]);
}
