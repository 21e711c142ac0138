//! CSV (RFC 4180).

use std::io::{self, Write};

use ::csv::{ErrorKind, Terminator, WriterBuilder};
use serde::ser::{SerializeMap, Serializer};

use super::number::{push, push_datetime, push_float, seconds};
use super::{Exported, Options};
use crate::series::{HistogramValue, Series, SummaryValue, Value};
use crate::snapshot::reader::Named;
use crate::sum::Sum;

const HEADER: [&str; 7] = [
    "name",
    "value",
    "type",
    "labels",
    "description",
    "timestamp",
    "datetime",
];

/// The last column, where there are histories.
const POINT: &str = "point";

/// Writes series as a table (RFC 4180: a header, CRLF, quotes where needed; UTF-8), and flushes
/// `out`.
///
/// ```csv
/// name,value,type,labels,description,timestamp,datetime
/// load,0.125,gauge,"{""gpu"":""0""}",Share in use,1696161600.0,2023-10-01T12:00:00.000000000Z
/// ```
///
/// There is a row for each sample, so that the columns never depend on the type:
///
/// * A counter, a gauge or what is untyped, `NAME`, has one row.
/// * A histogram `NAME` has a row `NAME_bucket` with the label `le` and a cumulative count for each
///   bound and for `+Inf`, then `NAME_sum` and `NAME_count`.
/// * A summary `NAME` has a row `NAME` with the label `quantile` for each quantile (of its window,
///   `NaN` where nothing was observed in it), then `NAME_sum` and `NAME_count`, of all time.
/// * With [`Options::history`], a row `NAME` with the labels of the series follows for each point,
///   oldest first, and there is a column `point` more: 0 in the rows of what is now, and the number
///   of the point, from 1 on, in those of the history. The last point of a counter or gauge repeats
///   what its own row says, and points may share a time: name, labels and `point` are what no two
///   rows have in common.
///
/// `type` is the type of the family, in each row. `labels` is a JSON object in the order of the
/// series, with `le` or `quantile` last; a label that the series itself calls so gives way to it.
/// `timestamp` is in seconds since the Unix epoch (a double, to about 0.2 µs), `datetime` the same
/// time in full, in UTC (RFC 3339, always with nine decimals). Doubles are the shortest decimals
/// that read back the same, or `NaN`, `inf` and `-inf`: the words that pandas, polars and DuckDB
/// all take for numbers. So each column has one type, without any option of theirs.
///
/// # Spreadsheets
///
/// A spreadsheet may take a cell that starts with `=`, `+`, `-` or `@` for a formula. Only
/// `description` can start with text of someone else's choice: names start with a letter, `_` or
/// `:`, labels with `{`, and a negative value is a number. It is written as it is, since any guard
/// against formulas changes what every other reader gets. Import the column as text if you do not
/// trust the producers.
///
/// # Errors
///
/// The first error of `out`, as it is.
pub fn csv<'a>(
    what: impl Into<Exported<'a>>,
    options: &Options,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut table = Table {
        rows: WriterBuilder::new()
            .terminator(Terminator::CRLF)
            .buffer_capacity(64 * 1024)
            .from_writer(out),
        cells: Cells::default(),
    };
    let point = options.history.then_some(POINT);
    let header = HEADER.into_iter().chain(point);
    table.rows.write_record(header).map_err(as_io)?;
    for series in what.into().names().iter().flat_map(Named::iter) {
        if options.history {
            table.cells.point = Some("0".to_owned());
        }
        table.series(&series)?;
        if options.history {
            table.history(&series)?;
        }
    }
    table.rows.flush()
}

struct Table<'a> {
    rows: ::csv::Writer<&'a mut dyn Write>,
    cells: Cells,
}

/// Text of the present row, kept from row to row for its memory.
#[derive(Default)]
struct Cells {
    name: String,
    value: String,
    labels: Vec<u8>,
    own_label: String,
    timestamp: String,
    datetime: String,
    /// Where there are histories.
    point: Option<String>,
}

impl Table<'_> {
    fn series(&mut self, series: &Series) -> io::Result<()> {
        self.cells.time(series.timestamp_ns);
        match &series.value {
            Value::Counter(sum) => {
                self.cells.labels(&series.labels, None)?;
                self.cells.sum(*sum);
                self.row(series, "")
            }
            Value::Gauge(value) => {
                self.cells.labels(&series.labels, None)?;
                self.cells.float(*value);
                self.row(series, "")
            }
            Value::Histogram(value) => self.histogram(series, value),
            Value::Summary(value) => self.summary(series, value),
        }
    }

    fn histogram(&mut self, series: &Series, value: &HistogramValue) -> io::Result<()> {
        let bounds = series.family.buckets.iter().copied().chain([f64::INFINITY]);
        for (bound, &count) in bounds.zip(&value.cumulative) {
            self.cells.labels(&series.labels, Some(("le", bound)))?;
            self.cells.count(count);
            self.row(series, "_bucket")?;
        }
        self.totals(series, value.sum, value.count)
    }

    fn summary(&mut self, series: &Series, value: &SummaryValue) -> io::Result<()> {
        for &(quantile, value) in &value.quantiles {
            self.cells
                .labels(&series.labels, Some(("quantile", quantile)))?;
            self.cells.float(value);
            self.row(series, "")?;
        }
        self.totals(series, value.sum, value.count)
    }

    fn totals(&mut self, series: &Series, sum: Sum, count: u64) -> io::Result<()> {
        self.cells.labels(&series.labels, None)?;
        self.cells.sum(sum);
        self.row(series, "_sum")?;
        self.cells.count(count);
        self.row(series, "_count")
    }

    fn history(&mut self, series: &Series) -> io::Result<()> {
        self.cells.labels(&series.labels, None)?;
        for (index, point) in series.history.iter().enumerate() {
            self.cells.point = Some((index + 1).to_string());
            self.cells.time(point.timestamp_ns);
            self.cells.float(point.value);
            self.row(series, "")?;
        }
        Ok(())
    }

    fn row(&mut self, series: &Series, suffix: &str) -> io::Result<()> {
        let family = &*series.family;
        let cells = &mut self.cells;
        cells.name.clear();
        cells.name.push_str(&family.name);
        cells.name.push_str(suffix);
        let row = [
            cells.name.as_bytes(),
            cells.value.as_bytes(),
            family.metric_type.as_str().as_bytes(),
            &cells.labels,
            family.help.as_bytes(),
            cells.timestamp.as_bytes(),
            cells.datetime.as_bytes(),
        ];
        let point = cells.point.as_ref().map(String::as_bytes);
        let row = row.into_iter().chain(point);
        self.rows.write_record(row).map_err(as_io)
    }
}

impl Cells {
    fn time(&mut self, unix_ns: u64) {
        self.timestamp.clear();
        push(&mut self.timestamp, format_args!("{:?}", seconds(unix_ns)));
        self.datetime.clear();
        push_datetime(&mut self.datetime, unix_ns);
    }

    fn sum(&mut self, sum: Sum) {
        self.float(sum.value());
        if let Some(integer) = sum.beyond_double() {
            self.value.clear();
            push(&mut self.value, format_args!("{integer}"));
        }
    }

    fn float(&mut self, value: f64) {
        self.value.clear();
        // Unlike `{}`, `{:?}` turns to an exponent rather than write 300 digits. Its words for what
        // has no digits are those that readers take for numbers.
        push(&mut self.value, format_args!("{value:?}"));
    }

    fn count(&mut self, count: u64) {
        self.value.clear();
        push(&mut self.value, format_args!("{count}"));
    }

    /// The labels of a series, and one of the format's own.
    fn labels(&mut self, labels: &[(String, String)], own: Option<(&str, f64)>) -> io::Result<()> {
        self.labels.clear();
        let mut json = serde_json::Serializer::new(&mut self.labels);
        let mut object = json.serialize_map(None)?;
        for (name, value) in labels {
            if own.is_none_or(|(own, _)| own != name) {
                object.serialize_entry(name, value)?;
            }
        }
        if let Some((name, value)) = own {
            self.own_label.clear();
            push_float(&mut self.own_label, value);
            object.serialize_entry(name, &self.own_label)?;
        }
        object.end()?;
        Ok(())
    }
}

/// The error of the writer below, whose kind the conversion of `csv` would hide.
fn as_io(error: ::csv::Error) -> io::Error {
    match error.into_kind() {
        ErrorKind::Io(error) => error,
        kind => io::Error::other(format!("csv row: {kind:?}")),
    }
}

#[cfg(test)]
mod tests;
