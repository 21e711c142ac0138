//! `qbus dump`

use std::io::{BufWriter, Write};
use std::path::Path;

use qbus::Address;
use qbus_aggregate::export::{Format, LeftOut, Options, export};
use qbus_aggregate::{ReadOptions, Snapshot};

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
        Some(path) => to_file(&snapshot, dump.format, &options, path)?,
    };
    if left_out.series > 0 {
        warn(format_args!(
            "left out {} series: their sample names or labels are those of another; rename the metric",
            left_out.series
        ));
    }
    Ok(())
}

/// Replaces a file as a whole: whoever reads it meanwhile sees the old one or the new one.
pub(crate) fn to_file(
    snapshot: &Snapshot,
    format: Format,
    options: &Options,
    path: &Path,
) -> Result<LeftOut, Error> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let doing = || format!("write {}", path.display());
    let mut builder = tempfile::Builder::new();
    // As any other new file: the user's umask decides who may read it.
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let file = builder
        .prefix(".qbus-dump-")
        .permissions(permissions)
        .tempfile_in(folder)
        .doing(doing())?;
    let mut out = BufWriter::new(file);
    let left_out = export(snapshot, format, options, &mut out).doing(doing())?;
    let file = out
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)
        .doing(doing())?;
    file.persist(path)
        .map_err(|error| error.error)
        .doing(doing())?;
    Ok(left_out)
}
