//! `qbus dump`

use std::io::Write;

use qbus::Address;
use qbus_aggregate::ReadOptions;
use qbus_aggregate::export::{Options, export, export_to_file};

use crate::args::Dump;
use crate::command::open_snapshot;
use crate::error::{Doing, Error};
use crate::sampling::warn;

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
    let options = Options {
        timestamps: dump.timestamps,
        history: dump.history,
    };
    let left_out = match &dump.output {
        None => export(&snapshot, dump.format, &options, out)?,
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
