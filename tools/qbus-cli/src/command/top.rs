//! `qbus top`

use std::env;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use qbus::{Address, Bus, OpenError};
use qbus_agent::view::Unready;
use qbus_aggregate::ReadError;
use ratatui::crossterm::terminal::size;

use crate::args::{Top, TopSort, TopView};
use crate::error::Error;
use crate::top::rows::Sort;
use crate::top::screen::{Screen, View};
use crate::top::terminal::{self, World};
use crate::top::text::Look;

/// The width of what is printed into a file or a pipe.
const WIDTH: u16 = 100;
/// A tick shorter than this is nothing that a person sees.
const TICK_MIN: Duration = Duration::from_millis(100);

pub(crate) fn run(address: &Address, top: &Top, out: &mut dyn Write) -> Result<(), Error> {
    if top.interval < TICK_MIN {
        return Err(Error::Failed(
            "--interval is shorter than 100 ms, which nobody can see".to_owned(),
        ));
    }
    let is_terminal = io::stdout().is_terminal();
    if !top.once && !is_terminal {
        return Err(Error::Failed(
            "standard output is no terminal: see --once".to_owned(),
        ));
    }
    let beside = address.snapshot();
    let world = World::new(top.snapshot.clone().unwrap_or(beside), address);
    let reading = match world.look() {
        Ok(reading) => Some(reading),
        // Who watches a bus may come before its aggregator.
        Err(Unready::Read(error))
            if !top.once && is_awaited(&error) && Bus::open(address).is_ok() =>
        {
            None
        }
        Err(Unready::Read(error)) => return Err(Error::reading(address, &error)),
        Err(unready) => return Err(Error::Absent(unready.to_string())),
    };
    let mut screen = Screen::new(look(top, is_terminal), host(), top.interval);
    screen.filter = top.filter.clone();
    screen.sort = match top.sort {
        TopSort::Activity => Sort::Activity,
        TopSort::Now => Sort::Now,
        TopSort::P99 => Sort::P99,
        TopSort::Name => Sort::Name,
    };
    screen.open(match top.view {
        TopView::Metrics => View::Metrics,
        TopView::Workers => View::Workers,
        TopView::Machine => View::Machine,
        TopView::Bus => View::Bus,
    });
    match reading {
        Some(reading) => screen.take(reading),
        None => screen.lose(format!(
            "no aggregator so far: start `qbus agg -b {address}`"
        )),
    }
    if !top.once {
        return terminal::run(&mut screen, &world, top.interval);
    }
    let width = match size() {
        Ok((width, _)) if is_terminal => width,
        _ => columns().unwrap_or(WIDTH),
    };
    let text = terminal::print(&mut screen, &world, top.interval, width)?;
    out.write_all(text.as_bytes())?;
    Ok(())
}

/// Whether a snapshot may yet come.
fn is_awaited(error: &ReadError) -> bool {
    matches!(
        error,
        ReadError::Empty | ReadError::Open(OpenError::Absent { .. } | OpenError::Unfinished { .. })
    )
}

/// What the terminal can show: <https://no-color.org>, and what `TERM` says.
fn look(top: &Top, is_terminal: bool) -> Look {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    Look {
        color: is_terminal && !is_set("NO_COLOR") && !is_dumb,
        ascii: top.ascii || !is_utf8(),
    }
}

/// Whether the locale's characters are UTF-8: the first of these that is set says so. Where none
/// is, as in a container, terminals nevertheless show it.
fn is_utf8() -> bool {
    let told = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(|name| env::var(name).ok());
    let first = told
        .map(|value| value.to_ascii_lowercase())
        .find(|value| !value.is_empty());
    first.is_none_or(|value| value.contains("utf-8") || value.contains("utf8"))
}

/// What `COLUMNS` says, as other programs take it.
fn columns() -> Option<u16> {
    let told: u16 = env::var("COLUMNS").ok()?.parse().ok()?;
    (told >= 40).then_some(told)
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
