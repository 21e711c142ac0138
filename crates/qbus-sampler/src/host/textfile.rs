//! Metrics that other programs write to files `*.prom`, in the text format of Prometheus.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use crate::kernel_file::read_once;
use crate::metric::Trend;
use crate::node_metric::{Catalog, NodeMetric};
use crate::probe::{Failure, Probe, Tick};
use crate::readings::Readings;
use crate::sysfs::items;

/// Reads every file of a folder.
pub(crate) struct Textfiles {
    folder: Option<PathBuf>,
    own: Catalog,
    /// By name and type: a file may change its mind.
    metrics: HashMap<(String, Trend), Arc<NodeMetric>>,
    /// The series of this read, with labels in order: the second one of two files is wrong.
    seen: HashSet<String>,
    buffer: Vec<u8>,
}

impl Textfiles {
    pub(crate) fn new(folder: Option<PathBuf>) -> Textfiles {
        Textfiles {
            folder,
            own: Catalog::default(),
            metrics: HashMap::new(),
            seen: HashSet::new(),
            buffer: Vec::new(),
        }
    }

    /// Pushes what a file says, or nothing of it where any line is wrong: half a file is no answer.
    fn push(&mut self, text: &str, out: &mut Readings) -> Result<(), String> {
        let mut types: HashMap<&str, Trend> = HashMap::new();
        let mut helps: HashMap<&str, &str> = HashMap::new();
        let mut series = Vec::new();
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            if let Some(comment) = line.strip_prefix('#') {
                let mut words = comment.trim_start().splitn(3, ' ');
                match (words.next(), words.next(), words.next()) {
                    (Some("TYPE"), Some(name), Some(kind)) => {
                        types.insert(name, trend(kind.trim()));
                    }
                    (Some("HELP"), Some(name), Some(help)) => {
                        helps.insert(name, help);
                    }
                    _ => {}
                }
            } else if !line.is_empty() {
                let parsed = Line::parse(line);
                series.push(parsed.ok_or_else(|| format!("line {number}: can't read `{line}`"))?);
            }
        }
        let keys: HashSet<String> = series.iter().map(Line::key).collect();
        if keys.len() < series.len() {
            return Err("some series is there twice".to_owned());
        }
        if let Some(known) = keys.intersection(&self.seen).next() {
            return Err(format!("another file has {known} as well"));
        }
        self.seen.extend(keys);
        for Line {
            name,
            labels,
            value,
        } in &series
        {
            // NaN and infinities say nothing that could be added or compared.
            if !value.is_finite() {
                out.skip(1);
                continue;
            }
            let trend = types
                .get(name)
                .copied()
                .unwrap_or_else(|| of_parts(name, &types));
            let key = ((*name).to_owned(), trend);
            let metric = self.metrics.entry(key).or_insert_with(|| {
                let help = helps
                    .get(name)
                    .copied()
                    .unwrap_or("Metric read from a file.");
                NodeMetric::as_named((*name).to_owned(), trend, help.to_owned())
            });
            let labels: Vec<(&str, &str)> = labels
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            out.push_node(metric, &labels, *value);
        }
        Ok(())
    }
}

/// The parts of a histogram or a summary are totals; all else has no type.
fn of_parts(name: &str, types: &HashMap<&str, Trend>) -> Trend {
    let is_part = ["_bucket", "_sum", "_count"].iter().any(|end| {
        let stem = name.strip_suffix(end);
        stem.is_some_and(|stem| types.contains_key(stem))
    });
    if is_part {
        Trend::Counter
    } else {
        Trend::Untyped
    }
}

fn trend(kind: &str) -> Trend {
    match kind {
        "counter" => Trend::Counter,
        "gauge" => Trend::Gauge,
        _ => Trend::Untyped,
    }
}

impl Probe for Textfiles {
    fn read(&mut self, _tick: &Tick<'_>, out: &mut Readings) -> Result<(), Failure> {
        let mut wrong = 0.0;
        self.seen.clear();
        let folder = self.folder.clone();
        if let Some(folder) = &folder {
            if !folder.is_dir() {
                wrong = 1.0;
                out.fail(|| format!("{}: expected a folder", folder.display()));
            }
            for file in items(folder, "") {
                if !file.name.ends_with(".prom") {
                    continue;
                }
                let mut buffer = std::mem::take(&mut self.buffer);
                let read = match read_once(&file.path, &mut buffer) {
                    Ok(text) => self.push(text, out),
                    Err(err) => Err(err.to_string()),
                };
                self.buffer = buffer;
                let path = file.path.to_string_lossy();
                if let Err(why) = read {
                    wrong = 1.0;
                    out.fail_of(&file.name, || format!("{path}: {why}"));
                    continue;
                }
                let modified = file
                    .path
                    .metadata()
                    .and_then(|metadata| metadata.modified());
                let since = modified
                    .ok()
                    .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                if let Some(since) = since {
                    let help = "When a file of metrics was written, in seconds since 1970.";
                    let metric = self.own.gauge("node_textfile_mtime_seconds", help);
                    out.push_node(metric, &[("file", &path)], since.as_secs_f64());
                }
            }
        }
        let help = "Whether some file of metrics could not be read (1).";
        out.push_node(
            self.own.gauge("node_textfile_scrape_error", help),
            &[],
            wrong,
        );
        Ok(())
    }
}

/// One line.
struct Line<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

impl<'a> Line<'a> {
    /// The series, as it is written with labels in order.
    fn key(&self) -> String {
        let mut labels: Vec<String> = self
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        labels.sort_unstable();
        format!("{}{{{}}}", self.name, labels.join(","))
    }

    fn parse(line: &'a str) -> Option<Line<'a>> {
        let end = line.find(['{', ' ', '\t'])?;
        let (name, rest) = line.split_at(end);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => parse_labels(rest)?,
            None => (Vec::new(), rest),
        };
        let is_name = |name: &str| {
            let first = name.chars().next();
            first.is_some_and(|c| !c.is_ascii_digit())
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
        };
        let mut words = rest.split_ascii_whitespace();
        let value = match words.next()? {
            "+Inf" => f64::INFINITY,
            "-Inf" => f64::NEG_INFINITY,
            word => word.parse().ok()?,
        };
        // A time of its own would be that of the file's writer; node_exporter refuses it, too.
        (is_name(name) && words.next().is_none()).then_some(Line {
            name,
            labels,
            value,
        })
    }
}

/// What stands between braces, of which the first is gone, and what comes behind them.
fn parse_labels(mut text: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        text = text.trim_start_matches([' ', ',']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = text.split_once('=')?;
        let mut chars = rest.trim_start().strip_prefix('"')?.char_indices();
        let quoted = rest.trim_start().strip_prefix('"')?;
        let mut value = String::new();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.push((name.trim(), value));
        text = &quoted[end + 1..];
    }
}
