//! A line of JSON: what was written, and what it means.

use std::fmt;

use qbus::{Merge, MetricType, Window};
use qbus_agent::Metric;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::args::{parse_merge, parse_number, parse_trace_id, parse_type, parse_window};

/// A metric as a line states it.
#[derive(Debug, Default)]
pub(super) struct Line {
    name: Option<String>,
    value: Option<f64>,
    metric_type: Option<MetricType>,
    labels: Vec<(String, String)>,
    description: String,
    unit: String,
    buckets: Vec<f64>,
    window: Option<Window>,
    native: bool,
    total: bool,
    add: bool,
    merge: Merge,
    timestamp: Option<f64>,
    trace_id: u128,
}

const KEYS: &str = "name, value, type, labels, description, unit, buckets, native, total, add, \
    merge, window, timestamp or trace_id";

impl Line {
    /// Reads a line; else what is wrong with it, worded for its author.
    pub(super) fn parse(line: &[u8]) -> Result<Line, String> {
        let json = serde_json::from_slice(line).map_err(|error| not_json(&error))?;
        let Json::Object(fields) = json else {
            return Err(format!("the line is {json}, expected an object {{…}}"));
        };
        let mut parsed = Line::default();
        let mut seen = Vec::new();
        for (key, value) in fields {
            if seen.contains(&key) {
                return Err(format!("key {key:?} is given twice"));
            }
            parsed.set(&key, value)?;
            seen.push(key);
        }
        match (&parsed.name, parsed.value) {
            (None, _) => Err("the line has no name".to_owned()),
            (_, None) => Err("the line has no value".to_owned()),
            _ => Ok(parsed),
        }
    }

    fn set(&mut self, key: &str, value: Json) -> Result<(), String> {
        match key {
            "name" => self.name = Some(value.text(key)?),
            "value" => self.value = Some(value.number(key)?),
            "type" => {
                let word = value.text(key)?;
                let parsed = parse_type(&word);
                let metric_type = parsed.map_err(|why| format!("type is {word:?}, {why}"))?;
                self.metric_type = Some(metric_type);
            }
            "labels" => {
                let Json::Object(labels) = value else {
                    return Err(format!("labels is {value}, expected an object {{…}}"));
                };
                let label = |(name, value): (String, Json)| {
                    let value = value.text(&format!("label {name:?}"))?;
                    Ok((name, value))
                };
                self.labels = labels
                    .into_iter()
                    .map(label)
                    .collect::<Result<_, String>>()?;
            }
            "description" => self.description = value.text(key)?,
            "unit" => self.unit = value.text(key)?,
            "buckets" => {
                let Json::List(bounds) = value else {
                    return Err(format!("buckets is {value}, expected a list of numbers"));
                };
                let bounds = bounds.into_iter().map(|bound| bound.number("a bound"));
                self.buckets = bounds.collect::<Result<_, String>>()?;
            }
            "native" => self.native = value.truth(key)?,
            "total" => self.total = value.truth(key)?,
            "add" => self.add = value.truth(key)?,
            "merge" => {
                let word = value.text(key)?;
                self.merge =
                    parse_merge(&word).map_err(|why| format!("merge is {word:?}, {why}"))?;
            }
            "window" => {
                let word = value.text(key)?;
                let parsed = parse_window(&word);
                let window = parsed.map_err(|why| format!("window is {word:?}, {why}"))?;
                self.window = Some(window);
            }
            "timestamp" => self.timestamp = Some(value.number(key)?),
            "trace_id" => {
                let word = value.text(key)?;
                let parsed = parse_trace_id(&word);
                self.trace_id = parsed.map_err(|why| format!("trace_id is {word:?}, {why}"))?;
            }
            _ => return Err(format!("key {key:?} is unknown, expected {KEYS}")),
        }
        Ok(())
    }

    /// Its labels, as a metric borrows them.
    pub(super) fn labels(&self) -> Vec<(&str, &str)> {
        let labels = self.labels.iter();
        labels.map(|(name, value)| (&**name, &**value)).collect()
    }

    /// A counter where the value is a total, and else a gauge, if the line does not say what.
    fn metric_type(&self) -> MetricType {
        let meant = if self.total {
            MetricType::Counter
        } else {
            MetricType::Gauge
        };
        self.metric_type.unwrap_or(meant)
    }

    /// The metric that the line states.
    pub(super) fn metric<'a>(&'a self, labels: &'a [(&'a str, &'a str)]) -> Metric<'a> {
        Metric {
            is_total: self.total,
            is_change: self.add,
            merge: self.merge,
            labels,
            description: &self.description,
            unit: &self.unit,
            buckets: &self.buckets,
            window: self.window,
            native: self.native,
            timestamp: self.timestamp,
            trace_id: self.trace_id,
            ..Metric::new(
                self.name.as_deref().unwrap_or_default(),
                self.value.unwrap_or_default(),
                self.metric_type(),
            )
        }
    }
}

/// Where a line stops being JSON, without the words of the library that found it.
fn not_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    match error.classify() {
        serde_json::error::Category::Eof => "not JSON: the line ends too early".to_owned(),
        _ if what == "number out of range" => {
            format!("a number is out of range, at character {}", error.column())
        }
        _ => format!("not JSON, at character {}: {what}", error.column()),
    }
}

/// Any JSON, with all keys of its objects, also those given twice.
#[derive(Debug)]
enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    fn text(self, what: &str) -> Result<String, String> {
        match self {
            Json::Text(text) => Ok(text),
            other => Err(format!("{what} is {other}, expected a string")),
        }
    }

    fn truth(self, what: &str) -> Result<bool, String> {
        match self {
            Json::Bool(found) => Ok(found),
            other => Err(format!("{what} is {other}, expected true or false")),
        }
    }

    /// A number, or a word for what JSON has no number for.
    fn number(&self, what: &str) -> Result<f64, String> {
        let found = match self {
            Json::Number(number) => Some(*number),
            Json::Text(word) => parse_number(word).ok().filter(|number| !number.is_finite()),
            _ => None,
        };
        let expected = "expected a number, \"NaN\", \"+Inf\" or \"-Inf\"";
        found.ok_or_else(|| format!("{what} is {self}, {expected}"))
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(found) => found.fmt(f),
            Json::Number(found) => found.fmt(f),
            Json::Text(found) => write!(f, "{found:?}"),
            Json::List(_) => f.write_str("a list"),
            Json::Object(_) => f.write_str("an object"),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(AnyJson)
    }
}

struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: de::Error>(self, found: bool) -> Result<Json, E> {
        Ok(Json::Bool(found))
    }

    fn visit_u64<E: de::Error>(self, found: u64) -> Result<Json, E> {
        Ok(Json::Number(found as f64))
    }

    fn visit_i64<E: de::Error>(self, found: i64) -> Result<Json, E> {
        Ok(Json::Number(found as f64))
    }

    fn visit_f64<E: de::Error>(self, found: f64) -> Result<Json, E> {
        Ok(Json::Number(found))
    }

    fn visit_str<E: de::Error>(self, found: &str) -> Result<Json, E> {
        Ok(Json::Text(found.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut found = Vec::new();
        while let Some(element) = list.next_element()? {
            found.push(element);
        }
        Ok(Json::List(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Json, A::Error> {
        let mut found = Vec::new();
        while let Some(field) = object.next_entry()? {
            found.push(field);
        }
        Ok(Json::Object(found))
    }
}
