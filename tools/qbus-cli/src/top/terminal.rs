//! The terminal: keys in, cells out, and as it was before in the end, whatever the end.

use std::fs::File;
use std::io::{self, IsTerminal, Stdin};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use qbus::{Address, Clock};
use qbus_agent::view::{Ledgers, SnapshotSource, Unready};
use qbus_aggregate::{ReadOptions, Snapshot};
use ratatui::DefaultTerminal;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::layout::Rect;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, getpid, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::draw;
use super::screen::{After, Reading, Screen};
use crate::error::{Doing, Error};

/// A signal that comes while nothing else does is heard after this.
const NAP: Duration = Duration::from_millis(200);
/// A process that was asked to end and has not ended after this is killed.
const PATIENCE: Duration = Duration::from_secs(2);
/// Series whose history is read in one go.
const HISTORIES: usize = 400;
/// A screen that is printed has no more lines.
const LINES_MAX: usize = 20_000;

/// What is shown: a snapshot, and the bus beside it where there is one.
#[derive(Debug)]
pub(crate) struct World {
    source: SnapshotSource,
    ledgers: Ledgers,
    /// Rates and gaps go by a clock that nobody sets.
    start: Instant,
    start_ns: u64,
}

impl World {
    pub(crate) fn new(snapshot: PathBuf, address: &Address) -> World {
        World {
            source: SnapshotSource::new(snapshot, None),
            ledgers: Ledgers::new(Some(address.clone())),
            start: Instant::now(),
            start_ns: Clock::Precise.now_ns(),
        }
    }

    fn now_ns(&self) -> u64 {
        let passed = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.start_ns.saturating_add(passed)
    }

    pub(crate) fn look(&self) -> Result<Reading, Unready> {
        let (snapshot, report) = self.source.read(|reader| {
            let snapshot = reader.read(&ReadOptions::default())?;
            Ok((snapshot, self.ledgers.of(reader)))
        })?;
        Ok(Reading {
            snapshot,
            report,
            now_ns: self.now_ns(),
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
        let mut is_filled = false;
        if let Some((name, labels)) = screen.unfilled_series() {
            let found = self
                .source
                .read(|reader| Ok(reader.find(name, labels, true)));
            if let Ok(Some(series)) = found {
                screen.store.fill_series(&series);
                is_filled = true;
            }
        }
        let names = screen.unfilled(HISTORIES);
        let found = (!names.is_empty())
            .then(|| self.histories(&names))
            .flatten();
        if let Some(snapshot) = found {
            screen.fill(&names, snapshot);
            is_filled = true;
        }
        is_filled
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

    fn draw(&mut self, screen: &mut Screen, world: &World) -> io::Result<()> {
        screen.pass(world.now_ns());
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

/// What is typed on.
#[derive(Debug)]
enum Keys {
    Stdin(Stdin),
    /// Standard input is something else.
    Terminal(File),
}

/// Why a wait for keys ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    /// Something was typed, or the size changed, or nothing happened: it is to be looked.
    Look,
    /// There is no terminal any more.
    HungUp,
}

impl Keys {
    /// The same that crossterm reads from.
    fn open() -> io::Result<Keys> {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            return Ok(Keys::Stdin(stdin));
        }
        File::open("/dev/tty").map(Keys::Terminal)
    }

    /// Waits for keys. A terminal that hung up must not be read: crossterm would try for ever.
    fn wait(&self, time: Duration) -> Waited {
        let fd = match self {
            Keys::Stdin(stdin) => stdin.as_fd(),
            Keys::Terminal(file) => file.as_fd(),
        };
        let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        let time = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        let ended = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        match poll(&mut polled, Some(&time)) {
            Ok(_) if polled[0].revents().intersects(ended) => Waited::HungUp,
            // A signal is one way in which a size changes.
            _ => Waited::Look,
        }
    }
}

/// Raises the flag at a signal that ends this process, and ends it where nobody looks at the flag:
/// a read may hang, and a thread that spins on a terminal that is gone uses a processor.
fn heed_signals(stop: Arc<AtomicBool>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let heed = move || {
        if signals.forever().next().is_some() {
            stop.store(true, Ordering::Relaxed);
            thread::sleep(PATIENCE);
            ratatui::restore();
            process::exit(2);
        }
    };
    thread::Builder::new()
        .name("qbus-signals".to_owned())
        .spawn(heed)
        .map(drop)
}

/// Shows a screen until a key or a signal ends it.
pub(crate) fn run(screen: &mut Screen, world: &World, tick: Duration) -> Result<(), Error> {
    let stop = Arc::new(AtomicBool::new(false));
    heed_signals(stop.clone()).doing("handle signals")?;
    let keys = Keys::open().doing("open the terminal")?;
    let mut session = Session::start().doing("set the terminal up")?;
    let mut next = Instant::now() + tick;
    // What is seen at once comes before what was.
    session.draw(screen, world).doing("draw")?;
    let mut is_filling = true;
    while !stop.load(Ordering::Relaxed) {
        let mut is_dirty = false;
        if is_filling {
            is_filling = world.fill(screen);
            is_dirty = is_filling;
        } else {
            let left = next.saturating_duration_since(Instant::now());
            if keys.wait(left.min(NAP)) == Waited::HungUp {
                return Ok(());
            }
        }
        match take_keys(screen, &keys)? {
            Some(After::Quit) => return Ok(()),
            Some(After::Suspend) => {
                drop(session);
                suspend();
                session = Session::start().doing("set the terminal up")?;
                is_dirty = true;
            }
            // What was opened may have a past.
            Some(After::Draw) => (is_dirty, is_filling) = (true, true),
            None => {}
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
            session.draw(screen, world).doing("draw")?;
        }
    }
    Ok(())
}

/// Takes all keys that are waiting, so that there is one drawing for them: a held key scrolls as
/// fast as it repeats. What is to be done, if anything happened.
fn take_keys(screen: &mut Screen, keys: &Keys) -> Result<Option<After>, Error> {
    let mut after = None;
    while keys.wait(Duration::ZERO) == Waited::Look
        && event::poll(Duration::ZERO).doing("read keys")?
    {
        after = Some(After::Draw);
        if let Event::Key(key) = event::read().doing("read keys")?
            && key.kind != KeyEventKind::Release
        {
            match screen.key(key) {
                After::Draw => {}
                other => return Ok(Some(other)),
            }
        }
    }
    Ok(after)
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
    screen.pass(world.now_ns());
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
            "RUST_BACKTRACE=0 {} --exact {name} --ignored --nocapture; echo ended-$?",
            program.display()
        ));
        let screen = terminal.until("ended-101");
        assert!(screen.contains("on purpose"), "{screen}");
        assert!(!terminal.is_alternate() && terminal.has_cursor());
        assert_eq!(terminal.settings(&folder.path().join("after")), before);
    }
}
