//! The rules are those of the OpenMetrics specification 1.0; prometheus_client's parser, which
//! refuses what breaks them, has the last word.

use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::export::samples::{self, histogram, series, snapshot, with_family};

fn page(series: Vec<Series>) -> (String, LeftOut) {
    let mut out = Vec::new();
    let left_out = openmetrics(&snapshot(series), &Options::default(), &mut out)
        .expect("a Vec takes everything");
    (String::from_utf8(out).expect("the page is UTF-8"), left_out)
}

/// The page of these series, of which none may be left out, without its last line.
fn whole(series: Vec<Series>) -> String {
    let (page, left_out) = page(series);
    assert_eq!(left_out, LeftOut::default(), "{page}");
    page.strip_suffix("# EOF\n").expect("the end").to_owned()
}

fn gauge(name: &str, labels: &[(&str, &str)], value: f64) -> Series {
    series(name, labels, Value::Gauge(value))
}

fn counter(name: &str, value: f64) -> Series {
    series(name, &[], Value::Counter(value.into()))
}

#[test]
fn golden() {
    let expected = r#"# TYPE model_inference_latency gauge
# HELP model_inference_latency Model inference latency in seconds
model_inference_latency{model="qwen3-vl",input_size="large"} 0.125 1696161600.000
# TYPE requests counter
# HELP requests Help.
requests_total 3 1696161600.000
# TYPE size_bytes summary
# HELP size_bytes Help.
size_bytes{quantile="0.5"} NaN 1696161600.000
size_bytes{quantile="0.99"} NaN 1696161600.000
size_bytes_sum 0 1696161600.000
size_bytes_count 0 1696161600.000
# TYPE wait_seconds histogram
# UNIT wait_seconds seconds
# HELP wait_seconds Help.
wait_seconds_bucket{op="r,\"w\"",le="0.1"} 1 1696161600.000
wait_seconds_bucket{op="r,\"w\"",le="1.0"} 2 1696161600.000
wait_seconds_bucket{op="r,\"w\"",le="+Inf"} 3 1696161600.000
wait_seconds_sum{op="r,\"w\""} 2.55 1696161600.000
wait_seconds_count{op="r,\"w\""} 3 1696161600.000
# EOF
"#;
    let options = Options {
        timestamps: true,
        history: false,
    };
    let mut out = Vec::new();
    let left_out = openmetrics(&samples::each_type(), &options, &mut out).unwrap();
    assert_eq!(left_out, LeftOut::default());
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn an_empty_page_has_its_end() {
    assert_eq!(page(vec![]).0, "# EOF\n");
}

#[test]
fn a_counter_without_total_is_of_unknown_type() {
    let expected = "# TYPE a unknown\n# HELP a Help.\na 2\n";
    assert_eq!(whole(vec![counter("a", 2.0)]), expected);
    // Also where its short name is another family's.
    let page = whole(vec![gauge("a", &[], 1.0), counter("a_total", 2.0)]);
    assert!(page.ends_with("# TYPE a_total unknown\n# HELP a_total Help.\na_total 2\n"));
}

#[test]
fn a_unit_stands_only_behind_a_name_that_ends_with_it() {
    let with_unit = |name, unit: &str| {
        let series = with_family(counter(name, 1.0), |family| family.unit = unit.to_owned());
        whole(vec![series]).contains("# UNIT ")
    };
    assert!(with_unit("a_seconds_total", "seconds"));
    assert!(!with_unit("a_total", "seconds"));
    assert!(!with_unit("aseconds_total", "seconds"));
    assert!(!with_unit("_seconds_total", "seconds"));
    assert!(!with_unit("a_total", ""));
}

#[test]
fn info_and_stateset_are_told_by_name_and_values() {
    let info = whole(vec![gauge("build_info", &[("version", "1")], 1.0)]);
    assert!(info.starts_with("# TYPE build info\n") && info.contains("\nbuild_info{version"));
    assert!(whole(vec![gauge("build_info", &[], 2.0)]).starts_with("# TYPE build_info gauge\n"));
    let state = |value| gauge("state", &[("job", "a"), ("state", "up")], value);
    assert!(whole(vec![state(1.0)]).starts_with("# TYPE state stateset\n"));
    assert!(whole(vec![state(0.5)]).starts_with("# TYPE state gauge\n"));
    // Its states would not be adjacent.
    let torn = gauge("state", &[("state", "up"), ("zone", "a")], 1.0);
    assert!(whole(vec![torn]).starts_with("# TYPE state gauge\n"));
}

#[test]
fn sum_and_count_of_a_histogram_come_both_or_not_at_all() {
    let negative_bound = with_family(series("a", &[], histogram()), |family| {
        family.buckets = vec![-1.0, 1.0];
    });
    let mut negative_sum = series("a", &[], histogram());
    if let Value::Histogram(value) = &mut negative_sum.value {
        value.sum = (-1.0).into();
    }
    for series in [negative_bound, negative_sum] {
        let page = whole(vec![series]);
        assert!(page.contains("a_bucket{le=\"+Inf\"} 3\n"), "{page}");
        assert!(!page.contains("_sum") && !page.contains("_count"), "{page}");
    }
}

#[test]
fn what_counts_is_neither_negative_nor_nan() {
    for value in [-1.0, f64::NAN] {
        let (text, left_out) = page(vec![counter("a_total", value)]);
        assert_eq!((text.as_str(), left_out.series), ("# EOF\n", 1));
        // What is of no type may be anything.
        whole(vec![counter("a", value)]);
    }
}

#[test]
fn a_help_text_has_its_quotes_escaped() {
    let wild = with_family(gauge("a", &[], 1.0), |family| {
        family.help = "\\ \" \n é".into();
    });
    assert!(whole(vec![wild]).contains("# HELP a \\\\ \\\" \\n é\n"));
}

#[test]
fn names_that_a_type_reserves_belong_to_one_family() {
    let (text, left_out) = page(vec![
        series("foo", &[], histogram()),
        gauge("foo_created", &[], 1.0),
    ]);
    assert!(!text.contains("foo_created"), "{text}");
    assert_eq!((left_out.families, left_out.series), (1, 1));
}

/// Reads pages, each after a line with its length, with prometheus_client.
const PARSER: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse
for line in iter(sys.stdin.buffer.readline, b''):
    page = sys.stdin.buffer.read(int(line)).decode()
    try:
        list(parse(page))
    except Exception as error:
        sys.exit(f'{error!r} to\\n{page}')
";

#[test]
fn prometheus_client_reads_every_page() {
    let mut runner = TestRunner::deterministic();
    let mut pages = vec![page(samples::each_type().series).0];
    for _ in 0..200 {
        let tree = samples::snapshots().new_tree(&mut runner);
        pages.push(page(tree.expect("a snapshot").current().series).0);
    }
    let python = std::env::var("QBUS_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let knows = Command::new(&python)
        .args(["-c", "import prometheus_client"])
        .stderr(Stdio::null())
        .status();
    if !knows.is_ok_and(|status| status.success()) {
        let required = std::env::var_os("QBUS_PYTHON").is_some();
        assert!(!required, "{python} has no prometheus_client");
        eprintln!("skipped: there is no prometheus_client here");
        return;
    }
    let child = Command::new(&python)
        .args(["-c", PARSER])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("Python starts");
    let mut input = child.stdin.take().expect("piped");
    for page in pages {
        // It ends at the first page that it refuses, and says why.
        let _ = write!(input, "{}\n{page}", page.len());
    }
    drop(input);
    let output = child.wait_with_output().expect("Python ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "prometheus_client says {said}");
}
