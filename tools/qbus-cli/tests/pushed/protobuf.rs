//! Remote write as Google's library decodes it, by definitions written from the specifications:
//! there is no receiver of 2.0 that can be installed here.

use std::fs;
use std::process::Command;

use qbus_tests::{Place, TestBus, run};
use serde_json::Value;

use crate::receiver::{Act, Received, Receiver};
use crate::{python_with, typed};

/// Reads a message and says it as JSON; it must not have a field that the definitions lack.
const PROGRAM: &str = r#"
import sys
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf import unknown_fields

DEFINITIONS = """
v1.WriteRequest: timeseries=1 *TimeSeries, metadata=3 *MetricMetadata
v1.MetricMetadata: type=1 int32, metric_family_name=2 string, help=4 string, unit=5 string
v1.TimeSeries: labels=1 *Label, samples=2 *Sample, exemplars=3 *Exemplar, histograms=4 *Histogram
v1.Label: name=1 string, value=2 string
v1.Sample: value=1 double, timestamp=2 int64
v1.Exemplar: labels=1 *Label, value=2 double, timestamp=3 int64
v1.Histogram: count_int=1 uint64, sum=3 double, schema=4 sint32, zero_threshold=5 double,
  zero_count_int=6 uint64, negative_spans=8 *BucketSpan, negative_deltas=9 *sint64,
  positive_spans=11 *BucketSpan, positive_deltas=12 *sint64, timestamp=15 int64
v1.BucketSpan: offset=1 sint32, length=2 uint32
v2.Request: symbols=4 *string, timeseries=5 *TimeSeries
v2.TimeSeries: labels_refs=1 *uint32, samples=2 *Sample, histograms=3 *Histogram,
  exemplars=4 *Exemplar, metadata=5 Metadata
v2.Exemplar: labels_refs=1 *uint32, value=2 double, timestamp=3 int64
v2.Sample: value=1 double, timestamp=2 int64, start_timestamp=3 int64
v2.Metadata: type=1 int32, help_ref=3 uint32, unit_ref=4 uint32
v2.Histogram: count_int=1 uint64, sum=3 double, schema=4 sint32, zero_threshold=5 double,
  zero_count_int=6 uint64, negative_spans=8 *BucketSpan, negative_deltas=9 *sint64,
  positive_spans=11 *BucketSpan, positive_deltas=12 *sint64, timestamp=15 int64
v2.BucketSpan: offset=1 sint32, length=2 uint32
"""
pool = descriptor_pool.DescriptorPool()
files = {}
for line in DEFINITIONS.strip().replace(",\n ", ",").splitlines():
    name, fields = line.split(": ")
    package, name = name.split(".")
    file = descriptor_pb2.FileDescriptorProto(name=package, package=package, syntax="proto3")
    file = files.setdefault(package, file)
    message = file.message_type.add(name=name)
    for field in fields.split(", "):
        key, kind = field.split(" ")
        key, number = key.split("=")
        made = message.field.add(name=key, number=int(number))
        made.label = made.LABEL_REPEATED if kind[0] == "*" else made.LABEL_OPTIONAL
        kind = kind.lstrip("*")
        if kind[0].isupper():
            made.type, made.type_name = made.TYPE_MESSAGE, f".{package}.{kind}"
        else:
            made.type = getattr(made, f"TYPE_{kind.upper()}")
for file in files.values():
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())

def known(message):
    assert not unknown_fields.UnknownFieldSet(message), message
    for field, value in message.ListFields():
        is_list = isinstance(value, (list, tuple)) or hasattr(value, "append")
        for one in value if is_list else [value]:
            if hasattr(one, "ListFields"):
                known(one)

message = message_factory.GetMessageClass(pool.FindMessageTypeByName(sys.argv[1]))()
with open(sys.argv[2], "rb") as body:
    message.ParseFromString(body.read())
known(message)
print(json_format.MessageToJson(message, preserving_proto_field_name=True))
"#;

/// A bus with all that remote write has a form for.
fn bus() -> TestBus {
    let bus = TestBus::small(Place::Named);
    let opened = bus.open();
    let jobs = opened.counter("jobs_total").help("Jobs done.").unit("");
    jobs.label("model", "llama")
        .register()
        .expect("room")
        .add(7.0);
    let took = opened.histogram("took_seconds").unit("seconds");
    let took = took.buckets([0.1, 1.0]).native().register().expect("room");
    took.observe_traced(0.5, 0xabc);
    took.observe(-3.0);
    bus
}

/// What a receiver got, decoded.
fn decoded(python: &std::ffi::OsStr, options: &str, message: &str) -> Value {
    let written = "X-Prometheus-Remote-Write-Samples-Written: 100\r\n";
    let receiver = Receiver::start(&[Act::Say("204 No Content", written, b"")]);
    let bus = bus();
    let (name, url) = (bus.address(), receiver.url(options));
    let line = format!(
        "agg --push-once -b {name} --remote-write {url} --label instance=gpu-7 --label job=x"
    );
    let finished = run(&mut typed(&line), "");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let [Received { body, .. }] = &receiver.taken()[..] else {
        panic!("one request");
    };
    let plain = snap::raw::Decoder::new().decompress_vec(body);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("body");
    fs::write(&file, plain.expect("a block of Snappy")).expect("room");
    let mut command = Command::new(python);
    let finished = run(command.args(["-c", PROGRAM, message]).arg(&file), "");
    assert_eq!(finished.code, Some(0), "{}", finished.err);
    serde_json::from_str(&finished.out).expect("JSON")
}

/// The series of that name, with labels as `name=value`.
fn find<'a>(all: &'a [(Vec<String>, Value)], name: &str) -> &'a (Vec<String>, Value) {
    let label = format!("__name__={name}");
    let found = all.iter().find(|(labels, _)| labels.contains(&label));
    found.unwrap_or_else(|| panic!("{name} in {all:?}"))
}

fn are_as_they_should_be(all: &[(Vec<String>, Value)]) {
    for (labels, _) in all {
        // Sorted, none empty, none twice.
        let names: Vec<_> = labels
            .iter()
            .filter_map(|label| label.split_once('='))
            .collect();
        assert!(names.is_sorted_by(|a, b| a.0 < b.0), "{labels:?}");
        assert!(
            names
                .iter()
                .all(|(name, value)| !name.is_empty() && !value.is_empty())
        );
    }
    let (labels, jobs) = find(all, "jobs_total");
    assert_eq!(labels[1..], ["instance=gpu-7", "job=x", "model=llama"]);
    assert_eq!(jobs["samples"][0]["value"], 7.0);
    let in_order: Vec<_> = all
        .iter()
        .filter(|(labels, _)| labels[0] == "__name__=took_seconds_bucket")
        .collect();
    let counts: Vec<_> = in_order
        .iter()
        .map(|(_, one)| one["samples"][0]["value"].as_f64())
        .collect();
    // Protobuf's JSON leaves out what is 0.
    assert_eq!(counts, [Some(1.0), Some(2.0), Some(2.0)]);
    let exemplar = &in_order[1].1["exemplars"][0];
    assert_eq!(exemplar["value"], 0.5);
    let (_, native) = find(all, "took_seconds");
    let histogram = &native["histograms"][0];
    assert_eq!(
        (&histogram["count_int"], &histogram["schema"]),
        (&"2".into(), &5.into())
    );
    // 0.5 is the upper bound of its bucket, of index −32.
    assert_eq!(histogram["positive_spans"][0]["offset"], -32);
    assert_eq!(histogram["positive_deltas"][0], "1");
    assert_eq!(histogram["negative_deltas"][0], "1");
}

#[test]
fn remote_write_of_both_versions_is_what_the_specifications_say() {
    let Some(python) = python_with("google.protobuf") else {
        return;
    };
    let one = decoded(&python, "/,native", "v1.WriteRequest");
    let series = one["timeseries"].as_array().expect("series").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let all: Vec<_> = series
        .map(|series| {
            let labels = series["labels"].as_array().expect("labels").iter();
            let labels =
                labels.map(|one| format!("{}={}", text(&one["name"]), text(&one["value"])));
            (labels.collect(), series.clone())
        })
        .collect();
    are_as_they_should_be(&all);
    let trace = &find(&all, "took_seconds_bucket");
    assert!(!trace.0.is_empty());
    assert_eq!(one["metadata"][0]["metric_family_name"], "jobs_total");
    assert_eq!(one["metadata"][0]["help"], "Jobs done.");

    let two = decoded(&python, "/,native,v2", "v2.Request");
    let symbols: Vec<String> = two["symbols"]
        .as_array()
        .expect("symbols")
        .iter()
        .map(text)
        .collect();
    assert_eq!(symbols[0], "");
    let distinct: std::collections::BTreeSet<_> = symbols.iter().collect();
    assert_eq!(distinct.len(), symbols.len(), "each once");
    let symbol = |at: &Value| symbols[at.as_u64().unwrap_or(0) as usize].clone();
    let series = two["timeseries"].as_array().expect("series").iter();
    let all: Vec<_> = series
        .map(|series| {
            let refs = series["labels_refs"].as_array().expect("labels");
            let labels = refs
                .chunks(2)
                .map(|pair| format!("{}={}", symbol(&pair[0]), symbol(&pair[1])));
            (labels.collect(), series.clone())
        })
        .collect();
    are_as_they_should_be(&all);
    let (_, jobs) = find(&all, "jobs_total");
    assert_eq!(
        (
            &jobs["metadata"]["type"],
            symbol(&jobs["metadata"]["help_ref"])
        ),
        (&1.into(), "Jobs done.".to_owned())
    );
    let time = |name: &str| {
        jobs["samples"][0][name]
            .as_str()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let (time, start) = (
        time("timestamp").expect("a time"),
        time("start_timestamp").expect("a start"),
    );
    assert!(start > 0 && start <= time, "{start} {time}");
    let (_, native) = find(&all, "took_seconds");
    assert_eq!(symbol(&native["metadata"]["unit_ref"]), "seconds");
}
