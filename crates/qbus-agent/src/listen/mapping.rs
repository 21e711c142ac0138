//! Which metric and labels a StatsD name becomes: a file in the format of statsd_exporter.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use qbus::MetricType;
use regex_lite::Regex;
use saphyr::{LoadableYamlNode, Yaml};

use super::line::StatsdType;
use super::names::{metric_name, set};

/// Rules, the first that matches counts; patterns of words before regular expressions.
#[derive(Debug, Default)]
pub(super) struct Mapping {
    globs: Vec<Rule>,
    regexes: Vec<Rule>,
    /// Of timers, histograms and distributions for which no rule says it.
    observer: Option<MetricType>,
    buckets: Vec<f64>,
    ttl: Option<Duration>,
}

#[derive(Debug)]
struct Rule {
    pattern: Pattern,
    /// Only lines of this type.
    only: Option<Only>,
    name: String,
    labels: Vec<(String, String)>,
    help: String,
    observer: Option<MetricType>,
    buckets: Vec<f64>,
    scale: f64,
    ttl: Option<Duration>,
    is_drop: bool,
}

#[derive(Debug)]
enum Pattern {
    /// Words between dots; `*` is any one.
    Glob(Vec<String>),
    Regex(Regex),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Only {
    Counter,
    Gauge,
    Observer,
}

/// What a name becomes.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) name: String,
    pub(super) metric_type: MetricType,
    pub(super) help: String,
    pub(super) buckets: Vec<f64>,
    pub(super) scale: f64,
    pub(super) ttl: Option<Duration>,
    pub(super) is_dropped: bool,
}

/// Why a mapping file cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum MappingError {
    /// It cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It does not say what it should.
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong where, and what was expected.
        reason: String,
    },
}

impl fmt::Display for MappingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MappingError::Read { path, source } => {
                write!(f, "the mapping {} cannot be read: {source}", path.display())
            }
            MappingError::Content { path, reason } => {
                write!(f, "the mapping {}: {reason}", path.display())
            }
        }
    }
}

impl std::error::Error for MappingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MappingError::Read { source, .. } => Some(source),
            MappingError::Content { .. } => None,
        }
    }
}

impl Mapping {
    pub(super) fn read(path: &Path) -> Result<Mapping, MappingError> {
        let text = fs::read_to_string(path).map_err(|source| MappingError::Read {
            path: path.to_owned(),
            source,
        })?;
        Mapping::parse(&text).map_err(|reason| MappingError::Content {
            path: path.to_owned(),
            reason,
        })
    }

    fn parse(text: &str) -> Result<Mapping, String> {
        let documents = Yaml::load_from_str(text).map_err(|error| format!("no YAML: {error}"))?;
        let mut mapping = Mapping::default();
        let Some(document) = documents.first().filter(|document| !document.is_null()) else {
            return Ok(mapping);
        };
        let mut is_regex = false;
        for (key, value) in pairs(document, "the file")? {
            match key {
                "defaults" => {
                    for (key, value) in pairs(value, "defaults")? {
                        match key {
                            "observer_type" | "timer_type" => {
                                mapping.observer = Some(observer(value)?)
                            }
                            "buckets" => mapping.buckets = numbers(value, "buckets")?,
                            "histogram_options" => mapping.buckets = histogram_options(value)?,
                            "match_type" => is_regex = is_regex_type(value)?,
                            "ttl" => mapping.ttl = duration(value)?,
                            // Quantiles are this bus's own, and globs are always in order.
                            "summary_options" | "quantiles" | "glob_disable_ordering" => {}
                            other => return Err(unknown("defaults", other)),
                        }
                    }
                }
                "mappings" => {}
                other => return Err(unknown("the file", other)),
            }
        }
        let mappings = document.as_mapping_get("mappings");
        let rules = mappings.and_then(Yaml::as_sequence).into_iter().flatten();
        for (at, rule) in rules.enumerate() {
            let rule = Rule::parse(rule, is_regex);
            let rule = rule.map_err(|reason| format!("mapping {}: {reason}", at + 1))?;
            match rule.pattern {
                Pattern::Glob(_) => mapping.globs.push(rule),
                Pattern::Regex(_) => mapping.regexes.push(rule),
            }
        }
        Ok(mapping)
    }

    /// What a name becomes; adds the labels that its rule gives it.
    pub(super) fn find(
        &self,
        name: &str,
        kind: StatsdType,
        labels: &mut Vec<(String, String)>,
    ) -> Mapped {
        let rules = self.globs.iter().chain(&self.regexes);
        let takes = |rule: &&Rule| rule.only.is_none_or(|only| only == Only::of(kind));
        let found = rules
            .filter(takes)
            .find_map(|rule| Some((rule, rule.pattern.captures(name)?)));
        // A name without dots, tags for the rest: what fits any bounds.
        let usual = if kind == StatsdType::Timer {
            MetricType::Histogram
        } else {
            MetricType::Summary
        };
        let observer = |own: Option<MetricType>| own.or(self.observer).unwrap_or(usual);
        let (own, mut mapped) = match &found {
            None => (None, Mapped::new(metric_name(name), self)),
            Some((rule, captures)) => {
                for (label, value) in &rule.labels {
                    set(labels, label.clone(), filled(value, captures));
                }
                labels.sort();
                let mapped = Mapped {
                    help: rule.help.clone(),
                    scale: rule.scale,
                    ttl: rule.ttl.or(self.ttl),
                    is_dropped: rule.is_drop,
                    ..Mapped::new(metric_name(&filled(&rule.name, captures)), self)
                };
                (Some(rule), mapped)
            }
        };
        mapped.metric_type = match kind {
            StatsdType::Counter => MetricType::Counter,
            StatsdType::Gauge | StatsdType::Set => MetricType::Gauge,
            StatsdType::Timer | StatsdType::Histogram | StatsdType::Distribution => {
                observer(own.and_then(|rule| rule.observer))
            }
        };
        if mapped.metric_type == MetricType::Histogram {
            let buckets = own.map_or(&[][..], |rule| &rule.buckets);
            let buckets = if buckets.is_empty() {
                &self.buckets
            } else {
                buckets
            };
            mapped.buckets = buckets.to_vec();
        }
        mapped
    }
}

impl Mapped {
    fn new(name: String, mapping: &Mapping) -> Mapped {
        Mapped {
            name,
            metric_type: MetricType::Untyped,
            help: String::new(),
            buckets: Vec::new(),
            scale: 1.0,
            ttl: mapping.ttl,
            is_dropped: false,
        }
    }
}

impl Only {
    fn of(kind: StatsdType) -> Only {
        match kind {
            StatsdType::Counter => Only::Counter,
            StatsdType::Gauge | StatsdType::Set => Only::Gauge,
            StatsdType::Timer | StatsdType::Histogram | StatsdType::Distribution => Only::Observer,
        }
    }
}

impl Rule {
    fn parse(rule: &Yaml<'_>, mut is_regex: bool) -> Result<Rule, String> {
        let mut pattern = None;
        let mut parsed = Rule {
            pattern: Pattern::Glob(Vec::new()),
            only: None,
            name: String::new(),
            labels: Vec::new(),
            help: String::new(),
            observer: None,
            buckets: Vec::new(),
            scale: 1.0,
            ttl: None,
            is_drop: false,
        };
        for (key, value) in pairs(rule, "a mapping")? {
            match key {
                "match" => pattern = Some(text(value, "match")?),
                "match_type" => is_regex = is_regex_type(value)?,
                "match_metric_type" => {
                    parsed.only = Some(match text(value, key)? {
                        "counter" => Only::Counter,
                        "gauge" => Only::Gauge,
                        "observer" | "timer" => Only::Observer,
                        other => {
                            return Err(format!(
                                "match_metric_type is {other:?}, expected counter, gauge or \
                                 observer"
                            ));
                        }
                    });
                }
                "name" => parsed.name = text(value, "name")?.to_owned(),
                "labels" => {
                    for (name, value) in pairs(value, "labels")? {
                        parsed
                            .labels
                            .push((name.to_owned(), text(value, name)?.to_owned()));
                    }
                }
                "help" => parsed.help = text(value, "help")?.to_owned(),
                "observer_type" | "timer_type" => parsed.observer = Some(observer(value)?),
                "buckets" => parsed.buckets = numbers(value, "buckets")?,
                "histogram_options" => parsed.buckets = histogram_options(value)?,
                "scale" => {
                    parsed.scale = number(value).ok_or("scale is no number")?;
                }
                "ttl" => parsed.ttl = duration(value)?,
                "action" => {
                    parsed.is_drop = match text(value, "action")? {
                        "map" => false,
                        "drop" => true,
                        other => return Err(format!("action is {other:?}, expected map or drop")),
                    }
                }
                "summary_options" | "quantiles" | "honor_labels" => {}
                other => return Err(unknown("a mapping", other)),
            }
        }
        let pattern = pattern.ok_or("it has no match")?;
        if parsed.name.is_empty() && !parsed.is_drop {
            return Err("it has no name".to_owned());
        }
        parsed.pattern = if is_regex {
            let regex = Regex::new(pattern);
            Pattern::Regex(regex.map_err(|error| format!("match is {pattern:?}: {error}"))?)
        } else {
            Pattern::Glob(pattern.split('.').map(str::to_owned).collect())
        };
        Ok(parsed)
    }
}

impl Pattern {
    /// What each `*`, or each group, matched; `None` where a name does not match.
    fn captures<'n>(&self, name: &'n str) -> Option<Vec<&'n str>> {
        match self {
            Pattern::Glob(words) => {
                let mut captures = Vec::new();
                let mut rest = name.split('.');
                for word in words {
                    let found = rest.next()?;
                    match word.as_str() {
                        "*" => captures.push(found),
                        word if word == found => {}
                        _ => return None,
                    }
                }
                rest.next().is_none().then_some(captures)
            }
            Pattern::Regex(regex) => {
                let found = regex.captures(name)?;
                let groups =
                    (1..found.len()).map(|at| found.get(at).map_or("", |group| group.as_str()));
                Some(groups.collect())
            }
        }
    }
}

/// A template with `$1` or `${1}` filled in; what has no such part is empty.
fn filled(template: &str, captures: &[&str]) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (digits, more) = match after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
        {
            Some((digits, more)) => (digits, more),
            None => {
                let end = after
                    .find(|c: char| !c.is_ascii_digit())
                    .unwrap_or(after.len());
                after.split_at(end)
            }
        };
        match digits.parse::<usize>() {
            Ok(number) => {
                let found = number.checked_sub(1).and_then(|at| captures.get(at));
                out.push_str(found.unwrap_or(&""));
                rest = more;
            }
            Err(_) => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn unknown(place: &str, key: &str) -> String {
    format!("{place} has {key:?}, which is not known")
}

fn pairs<'y>(value: &'y Yaml<'_>, what: &str) -> Result<Vec<(&'y str, &'y Yaml<'y>)>, String> {
    let mapping = value
        .as_mapping()
        .ok_or_else(|| format!("{what} is no mapping of YAML"))?;
    let pair = |(key, value)| -> Result<(&'y str, &'y Yaml<'y>), String> {
        let key: &Yaml<'_> = key;
        Ok((
            key.as_str()
                .ok_or_else(|| format!("{what} has a key that is no text"))?,
            value,
        ))
    };
    mapping.iter().map(pair).collect()
}

fn text<'y>(value: &'y Yaml<'_>, key: &str) -> Result<&'y str, String> {
    value.as_str().ok_or_else(|| format!("{key} is no text"))
}

fn number(value: &Yaml<'_>) -> Option<f64> {
    value
        .as_floating_point()
        .or_else(|| value.as_integer().map(|integer| integer as f64))
}

fn numbers(value: &Yaml<'_>, key: &str) -> Result<Vec<f64>, String> {
    let wrong = || format!("{key} is no list of ascending numbers");
    let found: Option<Vec<f64>> = value
        .as_sequence()
        .ok_or_else(wrong)?
        .iter()
        .map(number)
        .collect();
    found
        .filter(|all| all.is_sorted_by(|a, b| a < b))
        .ok_or_else(wrong)
}

fn histogram_options(value: &Yaml<'_>) -> Result<Vec<f64>, String> {
    let mut buckets = Vec::new();
    for (key, value) in pairs(value, "histogram_options")? {
        match key {
            "buckets" => buckets = numbers(value, "buckets")?,
            other if other.starts_with("native_histogram") => {}
            other => return Err(unknown("histogram_options", other)),
        }
    }
    Ok(buckets)
}

fn observer(value: &Yaml<'_>) -> Result<MetricType, String> {
    match text(value, "observer_type")? {
        "histogram" => Ok(MetricType::Histogram),
        "summary" => Ok(MetricType::Summary),
        other => Err(format!(
            "observer_type is {other:?}, expected histogram or summary"
        )),
    }
}

fn is_regex_type(value: &Yaml<'_>) -> Result<bool, String> {
    match text(value, "match_type")? {
        "glob" => Ok(false),
        "regex" => Ok(true),
        other => Err(format!("match_type is {other:?}, expected glob or regex")),
    }
}

/// As Go writes them: `30s`, `5m`, `1h`; 0 is none.
fn duration(value: &Yaml<'_>) -> Result<Option<Duration>, String> {
    if value.as_integer() == Some(0) {
        return Ok(None);
    }
    let text = text(value, "ttl")?;
    let end = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let seconds = match unit {
        "ms" => Some(0.001),
        "s" | "" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    };
    let number: Option<f64> = number.parse().ok();
    let total = seconds
        .zip(number)
        .map(|(seconds, number)| seconds * number);
    let found = total.and_then(|total| Duration::try_from_secs_f64(total).ok());
    match found {
        Some(duration) => Ok((!duration.is_zero()).then_some(duration)),
        None => Err(format!("ttl is {text:?}, expected a duration: 30s, 5m, 1h")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
defaults:
  observer_type: summary
  buckets: [0.1, 1]
  ttl: 5m
mappings:
- match: "^regex\\.(\\w+)\\.(\\w+)$"
  match_type: regex
  name: "regex_${1}"
  labels: {what: "$2"}
- match: "test.dispatcher.*.*.*"
  name: "dispatcher_events_total"
  labels:
    processor: "$1"
    outcome: "$3"
    job: "test_${2}"
- match: "test.timing.*"
  observer_type: histogram
  histogram_options: {buckets: [0.005, 0.5]}
  name: "my_timer"
  scale: 2
- match: "test.*.*"
  match_metric_type: gauge
  name: "other_$1"
- match: "secret.*"
  action: drop
"#;

    fn find(name: &str, kind: StatsdType) -> (Mapped, Vec<String>) {
        let mapping = Mapping::parse(FILE).expect("a mapping");
        let mut labels = vec![("tag".to_owned(), "1".to_owned())];
        let mapped = mapping.find(name, kind, &mut labels);
        let labels = labels.iter().map(|(name, value)| format!("{name}={value}"));
        (mapped, labels.collect())
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let (mapped, labels) = find(
            "test.dispatcher.FooProcessor.send.success",
            StatsdType::Counter,
        );
        assert_eq!(
            (mapped.name.as_str(), mapped.metric_type),
            ("dispatcher_events_total", MetricType::Counter)
        );
        assert_eq!(
            labels,
            [
                "job=test_send",
                "outcome=success",
                "processor=FooProcessor",
                "tag=1"
            ]
        );
        assert_eq!(mapped.ttl, Some(Duration::from_secs(300)));
        let (mapped, _) = find("test.timing.a", StatsdType::Timer);
        assert_eq!(
            (mapped.metric_type, mapped.buckets, mapped.scale),
            (MetricType::Histogram, vec![0.005, 0.5], 2.0)
        );
        let (mapped, labels) = find("regex.a.b", StatsdType::Gauge);
        assert_eq!((mapped.name.as_str(), labels.len()), ("regex_a", 2));
        assert_eq!(find("test.x.y", StatsdType::Gauge).0.name, "other_x");
        assert_eq!(
            find("test.x.y", StatsdType::Counter).0.name,
            "test_x_y",
            "another type"
        );
        assert!(find("secret.key", StatsdType::Counter).0.is_dropped);
        let (mapped, _) = find("free", StatsdType::Histogram);
        assert_eq!(
            (mapped.metric_type, mapped.buckets),
            (MetricType::Summary, vec![])
        );
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (file, gist) in [
            ("mappings: [{match: a, nam: b}]", "nam"),
            ("mappings: [{match: a}]", "no name"),
            ("mappings: [{name: a}]", "no match"),
            ("default: {}", "default"),
            (
                "mappings: [{match: '(', match_type: regex, name: a}]",
                "match is",
            ),
            ("mappings: [{match: a, name: a, ttl: soon}]", "ttl"),
            (
                "mappings: [{match: a, name: a, observer_type: gauge}]",
                "observer_type",
            ),
            (
                "mappings: [{match: a, name: a, buckets: [2, 1]}]",
                "ascending",
            ),
            ("[", "YAML"),
        ] {
            let error = Mapping::parse(file).expect_err(file);
            assert!(error.contains(gist), "{file}: {error}");
        }
        assert!(Mapping::parse("").is_ok_and(|mapping| mapping.globs.is_empty()));
    }
}
