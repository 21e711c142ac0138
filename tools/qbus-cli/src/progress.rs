//! A bar on a terminal, and nothing elsewhere.

use std::io::{self, IsTerminal, Write};

use rustix::termios::tcgetwinsize;

/// Of a terminal that does not say how wide it is.
const COLUMNS: usize = 80;

/// Progress of something that takes long, on standard error; it is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    is_terminal: bool,
}

impl Progress {
    pub(crate) fn new() -> Progress {
        Progress {
            is_terminal: io::stderr().is_terminal(),
        }
    }

    /// Whether anybody sees it.
    pub(crate) fn is_shown(&self) -> bool {
        self.is_terminal
    }

    /// Shows a part of 1, and what is being done. A line that is as wide as the terminal would
    /// begin another one each time.
    pub(crate) fn show(&self, done: f64, what: &str) {
        if self.is_terminal {
            let line = line(done, what, columns() - 1);
            let _ = write!(io::stderr(), "\r{line}\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn columns() -> usize {
    let size = tcgetwinsize(io::stderr()).map(|size| usize::from(size.ws_col));
    size.ok().filter(|&columns| columns > 1).unwrap_or(COLUMNS)
}

fn line(done: f64, what: &str, width: usize) -> String {
    let bar = "#".repeat((done.clamp(0.0, 1.0) * 20.0) as usize);
    let line = format!("[{bar:<20}] {:>3.0} %  {what}", done * 100.0);
    line.chars().take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_line_fits_its_terminal() {
        assert_eq!(
            line(0.5, "emit cost", 79),
            "[##########          ]  50 %  emit cost"
        );
        assert_eq!(
            line(1.5, "emit cost", 39),
            "[####################] 150 %  emit cost"[..39]
        );
        assert_eq!(line(0.5, "µs to go", 34).chars().count(), 34);
    }
}
