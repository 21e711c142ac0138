//! Programs that are measured as whole processes.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Those that are there.
#[derive(Debug, Default)]
pub struct Programs {
    /// The `qbus` command, built for release.
    pub qbus: Option<PathBuf>,
    /// A Python that has prometheus_client.
    pub python: Option<PathBuf>,
}

/// The size of a program of this package without its symbols, in KiB; `None` without `strip`.
pub fn stripped_kib(name: &str) -> Option<f64> {
    let own = std::env::current_exe().ok()?;
    let folder = tempfile::tempdir().ok()?;
    let stripped = folder.path().join(name);
    let status = Command::new("strip")
        .arg("-o")
        .arg(&stripped)
        .arg(own.parent()?.join(name))
        .status();
    status.ok().filter(|status| status.success())?;
    Some(stripped.metadata().ok()?.len() as f64 / 1024.0)
}

/// A line of a process's status, in MiB.
pub fn status_mib(pid: u32, key: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: f64 = line
        .trim_start_matches(':')
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    Some(kib / 1024.0)
}

/// Nanoseconds that a process has run so far.
pub fn run_ns(pid: u32) -> Option<f64> {
    let path = format!("/proc/{pid}/schedstat");
    let stat = std::fs::read_to_string(Path::new(&path)).ok()?;
    stat.split_whitespace().next()?.parse().ok()
}
