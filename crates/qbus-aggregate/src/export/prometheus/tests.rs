//! The rules are those of the Prometheus documentation ("Exposition formats", "Writing client
//! libraries", "Writing exporters") and, where it asks for no more than 0.0.4 allows, OpenMetrics.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::export::exposition::CHUNK_BYTES;
use crate::export::samples::{self, ClosedPipe, histogram, same, series, snapshot, with_family};
use crate::series::Snapshot;

const STAMPED: Options = Options {
    timestamps: true,
    history: false,
};

fn page(snapshot: &Snapshot, options: &Options) -> (String, LeftOut) {
    let mut out = Vec::new();
    let left_out = prometheus(snapshot, options, &mut out).expect("a Vec takes everything");
    (String::from_utf8(out).expect("the page is UTF-8"), left_out)
}

/// The page of these series, of which none may be left out.
fn whole(series: Vec<Series>) -> String {
    let (page, left_out) = page(&snapshot(series), &Options::default());
    assert_eq!(left_out, LeftOut::default(), "{page}");
    page
}

/// The page of these series, and how many families and series are missing.
fn partial(series: Vec<Series>) -> (String, u64, u64) {
    let (page, LeftOut { families, series }) = page(&snapshot(series), &Options::default());
    (page, families, series)
}

fn gauge(name: &str, labels: &[(&str, &str)], value: f64) -> Series {
    series(name, labels, Value::Gauge(value))
}

#[test]
fn golden() {
    let expected = r#"# TYPE model_inference_latency gauge
# HELP model_inference_latency Model inference latency in seconds
model_inference_latency{model="qwen3-vl",input_size="large"} 0.125 1696161600000
# TYPE requests_total counter
# HELP requests_total Help.
requests_total 3 1696161600000
# TYPE size_bytes summary
# HELP size_bytes Help.
size_bytes{quantile="0.5"} NaN 1696161600000
size_bytes{quantile="0.99"} NaN 1696161600000
size_bytes_sum 0 1696161600000
size_bytes_count 0 1696161600000
# TYPE wait_seconds histogram
# HELP wait_seconds Help.
wait_seconds_bucket{op="r,\"w\"",le="0.1"} 1 1696161600000
wait_seconds_bucket{op="r,\"w\"",le="1"} 2 1696161600000
wait_seconds_bucket{op="r,\"w\"",le="+Inf"} 3 1696161600000
wait_seconds_sum{op="r,\"w\""} 2.55 1696161600000
wait_seconds_count{op="r,\"w\""} 3 1696161600000
"#;
    assert_eq!(
        page(&samples::each_type(), &STAMPED),
        (expected.into(), LeftOut::default())
    );
}

#[test]
fn rule_1_label_values_and_help_are_escaped() {
    let wild = gauge("a", &[("l", "\\ \" \n \\n é")], 1.0);
    let wild = with_family(wild, |family| family.help = "\\ \" \n é".into());
    let expected = "# TYPE a gauge\n# HELP a \\\\ \" \\n é\na{l=\"\\\\ \\\" \\n \\\\n é\"} 1\n";
    assert_eq!(whole(vec![wild]), expected);
}

#[test]
fn rule_2_one_type_and_help_per_family_before_its_samples() {
    let two = vec![
        gauge("a", &[("l", "1")], 1.0),
        gauge("a", &[("l", "2")], 2.0),
    ];
    let expected = "# TYPE a gauge\n# HELP a Help.\na{l=\"1\"} 1\na{l=\"2\"} 2\n";
    assert_eq!(whole(two), expected);
    let bare = with_family(gauge("a", &[], 1.0), |family| family.help.clear());
    assert_eq!(whole(vec![bare]), "# TYPE a gauge\na 1\n");
    // A family that comes back later would open its group anew.
    let torn = vec![
        gauge("a", &[], 1.0),
        gauge("b", &[], 2.0),
        gauge("a", &[("l", "1")], 3.0),
    ];
    let (page, families, series) = partial(torn);
    assert_eq!(
        (page.matches("# TYPE a ").count(), families, series),
        (1, 1, 1)
    );
}

#[test]
fn rule_3_the_first_type_of_a_family_stays() {
    let counter = series("a", &[("l", "1")], Value::Counter(2.0.into()));
    let (page, families, series) = partial(vec![gauge("a", &[], 1.0), counter]);
    assert_eq!(page, "# TYPE a gauge\n# HELP a Help.\na 1\n");
    assert_eq!((families, series), (0, 1));
}

#[test]
fn rule_4_no_sample_name_belongs_to_two_families() {
    for suffix in ["_bucket", "_sum", "_count"] {
        let name = format!("foo{suffix}");
        let clash = vec![
            series("foo", &[], histogram()),
            gauge(&name, &[("l", "1")], 1.0),
            gauge(&name, &[("l", "2")], 1.0),
            gauge("goo", &[], 1.0),
        ];
        let (page, families, series) = partial(clash);
        assert!(!page.contains(&format!("# TYPE {name} ")), "{page}");
        assert!(page.contains("\ngoo 1\n"), "{page}");
        assert_eq!((families, series), (1, 2));
    }
    // A summary has no buckets.
    whole(vec![
        series("foo", &[], samples::empty_summary()),
        gauge("foo_bucket", &[], 1.0),
    ]);
    // Whoever comes first, keeps the name.
    let (page, families, series) = partial(vec![
        gauge("foo_sum", &[], 1.0),
        series("foo", &[], histogram()),
    ]);
    assert_eq!(
        page,
        "# TYPE foo_sum gauge\n# HELP foo_sum Help.\nfoo_sum 1\n"
    );
    assert_eq!((families, series), (1, 1));
}

#[test]
fn rule_5_a_counter_has_type_and_sample_under_one_name() {
    let page = whole(vec![series("a_total", &[], Value::Counter(0.0.into()))]);
    assert_eq!(
        page,
        "# TYPE a_total counter\n# HELP a_total Help.\na_total 0\n"
    );
}

#[test]
fn rule_6_buckets_are_cumulative_and_end_with_inf_as_the_count() {
    let page = whole(vec![series("a", &[], histogram())]);
    let samples = "a_bucket{le=\"0.1\"} 1\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 3\n\
                   a_sum 2.55\na_count 3\n";
    assert!(page.ends_with(samples), "{page}");
}

#[test]
fn rule_6_a_histogram_without_bounds_has_one_bucket() {
    let mut bare = with_family(series("a", &[], histogram()), |family| {
        family.buckets.clear()
    });
    let Value::Histogram(value) = &mut bare.value else {
        unreachable!()
    };
    value.cumulative = vec![3];
    assert!(whole(vec![bare]).ends_with("\na_bucket{le=\"+Inf\"} 3\na_sum 2.55\na_count 3\n"));
}

#[test]
fn rule_6_a_histogram_with_a_negative_bound_has_a_sum_as_well() {
    let negative = with_family(series("a", &[], histogram()), |family| {
        family.buckets = vec![-1.0, 1.0]
    });
    let page = whole(vec![negative]);
    assert!(
        page.contains("le=\"-1\"") && page.ends_with("\na_sum 2.55\na_count 3\n"),
        "{page}"
    );
}

#[test]
fn rule_6_torn_buckets_are_left_out() {
    for cumulative in [vec![1, 2, 4], vec![2, 1, 3], vec![1, 3], vec![]] {
        let mut torn = series("a", &[], histogram());
        let Value::Histogram(value) = &mut torn.value else {
            unreachable!()
        };
        value.cumulative = cumulative;
        assert_eq!(partial(vec![torn]), (String::new(), 0, 1));
    }
    for buckets in [
        vec![1.0, 1.0],
        vec![1.0, 0.1],
        vec![0.1, f64::INFINITY],
        vec![f64::NAN, 1.0],
    ] {
        let torn = with_family(series("a", &[], histogram()), |family| {
            family.buckets = buckets
        });
        assert_eq!(partial(vec![torn]), (String::new(), 0, 1));
    }
}

#[test]
fn rule_7_floats_are_canonical() {
    let expected = [
        (0.0, "0"),
        (-0.0, "-0"),
        (0.1, "0.1"),
        (1.0, "1"),
        (-2.5, "-2.5"),
        (999_999.5, "999999.5"),
        (1e6, "1e+06"),
        (-1_234_567.0, "-1.234567e+06"),
        (1e21, "1e+21"),
        (0.0001, "0.0001"),
        (0.000025, "2.5e-05"),
        (5e-324, "5e-324"),
        (f64::MAX, "1.7976931348623157e+308"),
    ];
    for (value, text) in expected {
        let mut out = String::new();
        push_float(&mut out, value);
        assert_eq!(out, text);
    }
    let wide = with_family(series("a", &[], histogram()), |family| {
        family.buckets = vec![0.1, 1e6]
    });
    let page = whole(vec![wide]);
    assert!(
        page.contains("{le=\"0.1\"}") && page.contains("{le=\"1e+06\"}"),
        "{page}"
    );
}

#[test]
fn rule_8_quantiles_without_observations_are_nan() {
    let page = whole(vec![series("a", &[], samples::empty_summary())]);
    let samples = "a{quantile=\"0.5\"} NaN\na{quantile=\"0.99\"} NaN\na_sum 0\na_count 0\n";
    assert!(page.ends_with(samples), "{page}");
}

#[test]
fn rule_8_le_and_quantile_are_the_formats_own() {
    let summary = series("a", &[("quantile", "1")], samples::empty_summary());
    let histogram = series("b", &[("le", "1")], histogram());
    assert_eq!(partial(vec![summary, histogram]), (String::new(), 0, 2));
    // Only there do they mean anything.
    assert!(whole(vec![gauge("a", &[("le", "1")], 1.0)]).ends_with("a{le=\"1\"} 1\n"));
}

#[test]
fn rule_9_what_is_no_number_has_the_words_of_the_format() {
    let words = [
        (f64::NAN, "NaN"),
        (f64::INFINITY, "+Inf"),
        (f64::NEG_INFINITY, "-Inf"),
    ];
    for (value, word) in words {
        assert!(whole(vec![gauge("a", &[], value)]).ends_with(&format!("\na {word}\n")));
    }
}

#[test]
fn rule_10_times_only_on_demand_and_in_whole_milliseconds() {
    let mut late = gauge("a", &[], 1.0);
    late.timestamp_ns += 1_999_999;
    assert!(whole(vec![late.clone()]).ends_with("\na 1\n"));
    assert!(
        page(&snapshot(vec![late]), &STAMPED)
            .0
            .ends_with("\na 1 1696161600001\n")
    );
}

#[test]
fn rule_11_a_label_set_comes_once() {
    let first = gauge("a", &[("x", "1"), ("y", "2")], 1.0);
    for again in [
        &[("x", "1"), ("y", "2")][..],
        &[("y", "2"), ("z", ""), ("x", "1")],
    ] {
        let (page, families, series) = partial(vec![first.clone(), gauge("a", again, 2.0)]);
        assert_eq!(
            page,
            "# TYPE a gauge\n# HELP a Help.\na{x=\"1\",y=\"2\"} 1\n"
        );
        assert_eq!((families, series), (0, 1));
    }
    for other in [&[("x", "2"), ("y", "1")][..], &[("x", "1"), ("y", "")]] {
        whole(vec![first.clone(), gauge("a", other, 2.0)]);
    }
}

#[test]
fn rule_11_an_empty_label_value_is_no_label() {
    assert!(whole(vec![gauge("a", &[("x", "")], 1.0)]).ends_with("\na 1\n"));
    assert!(whole(vec![gauge("a", &[("x", ""), ("y", "2")], 1.0)]).ends_with("\na{y=\"2\"} 1\n"));
}

#[test]
fn rule_12_the_media_type_says_the_version_and_the_charset() {
    assert_eq!(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
}

#[test]
fn rule_13_a_page_ends_with_a_line_feed_and_has_no_other_comments() {
    assert_eq!(whole(vec![]), "");
    let page = page(&samples::each_type(), &Options::default()).0;
    assert!(
        page.ends_with('\n') && !page.contains('\r') && !page.contains("\n\n"),
        "{page}"
    );
    let comments = page.lines().filter(|line| line.starts_with('#'));
    assert!(
        comments
            .clone()
            .all(|line| line.starts_with("# TYPE ") || line.starts_with("# HELP "))
    );
    assert_eq!(comments.count(), 8);
}

#[test]
fn rule_14_malformed_and_reserved_names_are_left_out() {
    for name in ["", "0a", "a-b", "é", "a b", "a\n"] {
        assert_eq!(
            partial(vec![gauge(name, &[], 1.0)]),
            (String::new(), 1, 1),
            "{name:?}"
        );
        assert_eq!(
            partial(vec![gauge("a", &[(name, "1")], 1.0)]),
            (String::new(), 0, 1)
        );
    }
    // Colons are for names alone; the first may be one.
    assert!(whole(vec![gauge("vllm:a", &[], 1.0), gauge(":a", &[], 1.0)]).contains("\nvllm:a 1\n"));
    for labels in [
        &[("a:b", "1")][..],
        &[("__name__", "b")],
        &[("x", "1"), ("x", "2")],
    ] {
        assert_eq!(
            partial(vec![gauge("a", labels, 1.0)]),
            (String::new(), 0, 1)
        );
    }
}

#[test]
fn rule_15_there_are_no_created_samples() {
    assert!(!page(&samples::each_type(), &STAMPED).0.contains("_created"));
}

#[test]
fn rule_16_a_series_stays_however_old() {
    let mut old = gauge("a", &[], 1.0);
    (old.timestamp_ns, old.start_ns) = (0, 0);
    assert!(
        page(&snapshot(vec![old]), &STAMPED)
            .0
            .ends_with("\na 1 0\n")
    );
}

#[test]
fn rule_17_an_error_of_the_writer_below_comes_through() {
    let error = prometheus(&samples::each_type(), &STAMPED, &mut ClosedPipe).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_page_longer_than_a_chunk_is_whole() {
    let names: Vec<String> = (0..10_000).map(|at| at.to_string()).collect();
    let page = whole(
        names
            .iter()
            .map(|name| gauge("a", &[("l", name)], 1.0))
            .collect(),
    );
    assert!(page.len() > 2 * CHUNK_BYTES);
    assert_eq!(page.lines().count(), 10_002);
}

/// Name, labels by name, value and milliseconds.
type Sample = (String, BTreeMap<String, String>, f64, Option<u64>);

/// Reads a sample line, by the grammar of the documentation and nothing of the writer.
fn read_sample(line: &str) -> Sample {
    let mut labels = BTreeMap::new();
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (name, quoted) = rest.split_once("=\"").unwrap();
            let (mut value, mut escaped, mut close) = (String::new(), false, None);
            for (at, char) in quoted.char_indices() {
                match (escaped, char) {
                    (true, 'n') => value.push('\n'),
                    (true, '"' | '\\') => value.push(char),
                    (true, _) => panic!("unknown escape in {line:?}"),
                    (false, '"') => {
                        close = Some(at);
                        break;
                    }
                    (false, '\\') => {}
                    (false, _) => value.push(char),
                }
                escaped = !escaped && char == '\\';
            }
            assert!(labels.insert(name.to_string(), value).is_none(), "{line:?}");
            rest = &quoted[close.unwrap() + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap();
    }
    let mut words = rest.strip_prefix(' ').unwrap().split(' ');
    let value = words.next().unwrap();
    let digit = |byte: &u8| byte.is_ascii_digit();
    let decimal = value
        .trim_start_matches('-')
        .as_bytes()
        .first()
        .is_some_and(digit);
    assert!(
        decimal || ["NaN", "+Inf", "-Inf"].contains(&value),
        "{line:?}"
    );
    let stamp = words.next().map(|stamp| stamp.parse().unwrap());
    assert_eq!(words.next(), None, "{line:?}");
    (name.to_string(), labels, value.parse().unwrap(), stamp)
}

/// The samples of a series.
fn samples_of(series: &Series) -> Vec<Sample> {
    let family = &*series.family;
    let sample = |suffix: &str, own: Option<(&str, &str)>, value: f64| {
        let mut labels: BTreeMap<_, _> = series
            .labels
            .iter()
            .filter(|label| !label.1.is_empty())
            .cloned()
            .collect();
        labels.extend(own.map(|(name, value)| (name.to_string(), value.to_string())));
        let stamp = Some(series.timestamp_ns / 1_000_000);
        (format!("{}{suffix}", family.name), labels, value, stamp)
    };
    let text = |value: f64| {
        let mut text = String::new();
        push_float(&mut text, value);
        text
    };
    let (mut all, sum, count) = match &series.value {
        Value::Counter(sum) => return vec![sample("", None, sum.value())],
        Value::Gauge(value) => return vec![sample("", None, *value)],
        Value::Histogram(value) => {
            let bounds = family.buckets.iter().copied().chain([f64::INFINITY]);
            let buckets = bounds
                .zip(&value.cumulative)
                .map(|(bound, &count)| sample("_bucket", Some(("le", &text(bound))), count as f64));
            (buckets.collect::<Vec<_>>(), value.sum, value.count)
        }
        Value::Summary(value) => {
            let quantiles = value
                .quantiles
                .iter()
                .map(|&(quantile, value)| sample("", Some(("quantile", &text(quantile))), value));
            (quantiles.collect(), value.sum, value.count)
        }
    };
    all.push(sample("_sum", None, sum.value()));
    all.push(sample("_count", None, count as f64));
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_snapshot_reads_back(snapshot in samples::snapshots()) {
        let (text, left_out) = page(&snapshot, &STAMPED);
        prop_assert_eq!(&text, &page(&snapshot, &STAMPED).0);
        let mut seen = BTreeSet::new();
        let kept: Vec<&Series> = snapshot
            .series
            .iter()
            .filter(|series| {
                let labels = series.labels.iter().filter(|label| !label.1.is_empty());
                seen.insert((&series.family.name, labels.collect::<BTreeSet<_>>()))
            })
            .collect();
        let missing = (snapshot.series.len() - kept.len()) as u64;
        prop_assert_eq!(left_out, LeftOut { families: 0, series: missing });
        let lines = text.split('\n').filter(|line| !line.is_empty() && !line.starts_with('#'));
        let read: Vec<Sample> = lines.map(read_sample).collect();
        let expected: Vec<Sample> = kept.into_iter().flat_map(samples_of).collect();
        prop_assert_eq!(read.len(), expected.len());
        for (read, expected) in read.iter().zip(&expected) {
            prop_assert_eq!((&read.0, &read.1, read.3), (&expected.0, &expected.1, expected.3));
            prop_assert!(same(read.2, expected.2), "{:?} is not {:?}", read, expected);
        }
    }

    #[test]
    fn floats_read_back(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        let mut text = String::new();
        push_float(&mut text, value);
        prop_assert!(same(text.parse().unwrap(), value), "{} is not {:?}", text, value);
    }
}

/// What `promtool check metrics` says to a page; none where there is no promtool.
fn promtool(page: &str) -> Option<(bool, String)> {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            let required = std::env::var_os("QBUS_REQUIRE_PROMTOOL").is_some();
            assert!(!required, "promtool does not start: {error}");
            return None;
        }
    };
    // It reads everything before it says anything, so neither side waits for the other.
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(page.as_bytes())
        .expect("promtool reads");
    let output = child.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    Some((
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

#[test]
fn promtool_has_no_remark() {
    let mut runner = TestRunner::deterministic();
    let mut pages = vec![page(&samples::each_type(), &STAMPED).0];
    for _ in 0..32 {
        let snapshot = samples::snapshots()
            .new_tree(&mut runner)
            .expect("a snapshot")
            .current();
        pages.push(page(&snapshot, &STAMPED).0);
        pages.push(page(&snapshot, &Options::default()).0);
    }
    for page in pages {
        let Some((fine, said)) = promtool(&page) else {
            eprintln!("skipped: there is no promtool here");
            return;
        };
        assert!(fine, "promtool says {said} to\n{page}");
    }
}
