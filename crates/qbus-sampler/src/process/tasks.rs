//! Context switches of a process: the kernel counts them by thread and keeps no sum.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::value_of;
use crate::kernel_file::read_once;

/// A file for each thread is dear, and these numbers can wait.
const PERIOD: Duration = Duration::from_secs(5);

/// A process of more threads goes without.
const THREADS_MAX: usize = 512;

/// Sums over all threads that were ever seen.
pub(super) struct Tasks {
    directory: PathBuf,
    read: Option<Instant>,
    threads: HashMap<String, Switches>,
    /// Of threads that ended.
    ended: Switches,
}

/// Voluntary and involuntary ones.
#[derive(Clone, Copy, Default)]
struct Switches {
    voluntary: u64,
    involuntary: u64,
}

impl Tasks {
    pub(super) fn new(process: &Path) -> Tasks {
        Tasks {
            directory: process.join("task"),
            read: None,
            threads: HashMap::new(),
            ended: Switches::default(),
        }
    }

    /// Voluntary and involuntary switches, read anew where that is due.
    pub(super) fn read(&mut self, now: Instant, buffer: &mut Vec<u8>) -> Option<(u64, u64)> {
        if self
            .read
            .is_some_and(|read| now.saturating_duration_since(read) < PERIOD)
        {
            return None;
        }
        self.read = Some(now);
        let entries = fs::read_dir(&self.directory).ok()?;
        let mut last = std::mem::take(&mut self.threads);
        for entry in entries.take(THREADS_MAX + 1).flatten() {
            let Ok(status) = read_once(&entry.path().join("status"), buffer) else {
                continue;
            };
            let Some(switches) = Switches::parse(status) else {
                continue;
            };
            let thread = entry.file_name().to_string_lossy().into_owned();
            if let Some(before) = last.remove(&thread)
                && before.voluntary > switches.voluntary
            {
                // Another thread has got the number.
                self.ended.add(before);
            }
            self.threads.insert(thread, switches);
        }
        last.into_values()
            .for_each(|switches| self.ended.add(switches));
        let mut sum = self.ended;
        self.threads
            .values()
            .for_each(|switches| sum.add(*switches));
        (self.threads.len() <= THREADS_MAX).then_some((sum.voluntary, sum.involuntary))
    }
}

impl Switches {
    fn parse(status: &str) -> Option<Switches> {
        Some(Switches {
            voluntary: value_of(status, "voluntary_ctxt_switches:")?.parse().ok()?,
            involuntary: value_of(status, "nonvoluntary_ctxt_switches:")?
                .parse()
                .ok()?,
        })
    }

    fn add(&mut self, other: Switches) {
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
    }
}
