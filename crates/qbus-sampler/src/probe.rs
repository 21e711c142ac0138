//! What a source is: something that reads one subject at a given time, and can fail.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::time::Instant;

use crate::config::Attached;
use crate::readings::Readings;

/// What a source gets with each read.
#[derive(Clone, Copy, Debug)]
pub struct Tick<'a> {
    /// The time of the tick that asked.
    pub now: Instant,
    /// The processes attached at that time.
    pub attached: &'a [Attached],
}

/// Reads one subject.
pub trait Probe: Send {
    /// Pushes what it reads; what was pushed before an error counts.
    ///
    /// # Errors
    ///
    /// Only what leaves nothing more to read; [`Readings::fail`] is for the rest.
    fn read(&mut self, tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure>;
}

/// Why a source had nothing to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// This machine lacks the subject, which is no fault: tried again after
    /// [`SamplerOptions::retry`](crate::SamplerOptions::retry).
    Absent(String),
    /// Reading failed: tried again when the source is due again.
    Failed(String),
}

impl Failure {
    pub(crate) fn io(path: &Path, err: &io::Error) -> Failure {
        let message = format!("{}: {err}", path.display());
        match err.kind() {
            // PSI that is compiled in but switched off says `Unsupported`.
            io::ErrorKind::NotFound | io::ErrorKind::Unsupported => Failure::Absent(message),
            _ => Failure::Failed(message),
        }
    }
}

/// Reads, and takes a panic for a failure of that source alone.
pub(crate) fn read_guarded(
    probe: &mut dyn Probe,
    tick: &Tick<'_>,
    out: &mut Readings,
) -> Result<(), Failure> {
    panic::catch_unwind(AssertUnwindSafe(|| probe.read(tick, out))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("for an unknown reason");
        Err(Failure::Failed(format!("panicked: {text}")))
    })
}
