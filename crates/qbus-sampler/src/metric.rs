//! What a metric is called and what it measures.

use std::borrow::Cow;

/// How the values of a metric behave in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trend {
    /// A total that only grows, as the kernel keeps it; it starts again when its owner does.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// Nobody says: node_exporter publishes what it takes from the kernel by name so.
    Untyped,
}

/// A metric name with its type, unit and help.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Metric {
    /// The name, with `_total` where its values are totals.
    pub name: Cow<'static, str>,
    /// How its values behave in time.
    pub trend: Trend,
    /// The unit in the plural (`seconds`), or empty where the values are mere numbers.
    pub unit: Cow<'static, str>,
    /// One sentence for a reader of the page.
    pub help: Cow<'static, str>,
}

/// Which names the samples have. A reading that a set has no name for keeps its qbus name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Names {
    /// `qbus_host_…`, `qbus_process_…`, `qbus_cgroup_…`, `qbus_gpu_…`: base units, ratios of 0 to
    /// 1.
    #[default]
    Qbus,
    /// The names, labels and units of node_exporter, so that its dashboards work. CPU values are
    /// then per CPU.
    Node,
    /// The names of the Python module `centralized_metrics_collector`: `system_cpu_percent` and so
    /// on.
    Seed,
}

/// Which names the samples of NVIDIA GPUs have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GpuNames {
    /// Those of [`Names`].
    #[default]
    Same,
    /// The names, labels and units of dcgm-exporter, so that its dashboards work. What it has no
    /// name for keeps that of [`Names`].
    Dcgm,
}

/// One value of one series, as a source read it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'a> {
    /// The source that read it.
    pub source: &'static str,
    /// The metric that was read.
    pub metric: &'a Metric,
    /// Label names and values; together with the metric they occur once in a tick.
    pub labels: &'a [(&'a str, &'a str)],
    /// The value; never NaN and never infinite. That of a counter is the absolute total.
    pub value: f64,
}
