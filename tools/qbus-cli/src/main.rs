//! The `qbus` command.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A name that cannot be told is found again by the search path.
    let program = env::current_exe().unwrap_or_else(|_| "qbus".into());
    qbus_cli::run(&program, env::args_os()).into()
}
