//! A scan of the whole process table, as sysinfo reads it.

use sysinfo::{ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System};

use super::memory::made;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::table::Reading;

/// States, by the kernel's letters.
const STATES: [(ProcessStatus, &str); 8] = [
    (ProcessStatus::Run, "R"),
    (ProcessStatus::Sleep, "S"),
    (ProcessStatus::UninterruptibleDiskSleep, "D"),
    (ProcessStatus::Idle, "I"),
    (ProcessStatus::Zombie, "Z"),
    (ProcessStatus::Stop, "T"),
    (ProcessStatus::Tracing, "t"),
    (ProcessStatus::Dead, "X"),
];

/// Counts processes by state.
#[derive(Default)]
pub(crate) struct AllProcesses {
    system: Option<System>,
}

impl Probe for AllProcesses {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let system = made(&mut self.system)?;
        // Threads would be listed among the processes.
        let what = ProcessRefreshKind::nothing().without_tasks();
        system.refresh_processes_specifics(ProcessesToUpdate::All, true, what);
        let processes = system.processes();
        let mut others = processes.len();
        for (status, letter) in STATES {
            let count = processes
                .values()
                .filter(|process| process.status() == status)
                .count();
            others -= count;
            out.push(
                Reading::ProcessesByState,
                &[("state", letter)],
                count as f64,
            );
        }
        out.push(
            Reading::ProcessesByState,
            &[("state", "other")],
            others as f64,
        );
        Ok(())
    }
}
