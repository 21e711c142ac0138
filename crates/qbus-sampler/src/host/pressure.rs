//! Pressure stall information: for how long threads waited for want of something.

use std::path::Path;

use crate::kernel_file::KernelFile;
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::table::Reading;

/// A file, what its line `some` says and what its line `full` does. For the whole machine the
/// kernel leaves `full` of the CPU at zero, which is no reading.
const FILES: [(&str, Option<Reading>, Option<Reading>); 4] = [
    ("cpu", Some(Reading::PressureCpuWaiting), None),
    (
        "memory",
        Some(Reading::PressureMemoryWaiting),
        Some(Reading::PressureMemoryStalled),
    ),
    (
        "io",
        Some(Reading::PressureIoWaiting),
        Some(Reading::PressureIoStalled),
    ),
    ("irq", None, Some(Reading::PressureIrqStalled)),
];

/// Reads `/proc/pressure`.
pub(crate) struct Pressure {
    files: Vec<(KernelFile, Option<Reading>, Option<Reading>)>,
    buffer: Vec<u8>,
}

impl Pressure {
    pub(crate) fn new(directory: &Path) -> Pressure {
        let files =
            FILES.map(|(name, some, full)| (KernelFile::new(directory.join(name)), some, full));
        Pressure {
            files: files.into(),
            buffer: Vec::new(),
        }
    }
}

impl Probe for Pressure {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let mut absent = None;
        let mut found = false;
        for (file, some, full) in &mut self.files {
            let text = match file.read(&mut self.buffer) {
                Ok(text) => text,
                Err(err) => {
                    match Failure::io(file.path(), &err) {
                        // Not every kernel has all four.
                        Failure::Absent(message) => absent = absent.or(Some(message)),
                        Failure::Failed(message) => out.fail(|| message),
                    }
                    continue;
                }
            };
            found = true;
            for (reading, line) in [(*some, "some "), (*full, "full ")] {
                let seconds = stalled_seconds(text, line);
                if let (Some(reading), Some(seconds)) = (reading, seconds) {
                    out.push(reading, &[], seconds);
                }
            }
        }
        match absent {
            Some(message) if !found => Err(Failure::Absent(message)),
            _ => Ok(()),
        }
    }
}

/// The total of the line that starts so.
pub(crate) fn stalled_seconds(text: &str, line: &str) -> Option<f64> {
    let line = text.lines().find(|candidate| candidate.starts_with(line))?;
    let (_, total) = line.rsplit_once("total=")?;
    total
        .trim()
        .parse::<u64>()
        .ok()
        .map(|microseconds| microseconds as f64 / 1e6)
}
