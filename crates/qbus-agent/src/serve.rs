//! The scrape endpoint: pages for scrapers, JSON for programs, and the dashboard for people.
//!
//! It needs the snapshot file alone, maps it read-only, and survives every restart of the
//! aggregator: nothing that a client does reaches a worker or the drain. [`Server::start`] runs it
//! on a thread of its own.
//!
//! | path             | what |
//! |------------------|------|
//! | `/metrics`       | OpenMetrics, text 0.0.4 or protobuf, as the scraper asks |
//! | `/api/v1/series` | the JSON of `qbus dump`; `?history=1`, `?collect[]=GLOB` |
//! | `/api/v1/ledger` | what became of all records, and who is attached |
//! | `/events`        | what changes, as server-sent events |
//! | `/`              | the dashboard |
//! | `/-/healthy`     | 200 while the server runs |
//! | `/-/ready`       | 200 while the snapshot is young enough, else 503 with the reason |
//!
//! In the order of a request: `listen` (addresses), `limits` (connections and requests),
//! `impatient`, `tls`, `auth` and `host` (who may ask), `routes`, `negotiate` and `query` (what is
//! asked for), [`view`](crate::view) (the snapshot and the ledger), `page` (rendered once for all
//! who ask at the same time), `events`.

mod body;
mod connection;
mod events;
mod host;
mod impatient;
mod limits;
mod listen;
mod negotiate;
mod page;
mod query;
mod routes;
#[cfg(feature = "tls")]
mod secure;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use qbus::Address;
use tokio::sync::oneshot;

pub use listen::{Listen, ListenError};
#[cfg(feature = "tls")]
pub use secure::WebConfigError;

use listen::Listener;
use routes::Routes;

use crate::Log;

/// Threads that read snapshots and render pages, so that no connection waits for another's. One: an
/// allocator keeps for each thread what its largest page took.
const RENDERERS: usize = 1;

/// What a server serves, where and to whom.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where it listens.
    pub listen: Vec<Listen>,
    /// The snapshot file.
    pub snapshot: PathBuf,
    /// The bus, which says more of the ledger than the snapshot does: who is attached. Not needed.
    pub bus: Option<Address>,
    /// A snapshot that was committed longer ago is not served; `None` serves any.
    pub max_age: Option<Duration>,
    /// More requests at once are answered with 503; 0 is no limit.
    pub max_requests: usize,
    /// Names of this host that a client on it may call it by, beside `localhost`, addresses and its
    /// own.
    pub hosts: Vec<String>,
    /// Labels for every series of a page, as
    /// [`Snapshot::add_labels`](qbus_aggregate::Snapshot::add_labels) adds them; the dashboard has
    /// none of them.
    pub labels: Vec<(String, String)>,
    /// TLS and passwords: a file in the format of Prometheus' exporter toolkit, read again when it
    /// changes.
    #[cfg(feature = "tls")]
    pub web_config: Option<PathBuf>,
}

impl ServeOptions {
    /// Those of `qbus serve` for a snapshot: 127.0.0.1:9464, a minute, 40 requests at once.
    pub fn new(snapshot: PathBuf) -> ServeOptions {
        ServeOptions {
            listen: vec![Listen::default()],
            snapshot,
            bus: None,
            max_age: Some(Duration::from_secs(60)),
            max_requests: 40,
            hosts: Vec::new(),
            labels: Vec::new(),
            #[cfg(feature = "tls")]
            web_config: None,
        }
    }
}

/// Why a server did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// An address cannot be listened on.
    Listen(ListenError),
    /// The system gives no thread, or no event queue.
    Start(io::Error),
    /// The file with TLS and passwords cannot be used.
    #[cfg(feature = "tls")]
    WebConfig(WebConfigError),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Listen(error) => error.fmt(f),
            ServeError::Start(error) => write!(f, "could not start the server's thread: {error}"),
            #[cfg(feature = "tls")]
            ServeError::WebConfig(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ServeError {}

/// A running server. Dropping stops it; in a forked child it does nothing.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use qbus_agent::serve::{ServeOptions, Server};
/// let mut options = ServeOptions::new("/dev/shm/qbus.default.snap".into());
/// options.listen = vec!["127.0.0.1:0".parse()?];
/// let server = Server::start(options, |news| eprintln!("{news}"))?;
/// println!("dashboard at {}", server.urls()[0]);
/// server.stop();
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Server {
    /// Whose thread it is: a forked child has none.
    pid: u32,
    urls: Vec<String>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens, and answers on a thread of its own from now on. `report` hears of what a person
    /// should know: an address that others can reach without a password, a configuration that
    /// cannot be read any more.
    ///
    /// # Errors
    ///
    /// An address is taken or not to be had, the configuration cannot be used, or there is no
    /// thread.
    pub fn start(
        options: ServeOptions,
        report: impl Fn(String) + Send + Sync + 'static,
    ) -> Result<Server, ServeError> {
        let report: Log = Arc::new(report);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(RENDERERS)
            .build()
            .map_err(ServeError::Start)?;
        let listeners = {
            // Sockets belong to the event queue that they are made in.
            let _entered = runtime.enter();
            let mut listeners = Vec::new();
            for listen in &options.listen {
                listeners.extend(listen.bind().map_err(ServeError::Listen)?);
            }
            listeners
        };
        #[cfg(feature = "tls")]
        let security = Arc::new(
            secure::Security::open(options.web_config.clone(), report.clone())
                .map_err(ServeError::WebConfig)?,
        );
        #[cfg(feature = "tls")]
        let (scheme, is_guarded) = (security.scheme(), security.has_passwords());
        #[cfg(not(feature = "tls"))]
        let (scheme, is_guarded) = ("http", false);
        for listener in listeners.iter().filter(|listener| listener.is_public()) {
            if !is_guarded {
                report(format!(
                    "{} can be reached by other machines, without a password: see \
                     --web.config.file",
                    listener.url(scheme)
                ));
            }
        }
        let urls = listeners
            .iter()
            .map(|listener| listener.url(scheme))
            .collect();
        let gate = connection::Gate {
            routes: Arc::new(Routes::new(&options)),
            max_requests: options.max_requests,
            #[cfg(feature = "tls")]
            security,
        };
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("qbus-server".to_owned())
            .spawn(move || {
                runtime.block_on(serve(listeners, gate, stopped));
                // Nobody waits any more for a page that is being rendered.
                runtime.shutdown_background();
            })
            .map_err(ServeError::Start)?;
        Ok(Server {
            pid: std::process::id(),
            urls,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it can be reached: the URL of each address, in their order. The port of `…:0` is the
    /// one that the system chose.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Closes all connections and ends the thread.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if self.pid != std::process::id() {
            // Of the parent's thread there is only memory here, in whatever state it was.
            std::mem::forget((self.stop.take(), self.thread.take()));
            return;
        }
        // Its end is the signal.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // One that panicked serves no more either.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

async fn serve(listeners: Vec<Listener>, gate: connection::Gate, stopped: oneshot::Receiver<()>) {
    let gate = Arc::new(gate);
    // All that is spawned goes with the runtime.
    let connections = Arc::new(limits::Connections::new(gate.max_requests));
    for listener in listeners {
        let (gate, connections) = (gate.clone(), connections.clone());
        tokio::spawn(connection::accept(listener, gate, connections));
    }
    let _ = stopped.await;
}
