use proptest::prelude::*;
use serde_json::{Map, Value as Json};

use super::*;
use crate::export::samples::{self, ClosedPipe, same};
use crate::series::Snapshot;

fn text(snapshot: &Snapshot, options: &Options) -> String {
    let mut out = Vec::new();
    json(snapshot, options, &mut out).expect("a Vec takes everything");
    String::from_utf8(out).expect("JSON is UTF-8")
}

const HISTORY: Options = Options {
    timestamps: false,
    history: true,
};

#[test]
fn golden() {
    let expected = concat!(
        r#"{"schema_version":2,"epoch":7,"consistent":true,"#,
        r#""timestamp":"2023-10-01T12:00:00.000000000Z","unix_ns":1696161600000000000,"metrics":["#,
        r#"{"name":"model_inference_latency","value":0.125,"type":"gauge","#,
        r#""labels":{"model":"qwen3-vl","input_size":"large"},"#,
        r#""description":"Model inference latency in seconds","#,
        r#""timestamp":1696161600.0,"datetime":"2023-10-01T12:00:00.000000000Z"},"#,
        r#"{"name":"requests_total","value":3.0,"type":"counter","labels":{},"#,
        r#""description":"Help.","#,
        r#""timestamp":1696161600.0,"datetime":"2023-10-01T12:00:00.000000000Z"},"#,
        r#"{"name":"size_bytes","value":null,"not_finite":"NaN","type":"summary","labels":{},"#,
        r#""description":"Help.","#,
        r#""timestamp":1696161600.0,"datetime":"2023-10-01T12:00:00.000000000Z","#,
        r#""count":0,"sum":0.0,"min":null,"max":null,"#,
        r#""quantiles":[{"quantile":0.5,"value":null},{"quantile":0.99,"value":null}],"#,
        r#""window_seconds":600.0},"#,
        r#"{"name":"wait_seconds","value":2.0,"type":"histogram","labels":{"op":"r,\"w\""},"#,
        r#""description":"Help.","unit":"seconds","#,
        r#""timestamp":1696161600.0,"datetime":"2023-10-01T12:00:00.000000000Z","#,
        r#""count":3,"sum":2.55,"min":0.05,"max":2.0,"buckets":"#,
        r#"[{"le":"0.1","count":1},{"le":"1","count":2},{"le":"+Inf","count":3}]}],"#,
        r#""history":{"requests_total":["#,
        r#"{"labels":{},"value":1.0,"#,
        r#""timestamp":1696161600.0,"datetime":"2023-10-01T11:59:59.999999999Z"},"#,
        r#"{"labels":{},"value":3.0,"#,
        r#""timestamp":1696161600.0,"datetime":"2023-10-01T12:00:00.000000000Z"}]}}"#,
        "\n",
    );
    assert_eq!(text(&samples::each_type(), &HISTORY), expected);
}

#[test]
fn history_is_empty_unless_asked_for() {
    let page = text(&samples::each_type(), &Options::default());
    assert!(page.ends_with("],\"history\":{}}\n"), "{page}");
}

#[test]
fn a_closed_pipe_is_a_closed_pipe() {
    let error = json(&samples::each_type(), &HISTORY, &mut ClosedPipe).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

fn number(json: &Json) -> f64 {
    match json {
        Json::Number(number) => number.as_f64().unwrap(),
        Json::Null => f64::NAN,
        other => panic!("{other} is not a number"),
    }
}

#[track_caller]
fn check_number(json: &Json, expected: f64) {
    let expected = if expected.is_finite() {
        expected
    } else {
        f64::NAN
    };
    assert!(same(number(json), expected), "{json} is not {expected:?}");
}

#[track_caller]
fn check_time(json: &Json, unix_ns: u64) {
    let seconds = json["timestamp"].as_f64().unwrap();
    assert!(
        (seconds - unix_ns as f64 / 1e9).abs() < 1e-5,
        "{seconds} is not {unix_ns} ns"
    );
    let text = json["datetime"].as_str().unwrap();
    assert!(text.ends_with('Z'), "{text} is not UTC");
    assert_eq!(text.len(), "2023-10-01T12:00:00.000000000Z".len());
    let read: jiff::Timestamp = text.parse().unwrap();
    assert_eq!(read.as_nanosecond(), i128::from(unix_ns));
}

fn object(labels: &[(String, String)]) -> Json {
    let labels = labels
        .iter()
        .map(|(name, value)| (name.clone(), Json::from(value.clone())));
    Json::Object(labels.collect::<Map<_, _>>())
}

fn check_metric(json: &Json, series: &Series) {
    assert_eq!(json["name"], series.family.name);
    assert_eq!(json["type"], series.family.metric_type.as_str());
    assert_eq!(json["labels"], object(&series.labels));
    assert_eq!(json["description"], series.family.help);
    assert_eq!(
        json.get("unit").map_or("", |unit| unit.as_str().unwrap()),
        series.family.unit
    );
    check_time(json, series.timestamp_ns);
    let last = match &series.value {
        Value::Counter(sum) => sum.value(),
        Value::Gauge(value) => *value,
        Value::Histogram(value) => value.last,
        Value::Summary(value) => value.last,
    };
    let said = json.get("not_finite").map(|word| word.as_str().unwrap());
    assert_eq!(said, word(last), "{json}");
    let totals = match &series.value {
        Value::Counter(_) | Value::Gauge(_) => {
            assert!(json.get("count").is_none());
            return check_number(&json["value"], last);
        }
        Value::Histogram(value) => {
            let buckets = json["buckets"].as_array().unwrap();
            assert_eq!(buckets.len(), series.family.buckets.len() + 1);
            for (at, bucket) in buckets.iter().enumerate() {
                let bound = series.family.buckets.get(at).copied();
                let le: f64 = bucket["le"].as_str().unwrap().parse().unwrap();
                assert!(same(le, bound.unwrap_or(f64::INFINITY)), "{bucket}");
                assert_eq!(bucket["count"].as_u64(), Some(value.cumulative[at]));
            }
            (value.last, value.count, value.sum, value.min, value.max)
        }
        Value::Summary(value) => {
            let quantiles = json["quantiles"].as_array().unwrap();
            assert_eq!(quantiles.len(), value.quantiles.len());
            for (json, &(quantile, value)) in quantiles.iter().zip(&value.quantiles) {
                check_number(&json["quantile"], quantile);
                check_number(&json["value"], value);
            }
            assert_eq!(json["window_seconds"].as_f64(), Some(600.0));
            (value.last, value.count, value.sum, value.min, value.max)
        }
    };
    check_number(&json["value"], totals.0);
    assert_eq!(json["count"].as_u64(), Some(totals.1));
    check_number(&json["sum"], totals.2.value());
    check_number(&json["min"], totals.3);
    check_number(&json["max"], totals.4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_snapshot_reads_back(snapshot in samples::snapshots()) {
        let page = text(&snapshot, &HISTORY);
        prop_assert_eq!(&page, &text(&snapshot, &HISTORY));
        let read: Json = serde_json::from_str(&page).unwrap();
        prop_assert_eq!(read["unix_ns"].as_u64(), Some(snapshot.unix_ns));
        prop_assert_eq!(read["epoch"].as_u64(), Some(snapshot.epoch));
        prop_assert_eq!(read["consistent"].as_bool(), Some(snapshot.consistent));
        let metrics = read["metrics"].as_array().unwrap();
        prop_assert_eq!(metrics.len(), snapshot.series.len());
        for (json, series) in metrics.iter().zip(&snapshot.series) {
            check_metric(json, series);
        }
        let mut points: Vec<&Json> = Vec::new();
        let mut expected = Vec::new();
        for family in snapshot.series.chunk_by(|a, b| a.family.name == b.family.name) {
            let name = family[0].family.name.as_str();
            points.extend(read["history"].get(name).iter().flat_map(|of| of.as_array().unwrap()));
            expected.extend(family.iter().flat_map(|of| of.history.iter().map(move |p| (of, p))));
        }
        prop_assert_eq!(points.len(), expected.len());
        for (json, (series, point)) in points.into_iter().zip(expected) {
            prop_assert_eq!(&json["labels"], &object(&series.labels));
            check_number(&json["value"], point.value);
            check_time(json, point.timestamp_ns);
        }
    }
}
