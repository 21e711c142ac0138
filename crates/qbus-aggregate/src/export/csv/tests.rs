use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::export::samples::{self, ClosedPipe, same};
use crate::series::Snapshot;

fn text(snapshot: &Snapshot, options: &Options) -> String {
    let mut out = Vec::new();
    csv(snapshot, options, &mut out).expect("a Vec takes everything");
    String::from_utf8(out).expect("the table is UTF-8")
}

const HISTORY: Options = Options {
    timestamps: false,
    history: true,
};

#[test]
fn golden() {
    // Each @ is the time of a row.
    let expected = r#"name,value,type,labels,description,timestamp,datetime,point
model_inference_latency,0.125,gauge,"{""model"":""qwen3-vl"",""input_size"":""large""}",HELP,@,0
requests_total,3.0,counter,{},Help.,@,0
requests_total,1.0,counter,{},Help.,1696161600.0,2023-10-01T11:59:59.999999999Z,1
requests_total,3.0,counter,{},Help.,@,2
size_bytes,NaN,summary,"{""quantile"":""0.5""}",Help.,@,0
size_bytes,NaN,summary,"{""quantile"":""0.99""}",Help.,@,0
size_bytes_sum,0.0,summary,{},Help.,@,0
size_bytes_count,0,summary,{},Help.,@,0
wait_seconds_bucket,1,histogram,"{""op"":""r,\""w\"""",""le"":""0.1""}",Help.,@,0
wait_seconds_bucket,2,histogram,"{""op"":""r,\""w\"""",""le"":""1""}",Help.,@,0
wait_seconds_bucket,3,histogram,"{""op"":""r,\""w\"""",""le"":""+Inf""}",Help.,@,0
wait_seconds_sum,2.55,histogram,"{""op"":""r,\""w\""""}",Help.,@,0
wait_seconds_count,3,histogram,"{""op"":""r,\""w\""""}",Help.,@,0
"#;
    let expected = expected
        .replace('@', "1696161600.0,2023-10-01T12:00:00.000000000Z")
        .replace("HELP", "Model inference latency in seconds")
        .replace('\n', "\r\n");
    assert_eq!(text(&samples::each_type(), &HISTORY), expected);
}

#[test]
fn history_is_left_out_unless_asked_for() {
    let page = text(&samples::each_type(), &Options::default());
    assert_eq!(page.matches("\r\nrequests_total,").count(), 1);
}

#[test]
fn a_description_like_a_formula_stays_as_it_is() {
    let series = samples::with_family(samples::latency(), |family| family.help = "=cmd()".into());
    let page = text(&samples::snapshot(vec![series]), &Options::default());
    assert!(page.contains(",=cmd(),"), "{page}");
}

#[test]
fn a_closed_pipe_is_a_closed_pipe() {
    let error = csv(&samples::each_type(), &HISTORY, &mut ClosedPipe).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    // Enough rows that one of them, not the flush at the end, finds out.
    let many = samples::snapshot(vec![samples::latency(); 2_000]);
    let error = csv(&many, &HISTORY, &mut ClosedPipe).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

/// What a row must say: name, value, labels and time; a count is exact, so it has text.
struct Row<'a> {
    series: &'a Series,
    suffix: &'a str,
    own: Option<(&'a str, f64)>,
    value: Result<f64, u64>,
    unix_ns: u64,
    point: usize,
}

fn rows(series: &Series) -> Vec<Row<'_>> {
    let row = |suffix, own, value| Row {
        series,
        suffix,
        own,
        value,
        unix_ns: series.timestamp_ns,
        point: 0,
    };
    let mut rows = Vec::new();
    let totals = match &series.value {
        Value::Counter(sum) => {
            rows.push(row("", None, Ok(sum.value())));
            None
        }
        Value::Gauge(value) => {
            rows.push(row("", None, Ok(*value)));
            None
        }
        Value::Histogram(value) => {
            for (at, &count) in value.cumulative.iter().enumerate() {
                let le = series
                    .family
                    .buckets
                    .get(at)
                    .copied()
                    .unwrap_or(f64::INFINITY);
                rows.push(row("_bucket", Some(("le", le)), Err(count)));
            }
            Some((value.sum, value.count))
        }
        Value::Summary(value) => {
            let own = |quantile| Some(("quantile", quantile));
            rows.extend(
                value
                    .quantiles
                    .iter()
                    .map(|&(at, value)| row("", own(at), Ok(value))),
            );
            Some((value.sum, value.count))
        }
    };
    if let Some((sum, count)) = totals {
        rows.push(row("_sum", None, Ok(sum.value())));
        rows.push(row("_count", None, Err(count)));
    }
    rows.extend((1..).zip(&series.history).map(|(number, point)| Row {
        unix_ns: point.timestamp_ns,
        point: number,
        ..row("", None, Ok(point.value))
    }));
    rows
}

fn check(record: &::csv::StringRecord, row: &Row<'_>) {
    let family = &*row.series.family;
    assert_eq!(record[0], format!("{}{}", family.name, row.suffix));
    match row.value {
        Ok(value) => assert!(
            same(record[1].parse().unwrap(), value),
            "{record:?} not {value}"
        ),
        Err(count) => assert_eq!(record[1], count.to_string()),
    }
    assert_eq!(&record[2], family.metric_type.as_str());
    let mut labels: BTreeMap<String, String> = serde_json::from_str(&record[3]).unwrap();
    if let Some((name, value)) = row.own {
        assert!(same(labels.remove(name).unwrap().parse().unwrap(), value));
    }
    assert_eq!(labels, row.series.labels.iter().cloned().collect());
    assert_eq!(&record[4], family.help);
    assert!((record[5].parse::<f64>().unwrap() - row.unix_ns as f64 / 1e9).abs() < 1e-5);
    let read: jiff::Timestamp = record[6].parse().unwrap();
    assert_eq!(read.as_nanosecond(), i128::from(row.unix_ns));
    assert_eq!(record[6].len(), "2023-10-01T12:00:00.000000000Z".len());
    assert_eq!(record[7], row.point.to_string());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_snapshot_reads_back(snapshot in samples::snapshots()) {
        let page = text(&snapshot, &HISTORY);
        prop_assert_eq!(&page, &text(&snapshot, &HISTORY));
        let mut reader = ::csv::Reader::from_reader(page.as_bytes());
        let header: Vec<_> = HEADER.into_iter().chain([POINT]).collect();
        prop_assert_eq!(reader.headers().unwrap(), &header[..]);
        let records: Vec<_> = reader.records().map(Result::unwrap).collect();
        let expected: Vec<_> = snapshot.series.iter().flat_map(rows).collect();
        prop_assert_eq!(records.len(), expected.len());
        for (record, row) in records.iter().zip(&expected) {
            check(record, row);
        }
    }
}
