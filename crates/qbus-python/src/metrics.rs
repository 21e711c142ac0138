//! Handles in the shape of `prometheus_client`: registered once, used from any thread and process.

use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use qbus::{Clock, DEFAULT_BUCKETS, FamilyDefinition, Kind, Merge, MetricType, Window};

use crate::convert::{self, Amount, number, trace_id};
use crate::error;
use crate::handle::{Child, Handle};
use crate::timing::{ExceptionCounter, InprogressTracker, Timer};

/// How a handle is made, in the order of `prometheus_client`.
struct Naming<'a> {
    name: &'a str,
    namespace: &'a str,
    subsystem: &'a str,
    unit: &'a str,
}

impl Naming<'_> {
    /// The name in full: `namespace_subsystem_name_unit`.
    fn full(&self) -> String {
        let parts = [self.namespace, self.subsystem, self.name];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let mut full = parts.join("_");
        if !self.unit.is_empty() && !full.ends_with(&format!("_{}", self.unit)) {
            full = format!("{full}_{}", self.unit);
        }
        full
    }
}

fn definition(
    naming: &Naming<'_>,
    metric_type: MetricType,
    help: &str,
    buckets: Vec<f64>,
) -> FamilyDefinition {
    let mut name = naming.full();
    if metric_type == MetricType::Counter && !name.ends_with("_total") {
        name.push_str("_total");
    }
    FamilyDefinition {
        name,
        metric_type,
        help: help.to_owned(),
        unit: naming.unit.to_owned(),
        buckets,
        native: false,
        merge: qbus::Merge::Last,
        window: qbus::Window::default(),
    }
}

/// The window of a summary: so many seconds, or all time.
fn window(py: Python<'_>, seconds: Option<f64>, steps: u32) -> PyResult<Window> {
    let Some(seconds) = seconds else {
        return Ok(Window::ALL_TIME);
    };
    // Whole milliseconds: what else a window must be is the registry's to say.
    let milliseconds = (seconds * 1000.0).round();
    let length = Duration::try_from_secs_f64(milliseconds / 1000.0).map_err(|_| {
        let found = format_args!("argument \"window\" is {seconds}");
        error::argument(
            py,
            format!("{found}, expected seconds, or None for all time"),
        )
    })?;
    let milliseconds = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let length = Duration::from_millis(milliseconds);
    Ok(Window { length, steps })
}

/// Label names: strings, or one string of names.
fn label_names(found: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<String>> {
    let Some(found) = found.filter(|found| !found.is_none()) else {
        return Ok(Vec::new());
    };
    let py = found.py();
    let wrong = || {
        error::argument(
            py,
            "argument \"labelnames\" is no sequence of strings, expected ('endpoint',), say",
        )
    };
    if found.is_instance_of::<PyString>() {
        return Err(wrong());
    }
    let names = convert::tuple(found).map_err(|_| wrong())?;
    let names = names.iter().map(|name| name.extract::<String>());
    names.collect::<PyResult<_>>().map_err(|_| wrong())
}

/// The bounds of a histogram's buckets: numbers from anything that can be iterated.
fn bounds(given: &Bound<'_, PyAny>) -> PyResult<Vec<f64>> {
    let numbers = convert::tuple(given).map_err(|_| {
        error::argument(
            given.py(),
            "argument \"buckets\" is no sequence of numbers, expected [0.1, 0.5, 1], say",
        )
    })?;
    let bounds = numbers.iter().map(|bound| number("buckets", &bound));
    bounds.collect()
}

macro_rules! handle {
    (
        $(#[$docs:meta])*
        $class:ident = $metric_type:ident {$($methods:tt)*}
    ) => {
        $(#[$docs])*
        #[pyclass(frozen, module = "qbus", weakref)]
        pub(crate) struct $class {
            handle: Arc<Handle>,
        }

        #[pymethods]
        impl $class {
            /// The series of these label values, in the order of the label names, or by name. Keep
            /// it where it is used often.
            #[pyo3(signature = (*labelvalues, **labelkwargs))]
            fn labels<'py>(
                &self,
                labelvalues: &Bound<'py, PyTuple>,
                labelkwargs: Option<&Bound<'py, PyDict>>,
            ) -> PyResult<Bound<'py, PyAny>> {
                match self.handle.labels(labelvalues, labelkwargs)? {
                    Child::Known(child) => Ok(child),
                    Child::New(handle, values) => {
                        let child = $class { handle: handle.clone() };
                        let child = Bound::new(values.py(), child)?.into_any();
                        self.handle.keep(&values, &handle, child)
                    }
                }
            }

            /// Takes the series of these label values off the page of all processes. Who emits to
            /// it again brings it back, and a sum goes on from where it stood.
            #[pyo3(signature = (*labelvalues))]
            fn remove(&self, labelvalues: &Bound<'_, PyTuple>) -> PyResult<()> {
                self.handle.remove(labelvalues)
            }

            /// Takes all series of it that this process has used off the page, as remove() does.
            fn clear(&self, py: Python<'_>) -> PyResult<()> {
                self.handle.clear(py)
            }

            /// Has the metric have so many series at most, in all processes; 0 is any number, and
            /// 2,000 what a bus is made with. Beyond, the label with the most values stands for all
            /// of them, with the value "__overflow__": sums stay exact.
            fn set_max_series(&self, series: u64) {
                self.handle.set_max_series(series);
            }

            /// The name in full.
            #[getter]
            fn name(&self) -> &str {
                self.handle.name()
            }

            fn __repr__(&self) -> String {
                self.handle.repr(stringify!($class))
            }

            fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
                self.handle.reduce(py, stringify!($class))
            }

            $($methods)*
        }

        impl $class {
            pub(crate) fn handle(&self) -> &Arc<Handle> {
                &self.handle
            }

            fn of(
                py: Python<'_>,
                family: FamilyDefinition,
                labelnames: Option<&Bound<'_, PyAny>>,
                registry: Option<Bound<'_, PyAny>>,
            ) -> PyResult<$class> {
                let handle = Handle::new(py, family, label_names(labelnames)?, registry)?;
                Ok($class { handle: Arc::new(handle) })
            }
        }
    };
}

handle! {
    /// A sum that only grows. Its name ends with _total, which is added where it is missing.
    ///
    /// >>> import qbus
    /// >>> requests = qbus.Counter("requests", "Requests served.", ["endpoint"])
    /// >>> requests.labels("/predict").inc()
    /// >>> requests.labels(endpoint="/predict").inc(2)
    /// >>> qbus.snapshot().get("requests_total", {"endpoint": "/predict"}).value
    /// 3.0
    Counter = Counter {
        #[new]
        #[pyo3(signature = (
            name, documentation="", labelnames=None, namespace="", subsystem="", unit="",
            registry=None
        ))]
        #[allow(clippy::too_many_arguments, reason = "those of prometheus_client")]
        fn new(
            py: Python<'_>,
            name: &str,
            documentation: &str,
            labelnames: Option<&Bound<'_, PyAny>>,
            namespace: &str,
            subsystem: &str,
            unit: &str,
            registry: Option<Bound<'_, PyAny>>,
        ) -> PyResult<Counter> {
            // The unit stands before _total.
            let base = name.strip_suffix("_total").unwrap_or(name);
            let naming = Naming { name: base, namespace, subsystem, unit };
            let family = definition(&naming, MetricType::Counter, documentation, Vec::new());
            Self::of(py, family, labelnames, registry)
        }

        /// Adds an increment, 1 if none is given. A negative one raises MetricError; one that is
        /// not finite is counted as rejected.
        #[pyo3(
            signature = (amount=Amount::One, exemplar=None),
            text_signature = "($self, amount=1, exemplar=None)"
        )]
        fn inc(
            &self,
            py: Python<'_>,
            amount: Amount<'_>,
            exemplar: Option<&Bound<'_, PyAny>>,
        ) -> PyResult<()> {
            let amount = amount.number()?;
            let trace_id = trace_id(exemplar)?;
            self.handle.emit(py, Clock::Coarse, Kind::Increment, amount, trace_id)
        }

        /// Counts the exceptions of a block or function: `with c.count_exceptions(): …`, or a
        /// decorator.
        #[pyo3(signature = (exception=None))]
        fn count_exceptions(
            slf: &Bound<'_, Self>,
            exception: Option<Bound<'_, PyAny>>,
        ) -> PyResult<ExceptionCounter> {
            let py = slf.py();
            let handle = &slf.get().handle;
            handle.check_is_series(py)?;
            let exception = exception.filter(|exception| !exception.is_none());
            let exception = exception
                .unwrap_or_else(|| py.get_type::<pyo3::exceptions::PyException>().into_any());
            convert::check_classes("exception", &exception)?;
            let owner = slf.clone().into_any().unbind();
            Ok(ExceptionCounter::new(handle, owner, exception.unbind()))
        }
    }
}

handle! {
    /// A value that goes up and down. There is one, and the last process that set it counts, unless
    /// multiprocess_mode says that each process has its own, and what they come to: "sum", "min",
    /// "max", "mostrecent", or "all" with a label pid; with "live" before it ("livesum") what a
    /// process said is gone when it ends, or is killed.
    ///
    /// >>> import qbus
    /// >>> load = qbus.Gauge("load", "Requests in flight.")
    /// >>> load.set(4)
    /// >>> load.inc(); load.dec(2)
    /// >>> qbus.snapshot().get("load").value
    /// 3.0
    Gauge = Gauge {
        #[new]
        #[pyo3(signature = (
            name, documentation="", labelnames=None, namespace="", subsystem="", unit="",
            registry=None, multiprocess_mode="last"
        ))]
        #[allow(clippy::too_many_arguments, reason = "those of prometheus_client")]
        fn new(
            py: Python<'_>,
            name: &str,
            documentation: &str,
            labelnames: Option<&Bound<'_, PyAny>>,
            namespace: &str,
            subsystem: &str,
            unit: &str,
            registry: Option<Bound<'_, PyAny>>,
            multiprocess_mode: &str,
        ) -> PyResult<Gauge> {
            let naming = Naming { name, namespace, subsystem, unit };
            let family = definition(&naming, MetricType::Gauge, documentation, Vec::new());
            let merge = Merge::from_name(multiprocess_mode).ok_or_else(|| {
                let modes = Merge::ALL.map(Merge::as_str).join(", ");
                let found = format_args!("argument \"multiprocess_mode\" is {multiprocess_mode:?}");
                error::argument(py, format!("{found}, expected one of {modes}"))
            })?;
            Self::of(py, FamilyDefinition { merge, ..family }, labelnames, registry)
        }

        /// Sets the value.
        fn set(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
            let value = number("value", value)?;
            self.handle.emit(py, Clock::Precise, Kind::Set, value, 0)
        }

        /// Adds to the value; 1 if no amount is given.
        #[pyo3(signature = (amount=Amount::One), text_signature = "($self, amount=1)")]
        fn inc(&self, py: Python<'_>, amount: Amount<'_>) -> PyResult<()> {
            let amount = amount.number()?;
            self.handle.emit(py, Clock::Precise, Kind::Adjust, amount, 0)
        }

        /// Subtracts from the value; 1 if no amount is given.
        #[pyo3(signature = (amount=Amount::One), text_signature = "($self, amount=1)")]
        fn dec(&self, py: Python<'_>, amount: Amount<'_>) -> PyResult<()> {
            let amount = amount.number()?;
            self.handle.emit(py, Clock::Precise, Kind::Adjust, -amount, 0)
        }

        /// Sets the value to the current time, in seconds since the Unix epoch.
        fn set_to_current_time(&self, py: Python<'_>) -> PyResult<()> {
            let now = Clock::Precise.now_ns() as f64 / 1e9;
            self.handle.emit(py, Clock::Precise, Kind::Set, now, 0)
        }

        /// Adds 1 for as long as a block or function runs: `with g.track_inprogress(): …`, or a
        /// decorator, of an async function too.
        fn track_inprogress(slf: &Bound<'_, Self>) -> PyResult<InprogressTracker> {
            let handle = &slf.get().handle;
            handle.check_is_series(slf.py())?;
            Ok(InprogressTracker::new(handle, slf.clone().into_any().unbind()))
        }

        /// Sets the value to how many seconds a block or function took, as a context manager or
        /// decorator.
        fn time(slf: &Bound<'_, Self>) -> PyResult<Timer> {
            let handle = &slf.get().handle;
            handle.check_is_series(slf.py())?;
            Ok(Timer::new(handle, slf.clone().into_any().unbind(), Kind::Set))
        }
    }
}

handle! {
    /// Observations counted in buckets. A native one counts finer ones too, 32 an octave, which a
    /// Prometheus with native histograms on gets: quantiles within 1.1 % whatever the buckets are.
    ///
    /// >>> import qbus
    /// >>> sizes = qbus.Histogram("batch_size", "Requests in a batch.", buckets=[1, 2, 4, 8])
    /// >>> for size in [1, 3, 3, 20]:
    /// ...     sizes.observe(size)
    /// >>> qbus.snapshot().get("batch_size").buckets
    /// [(1.0, 1), (2.0, 1), (4.0, 3), (8.0, 3), (inf, 4)]
    Histogram = Histogram {
        #[new]
        #[pyo3(signature = (
            name, documentation="", labelnames=None, namespace="", subsystem="", unit="",
            registry=None, buckets=None, native=false
        ))]
        #[allow(clippy::too_many_arguments, reason = "those of prometheus_client")]
        fn new(
            py: Python<'_>,
            name: &str,
            documentation: &str,
            labelnames: Option<&Bound<'_, PyAny>>,
            namespace: &str,
            subsystem: &str,
            unit: &str,
            registry: Option<Bound<'_, PyAny>>,
            buckets: Option<&Bound<'_, PyAny>>,
            native: bool,
        ) -> PyResult<Histogram> {
            let given = buckets.filter(|given| !given.is_none());
            let mut buckets = given.map_or_else(|| Ok(DEFAULT_BUCKETS.to_vec()), bounds)?;
            // It is added by itself.
            buckets.pop_if(|last| *last == f64::INFINITY);
            let naming = Naming { name, namespace, subsystem, unit };
            let family = definition(&naming, MetricType::Histogram, documentation, buckets);
            Self::of(py, FamilyDefinition { native, ..family }, labelnames, registry)
        }

        /// Adds an observation. One that is not finite is counted as rejected.
        #[pyo3(signature = (amount, exemplar=None))]
        fn observe(
            &self,
            py: Python<'_>,
            amount: &Bound<'_, PyAny>,
            exemplar: Option<&Bound<'_, PyAny>>,
        ) -> PyResult<()> {
            let (amount, trace_id) = (number("amount", amount)?, trace_id(exemplar)?);
            self.handle.emit(py, Clock::Precise, Kind::Observe, amount, trace_id)
        }

        /// Observes how many seconds a block or function takes: `with h.time(): …`, or a decorator,
        /// of an async function too.
        fn time(slf: &Bound<'_, Self>) -> PyResult<Timer> {
            let handle = &slf.get().handle;
            handle.check_is_series(slf.py())?;
            Ok(Timer::new(handle, slf.clone().into_any().unbind(), Kind::Observe))
        }
    }
}

handle! {
    /// Observations whose quantiles are kept within 1.1 %.
    ///
    /// Quantiles are of the last ten minutes, which slide in five steps; window= says of how many
    /// seconds (None: of all time), window_steps= in how many steps. Count, sum, min and max are of
    /// all time.
    ///
    /// >>> import qbus
    /// >>> waits = qbus.Summary("wait_seconds", "Time in the queue.")
    /// >>> for wait in range(1, 101):
    /// ...     waits.observe(wait)
    /// >>> metric = qbus.snapshot().get("wait_seconds")
    /// >>> metric.count, metric.sum
    /// (100, 5050.0)
    /// >>> 49 < dict(metric.quantiles)[0.5] < 52
    /// True
    Summary = Summary {
        #[new]
        #[pyo3(signature = (
            name, documentation="", labelnames=None, namespace="", subsystem="", unit="",
            registry=None, window=600.0, window_steps=5
        ))]
        #[allow(clippy::too_many_arguments, reason = "those of prometheus_client, and its window")]
        fn new(
            py: Python<'_>,
            name: &str,
            documentation: &str,
            labelnames: Option<&Bound<'_, PyAny>>,
            namespace: &str,
            subsystem: &str,
            unit: &str,
            registry: Option<Bound<'_, PyAny>>,
            window: Option<f64>,
            window_steps: u32,
        ) -> PyResult<Summary> {
            let naming = Naming { name, namespace, subsystem, unit };
            let family = definition(&naming, MetricType::Summary, documentation, Vec::new());
            let window = self::window(py, window, window_steps)?;
            Self::of(py, FamilyDefinition { window, ..family }, labelnames, registry)
        }

        /// Adds an observation. One that is not finite is counted as rejected.
        fn observe(&self, py: Python<'_>, amount: &Bound<'_, PyAny>) -> PyResult<()> {
            let amount = number("amount", amount)?;
            self.handle.emit(py, Clock::Precise, Kind::Observe, amount, 0)
        }

        /// Observes how many seconds a block or function takes: `with s.time(): …`, or a decorator,
        /// of an async function too.
        fn time(slf: &Bound<'_, Self>) -> PyResult<Timer> {
            let handle = &slf.get().handle;
            handle.check_is_series(slf.py())?;
            Ok(Timer::new(handle, slf.clone().into_any().unbind(), Kind::Observe))
        }
    }
}
