//! What the kernel knows of the processes of a bus, and the bus does not.

use std::fs;
use std::os::unix::fs::MetadataExt;

use qbus::Address;
use qbus_aggregate::{ReadOptions, Reader, Value};

use crate::figures::counted;
use crate::health::{Finding, Severity};
use crate::look::{Look, named};

/// The sampler's words for whether a source was read, and how often it was not.
const SUCCESS: &str = "qbus_sampler_source_success";
const FAILURES: &str = "qbus_sampler_source_failures_total";

pub(super) fn findings(now: &Look) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(stopped(now));
    findings.extend(elsewhere(now));
    findings.extend(failing_sources(now));
    findings
}

/// The inode of this process's pid namespace.
fn namespace() -> Option<u64> {
    let namespace = fs::metadata("/proc/self/ns/pid").ok()?;
    Some(namespace.ino())
}

/// Processes that somebody stopped: a signal, a debugger.
fn stopped(now: &Look) -> Vec<Finding> {
    let here = namespace();
    let mut findings = Vec::new();
    let aggregator = now.aggregator.filter(|aggregator| aggregator.alive);
    if let Some(aggregator) = aggregator
        && is_stopped(aggregator.pid, None)
        && has_mapped(aggregator.pid, &now.address)
    {
        findings.push(Finding::new(
            Severity::Look,
            format!("the aggregator, pid {}, is stopped", aggregator.pid),
            "the page does not move, and what full lanes have no room for is dropped",
            continued(aggregator.pid),
        ));
    }
    for row in now.workers() {
        let owner = &row.owner;
        let is_here = Some(owner.pid_namespace) == here;
        if is_here && is_stopped(owner.pid, Some(owner.pid_start_ticks)) {
            findings.push(Finding::new(
                Severity::Note,
                format!("the process {} is stopped", named(owner)),
                "it emits nothing meanwhile, and hinders nobody",
                continued(owner.pid),
            ));
        }
    }
    findings
}

fn continued(pid: u64) -> String {
    format!("kill -CONT {pid}; where a debugger has it, let it go on")
}

/// Whether the process of that pid is stopped, and started then.
fn is_stopped(pid: u64, start_ticks: Option<u64>) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // Behind the command in parentheses, which may hold anything: the state is field 3, the start
    // field 22.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let mut fields = fields.split_ascii_whitespace();
    let is_stopped = matches!(fields.next(), Some("T" | "t"));
    let started = fields.nth(18).and_then(|ticks| ticks.parse().ok());
    is_stopped && (start_ticks.is_none() || start_ticks == started)
}

/// Whether the process of that pid has the bus open: where it has not, the pid is that of another
/// process here.
fn has_mapped(pid: u64, address: &Address) -> bool {
    let file = address.file().display().to_string();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.lines().any(|line| line.ends_with(&file))
}

/// Processes whose pids mean nothing here.
fn elsewhere(now: &Look) -> Option<Finding> {
    let here = namespace()?;
    let living = now.ledger.owners.iter().filter(|row| row.owner.alive);
    let others = living.filter(|row| row.owner.pid_namespace != here).count() as u64;
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
