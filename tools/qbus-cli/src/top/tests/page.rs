//! A page that goes on as a machine's would, and is always the same.

use std::sync::Arc;

use qbus::MetricType;
use qbus_agent::view::{AggregatorReport, Lanes, Lost, Owner, Records, Report};
use qbus_aggregate::{
    Distribution, Exemplar, Family, HistogramValue, Series, Snapshot, Sum, SummaryValue, Value,
};

use crate::top::screen::Reading;

pub(super) const SECOND: u64 = 1_000_000_000;
pub(super) const START: u64 = 1_800_000_000 * SECOND;
pub(super) fn family(name: &str, metric_type: MetricType) -> Arc<Family> {
    let is_histogram = metric_type == MetricType::Histogram;
    Arc::new(Family {
        help: format!("What {name} means."),
        buckets: if is_histogram {
            vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0]
        } else {
            Vec::new()
        },
        ..Family::new(name, metric_type)
    })
}

pub(super) fn series(
    family: &Arc<Family>,
    labels: &[(&str, &str)],
    value: Value,
    now_ns: u64,
) -> Series {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Series {
        family: family.clone(),
        labels: labels.iter().map(own).collect(),
        value,
        timestamp_ns: now_ns,
        start_ns: START,
        records: 1,
        history: Vec::new(),
        exemplars: Vec::new(),
    }
}

pub(super) fn counter(value: f64) -> Value {
    Value::Counter(Sum::from(value))
}

fn histogram(counts: [u64; 9]) -> Value {
    let mut sum = 0;
    let cumulative = counts.map(|count| {
        sum += count;
        sum
    });
    Value::Histogram(HistogramValue {
        last: 0.02,
        count: sum,
        sum: Sum::from(sum as f64 * 0.02),
        min: 0.001,
        max: 0.9,
        cumulative: cumulative.to_vec(),
        distribution: None,
    })
}

fn summary(count: u64) -> Value {
    let mut distribution = Distribution::default();
    distribution.observe(0.0003, count * 9);
    distribution.observe(0.004, count);
    Value::Summary(SummaryValue {
        last: 0.0003,
        count: count * 10,
        sum: Sum::from(count as f64),
        min: 0.0003,
        max: 0.004,
        quantiles: Vec::new(),
        distribution,
    })
}

/// The page after so many seconds.
pub(super) fn snapshot(seconds: u64) -> Snapshot {
    let now_ns = START + seconds * SECOND;
    let wave = (seconds % 20).abs_diff(10);
    let mut all = Vec::new();
    let mut add = |name: &str, metric_type, rows: &[(&[(&str, &str)], Value)]| {
        let family = family(name, metric_type);
        for (labels, value) in rows {
            all.push(series(&family, labels, value.clone(), now_ns));
        }
    };
    use MetricType::{Counter, Gauge, Histogram, Summary};
    add(
        "batch_size",
        Gauge,
        &[(&[], Value::Gauge((7 + wave) as f64))],
    );
    add(
        "queue_wait_seconds",
        Summary,
        &[(&[], summary(100 * seconds))],
    );
    let grown = seconds * 90
        + (0..seconds)
            .map(|second| (second % 20).abs_diff(10) * 9)
            .sum::<u64>();
    add(
        "request_seconds",
        Histogram,
        &[
            (
                &[("endpoint", "/predict"), ("model", "qwen3-vl")],
                histogram([
                    grown,
                    3 * grown,
                    4 * grown,
                    grown,
                    grown,
                    grown / 2,
                    grown / 9,
                    0,
                    0,
                ]),
            ),
            (
                &[("endpoint", "/embed"), ("model", "qwen3-vl")],
                histogram([5 * seconds, seconds, 0, 0, 0, 0, 0, 0, 0]),
            ),
        ],
    );
    add(
        "tokens_total",
        Counter,
        &[
            (
                &[("model", "qwen3-vl"), ("kind", "prompt")],
                counter(32_000.0 * seconds as f64),
            ),
            (
                &[("model", "qwen3-vl"), ("kind", "output")],
                counter(16_000.0 * seconds as f64 + (200 * grown) as f64),
            ),
            (&[("model", "llama"), ("kind", "output")], counter(0.0)),
        ],
    );
    machine(&mut add, seconds, wave);
    all.sort_by(|a, b| a.family.name.cmp(&b.family.name));
    for one in &mut all {
        if one.family.name == "request_seconds" {
            one.exemplars = vec![Exemplar {
                value: 0.24,
                timestamp_ns: now_ns,
                trace_id: 0xabc,
            }];
        }
    }
    Snapshot {
        epoch: 1 + seconds,
        unix_ns: now_ns,
        consistent: true,
        series: all,
    }
}

type Add<'a> = dyn FnMut(&str, MetricType, &[(&[(&str, &str)], Value)]) + 'a;

fn machine(add: &mut Add<'_>, seconds: u64, wave: u64) {
    use MetricType::{Counter, Gauge};
    const GIB: f64 = 1_073_741_824.0;
    let gauge = |value: f64| Value::Gauge(value);
    add(
        "qbus_host_cpu_usage_ratio",
        Gauge,
        &[(&[], gauge(0.3 + wave as f64 / 50.0))],
    );
    add("qbus_host_load1", Gauge, &[(&[], gauge(3.5))]);
    add(
        "qbus_host_memory_available_bytes",
        Gauge,
        &[(&[], gauge(44.6 * GIB))],
    );
    add(
        "qbus_host_memory_total_bytes",
        Gauge,
        &[(&[], gauge(62.8 * GIB))],
    );
    add(
        "qbus_host_network_receive_bytes_total",
        Counter,
        &[
            (&[("device", "eth0")], counter(1.5e6 * seconds as f64)),
            (&[("device", "lo")], counter(9e9 * seconds as f64)),
        ],
    );
    add(
        "qbus_host_pressure_cpu_waiting_seconds_total",
        Counter,
        &[(&[], counter(0.05 * seconds as f64))],
    );
    let of_gpus = |zero: f64, one: f64| [zero, one].map(gauge);
    for (name, [zero, one]) in [
        (
            "qbus_gpu_memory_total_bytes",
            of_gpus(80.0 * GIB, 80.0 * GIB),
        ),
        ("qbus_gpu_memory_used_bytes", of_gpus(38.1 * GIB, 0.4 * GIB)),
        ("qbus_gpu_power_watts", of_gpus(412.0, 61.5)),
        ("qbus_gpu_temperature_celsius", of_gpus(64.0, 31.0)),
        (
            "qbus_gpu_utilization_ratio",
            of_gpus(0.5 + wave as f64 / 40.0, 0.02),
        ),
    ] {
        add(
            name,
            Gauge,
            &[
                (&[("gpu", "0"), ("uuid", "GPU-a")], zero),
                (&[("gpu", "1"), ("uuid", "GPU-b")], one),
            ],
        );
    }
    let group: &[(&str, &str)] = &[("role", "decode"), ("command", "vllm")];
    add(
        "qbus_process_cpu_usage_ratio",
        Gauge,
        &[(group, gauge(1.96))],
    );
    add(
        "qbus_process_resident_memory_bytes",
        Gauge,
        &[(group, gauge(8.2 * GIB))],
    );
    add(
        "qbus_gpu_process_memory_bytes",
        Gauge,
        &[(&[("gpu", "0"), group[0], group[1]], gauge(36.0 * GIB))],
    );
    add(
        "qbus_bus_records_total",
        Counter,
        &[(&[], counter(600_000.0 * seconds as f64))],
    );
}

fn owner(id: &str, pid: u64, role: &str, command: &str, delivered: u64) -> Owner {
    Owner {
        id: id.to_owned(),
        pid,
        role: role.to_owned(),
        command: command.to_owned(),
        alive: true,
        joined_ns: START,
        lanes: 1,
        fill_ratio: 0.02,
        delivered,
        dropped: 0,
        torn: 0,
        revoked: 0,
        coalesced: 0,
    }
}

pub(super) fn report(seconds: u64) -> Report {
    let lost = ["full", "rejected", "torn"].map(|cause| Lost {
        cause,
        records: 0,
        remedy: "more slots (qbus create --slots)",
    });
    Report {
        bus: "default".to_owned(),
        epoch: 1 + seconds,
        age_seconds: 0.0,
        series: 24,
        series_capacity: Some(16_384),
        snapshot_bytes: 13 << 20,
        aggregator: AggregatorReport {
            pid: 4101,
            started_ns: START,
            alive: Some(true),
            restarts: 1,
            commit_seconds_total: 30e-6 * (1 + seconds) as f64,
        },
        records: Records {
            delivered: 605_000 * seconds,
            lost: lost.to_vec(),
            violations: 0,
            refused_series: 0,
        },
        owners: Some(vec![
            owner(
                "1.0",
                4101,
                "aggregator",
                "/usr/bin/qbus agg",
                1_000 * seconds,
            ),
            owner(
                "2.0",
                4190,
                "decode",
                "/opt/vllm --worker 0",
                310_000 * seconds,
            ),
            owner(
                "3.0",
                4191,
                "decode",
                "/opt/vllm --worker 1",
                294_000 * seconds,
            ),
        ]),
        lanes: Some(Lanes {
            all: 64,
            shared: 4,
            leased: 3,
            fullest_ratio: 0.02,
        }),
    }
}

pub(super) fn reading(seconds: u64) -> Reading {
    Reading {
        snapshot: snapshot(seconds),
        report: report(seconds),
        now_ns: START + seconds * SECOND,
    }
}
