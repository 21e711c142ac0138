//! What the command says of its work: a line an event, on standard error.

use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;

use clap::ValueEnum;

/// What is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Level {
    /// Why the command ended.
    Error,
    /// Also what goes wrong meanwhile.
    Warn,
    /// Also what it does.
    #[default]
    Info,
}

static LEVEL: OnceLock<Level> = OnceLock::new();

/// Says no more than that from now on.
pub(crate) fn set_level(level: Level) {
    let _ = LEVEL.set(level);
}

/// Says what goes wrong.
pub(crate) fn warn(text: impl Display) {
    say(Level::Warn, text);
}

/// Says what is done.
pub(crate) fn info(text: impl Display) {
    say(Level::Info, text);
}

fn say(level: Level, text: impl Display) {
    if level <= LEVEL.get().copied().unwrap_or_default() {
        let line = line(level, &text.to_string(), is_journal());
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// A line, whatever the text is. The journal wants its priority in front (sd-daemon(3)), and has
/// the name of the program already.
fn line(level: Level, text: &str, is_journal: bool) -> String {
    let text = text.trim_end().replace('\n', " ");
    match (is_journal, level) {
        (false, _) => format!("qbus: {text}"),
        (true, Level::Error) => format!("<3>{text}"),
        (true, Level::Warn) => format!("<4>{text}"),
        (true, Level::Info) => format!("<6>{text}"),
    }
}

/// Whether standard error is a stream of systemd's journal: the one that the environment names.
fn is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let Some((device, inode)) = named.split_once(':') else {
        return false;
    };
    let is = |stat: rustix::fs::Stat| {
        device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino)
    };
    rustix::fs::fstat(io::stderr().as_fd()).is_ok_and(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_and_the_journal_knows_how_bad_it_is() {
        assert_eq!(
            line(Level::Warn, "no room\nfor it\n", false),
            "qbus: no room for it"
        );
        assert_eq!(line(Level::Warn, "no room", true), "<4>no room");
        assert_eq!(line(Level::Info, "ready", true), "<6>ready");
        assert!(Level::Error < Level::Warn && Level::Warn < Level::Info);
    }
}
