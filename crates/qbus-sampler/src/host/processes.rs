//! A scan of the whole process table.

use std::path::PathBuf;

use crate::kernel_file::read_once;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::sysfs::items;
use crate::table::Reading;

/// States, by the kernel's letters; all else is `other`.
const STATES: [&str; 8] = ["R", "S", "D", "I", "Z", "T", "t", "X"];

/// Counts processes by state.
pub(crate) struct AllProcesses {
    proc: PathBuf,
    buffer: Vec<u8>,
}

impl AllProcesses {
    pub(crate) fn new(proc: PathBuf) -> AllProcesses {
        AllProcesses {
            proc,
            buffer: Vec::new(),
        }
    }
}

impl Probe for AllProcesses {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let mut counts = [0_u64; STATES.len()];
        let mut others = 0;
        for process in items(&self.proc, "") {
            if !process.name.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            // One that ended meanwhile is not there any more.
            let Ok(stat) = read_once(&process.path.join("stat"), &mut self.buffer) else {
                continue;
            };
            // The command may hold blanks and parentheses of its own.
            let state = stat
                .rsplit_once(") ")
                .and_then(|(_, rest)| rest.get(..1))
                .and_then(|state| STATES.iter().position(|known| *known == state));
            match state {
                Some(place) => counts[place] += 1,
                None => others += 1,
            }
        }
        let states = STATES.iter().copied().zip(counts);
        for (state, count) in states.chain([("other", others)]) {
            out.push(Reading::ProcessesByState, &[("state", state)], count as f64);
        }
        Ok(())
    }
}
