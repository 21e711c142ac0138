//! Writes a snapshot as JSON, CSV, Prometheus text, OpenMetrics or Prometheus protobuf, and encodes
//! series for remote write and OTLP.
//!
//! The same snapshot and the same options give the same bytes: series come out in the order of the
//! snapshot, labels in the order of the series, and nothing asks the clock or a locale.
//!
//! The texts agree on numbers: the shortest decimal that reads back as the same double, and the
//! words `NaN`, `+Inf` and `-Inf` for what has no decimal.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::series::Snapshot;
use crate::snapshot::reader::{Listing, Named};

mod csv;
#[cfg(test)]
mod decoded;
mod exposition;
mod json;
mod number;
mod openmetrics;
mod otlp;
mod prometheus;
mod protobuf;
mod remote_write;
#[cfg(test)]
mod samples;
mod wire;

pub use self::csv::csv;
pub use self::json::{SCHEMA_VERSION, json};
pub use self::number::seconds;
pub use self::openmetrics::{OPENMETRICS_CONTENT_TYPE, openmetrics};
pub use self::otlp::{OtlpOptions, otlp};
pub use self::prometheus::{CONTENT_TYPE, prometheus};
pub use self::protobuf::{PROTOBUF_CONTENT_TYPE, protobuf};
pub use self::remote_write::{RemoteWriteOptions, RemoteWriteVersion, remote_write};

/// A format that [`export`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// One document, see [`json()`].
    Json,
    /// A table, see [`csv()`].
    Csv,
    /// The text exposition format 0.0.4, see [`prometheus()`].
    Prometheus,
    /// OpenMetrics 1.0, see [`openmetrics()`].
    OpenMetrics,
    /// Delimited protobuf with native histograms, see [`protobuf()`].
    Protobuf,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 5] = [
        Format::Json,
        Format::Csv,
        Format::Prometheus,
        Format::OpenMetrics,
        Format::Protobuf,
    ];

    /// `json`, `csv`, `prometheus`, `openmetrics` or `protobuf`: what [`Format::from_str`] reads.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Csv => "csv",
            Format::Prometheus => "prometheus",
            Format::OpenMetrics => "openmetrics",
            Format::Protobuf => "protobuf",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Format {
    type Err = ParseFormatError;

    fn from_str(name: &str) -> Result<Format, ParseFormatError> {
        Format::ALL
            .into_iter()
            .find(|format| format.as_str() == name)
            .ok_or_else(|| ParseFormatError { found: name.into() })
    }
}

/// A name that no format has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseFormatError {
    found: String,
}

impl fmt::Display for ParseFormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = &self.found;
        let known = Format::ALL.map(Format::as_str).join(", ");
        write!(f, "format is {found:?}, expected one of {known}")
    }
}

impl std::error::Error for ParseFormatError {}

/// What to write beside the values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Prometheus, OpenMetrics and protobuf: end each sample with its time, to the millisecond. A
    /// scraped page is better without them: a series with explicit times gets no staleness marker.
    /// JSON and CSV always carry times.
    pub timestamps: bool,
    /// JSON and CSV: write the points of [`Series::history`](crate::Series::history) too. The
    /// others have no place for them.
    pub history: bool,
}

/// What is exported: a [`Snapshot`], or a [`Listing`] of what has yet to be decoded.
#[derive(Clone, Copy, Debug)]
pub enum Exported<'a> {
    /// All of it is in memory.
    Snapshot(&'a Snapshot),
    /// Each series is decoded when its turn comes.
    Listing(&'a Listing<'a>),
}

impl<'a> From<&'a Snapshot> for Exported<'a> {
    fn from(snapshot: &'a Snapshot) -> Exported<'a> {
        Exported::Snapshot(snapshot)
    }
}

impl<'a> From<&'a Listing<'a>> for Exported<'a> {
    fn from(listing: &'a Listing<'a>) -> Exported<'a> {
        Exported::Listing(listing)
    }
}

impl<'a> Exported<'a> {
    fn names(self) -> Vec<Named<'a>> {
        match self {
            Exported::Snapshot(snapshot) => exposition::in_families(&snapshot.series).collect(),
            Exported::Listing(listing) => listing.names(),
        }
    }

    fn epoch(self) -> u64 {
        match self {
            Exported::Snapshot(snapshot) => snapshot.epoch,
            Exported::Listing(listing) => listing.epoch(),
        }
    }

    fn unix_ns(self) -> u64 {
        match self {
            Exported::Snapshot(snapshot) => snapshot.unix_ns,
            Exported::Listing(listing) => listing.unix_ns(),
        }
    }

    fn is_consistent(self) -> bool {
        match self {
            Exported::Snapshot(snapshot) => snapshot.consistent,
            Exported::Listing(listing) => listing.is_consistent(),
        }
    }
}

/// What a writer had to leave out so that the rest stays readable. JSON and CSV leave out nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Families left out whole.
    pub families: u64,
    /// Series left out, those of whole families among them.
    pub series: u64,
}

/// One message of a push: what [`remote_write()`] and [`otlp()`] make of series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The message, as the protocol has it before compression.
    pub message: Vec<u8>,
    /// How many samples, or points, it has.
    pub samples: u64,
}

/// Writes a [`Snapshot`] or a [`Listing`] to `out` as `format` and flushes `out`.
///
/// The output is buffered inside; `out` need not be.
///
/// # Errors
///
/// The first error of `out`, as it is (so a closed pipe is [`io::ErrorKind::BrokenPipe`]). Part of
/// the output may have been written by then: who needs all or nothing writes to a `Vec` first.
///
/// # Examples
///
/// ```
/// use qbus_aggregate::Snapshot;
/// use qbus_aggregate::export::{Options, export};
///
/// let snapshot = Snapshot { epoch: 1, unix_ns: 0, consistent: true, series: Vec::new() };
/// let mut page = Vec::new();
/// export(&snapshot, "csv".parse()?, &Options::default(), &mut page)?;
/// assert_eq!(page, b"name,value,type,labels,description,timestamp,datetime\r\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn export<'a>(
    what: impl Into<Exported<'a>>,
    format: Format,
    options: &Options,
    out: &mut dyn Write,
) -> io::Result<LeftOut> {
    let what = what.into();
    match format {
        Format::Json => json(what, options, out).map(|()| LeftOut::default()),
        Format::Csv => csv(what, options, out).map(|()| LeftOut::default()),
        Format::Prometheus => prometheus(what, options, out),
        Format::OpenMetrics => openmetrics(what, options, out),
        Format::Protobuf => protobuf(what, options, out),
    }
}

/// Replaces a file by an export as a whole: whoever reads it meanwhile sees the old one or the new
/// one. A symbolic link is followed; what is no regular file (a device, a pipe, a socket's end) is
/// opened and written to.
///
/// # Errors
///
/// The first error of the file system, as it is; the old file is as it was.
pub fn export_to_file(
    snapshot: &Snapshot,
    format: Format,
    options: &Options,
    path: &Path,
) -> io::Result<LeftOut> {
    let path = &target(path)?;
    let found = fs::metadata(path).ok();
    if found.as_ref().is_some_and(|found| !found.is_file()) {
        let mut file = BufWriter::new(File::options().write(true).open(path)?);
        let left_out = export(snapshot, format, options, &mut file)?;
        file.flush()?;
        return Ok(left_out);
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // As any other new file: the user's umask decides who may read it. One that is there stays as
    // it is.
    let permissions = match found {
        Some(found) => found.permissions(),
        None => PermissionsExt::from_mode(0o666),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".qbus-export-")
        .permissions(permissions)
        .tempfile_in(folder)?;
    let left_out = export(snapshot, format, options, &mut file)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(left_out)
}

/// So many links are followed, as Linux does (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Where a path leads over symbolic links, also where nothing is there yet.
fn target(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(link) = fs::read_link(&path) else {
            return Ok(path);
        };
        path = match path.parent() {
            Some(folder) => folder.join(link),
            None => link,
        };
    }
    Err(io::Error::other("its symbolic links lead back to it"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, symlink};

    use super::*;

    fn write(path: &Path) -> io::Result<LeftOut> {
        export_to_file(
            &samples::each_type(),
            Format::Csv,
            &Options::default(),
            path,
        )
    }

    #[test]
    fn links_are_followed_and_what_is_no_regular_file_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let is_link = |name: &str| fs::symlink_metadata(at(name)).unwrap().is_symlink();
        fs::write(at("old"), "old").unwrap();
        fs::set_permissions(at("old"), PermissionsExt::from_mode(0o640)).unwrap();
        symlink("old", at("link")).unwrap();
        symlink("new", at("dangling")).unwrap();
        for (link, file, mode) in [("link", "old", Some(0o640)), ("dangling", "new", None)] {
            write(&at(link)).unwrap();
            assert!(is_link(link), "{link}");
            assert!(fs::read_to_string(at(file)).unwrap().starts_with("name,"));
            let found = fs::metadata(at(file)).unwrap().permissions().mode() & 0o777;
            assert!(mode.is_none_or(|mode| mode == found), "{found:o}");
        }
        // A device stays one, also for root.
        write(Path::new("/dev/null")).unwrap();
        assert!(
            fs::metadata("/dev/null")
                .unwrap()
                .file_type()
                .is_char_device()
        );
        write(Path::new("/dev/full")).expect_err("no space left on device");
        symlink("loop", at("loop")).unwrap();
        write(&at("loop")).expect_err("it leads to itself");
        let names = || fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names(), 5, "nothing is left behind");
    }

    #[test]
    fn a_format_reads_back_and_writes_as_its_function() {
        let snapshot = samples::each_type();
        let options = Options {
            timestamps: true,
            history: true,
        };
        for (format, start) in [
            (Format::Json, "{\"schema"),
            (Format::Csv, "name,"),
            (Format::Prometheus, "# TYPE "),
            (Format::OpenMetrics, "# TYPE "),
        ] {
            assert_eq!(format.to_string().parse(), Ok(format));
            let mut page = Vec::new();
            let left_out = export(&snapshot, format, &options, &mut page).unwrap();
            assert_eq!(left_out, LeftOut::default());
            assert!(page.starts_with(start.as_bytes()));
        }
    }

    #[test]
    fn an_unknown_format_names_the_known_ones() {
        let error = "JSON".parse::<Format>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "format is \"JSON\", expected one of json, csv, prometheus, openmetrics, protobuf"
        );
    }
}
