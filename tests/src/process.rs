//! Processes that end with their test, and waits that end in any case.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use qbus::Address;
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take on a machine that has other work to do.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Waits until `condition` holds.
///
/// # Panics
///
/// It does not hold within [`LIMIT`]; `what` says what did not come.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LIMIT, "waited {LIMIT:?} for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A command as somebody types it, with quotes as a shell has them.
///
/// # Panics
///
/// The line is empty, or a quote is not closed.
pub fn command(line: &str) -> Command {
    let words = shlex::split(line).expect("closed quotes");
    let (program, args) = words.split_first().expect("a program");
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// A process that a test started. It is ended, by its id, when the guard is dropped.
///
/// It has to end well, or by SIGKILL, which only tests send: a panic, an error, or any other signal
/// that it ended by fails the test, whoever looks at its status, and however late.
#[derive(Debug)]
pub struct Process {
    name: String,
    expected: i32,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    /// Starts a helper on a bus, with its standard input and output at the test's hands.
    pub fn start(program: &str, address: &Address, args: &[String]) -> Process {
        let mut command = Command::new(program);
        command.arg(address.to_string()).args(args);
        Self::spawn(command)
    }

    /// Starts a command, with its standard input and output at the test's hands.
    pub fn spawn(mut command: Command) -> Process {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let name = format!("{command:?}");
        let mut child = command.spawn().expect("the helper starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("a piped output"));
        let (sender, lines) = channel();
        // Ends with the pipe; a helper's descendant may hold it longer than the test runs.
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Process {
            name,
            expected: 0,
            child,
            input,
            lines,
        }
    }

    /// Starts a helper, and waits until it says that it is ready.
    pub fn ready(program: &str, address: &Address, args: &[String]) -> Process {
        let process = Process::start(program, address, args);
        assert_eq!(process.line(), "ready", "of {program}");
        process
    }

    /// Its pid.
    pub fn pid(&self) -> u64 {
        u64::from(self.child.id())
    }

    /// Its next line.
    pub fn line(&self) -> String {
        let line = self.lines.recv_timeout(LIMIT);
        line.unwrap_or_else(|error| panic!("pid {} says nothing more: {error}", self.child.id()))
    }

    /// Its next line; `None` when it has ended.
    pub fn try_line(&self) -> Option<String> {
        match self.lines.recv_timeout(LIMIT) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(error) => panic!("pid {} says nothing more: {error}", self.child.id()),
        }
    }

    /// Writes it a line.
    pub fn tell(&mut self, line: &str) {
        let input = self.input.as_mut().expect("an open input");
        writeln!(input, "{line}").expect("the helper listens");
    }

    /// Closes its input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a pid");
        kill_process(pid, signal).expect("the helper is there");
    }

    /// Ends it with SIGKILL, and waits until the kernel has.
    pub fn kill(mut self) {
        self.child.kill().expect("the helper is there");
        let status = self.child.wait().expect("the helper ends");
        self.check(status);
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.status().is_none()
    }

    /// Whether it is stopped by a signal.
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        // After the name in parentheses, which may hold anything.
        let stat = stat.unwrap_or_default();
        let after = stat.rsplit(')').next().unwrap_or_default();
        after.trim_start().starts_with('T')
    }

    /// How it ended, well or by SIGKILL; `None` while it runs.
    pub fn status(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("a child");
        status.inspect(|status| self.check(*status))
    }

    fn check(&self, status: ExitStatus) {
        let killed = status.signal() == Some(Signal::KILL.as_raw());
        let is_expected = status.code() == Some(self.expected);
        assert!(is_expected || killed, "{}: {status}", self.name);
    }

    /// Waits until nobody holds its output any more: it has ended, and so have all that it forked.
    pub fn await_silence(&self) {
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("pid {} or a child of it goes on", self.child.id())
                }
            }
        }
    }

    /// Closes its input and waits for its end.
    pub fn end_well(self) {
        self.end_with(0);
    }

    /// As [`end_well`](Self::end_well), for one that has to end with that exit status.
    pub fn end_with(mut self, code: i32) {
        self.input = None;
        self.expected = code;
        let child = &mut self.child;
        let mut status = None;
        until("a helper to end", || {
            status = child.try_wait().expect("a child");
            status.is_some()
        });
        let status = status.expect("it ended");
        assert_eq!(status.code(), Some(code), "{}: {status}", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        if let Ok(status) = self.child.wait()
            && !thread::panicking()
        {
            self.check(status);
        }
    }
}

/// What a command that ran to its end has left.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// Runs a command to its end, with `input` as its standard input.
///
/// # Panics
///
/// It does not end within [`LIMIT`]; it is ended then.
pub fn run(command: &mut Command, input: &str) -> Finished {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = Ended(command.spawn().expect("the command starts"));
    let mut stdin = child.0.stdin.take().expect("a piped input");
    // All three at once: a full pipe must not make it wait for this test.
    let (input, bytes) = (input.to_owned(), |mut from: Box<dyn Read + Send>| {
        thread::spawn(move || {
            let mut all = Vec::new();
            let _ = from.read_to_end(&mut all);
            String::from_utf8_lossy(&all).into_owned()
        })
    });
    let _ = thread::spawn(move || {
        let _ = stdin.write_all(input.as_bytes());
    });
    let out = bytes(Box::new(child.0.stdout.take().expect("a piped output")));
    let err = bytes(Box::new(child.0.stderr.take().expect("a piped error")));
    let mut status = None;
    until(&format!("the end of {command:?}"), || {
        status = child.0.try_wait().expect("a child");
        status.is_some()
    });
    Finished {
        code: status.and_then(|status| status.code()),
        out: out.join().expect("read"),
        err: err.join().expect("read"),
    }
}

/// A child that is ended when a wait for it fails.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
