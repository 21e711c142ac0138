//! Pages, rendered once for all who ask for the same at the same time.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qbus::MetricType;
use qbus_aggregate::export::{Format, Options, export};
use qbus_aggregate::{Family, ReadOptions, Reader, Series, Value};
use tokio::sync::Mutex;
use tokio::time;

use super::body::Pieces;
use super::query::Query;
use super::routes::blocking;
use crate::view::{SnapshotSource, Unready};

/// How long a page is kept for clients that asked while it was made. There is another commit by
/// then, as a rule.
const KEPT_TIME: Duration = Duration::from_secs(1);
/// Pages that are kept: two formats, and a few choices of families.
const KEPT_MAX: usize = 4;

/// What a page is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) format: Format,
    pub(super) query: Query,
    pub(super) gzip: bool,
}

/// Makes pages, and keeps the last.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    source: Arc<SnapshotSource>,
    /// For every series of what scrapers get.
    labels: Arc<[(String, String)]>,
    kept: Arc<Mutex<Vec<Page>>>,
}

/// One rendered page.
#[derive(Clone, Debug)]
struct Page {
    wanted: Wanted,
    commit: Commit,
    /// When the snapshot began to be read.
    begun: Instant,
    body: Pieces,
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
    pub(super) fn new(source: Arc<SnapshotSource>, labels: Vec<(String, String)>) -> Pages {
        Pages {
            source,
            labels: labels.into(),
            kept: Arc::default(),
        }
    }

    /// The page as of now, or as of any later moment before it is returned.
    ///
    /// Whoever comes while a page is being made waits, and those who waited share the next one:
    /// however many ask at once, nobody waits for more than two.
    pub(super) async fn get(&self, wanted: Wanted) -> Result<Pieces, Unready> {
        let came = Instant::now();
        // Served in turn: who comes later to this lock came later.
        let mut kept = self.kept.lock().await;
        if let Some(page) = kept.iter().find(|page| page.wanted == wanted)
            && page.begun >= came
        {
            return Ok(page.body.clone());
        }
        let (pages, others) = (self.clone(), mem::take(&mut *kept));
        let (page, others) = blocking(move || pages.renew(others, wanted, came)).await?;
        let body = page.body.clone();
        kept.extend([page].into_iter().chain(others).take(KEPT_MAX));
        if kept.len() == 1 {
            tokio::spawn(let_go(self.kept.clone()));
        }
        Ok(body)
    }

    /// The page, and those others that are still of use: the one that is there, if nothing was
    /// committed since; or the plain one packed; else a new one.
    fn renew(
        &self,
        mut kept: Vec<Page>,
        wanted: Wanted,
        came: Instant,
    ) -> Result<(Page, Vec<Page>), Unready> {
        let begun = Instant::now();
        self.source.read(|reader| {
            let commit = Commit::of(reader);
            // What is not sent to anybody any more makes room for the next one.
            kept.retain(|page| page.begun >= came || page.commit == commit);
            if let Some(at) = kept.iter().position(|page| page.wanted == wanted) {
                return Ok((kept.swap_remove(at), kept));
            }
            let plain = Wanted {
                gzip: false,
                ..wanted.clone()
            };
            if let Some(plain) = kept.iter().find(|page| page.wanted == plain) {
                let body = plain.body.packed();
                let packed = Page {
                    wanted,
                    body,
                    ..plain.clone()
                };
                return Ok((packed, kept));
            }
            let takes = |name: &str| wanted.query.takes(name);
            let what = ReadOptions {
                history: wanted.query.history,
                matches: Some(&takes),
            };
            let mut listing = reader.list_for(wanted.format, &what)?;
            if wanted.format != Format::Json {
                if wanted.query.takes(COMMIT_TIME) {
                    listing.add(commit_time(listing.unix_ns()));
                }
                listing.add_labels(&self.labels);
            }
            let options = Options {
                timestamps: false,
                history: wanted.query.history,
            };
            let body = Pieces::written(wanted.gzip, |out| {
                // It takes everything; and what had to be left out is left out of `qbus dump` too,
                // which says so.
                let _ = export(&listing, wanted.format, &options, out);
            });
            let page = Page {
                wanted,
                commit,
                begun,
                body,
            };
            Ok((page, kept))
        })
    }
}

/// Lets pages go some time after they were made, until there are none.
async fn let_go(kept: Arc<Mutex<Vec<Page>>>) {
    loop {
        time::sleep(KEPT_TIME).await;
        let mut kept = kept.lock().await;
        kept.retain(|page| page.begun.elapsed() < KEPT_TIME);
        if kept.is_empty() {
            return;
        }
    }
}

/// Says on the page itself when it was committed: the age of what a scraper gets is then an
/// expression, and an alert. The page of one commit stays the same.
const COMMIT_TIME: &str = "qbus_bus_commit_timestamp_seconds";

fn commit_time(unix_ns: u64) -> Series {
    let family = Family {
        help: "When the aggregator committed this page, in seconds since 1970.".to_owned(),
        unit: "seconds".to_owned(),
        ..Family::new(COMMIT_TIME, MetricType::Gauge)
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
