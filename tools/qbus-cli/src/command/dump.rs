//! `qbus dump`

use std::io::Write;
use std::time::Duration;

use qbus::{Address, Bus};
use qbus_aggregate::ReadOptions;
use qbus_aggregate::export::{Options, export, export_to_file};

use crate::args::Dump;
use crate::command::open_snapshot;
use crate::error::{Doing, Error};
use crate::sampling::warn;

/// A page that is no older needs no note.
const RECENT: Duration = Duration::from_secs(2);

pub(crate) fn run(address: &Address, dump: &Dump, out: &mut dyn Write) -> Result<(), Error> {
    let mut reader = open_snapshot(address, dump.snapshot.as_deref())?;
    let matches = |name: &str| {
        dump.matching
            .as_ref()
            .is_none_or(|pattern| pattern.matches(name))
    };
    let options = ReadOptions {
        history: dump.history,
        matches: Some(&matches),
    };
    let snapshot = reader
        .read(&options)
        .map_err(|error| Error::reading(address, &error))?;
    let age = snapshot.age();
    if let Some(max_age) = dump.max_age
        && age > max_age
    {
        return Err(Error::Absent(format!(
            "the page is {:.3} s old, and --max-age is {:.3} s: its aggregator is gone, stuck, or has nothing to \
             commit; start `qbus agg -b {address}`, or look with `qbus stat`",
            age.as_secs_f64(),
            max_age.as_secs_f64()
        )));
    }
    if dump.snapshot.is_none() && age > RECENT && !is_aggregated(address) {
        warn(format_args!(
            "no aggregator runs: the page is as of {:.1} s ago; start `qbus agg -b {address}`",
            age.as_secs_f64()
        ));
    }
    let options = Options {
        timestamps: dump.timestamps,
        history: dump.history,
    };
    let left_out = match &dump.output {
        None => export(&snapshot, dump.format, &options, out)?,
        Some(path) if path.as_os_str() == "-" => export(&snapshot, dump.format, &options, out)?,
        Some(path) => export_to_file(&snapshot, dump.format, &options, path)
            .doing(format!("write {}", path.display()))?,
    };
    // The process ends: to free a hundred thousand series one by one would be a tenth of the time.
    std::mem::forget(snapshot);
    if left_out.series > 0 {
        warn(format_args!(
            "left out {} series: their sample names or labels are those of another; rename the metric",
            left_out.series
        ));
    }
    Ok(())
}

fn is_aggregated(address: &Address) -> bool {
    let aggregator = Bus::open(address).ok().and_then(|bus| bus.aggregator());
    aggregator.is_some_and(|aggregator| aggregator.alive)
}
