//! A terminal with somebody before it: tmux, a server of its own for each test.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Terminals of this process so far.
static TERMINALS: Mutex<u32> = Mutex::new(0);
/// How long a screen may take to show what is expected: a busy machine is slow, and no test is to
/// depend on it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A terminal of 80 × 24 with a shell in it; both end with the guard.
#[derive(Debug)]
pub struct Terminal {
    socket: String,
}

impl Terminal {
    /// Opens one; nothing where there is no tmux, which is said.
    ///
    /// # Panics
    ///
    /// Without tmux where `QBUS_REQUIRE_TMUX` is set, or when the shell does not start.
    pub fn open() -> Option<Terminal> {
        let is_there = Command::new("tmux").arg("-V").output().is_ok();
        if !is_there {
            assert!(
                std::env::var_os("QBUS_REQUIRE_TMUX").is_none(),
                "there is no tmux"
            );
            eprintln!("SKIPPED, it needs tmux");
            return None;
        }
        let number = {
            let mut number = TERMINALS.lock().unwrap_or_else(PoisonError::into_inner);
            *number += 1;
            *number
        };
        let terminal = Terminal {
            socket: format!("qbus-test-{}-{number}", std::process::id()),
        };
        // Its own configuration is nobody's; a shell without one either, whose prompt is known.
        let shell = "env PS1='ready> ' LC_ALL=C.UTF-8 bash --norc --noprofile -i";
        terminal.tmux(["new-session", "-d", "-x", "80", "-y", "24", shell]);
        terminal.until("ready>");
        Some(terminal)
    }

    fn tmux(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
        let output = Command::new("tmux")
            .args(["-u", "-f", "/dev/null", "-L", &self.socket])
            .args(args)
            .env_remove("TMUX")
            .output()
            .expect("tmux runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Types a line, and presses enter.
    pub fn run(&self, line: &str) {
        self.tmux(["send-keys", "-l", line]);
        self.tmux(["send-keys", "Enter"]);
    }

    /// Presses keys, as tmux names them.
    pub fn press(&self, keys: &[&str]) {
        self.tmux(["send-keys"].iter().chain(keys));
    }

    /// Makes it larger or smaller.
    pub fn resize(&self, width: u16, height: u16) {
        let (width, height) = (width.to_string(), height.to_string());
        self.tmux(["resize-window", "-x", &width, "-y", &height]);
    }

    /// What it shows.
    pub fn screen(&self) -> String {
        self.tmux(["capture-pane", "-p"])
    }

    /// Whether it shows its other screen, which leaves the shell's as it was.
    pub fn is_alternate(&self) -> bool {
        self.tmux(["display-message", "-p", "#{alternate_on}"])
            .trim()
            == "1"
    }

    /// Whether the cursor is seen.
    pub fn has_cursor(&self) -> bool {
        self.tmux(["display-message", "-p", "#{cursor_flag}"])
            .trim()
            == "1"
    }

    /// Waits until it shows that; the whole screen.
    ///
    /// # Panics
    ///
    /// When it does not in time.
    pub fn until(&self, part: &str) -> String {
        self.until_screen(part, |screen| screen.contains(part))
    }

    /// Waits until its screen is so; the whole of it.
    ///
    /// # Panics
    ///
    /// When it is not in time.
    pub fn until_screen(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if is_so(&screen) {
                return screen;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "waited for {what:?} on\n{screen}"
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// How the terminal is set: echo, lines, signals. Waits for the shell.
    pub fn settings(&self, file: &Path) -> String {
        let file = file.display();
        self.run(&format!(
            "stty -g > {file}.new; mv {file}.new {file}; echo set-$((1+1))"
        ));
        self.until("set-2");
        self.run("clear");
        self.until_screen("a clear screen", |screen| !screen.contains("set-2"));
        std::fs::read_to_string(file.to_string()).expect("what stty said")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Also while a test fails: nothing may panic here.
        let _ = Command::new("tmux")
            .args(["-L", &self.socket, "kill-server"])
            .output();
    }
}
