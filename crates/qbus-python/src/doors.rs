//! What a collector sends on, and what it takes of StatsD clients.

use std::sync::Mutex;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyAny;
use qbus_collector::{Destination, ListenOptions, Listeners, Protocol, PushOptions, Pusher};

use crate::collector::MetricsCollector;
use crate::convert::FilePath;
use crate::serving::{is_closed, taken};
use crate::{ending, error};

/// Sends metrics on until it is closed; see start_pushing().
///
/// For example `with qbus.start_pushing("http://prometheus:9090/api/v1/write"): train()`, after
/// which all that was counted has been sent.
#[pyclass(frozen, module = "qbus")]
pub(crate) struct MetricsPusher {
    pusher: Mutex<Option<Pusher>>,
}

/// Sends a collector's bus on, on threads that need no interpreter.
#[pyfunction]
pub(crate) fn push(
    py: Python<'_>,
    collector: &MetricsCollector,
    remote_write: Vec<String>,
    otlp: Vec<String>,
    interval: f64,
    labels: Vec<(String, String)>,
    queue: Option<FilePath>,
) -> PyResult<MetricsPusher> {
    let interval = Duration::try_from_secs_f64(interval).ok();
    let interval = interval.filter(|interval| !interval.is_zero());
    let interval = interval
        .ok_or_else(|| error::metric(py, "the interval is not a positive number of seconds"))?;
    let written = remote_write
        .iter()
        .map(|text| Destination::parse(text, Protocol::RemoteWrite));
    let told = otlp.iter().map(|text| {
        let typed = (!text.is_empty()).then_some(text.as_str());
        Destination::otlp_of_environment(typed)
    });
    let destinations: Result<Vec<Destination>, _> = written.chain(told).collect();
    let options = PushOptions {
        destinations: destinations.map_err(|error| error::metric(py, error))?,
        interval,
        labels,
        queue_folder: queue.map(|FilePath(queue)| queue),
        ..PushOptions::default()
    };
    let collector = collector.opened(py)?;
    // Its news are among the collector's statistics.
    let pusher = ending::detach(py, || collector.push(options, drop));
    let pusher = pusher.map_err(|error| error::bus(py, error))?;
    Ok(MetricsPusher {
        pusher: Mutex::new(Some(pusher)),
    })
}

impl Drop for MetricsPusher {
    /// Ends it, if that was not done, without the interpreter.
    fn drop(&mut self) {
        if let Some(pusher) = taken(&self.pusher) {
            ending::free(pusher);
        }
    }
}

#[pymethods]
impl MetricsPusher {
    /// Whether it was closed.
    #[getter]
    fn closed(&self) -> bool {
        is_closed(&self.pusher)
    }

    /// Sends all of it once more, waits for receivers to take it, at most five seconds, and ends.
    /// Whether they took all of it.
    fn close(&self, py: Python<'_>) -> bool {
        let pusher = taken(&self.pusher);
        let left = ending::detach(py, || pusher.map(Pusher::stop));
        left.is_none_or(|left| (left.unsent, left.lost) == (0, 0))
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _type: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) {
        self.close(py);
    }

    fn __repr__(&self) -> String {
        let state = if self.closed() { "closed" } else { "open" };
        format!("MetricsPusher({state})")
    }
}

/// Takes metrics of StatsD clients until it is closed; see start_statsd_server().
///
/// >>> import qbus
/// >>> server = qbus.start_statsd_server("127.0.0.1:0")
/// >>> len(server.addresses)
/// 1
/// >>> server.close()
#[pyclass(frozen, module = "qbus")]
pub(crate) struct StatsdServer {
    addresses: Vec<String>,
    listeners: Mutex<Option<Listeners>>,
}

/// Listens for StatsD, on threads that need no interpreter.
#[pyfunction]
pub(crate) fn listen(
    py: Python<'_>,
    collector: &MetricsCollector,
    addresses: Vec<String>,
    mapping: Option<FilePath>,
    gauge_deltas: bool,
) -> PyResult<StatsdServer> {
    let parsed: Result<Vec<_>, _> = addresses.iter().map(|text| text.parse()).collect();
    let options = ListenOptions {
        statsd: parsed.map_err(|error| error::metric(py, error))?,
        mapping: mapping.map(|FilePath(mapping)| mapping),
        gauge_deltas,
    };
    let collector = collector.opened(py)?;
    let listeners = ending::detach(py, || collector.listen(&options));
    let listeners = listeners.map_err(|error| error::bus(py, error))?;
    Ok(StatsdServer {
        addresses: listeners.addresses().to_vec(),
        listeners: Mutex::new(Some(listeners)),
    })
}

impl Drop for StatsdServer {
    /// Ends it, if that was not done, without the interpreter.
    fn drop(&mut self) {
        if let Some(listeners) = taken(&self.listeners) {
            ending::free(listeners);
        }
    }
}

#[pymethods]
impl StatsdServer {
    /// Whether it was closed.
    #[getter]
    fn closed(&self) -> bool {
        is_closed(&self.listeners)
    }

    /// Where it listens, with the ports that were given.
    #[getter]
    fn addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    /// Takes what the kernel has by now, and ends.
    fn close(&self, py: Python<'_>) {
        let listeners = taken(&self.listeners);
        ending::detach(py, || drop(listeners));
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _type: &Bound<'_, PyAny>,
        _value: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) {
        self.close(py);
    }

    fn __repr__(&self) -> String {
        format!("StatsdServer({})", self.addresses.join(", "))
    }
}
