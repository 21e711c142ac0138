//! Processes that somebody stopped.

use std::fs;
use std::os::unix::fs::MetadataExt;

use qbus::Address;

use super::{Finding, Severity};
use crate::look::{Look, named};

/// The inode of this process's pid namespace.
pub(crate) fn namespace() -> Option<u64> {
    let namespace = fs::metadata("/proc/self/ns/pid").ok()?;
    Some(namespace.ino())
}

/// Processes that somebody stopped: a signal, a debugger.
pub(super) fn stopped(now: &Look) -> Vec<Finding> {
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
