//! What changes, told to every open dashboard: one reading a second for all of them, and none
//! without any.
//!
//! An event is one JSON document. The first that a client gets is `full`; then come `delta`s, which
//! hold the families and series that are new, those that are gone, and the values that changed;
//! `down` says why there are none. A client that does not keep up is cut off, and begins again with
//! a `full` one. Numbers of families and series hold from one `full` event to the next.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use qbus_aggregate::{Family, ReadOptions, Series, SummaryValue, Value};
use serde_json::{Value as Json, json};
use tokio::sync::{Notify, mpsc};
use tokio::time;

use super::routes::blocking;
use crate::view::{Ledgers, SnapshotSource};

/// Between two events.
const TICK: Duration = Duration::from_secs(1);
/// Events that a client may be behind.
const BEHIND_MAX: usize = 8;
/// Dashboards that may be open.
const CLIENTS_MAX: usize = 16;

/// Tells all clients what changes.
#[derive(Debug)]
pub(super) struct Feed {
    source: Arc<SnapshotSource>,
    ledgers: Arc<Ledgers>,
    clients: Mutex<Clients>,
    /// Somebody came.
    came: Notify,
    /// What the clients know. Only the task that tells them has it.
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Clients {
    /// They get a `full` event next.
    new: Vec<mpsc::Sender<Bytes>>,
    told: Vec<mpsc::Sender<Bytes>>,
    /// Whether the task that tells them runs.
    is_served: bool,
}

impl Feed {
    pub(super) fn new(source: Arc<SnapshotSource>, ledgers: Arc<Ledgers>) -> Feed {
        Feed {
            source,
            ledgers,
            clients: Mutex::default(),
            came: Notify::new(),
            known: Mutex::default(),
        }
    }

    fn clients(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The events from now on; none when there are too many clients.
    pub(super) fn subscribe(self: &Arc<Self>) -> Option<mpsc::Receiver<Bytes>> {
        let (sender, receiver) = mpsc::channel(BEHIND_MAX);
        let mut clients = self.clients();
        clients.new.retain(|client| !client.is_closed());
        clients.told.retain(|client| !client.is_closed());
        if clients.new.len() + clients.told.len() >= CLIENTS_MAX {
            return None;
        }
        clients.new.push(sender);
        if clients.is_served {
            self.came.notify_one();
        } else {
            clients.is_served = true;
            tokio::spawn(self.clone().serve());
        }
        Some(receiver)
    }

    /// Tells the clients, until there are none.
    async fn serve(self: Arc<Self>) {
        loop {
            let feed = self.clone();
            let somebody_came = !self.clients().new.is_empty();
            let (full, delta) = blocking(move || feed.events(somebody_came)).await;
            {
                let mut clients = self.clients();
                clients
                    .told
                    .retain(|client| client.try_send(delta.clone()).is_ok());
                // Without a full event they came meanwhile, and get the next one.
                if let Some(full) = full {
                    let new = std::mem::take(&mut clients.new);
                    let told = new
                        .into_iter()
                        .filter(|client| client.try_send(full.clone()).is_ok());
                    clients.told.extend(told);
                }
                if clients.told.is_empty() && clients.new.is_empty() {
                    clients.is_served = false;
                    // Nobody knows anything any more.
                    *self.known() = Known::default();
                    return;
                }
            }
            // Who comes in between need not wait for the second to end.
            let _ = time::timeout(TICK, self.came.notified()).await;
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present event in full, if a new client needs it, and the difference for clients that
    /// know the last one.
    fn events(&self, somebody_came: bool) -> (Option<Bytes>, Bytes) {
        let mut known = self.known();
        let read = self.source.read(|reader| {
            let listing = reader.list(&ReadOptions::default())?;
            let of = (listing.epoch(), listing.unix_ns());
            let news = known.take(listing.series());
            Ok((of, news, self.ledgers.of(reader)))
        });
        match read {
            Ok((of, news, ledger)) => {
                let ledger = serde_json::to_value(ledger).unwrap_or(Json::Null);
                let full = somebody_came.then(|| event("full", known.everything(), of, &ledger));
                (full, event("delta", news, of, &ledger))
            }
            Err(unready) => {
                let reason = json!({ "reason": unready.to_string() });
                let event = Bytes::from(format!("event: down\ndata: {reason}\n\n"));
                (Some(event.clone()), event)
            }
        }
    }
}

fn event(name: &str, news: News, (epoch, unix_ns): (u64, u64), ledger: &Json) -> Bytes {
    let document = json!({
        "epoch": epoch,
        "unix_ms": unix_ns as f64 / 1e6,
        "families": news.families,
        "gone": news.gone,
        "ledger": ledger,
    });
    let mut text = format!("id: {epoch}\nevent: {name}\ndata: {document}");
    // What is many is JSON already.
    text.pop();
    for (key, items) in [("series", &news.series), ("values", &news.values)] {
        let _ = write!(text, ",\"{key}\":[{items}]");
    }
    text.push_str("}\n\n");
    Bytes::from(text)
}

/// What an event tells.
#[derive(Debug, Default)]
struct News {
    families: Vec<Json>,
    /// Each `[id,family,{labels}]`.
    series: String,
    /// Each `[id,value,…]`.
    values: String,
    gone: Vec<usize>,
}

impl News {
    fn series(&mut self, id: usize, definition: &str) {
        push_item(&mut self.series, id, definition);
    }

    fn values(&mut self, id: usize, values: &str) {
        push_item(&mut self.values, id, values);
    }
}

fn push_item(items: &mut String, id: usize, rest: &str) {
    let comma = if items.is_empty() { "" } else { "," };
    let _ = write!(items, "{comma}[{id},{rest}]");
}

/// Families and series by number, which are never used again as long as anybody listens.
#[derive(Debug, Default)]
struct Known {
    families: HashMap<String, (usize, Json)>,
    /// By what they are told as, but for the number: `family,{labels}`.
    series: HashMap<String, Entry>,
    next: usize,
    tick: u64,
}

#[derive(Debug)]
struct Entry {
    id: usize,
    /// As it was last told.
    values: String,
    /// When it was last seen.
    tick: u64,
}

impl Known {
    /// Takes over all series that there are; what is new in them.
    fn take<'a>(&mut self, all: impl Iterator<Item = Cow<'a, Series>>) -> News {
        let mut news = News::default();
        self.tick += 1;
        let (mut definition, mut values) = (String::new(), String::new());
        let mut last: Option<(Arc<Family>, usize)> = None;
        for series in all {
            let known = last.take_if(|(family, _)| Arc::ptr_eq(family, &series.family));
            let known = known.unwrap_or_else(|| {
                (
                    series.family.clone(),
                    self.family(&series.family, &mut news),
                )
            });
            define(&mut definition, known.1, &series);
            last = Some(known);
            values.clear();
            push_values(&mut values, &series.value);
            match self.series.get_mut(&definition) {
                Some(entry) => {
                    entry.tick = self.tick;
                    if entry.values != values {
                        entry.values.clone_from(&values);
                        news.values(entry.id, &values);
                    }
                }
                None => {
                    let entry = Entry {
                        id: self.next,
                        values: values.clone(),
                        tick: self.tick,
                    };
                    self.next += 1;
                    news.series(entry.id, &definition);
                    news.values(entry.id, &values);
                    self.series.insert(definition.clone(), entry);
                }
            }
        }
        let tick = self.tick;
        self.series.retain(|_, entry| {
            let is_there = entry.tick == tick;
            if !is_there {
                news.gone.push(entry.id);
            }
            is_there
        });
        news
    }

    fn family(&mut self, family: &Family, news: &mut News) -> usize {
        // By all that it is: a bus that was made anew may mean something else by the name.
        let metric_type = family.metric_type.as_str();
        let key = format!("{}\0{metric_type}\0{:?}", family.name, family.buckets);
        if let Some((id, _)) = self.families.get(&key) {
            return *id;
        }
        let id = self.families.len();
        let definition = json!({
            "id": id,
            "name": family.name,
            // A view shows both alike.
            "type": match family.metric_type {
                qbus::MetricType::Untyped => "gauge",
                _ => metric_type,
            },
            "help": family.help,
            "unit": family.unit,
            "buckets": family.buckets,
        });
        news.families.push(definition.clone());
        self.families.insert(key, (id, definition));
        id
    }

    fn everything(&self) -> News {
        let families = self.families.values();
        let mut news = News {
            families: families.map(|(_, definition)| definition.clone()).collect(),
            ..News::default()
        };
        for (definition, entry) in &self.series {
            news.series(entry.id, definition);
            news.values(entry.id, &entry.values);
        }
        news
    }
}

/// Writes what a series is: the number of its family, and its labels as JSON.
fn define(out: &mut String, family: usize, series: &Series) {
    out.clear();
    let _ = write!(out, "{family},{{");
    for (at, (name, value)) in series.labels.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let (name, value) = (Json::from(name.as_str()), Json::from(value.as_str()));
        let _ = write!(out, "{comma}{name}:{value}");
    }
    out.push('}');
}

/// A counter's sum or a gauge's value; of observations count and sum, then of a histogram the count
/// of each bucket, and of a summary the count of what is not positive and a list of buckets: index,
/// count, index, …
fn push_values(out: &mut String, value: &Value) {
    match value {
        Value::Counter(sum) => push_number(out, sum.value()),
        Value::Gauge(value) => push_number(out, *value),
        Value::Histogram(value) => {
            let _ = write!(out, "{},", value.count);
            push_number(out, value.sum.value());
            let mut before = 0;
            for &cumulative in &value.cumulative {
                let _ = write!(out, ",{}", cumulative.saturating_sub(before));
                before = cumulative;
            }
        }
        Value::Summary(value) => push_summary(out, value),
    }
}

/// The buckets of a summary, four an octave: as fine as a screen is. The i-th ends at 2^(i/4).
fn push_summary(out: &mut String, value: &SummaryValue) {
    const SCHEMA: i32 = 2;
    let finest = value.distribution.exponential(usize::MAX);
    let coarser = finest.schema - SCHEMA;
    // Rounded up: a bucket is closed above.
    let coarse = |index: i32| (index + (1 << coarser) - 1) >> coarser;
    let rest = finest
        .negative
        .iter()
        .fold(finest.zeros, |sum, (_, count)| sum.saturating_add(*count));
    let _ = write!(out, "{},", value.count);
    push_number(out, value.sum.value());
    let _ = write!(out, ",{rest},[");
    let of_one = finest.positive.chunk_by(|a, b| coarse(a.0) == coarse(b.0));
    for (at, buckets) in of_one.enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let count = buckets.iter().fold(0_u64, |sum, b| sum.saturating_add(b.1));
        let _ = write!(out, "{comma}{},{count}", coarse(buckets[0].0));
    }
    out.push(']');
}

/// JSON has no word for NaN and the infinities.
fn push_number(out: &mut String, value: f64) {
    let _ = if value.is_finite() {
        write!(out, "{value:?}")
    } else {
        write!(out, "null")
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(known: &mut Known, names: &[(&str, f64)]) -> News {
        known.take(
            names
                .iter()
                .map(|(name, value)| Cow::Owned(gauge(name, *value))),
        )
    }

    fn gauge(name: &str, value: f64) -> Series {
        Series {
            family: Arc::new(Family::new(name, qbus::MetricType::Gauge)),
            labels: vec![("label".to_owned(), "\"\n".to_owned())],
            value: Value::Gauge(value),
            timestamp_ns: 0,
            start_ns: 0,
            records: 1,
            history: Vec::new(),
            exemplars: Vec::new(),
        }
    }

    #[test]
    fn only_what_changed_is_told_and_numbers_are_never_used_again() {
        let mut known = Known::default();
        let mut of = |names: &[(&str, f64)]| news(&mut known, names);
        let first = of(&[("a", 1.0), ("b", f64::NAN)]);
        let label = r#"{"label":"\"\n"}"#;
        assert_eq!(first.series, format!("[0,0,{label}],[1,1,{label}]"));
        assert_eq!(first.values, "[0,1.0],[1,null]");
        let changed = of(&[("a", 1.0), ("b", 2.0)]);
        assert_eq!((&*changed.series, &*changed.values), ("", "[1,2.0]"));
        let gone = of(&[("b", 2.0)]);
        assert_eq!((gone.gone, &*gone.values), (vec![0], ""));
        let back = of(&[("a", 5.0), ("b", 2.0)]);
        // The family was known: its definition stays.
        assert_eq!((back.families.len(), &*back.values), (0, "[2,5.0]"));
        let everything = known.everything();
        assert_eq!(everything.families.len(), 2);
        assert_eq!(everything.values.matches('[').count(), 2);
    }

    #[test]
    fn a_summary_has_four_buckets_an_octave() {
        let mut distribution = qbus_aggregate::Distribution::default();
        for (value, count) in [(-3.0, 1), (0.0, 2), (1.0, 3), (1.1, 4), (1.2, 5), (4.0, 6)] {
            distribution.observe(value, count);
        }
        let value = SummaryValue {
            last: 4.0,
            count: 21,
            sum: qbus_aggregate::Sum::from(0.5),
            min: -3.0,
            max: 4.0,
            quantiles: Vec::new(),
            distribution,
        };
        // 1 closes bucket 0; 1.1 lies in (1, 1.19], 1.2 in (1.19, 1.41], and 4 closes the eighth.
        let mut text = String::new();
        push_summary(&mut text, &value);
        assert_eq!(text, "21,0.5,3,[0,3,1,4,2,5,8,6]");
    }

    #[test]
    fn an_event_is_one_line_of_json() {
        let mut known = Known::default();
        let news = news(&mut known, &[("a", 1e300)]);
        let event = event("full", news, (3, 2_000_000), &Json::Null);
        let text = std::str::from_utf8(&event).unwrap();
        let data = text.strip_prefix("id: 3\nevent: full\ndata: ").unwrap();
        let document: Json = serde_json::from_str(data.strip_suffix("\n\n").unwrap()).unwrap();
        assert_eq!(document["values"], json!([[0, 1e300]]));
        assert_eq!(document["series"][0][2]["label"], "\"\n");
        assert_eq!(
            (document["unix_ms"].as_f64(), text.lines().count()),
            (Some(2.0), 4)
        );
    }
}
