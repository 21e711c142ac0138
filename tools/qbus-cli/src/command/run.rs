//! `qbus run`

use std::borrow::Cow;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;

use qbus::{Address, Bus};
use qbus_agent::{Agent, AgentOptions, StartError};
use qbus_aggregate::AggregateError;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args::Run;
use crate::error::{Doing, Error};
use crate::log::warn;

/// Overrides what the interpreter says belongs on PYTHONPATH.
const FOLDER: &str = "QBUS_SHIM";
/// Bytes of a script that say what runs it.
const FIRST_LINES: u64 = 4_096;

pub(crate) fn run(address: &Address, run: &Run) -> Result<(), Error> {
    // Before the program is there to be orphaned.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).doing("handle signals")?;
    let (program, arguments) = run
        .command
        .split_first()
        .ok_or_else(|| Error::failed("there is no program to run: qbus run -- python app.py"))?;
    let folder = shim(program)?;
    if let Some(option) = without_shim(program, arguments) {
        warn(format_args!(
            "{} {option} reads no PYTHONPATH or runs no sitecustomize: what it counts is not on \
             the bus, leave the option out",
            program.display()
        ));
    }
    let bus = Bus::open_or_create(address, &qbus::BusOptions::default()).map_err(Error::failed)?;
    // Whoever aggregates it already goes on.
    let agent = match Agent::start(&bus, AgentOptions::default(), warn) {
        Ok(agent) => Some(agent),
        Err(StartError::Aggregate(AggregateError::Consume(qbus::ConsumeError::Taken {
            ..
        }))) => None,
        Err(error) => return Err(Error::failed(error)),
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env("QBUS", address.to_string())
        .env("PYTHONPATH", python_path(&folder))
        .spawn()
        .doing(format_args!("run {}", program.display()))?;
    let status = wait(&mut child, &mut signals).doing("wait for the program")?;
    if let Some(agent) = agent {
        agent.stop();
    }
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Error::Ended(u8::try_from(code).unwrap_or(1))),
        // As a shell says it.
        None => Err(Error::Ended(128 + status.signal().unwrap_or(0) as u8)),
    }
}

/// Waits for the program, and passes signals on to it.
fn wait(child: &mut Child, signals: &mut Signals) -> std::io::Result<ExitStatus> {
    let pid = Pid::from_child(child);
    let handle = signals.handle();
    thread::scope(|scope| {
        scope.spawn(|| {
            for signal in signals.forever() {
                let signal = match signal {
                    SIGINT => Signal::INT,
                    SIGHUP => Signal::HUP,
                    _ => Signal::TERM,
                };
                // It may have ended by itself.
                let _ = kill_process(pid, signal);
            }
        });
        let status = child.wait();
        handle.close();
        status
    })
}

/// The folder of the shim: of the interpreter that the program is, or that it will start.
fn shim(program: &OsStr) -> Result<PathBuf, Error> {
    if let Some(folder) = env::var_os(FOLDER) {
        return Ok(folder.into());
    }
    // A package that another interpreter has serves as well: the folder says where it is.
    let mut asked = interpreter(program).into_iter().collect::<Vec<_>>();
    asked.push("python3".into());
    for python in &asked {
        let answer = Command::new(python)
            .args(["-c", "import qbus.shim; print(qbus.shim.FOLDER)"])
            .output();
        if let Some(answer) = answer.ok().filter(|answer| answer.status.success()) {
            let folder = String::from_utf8_lossy(&answer.stdout);
            return Ok(PathBuf::from(folder.trim_end_matches('\n')));
        }
    }
    Err(Error::failed(format_args!(
        "{} has no package qbus, which the program's metrics need: pip install qbus there",
        asked[0].display()
    )))
}

/// The option with which an interpreter does not do what the folder is put on PYTHONPATH for: -I,
/// -E or -S, also among others (`-sE`), before the program that it runs.
fn without_shim<'a>(program: &OsStr, arguments: &'a [OsString]) -> Option<Cow<'a, str>> {
    if !is_python(program) {
        return None;
    }
    let mut arguments = arguments.iter().map(|argument| argument.to_string_lossy());
    while let Some(argument) = arguments.next() {
        let letters = argument
            .strip_prefix('-')
            .filter(|rest| !rest.is_empty() && !rest.starts_with('-'))?;
        for (at, letter) in letters.char_indices() {
            match letter {
                'I' | 'E' | 'S' => return Some(argument.clone()),
                'c' | 'm' => return None,
                // Its value is the rest, or what comes next.
                'W' | 'X' => {
                    if at + 1 == letters.len() {
                        arguments.next();
                    }
                    break;
                }
                _ => {}
            }
        }
    }
    None
}

fn is_python(program: &OsStr) -> bool {
    let name = Path::new(program).file_name();
    name.is_some_and(|name| name.as_bytes().starts_with(b"python"))
}

/// The interpreter that a program is, or that the first line of a script names: an environment's
/// commands run in that environment, whatever else is first on PATH.
fn interpreter(program: &OsStr) -> Option<OsString> {
    if is_python(program) {
        return Some(program.into());
    }
    let places = env::var_os("PATH").unwrap_or_default();
    let script = if program.as_bytes().contains(&b'/') {
        program.into()
    } else {
        env::split_paths(&places)
            .map(|place| place.join(program))
            .find(|path| path.is_file())?
    };
    let mut start = Vec::new();
    let file = File::open(script).ok()?;
    file.take(FIRST_LINES).read_to_end(&mut start).ok()?;
    let text = String::from_utf8_lossy(start.strip_prefix(b"#!")?);
    let mut lines = text.lines();
    // #!/usr/bin/env python3, #!/path/python -s
    if let Some(word) = lines
        .next()?
        .split_whitespace()
        .find(|word| is_python(OsStr::new(word)))
    {
        return Some(word.into());
    }
    // A path with a space, or too long for the kernel, is started by a shell in the second line:
    // exec "/path/python" "$0" "$@", between quotes that hide it from Python.
    let found = lines
        .next()?
        .split('"')
        .find(|word| is_python(OsStr::new(word)))?;
    Some(found.into())
}

fn python_path(folder: &Path) -> OsString {
    let mut path = folder.as_os_str().to_owned();
    if let Some(others) = env::var_os("PYTHONPATH").filter(|others| !others.is_empty()) {
        path.push(":");
        path.push(others);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_leaves_the_shim_out_is_found_before_the_program() {
        let found = |typed: &str| {
            let words = typed.split(' ').map(OsString::from).collect::<Vec<_>>();
            let found = without_shim(&words[0], &words[1..]);
            found.map(Cow::into_owned)
        };
        for (typed, option) in [
            ("python -I app.py", Some("-I")),
            ("/usr/bin/python3.11 -u -sE app.py", Some("-sE")),
            ("python3 -X dev -S -m app", Some("-S")),
            ("python3 -W error::Warning app.py -I", None),
            ("python3 -m app -E", None),
            ("python3 -c -I", None),
            ("python3 - -I", None),
            ("python3", None),
            ("gunicorn -I", None),
        ] {
            assert_eq!(found(typed).as_deref(), option, "{typed}");
        }
    }
}
