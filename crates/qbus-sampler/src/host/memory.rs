//! Memory and swap, as sysinfo reads them.

use sysinfo::{MemoryRefreshKind, System};

use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::table::Reading;

/// Total, available, free and used. sysinfo knows what to make of a kernel that says nothing of
/// available memory.
#[derive(Default)]
pub(crate) struct Memory {
    system: Option<System>,
}

impl Probe for Memory {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let system = made(&mut self.system)?;
        system.refresh_memory_specifics(MemoryRefreshKind::everything());
        let total = system.total_memory() as f64;
        if total <= 0.0 {
            return Err(Failure::Failed(
                "the memory of the machine can't be read".to_owned(),
            ));
        }
        let available = system.available_memory() as f64;
        out.push(Reading::MemoryTotal, &[], total);
        out.push(Reading::MemoryAvailable, &[], available);
        out.push(Reading::MemoryFree, &[], system.free_memory() as f64);
        out.push(Reading::MemoryUsed, &[], total - available);
        out.push(Reading::MemoryUsedRatio, &[], 1.0 - available / total);
        out.push(Reading::SwapTotal, &[], system.total_swap() as f64);
        out.push(Reading::SwapFree, &[], system.free_swap() as f64);
        out.push(Reading::SwapUsed, &[], system.used_swap() as f64);
        Ok(())
    }
}

/// What sysinfo keeps between two reads, made at the first.
pub(crate) fn made(system: &mut Option<System>) -> Result<&mut System, Failure> {
    match system {
        Some(system) => Ok(system),
        None => match System::new() {
            Ok(made) => Ok(system.insert(made)),
            Err(err) => Err(Failure::Failed(err.to_string())),
        },
    }
}
