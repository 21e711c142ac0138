//! Handles in the shape of `prometheus_client`: registered once, used from any thread and process.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};
use qbus::{
    Bus, Clock, DEFAULT_BUCKETS, EmitError, FamilyDefinition, Kind, MetricType, Record,
    RegisterError, SeriesId,
};

use crate::collector::MetricsCollector;
use crate::convert::{label_value, number, trace_id};
use crate::error;

/// How long a handle waits for room in its lane, and how long no handle does after that was in vain.
const PATIENCE: Duration = Duration::from_millis(100);
const IMPATIENCE: Duration = Duration::from_secs(1);

/// A family, or one series of it.
struct Handle {
    bus: Bus,
    family: FamilyDefinition,
    label_names: Vec<String>,
    /// Empty for a family with labels.
    label_values: Vec<String>,
    target: Target,
    /// The series of a family by the tuple of their label values.
    children: Py<PyDict>,
    /// What the handle was made with, for another process.
    registry: Py<PyAny>,
}

enum Target {
    Series(SeriesId),
    /// A family with labels: only what `labels()` gives can be used.
    Family,
    /// There was no room for the series: what is emitted to it is lost, and was told.
    Refused,
}

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

impl Handle {
    fn new(
        py: Python<'_>,
        family: FamilyDefinition,
        label_names: Vec<String>,
        registry: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Handle> {
        static DEFAULT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let registry = match registry {
            Some(registry) if !registry.is_none() => registry,
            _ => DEFAULT
                .import(py, "qbus._collector", "get_metrics_collector")?
                .call0()?,
        };
        let collector = registry.cast::<MetricsCollector>().map_err(|_| {
            error::argument(
                py,
                "argument \"registry\" is none, expected a MetricsCollector",
            )
        })?;
        let mut handle = Handle {
            bus: collector.get().collector.bus().clone(),
            family,
            label_names,
            label_values: Vec::new(),
            target: Target::Family,
            children: PyDict::new(py).unbind(),
            registry: registry.unbind(),
        };
        if handle.label_names.is_empty() {
            handle.target = handle.register(py)?;
        } else {
            // Its mistakes are told here, not by its first series.
            handle.check(py)?;
        }
        Ok(handle)
    }

    /// Whether the family could be registered.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        if !qbus::is_metric_name(&self.family.name) {
            let error = RegisterError::Name {
                found: self.family.name.clone(),
            };
            return Err(error::metric(py, error));
        }
        for name in &self.label_names {
            let label = qbus::check_label(&self.family.name, name);
            label.map_err(|error| error::metric(py, error))?;
        }
        let known = self.bus.family_by_name(&self.family.name);
        match known {
            Some(known) if !known.agrees(&self.family) => Err(error::metric(
                py,
                RegisterError::Conflict {
                    metric: self.family.name.clone(),
                    existing: known.to_string(),
                    requested: self.family.to_string(),
                },
            )),
            _ => Ok(()),
        }
    }

    fn register(&self, py: Python<'_>) -> PyResult<Target> {
        let labels: Vec<_> = self
            .label_names
            .iter()
            .cloned()
            .zip(self.label_values.iter().cloned())
            .collect();
        match self.bus.intern(&self.family, &labels) {
            Ok(series) => Ok(Target::Series(series)),
            Err(error @ RegisterError::Full { .. }) => {
                error::no_room(py, &error)?;
                Ok(Target::Refused)
            }
            Err(error) => Err(error::metric(py, error)),
        }
    }

    /// The series of these label values.
    fn child(&self, py: Python<'_>, values: &Bound<'_, PyTuple>) -> PyResult<Handle> {
        let label_values: Vec<String> = values
            .iter()
            .map(|value| Ok(value.cast_into::<PyString>()?.to_str()?.to_owned()))
            .collect::<PyResult<_>>()?;
        let mut child = Handle {
            bus: self.bus.clone(),
            family: self.family.clone(),
            label_names: self.label_names.clone(),
            label_values,
            target: Target::Refused,
            children: self.children.clone_ref(py),
            registry: self.registry.clone_ref(py),
        };
        child.target = child.register(py)?;
        Ok(child)
    }

    /// The label values of a call of `labels()` as strings, in the order of the names.
    fn values<'py>(
        &self,
        given: &Bound<'py, PyTuple>,
        named: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let py = given.py();
        let mismatch = || {
            error::metric(
                py,
                format_args!(
                    "metric {}: its labels are {:?}, and labels() was called with others",
                    self.family.name, self.label_names
                ),
            )
        };
        if !self.label_values.is_empty() || self.label_names.is_empty() {
            return Err(error::metric(
                py,
                format_args!(
                    "metric {}: labels() is for a metric with labelnames",
                    self.family.name
                ),
            ));
        }
        let values = match named {
            Some(named) if !named.is_empty() => {
                if !given.is_empty() || named.len() != self.label_names.len() {
                    return Err(mismatch());
                }
                let value = |name: &String| {
                    let value = named.get_item(name)?.ok_or_else(mismatch)?;
                    label_value(value)
                };
                self.label_names
                    .iter()
                    .map(value)
                    .collect::<PyResult<Vec<_>>>()?
            }
            _ if given.len() == self.label_names.len() => {
                given.iter().map(label_value).collect::<PyResult<_>>()?
            }
            _ => return Err(mismatch()),
        };
        PyTuple::new(py, values)
    }

    #[inline]
    fn emit(
        &self,
        py: Python<'_>,
        clock: Clock,
        kind: Kind,
        value: f64,
        trace_id: u128,
    ) -> PyResult<()> {
        let Target::Series(series) = self.target else {
            return self.not_a_series(py);
        };
        let record = Record::new(clock.now_ns(), series, kind, value);
        let record = Record { trace_id, ..record };
        let emitted = if self.bus.has_room() {
            self.bus.emit(record)
        } else {
            self.wait(py, record)
        };
        match emitted {
            Ok(()) => Ok(()),
            Err(error) => self.failed(py, error),
        }
    }

    /// Emits when the aggregator has made room. Whoever counts in a loop is faster than it wakes up, and
    /// expects no loss; but nobody waits for one that is not there, or again and again for one that lags.
    #[cold]
    fn wait(&self, py: Python<'_>, record: Record) -> Result<(), EmitError> {
        static IMPATIENT: Mutex<Option<Instant>> = Mutex::new(None);
        let mut until = IMPATIENT.try_lock().map_or(None, |until| *until);
        until = until.filter(|until| Instant::now() < *until);
        let is_aggregated = || {
            let aggregator = self.bus.aggregator();
            aggregator.is_some_and(|aggregator| aggregator.alive)
        };
        let patience = if until.is_none() && is_aggregated() {
            PATIENCE
        } else {
            Duration::ZERO
        };
        let emitted = py.detach(|| self.bus.emit_or_wait(record, patience));
        if emitted == Err(EmitError::Full)
            && until.is_none()
            && let Ok(mut until) = IMPATIENT.try_lock()
        {
            *until = Some(Instant::now() + IMPATIENCE);
        }
        emitted
    }

    #[cold]
    fn failed(&self, py: Python<'_>, error: EmitError) -> PyResult<()> {
        match error {
            EmitError::Value { .. } => Err(error::metric(
                py,
                format_args!("metric {}: {error}", self.family.name),
            )),
            error => error::not_emitted(py, error),
        }
    }

    #[cold]
    fn not_a_series(&self, py: Python<'_>) -> PyResult<()> {
        match self.target {
            // It was told when the series was refused.
            Target::Refused | Target::Series(_) => Ok(()),
            Target::Family => Err(error::metric(
                py,
                format_args!(
                    "metric {} has the labels {:?}: call labels() first",
                    self.family.name, self.label_names
                ),
            )),
        }
    }

    fn repr(&self, class: &str) -> String {
        let labels = self.label_names.iter().zip(&self.label_values);
        let labels: Vec<_> = labels
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        let name = &self.family.name;
        if labels.is_empty() {
            format!("{class}({name})")
        } else {
            format!("{class}({name}{{{}}})", labels.join(","))
        }
    }

    fn reduce<'py>(&self, py: Python<'py>, class: &str) -> PyResult<Bound<'py, PyTuple>> {
        let rebuild = py.import("qbus._collector")?.getattr("rebuild")?;
        let family = &self.family;
        let arguments = (
            class,
            family.name.as_str(),
            family.help.as_str(),
            self.label_names.clone(),
            self.label_values.clone(),
            family.unit.as_str(),
            family.buckets.clone(),
            self.registry.clone_ref(py),
        );
        (rebuild, arguments).into_pyobject(py)
    }
}

/// Makes an object of `qbus._timing` around what a handle does.
fn around<'py>(class: &str, parts: &[Bound<'py, PyAny>]) -> PyResult<Bound<'py, PyAny>> {
    let py = parts[0].py();
    let class = py.import("qbus._timing")?.getattr(class)?;
    class.call1(PyTuple::new(py, parts)?)
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
    }
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
    found
        .try_iter()
        .and_then(|names| names.map(|name| name?.extract::<String>()).collect())
        .map_err(|_| wrong())
}

macro_rules! handle {
    (
        $(#[$docs:meta])*
        $class:ident = $metric_type:ident {$($methods:tt)*}
    ) => {
        $(#[$docs])*
        #[pyclass(frozen, module = "qbus", weakref)]
        pub(crate) struct $class {
            handle: Handle,
        }

        #[pymethods]
        impl $class {
            /// The series of these label values, in the order of the label names, or by name. Keep it
            /// where it is used often.
            #[pyo3(signature = (*labelvalues, **labelkwargs))]
            fn labels<'py>(
                &self,
                labelvalues: &Bound<'py, PyTuple>,
                labelkwargs: Option<&Bound<'py, PyDict>>,
            ) -> PyResult<Bound<'py, PyAny>> {
                let py = labelvalues.py();
                let children = self.handle.children.bind(py);
                if labelkwargs.is_none()
                    && self.handle.label_values.is_empty()
                    && let Some(child) = children.get_item(labelvalues)?
                {
                    return Ok(child);
                }
                let values = self.handle.values(labelvalues, labelkwargs)?;
                if let Some(child) = children.get_item(&values)? {
                    return Ok(child);
                }
                let child = self.handle.child(py, &values)?;
                let is_kept = matches!(child.target, Target::Series(_));
                let child = Bound::new(py, $class { handle: child })?.into_any();
                if is_kept {
                    children.set_item(values, &child)?;
                }
                Ok(child)
            }

            /// The name in full.
            #[getter]
            fn name(&self) -> &str {
                &self.handle.family.name
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
            fn made(
                py: Python<'_>,
                naming: &Naming<'_>,
                documentation: &str,
                labelnames: Option<&Bound<'_, PyAny>>,
                registry: Option<Bound<'_, PyAny>>,
                buckets: Vec<f64>,
            ) -> PyResult<$class> {
                let family = definition(naming, MetricType::$metric_type, documentation, buckets);
                let handle = Handle::new(py, family, label_names(labelnames)?, registry)?;
                Ok($class { handle })
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
        #[pyo3(signature = (name, documentation="", labelnames=None, namespace="", subsystem="", unit="", registry=None))]
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
            Counter::made(py, &naming, documentation, labelnames, registry, Vec::new())
        }

        /// Adds an increment, 1 if none is given: finite, and not negative.
        #[pyo3(signature = (amount=None, exemplar=None))]
        fn inc(
            &self,
            py: Python<'_>,
            amount: Option<&Bound<'_, PyAny>>,
            exemplar: Option<&Bound<'_, PyAny>>,
        ) -> PyResult<()> {
            let amount = match amount {
                None => 1.0,
                Some(amount) => number("amount", amount)?,
            };
            let trace_id = trace_id(exemplar)?;
            self.handle.emit(py, Clock::Coarse, Kind::Increment, amount, trace_id)
        }

        /// Counts the exceptions of a block or function: `with c.count_exceptions(): …`, or a decorator.
        #[pyo3(signature = (exception=None))]
        fn count_exceptions<'py>(
            slf: &Bound<'py, Self>,
            exception: Option<Bound<'py, PyAny>>,
        ) -> PyResult<Bound<'py, PyAny>> {
            let exception = match exception {
                Some(exception) => exception,
                None => slf.py().get_type::<pyo3::exceptions::PyException>().into_any(),
            };
            around("ExceptionCounter", &[slf.getattr("inc")?, exception])
        }
    }
}

handle! {
    /// A value that goes up and down; the last one of all processes counts.
    ///
    /// >>> import qbus
    /// >>> load = qbus.Gauge("load", "Requests in flight.")
    /// >>> load.set(4)
    /// >>> load.inc(); load.dec(2)
    /// >>> qbus.snapshot().get("load").value
    /// 3.0
    Gauge = Gauge {
        #[new]
        #[pyo3(signature = (name, documentation="", labelnames=None, namespace="", subsystem="", unit="", registry=None))]
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
        ) -> PyResult<Gauge> {
            let naming = Naming { name, namespace, subsystem, unit };
            Gauge::made(py, &naming, documentation, labelnames, registry, Vec::new())
        }

        /// Sets the value.
        fn set(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
            let value = number("value", value)?;
            self.handle.emit(py, Clock::Precise, Kind::Set, value, 0)
        }

        /// Adds to the value; 1 if no amount is given.
        #[pyo3(signature = (amount=None))]
        fn inc(&self, py: Python<'_>, amount: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
            let amount = amount.map_or(Ok(1.0), |amount| number("amount", amount))?;
            self.handle.emit(py, Clock::Precise, Kind::Adjust, amount, 0)
        }

        /// Subtracts from the value; 1 if no amount is given.
        #[pyo3(signature = (amount=None))]
        fn dec(&self, py: Python<'_>, amount: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
            let amount = amount.map_or(Ok(1.0), |amount| number("amount", amount))?;
            self.handle.emit(py, Clock::Precise, Kind::Adjust, -amount, 0)
        }

        /// Sets the value to the current time, in seconds since the Unix epoch.
        fn set_to_current_time(&self, py: Python<'_>) -> PyResult<()> {
            let now = Clock::Precise.now_ns() as f64 / 1e9;
            self.handle.emit(py, Clock::Precise, Kind::Set, now, 0)
        }

        /// Adds 1 for as long as a block or function runs: `with g.track_inprogress(): …`, or a decorator,
        /// of an async function too.
        fn track_inprogress<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
            around("InprogressTracker", &[slf.getattr("inc")?, slf.getattr("dec")?])
        }

        /// Sets the value to how many seconds a block or function took, as a context manager or decorator.
        fn time<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
            around("Timer", &[slf.getattr("set")?])
        }
    }
}

handle! {
    /// Observations counted in buckets.
    ///
    /// >>> import qbus
    /// >>> sizes = qbus.Histogram("batch_size", "Requests in a batch.", buckets=[1, 2, 4, 8])
    /// >>> for size in [1, 3, 3, 20]:
    /// ...     sizes.observe(size)
    /// >>> qbus.snapshot().get("batch_size").buckets
    /// [(1.0, 1), (2.0, 1), (4.0, 3), (8.0, 3), (inf, 4)]
    Histogram = Histogram {
        #[new]
        #[pyo3(signature = (name, documentation="", labelnames=None, namespace="", subsystem="", unit="", registry=None, buckets=None))]
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
            buckets: Option<Vec<f64>>,
        ) -> PyResult<Histogram> {
            let mut buckets = buckets.unwrap_or_else(|| DEFAULT_BUCKETS.to_vec());
            // It is added by itself.
            buckets.pop_if(|last| *last == f64::INFINITY);
            let naming = Naming { name, namespace, subsystem, unit };
            Histogram::made(py, &naming, documentation, labelnames, registry, buckets)
        }

        /// Adds an observation.
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

        /// Observes how many seconds a block or function takes: `with h.time(): …`, or a decorator, of an
        /// async function too.
        fn time<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
            around("Timer", &[slf.getattr("observe")?])
        }
    }
}

handle! {
    /// Observations whose quantiles are kept within 1.1 %.
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
        #[pyo3(signature = (name, documentation="", labelnames=None, namespace="", subsystem="", unit="", registry=None))]
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
        ) -> PyResult<Summary> {
            let naming = Naming { name, namespace, subsystem, unit };
            Summary::made(py, &naming, documentation, labelnames, registry, Vec::new())
        }

        /// Adds an observation.
        fn observe(&self, py: Python<'_>, amount: &Bound<'_, PyAny>) -> PyResult<()> {
            let amount = number("amount", amount)?;
            self.handle.emit(py, Clock::Precise, Kind::Observe, amount, 0)
        }

        /// Observes how many seconds a block or function takes: `with s.time(): …`, or a decorator, of an
        /// async function too.
        fn time<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
            around("Timer", &[slf.getattr("observe")?])
        }
    }
}
