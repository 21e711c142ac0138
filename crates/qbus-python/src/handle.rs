//! A family of metrics, or one series of it, as the classes of [`crate::metrics`] have it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple};
use qbus::{
    Bus, Clock, EmitError, FamilyDefinition, Kind, Merge, MetricType, OVERFLOW, Record,
    RegisterError, SeriesId,
};

use crate::calls;
use crate::collector::MetricsCollector;
use crate::convert::label_value;
use crate::ending;
use crate::error;
use crate::waiting;

/// For how long a full registry is asked only whether it knows a series.
const FULL_FOR: Duration = Duration::from_secs(1);

/// As many series are kept whatever they are; beyond, those alone that are not counted in another
/// one: a label whose values never end is not to end the memory.
const KEPT: usize = 1024;

/// What all series of a family share.
struct Shared {
    definition: FamilyDefinition,
    label_names: Vec<String>,
    collector: Py<MetricsCollector>,
    /// Whether `collector` is the one that a handle gets when none is named.
    is_default: bool,
    /// When the registry had no room last, in milliseconds since `started`; 0 = never.
    full_ms: AtomicU64,
    /// How many series it may have, or [`UNSAID`].
    max_series: AtomicU64,
    is_overflow_told: AtomicBool,
    started: Instant,
}

/// A family, or one series of it.
pub(crate) struct Handle {
    /// `None` when the collector has none: what is emitted is lost, and counted.
    bus: Option<Bus>,
    shared: Arc<Shared>,
    /// The series of a family by the tuple of their label values. They do not refer to it: nobody
    /// would free a circle.
    children: Option<Py<PyDict>>,
    /// Empty for a family with labels.
    label_values: Vec<String>,
    target: Target,
}

/// No limit was said.
const UNSAID: u64 = u64::MAX;

/// What of a series is state, which no full lane can lose.
enum State {
    Counter(qbus::Counter),
    Histogram(qbus::Histogram),
    /// Nothing: its changes are events.
    None,
}

enum Target {
    Series(Box<qbus::Handle>, State),
    /// A family with labels: only what `labels()` gives can be used.
    Family,
    /// There was no room for the series, or there is no bus: what is emitted to it is lost, and was
    /// told.
    Refused,
}

/// What `labels()` was called with.
pub(crate) enum Child<'py> {
    /// It is there.
    Known(Bound<'py, PyAny>),
    /// It is to be made, and kept under these values if there was room for it.
    New(Arc<Handle>, Bound<'py, PyTuple>),
}

impl Handle {
    pub(crate) fn new(
        py: Python<'_>,
        definition: FamilyDefinition,
        label_names: Vec<String>,
        registry: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Handle> {
        let named = registry.filter(|registry| !registry.is_none());
        let is_default = named.is_none();
        let registry = named.map_or_else(|| default_collector(py), Ok)?;
        let collector = registry
            .cast_into::<MetricsCollector>()
            .map_err(|_| error::argument(py, "argument \"registry\" must be a MetricsCollector"))?;
        let mut handle = Handle {
            bus: collector.get().bus(),
            children: Some(PyDict::new(py).unbind()),
            label_values: Vec::new(),
            target: Target::Family,
            shared: Arc::new(Shared {
                definition,
                label_names,
                collector: collector.unbind(),
                is_default,
                full_ms: AtomicU64::new(0),
                max_series: AtomicU64::new(UNSAID),
                is_overflow_told: AtomicBool::new(false),
                started: Instant::now(),
            }),
        };
        handle.check(py)?;
        if handle.shared.label_names.is_empty() {
            handle.target = handle.register(py)?;
        }
        Ok(handle)
    }

    fn definition(&self) -> &FamilyDefinition {
        &self.shared.definition
    }

    /// The name in full.
    pub(crate) fn name(&self) -> &str {
        &self.definition().name
    }

    /// Whether the family could be registered. The mistakes of one with labels are told here, not
    /// by its first series.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        let name = self.name();
        if !qbus::is_metric_name(name) {
            let error = RegisterError::Name {
                found: name.to_owned(),
            };
            return Err(error::metric(py, error));
        }
        for label in &self.shared.label_names {
            qbus::check_label(name, self.definition().metric_type, label)
                .map_err(|error| error::metric(py, error))?;
        }
        let known = self.bus.as_ref().and_then(|bus| bus.family_by_name(name));
        match known {
            Some(known) if !known.agrees(self.definition()) => Err(error::metric(
                py,
                RegisterError::Conflict {
                    metric: name.to_owned(),
                    existing: known.to_string(),
                    requested: self.definition().to_string(),
                },
            )),
            _ => Ok(()),
        }
    }

    /// Whether the registry had no room a moment ago. To ask a full one for more takes long.
    fn is_full(&self) -> bool {
        let full_ms = self.shared.full_ms.load(Ordering::Relaxed);
        let now = self.shared.started.elapsed();
        full_ms > 0 && now < Duration::from_millis(full_ms) + FULL_FOR
    }

    fn register(&self, py: Python<'_>) -> PyResult<Target> {
        let Some(bus) = &self.bus else {
            return Ok(Target::Refused);
        };
        let names = self.shared.label_names.iter().cloned();
        let labels: Vec<_> = names.zip(self.label_values.iter().cloned()).collect();
        if self.is_full() {
            let known = ending::detach(py, || bus.find(self.name(), &labels));
            let target = |series| self.series(bus, series);
            return Ok(known.map_or(Target::Refused, target));
        }
        // A registry that is about full is searched for long.
        self.tell_limit(bus);
        match ending::detach(py, || bus.intern(self.definition(), &labels)) {
            Ok(series) => {
                self.tell_limit(bus);
                self.warn_of_overflow(py, bus, series)?;
                Ok(self.series(bus, series))
            }
            Err(error @ RegisterError::Full { .. }) => {
                let now = self.shared.started.elapsed().as_millis() as u64;
                self.shared.full_ms.store(now.max(1), Ordering::Relaxed);
                error::no_room(py, &error)?;
                Ok(Target::Refused)
            }
            Err(error) => Err(error::metric(py, error)),
        }
    }

    /// Has the metric have so many series at most, for all processes.
    pub(crate) fn set_max_series(&self, series: u64) {
        self.shared.max_series.store(series, Ordering::Relaxed);
        if let Some(bus) = &self.bus {
            self.tell_limit(bus);
        }
    }

    /// Says on the bus how many series the metric may have, once it is there.
    fn tell_limit(&self, bus: &Bus) {
        let series = self.shared.max_series.load(Ordering::Relaxed);
        if series != UNSAID
            && let Some(family) = bus.family_id(self.name())
        {
            bus.set_max_series(family, series);
        }
    }

    /// Warns once where a series is counted in one that stands for all beyond the metric's limit.
    fn warn_of_overflow(&self, py: Python<'_>, bus: &Bus, series: SeriesId) -> PyResult<()> {
        let size = || bus.family_size(bus.family_of(series)?);
        let Some(limit) = size().and_then(|size| size.limit.filter(|limit| size.series >= *limit))
        else {
            return Ok(());
        };
        let labels = bus
            .series(series)
            .map_or(Vec::new(), |series| series.labels);
        let overflowing = labels.iter().filter(|(_, value)| value == OVERFLOW);
        let names: Vec<&str> = overflowing.map(|(name, _)| &**name).collect();
        if names.is_empty() {
            return Ok(());
        }
        let what = format_args!(
            "metric {} has {limit} series, as many as it may have: values of its label {} that are \
             new are counted under {OVERFLOW:?} from now on; a label with fewer values is better, \
             else set_max_series() raises the limit",
            self.name(),
            names.join(", ")
        );
        error::overflow(py, &self.shared.is_overflow_told, what)
    }

    fn series(&self, bus: &Bus, series: SeriesId) -> Target {
        let definition = self.definition();
        let handle = qbus::Handle::new(bus, series, Clock::Precise, &definition.buckets);
        let state = match definition.metric_type {
            MetricType::Counter => State::Counter(handle.clone().into()),
            MetricType::Histogram => State::Histogram(handle.clone().into()),
            MetricType::Gauge | MetricType::Summary | MetricType::Untyped => State::None,
        };
        Target::Series(Box::new(handle), state)
    }

    /// What `labels()` gives.
    pub(crate) fn labels<'py>(
        &self,
        given: &Bound<'py, PyTuple>,
        named: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Child<'py>> {
        let py = given.py();
        let Some(children) = &self.children else {
            return Err(self.has_no_labels(py));
        };
        let children = children.bind(py);
        let is_plain = || {
            given
                .iter_borrowed()
                .all(|value| value.is_exact_instance_of::<PyString>())
        };
        // The hash of a string is no Python code.
        if named.is_none()
            && is_plain()
            && let Some(child) = children.get_item(given)?
        {
            return Ok(Child::Known(child));
        }
        let values = ending::python(py, || self.values(given, named))?;
        if let Some(child) = children.get_item(&values)? {
            return Ok(Child::Known(child));
        }
        let label_values = texts(&values)?;
        let mut child = Handle {
            bus: self.bus.clone(),
            shared: self.shared.clone(),
            children: None,
            label_values,
            target: Target::Refused,
        };
        child.target = child.register(py)?;
        Ok(Child::New(Arc::new(child), values))
    }

    /// Keeps a series that `labels()` made, unless there was no room for it, or it is one of very
    /// many that are counted in another one: another time there may be room. Gives the one that
    /// another thread made meanwhile, if one did.
    pub(crate) fn keep<'py>(
        &self,
        values: &Bound<'py, PyTuple>,
        made: &Handle,
        child: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (Target::Series(series, _), Some(children)) = (&made.target, &self.children) else {
            return Ok(child);
        };
        let children = children.bind(values.py());
        if children.len() >= KEPT && self.is_overflow(series.series()) {
            return Ok(child);
        }
        children.call_method1("setdefault", (values, child))
    }

    /// Whether a series stands for those beyond the metric's limit.
    fn is_overflow(&self, series: SeriesId) -> bool {
        let found = self.bus.as_ref().and_then(|bus| bus.series(series));
        let labels = found.map_or(Vec::new(), |found| found.labels);
        labels.iter().any(|(_, value)| value == OVERFLOW)
    }

    /// Takes the series off the page of all processes; the next emit brings it back.
    pub(crate) fn forget(&self, py: Python<'_>) {
        if let Target::Series(handle, _) = &self.target {
            ending::detach(py, || handle.forget());
        }
    }

    /// Takes a series off the page, whoever made it: see [`forget`](Self::forget).
    pub(crate) fn remove(&self, given: &Bound<'_, PyTuple>) -> PyResult<()> {
        let py = given.py();
        let Some(children) = &self.children else {
            return Err(self.has_no_labels(py));
        };
        let values = ending::python(py, || self.values(given, None))?;
        let _ = children.bind(py).del_item(&values);
        self.remove_all(&values)
    }

    fn remove_all(&self, values: &Bound<'_, PyTuple>) -> PyResult<()> {
        let names = self.shared.label_names.iter().cloned();
        let labels = names.zip(texts(values)?).collect::<Vec<_>>();
        if let Some(bus) = &self.bus {
            ending::detach(values.py(), || self.forget_all(bus, &labels));
        }
        Ok(())
    }

    fn forget_all(&self, bus: &Bus, labels: &[(String, String)]) {
        if !self.definition().merge.is_by_process() {
            if let Some(id) = bus.find(self.name(), labels) {
                bus.forget(id);
            }
            return;
        }
        // Those of all processes.
        for id in bus.series_ids() {
            let Some(mut series) = bus.series(id) else {
                continue;
            };
            series
                .labels
                .retain(|(name, _)| name != Merge::PROCESS_LABEL);
            let family = bus.family(series.family);
            if series.labels == labels && family.is_some_and(|family| family.name == self.name()) {
                bus.forget(id);
            }
        }
    }

    /// Takes all series that this process made off the page.
    pub(crate) fn clear(&self, py: Python<'_>) -> PyResult<()> {
        let Some(children) = &self.children else {
            return Ok(());
        };
        let children = children.bind(py);
        // One by one: what all of them were would be freed in one go. Another thread may be faster.
        for at in 0..children.len() {
            let Ok(pair) = children.call_method0("popitem") else {
                break;
            };
            self.remove_all(pair.get_item(0)?.cast::<PyTuple>()?)?;
            ending::share(py, at)?;
        }
        Ok(())
    }

    #[cold]
    fn has_no_labels(&self, py: Python<'_>) -> PyErr {
        let name = self.name();
        error::metric(
            py,
            format_args!("metric {name}: labels() is for a metric with labelnames"),
        )
    }

    /// The label values of a call of `labels()` as strings, in the order of the names.
    fn values<'py>(
        &self,
        given: &Bound<'py, PyTuple>,
        named: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let py = given.py();
        let (name, names) = (self.name(), &self.shared.label_names);
        let mismatch = || {
            error::metric(
                py,
                format_args!(
                    "metric {name}: its labels are {names:?}, and labels() was called with others"
                ),
            )
        };
        if names.is_empty() {
            return Err(self.has_no_labels(py));
        }
        let values = match named {
            Some(named) if !named.is_empty() => {
                if !given.is_empty() || named.len() != names.len() {
                    return Err(mismatch());
                }
                let value = |name: &String| {
                    let value = named.get_item(name)?.ok_or_else(mismatch)?;
                    label_value(value)
                };
                names.iter().map(value).collect::<PyResult<Vec<_>>>()?
            }
            _ if given.len() == names.len() => {
                given.iter().map(label_value).collect::<PyResult<_>>()?
            }
            _ => return Err(mismatch()),
        };
        PyTuple::new(py, values)
    }

    #[inline]
    pub(crate) fn emit(
        &self,
        py: Python<'_>,
        clock: Clock,
        kind: Kind,
        value: f64,
        trace_id: u128,
    ) -> PyResult<()> {
        let (Target::Series(handle, state), Some(bus)) = (&self.target, &self.bus) else {
            return self.not_a_series(py);
        };
        waiting::get_ready(py, bus);
        let added = match state {
            State::Counter(counter) if trace_id == 0 => Some(counter.try_add(value)),
            State::Histogram(histogram) if trace_id == 0 => Some(histogram.try_observe(value)),
            _ => None,
        };
        match added {
            Some(Ok(())) => return Ok(()),
            Some(Err(error)) => return self.failed(py, error),
            None => {}
        }
        let record = Record::new(clock.now_ns(), handle.series(), kind, value);
        let record = Record { trace_id, ..record };
        if !bus.has_room() {
            waiting::for_room(py, bus)?;
        }
        match handle.try_emit(record) {
            Ok(()) => Ok(()),
            Err(error) => self.failed(py, error),
        }
    }

    /// Emits one record for many equal observations.
    pub(crate) fn emit_many(
        &self,
        py: Python<'_>,
        kind: Kind,
        value: f64,
        count: u64,
    ) -> PyResult<()> {
        let (Target::Series(handle, _), Some(bus)) = (&self.target, &self.bus) else {
            return self.not_a_series(py);
        };
        waiting::get_ready(py, bus);
        let record = Record::new(Clock::Precise.now_ns(), handle.series(), kind, value);
        let record = Record { count, ..record };
        if !bus.has_room() {
            waiting::for_room(py, bus)?;
        }
        match handle.try_emit(record) {
            Ok(()) => Ok(()),
            Err(error) => self.failed(py, error),
        }
    }

    /// Whether values can be emitted to it: a family with labels says what to do instead.
    pub(crate) fn check_is_series(&self, py: Python<'_>) -> PyResult<()> {
        match self.target {
            Target::Series(..) | Target::Refused => Ok(()),
            Target::Family => Err(error::metric(
                py,
                format_args!(
                    "metric {} has the labels {:?}: call labels() first",
                    self.name(),
                    self.shared.label_names
                ),
            )),
        }
    }

    #[cold]
    fn failed(&self, py: Python<'_>, error: EmitError) -> PyResult<()> {
        match error {
            // A negative increment is a mistake of the program. What is not finite is data: it is
            // counted as rejected, and never ends the loop that it came up in.
            EmitError::Value { found, .. } if found.is_finite() => Err(error::metric(
                py,
                format_args!("metric {}: {error}", self.name()),
            )),
            error => error::not_emitted(py, self.name(), error, self.bus.as_ref()),
        }
    }

    #[cold]
    fn not_a_series(&self, py: Python<'_>) -> PyResult<()> {
        self.check_is_series(py)?;
        // It was told when the series was refused.
        self.shared.collector.get().count_lost();
        Ok(())
    }

    pub(crate) fn repr(&self, class: &str) -> String {
        let labels = self.shared.label_names.iter().zip(&self.label_values);
        let labels: Vec<_> = labels
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        let name = self.name();
        if labels.is_empty() {
            format!("{class}({name})")
        } else {
            format!("{class}({name}{{{}}})", labels.join(","))
        }
    }

    /// A handle pickles as its definition, and finds the bus of the process that loads it.
    pub(crate) fn reduce<'py>(
        &self,
        py: Python<'py>,
        class: &str,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let rebuild = py.import("qbus._collector")?.getattr("rebuild")?;
        let family = self.definition();
        let window = family.window;
        let registry = (!self.shared.is_default).then(|| self.shared.collector.clone_ref(py));
        let arguments = (
            class,
            family.name.as_str(),
            family.help.as_str(),
            self.shared.label_names.clone(),
            self.label_values.clone(),
            family.unit.as_str(),
            family.buckets.clone(),
            registry,
            family.merge.as_str(),
            (window.length.as_secs_f64(), window.steps),
            family.native,
        );
        (rebuild, arguments).into_pyobject(py)
    }
}

/// Label values as Rust has them.
fn texts(values: &Bound<'_, PyTuple>) -> PyResult<Vec<String>> {
    let text = |value: Bound<'_, PyAny>| Ok(value.cast_into::<PyString>()?.to_str()?.to_owned());
    values.iter().map(text).collect()
}

fn default_collector(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static DEFAULT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let collector = ending::python(py, || {
        DEFAULT.import(py, "qbus._collector", "get_metrics_collector")
    });
    calls::call_without(collector?)
}
