//! The messages are read back by a decoder that knows nothing of the writer; a real Prometheus
//! reads them in `tools/check`.

use super::*;
use crate::distribution::Distribution;
use crate::export::decoded::{Fields, decode, messages, numbers, signed, text, varint};
use crate::export::samples::{self, empty_summary, histogram, series, snapshot};
use crate::series::Snapshot;

fn page(snapshot: &Snapshot) -> Vec<Fields> {
    let mut out = Vec::new();
    let left_out = protobuf(snapshot, &Options::default(), &mut out).unwrap();
    assert_eq!(left_out, LeftOut::default());
    let mut rest = out.as_slice();
    let mut families = Vec::new();
    while !rest.is_empty() {
        let len = varint(&mut rest) as usize;
        let (message, more) = rest.split_at(len);
        families.push(decode(message));
        rest = more;
    }
    families
}

fn only_histogram(value: Value) -> Fields {
    let family = page(&snapshot(vec![series("a", &[], value)])).remove(0);
    assert_eq!(numbers(&family, 3), [HISTOGRAM]);
    messages(&messages(&family, 4)[0], 7).remove(0)
}

#[test]
fn families_have_name_help_type_unit_and_metrics() {
    let families = page(&samples::each_type());
    let head = |family: &Fields| (text(family, 1), text(family, 2), numbers(family, 3));
    assert_eq!(
        families.iter().map(head).collect::<Vec<_>>(),
        [
            (
                "model_inference_latency".into(),
                "Model inference latency in seconds".into(),
                vec![GAUGE]
            ),
            ("requests_total".into(), "Help.".into(), vec![COUNTER]),
            ("size_bytes".into(), "Help.".into(), vec![HISTOGRAM]),
            ("wait_seconds".into(), "Help.".into(), vec![HISTOGRAM]),
        ]
    );
    assert_eq!(text(&families[3], 5), "seconds");
    let latency = &messages(&families[0], 4)[0];
    let labels = messages(latency, 1);
    assert_eq!(
        (text(&labels[0], 1), text(&labels[0], 2)),
        ("model".into(), "qwen3-vl".into())
    );
    assert_eq!(numbers(&messages(latency, 2)[0], 1), [0.125_f64.to_bits()]);
    let requests = &messages(&messages(&families[1], 4)[0], 3)[0];
    assert_eq!(numbers(requests, 1), [3_f64.to_bits()]);
    assert_eq!(
        numbers(&messages(requests, 3)[0], 1),
        [samples::NOON_NS / 1_000_000_000]
    );
}

#[test]
fn a_histogram_has_its_own_buckets() {
    let histogram = only_histogram(histogram());
    assert_eq!(
        (numbers(&histogram, 1), numbers(&histogram, 2)),
        (vec![3], vec![2.55_f64.to_bits()])
    );
    let buckets = messages(&histogram, 3);
    let bucket = |fields: &Fields| (numbers(fields, 1)[0], f64::from_bits(numbers(fields, 2)[0]));
    assert_eq!(
        buckets.iter().map(bucket).collect::<Vec<_>>(),
        [(1, 0.1), (2, 1.0), (3, f64::INFINITY)]
    );
    // No schema: it is no native one.
    assert!(numbers(&histogram, 5).is_empty());
}

/// Index and count of each bucket of a side, as a scraper decodes spans and deltas.
fn native_buckets(histogram: &Fields, spans: u64, deltas: u64) -> Vec<(i64, i64)> {
    let (mut next, mut count) = (0, 0);
    let mut deltas = numbers(histogram, deltas).into_iter().map(signed);
    let mut buckets = Vec::new();
    for span in messages(histogram, spans) {
        next += signed(numbers(&span, 1)[0]);
        for _ in 0..numbers(&span, 2)[0] {
            count += deltas.next().expect("a delta for each bucket");
            buckets.push((next, count));
            next += 1;
        }
    }
    assert_eq!(deltas.next(), None);
    buckets
}

#[test]
fn a_summary_is_a_native_histogram_and_a_classic_one() {
    let mut distribution = Distribution::default();
    for (value, count) in [
        (0.0, 2),
        (-1.0, 5),
        (0.5, 3),
        (0.9, 1),
        (0.92, 4),
        (300.0, 6),
    ] {
        distribution.observe(value, count);
    }
    let value = Value::Summary(SummaryValue {
        last: 0.5,
        count: 21,
        sum: 1800.0.into(),
        min: -1.0,
        max: 300.0,
        quantiles: vec![],
        distribution,
    });
    let histogram = only_histogram(value);
    assert_eq!(
        (numbers(&histogram, 1), signed(numbers(&histogram, 5)[0])),
        (vec![21], 5)
    );
    assert_eq!(numbers(&histogram, 6), [f64::MIN_POSITIVE.to_bits()]);
    assert_eq!(numbers(&histogram, 7), [2]);
    // (0.489, 0.5] ends at 2^(-32/32); 0.9 lies in (0.897, 0.917], and 0.92 above.
    let index = |value: f64| (value.log2() * 32.0).ceil() as i64;
    assert_eq!(
        native_buckets(&histogram, 12, 13),
        [
            (-32, 3),
            (index(0.9), 1),
            (index(0.9) + 1, 4),
            (index(300.0), 6)
        ]
    );
    assert_eq!(native_buckets(&histogram, 9, 10), [(0, 5)]);
    let classic: Vec<(f64, u64)> = messages(&histogram, 3)
        .iter()
        .map(|bucket| (f64::from_bits(numbers(bucket, 2)[0]), numbers(bucket, 1)[0]))
        .collect();
    assert_eq!(classic.len(), 28);
    for (bound, cumulative) in classic {
        let exact = [
            (0.0, 2),
            (-1.0, 5),
            (0.5, 3),
            (0.9, 1),
            (0.92, 4),
            (300.0, 6),
        ]
        .iter()
        .filter(|(value, _)| *value <= bound)
        .map(|(_, count)| count)
        .sum::<u64>();
        assert_eq!(cumulative, exact, "{bound}");
    }
}

#[test]
fn an_empty_summary_is_still_native() {
    let histogram = only_histogram(empty_summary());
    let spans = messages(&histogram, 12);
    assert_eq!((spans.len(), numbers(&spans[0], 2)), (1, vec![0]));
    assert_eq!(numbers(&histogram, 1), [0]);
}

#[test]
fn a_family_of_any_length_is_one_message() {
    let series = |at: usize| series("a", &[("at", &at.to_string())], Value::Gauge(at as f64));
    let families = page(&snapshot((10_000..20_000).map(series).collect()));
    assert_eq!(families.len(), 1);
    let values = messages(&families[0], 4)
        .into_iter()
        .map(|metric| f64::from_bits(numbers(&messages(&metric, 2)[0], 1)[0]));
    assert!(values.eq((10_000..20_000).map(f64::from)));
}
