//! The `qbus` command, for the binary and for the Python package, which carries it as well.

mod args;
mod command;
mod error;
mod figures;
mod health;
mod log;
mod look;
mod progress;
mod sampling;
mod service;
pub mod stage;
#[cfg(feature = "top")]
mod top;

use std::ffi::OsString;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::args::Args;
use crate::error::Error;

/// What starts this command.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Runs what was typed, its program's name first; the exit code: 0 done or pipe closed, 1 the bus
/// is absent or stale, 2 misuse or failure. `program` is what starts the same command again, for
/// those that need processes of their own.
pub fn run(program: &Path, typed: impl IntoIterator<Item = OsString>) -> u8 {
    let _ = PROGRAM.set(program.to_owned());
    let args = match Args::of(typed.into_iter().collect()) {
        Ok(args) => args,
        Err(error) => {
            // Help and version go to standard output; a closed pipe is the reader's choice.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    match command::run(args, &mut out).and_then(|()| Ok(out.flush()?)) {
        Ok(()) => 0,
        // `qbus dump | head` closed the pipe on purpose.
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::BrokenPipe => 0,
        Err(Error::Ended(code)) => code,
        Err(error) => {
            // What was written before the error is the user's.
            let _ = out.flush();
            let _ = writeln!(io::stderr(), "qbus: {error}");
            error.exit_code()
        }
    }
}

/// The program of a process that runs this command as well.
fn program() -> Result<PathBuf, Error> {
    let unknown = || Error::Failed("it is not known what starts this command".to_owned());
    PROGRAM.get().cloned().ok_or_else(unknown)
}
