//! `qbus forget`

use std::io::{self, BufRead, IsTerminal, Write};
use std::thread::sleep;
use std::time::{Duration, Instant};

use qbus::{Address, Bus, SeriesDefinition, SeriesId};
use qbus_aggregate::Reader;

use super::open;
use crate::args::Forget;
use crate::error::{Doing, Error};

/// So long it is waited for the aggregator to take series off the page.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn run(address: &Address, forget: &Forget, out: &mut dyn Write) -> Result<(), Error> {
    let bus = open(address)?;
    let found = matching(&bus, forget);
    if forget.dry_run {
        for (_, name, definition) in &found {
            writeln!(out, "{name}{}", labels(definition))?;
        }
    }
    let what = match found.len() {
        1 => "1 series".to_owned(),
        series => format!("{series} series"),
    };
    if forget.dry_run {
        writeln!(out, "{what} would be forgotten")?;
        return Ok(());
    }
    if !found.is_empty() && is_interactive() && !forget.yes && !is_agreed(&what)? {
        return Ok(());
    }
    let ids: Vec<SeriesId> = found.iter().map(|(id, ..)| *id).collect();
    for &id in &ids {
        bus.forget(id);
    }
    writeln!(out, "forgot {what}")?;
    if !is_off_the_page(&bus, &ids) {
        eprintln!(
            "qbus: they are still on the page: {}",
            if bus.aggregator().is_some_and(|aggregator| aggregator.alive) {
                "something is emitted to them all along, or the aggregator is slow"
            } else {
                "no aggregator runs; the next one takes them off"
            }
        );
    }
    Ok(())
}

/// Series on the page whose names and labels match.
fn matching(bus: &Bus, forget: &Forget) -> Vec<(SeriesId, String, SeriesDefinition)> {
    let mut found: Vec<_> = bus
        .series_ids()
        .filter(|&id| bus.forgotten_ns(id).is_none())
        .filter_map(|id| {
            let definition = bus.series(id)?;
            let name = bus.family(definition.family)?.name;
            let is_named = forget.name.matches(&name);
            let has = |label| definition.labels.contains(label);
            (is_named && forget.labels.iter().all(has)).then_some((id, name, definition))
        })
        .collect();
    found.sort_by(|a, b| (&a.1, &a.2.labels).cmp(&(&b.1, &b.2.labels)));
    found
}

fn labels(definition: &SeriesDefinition) -> String {
    if definition.labels.is_empty() {
        return String::new();
    }
    let labels = definition.labels.iter();
    let labels = labels.map(|(name, value)| format!("{name}={value:?}"));
    format!("{{{}}}", labels.collect::<Vec<_>>().join(","))
}

fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn is_agreed(what: &str) -> Result<bool, Error> {
    eprint!("Forget {what}? They come back when something is emitted to them. [y/N] ");
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .doing("read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Whether readers show none of these any more, once the aggregator has had time for it.
fn is_off_the_page(bus: &Bus, ids: &[SeriesId]) -> bool {
    let Ok(mut reader) = Reader::open(&bus.address().snapshot()) else {
        return true;
    };
    let begin = Instant::now();
    let mut left: Vec<SeriesId> = ids.to_vec();
    loop {
        left.retain(|&id| reader.series(id, false).is_some());
        let is_aggregated = bus.aggregator().is_some_and(|aggregator| aggregator.alive);
        if left.is_empty() || !is_aggregated || begin.elapsed() > PATIENCE {
            return left.is_empty();
        }
        sleep(Duration::from_millis(5));
    }
}
