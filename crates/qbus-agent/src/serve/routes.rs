//! From a request to its answer.

use std::sync::Arc;

use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{HeaderMap, Method, Response, StatusCode};
use qbus_aggregate::export::Format;

use super::ServeOptions;
use super::body::{Payload, Pieces};
use super::events::Feed;
use super::host::{Locality, Names};
use super::negotiate;
use super::page::{Pages, Wanted};
use super::query::Query;
use crate::view::{Ledgers, SnapshotSource, Unready};

pub(super) type Request = hyper::Request<Incoming>;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const METHODS: &str = "GET, HEAD, OPTIONS";
/// The page may load what this server serves, and nothing else; nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The dashboard: path, media type, text.
const FILES: [(&str, &str, &str); 8] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("dashboard/index.html"),
    ),
    (
        "/dashboard/icon.svg",
        "image/svg+xml",
        include_str!("dashboard/icon.svg"),
    ),
    (
        "/dashboard/style.css",
        "text/css; charset=utf-8",
        include_str!("dashboard/style.css"),
    ),
    (
        "/dashboard/main.js",
        SCRIPT,
        include_str!("dashboard/main.js"),
    ),
    (
        "/dashboard/store.js",
        SCRIPT,
        include_str!("dashboard/store.js"),
    ),
    (
        "/dashboard/units.js",
        SCRIPT,
        include_str!("dashboard/units.js"),
    ),
    (
        "/dashboard/charts.js",
        SCRIPT,
        include_str!("dashboard/charts.js"),
    ),
    (
        "/dashboard/views.js",
        SCRIPT,
        include_str!("dashboard/views.js"),
    ),
];

/// Everything that an answer is made from.
#[derive(Debug)]
pub(super) struct Routes {
    names: Names,
    source: Arc<SnapshotSource>,
    pages: Pages,
    ledgers: Arc<Ledgers>,
    feed: Arc<Feed>,
}

impl Routes {
    pub(super) fn new(options: &ServeOptions) -> Routes {
        let source = Arc::new(SnapshotSource::new(
            options.snapshot.clone(),
            options.max_age,
        ));
        let ledgers = Arc::new(Ledgers::new(options.bus.clone()));
        Routes {
            names: Names::new(&options.hosts),
            pages: Pages::new(source.clone(), options.labels.clone()),
            feed: Arc::new(Feed::new(source.clone(), ledgers.clone())),
            source,
            ledgers,
        }
    }

    pub(super) async fn answer(&self, request: Request, locality: Locality) -> Response<Payload> {
        let host = match host(&request) {
            Ok(host) => host,
            Err(reason) => return plain(StatusCode::BAD_REQUEST, format!("{reason}\n")),
        };
        if !self.names.takes(host, locality) {
            return plain(
                StatusCode::MISDIRECTED_REQUEST,
                format!(
                    "this host is not called {:?} here; expected localhost, an address, or a name \
                     given with --web.allowed-host\n",
                    host.unwrap_or_default()
                ),
            );
        }
        match *request.method() {
            Method::GET | Method::HEAD => self.get(&request).await,
            Method::OPTIONS => allow(StatusCode::OK, String::new()),
            _ => allow(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("there is nothing to change here; expected one of {METHODS}\n"),
            ),
        }
    }

    async fn get(&self, request: &Request) -> Response<Payload> {
        let headers = request.headers();
        let gzip = negotiate::takes_gzip(header(headers, ACCEPT_ENCODING.as_str()).unwrap_or(""));
        let query = match Query::parse(request.uri().query().unwrap_or("")) {
            Ok(query) => query,
            Err(error) => return plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
        };
        let path = request.uri().path();
        match path {
            "/metrics" => {
                let offer = negotiate::format(&all(headers, ACCEPT.as_str()));
                self.page(
                    offer.format,
                    &offer.content_type,
                    query.without_history(),
                    gzip,
                )
                .await
            }
            "/api/v1/series" => self.page(Format::Json, JSON, query, gzip).await,
            "/api/v1/ledger" => self.ledger().await,
            "/events" => self.events(),
            "/-/healthy" => plain(StatusCode::OK, "qbus serves\n".to_owned()),
            "/-/ready" => self.ready().await,
            _ => match FILES.iter().find(|(file, ..)| *file == path) {
                Some((_, content_type, text)) => file(content_type, text, gzip),
                None => plain(
                    StatusCode::NOT_FOUND,
                    "nothing is here; try /metrics, /api/v1/series, /api/v1/ledger, /events, \
                     /-/healthy, /-/ready, or / for the dashboard\n"
                        .to_owned(),
                ),
            },
        }
    }

    async fn page(
        &self,
        format: Format,
        content_type: &str,
        query: Query,
        gzip: bool,
    ) -> Response<Payload> {
        let wanted = Wanted {
            format,
            query,
            gzip,
        };
        match self.pages.get(wanted).await {
            Ok(page) => encoded(content_type, page, gzip),
            Err(unready) => unavailable(&unready),
        }
    }

    async fn ledger(&self) -> Response<Payload> {
        let (source, ledgers) = (self.source.clone(), self.ledgers.clone());
        let report = blocking(move || ledgers.read(&source)).await;
        match report.map(|report| serde_json::to_vec(&report)) {
            Ok(Ok(json)) => encoded(JSON, Bytes::from(json), false),
            Ok(Err(error)) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            Err(unready) => unavailable(&unready),
        }
    }

    async fn ready(&self) -> Response<Payload> {
        let source = self.source.clone();
        match blocking(move || source.read(|reader| Ok(reader.epoch()))).await {
            Ok(epoch) => plain(StatusCode::OK, format!("qbus is ready, at epoch {epoch}\n")),
            Err(unready) => unavailable(&unready),
        }
    }

    fn events(&self) -> Response<Payload> {
        match self.feed.subscribe() {
            Some(events) => respond(StatusCode::OK, "text/event-stream", Payload::Stream(events)),
            None => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many dashboards are open; close one\n".to_owned(),
            ),
        }
    }
}

/// Does what takes long where nobody waits for it but who asked.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// By which name a request calls this host, if it says so. One that says two may have said another
/// to whoever passed it on.
fn host(request: &Request) -> Result<Option<&str>, &'static str> {
    // Before the header counts what stands in the first line.
    if let Some(authority) = request.uri().authority() {
        return Ok(Some(authority.as_str()));
    }
    let mut said = request.headers().get_all(HOST).iter();
    match (said.next(), said.next()) {
        (None, _) => Ok(None),
        (Some(host), None) => {
            let text = host.to_str().map_err(|_| "the Host header is no text");
            text.map(Some)
        }
        _ => Err("there are two Host headers; expected one"),
    }
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A header that may be given several times, as one.
fn all(headers: &HeaderMap, name: &str) -> String {
    let values = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

fn respond(status: StatusCode, content_type: &str, body: Payload) -> Response<Payload> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // All that come here are written in this file, or checked by `negotiate`.
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

pub(super) fn plain(status: StatusCode, text: String) -> Response<Payload> {
    respond(status, TEXT, Payload::from(text))
}

/// The answer while as many answers as allowed are being made.
pub(super) fn too_many() -> Response<Payload> {
    let mut refusal = plain(
        StatusCode::SERVICE_UNAVAILABLE,
        "too many requests at once; see --web.max-requests\n".to_owned(),
    );
    refusal
        .headers_mut()
        .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    refusal
}

fn encoded(content_type: &str, body: impl Into<Payload>, gzip: bool) -> Response<Payload> {
    let mut response = respond(StatusCode::OK, content_type, body.into());
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn file(content_type: &str, text: &'static str, gzip: bool) -> Response<Payload> {
    let body = Pieces::written(gzip, |out| {
        // It takes everything.
        let _ = out.write_all(text.as_bytes());
    });
    let mut response = encoded(content_type, body, gzip);
    let policy = HeaderValue::from_static(POLICY);
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, policy);
    response
}

fn unavailable(unready: &Unready) -> Response<Payload> {
    plain(StatusCode::SERVICE_UNAVAILABLE, format!("{unready}\n"))
}

fn allow(status: StatusCode, text: String) -> Response<Payload> {
    let mut response = plain(status, text);
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(METHODS));
    response
}
