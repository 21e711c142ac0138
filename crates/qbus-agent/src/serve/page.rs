//! Pages, rendered once for all who ask for the same at the same time.

use std::io::Write;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Bytes;
use qbus::MetricType;
use qbus_aggregate::export::{Format, Options, export};
use qbus_aggregate::{Family, ReadOptions, Reader, Series, Value};
use tokio::sync::Mutex;

use super::query::Query;
use crate::view::{Source, Unready};

/// Rendered pages that are kept: two formats, and a few choices of families.
const KEPT: usize = 4;

/// What a page is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) format: Format,
    pub(super) query: Query,
}

/// Makes pages, and keeps the last.
#[derive(Debug)]
pub(super) struct Pages {
    source: Arc<Source>,
    /// For every series of what scrapers get.
    labels: Arc<[(String, String)]>,
    kept: Mutex<Vec<Arc<Page>>>,
}

/// One rendered page.
#[derive(Debug)]
pub(super) struct Page {
    wanted: Wanted,
    commit: Commit,
    /// When the snapshot began to be read.
    begun: Instant,
    plain: Bytes,
    packed: OnceLock<Bytes>,
}

/// A commit of a bus: what has the same one says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Commit {
    instance: [u64; 2],
    epoch: u64,
    unix_ns: u64,
}

impl Commit {
    fn of(reader: &Reader) -> Commit {
        Commit {
            instance: reader.instance(),
            epoch: reader.epoch(),
            unix_ns: reader.globals().unix_ns,
        }
    }
}

impl Pages {
    pub(super) fn new(source: Arc<Source>, labels: Vec<(String, String)>) -> Pages {
        Pages {
            source,
            labels: labels.into(),
            kept: Mutex::default(),
        }
    }

    /// The page as of now, or as of any later moment before it is returned.
    ///
    /// Whoever comes while a page is being made waits, and those who waited share the next one:
    /// however many ask at once, nobody waits for more than two.
    pub(super) async fn get(&self, wanted: Wanted, gzip: bool) -> Result<Bytes, Unready> {
        let came = Instant::now();
        let mut kept = self.kept.lock().await;
        let known = kept.iter().find(|page| page.wanted == wanted).cloned();
        let shared = known.clone().filter(|page| page.begun >= came);
        if let Some(page) = &shared
            && let Some(bytes) = page.ready(gzip)
        {
            return Ok(bytes);
        }
        // The last page makes room for the next one, unless that is the same.
        kept.retain(|page| page.wanted != wanted);
        let (source, labels) = (self.source.clone(), self.labels.clone());
        let made = tokio::task::spawn_blocking(move || {
            let page = match shared {
                Some(page) => page,
                None => renew(&source, &labels, known, wanted)?,
            };
            let bytes = page.bytes(gzip);
            Ok((page, bytes))
        });
        let (page, bytes) = match made.await {
            Ok(made) => made?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        kept.truncate(KEPT - 1);
        kept.insert(0, page);
        Ok(bytes)
    }
}

/// The known page, if nothing was committed since; else a new one.
fn renew(
    source: &Source,
    labels: &[(String, String)],
    known: Option<Arc<Page>>,
    wanted: Wanted,
) -> Result<Arc<Page>, Unready> {
    let begun = Instant::now();
    source.read(|reader| {
        let commit = Commit::of(reader);
        let plain_len = known.as_ref().map_or(0, |page| page.plain.len());
        match known {
            Some(page) if page.commit == commit => return Ok(page),
            // What is not sent to anybody any more makes room.
            old => drop(old),
        }
        let takes = |name: &str| wanted.query.takes(name);
        let mut listing = reader.list(&ReadOptions {
            history: wanted.query.history,
            matches: Some(&takes),
        })?;
        if wanted.format != Format::Json {
            if wanted.query.takes(COMMIT_TIME) {
                listing.add(commit_time(listing.unix_ns()));
            }
            listing.add_labels(labels);
        }
        let options = Options {
            timestamps: false,
            history: wanted.query.history,
        };
        let mut plain = Vec::with_capacity(plain_len + plain_len / 64);
        // A vector takes everything, and what had to be left out is left out of `qbus dump` too,
        // which says so.
        let _ = export(&listing, wanted.format, &options, &mut plain);
        Ok(Arc::new(Page {
            wanted,
            commit,
            begun,
            plain: Bytes::from(plain),
            packed: OnceLock::new(),
        }))
    })
}

/// Says on the page itself when it was committed: the age of what a scraper gets is then an
/// expression, and an alert. The page of one commit stays the same.
const COMMIT_TIME: &str = "qbus_bus_commit_timestamp_seconds";

fn commit_time(unix_ns: u64) -> Series {
    let family = Family {
        name: COMMIT_TIME.to_owned(),
        metric_type: MetricType::Gauge,
        help: "When the aggregator committed this page, in seconds since 1970.".to_owned(),
        unit: "seconds".to_owned(),
        buckets: Vec::new(),
        native: false,
        merge: qbus::Merge::Last,
        window: qbus::Window::default(),
    };
    Series {
        family: Arc::new(family),
        labels: Vec::new(),
        value: Value::Gauge(qbus_aggregate::export::seconds(unix_ns)),
        timestamp_ns: unix_ns,
        start_ns: unix_ns,
        records: 0,
        history: Vec::new(),
        exemplars: Vec::new(),
    }
}

impl Page {
    /// The bytes, if they need not be packed first.
    fn ready(&self, gzip: bool) -> Option<Bytes> {
        if gzip {
            self.packed.get().cloned()
        } else {
            Some(self.plain.clone())
        }
    }

    fn bytes(&self, gzip: bool) -> Bytes {
        if !gzip {
            return self.plain.clone();
        }
        self.packed.get_or_init(|| pack(&self.plain)).clone()
    }
}

/// Compressed with gzip, quickly: a scrape is shorter for it on any network, and a better ratio
/// costs more time than it saves.
pub(super) fn pack(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 8), Compression::fast());
    // A vector takes everything.
    let _ = encoder.write_all(plain);
    Bytes::from(encoder.finish().unwrap_or_default())
}
