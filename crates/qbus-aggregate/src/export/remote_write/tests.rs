//! The messages are read back by a decoder that knows nothing of the writer; real receivers read
//! them in the command's tests.

use super::*;
use crate::export::decoded::{Fields, decode, messages, numbers, signed, text};
use crate::export::samples::{NOON_NS, each_type, histogram, series, with_family};
use crate::series::SummaryValue;

fn labels_of_all() -> Vec<(String, String)> {
    vec![
        ("instance".into(), "gpu-7".into()),
        ("Zone".into(), "b".into()),
    ]
}

fn options(labels: &[(String, String)]) -> RemoteWriteOptions<'_> {
    RemoteWriteOptions {
        version: RemoteWriteVersion::One,
        time_ms: 5_000,
        labels,
        native: false,
        metadata: false,
        exemplars_since_ns: 0,
        is_end: false,
    }
}

fn requests(series: &[Series], options: &RemoteWriteOptions<'_>) -> Vec<(Fields, u64)> {
    let mut requests = Vec::new();
    let left_out = remote_write(series, options, &mut |request| {
        requests.push((decode(&request.message), request.samples));
    });
    assert_eq!(left_out, LeftOut::default());
    requests
}

/// A sample as the protocol's reader sees it: labels as `name=value`, the value's bits, the time.
type Read = (Vec<String>, u64, u64);

fn samples_of_one(request: &Fields) -> Vec<Read> {
    let read = |one: &Fields| {
        let labels = messages(one, 1);
        let labels = labels
            .iter()
            .map(|label| format!("{}={}", text(label, 1), text(label, 2)));
        let sample = &messages(one, 2)[0];
        (
            labels.collect(),
            numbers(sample, 1)[0],
            numbers(sample, 2)[0],
        )
    };
    messages(request, 1).iter().map(read).collect()
}

/// The numbers of a packed row.
fn row(fields: &Fields, field: u64) -> Vec<u64> {
    let mut all = Vec::new();
    for mut bytes in crate::export::decoded::rows(fields, field) {
        while !bytes.is_empty() {
            all.push(crate::export::decoded::varint(&mut bytes));
        }
    }
    all
}

/// The same of a request of 2.0, with the symbols put in.
fn samples_of_two(request: &Fields) -> Vec<Read> {
    let symbols = crate::export::decoded::texts(request, 4);
    assert_eq!(symbols[0], "");
    let read = |one: &Fields| {
        let refs = row(one, 1);
        let text = |at: u64| symbols[at as usize].clone();
        let labels = refs
            .chunks(2)
            .map(|pair| format!("{}={}", text(pair[0]), text(pair[1])));
        let sample = &messages(one, 2)[0];
        (
            labels.collect(),
            numbers(sample, 1)[0],
            numbers(sample, 2)[0],
        )
    };
    messages(request, 5).iter().map(read).collect()
}

#[test]
fn both_versions_say_the_same_with_sorted_labels() {
    let labels = labels_of_all();
    let snapshot = each_type();
    let one = requests(&snapshot.series, &options(&labels));
    let two = requests(
        &snapshot.series,
        &RemoteWriteOptions {
            version: RemoteWriteVersion::Two,
            ..options(&labels)
        },
    );
    let (one, two) = (samples_of_one(&one[0].0), samples_of_two(&two[0].0));
    assert_eq!(one, two);
    let bucket = |sample: &&Read| {
        sample
            .0
            .contains(&"__name__=wait_seconds_bucket".to_owned())
    };
    let buckets: Vec<_> = one.iter().filter(bucket).collect();
    let bounds: Vec<_> = buckets.iter().map(|sample| sample.0[3].as_str()).collect();
    assert_eq!(bounds, ["le=0.1", "le=1.0", "le=+Inf"]);
    for (labels, _, time_ms) in &one {
        let names: Vec<_> = labels.iter().map(|label| label.split('=').next()).collect();
        // By bytes: a capital comes before the name's underscores.
        assert!(names.is_sorted_by(|a, b| a < b), "{labels:?}");
        assert_eq!(names[0], Some("Zone"));
        assert_eq!(*time_ms, 5_000);
    }
    let of = |name: &str| {
        let name = format!("__name__={name}");
        one.iter().filter(|sample| sample.0.contains(&name)).count()
    };
    let found = [
        "requests_total",
        "wait_seconds_sum",
        "wait_seconds_count",
        "size_bytes",
    ]
    .map(of);
    assert_eq!(found, [1, 1, 1, 2]);
}

/// What follows what decides how much of the last series' order is used again.
#[test]
fn labels_are_right_whatever_series_came_before() {
    let of_all = labels_of_all();
    let names = ["a", "z", "instance", "Zone", "lf", "A", "q"];
    let (mut all, mut expected) = (Vec::new(), Vec::new());
    let mut word = 1_u64;
    for at in 0..10_500 {
        let mut labels = vec![("id".to_owned(), at.to_string())];
        for name in names {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // As a rule the same ones as before; now and then without a value.
            match word >> 59 {
                0 => {}
                1 => labels.push((name.to_owned(), String::new())),
                2 => labels.insert(0, (name.to_owned(), "first".to_owned())),
                _ => labels.push((name.to_owned(), (word >> 62).to_string())),
            }
        }
        let pairs: Vec<(&str, &str)> = labels.iter().map(|(a, b)| (&**a, &**b)).collect();
        all.push(series("x", &pairs, Value::Gauge(1.0)));
        let mut sorted = vec!["__name__=x".to_owned()];
        sorted.extend(of_all.iter().map(|(name, value)| format!("{name}={value}")));
        for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
            let is_taken = of_all.iter().any(|(taken, _)| taken == name);
            let prefix = if is_taken { "exported_" } else { "" };
            sorted.push(format!("{prefix}{name}={value}"));
        }
        sorted.sort_by(|a, b| a.split('=').next().cmp(&b.split('=').next()));
        expected.push(sorted);
    }
    for version in [RemoteWriteVersion::One, RemoteWriteVersion::Two] {
        let options = RemoteWriteOptions {
            version,
            ..options(&of_all)
        };
        let requests = requests(&all, &options);
        assert_eq!(requests.len(), 2, "symbols begin anew in each");
        let read = requests.iter().flat_map(|(request, _)| match version {
            RemoteWriteVersion::One => samples_of_one(request),
            RemoteWriteVersion::Two => samples_of_two(request),
        });
        let found: Vec<_> = read.map(|(labels, ..)| labels).collect();
        let differ = found
            .iter()
            .zip(&expected)
            .find(|(found, expected)| found != expected);
        assert_eq!((differ, found.len()), (None, expected.len()), "{version:?}");
    }
}

#[test]
fn a_label_of_its_own_makes_way_for_one_of_all() {
    let one = series(
        "a",
        &[("instance", "own"), ("exported_x", "1")],
        Value::Gauge(1.0),
    );
    let labels = labels_of_all();
    let sent = samples_of_one(&requests(&[one], &options(&labels))[0].0);
    let expected = [
        "Zone=b",
        "__name__=a",
        "exported_instance=own",
        "exported_x=1",
        "instance=gpu-7",
    ];
    assert_eq!(sent[0].0, expected);
}

#[test]
fn only_the_end_is_the_stale_nan() {
    let nans = [f64::NAN, STALE, -f64::NAN].map(|nan| series("a", &[], Value::Gauge(nan)));
    for nan in nans {
        let sent = samples_of_one(&requests(&[nan], &options(&[]))[0].0);
        assert_eq!(sent[0].1, NAN.to_bits());
    }
    let end = RemoteWriteOptions {
        is_end: true,
        ..options(&[])
    };
    let all = samples_of_one(&requests(&each_type().series, &end)[0].0);
    // A gauge, a counter, two quantiles, three buckets, and two sums and counts.
    assert_eq!(all.len(), 11);
    assert!(all.iter().all(|sample| sample.1 == 0x7ff0_0000_0000_0002));
}

#[test]
fn metadata_and_start_times_go_where_the_version_has_them() {
    let with = RemoteWriteOptions {
        metadata: true,
        ..options(&[])
    };
    let one = requests(&each_type().series, &with);
    let metadata = messages(&one[0].0, 3);
    let types: Vec<_> = metadata.iter().map(|one| numbers(one, 1)[0]).collect();
    assert_eq!(types, [2, 1, 5, 3]);
    assert_eq!(
        (text(&metadata[1], 2), text(&metadata[1], 4)),
        ("requests_total".into(), "Help.".into())
    );
    let two = RemoteWriteOptions {
        version: RemoteWriteVersion::Two,
        time_ms: NOON_NS / 1_000_000 + 1,
        ..with
    };
    let two = requests(&each_type().series, &two);
    let symbols = crate::export::decoded::texts(&two[0].0, 4);
    let counter = messages(&two[0].0, 5).remove(1);
    let metadata = &messages(&counter, 5)[0];
    assert_eq!(numbers(metadata, 1), [1]);
    assert_eq!(symbols[numbers(metadata, 3)[0] as usize], "Help.");
    assert_eq!(numbers(&messages(&counter, 2)[0], 3), [NOON_NS / 1_000_000]);
    let gauge = messages(&two[0].0, 5).remove(0);
    assert_eq!(numbers(&messages(&gauge, 2)[0], 3), [0; 0]);
}

#[test]
fn a_native_histogram_is_sent_where_it_is_asked_for() {
    let mut distribution = crate::Distribution::default();
    for (value, count) in [(0.0, 2), (0.5, 3), (0.51, 1), (8.0, 4), (-1.0, 5)] {
        distribution.observe(value, count);
    }
    let value = Value::Summary(SummaryValue {
        last: 8.0,
        count: 15,
        sum: 29.01.into(),
        min: -1.0,
        max: 8.0,
        quantiles: vec![(0.5, 0.5)],
        distribution,
    });
    for (version, field) in [(RemoteWriteVersion::One, 1), (RemoteWriteVersion::Two, 5)] {
        let with = RemoteWriteOptions {
            version,
            native: true,
            ..options(&[])
        };
        let sent = requests(&[series("a", &[], value.clone())], &with);
        let native = messages(&sent[0].0, field).pop().expect("a series");
        let histogram = &messages(&native, if field == 1 { 4 } else { 3 })[0];
        assert_eq!(numbers(histogram, 1), [15]);
        assert_eq!(numbers(histogram, 4).map_signed(), [5]);
        assert_eq!(numbers(histogram, 6), [2]);
        assert_eq!(row(histogram, 12).map_signed(), [3, -2, 3]);
        let spans = messages(histogram, 11);
        let spans: Vec<_> = spans
            .iter()
            .map(|span| (signed(numbers(span, 1)[0]), numbers(span, 2)[0]))
            .collect();
        assert_eq!(spans, [(-32, 2), (126, 1)]);
        assert_eq!(row(histogram, 9).map_signed(), [5]);
        assert_eq!(numbers(histogram, 15), [5_000]);
    }
}

trait Signed {
    fn map_signed(self) -> Vec<i64>;
}

impl Signed for Vec<u64> {
    fn map_signed(self) -> Vec<i64> {
        self.into_iter().map(signed).collect()
    }
}

#[test]
fn exemplars_are_sent_once() {
    let mut one = with_family(series("a", &[], histogram()), |_| {});
    one.exemplars = vec![Exemplar {
        value: 0.5,
        timestamp_ns: 7_000_000,
        trace_id: 0xabc,
    }];
    for (since_ns, expected) in [(0, 1), (7_000_000, 0)] {
        let with = RemoteWriteOptions {
            exemplars_since_ns: since_ns,
            ..options(&[])
        };
        let sent = requests(std::slice::from_ref(&one), &with);
        let with_exemplars: Vec<Fields> = messages(&sent[0].0, 1)
            .into_iter()
            .flat_map(|one| messages(&one, 3))
            .collect();
        assert_eq!(with_exemplars.len(), expected);
        for exemplar in with_exemplars {
            assert_eq!(
                text(&messages(&exemplar, 1)[0], 2),
                format!("{:032x}", 0xabc)
            );
            assert_eq!(numbers(&exemplar, 3), [7]);
        }
    }
}

#[test]
fn requests_are_bounded_and_lose_nothing() {
    let many: Vec<Series> = (0..25_000)
        .map(|n| {
            series(
                "a_total",
                &[("n", &format!("{n:05}"))],
                Value::Counter(1.0.into()),
            )
        })
        .collect();
    for version in [RemoteWriteVersion::One, RemoteWriteVersion::Two] {
        let sent = requests(
            &many,
            &RemoteWriteOptions {
                version,
                ..options(&[])
            },
        );
        let samples: Vec<u64> = sent.iter().map(|request| request.1).collect();
        assert_eq!(samples, [10_000, 10_000, 5_000]);
        let read = match version {
            RemoteWriteVersion::One => samples_of_one,
            RemoteWriteVersion::Two => samples_of_two,
        };
        let mut all: Vec<_> = sent.iter().flat_map(|request| read(&request.0)).collect();
        all.dedup();
        assert_eq!(all.len(), 25_000);
        if version == RemoteWriteVersion::Two {
            let metadata = messages(&messages(&sent[2].0, 5)[0], 5);
            assert_eq!(numbers(&metadata[0], 1), [1]);
            let symbols = crate::export::decoded::texts(&sent[2].0, 4);
            assert_eq!(symbols[numbers(&metadata[0], 3)[0] as usize], "Help.");
        }
    }
}

#[test]
fn what_a_page_leaves_out_is_left_out() {
    let twice = [
        series("a_count", &[], Value::Gauge(1.0)),
        series("a", &[], histogram()),
    ];
    let mut sent = 0;
    let left_out = remote_write(&twice, &options(&[]), &mut |request| {
        sent += request.samples
    });
    assert_eq!((left_out.families, sent), (1, 1));
}
