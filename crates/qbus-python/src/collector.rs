//! The collector, with the API of the module centralized_metrics_collector.

mod adding;
mod exporting;
mod options;
mod statistics;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use qbus::{Address, Bus};
use qbus_aggregate::export::Options;
use qbus_collector::{Collector, CollectorOptions, Format, Reading};

use self::adding::Arguments;
use self::exporting::nothing;
use self::options::{size, size_or};
use crate::convert::{FilePath, list, number, text, with_labels};
use crate::known::Known;
use crate::metric::{Metric, series_name};
use crate::snapshot::{Snapshot, keep, pattern};
use crate::{calls, ending, error, waiting};

/// Collects the metrics of this process, of its forks and workers, and of all who name the same
/// bus.
///
/// Without a bus (here, or in the environment's QBUS) it embeds everything: a private bus and an
/// aggregator thread. With one it emits to that bus, and reads what `qbus agg` makes of it.
///
/// collection_interval: seconds between samples of the machine, from start_collection() on.
/// max_metrics_buffer: how many of the last records get_all_metrics_buffer() gives.
/// enable_prometheus_export: whether export_to_prometheus() works.
/// max_history_per_metric: how many values of each series are kept.
/// validation_enabled: whether registered rules are asked.
/// bus: the name, or the path with a slash, of a bus that is shared.
/// sampler: where and what start_collection() samples, by the names of node_exporter's arguments:
///     {"path.procfs": "/host/proc", "collector.netdev.device-exclude": "^veth",
///     "no-collector.hwmon": True}.
///
/// Raises BusError (an OSError) if the bus cannot be used.
///
/// >>> import qbus
/// >>> collector = qbus.MetricsCollector(max_history_per_metric=100)
/// >>> collector.add_metric("queue_length", 3, qbus.MetricType.GAUGE)
/// True
/// >>> collector.get_metric("queue_length").value
/// 3.0
/// >>> collector.close()
#[pyclass(frozen, module = "qbus", weakref)]
pub(crate) struct MetricsCollector {
    /// `None` when the bus could not be had: nothing is added then, and all of it is counted.
    collector: Option<Collector>,
    /// Why there is none.
    why: String,
    config: Configuration,
    /// Series that were added to by name.
    known: Known,
    /// What was emitted to handles that have no series.
    lost: AtomicU64,
    /// Performance trackers that run without a bus.
    started: Mutex<Vec<(String, Instant)>>,
    made: Instant,
}

/// What a collector was made with, and what it is made with in another process.
#[derive(Clone, Copy)]
struct Configuration {
    collection_interval: Duration,
    max_metrics_buffer: usize,
    enable_prometheus_export: bool,
    max_history_per_metric: usize,
    validation_enabled: bool,
}

/// A collector without a bus, since it could not be had: the program goes on, and all that it adds
/// is counted as refused.
#[pyfunction]
pub(crate) fn without_bus(why: String) -> MetricsCollector {
    let nothing = Configuration {
        collection_interval: Duration::from_secs(1),
        max_metrics_buffer: 0,
        enable_prometheus_export: true,
        max_history_per_metric: 0,
        validation_enabled: true,
    };
    MetricsCollector::made(None, why, nothing)
}

/// Whether a bus of that name can be opened; makes none.
#[pyfunction]
pub(crate) fn bus_exists(py: Python<'_>, bus: &str) -> bool {
    let address: Result<Address, _> = bus.parse();
    ending::detach(py, || {
        address.is_ok_and(|address| Bus::open(&address).is_ok_and(|bus| !bus.is_removed()))
    })
}

/// Readings as a list of Metric.
fn metrics(py: Python<'_>, readings: Vec<Reading>) -> PyResult<Py<PyList>> {
    let mut readings = readings.into_iter();
    let made = list(
        py,
        readings.by_ref().map(|reading| Ok(Metric::from(reading))),
    );
    // What held ten thousand of them takes long to free.
    ending::detach(py, || drop(readings));
    Ok(made?.unbind())
}

impl MetricsCollector {
    fn made(collector: Option<Collector>, why: String, config: Configuration) -> Self {
        MetricsCollector {
            collector,
            why,
            config,
            known: Known::default(),
            lost: AtomicU64::new(0),
            started: Mutex::new(Vec::new()),
            made: Instant::now(),
        }
    }

    /// The bus, if there is one.
    pub(crate) fn bus(&self) -> Option<Bus> {
        self.collector
            .as_ref()
            .map(|collector| collector.bus().clone())
    }

    /// The collector of a bus that could be had.
    pub(crate) fn opened(&self, py: Python<'_>) -> PyResult<&Collector> {
        let collector = self.collector.as_ref();
        collector.ok_or_else(|| error::bus(py, &self.why))
    }

    /// The trackers that run without a bus.
    fn started<R>(&self, with: impl FnOnce(&mut Vec<(String, Instant)>) -> R) -> R {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        with(&mut started)
    }

    /// Ends a tracker that runs without a bus.
    fn end(&self, py: Python<'_>, name: &str) -> PyResult<Duration> {
        let ended = self.started(|started| {
            let at = started.iter().rposition(|(known, _)| known == name);
            at.map(|at| started.remove(at).1)
        });
        let unknown = || {
            error::tracker(
                py,
                format_args!(
                    "no performance tracker {name:?} is running: it was not started, or ended \
                     already"
                ),
            )
        };
        Ok(ended.ok_or_else(unknown)?.elapsed())
    }

    /// Asks the collector, without the interpreter; without a collector there is nothing.
    fn ask<R: Send + Default>(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&Collector) -> R + Send,
    ) -> R {
        match &self.collector {
            Some(collector) => ending::detach(py, || ask(collector)),
            None => R::default(),
        }
    }
}

impl Drop for MetricsCollector {
    /// Waits for its threads without the interpreter.
    fn drop(&mut self) {
        if let Some(collector) = self.collector.take() {
            ending::free(collector);
        }
    }
}

#[pymethods]
impl MetricsCollector {
    #[new]
    #[allow(
        clippy::too_many_arguments,
        reason = "those of the module that it stands in for"
    )]
    #[pyo3(text_signature = "(collection_interval=1.0, max_metrics_buffer=10000, \
        enable_prometheus_export=True, max_history_per_metric=1000, validation_enabled=True, *, \
        bus=None, sampler=None)", signature = (
        collection_interval=1.0,
        max_metrics_buffer=None,
        enable_prometheus_export=true,
        max_history_per_metric=None,
        validation_enabled=true,
        *,
        bus=None,
        sampler=None,
    ))]
    fn new(
        py: Python<'_>,
        collection_interval: f64,
        max_metrics_buffer: Option<&Bound<'_, PyAny>>,
        enable_prometheus_export: bool,
        max_history_per_metric: Option<&Bound<'_, PyAny>>,
        validation_enabled: bool,
        bus: Option<&str>,
        sampler: Option<BTreeMap<String, Bound<'_, PyAny>>>,
    ) -> PyResult<MetricsCollector> {
        let given = ending::detach(py, CollectorOptions::default);
        let buffer = ("max_metrics_buffer", given.max_metrics_buffer);
        let history = ("max_history_per_metric", given.max_history_per_metric);
        let config = Configuration {
            collection_interval: options::interval(py, collection_interval)?,
            max_metrics_buffer: size_or(buffer, max_metrics_buffer)?,
            enable_prometheus_export,
            max_history_per_metric: size_or(history, max_history_per_metric)?,
            validation_enabled,
        };
        let bus = options::address(py, bus)?;
        let sampler = options::sampling(py, given.sampler, sampler.unwrap_or_default())?;
        let made = ending::detach(py, move || {
            Collector::new(&CollectorOptions {
                bus,
                sampler,
                collection_interval: config.collection_interval,
                max_metrics_buffer: config.max_metrics_buffer,
                enable_prometheus_export: config.enable_prometheus_export,
                max_history_per_metric: config.max_history_per_metric,
                validation_enabled: config.validation_enabled,
            })
        });
        let collector = made.map_err(|error| error::start(py, &error))?;
        Ok(MetricsCollector::made(
            Some(collector),
            String::new(),
            config,
        ))
    }

    /// Adds a metric: get_metric() and the exports show it from now on. A counter's value is an
    /// increment.
    ///
    /// Returns True; False when there is no room for it, which a warning says once. Raises
    /// MetricError (a ValueError) for a name, label, type or value that cannot be, and
    /// ArgumentError (a TypeError) for an argument of the wrong type.
    #[pyo3(signature = (name, value, metric_type, labels=None, description=None, timestamp=None))]
    fn add_metric(
        &self,
        name: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        metric_type: &Bound<'_, PyAny>,
        labels: Option<&Bound<'_, PyAny>>,
        description: Option<&Bound<'_, PyAny>>,
        timestamp: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let arguments = Arguments {
            name,
            value,
            metric_type,
            labels,
            description,
            timestamp,
        };
        if let Some(collector) = &self.collector
            && !collector.bus().has_room()
        {
            waiting::for_room(name.py(), collector.bus())?;
        }
        self.add(arguments)
    }

    /// Queues a metric for the aggregator: takes no lock and never waits. A counter's value is an
    /// increment.
    ///
    /// Returns True if it was queued; False when the queue is full, which a warning says once.
    /// Raises as add_metric().
    #[pyo3(signature = (name, value, metric_type, labels=None, description=None, timestamp=None))]
    fn queue_metric(
        &self,
        name: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        metric_type: &Bound<'_, PyAny>,
        labels: Option<&Bound<'_, PyAny>>,
        description: Option<&Bound<'_, PyAny>>,
        timestamp: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let arguments = Arguments {
            name,
            value,
            metric_type,
            labels,
            description,
            timestamp,
        };
        self.add(arguments)
    }

    /// The metric of that name and labels as it is now, or None. Without labels, if there is no
    /// such series: the one of that name that was emitted last.
    #[pyo3(signature = (name, labels=None))]
    fn get_metric(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        labels: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Metric>> {
        let name = text("name", name)?;
        let found = with_labels(labels, |labels| {
            self.ask(py, |collector| collector.get_metric(name, labels))
        })?;
        Ok(found.map(Metric::from))
    }

    /// The last values of all series of a name as a list of Metric, oldest first.
    ///
    /// What is added by name has a point each. What handles of counters and histograms add between
    /// two rounds of the aggregator (1.2 ms, as a rule) is one point.
    #[pyo3(signature = (name, limit=None))]
    fn get_metrics_history(
        &self,
        py: Python<'_>,
        name: &Bound<'_, PyAny>,
        limit: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyList>> {
        let name = text("name", name)?;
        let limit = limit.filter(|limit| !limit.is_none());
        let limit = limit.map(|limit| size("limit", limit)).transpose()?;
        let readings = self.ask(py, |collector| collector.get_metrics_history(name, limit));
        metrics(py, readings)
    }

    /// All metrics as they are now: a dict from the series, as Prometheus writes it, to its Metric.
    fn get_all_current_metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let current = PyDict::new(py);
        let mut all = self.ask(py, Collector::get_all_current_metrics).into_iter();
        for (at, series) in all.by_ref().enumerate() {
            current.set_item(series_name(&series), Metric::from(series))?;
            ending::share(py, at)?;
        }
        ending::detach(py, || drop(all));
        Ok(current)
    }

    /// The last values that were added, of all series, as a list of Metric, oldest first. What
    /// handles of counters and histograms add between two rounds of the aggregator is one of them.
    /// Values of a series that was removed are left out from when its place was given to another
    /// one, a minute later: nobody knows any more what they were of.
    fn get_all_metrics_buffer(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        metrics(py, self.ask(py, Collector::get_all_metrics_buffer))
    }

    /// All metrics as a JSON document; written to a file as well if there is a path.
    #[pyo3(signature = (output_path=None, include_history=true))]
    fn export_to_json<'py>(
        &self,
        py: Python<'py>,
        output_path: Option<FilePath>,
        include_history: bool,
    ) -> PyResult<Bound<'py, PyString>> {
        let options = Options {
            history: include_history,
            ..Options::default()
        };
        self.to_file_or_text(py, Format::Json, &options, output_path)
    }

    /// All metrics as a table; written to a file as well if there is a path.
    #[pyo3(signature = (output_path=None, include_history=false))]
    fn export_to_csv<'py>(
        &self,
        py: Python<'py>,
        output_path: Option<FilePath>,
        include_history: bool,
    ) -> PyResult<Bound<'py, PyString>> {
        let options = Options {
            history: include_history,
            ..Options::default()
        };
        self.to_file_or_text(py, Format::Csv, &options, output_path)
    }

    /// All metrics in the Prometheus text format; written to a file as well if there is a path.
    /// With timestamps each line ends with its time in milliseconds: for reading, not for scraping.
    #[pyo3(signature = (output_path=None, timestamps=false))]
    fn export_to_prometheus<'py>(
        &self,
        py: Python<'py>,
        output_path: Option<FilePath>,
        timestamps: bool,
    ) -> PyResult<Bound<'py, PyString>> {
        let options = Options {
            timestamps,
            ..Options::default()
        };
        self.to_file_or_text(py, Format::Prometheus, &options, output_path)
    }

    /// All metrics as a page of OpenMetrics 1.0; as `export_to_prometheus` otherwise.
    #[pyo3(signature = (output_path=None, timestamps=false))]
    fn export_to_openmetrics<'py>(
        &self,
        py: Python<'py>,
        output_path: Option<FilePath>,
        timestamps: bool,
    ) -> PyResult<Bound<'py, PyString>> {
        let options = Options {
            timestamps,
            ..Options::default()
        };
        self.to_file_or_text(py, Format::OpenMetrics, &options, output_path)
    }

    /// The page of `generate_latest()`.
    fn _page<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.page(py)
    }

    /// All metrics in the format "json", "csv", "prometheus" or "openmetrics", with the options of
    /// its own method. ("protobuf" is no text: `qbus dump` writes it, and an endpoint serves it.)
    ///
    /// >>> import qbus
    /// >>> qbus.get_metrics_collector().export("xml")  # doctest: +ELLIPSIS
    /// Traceback (most recent call last):
    ///     ...
    /// qbus.MetricError: format is "xml", expected one of json, csv, prometheus, openmetrics, ...
    #[pyo3(signature = (format_type, output_path=None, **kwargs))]
    fn export<'py>(
        slf: &Bound<'py, Self>,
        format_type: &Bound<'py, PyAny>,
        output_path: Option<Bound<'py, PyAny>>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let format = text("format_type", format_type)?.to_ascii_lowercase();
        let format: Format = format.parse().map_err(|error| error::metric(py, error))?;
        if format == Format::Protobuf {
            let error = qbus_collector::ExportError::NotText { format };
            return Err(error::export(py, &error));
        }
        let method = format!("export_to_{format}");
        let arguments = PyTuple::new(py, [output_path])?;
        slf.call_method(method.as_str(), arguments, kwargs)
    }

    /// Samples the machine and this process from now on, in the background: CPU, memory, disks,
    /// network, GPUs. A named bus is sampled by its aggregator instead.
    fn start_collection(&self, py: Python<'_>) {
        self.ask(py, Collector::start_collection);
    }

    /// Samples no more. What was added stays, and adding goes on.
    fn stop_collection(&self, py: Python<'_>) {
        self.ask(py, Collector::stop_collection);
    }

    /// Starts to track an operation; from a time (seconds since the Unix epoch) and memory (bytes),
    /// if given. Threads can track the same name at once.
    #[pyo3(signature = (name, start_time=None, start_memory=None))]
    fn add_performance_tracker(
        &self,
        name: &Bound<'_, PyAny>,
        start_time: Option<f64>,
        start_memory: Option<u64>,
    ) -> PyResult<()> {
        let (py, name) = (name.py(), text("name", name)?);
        let from_epoch = |seconds| Duration::try_from_secs_f64(seconds).ok();
        let start_time = start_time
            .and_then(from_epoch)
            .map(|since| SystemTime::UNIX_EPOCH + since);
        match &self.collector {
            // It reads from /proc how much memory there is.
            Some(collector) => ending::detach(py, || {
                collector.add_performance_tracker(name, start_time, start_memory);
            }),
            None => self.started(|started| started.push((name.to_owned(), Instant::now()))),
        }
        Ok(())
    }

    /// Ends the tracking of an operation: a dict with `duration` in seconds and `memory_delta`, the
    /// change of the process's resident memory in bytes.
    ///
    /// Raises TrackerError (a ValueError and a KeyError) if it was not started.
    fn end_performance_tracker<'py>(
        &self,
        name: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (py, found) = (name.py(), text("name", name)?);
        let (duration, memory_delta) = match &self.collector {
            Some(collector) => {
                let ended = ending::detach(py, || collector.end_performance_tracker(found));
                let performance = ended.map_err(|error| error::tracker(py, error))?;
                (performance.duration, performance.memory_delta)
            }
            None => (self.end(py, found)?, 0),
        };
        let result = PyDict::new(py);
        result.set_item("name", name)?;
        result.set_item("duration", duration.as_secs_f64())?;
        result.set_item("memory_delta", memory_delta)?;
        Ok(result)
    }

    /// Forgets all values, history and buffer.
    ///
    /// Raises BusError on a named bus, whose totals are others' too.
    fn reset(&self, py: Python<'_>) -> PyResult<()> {
        let reset = ending::detach(py, || self.collector.as_ref().map(Collector::reset));
        let reset = reset.unwrap_or(Ok(()));
        reset.map_err(|error| error::reset(py, &error))
    }

    /// The state of the collector and its bus, as a dict.
    fn get_statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.statistics(py)
    }

    /// Has every value of a name pass a rule, a function of the value, from now on in this process.
    fn register_validation_rule(
        &self,
        name: &Bound<'_, PyAny>,
        rule: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let found = text("name", name)?;
        if !rule.is_callable() {
            let py = rule.py();
            return Err(error::argument(
                py,
                "argument \"rule\" cannot be called, expected a function of the value",
            ));
        }
        let Some(collector) = &self.collector else {
            return Ok(());
        };
        let rule = rule.unbind();
        collector.register_validation_rule(found, move |value| {
            let accepted = ending::attach(|py| {
                let accepted = calls::call(rule.bind(py), (value,));
                let accepted = accepted.and_then(|accepted| calls::is_true(&accepted));
                // A rule that fails takes nothing, and says why.
                accepted.unwrap_or_else(|error| {
                    error.write_unraisable(py, Some(rule.bind(py)));
                    false
                })
            });
            // When the interpreter ends there is nobody left to ask.
            accepted.unwrap_or(true)
        });
        // The values of what is known would not be asked for it.
        self.known.forget();
        Ok(())
    }

    /// Whether a metric could have that name and value, by its rule if it has one.
    fn validate_metric(&self, name: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> bool {
        match (text("name", name), number("value", value)) {
            (Ok(name), Ok(value)) => match &self.collector {
                Some(collector) => collector.validate_metric(name, value),
                None => qbus::is_metric_name(name) && !value.is_nan(),
            },
            _ => false,
        }
    }

    /// All series at one commit: those whose name matches a pattern with * and ?, if there is one.
    #[pyo3(signature = (r#match=None, history=false))]
    fn snapshot(&self, py: Python<'_>, r#match: Option<&str>, history: bool) -> PyResult<Snapshot> {
        let pattern = pattern(py, r#match)?;
        let read = ending::detach(py, || {
            let Some(collector) = &self.collector else {
                return Ok(nothing());
            };
            let mut snapshot = collector.snapshot(history)?;
            keep(&mut snapshot, pattern.as_ref());
            Ok(snapshot)
        });
        let snapshot = read.map_err(|error| error::read(py, &error))?;
        Ok(snapshot.into())
    }

    /// Stops what runs in the background, and forgets the rules; a private bus is removed, and what
    /// is added to it afterwards is refused.
    fn close(&self, py: Python<'_>) {
        self.ask(py, Collector::close);
    }

    /// The same when the process ends: a private bus is removed by the last process that has it.
    fn _end(&self, py: Python<'_>) {
        self.ask(py, Collector::end);
    }

    /// The name of the bus; empty when it could not be had.
    #[getter(bus)]
    fn bus_name(&self) -> String {
        let bus = self.bus();
        bus.map_or_else(String::new, |bus| bus.address().to_string())
    }

    /// Whether the bus is private to this collector, its forks and workers.
    #[getter]
    fn is_embedded(&self) -> bool {
        self.collector.as_ref().is_some_and(Collector::is_embedded)
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _class: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) {
        self.close(py);
    }

    /// Another process gets a collector of the same bus.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let py = slf.py();
        let attach = py.import("qbus._collector")?.getattr("attach")?;
        let Configuration {
            collection_interval,
            max_metrics_buffer,
            enable_prometheus_export,
            max_history_per_metric,
            validation_enabled,
        } = slf.get().config;
        let configuration = (
            collection_interval.as_secs_f64(),
            max_metrics_buffer,
            enable_prometheus_export,
            max_history_per_metric,
            validation_enabled,
        );
        let arguments = (slf.get().bus_name(), configuration);
        (attach, arguments).into_pyobject(py)
    }

    fn __repr__(&self) -> String {
        format!("MetricsCollector(bus={:?})", self.bus_name())
    }
}
