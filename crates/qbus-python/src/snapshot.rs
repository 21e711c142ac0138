//! All series at one commit.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyList, PyTuple};
use qbus::Address;
use qbus_aggregate::export::{Format, Options, export, seconds};
use qbus_aggregate::{ReadOptions, Reader};

use crate::metric::Metric;
use crate::{ending, error};

/// All series at one commit of the aggregator.
///
/// >>> import qbus
/// >>> qbus.Counter("pages_read", "Pages that were read.").inc(3)
/// >>> snapshot = qbus.snapshot(match="pages_*")
/// >>> snapshot.get("pages_read_total").value
/// 3.0
/// >>> [metric.name for metric in snapshot]
/// ['pages_read_total']
#[pyclass(frozen, module = "qbus")]
pub(crate) struct Snapshot {
    snapshot: qbus_aggregate::Snapshot,
}

impl From<qbus_aggregate::Snapshot> for Snapshot {
    fn from(snapshot: qbus_aggregate::Snapshot) -> Snapshot {
        Snapshot { snapshot }
    }
}

impl Snapshot {
    fn export(&self, py: Python<'_>, format: Format, options: &Options) -> String {
        ending::detach(py, || export_text(&self.snapshot, format, options))
    }
}

/// A snapshot in one of the formats.
pub(crate) fn export_text(
    snapshot: &qbus_aggregate::Snapshot,
    format: Format,
    options: &Options,
) -> String {
    let mut page = Vec::new();
    export(snapshot, format, options, &mut page).expect("a vector takes all");
    String::from_utf8(page).expect("exports are text")
}

/// Leaves in a snapshot what matches.
pub(crate) fn keep(snapshot: &mut qbus_aggregate::Snapshot, pattern: Option<&glob::Pattern>) {
    if let Some(pattern) = pattern {
        let series = &mut snapshot.series;
        series.retain(|series| pattern.matches(&series.family.name));
    }
}

#[pymethods]
impl Snapshot {
    /// Counts the commits of the aggregator, over its restarts.
    #[getter]
    fn epoch(&self) -> u64 {
        self.snapshot.epoch
    }

    /// When the commit was made, in seconds since the Unix epoch.
    #[getter]
    fn timestamp(&self) -> f64 {
        seconds(self.snapshot.unix_ns)
    }

    /// Whether all series show exactly this commit.
    #[getter]
    fn consistent(&self) -> bool {
        self.snapshot.consistent
    }

    /// The series, sorted by name and labels.
    #[getter]
    fn metrics(&self) -> Vec<Metric> {
        let series = self.snapshot.series.iter();
        series.map(|series| Metric::from(series.clone())).collect()
    }

    /// The series of that name and exactly these labels, or None.
    #[pyo3(signature = (name, labels=None))]
    fn get(&self, name: &str, labels: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Metric>> {
        crate::convert::with_labels(labels, |labels| {
            // An empty value is no label, as in Prometheus.
            let given = || labels.iter().filter(|(_, value)| !value.is_empty());
            let is_it = |series: &&qbus_aggregate::Series| {
                let known = || series.labels.iter().filter(|(_, value)| !value.is_empty());
                series.family.name == name
                    && known().count() == given().count()
                    && given().all(|&(name, value)| {
                        known().any(|known| known.0 == name && known.1 == value)
                    })
            };
            let found = self.snapshot.series.iter().find(is_it);
            found.map(|series| Metric::from(series.clone()))
        })
    }

    /// The series as columns: a dict of lists, all of one length, as pandas, polars and Arrow take them.
    ///
    /// `timestamp` is in nanoseconds since the Unix epoch; `count`, `sum`, `min` and `max` are None for
    /// counters and gauges.
    ///
    /// >>> import qbus
    /// >>> qbus.Gauge("column_depth").set(2)
    /// >>> columns = qbus.snapshot(match="column_*").to_columns()
    /// >>> columns["name"], columns["value"], columns["labels"]
    /// (['column_depth'], [2.0], [{}])
    fn to_columns<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let metrics = self.metrics();
        let columns = PyDict::new(py);
        let each = || metrics.iter();
        columns.set_item("name", each().map(Metric::name).collect::<Vec<_>>())?;
        let types = each().map(|metric| metric.series.family.metric_type.as_str());
        columns.set_item("type", types.collect::<Vec<_>>())?;
        let labels = each().map(|metric| metric.labels(py));
        columns.set_item("labels", labels.collect::<PyResult<Vec<_>>>()?)?;
        columns.set_item("value", each().map(Metric::value).collect::<Vec<_>>())?;
        let times = each().map(|metric| metric.series.timestamp_ns);
        columns.set_item("timestamp", times.collect::<Vec<_>>())?;
        columns.set_item("count", each().map(Metric::count).collect::<Vec<_>>())?;
        columns.set_item("sum", each().map(Metric::sum).collect::<Vec<_>>())?;
        columns.set_item("min", each().map(Metric::min).collect::<Vec<_>>())?;
        columns.set_item("max", each().map(Metric::max).collect::<Vec<_>>())?;
        let units = each().map(|metric| metric.series.family.unit.as_str());
        columns.set_item("unit", units.collect::<Vec<_>>())?;
        Ok(columns)
    }

    /// The series as tuples of name, type, help, labels, value, time, count, sum and buckets: what a page
    /// is made of, without an object for each.
    fn _rows<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let row = |series: &qbus_aggregate::Series| {
            let metric = Metric::from(series.clone());
            let family = &series.family;
            let (count, sum) = (metric.count(), metric.sum());
            (
                family.name.as_str(),
                family.metric_type.as_str(),
                family.help.as_str(),
                metric.labels(py)?,
                metric.value(),
                metric.timestamp(),
                count,
                sum,
                metric.buckets(),
            )
                .into_pyobject(py)
        };
        self.snapshot.series.iter().map(row).collect()
    }

    /// The snapshot as a JSON document.
    #[pyo3(signature = (include_history=false))]
    fn to_json(&self, py: Python<'_>, include_history: bool) -> String {
        let options = Options {
            history: include_history,
            timestamps: false,
        };
        self.export(py, Format::Json, &options)
    }

    /// The snapshot as a table.
    #[pyo3(signature = (include_history=false))]
    fn to_csv(&self, py: Python<'_>, include_history: bool) -> String {
        let options = Options {
            history: include_history,
            timestamps: false,
        };
        self.export(py, Format::Csv, &options)
    }

    /// The snapshot in the Prometheus text format.
    #[pyo3(signature = (timestamps=false))]
    fn to_prometheus(&self, py: Python<'_>, timestamps: bool) -> String {
        let options = Options {
            history: false,
            timestamps,
        };
        self.export(py, Format::Prometheus, &options)
    }

    /// Whether there is a series of that name.
    fn __contains__(&self, name: &str) -> bool {
        let mut series = self.snapshot.series.iter();
        series.any(|series| series.family.name == name)
    }

    fn __len__(&self) -> usize {
        self.snapshot.series.len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.metrics().into_pyobject(py)?.try_iter()
    }

    /// Another process makes the same of these.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let snapshot = &self.snapshot;
        let rebuild = py.import("qbus._qbus")?.getattr("rebuild_snapshot")?;
        let (epoch, unix_ns, consistent) = (snapshot.epoch, snapshot.unix_ns, snapshot.consistent);
        let metrics = PyList::new(py, self.metrics())?;
        (rebuild, (epoch, unix_ns, consistent, metrics)).into_pyobject(py)
    }

    fn __repr__(&self) -> String {
        format!(
            "Snapshot(epoch={}, {} metrics)",
            self.snapshot.epoch,
            self.snapshot.series.len()
        )
    }
}

/// What a pickled snapshot becomes.
#[pyfunction]
pub(crate) fn rebuild_snapshot(
    epoch: u64,
    unix_ns: u64,
    consistent: bool,
    metrics: Vec<PyRef<'_, Metric>>,
) -> Snapshot {
    let series = metrics.iter().map(|metric| metric.series.clone());
    Snapshot {
        snapshot: qbus_aggregate::Snapshot {
            epoch,
            unix_ns,
            consistent,
            series: series.collect(),
        },
    }
}

/// A pattern of names.
pub(crate) fn pattern(py: Python<'_>, text: Option<&str>) -> PyResult<Option<glob::Pattern>> {
    let parsed = text.map(glob::Pattern::new).transpose();
    parsed.map_err(|error| {
        error::metric(
            py,
            format_args!("argument \"match\" is {text:?}, which is no pattern: {error}"),
        )
    })
}

/// Reads the snapshot of a bus; joins nothing, and waits for nobody.
#[pyfunction]
#[pyo3(signature = (bus, r#match=None, history=false))]
pub(crate) fn read_snapshot(
    py: Python<'_>,
    bus: &str,
    r#match: Option<&str>,
    history: bool,
) -> PyResult<Snapshot> {
    let address: Address = bus.parse().map_err(|error| error::metric(py, error))?;
    let pattern = pattern(py, r#match)?;
    let read = ending::detach(py, || {
        let matches = |name: &str| {
            let matches = pattern.as_ref().map(|pattern| pattern.matches(name));
            matches.unwrap_or(true)
        };
        Reader::open(&address.snapshot())?.read(&ReadOptions {
            history,
            matches: Some(&matches),
        })
    });
    let snapshot = read.map_err(|error| error::read(py, &error))?;
    Ok(snapshot.into())
}
