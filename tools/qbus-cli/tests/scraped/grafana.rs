//! What is shipped for Prometheus and Grafana: each rule and each expression is asked of a
//! Prometheus that scraped a bus.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use qbus_tests::{command, run, until};
use serde_json::Value;

use crate::monitor::{Monitor, is_installed};

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../dist")
        .join(path)
}

/// The rules that are shipped.
pub(crate) fn rules() -> PathBuf {
    shipped("prometheus/rules.yml")
        .canonicalize()
        .expect("it is shipped")
}

/// A GPU for the aggregator to sample; the library's path.
pub(crate) fn fake_gpu(folder: &Path) -> String {
    fake_nvml::copy(folder, GPU).display().to_string()
}

const GPU: &str = "
    driver = 580.82.07
    count = 1
    0.uuid = GPU-one
    0.name = NVIDIA H100
    0.memory = 85899345920 1073741824 4294967296
    0.utilization = 40 7
    0.power = 250500
    0.power_limit = 700000
    0.temperature0 = 55
    0.throttle_reasons = 4
    0.ecc0_0 = 0
    0.ecc1_0 = 0
";

#[test]
fn the_rules_do_as_their_cases_say() {
    if !is_installed("promtool") {
        return;
    }
    for line in ["check rules rules.yml", "test rules rules_test.yml"] {
        let mut promtool = command(&format!("promtool {line}"));
        let done = run(promtool.current_dir(shipped("prometheus")), "");
        assert_eq!(done.code, Some(0), "{line}: {done:?}");
    }
}

/// What only some machines have, or only after something happened.
const SELDOM: [&str; 10] = [
    "qbus_cgroup_cpu_periods_total",
    "qbus_cgroup_cpu_throttled_periods_total",
    "qbus_cgroup_memory_events_total",
    "qbus_cgroup_memory_limit_bytes",
    "qbus_cgroup_memory_working_set_bytes",
    "qbus_gpu_row_remapping_failed",
    "qbus_gpu_row_remapping_pending",
    "qbus_gpu_throttle_seconds_total",
    "qbus_gpu_xid_errors_total",
    "qbus_overflow_records_total",
];

/// Asks for each metric that a rule names: the cases of the rules make their own series, and would
/// not notice one that nobody has.
pub(crate) fn every_metric_of_the_rules_is_there(prometheus: &Monitor) {
    let text = fs::read_to_string(rules()).expect("it is shipped");
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c| !is_of_name(c));
    let names: BTreeSet<&str> = words.filter(|word| word.starts_with("qbus_")).collect();
    assert!(names.len() > 30, "{} metrics", names.len());
    for name in names.into_iter().filter(|name| !SELDOM.contains(name)) {
        until(name, || !prometheus.query(name).is_empty());
    }
}

/// A panel, and all that lies in it.
fn expressions(panel: &Value, found: &mut Vec<(String, String)>) {
    let title = panel["title"].as_str().unwrap_or_default();
    for target in panel["targets"].as_array().into_iter().flatten() {
        let expression = target["expr"].as_str().expect("an expression");
        found.push((title.to_owned(), expression.to_owned()));
    }
    for inner in panel["panels"].as_array().into_iter().flatten() {
        expressions(inner, found);
    }
}

/// Asks for each expression of the dashboard, as Grafana would, until it has values.
pub(crate) fn every_expression_has_values(prometheus: &Monitor) {
    let text = fs::read_to_string(shipped("grafana/qbus.json")).expect("it is shipped");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let mut all = Vec::new();
    expressions(&dashboard, &mut all);
    assert!(all.len() > 30, "{} expressions", all.len());
    for (title, expression) in all {
        let asked = expression
            .replace("$__rate_interval", "10s")
            .replace("$__range", "1m")
            .replace("$job", "qbus")
            .replace("$instance", ".*");
        assert!(!asked.contains('$'), "{title}: a variable in {asked}");
        until(&format!("values of {title:?}: {asked}"), || {
            !prometheus.query(&asked).is_empty()
        });
    }
    for variable in dashboard["templating"]["list"]
        .as_array()
        .expect("variables")
    {
        let query = variable["query"]
            .as_str()
            .or(variable["query"]["query"].as_str());
        if let Some(values) = query.and_then(|query| query.strip_prefix("label_values(")) {
            let (series, _) = values.rsplit_once(',').expect("a series and a label");
            let series = series.replace("$job", "qbus");
            assert!(!prometheus.query(&series).is_empty(), "{series}");
        }
    }
}
