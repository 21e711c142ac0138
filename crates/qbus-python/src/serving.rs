//! Serving a collector's metrics over HTTP.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyRuntimeWarning;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use crate::collector::MetricsCollector;
use crate::{ending, error};

/// A server of metrics and of the dashboard; see start_http_server().
///
/// >>> import qbus
/// >>> with qbus.start_http_server(0) as server:
/// ...     server.closed
/// False
/// >>> server.closed
/// True
#[pyclass(frozen, module = "qbus")]
pub(crate) struct MetricsServer {
    url: String,
    server: Mutex<Option<qbus_collector::Server>>,
}

/// Serves a collector's bus at an address, on a thread that needs no interpreter.
#[pyfunction]
pub(crate) fn serve(
    py: Python<'_>,
    collector: &MetricsCollector,
    address: &str,
) -> PyResult<MetricsServer> {
    let listen = address.parse::<qbus_collector::Listen>();
    let listen = listen.map_err(|error| error::metric(py, &error))?;
    let collector = collector.opened(py)?;
    let news = Arc::new(Mutex::new(Vec::new()));
    let heard = news.clone();
    let report = move |said| {
        heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(said)
    };
    let server = ending::detach(py, || collector.serve(listen, report));
    let server = server.map_err(|error| error::bus(py, &error))?;
    for said in std::mem::take(&mut *news.lock().unwrap_or_else(PoisonError::into_inner)) {
        error::tell_as(&py.get_type::<PyRuntimeWarning>(), &said, 2)?;
    }
    Ok(MetricsServer {
        url: server.urls()[0].clone(),
        server: Mutex::new(Some(server)),
    })
}

impl Drop for MetricsServer {
    /// Closes it, if that was not done, without the interpreter.
    fn drop(&mut self) {
        if let Some(server) = taken(&self.server) {
            ending::free(server);
        }
    }
}

#[pymethods]
impl MetricsServer {
    /// Whether it was closed.
    #[getter]
    fn closed(&self) -> bool {
        is_closed(&self.server)
    }

    /// Where the dashboard is; /metrics lies beside it.
    #[getter]
    fn url(&self) -> &str {
        &self.url
    }

    /// Closes all connections, and the address.
    fn close(&self, py: Python<'_>) {
        let server = taken(&self.server);
        ending::detach(py, || drop(server));
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
        format!("MetricsServer({})", self.url)
    }
}

/// What is to be closed, unless it was.
pub(crate) fn taken<T>(open: &Mutex<Option<T>>) -> Option<T> {
    open.lock().unwrap_or_else(PoisonError::into_inner).take()
}

pub(crate) fn is_closed<T>(open: &Mutex<Option<T>>) -> bool {
    open.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .is_none()
}
