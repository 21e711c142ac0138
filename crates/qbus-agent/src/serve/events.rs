//! What changes, told to every open dashboard: one reading a second for all of them, and none
//! without any.
//!
//! An event is one JSON document. The first that a client gets is `full`; then come `delta`s, which
//! hold the families and series that are new, those that are gone, and the values that changed;
//! `down` says why there are none. A client that does not keep up is cut off, and begins again with
//! a `full` one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use qbus_aggregate::{Family, ReadOptions, Series, Snapshot, SummaryValue, Value};
use serde_json::{Value as Json, json};
use tokio::sync::{Notify, mpsc};
use tokio::time;

use super::routes::blocking;
use crate::view::{Ledgers, Source};

/// Between two events.
const TICK: Duration = Duration::from_secs(1);
/// Events that a client may be behind.
const BEHIND_MAX: usize = 8;
/// Dashboards that may be open.
const CLIENTS_MAX: usize = 16;

/// Tells all clients what changes.
#[derive(Debug)]
pub(super) struct Feed {
    source: Arc<Source>,
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
    pub(super) fn new(source: Arc<Source>, ledgers: Arc<Ledgers>) -> Feed {
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
                    return;
                }
            }
            // Who comes in between need not wait for the second to end.
            let _ = time::timeout(TICK, self.came.notified()).await;
        }
    }

    /// The present event for who knows nothing, if somebody is to get it, and for who knows the
    /// last one.
    fn events(&self, somebody_came: bool) -> (Option<Bytes>, Bytes) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let read = self.source.read(|reader| {
            let snapshot = reader.read(&ReadOptions::default())?;
            Ok((snapshot, self.ledgers.of(reader)))
        });
        match read {
            Ok((snapshot, ledger)) => {
                let news = known.take(&snapshot);
                let ledger = serde_json::to_value(ledger).unwrap_or(Json::Null);
                let full =
                    somebody_came.then(|| event("full", &known.everything(), &snapshot, &ledger));
                (full, event("delta", &news, &snapshot, &ledger))
            }
            Err(unready) => {
                let reason = json!({ "reason": unready.to_string() });
                let event = Bytes::from(format!("event: down\ndata: {reason}\n\n"));
                (Some(event.clone()), event)
            }
        }
    }
}

fn event(name: &str, news: &News, snapshot: &Snapshot, ledger: &Json) -> Bytes {
    let (epoch, unix_ns) = (snapshot.epoch, snapshot.unix_ns);
    let document = json!({
        "epoch": epoch,
        "unix_ms": unix_ns as f64 / 1e6,
        "families": news.families,
        "series": news.series,
        "gone": news.gone,
        "ledger": ledger,
    });
    let values = news.values.join(",");
    // The values are JSON already, and many.
    let mut text = document.to_string();
    text.pop();
    Bytes::from(format!(
        "id: {epoch}\nevent: {name}\ndata: {text},\"values\":[{values}]}}\n\n"
    ))
}

/// What an event tells.
#[derive(Debug, Default)]
struct News {
    families: Vec<Json>,
    series: Vec<Json>,
    /// Each `[id,value,…]`.
    values: Vec<String>,
    gone: Vec<usize>,
}

/// Families and series by number, which are never used again.
#[derive(Debug, Default)]
struct Known {
    families: HashMap<String, (usize, Json)>,
    series: HashMap<String, Entry>,
    next: usize,
    tick: u64,
}

#[derive(Debug)]
struct Entry {
    id: usize,
    definition: Json,
    /// As it was last told.
    values: String,
    /// When it was last seen.
    tick: u64,
}

impl Known {
    /// Takes over a snapshot; what is new in it.
    fn take(&mut self, snapshot: &Snapshot) -> News {
        let mut news = News::default();
        self.tick += 1;
        for series in &snapshot.series {
            let family = self.family(&series.family, &mut news);
            let values = values(&series.value);
            let tick = self.tick;
            let next = &mut self.next;
            let entry = self.series.entry(key(series)).or_insert_with(|| {
                let (id, labels) = (*next, labels(series));
                *next += 1;
                let definition = json!([id, family, labels]);
                news.series.push(definition.clone());
                Entry {
                    id,
                    definition,
                    values: String::new(),
                    tick,
                }
            });
            entry.tick = tick;
            if entry.values != values {
                entry.values = values;
                news.values.push(entry.told());
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
        News {
            families: self
                .families
                .values()
                .map(|(_, definition)| definition.clone())
                .collect(),
            series: self
                .series
                .values()
                .map(|entry| entry.definition.clone())
                .collect(),
            values: self.series.values().map(Entry::told).collect(),
            gone: Vec::new(),
        }
    }
}

impl Entry {
    fn told(&self) -> String {
        format!("[{},{}]", self.id, self.values)
    }
}

fn key(series: &Series) -> String {
    let mut key = series.family.name.clone();
    for (name, value) in &series.labels {
        for text in [name, value] {
            key.push('\0');
            key.push_str(text);
        }
    }
    key
}

fn labels(series: &Series) -> Json {
    let labels = series.labels.iter();
    Json::Object(
        labels
            .map(|(name, value)| (name.clone(), Json::from(value.as_str())))
            .collect(),
    )
}

/// A counter's sum or a gauge's value; of observations count and sum, then of a histogram the count
/// of each bucket, and of a summary the count of what is not positive and a list of buckets: index,
/// count, index, …
fn values(value: &Value) -> String {
    match value {
        Value::Counter(sum) => number(sum.value()),
        Value::Gauge(value) => number(*value),
        Value::Histogram(value) => {
            let mut text = format!("{},{}", value.count, number(value.sum.value()));
            let mut before = 0;
            for &cumulative in &value.cumulative {
                text.push_str(&format!(",{}", cumulative.saturating_sub(before)));
                before = cumulative;
            }
            text
        }
        Value::Summary(value) => summary(value),
    }
}

/// The buckets of a summary, four an octave: as fine as a screen is. The i-th ends at 2^(i/4).
fn summary(value: &SummaryValue) -> String {
    const SCHEMA: i32 = 2;
    let finest = value.distribution.exponential(usize::MAX);
    let coarser = finest.schema - SCHEMA;
    // Rounded up: a bucket is closed above.
    let coarse = |index: i32| (index + (1 << coarser) - 1) >> coarser;
    let rest = finest
        .negative
        .iter()
        .fold(finest.zeros, |sum, (_, count)| sum.saturating_add(*count));
    let buckets = finest
        .positive
        .chunk_by(|a, b| coarse(a.0) == coarse(b.0))
        .map(|of_one| {
            let count = of_one.iter().fold(0_u64, |sum, b| sum.saturating_add(b.1));
            format!("{},{count}", coarse(of_one[0].0))
        });
    let buckets = buckets.collect::<Vec<_>>().join(",");
    let sum = number(value.sum.value());
    format!("{},{sum},{rest},[{buckets}]", value.count)
}

/// JSON has no word for NaN and the infinities.
fn number(value: f64) -> String {
    if value.is_finite() {
        format!("{value:?}")
    } else {
        "null".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(names: &[(&str, f64)]) -> Snapshot {
        let series = names.iter().map(|(name, value)| Series {
            family: Arc::new(Family {
                name: (*name).to_owned(),
                metric_type: qbus::MetricType::Gauge,
                help: String::new(),
                unit: String::new(),
                buckets: Vec::new(),
                native: false,
                merge: qbus::Merge::Last,
                window: qbus::Window::default(),
            }),
            labels: vec![("label".to_owned(), "\"\n".to_owned())],
            value: Value::Gauge(*value),
            timestamp_ns: 0,
            start_ns: 0,
            records: 1,
            history: Vec::new(),
            exemplars: Vec::new(),
        });
        Snapshot {
            epoch: 3,
            unix_ns: 2_000_000,
            consistent: true,
            series: series.collect(),
        }
    }

    #[test]
    fn only_what_changed_is_told_and_numbers_are_never_used_again() {
        let mut known = Known::default();
        let news = known.take(&snapshot(&[("a", 1.0), ("b", f64::NAN)]));
        assert_eq!(
            (news.series.len(), news.values),
            (2, vec!["[0,1.0]".into(), "[1,null]".into()])
        );
        let news = known.take(&snapshot(&[("a", 1.0), ("b", 2.0)]));
        assert_eq!(
            (news.series.len(), news.values),
            (0, vec!["[1,2.0]".into()])
        );
        let news = known.take(&snapshot(&[("b", 2.0)]));
        assert_eq!((news.gone, news.values.len()), (vec![0], 0));
        let news = known.take(&snapshot(&[("a", 5.0), ("b", 2.0)]));
        assert_eq!(news.values, ["[2,5.0]"]);
        // The family was known: its definition stays.
        assert_eq!(
            (news.families.len(), known.everything().values.len()),
            (0, 2)
        );
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
        assert_eq!(summary(&value), "21,0.5,3,[0,3,1,4,2,5,8,6]");
    }

    #[test]
    fn an_event_is_one_line_of_json() {
        let mut known = Known::default();
        let snapshot = snapshot(&[("a", 1e300)]);
        let news = known.take(&snapshot);
        let event = event("full", &news, &snapshot, &Json::Null);
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
