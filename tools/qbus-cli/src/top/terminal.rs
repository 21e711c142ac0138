//! The terminal: keys in, cells out, and as it was before in the end, whatever the end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qbus::Clock;
use qbus_agent::view::{Ledgers, Source, Unready};
use qbus_aggregate::{ReadOptions, Snapshot};
use ratatui::DefaultTerminal;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::layout::Rect;
use rustix::process::{Signal, getpid, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::draw;
use super::screen::{After, Reading, Screen};
use crate::error::{Doing, Error};

/// A signal that comes while nothing else does is heard after this.
const NAP: Duration = Duration::from_millis(200);
/// Series whose history is read in one go.
const HISTORIES: usize = 400;
/// A screen that is printed has no more lines.
const LINES_MAX: usize = 20_000;

/// What is looked at: a snapshot, and the bus beside it where there is one.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) source: Source,
    pub(crate) ledgers: Ledgers,
}

impl World {
    pub(crate) fn look(&self) -> Result<Reading, Unready> {
        let (snapshot, report) = self.source.read(|reader| {
            let snapshot = reader.read(&ReadOptions::default())?;
            Ok((snapshot, self.ledgers.of(reader)))
        })?;
        Ok(Reading {
            snapshot,
            report,
            now_ns: Clock::Precise.now_ns(),
        })
    }

    fn histories(&self, names: &[String]) -> Option<Snapshot> {
        let matches = |name: &str| names.iter().any(|known| known == name);
        let options = ReadOptions {
            history: true,
            matches: Some(&matches),
        };
        self.source.read(|reader| reader.read(&options)).ok()
    }

    /// Fills the screen's past, a part of it at a time; whether there was something to fill.
    fn fill(&self, screen: &mut Screen) -> bool {
        let names = screen.unfilled(HISTORIES);
        let found = (!names.is_empty())
            .then(|| self.histories(&names))
            .flatten();
        found.map(|snapshot| screen.fill(snapshot)).is_some()
    }
}

/// A terminal that shows a screen; restored when it is dropped, and on a panic before that speaks.
#[derive(Debug)]
struct Session(DefaultTerminal);

impl Session {
    fn start() -> io::Result<Session> {
        // It has panics restore the terminal as well.
        ratatui::try_init().map(Session)
    }

    fn draw(&mut self, screen: &mut Screen) -> io::Result<()> {
        screen.pass(Clock::Precise.now_ns());
        self.0.draw(|frame| {
            let area = frame.area();
            draw::draw(screen, area, frame.buffer_mut());
        })?;
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // After a panic it is restored, and what the panic said is to stay.
        if !thread::panicking() {
            ratatui::restore();
        }
    }
}

/// Shows a screen until a key or a signal ends it.
pub(crate) fn run(screen: &mut Screen, world: &World, tick: Duration) -> Result<(), Error> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, stop.clone()).doing("handle signals")?;
    }
    let mut session = Session::start().doing("set the terminal up")?;
    let mut next = Instant::now() + tick;
    // What is seen at once comes before what was.
    session.draw(screen).doing("draw")?;
    let mut is_filling = true;
    while !stop.load(Ordering::Relaxed) {
        if is_filling {
            is_filling = world.fill(screen);
            session.draw(screen).doing("draw")?;
        }
        let wait = if is_filling {
            Duration::ZERO
        } else {
            next.saturating_duration_since(Instant::now()).min(NAP)
        };
        let mut is_dirty = false;
        // All keys that are waiting, and one drawing: a held key scrolls as fast as it repeats.
        let mut patience = wait;
        while event::poll(patience).doing("read keys")? {
            patience = Duration::ZERO;
            is_dirty = true;
            match event::read().doing("read keys")? {
                Event::Key(key) if key.kind != KeyEventKind::Release => match screen.key(key) {
                    After::Quit => return Ok(()),
                    After::Suspend => {
                        drop(session);
                        suspend();
                        session = Session::start().doing("set the terminal up")?;
                    }
                    After::Draw => {}
                },
                _ => {}
            }
        }
        if Instant::now() >= next {
            next = (next + tick).max(Instant::now());
            is_dirty = true;
            if !screen.frozen {
                match world.look() {
                    Ok(reading) => {
                        screen.take(reading);
                        is_filling = true;
                    }
                    Err(unready) => screen.lose(unready.to_string()),
                }
            }
        }
        if is_dirty {
            session.draw(screen).doing("draw")?;
        }
    }
    Ok(())
}

/// Stops this process as a shell's ^Z does, until it is continued.
fn suspend() {
    let _ = kill_process(getpid(), Signal::TSTP);
}

/// The screen as plain text, as wide as told and as long as need be. Rates take a second reading, a
/// tick after the first, unless nobody writes the snapshot.
pub(crate) fn print(
    screen: &mut Screen,
    world: &World,
    tick: Duration,
    width: u16,
) -> Result<String, Error> {
    screen.once = true;
    while world.fill(screen) {}
    if screen.life() != super::screen::Life::Over {
        thread::sleep(tick);
        match world.look() {
            Ok(reading) => screen.take(reading),
            Err(unready) => screen.lose(unready.to_string()),
        }
    }
    screen.pass(Clock::Precise.now_ns());
    let height = u16::try_from(draw::lines(screen).min(LINES_MAX)).unwrap_or(u16::MAX);
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    draw::draw(screen, area, &mut buffer);
    Ok(text(&buffer))
}

/// The characters of a buffer, line by line, without blanks and empty lines at the ends.
pub(crate) fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let mut text = String::new();
    for line in buffer.content.chunks(width) {
        let mut skip = 0;
        let mut written = String::new();
        for cell in line {
            // A wide character has the next cell as well.
            if skip == 0 {
                written.push_str(cell.symbol());
            }
            skip = if skip > 0 {
                skip - 1
            } else {
                unicode_width::UnicodeWidthStr::width(cell.symbol()).saturating_sub(1)
            };
        }
        text.push_str(written.trim_end());
        text.push('\n');
    }
    let len = text.trim_end().len();
    text.truncate(len);
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "it panics on the terminal that it has: for the next test"]
    fn panics_on_a_terminal() {
        let _session = Session::start().unwrap();
        thread::sleep(Duration::from_millis(100));
        panic!("on purpose");
    }

    #[test]
    fn a_panic_is_read_on_a_terminal_as_it_was() {
        let Some(terminal) = qbus_tests::Terminal::open() else {
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let before = terminal.settings(&folder.path().join("before"));
        let program = std::env::current_exe().unwrap();
        let name = "top::terminal::tests::panics_on_a_terminal";
        terminal.run(&format!(
            "{} --exact {name} --ignored --nocapture; echo ended-$?",
            program.display()
        ));
        let screen = terminal.until("ended-101");
        assert!(screen.contains("on purpose"), "{screen}");
        assert!(!terminal.is_alternate() && terminal.has_cursor());
        assert_eq!(terminal.settings(&folder.path().join("after")), before);
    }
}
