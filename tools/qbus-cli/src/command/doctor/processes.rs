//! What the kernel knows of the processes of a bus, and the bus does not.

use qbus_aggregate::{OwnerLedger, ReadOptions, Reader, Value};

use crate::figures::counted;
use crate::health::{Finding, Severity, namespace};
use crate::look::Look;

/// The sampler's words for whether a source was read, and how often it was not.
const SUCCESS: &str = "qbus_sampler_source_success";
const FAILURES: &str = "qbus_sampler_source_failures_total";

pub(super) fn findings(now: &Look) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(elsewhere(now));
    findings.extend(failing_sources(now));
    findings
}

/// Processes whose pids mean nothing here.
fn elsewhere(now: &Look) -> Option<Finding> {
    let here = namespace()?;
    let is_elsewhere = |row: &&OwnerLedger| row.owner.pid_namespace != here;
    let others = now.living().filter(is_elsewhere).count() as u64;
    (others > 0).then(|| {
        let whose = counted(others, "process is", "processes are");
        Finding::new(
            Severity::Note,
            format!("{whose} in another pid namespace"),
            "a container of its own: emitting works as anywhere, but its pid is not one of this \
             namespace, and a sampler here has no CPU time and memory of it",
            "nothing to do; in Kubernetes, shareProcessNamespace gives the sampler a view of it",
        )
    })
}

/// Sources of the sampler whose last read failed. What a machine lacks is no failure.
fn failing_sources(now: &Look) -> Option<Finding> {
    let page = now.page.as_ref().filter(|_| now.is_aggregated())?;
    let matches = |name: &str| [SUCCESS, FAILURES].contains(&name);
    let options = ReadOptions {
        matches: Some(&matches),
        ..ReadOptions::default()
    };
    let snapshot = Reader::open(&page.path).ok()?.read(&options).ok()?;
    let sources = |name: &str, is_bad: fn(&Value) -> bool| -> Vec<&str> {
        let series = snapshot
            .series
            .iter()
            .filter(|series| series.family.name == name);
        let bad = series.filter(|series| is_bad(&series.value));
        bad.flat_map(|series| series.labels.iter().map(|(_, source)| source.as_str()))
            .collect()
    };
    let have_failed = sources(
        FAILURES,
        |value| matches!(value, Value::Counter(sum) if sum.value() > 0.0),
    );
    let mut failing = sources(SUCCESS, |value| *value == Value::Gauge(0.0));
    failing.retain(|source| have_failed.contains(source));
    let first = failing.first()?;
    Some(Finding::new(
        Severity::Look,
        format!("the sampler could not read all of {}", failing.join(", ")),
        "their samples are missing or incomplete; all others are there",
        format!("qbus sample --collect {first} says why; --no-collect {first} leaves it out"),
    ))
}
