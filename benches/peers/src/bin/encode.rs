//! What it takes to encode 100,000 series for a monitoring system: qbus beside the encoders that
//! other clients have. Each makes its message of what it keeps, and all say the same labels: three
//! of each series, two of all.

use std::borrow::Cow;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric, number_data_point,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use prost::Message;
use qbus::{FamilyDefinition, MetricType};
use qbus_aggregate::export::{
    OtlpOptions, RemoteWriteOptions, RemoteWriteVersion, Request, otlp, remote_write,
};
use qbus_aggregate::{Series, Value};

const FAMILIES: usize = 100;
const EACH: usize = 1000;
const NOW_NS: u64 = 1_700_000_000_000_000_000;

fn labels(at: usize) -> Vec<(String, String)> {
    vec![
        ("endpoint".to_owned(), format!("/api/v1/predict/{at:05}")),
        ("model".to_owned(), "qwen3-vl".to_owned()),
        ("worker".to_owned(), (at % 64).to_string()),
    ]
}

fn name(family: usize) -> String {
    format!("demo_requests_{family:02}")
}

fn main() {
    let series = series();
    let registry = registry();
    let points = points();
    println!("{:<44} {:>8} {:>8}", "100,000 counters", "ms", "MB");
    // In turn, so that a neighbour on this machine disturbs all of them.
    let mut best = [f64::INFINITY; 6];
    let mut bytes = [0; 6];
    for _ in 0..25 {
        let runs: [&dyn Fn() -> usize; 6] = [
            &|| written(&series, RemoteWriteVersion::One),
            &|| written(&series, RemoteWriteVersion::Two),
            &|| exported(&series),
            &|| text(&registry),
            &|| written_by_prost(&points),
            &|| points_encoded(&points),
        ];
        for (at, run) in runs.into_iter().enumerate() {
            let start = on_cpu();
            bytes[at] = run();
            best[at] = best[at].min((on_cpu() - start) as f64 / 1e6);
        }
    }
    let names = [
        "qbus, remote write 1.0",
        "qbus, remote write 2.0",
        "qbus, OTLP",
        "prometheus-client 0.26, OpenMetrics text",
        "remote write 1.0 by prost 0.14",
        "opentelemetry-proto 0.33, OTLP by prost",
    ];
    for ((name, ms), bytes) in names.into_iter().zip(best).zip(bytes) {
        println!("{name:<44} {ms:>8.1} {:>8.1}", bytes as f64 / 1e6);
    }
}

fn series() -> Vec<Series> {
    let family = |family: usize| {
        Arc::new(FamilyDefinition {
            help: "Requests answered.".to_owned(),
            ..FamilyDefinition::new(&format!("{}_total", name(family)), MetricType::Counter)
        })
    };
    let of_family = |at: usize| {
        let family = family(at);
        (0..EACH).map(move |one| Series {
            family: family.clone(),
            labels: labels(one),
            value: Value::Counter((one as f64).into()),
            timestamp_ns: NOW_NS,
            start_ns: NOW_NS,
            records: 1,
            history: Vec::new(),
            exemplars: Vec::new(),
        })
    };
    (0..FAMILIES).flat_map(of_family).collect()
}

/// Where all of it is from.
fn of_all() -> [(String, String); 2] {
    [("instance", "gpu-7"), ("job", "inference")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

fn written(series: &[Series], version: RemoteWriteVersion) -> usize {
    let options = RemoteWriteOptions {
        version,
        time_ms: NOW_NS / 1_000_000,
        labels: &of_all(),
        native: false,
        metadata: true,
        exemplars_since_ns: 0,
        is_end: false,
    };
    let mut bytes = 0;
    remote_write(series, &options, &mut |request: Request| {
        bytes += request.message.len()
    });
    bytes
}

fn exported(series: &[Series]) -> usize {
    let options = OtlpOptions {
        time_ns: NOW_NS,
        resource: &of_all(),
        exemplars_since_ns: 0,
        is_end: false,
    };
    let mut bytes = 0;
    otlp(series, &options, &mut |request: Request| {
        bytes += request.message.len()
    });
    bytes
}

fn registry() -> Registry {
    let of_all = of_all().map(|(name, value)| (Cow::from(name), Cow::from(value)));
    let mut registry = Registry::with_labels(of_all.into_iter());
    for at in 0..FAMILIES {
        let family = Family::<Vec<(String, String)>, Counter>::default();
        for one in 0..EACH {
            family.get_or_create(&labels(one)).inc_by(one as u64);
        }
        registry.register(name(at), "Requests answered", family);
    }
    registry
}

fn text(registry: &Registry) -> usize {
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, registry).expect("room");
    page.len()
}

/// The messages of remote write, as prost derives their encoding.
mod prompb {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct WriteRequest {
        #[prost(message, repeated, tag = "1")]
        pub timeseries: Vec<TimeSeries>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct TimeSeries {
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<Label>,
        #[prost(message, repeated, tag = "2")]
        pub samples: Vec<Sample>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Label {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub value: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Sample {
        #[prost(double, tag = "1")]
        pub value: f64,
        #[prost(int64, tag = "2")]
        pub timestamp: i64,
    }
}

/// In requests of 10,000 samples, as qbus makes them.
fn written_by_prost(all: &[Points]) -> usize {
    let of_all = of_all();
    let label = |(name, value): &(String, String)| prompb::Label {
        name: name.clone(),
        value: value.clone(),
    };
    let series = |name: &String, labels: &[(String, String)], value: f64| {
        let mut labels: Vec<_> = labels.iter().chain(&of_all).map(label).collect();
        labels.push(label(&("__name__".to_owned(), name.clone())));
        labels.sort_by(|a, b| a.name.cmp(&b.name));
        prompb::TimeSeries {
            labels,
            samples: vec![prompb::Sample {
                value,
                timestamp: (NOW_NS / 1_000_000) as i64,
            }],
        }
    };
    let requests = all.chunks(10).map(|families| {
        let points = families.iter().flat_map(|(name, points)| {
            points
                .iter()
                .map(|(labels, value)| series(name, labels, *value))
        });
        let request = prompb::WriteRequest {
            timeseries: points.collect(),
        };
        request.encode_to_vec().len()
    });
    requests.sum()
}

/// The points of a family: their labels and values.
type Points = (String, Vec<(Vec<(String, String)>, f64)>);

/// What an SDK keeps: label sets and values.
fn points() -> Vec<Points> {
    let of_family = |at| {
        let points = (0..EACH).map(|one| (labels(one), one as f64)).collect();
        (name(at), points)
    };
    (0..FAMILIES).map(of_family).collect()
}

fn points_encoded(all: &[Points]) -> usize {
    let attribute = |(key, value): &(String, String)| KeyValue {
        key: key.clone(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.clone())),
        }),
        ..KeyValue::default()
    };
    let point = |(labels, value): &(Vec<(String, String)>, f64)| NumberDataPoint {
        attributes: labels.iter().map(attribute).collect(),
        start_time_unix_nano: NOW_NS,
        time_unix_nano: NOW_NS,
        value: Some(number_data_point::Value::AsDouble(*value)),
        ..NumberDataPoint::default()
    };
    let metric = |(name, points): &(String, Vec<_>)| Metric {
        name: name.clone(),
        description: "Requests answered.".to_owned(),
        data: Some(metric::Data::Sum(Sum {
            data_points: points.iter().map(point).collect(),
            aggregation_temporality: 2,
            is_monotonic: true,
        })),
        ..Metric::default()
    };
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics: vec![ScopeMetrics {
                metrics: all.iter().map(metric).collect(),
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    };
    request.encode_to_vec().len()
}

/// Nanoseconds that this thread was on a core: what a neighbour takes is not among them.
fn on_cpu() -> u64 {
    let said = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    said.split(' ')
        .next()
        .expect("a number")
        .parse()
        .expect("a number")
}
