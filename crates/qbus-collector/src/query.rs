//! Reading back: current values, history, buffer, exports.
//!
//! Each call first waits until what was emitted before it is committed, then reads the snapshot
//! file; it is opened anew each time, since a reset and a fork may have made another one of it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use qbus::SeriesId;
use qbus_aggregate::export::{Format, Options, export, export_to_file};
use qbus_aggregate::{Family, ReadError, ReadOptions, Reader, Series, Snapshot};

use crate::collector::Collector;
use crate::error::ExportError;
use crate::reading::Reading;

/// A family and the labels of a series.
type Definition = (Arc<Family>, Vec<(String, String)>);

/// How long a reader waits for an aggregator that lags, or for a stopped producer of a shared lane.
const PATIENCE: Duration = Duration::from_millis(1500);

impl Collector {
    /// The series of that name and labels as it is now; without labels, if there is no such series,
    /// the one of that name that was emitted last. `None` when nothing was added to it yet.
    pub fn get_metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<Series> {
        self.flush();
        let mut reader = self.reader().ok()?;
        let owned: Vec<_> = labels
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let bus = self.present();
        let found = match bus.find(name, &owned) {
            Some(id) => reader.series(id, false),
            None => {
                let family = bus.family_by_name(name);
                let is_by_process = family.is_some_and(|family| family.merge.is_by_process());
                let merged = is_by_process.then(|| reader.find_merged(name, &owned, false));
                merged.flatten()
            }
        };
        let exact = found.filter(|series| series.records > 0);
        if exact.is_some() || !labels.is_empty() {
            return exact;
        }
        let of_name = read(&mut reader, false, &|found| found == name).ok()?;
        of_name
            .series
            .into_iter()
            .max_by_key(|series| series.timestamp_ns)
    }

    /// The last `limit` points of all series of a name, oldest first; all that are kept, if `None`.
    ///
    /// What is added by name has a point each, a counter's one for each timestamp. What handles of
    /// counters and histograms add between two rounds of the aggregator (1.2 ms, as a rule) is one
    /// point: the sum, or the last observation, as of the round.
    pub fn get_metrics_history(&self, name: &str, limit: Option<usize>) -> Vec<Reading> {
        let snapshot = self.read_matching(true, &|found| found == name);
        let mut readings = Vec::new();
        for series in snapshot.map_or_else(|_| Vec::new(), |snapshot| snapshot.series) {
            let points = self.last_points(&series.history);
            readings.extend(points.iter().map(|point| Reading {
                family: series.family.clone(),
                labels: series.labels.clone(),
                value: point.value,
                timestamp_ns: point.timestamp_ns,
            }));
        }
        readings.sort_by_key(|reading| reading.timestamp_ns);
        last(readings, limit)
    }

    /// All series as they are now, sorted by name and labels.
    pub fn get_all_current_metrics(&self) -> Vec<Series> {
        self.snapshot(false)
            .map_or_else(|_| Vec::new(), |snapshot| snapshot.series)
    }

    /// The last records of all series, oldest first. What handles of counters and histograms add
    /// between two rounds of the aggregator is one record here.
    pub fn get_all_metrics_buffer(&self) -> Vec<Reading> {
        self.flush();
        let Ok(mut reader) = self.reader() else {
            return Vec::new();
        };
        let mut known = HashMap::new();
        let readings = reader.recent().into_iter().filter_map(|record| {
            let defined = known
                .entry(record.series)
                .or_insert_with(|| self.define(record.series));
            let (family, labels) = defined.clone()?;
            Some(Reading {
                family,
                labels,
                value: record.value,
                timestamp_ns: record.timestamp_ns,
            })
        });
        last(readings.collect(), Some(self.config.max_metrics_buffer))
    }

    /// All series at one commit, with the points of their history if wanted.
    ///
    /// # Errors
    ///
    /// There is no snapshot that can be read.
    pub fn snapshot(&self, history: bool) -> Result<Snapshot, ReadError> {
        self.read_matching(history, &|_| true)
    }

    /// All series as a JSON document ([`qbus_aggregate::export::json`]).
    ///
    /// # Errors
    ///
    /// There is no snapshot that can be read.
    pub fn export_to_json(&self, include_history: bool) -> Result<String, ExportError> {
        let options = Options {
            history: include_history,
            timestamps: false,
        };
        self.export(Format::Json, &options)
    }

    /// Replaces a file by all series as a table ([`qbus_aggregate::export::csv`]).
    ///
    /// # Errors
    ///
    /// There is no snapshot that can be read, or the file cannot be written.
    pub fn export_to_csv(&self, path: &Path, include_history: bool) -> Result<(), ExportError> {
        let options = Options {
            history: include_history,
            timestamps: false,
        };
        self.export_to_file(Format::Csv, &options, path)
    }

    /// All series in the Prometheus text format ([`qbus_aggregate::export::prometheus`]), with the
    /// time of each sample if wanted.
    ///
    /// # Errors
    ///
    /// It is switched off, or there is no snapshot that can be read.
    pub fn export_to_prometheus(&self, timestamps: bool) -> Result<String, ExportError> {
        let options = Options {
            history: false,
            timestamps,
        };
        self.export(Format::Prometheus, &options)
    }

    /// All series in any format but protobuf, which is no text.
    ///
    /// # Errors
    ///
    /// The format is switched off or no text, or there is no snapshot that can be read.
    pub fn export(&self, format: Format, options: &Options) -> Result<String, ExportError> {
        if format == Format::Protobuf {
            return Err(ExportError::NotText { format });
        }
        let snapshot = self.exportable(format, options)?;
        let mut page = Vec::new();
        export(&snapshot, format, options, &mut page).expect("a vector takes all");
        String::from_utf8(page).map_err(|_| ExportError::NotText { format })
    }

    /// Replaces a file by all series in any format: whoever reads it meanwhile sees the old one or
    /// the new one.
    ///
    /// # Errors
    ///
    /// As [`export`](Self::export), or the file cannot be written; the old one is as it was.
    pub fn export_to_file(
        &self,
        format: Format,
        options: &Options,
        path: &Path,
    ) -> Result<(), ExportError> {
        let snapshot = self.exportable(format, options)?;
        let failed = |source| ExportError::Write {
            path: path.to_owned(),
            source,
        };
        let exported = export_to_file(&snapshot, format, options, path);
        exported.map(|_| ()).map_err(failed)
    }

    fn exportable(&self, format: Format, options: &Options) -> Result<Snapshot, ExportError> {
        let of_prometheus = matches!(
            format,
            Format::Prometheus | Format::OpenMetrics | Format::Protobuf
        );
        if of_prometheus && !self.config.enable_prometheus_export {
            return Err(ExportError::Disabled);
        }
        let mut snapshot = self.snapshot(options.history).map_err(ExportError::Read)?;
        for series in &mut snapshot.series {
            let kept = self.last_points(&series.history).len();
            series.history.drain(..series.history.len() - kept);
        }
        Ok(snapshot)
    }

    fn read_matching(
        &self,
        history: bool,
        matches: &dyn Fn(&str) -> bool,
    ) -> Result<Snapshot, ReadError> {
        self.flush();
        read(&mut self.reader()?, history, matches)
    }

    /// Waits for the aggregator. Without one the snapshot says what was committed last.
    fn flush(&self) {
        self.revive();
        let _ = self.present().flush(PATIENCE);
    }

    fn reader(&self) -> Result<Reader, ReadError> {
        Reader::open(&self.bus().address().snapshot())
    }

    /// As many of the last points as this collector is to show: the aggregator of a named bus may
    /// keep more.
    fn last_points<'a, T>(&self, points: &'a [T]) -> &'a [T] {
        let first = points
            .len()
            .saturating_sub(self.config.max_history_per_metric);
        &points[first..]
    }

    fn define(&self, id: SeriesId) -> Option<Definition> {
        let bus = self.present();
        let series = bus.series(id)?;
        let family = bus.family(series.family)?;
        Some((Arc::new(family), series.labels))
    }
}

fn read(
    reader: &mut Reader,
    history: bool,
    matches: &dyn Fn(&str) -> bool,
) -> Result<Snapshot, ReadError> {
    reader.read(&ReadOptions {
        history,
        matches: Some(matches),
    })
}

fn last<T>(mut all: Vec<T>, limit: Option<usize>) -> Vec<T> {
    let surplus = limit.map_or(0, |limit| all.len().saturating_sub(limit));
    all.drain(..surplus);
    all
}
