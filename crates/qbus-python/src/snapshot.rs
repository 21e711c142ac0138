//! All series at one commit.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::mem;

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyList, PyString, PyTuple};
use qbus::Address;
use qbus_aggregate::export::{Format, Options, export, seconds};
use qbus_aggregate::{ReadOptions, Reader};

use crate::convert::{list, with_labels};
use crate::long::Text;
use crate::metric::{Metric, Observations, buckets, exemplars, labels, observations, value};
use crate::{calls, ending, error, long};

/// As many series are freed within microseconds.
const FEW: usize = 32;

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

impl Drop for Snapshot {
    /// Frees many series without the interpreter: that takes as long as to read them.
    fn drop(&mut self) {
        let series = mem::take(&mut self.snapshot.series);
        if series.len() > FEW {
            ending::free(series);
        }
    }
}

impl Snapshot {
    /// The series of that name: they are sorted by name.
    fn of_name(&self, name: &str) -> &[qbus_aggregate::Series] {
        let all = &self.snapshot.series;
        let start = all.partition_point(|series| *series.family.name < *name);
        let len = all[start..].partition_point(|series| *series.family.name == *name);
        &all[start..start + len]
    }

    /// A column for each label that any of the series has.
    fn label_columns(&self, columns: &Bound<'_, PyDict>) -> PyResult<()> {
        let (py, all) = (columns.py(), &self.snapshot.series);
        let names: BTreeSet<&str> = ending::detach(py, || {
            let labels = all.iter().flat_map(|one| &one.labels);
            labels.map(|(name, _)| name.as_str()).collect()
        });
        for name in names {
            let values = all.iter().map(|one| {
                let label = one.labels.iter().find(|(label, _)| label == name);
                Ok(label.map(|(_, value)| value))
            });
            columns.set_item(format!("label_{name}"), list(py, values)?)?;
        }
        Ok(())
    }

    fn export<'py>(
        &self,
        py: Python<'py>,
        format: Format,
        options: &Options,
    ) -> PyResult<Bound<'py, PyString>> {
        let made = ending::detach(py, || {
            Text::from(export_text(&self.snapshot, format, options))
        });
        made.into_python(py)
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
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let series = self.snapshot.series.iter();
        list(py, series.map(|series| Ok(Metric::from(series.clone()))))
    }

    /// The series of that name and exactly these labels, or None.
    #[pyo3(signature = (name, labels=None))]
    fn get(
        &self,
        py: Python<'_>,
        name: &str,
        labels: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Metric>> {
        with_labels(labels, |labels| {
            // An empty value is no label, as in Prometheus.
            let given = || labels.iter().filter(|(_, value)| !value.is_empty());
            let is_it = |series: &&qbus_aggregate::Series| {
                let known = || series.labels.iter().filter(|(_, value)| !value.is_empty());
                known().count() == given().count()
                    && given().all(|&(name, value)| {
                        known().any(|known| known.0 == name && known.1 == value)
                    })
            };
            ending::detach(py, || {
                let found = self.of_name(name).iter().find(is_it);
                found.map(|series| Metric::from(series.clone()))
            })
        })
    }

    /// The series as columns: a dict of lists, all of one length, as pandas, polars and Arrow take
    /// them.
    ///
    /// `timestamp` is in nanoseconds since the Unix epoch; `count`, `sum`, `min` and `max` are None
    /// for counters and gauges.
    ///
    /// With `flat` there is a column `label_NAME` for each label, in place of the dicts: a table's
    /// own, to filter by; and polars takes of dicts only the keys that it found in the first ones.
    ///
    /// >>> import qbus
    /// >>> qbus.Gauge("column_depth", labelnames=["queue"]).labels("mail").set(2)
    /// >>> columns = qbus.snapshot(match="column_*").to_columns()
    /// >>> columns["name"], columns["value"], columns["labels"]
    /// (['column_depth'], [2.0], [{'queue': 'mail'}])
    /// >>> qbus.snapshot(match="column_*").to_columns(flat=True)["label_queue"]
    /// ['mail']
    #[pyo3(signature = (*, flat=false))]
    fn to_columns<'py>(&self, py: Python<'py>, flat: bool) -> PyResult<Bound<'py, PyDict>> {
        let columns = PyDict::new(py);
        let all = &self.snapshot.series;
        let observed = |what: fn(Observations) -> f64| {
            let of = move |one| Ok(observations(one).map(what));
            list(py, all.iter().map(of))
        };
        let names = all.iter().map(|one| Ok(&one.family.name));
        columns.set_item("name", list(py, names)?)?;
        let types = all.iter().map(|one| Ok(one.family.metric_type.as_str()));
        columns.set_item("type", list(py, types)?)?;
        if flat {
            self.label_columns(&columns)?;
        } else {
            let labels = all.iter().map(|one| labels(py, one));
            columns.set_item("labels", list(py, labels)?)?;
        }
        let values = all.iter().map(|one| Ok(value(one)));
        columns.set_item("value", list(py, values)?)?;
        let times = all.iter().map(|one| Ok(one.timestamp_ns));
        columns.set_item("timestamp", list(py, times)?)?;
        let counts = all
            .iter()
            .map(|one| Ok(observations(one).map(|of| of.count)));
        columns.set_item("count", list(py, counts)?)?;
        columns.set_item("sum", observed(|of| of.sum)?)?;
        columns.set_item("min", observed(|of| of.min)?)?;
        columns.set_item("max", observed(|of| of.max)?)?;
        let units = all.iter().map(|one| Ok(&one.family.unit));
        columns.set_item("unit", list(py, units)?)?;
        Ok(columns)
    }

    /// The series as tuples of name, type, help, labels, value, time, count, sum, buckets and
    /// exemplars: what a page is made of, without an object for each.
    fn _rows<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let row = |series: &qbus_aggregate::Series| {
            let of = observations(series);
            let family = &series.family;
            let row = (
                &family.name,
                family.metric_type.as_str(),
                &family.help,
                labels(py, series)?,
                value(series),
                seconds(series.timestamp_ns),
                of.map(|of| of.count),
                of.map(|of| of.sum),
                buckets(series),
                exemplars(py, series)?,
            );
            row.into_pyobject(py)
        };
        list(py, self.snapshot.series.iter().map(row))
    }

    /// The snapshot as a JSON document.
    #[pyo3(signature = (include_history=false))]
    fn to_json<'py>(
        &self,
        py: Python<'py>,
        include_history: bool,
    ) -> PyResult<Bound<'py, PyString>> {
        let options = Options {
            history: include_history,
            ..Options::default()
        };
        self.export(py, Format::Json, &options)
    }

    /// The snapshot as a table.
    #[pyo3(signature = (include_history=false))]
    fn to_csv<'py>(
        &self,
        py: Python<'py>,
        include_history: bool,
    ) -> PyResult<Bound<'py, PyString>> {
        let options = Options {
            history: include_history,
            ..Options::default()
        };
        self.export(py, Format::Csv, &options)
    }

    /// The snapshot in the Prometheus text format.
    #[pyo3(signature = (timestamps=false))]
    fn to_prometheus<'py>(
        &self,
        py: Python<'py>,
        timestamps: bool,
    ) -> PyResult<Bound<'py, PyString>> {
        let options = Options {
            timestamps,
            ..Options::default()
        };
        self.export(py, Format::Prometheus, &options)
    }

    /// Whether there is a series of that name.
    fn __contains__(&self, name: &str) -> bool {
        !self.of_name(name).is_empty()
    }

    fn __len__(&self) -> usize {
        self.snapshot.series.len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.metrics(py)?.try_iter()
    }

    /// Another process makes the same of these. The metrics are pickled one by one: who pickles
    /// many objects at once keeps them to the end, and frees them in one go. And they are packed,
    /// since what becomes of them is copied once more, with the interpreter held.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let snapshot = &self.snapshot;
        let dumps = py.import("pickle")?.getattr("dumps")?;
        let mut pickled = Vec::with_capacity(snapshot.series.len());
        for series in &snapshot.series {
            let one = calls::call(&dumps, (Metric::from(series.clone()),))?;
            pickled.push(one.extract::<Vec<u8>>()?);
        }
        let count = pickled.len();
        let packed = ending::detach(py, move || {
            let mut packer = ZlibEncoder::new(Vec::new(), Compression::fast());
            pickled.iter().try_for_each(|one| packer.write_all(one))?;
            packer.finish()
        })?;
        let rebuild = py.import("qbus._qbus")?.getattr("rebuild_snapshot")?;
        let of = (snapshot.epoch, snapshot.unix_ns, snapshot.consistent);
        (rebuild, (of, count, long::bytes(py, vec![packed])?)).into_pyobject(py)
    }

    fn __repr__(&self) -> String {
        format!(
            "Snapshot(epoch={}, {} metrics)",
            self.snapshot.epoch,
            self.snapshot.series.len()
        )
    }
}

/// What a pickled snapshot becomes: of its epoch, its time, whether it is consistent, and so many
/// pickled metrics.
#[pyfunction]
pub(crate) fn rebuild_snapshot(
    py: Python<'_>,
    of: (u64, u64, bool),
    count: usize,
    packed: &[u8],
) -> PyResult<Snapshot> {
    let (epoch, unix_ns, consistent) = of;
    let pickled = ending::detach(py, || {
        let mut pickled = Vec::new();
        ZlibDecoder::new(packed)
            .read_to_end(&mut pickled)
            .map(|_| pickled)
    })?;
    let load = py.import("pickle")?.getattr("load")?;
    let pickled = long::bytes(py, vec![pickled])?;
    let stream = py.import("io")?.getattr("BytesIO")?.call1((pickled,))?;
    let mut series = Vec::new();
    for _ in 0..count {
        let metric = calls::call(&load, (&stream,))?;
        series.push(metric.cast::<Metric>()?.get().series.clone());
    }
    let snapshot = qbus_aggregate::Snapshot {
        epoch,
        unix_ns,
        consistent,
        series,
    };
    Ok(snapshot.into())
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
