//! The `qbus` command.

mod args;
mod command;
mod error;
mod sampling;

use std::io::{self, BufWriter, ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::error::Error;

fn main() -> ExitCode {
    let args = Args::parse();
    let mut out = BufWriter::new(io::stdout().lock());
    match command::run(args, &mut out).and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        // `qbus dump | head` closed the pipe on purpose.
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            // What was written before the error is the user's.
            let _ = out.flush();
            let _ = writeln!(io::stderr(), "qbus: {error}");
            error.exit_code()
        }
    }
}
