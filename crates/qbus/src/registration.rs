//! Registering a metric: what it is, and what becomes of its series.

use std::marker::PhantomData;
use std::time::Duration;

use crate::bus::Bus;
use crate::clock::Clock;
use crate::error::RegisterError;
use crate::fork;
use crate::handle::{Counter, Definition, Gauge, Handle, Histogram, Summary};
use crate::record::MetricType;
use crate::registry::{FamilyDefinition, Merge, Window, registered};

/// Upper bounds of a histogram in seconds when none are given: 5 ms to 10 s, as other Prometheus
/// clients have them.
pub const DEFAULT_BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

impl Bus {
    /// A counter of that name.
    pub fn counter(&self, name: &str) -> Registration<'_, Counter> {
        Registration::new(self, name, MetricType::Counter)
    }

    /// A gauge of that name.
    pub fn gauge(&self, name: &str) -> Registration<'_, Gauge> {
        Registration::new(self, name, MetricType::Gauge)
    }

    /// A histogram of that name.
    pub fn histogram(&self, name: &str) -> Registration<'_, Histogram> {
        Registration::new(self, name, MetricType::Histogram)
    }

    /// A summary of that name.
    pub fn summary(&self, name: &str) -> Registration<'_, Summary> {
        Registration::new(self, name, MetricType::Summary)
    }
}

/// A metric that is being described; [`register`](Self::register) gives its handle.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let address = format!("doc-registration-{}", std::process::id()).parse()?;
/// # let bus = qbus::Bus::create(&address, &qbus::BusOptions::default())?;
/// let latency = bus
///     .histogram("inference_latency_seconds")
///     .help("Time from request to answer.")
///     .label("model", "qwen3-vl")
///     .buckets([0.01, 0.1, 1.0])
///     .register()?;
/// latency.observe(0.125);
/// # qbus::Bus::remove(&address, qbus::Removal::Forced)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "nothing is registered before `register` is called"]
pub struct Registration<'a, H> {
    bus: &'a Bus,
    family: FamilyDefinition,
    labels: Vec<(String, String)>,
    clock: Clock,
    is_bound: bool,
    ttl: Option<Duration>,
    max_series: Option<u64>,
    handle: PhantomData<H>,
}

impl<'a, H: From<Handle>> Registration<'a, H> {
    pub(crate) fn new(bus: &'a Bus, name: &str, metric_type: MetricType) -> Registration<'a, H> {
        let buckets = if metric_type == MetricType::Histogram {
            DEFAULT_BUCKETS.to_vec()
        } else {
            Vec::new()
        };
        let clock = if metric_type == MetricType::Counter {
            Clock::Coarse
        } else {
            Clock::Precise
        };
        let family = FamilyDefinition {
            buckets,
            ..FamilyDefinition::new(name, metric_type)
        };
        Registration {
            bus,
            family,
            labels: Vec::new(),
            clock,
            is_bound: false,
            ttl: None,
            max_series: None,
            handle: PhantomData,
        }
    }

    /// What the metric means, for people. The last registration that says so counts.
    pub fn help(mut self, help: &str) -> Self {
        self.family.help = help.to_owned();
        self
    }

    /// The base unit: `seconds`, `bytes`, `ratio`, ….
    pub fn unit(mut self, unit: &str) -> Self {
        self.family.unit = unit.to_owned();
        self
    }

    /// Adds a label.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds labels.
    pub fn labels<N: AsRef<str>, V: AsRef<str>>(
        mut self,
        labels: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let owned = |(name, value): (N, V)| (name.as_ref().to_owned(), value.as_ref().to_owned());
        self.labels.extend(labels.into_iter().map(owned));
        self
    }

    /// Which clock stamps the records.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Binds the series to this process: when it ends, well or not, the series leaves the page. For
    /// what says something of the process itself, such as a gauge of requests in progress, with a
    /// label that tells it from others. Emits of other processes bring it back, and then it stays.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let address = format!("doc-bound-{}", std::process::id()).parse()?;
    /// # let bus = qbus::Bus::create(&address, &qbus::BusOptions::default())?;
    /// let pid = std::process::id().to_string();
    /// let in_progress = bus.gauge("requests_in_progress").label("pid", &pid).bound().register()?;
    /// in_progress.add(1.0);
    /// # qbus::Bus::remove(&address, qbus::Removal::Forced)?;
    /// # Ok(()) }
    /// ```
    pub fn bound(mut self) -> Self {
        self.is_bound = true;
        self
    }

    /// Has series of this family leave the page when nothing was emitted to them for so long, by
    /// the aggregator's clock; zero is for ever. The last registration that says so counts. The
    /// next emit brings a series back, and a counter goes on from its sum.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How many series the family may have; 0 is any number. Else it may have what the bus was made
    /// with, 2,000 as a rule. The last registration that says so counts. What is registered beyond
    /// is counted in another series: the label that had the most values when the limit was reached
    /// has the value [`OVERFLOW`](crate::OVERFLOW) there, so that sums stay exact.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let address = format!("doc-limit-{}", std::process::id()).parse()?;
    /// # let bus = qbus::Bus::create(&address, &qbus::BusOptions::default())?;
    /// let of_user = |user: &str| {
    ///     bus.counter("requests_total").label("user", user).max_series(2).register()
    /// };
    /// let handles = [of_user("ann")?, of_user("bob")?, of_user("cid")?, of_user("dan")?];
    /// let labels = bus.series(handles[3].series()).unwrap().labels;
    /// assert_eq!(labels, [("user".to_owned(), "__overflow__".to_owned())]);
    /// assert_eq!(handles[2].series(), handles[3].series());
    /// # qbus::Bus::remove(&address, qbus::Removal::Forced)?;
    /// # Ok(()) }
    /// ```
    pub fn max_series(mut self, series: u64) -> Self {
        self.max_series = Some(series);
        self
    }

    /// Registers the metric, or finds it registered, and gives a handle.
    ///
    /// # Errors
    ///
    /// An invalid name or label, a conflict with what is registered, or a full registry.
    pub fn register(self) -> Result<H, RegisterError> {
        let bus = self.bus.present();
        let handle = Handle::registered(
            bus,
            Definition {
                labels: registered(&self.labels),
                family: self.family,
                bound: self.is_bound.then(|| fork::generation().word()),
                ttl: self.ttl,
                max_series: self.max_series,
            },
            &self.labels,
            self.clock,
        )?;
        Ok(H::from(handle))
    }
}

impl Registration<'_, Gauge> {
    /// What several processes make of it: each has a value of its own then, also the children that
    /// a process forks.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let address = format!("doc-merge-{}", std::process::id()).parse()?;
    /// # let bus = qbus::Bus::create(&address, &qbus::BusOptions::default())?;
    /// let in_progress = bus.gauge("requests_in_progress").merge(qbus::Merge::LiveSum).register()?;
    /// in_progress.add(1.0);
    /// # qbus::Bus::remove(&address, qbus::Removal::Forced)?;
    /// # Ok(()) }
    /// ```
    pub fn merge(mut self, merge: Merge) -> Self {
        self.family.merge = merge;
        self
    }
}

impl Registration<'_, Histogram> {
    /// Upper bounds of the buckets: finite and ascending; `+Inf` is added by itself.
    pub fn buckets(mut self, bounds: impl IntoIterator<Item = f64>) -> Self {
        self.family.buckets = bounds.into_iter().collect();
        self
    }

    /// Also counts 32 buckets an octave, as Prometheus' native histograms do: quantiles within 1.1
    /// % of any value, exact over all instances, for scrapers that take them. Its observations are
    /// records then, each with its time, as a summary's are; what a full lane does not take counts
    /// in the middle of its bucket.
    pub fn native(mut self) -> Self {
        self.family.native = true;
        self
    }
}

impl Registration<'_, Summary> {
    /// What its quantiles are of: observations of that time before now, which slides in so many
    /// steps; ten minutes in five steps unless this says otherwise. Count and sum are of all time.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let address = format!("doc-window-{}", std::process::id()).parse()?;
    /// # let bus = qbus::Bus::create(&address, &qbus::BusOptions::default())?;
    /// use std::time::Duration;
    /// let waits = bus.summary("wait_seconds").window(Duration::from_secs(60), 6).register()?;
    /// waits.observe(0.25);
    /// let sizes = bus.summary("request_bytes").all_time().register()?;
    /// # qbus::Bus::remove(&address, qbus::Removal::Forced)?;
    /// # Ok(()) }
    /// ```
    pub fn window(mut self, length: Duration, steps: u32) -> Self {
        self.family.window = Window { length, steps };
        self
    }

    /// Has its quantiles be of all observations, however old.
    pub fn all_time(mut self) -> Self {
        self.family.window = Window::ALL_TIME;
        self
    }
}
