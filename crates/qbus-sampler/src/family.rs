//! What a metric is called and what it measures.

/// How the values of a family behave in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A total that only grows, as the kernel keeps it; it starts again when its owner does.
    Counter,
    /// A value that goes up and down.
    Gauge,
}

/// A metric name with its type, unit and help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Family {
    /// The name, with `_total` where the family is a counter.
    pub name: &'static str,
    /// How its values behave in time.
    pub kind: Kind,
    /// The unit in the plural (`seconds`), or empty where the values are mere numbers.
    pub unit: &'static str,
    /// One sentence for a reader of the page.
    pub help: &'static str,
}

/// Which names the samples bear. A reading that a set has no name for keeps its qbus name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Names {
    /// `qbus_host_…`, `qbus_process_…`, `qbus_cgroup_…`, `qbus_gpu_…`: base units, ratios of 0 to 1.
    #[default]
    Qbus,
    /// The names, labels and units of node_exporter, so that its dashboards work. CPU values are
    /// then per CPU.
    Node,
    /// The names of the centralized metrics collector: `system_cpu_percent` and its kin.
    Seed,
}

/// One value of one series, as a source read it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'a> {
    /// The metric that was read.
    pub family: &'static Family,
    /// Label names and values; together with the family they occur once in a tick.
    pub labels: &'a [(&'a str, &'a str)],
    /// The value; never NaN and never infinite. That of a counter is the absolute total.
    pub value: f64,
}
