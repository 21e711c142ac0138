//! From a snapshot to text: whole `qbus dump` processes beside encoders of as many series.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;
use qbus::{Kind, Record, SeriesId};
use qbus_aggregate::export::{Format, Options, export};
use qbus_aggregate::{Aggregator, ReadOptions, Reader};

use crate::programs::Programs;
use crate::report::Section;
use crate::rounds::spread;
use crate::series::{COUNTS, ManySeries};

pub const DUMP: &str = "qbus dump (Prometheus), whole process";
pub const EXPORT: &str = "qbus export, Prometheus text";
pub const PROMETHEUS_CLIENT: &str = "prometheus-client encode";

pub fn section(quick: bool, programs: &Programs) -> Section {
    let columns = &["1k", "10k", "100k", "spread %"];
    let mut section = Section::new("dump", "series to text, ms", columns);
    let mut names = Vec::new();
    let mut table: Vec<Vec<f64>> = Vec::new();
    for (at, count) in COUNTS.into_iter().enumerate() {
        let many = ManySeries::create("dump", count);
        aggregate(&many);
        let mut cases = cases(&many, programs);
        let rounds = if quick { 2 } else { 15 };
        for _ in 0..rounds {
            for (_, run, measured) in &mut cases {
                measured.push(run());
            }
        }
        if at == 0 {
            names = cases.iter().map(|(name, ..)| *name).collect();
            table.resize(names.len(), Vec::new());
        }
        for ((.., measured), figures) in cases.iter_mut().zip(&mut table) {
            let [median, q1, q3] = spread(measured);
            figures.push(median);
            if count == COUNTS[2] {
                figures.push((q3 - q1) / median * 100.0);
            }
        }
    }
    for (name, figures) in names.into_iter().zip(table) {
        section.row(name, figures);
    }
    section.notes.push(
        "half counters, half gauges, two labels each; spread: q1 to q3 of the 100k, of the median"
            .to_owned(),
    );
    match &programs.python {
        Some(python) => {
            let collect = |count| python_collector(python, count, quick);
            section.row("Python multiprocess collector", COUNTS.map(collect));
        }
        None => section
            .notes
            .push("skipped: no Python with prometheus_client; give one with --python".to_owned()),
    }
    if programs.qbus.is_none() {
        section
            .notes
            .push("skipped: no qbus program; give one with --qbus".to_owned());
    }
    section
}

/// Gives each series a value, and commits them.
fn aggregate(many: &ManySeries) {
    let config = qbus_aggregate::AggregatorOptions {
        history: 1,
        ..qbus_aggregate::AggregatorOptions::default()
    };
    let mut aggregator = Aggregator::open(&many.bus, &config).expect("the only aggregator");
    let producer = many.bus.producer().expect("a lane");
    for (at, &(series, is_counter)) in many.series.iter().enumerate() {
        let kind = if is_counter {
            Kind::Increment
        } else {
            Kind::Set
        };
        let value = value(at);
        while producer.emit(Record::new(1, series, kind, value)).is_err() {
            aggregator.round();
        }
    }
    aggregator.finish();
    assert_eq!(aggregator.series_count(), many.series.len());
}

fn value(at: usize) -> f64 {
    at as f64 * 1.25
}

type Run<'a> = (&'static str, Box<dyn FnMut() -> f64 + 'a>, Vec<f64>);

fn cases<'a>(many: &'a ManySeries, programs: &'a Programs) -> Vec<Run<'a>> {
    let path = many.bus.address().snapshot();
    let mut reader = Reader::open(&path).expect("a snapshot");
    let mut read = move || reader.read(&ReadOptions::default()).expect("a snapshot");
    let snapshot = read();
    let mut page = Vec::new();
    let registry = registry(&many.series);
    let mut text = String::new();
    let mut runs: Vec<Run<'a>> = vec![
        (
            "qbus snapshot read alone",
            Box::new(move || milliseconds(|| drop(read()))),
            Vec::new(),
        ),
        (
            EXPORT,
            Box::new(move || {
                page.clear();
                milliseconds(|| {
                    let options = Options::default();
                    let exported = export(&snapshot, Format::Prometheus, &options, &mut page);
                    exported.expect("memory takes it");
                })
            }),
            Vec::new(),
        ),
        (
            PROMETHEUS_CLIENT,
            Box::new(move || {
                text.clear();
                milliseconds(|| encode(&mut text, &registry).expect("memory takes it"))
            }),
            Vec::new(),
        ),
    ];
    if let Some(qbus) = &programs.qbus {
        let formats = [
            (DUMP, "prometheus"),
            ("qbus dump (JSON), whole process", "json"),
            ("qbus dump (CSV), whole process", "csv"),
        ];
        for (name, format) in formats {
            let path = path.clone();
            let dump = move || milliseconds(|| dump(qbus, &path, format));
            runs.push((name, Box::new(dump), Vec::new()));
        }
    }
    runs
}

fn milliseconds(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64() * 1e3
}

fn dump(qbus: &Path, snapshot: &Path, format: &str) {
    let status = Command::new(qbus)
        .args(["dump", "--format", format, "--snapshot"])
        .arg(snapshot)
        .stdout(Stdio::null())
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "qbus dump failed"
    );
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    service: String,
    instance: String,
}

/// The same series.
fn registry(series: &[(SeriesId, bool)]) -> Registry {
    let mut registry = Registry::default();
    let counters = Family::<Labels, Counter<f64, std::sync::atomic::AtomicU64>>::default();
    let gauges = Family::<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
    registry.register("bench_requests", "Requests.", counters.clone());
    registry.register("bench_level", "A level.", gauges.clone());
    for (at, &(_, is_counter)) in series.iter().enumerate() {
        let [service, instance] = ManySeries::labels(at).map(|(_, value)| value);
        let labels = Labels { service, instance };
        if is_counter {
            counters.get_or_create(&labels).inc_by(value(at));
        } else {
            gauges.get_or_create(&labels).set(value(at));
        }
    }
    registry
}

fn python_collector(python: &Path, count: usize, quick: bool) -> f64 {
    let script: PathBuf = [env!("CARGO_MANIFEST_DIR"), "multiprocess_collector.py"]
        .iter()
        .collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rounds = if quick || count > 10_000 { 1 } else { 5 };
    let output = Command::new(python)
        .arg(script)
        .args([count, rounds].map(|number| number.to_string()))
        .env("PROMETHEUS_MULTIPROC_DIR", folder.path())
        .output()
        .expect("Python starts");
    let line = String::from_utf8_lossy(&output.stdout);
    line.trim().parse().unwrap_or(f64::NAN)
}
