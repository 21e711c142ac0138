//! `qbus dump`

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Duration;

use qbus::{Address, Bus};
use qbus_aggregate::export::{Format, Options, export, export_to_file};
use qbus_aggregate::{ReadOptions, Snapshot};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::args::Dump;
use crate::command::{open_snapshot, sleep, until_signal};
use crate::error::{Doing, Error};
use crate::figures::span;
use crate::log::warn;

/// A page that is no older needs no note.
const RECENT: Duration = Duration::from_secs(2);

pub(crate) fn run(address: &Address, dump: &Dump, out: &mut dyn Write) -> Result<(), Error> {
    if dump.history && !matches!(dump.format, Format::Json | Format::Csv) {
        let format = dump.format;
        return Err(Error::Failed(format!(
            "{format} has no place for histories: --history is for json and csv (-f json --history)"
        )));
    }
    if let Some(interval) = dump.follow {
        return follow(address, dump, interval, out);
    }
    let snapshot = read(address, dump)?;
    if dump.snapshot.is_none() && snapshot.age() > RECENT && !is_aggregated(address) {
        warn(format_args!(
            "no aggregator runs: the page is as of {} ago; start `qbus agg -b {address}`",
            span(snapshot.age())
        ));
    }
    write(&snapshot, dump, out)?;
    // The process ends: to free a hundred thousand series one by one would be a tenth of the time.
    std::mem::forget(snapshot);
    Ok(())
}

/// What is wanted of the snapshot, if it is young enough.
fn read(address: &Address, dump: &Dump) -> Result<Snapshot, Error> {
    let mut reader = open_snapshot(address, dump.snapshot.as_deref())?;
    let takes = |name: &str| dump.takes(name);
    let options = ReadOptions {
        history: dump.history,
        matches: Some(&takes),
    };
    let mut snapshot = reader
        .read(&options)
        .map_err(|error| Error::reading(address, &error))?;
    let age = snapshot.age();
    if let Some(max_age) = dump.max_age
        && age > max_age
    {
        return Err(Error::Absent(format!(
            "the page is {} old, and --max-age is {max_age:?}: its aggregator is gone, stuck, or \
            has nothing to commit; start `qbus agg -b {address}`, or look with `qbus doctor \
            -b {address}`",
            span(age)
        )));
    }
    snapshot.add_labels(&dump.labels);
    Ok(snapshot)
}

fn write(snapshot: &Snapshot, dump: &Dump, out: &mut dyn Write) -> Result<(), Error> {
    let options = Options {
        timestamps: dump.timestamps,
        history: dump.history,
    };
    let left_out = match &dump.output {
        Some(path) if path.as_os_str() != "-" => {
            export_to_file(snapshot, dump.format, &options, path)
                .doing(format!("write {}", path.display()))?
        }
        _ => export(snapshot, dump.format, &options, out)?,
    };
    if left_out.series > 0 {
        warn(format_args!(
            "left out {} series: their sample names or labels are those of another; rename the \
            metric",
            left_out.series
        ));
    }
    Ok(())
}

/// Writes again and again, until the user wants it to end or nobody reads it any more. An
/// aggregator may come and go meanwhile: what is not there is said once.
fn follow(
    address: &Address,
    dump: &Dump,
    interval: Duration,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let stop = until_signal()?;
    // A log of what happens: what has not moved has been written.
    let mut log = (dump.format == Format::Csv && !is_file(dump)).then(Log::default);
    let mut written = None;
    let mut is_said = false;
    loop {
        match read(address, dump) {
            Ok(snapshot) if written == Some((snapshot.epoch, snapshot.unix_ns)) => {}
            Ok(snapshot) => {
                is_said = false;
                written = Some((snapshot.epoch, snapshot.unix_ns));
                match &mut log {
                    Some(log) => log.write(snapshot, dump, out)?,
                    None => write(&snapshot, dump, out)?,
                }
                out.flush()?;
            }
            Err(Error::Absent(why)) if !is_said => {
                is_said = true;
                warn(why);
            }
            Err(Error::Absent(_)) => {}
            Err(error) => return Err(error),
        }
        if !sleep(interval, &stop) || (!is_file(dump) && is_unread()) {
            return Ok(());
        }
    }
}

/// Whether the reader of standard output has closed it: where there is nothing to write, no write
/// tells.
fn is_unread() -> bool {
    let out = io::stdout();
    let mut asked = [PollFd::new(&out, PollFlags::empty())];
    let is_known = poll(&mut asked, Some(&Timespec::default())).is_ok();
    is_known
        && asked[0]
            .revents()
            .intersects(PollFlags::ERR | PollFlags::HUP)
}

fn is_file(dump: &Dump) -> bool {
    dump.output
        .as_ref()
        .is_some_and(|path| path.as_os_str() != "-")
}

/// A table that goes on: its header once, and rows of series that something was emitted to.
#[derive(Default)]
struct Log {
    /// Of each series that was written, how many records it had.
    records: HashMap<(String, Labels), u64>,
    is_begun: bool,
}

type Labels = Vec<(String, String)>;

impl Log {
    fn write(
        &mut self,
        mut snapshot: Snapshot,
        dump: &Dump,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        snapshot.series.retain(|series| {
            let key = (series.family.name.clone(), series.labels.clone());
            self.records.insert(key, series.records) != Some(series.records)
        });
        let mut table = Vec::new();
        export(&snapshot, dump.format, &Options::default(), &mut table)?;
        let is_end = |&byte: &u8| byte == b'\n';
        let header = table.iter().position(is_end).map_or(0, |end| end + 1);
        let start = if self.is_begun { header } else { 0 };
        self.is_begun = true;
        out.write_all(&table[start..])
    }
}

fn is_aggregated(address: &Address) -> bool {
    let aggregator = Bus::open(address).ok().and_then(|bus| bus.aggregator());
    aggregator.is_some_and(|aggregator| aggregator.alive)
}
