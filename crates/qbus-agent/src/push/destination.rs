//! Who receives what is sent on, as it is typed: a URL and options behind commas.

use std::env;
use std::fmt;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use qbus::Address;
use qbus_aggregate::export::RemoteWriteVersion;
use ureq::http::Uri;

/// How long a receiver of OTLP may take, by its specification.
const OTLP_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for remote write, as Prometheus has it.
const REMOTE_WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Where an OpenTelemetry collector of this host listens.
const OTLP_LOCAL: &str = "http://localhost:4318";

/// What a receiver speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Prometheus' remote write.
    RemoteWrite,
    /// OTLP over HTTP.
    Otlp,
}

/// A receiver, and how to reach it.
#[derive(Clone, PartialEq, Eq)]
pub struct Destination {
    /// What it speaks.
    pub protocol: Protocol,
    /// Where requests go.
    pub url: String,
    /// The version of remote write; with 2.0 it falls back to 1.0 where the receiver needs that.
    pub version: RemoteWriteVersion,
    /// Remote write: also native histograms.
    pub native: bool,
    /// OTLP: compress with gzip.
    pub gzip: bool,
    /// How long an answer may take.
    pub timeout: Duration,
    /// OTLP: further attributes of the resource, before those that all destinations have.
    pub resource: Vec<(String, String)>,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// A file with further headers, one a line; read again for each request, as the next two are.
    pub headers_file: Option<PathBuf>,
    /// A file with a bearer token.
    pub bearer_file: Option<PathBuf>,
    /// A file with a user and a password, a colon between them.
    pub basic_file: Option<PathBuf>,
    /// Certificates to trust instead of the usual ones (PEM).
    pub ca_file: Option<PathBuf>,
    /// The certificate to show (PEM), and its key.
    pub cert_file: Option<PathBuf>,
    /// The key of the certificate to show.
    pub key_file: Option<PathBuf>,
}

/// Why a destination cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum DestinationError {
    /// The URL is not one of HTTP.
    Url {
        /// What was typed.
        found: String,
    },
    /// The URL has a user in it, which everybody sees who lists processes.
    UserInUrl,
    /// No option is called so, or it has a value where it takes none, or none where it needs one.
    Option {
        /// What was typed.
        found: String,
    },
    /// A file cannot be used.
    File {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A header that HTTP does not have: a line feed in a token, say.
    Header {
        /// Its name.
        name: String,
    },
    /// A variable of the environment has a value that it cannot have.
    Variable {
        /// Its name.
        name: &'static str,
        /// Its value.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
}

impl fmt::Display for DestinationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DestinationError::Url { found } => write!(
                f,
                "the destination is {found:?}, expected a URL like \
                 http://localhost:9090/api/v1/write, with options behind commas"
            ),
            DestinationError::UserInUrl => write!(
                f,
                "the URL has a user or a password in it; write USER:PASSWORD to a file, and add \
                 ,basic=FILE"
            ),
            DestinationError::Option { found } => write!(
                f,
                "the option {found:?} of the destination is unknown, or lacks its value; expected \
                 basic=FILE, bearer=FILE, headers=FILE, ca=FILE, cert=FILE, key=FILE, \
                 timeout=SECONDS, native and v2 for remote write, plain for OTLP"
            ),
            DestinationError::File { path, source } => {
                write!(f, "{} cannot be used: {source}", path.display())
            }
            DestinationError::Header { name } => write!(
                f,
                "the header {name:?} cannot be sent as its file has it, expected printable ASCII \
                 on one line"
            ),
            DestinationError::Variable {
                name,
                found,
                expected,
            } => write!(
                f,
                "the environment's {name} is {found:?}, expected {expected}"
            ),
        }
    }
}

impl DestinationError {
    /// The same without what was found.
    fn withheld(self) -> DestinationError {
        match self {
            DestinationError::Variable { name, expected, .. } => DestinationError::Variable {
                name,
                found: "…".to_owned(),
                expected,
            },
            other => other,
        }
    }
}

impl std::error::Error for DestinationError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            DestinationError::File { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl fmt::Debug for Destination {
    /// Without what may be secret: a query's parameters, and the values of headers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| &**name).collect();
        f.debug_struct("Destination")
            .field("protocol", &self.protocol)
            .field("url", &self.shown())
            .field("headers", &headers)
            .finish_non_exhaustive()
    }
}

impl Destination {
    /// A URL, and options behind commas: `https://mimir/api/v1/push,basic=/etc/qbus/mimir`.
    ///
    /// The path of OTLP is `/v1/metrics` where the URL has none.
    ///
    /// # Errors
    ///
    /// It is no such thing; the error says what is not as expected.
    pub fn parse(text: &str, protocol: Protocol) -> Result<Destination, DestinationError> {
        let mut parts = text.split(',');
        let mut url = parts.next().unwrap_or_default().to_owned();
        let is_bare = check_url(&url)?;
        if protocol == Protocol::Otlp && is_bare {
            url = format!("{}/v1/metrics", url.trim_end_matches('/'));
        }
        let mut destination = Destination::new(url, protocol);
        for option in parts {
            destination.set(option)?;
        }
        Ok(destination)
    }

    fn new(url: String, protocol: Protocol) -> Destination {
        Destination {
            protocol,
            url,
            version: RemoteWriteVersion::One,
            native: false,
            gzip: true,
            timeout: match protocol {
                Protocol::Otlp => OTLP_TIMEOUT,
                Protocol::RemoteWrite => REMOTE_WRITE_TIMEOUT,
            },
            resource: Vec::new(),
            headers: Vec::new(),
            headers_file: None,
            bearer_file: None,
            basic_file: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
    }

    fn set(&mut self, option: &str) -> Result<(), DestinationError> {
        let unknown = || DestinationError::Option {
            found: option.to_owned(),
        };
        let is_remote_write = self.protocol == Protocol::RemoteWrite;
        match option
            .split_once('=')
            .map(|(name, value)| (name, value.trim()))
        {
            None if option == "native" && is_remote_write => self.native = true,
            None if option == "v2" && is_remote_write => self.version = RemoteWriteVersion::Two,
            None if option == "plain" && !is_remote_write => self.gzip = false,
            Some((_, "")) | None => return Err(unknown()),
            Some(("basic", file)) => self.basic_file = Some(file.into()),
            Some(("bearer", file)) => self.bearer_file = Some(file.into()),
            Some(("headers", file)) => self.headers_file = Some(file.into()),
            Some(("ca", file)) => self.ca_file = Some(file.into()),
            Some(("cert", file)) => self.cert_file = Some(file.into()),
            Some(("key", file)) => self.key_file = Some(file.into()),
            Some(("timeout", seconds)) => {
                let seconds = seconds.parse().ok().map(Duration::try_from_secs_f64);
                let timeout = seconds.and_then(Result::ok).filter(|time| !time.is_zero());
                self.timeout = timeout.ok_or_else(unknown)?;
            }
            Some(_) => return Err(unknown()),
        }
        Ok(())
    }

    /// A receiver of OTLP as the environment describes it: `OTEL_EXPORTER_OTLP_ENDPOINT` and its
    /// kin, those for metrics before those for all signals. What is typed comes before the
    /// environment.
    ///
    /// # Errors
    ///
    /// What was typed, or a variable, is not as expected.
    pub fn otlp_of_environment(typed: Option<&str>) -> Result<Destination, DestinationError> {
        otlp_of(typed, &|name| {
            env::var(name).ok().filter(|value| !value.is_empty())
        })
    }

    /// The URL as it may be shown: without what a query may hold.
    pub fn shown(&self) -> &str {
        self.url.split(['?', '#']).next().unwrap_or_default()
    }

    /// The name of its queue's folder.
    pub(super) fn folder(&self, bus: &Address) -> String {
        // The same in each process, for ever.
        let mut hasher = foldhash::fast::FixedState::with_seed(0x7142_7573).build_hasher();
        hasher.write(self.url.as_bytes());
        // Tenants of one URL are told apart by what is sent along.
        let files = [&self.headers_file, &self.bearer_file, &self.basic_file];
        for file in files.into_iter().flatten() {
            hasher.write(file.as_os_str().as_bytes());
        }
        let host = self.url.split('/').nth(2).unwrap_or_default();
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let host: String = host.chars().map(plain).take(40).collect();
        let bus: String = bus.to_string().chars().map(plain).collect();
        let bus = &bus[bus.len().saturating_sub(40)..];
        hasher.write(bus.as_bytes());
        format!("{bus}-{host}-{:016x}", hasher.finish())
    }
}

/// Whether a URL has no path; an error where it is not a URL.
fn check_url(url: &str) -> Result<bool, DestinationError> {
    let no_url = || DestinationError::Url {
        found: url.to_owned(),
    };
    let uri: Uri = url.parse().map_err(|_| no_url())?;
    let scheme = uri.scheme_str().unwrap_or_default();
    let authority = uri.authority().ok_or_else(no_url)?;
    if authority.as_str().contains('@') {
        return Err(DestinationError::UserInUrl);
    }
    if !["http", "https"].contains(&scheme) || authority.host().is_empty() {
        return Err(no_url());
    }
    Ok(["", "/"].contains(&uri.path()) && uri.query().is_none())
}

/// `variable` is the environment.
fn otlp_of(
    typed: Option<&str>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Destination, DestinationError> {
    let either = |name: &str| {
        variable(&format!("OTEL_EXPORTER_OTLP_METRICS_{name}"))
            .or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
    };
    let mut destination = match typed {
        Some(typed) => Destination::parse(typed, Protocol::Otlp)?,
        None => match variable("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") {
            // As it is.
            Some(url) => {
                check_url(&url)?;
                Destination::new(url, Protocol::Otlp)
            }
            None => {
                let base = variable("OTEL_EXPORTER_OTLP_ENDPOINT");
                let base = base.as_deref().unwrap_or(OTLP_LOCAL).trim_end_matches('/');
                check_url(base)?;
                Destination::new(format!("{base}/v1/metrics"), Protocol::Otlp)
            }
        },
    };
    if let Some(text) = variable("OTEL_RESOURCE_ATTRIBUTES") {
        destination.resource = pairs(&text, "OTEL_RESOURCE_ATTRIBUTES")?;
    }
    if let Some(name) = variable("OTEL_SERVICE_NAME") {
        destination
            .resource
            .retain(|(known, _)| known != "service.name");
        destination.resource.push(("service.name".to_owned(), name));
    }
    if let Some(text) = either("HEADERS") {
        let pairs = pairs(&text, "OTEL_EXPORTER_OTLP_HEADERS");
        // A key of an interface must not come into a log.
        destination.headers = pairs.map_err(|error| error.withheld())?;
    }
    if let Some(text) = either("TIMEOUT") {
        let wrong = |found| DestinationError::Variable {
            name: "OTEL_EXPORTER_OTLP_TIMEOUT",
            found,
            expected: "milliseconds, at least 1",
        };
        let ms = text.parse().ok().filter(|ms| *ms > 0);
        destination.timeout = Duration::from_millis(ms.ok_or_else(|| wrong(text))?);
    }
    match either("COMPRESSION").as_deref() {
        None | Some("gzip") => {}
        Some("none") => destination.gzip = false,
        Some(found) => {
            return Err(DestinationError::Variable {
                name: "OTEL_EXPORTER_OTLP_COMPRESSION",
                found: found.to_owned(),
                expected: "gzip or none",
            });
        }
    }
    match either("PROTOCOL").as_deref() {
        None | Some("http/protobuf") => {}
        Some(found) => {
            return Err(DestinationError::Variable {
                name: "OTEL_EXPORTER_OTLP_PROTOCOL",
                found: found.to_owned(),
                expected: "http/protobuf, the only one that qbus speaks (collectors take it at \
                    port 4318)",
            });
        }
    }
    for (file, name) in [
        (&mut destination.ca_file, "CERTIFICATE"),
        (&mut destination.cert_file, "CLIENT_CERTIFICATE"),
        (&mut destination.key_file, "CLIENT_KEY"),
    ] {
        if file.is_none() {
            *file = either(name).map(PathBuf::from);
        }
    }
    Ok(destination)
}

/// Pairs `name=value` between commas, percent-encoded, as W3C's baggage has them.
pub(super) fn pairs(
    text: &str,
    variable: &'static str,
) -> Result<Vec<(String, String)>, DestinationError> {
    let items = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    let pair = |item: &str| {
        let (name, value) = item.split_once('=')?;
        let name = name.trim();
        (!name.is_empty()).then(|| (name.to_owned(), decoded(value.trim())))
    };
    items
        .map(|item| {
            pair(item).ok_or_else(|| DestinationError::Variable {
                name: variable,
                found: text.to_owned(),
                expected: "name=value pairs with commas between them",
            })
        })
        .collect()
}

/// Percent-encoded text as it is meant; what is not encoded right stays as it is.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

/// A file of a destination, as text.
pub(super) fn read(path: &PathBuf) -> Result<String, DestinationError> {
    fs::read_to_string(path).map_err(|source| DestinationError::File {
        path: path.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_url_with_options() {
        let text = "https://mimir:9009/api/v1/push?tenant=a,basic=/etc/qbus/mimir,ca=/ca.pem,\
            native,v2,timeout=2.5";
        let found = Destination::parse(text, Protocol::RemoteWrite).expect("a destination");
        assert_eq!(found.url, "https://mimir:9009/api/v1/push?tenant=a");
        assert_eq!(found.shown(), "https://mimir:9009/api/v1/push");
        assert_eq!(found.basic_file, Some("/etc/qbus/mimir".into()));
        assert_eq!(found.ca_file, Some("/ca.pem".into()));
        assert_eq!(found.timeout, Duration::from_millis(2500));
        assert!(found.native && found.version == RemoteWriteVersion::Two);
        let url = |text| {
            Destination::parse(text, Protocol::Otlp)
                .expect("a destination")
                .url
        };
        assert_eq!(
            url("http://collector:4318"),
            "http://collector:4318/v1/metrics"
        );
        assert_eq!(
            url("http://collector:4318/"),
            "http://collector:4318/v1/metrics"
        );
        assert_eq!(
            url("http://vm/opentelemetry/v1/metrics"),
            "http://vm/opentelemetry/v1/metrics"
        );
    }

    #[test]
    fn what_is_none_is_refused_with_advice() {
        let refused = |text: &str| {
            let error = Destination::parse(text, Protocol::Otlp).expect_err(text);
            error.to_string()
        };
        for text in [
            "",
            "mimir",
            "ftp://mimir/",
            "http://",
            "localhost:4318",
            "http:///x",
            "http://a b/",
        ] {
            assert!(refused(text).contains("expected a URL"), "{text}");
        }
        assert!(refused("http://me:secret@mimir/").contains("basic=FILE"));
        assert!(!refused("http://me:secret@mimir/").contains("secret"));
        for option in [
            "nativ",
            "native",
            "v2",
            "basic",
            "basic=",
            "timeout=0",
            "timeout=x",
            "timeout=1e300",
        ] {
            let text = format!("http://mimir/,{option}");
            assert!(refused(&text).contains("bearer=FILE"), "{text}");
        }
    }

    #[test]
    fn the_environment_describes_a_receiver() {
        let of = |typed: Option<&str>, variables: &[(&str, &str)]| {
            otlp_of(typed, &|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let url =
            |typed, variables: &[(&str, &str)]| of(typed, variables).expect("a destination").url;
        assert_eq!(url(None, &[]), "http://localhost:4318/v1/metrics");
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://all:4318/base/");
        let own = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://own/");
        assert_eq!(url(None, &[all]), "https://all:4318/base/v1/metrics");
        assert_eq!(url(None, &[all, own]), "https://own/");
        assert_eq!(
            url(Some("http://typed"), &[all, own]),
            "http://typed/v1/metrics"
        );
        let found = of(
            None,
            &[
                ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x = y"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
                ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "none"),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
                ("OTEL_RESOURCE_ATTRIBUTES", "service.name=old,zone=b"),
                ("OTEL_SERVICE_NAME", "inference"),
            ],
        )
        .expect("a destination");
        let resource = [("zone", "b"), ("service.name", "inference")];
        assert_eq!(
            found.resource,
            resource.map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
        let expected = [("api-key", "a b"), ("x", "y")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(found.headers, expected);
        assert_eq!(
            (found.timeout, found.gzip),
            (Duration::from_millis(2500), false)
        );
        assert_eq!(found.ca_file, Some("/ca.pem".into()));
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ] {
            let error = of(None, &[(name, value)]).expect_err(name).to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn secrets_are_in_no_error_and_no_debugging_output() {
        let of = |headers: &str| {
            otlp_of(Some("http://collector/?key=s3cr3t"), &|name| {
                (name == "OTEL_EXPORTER_OTLP_HEADERS").then(|| headers.to_owned())
            })
        };
        let error = of("api-key=s3cr3t,s3cr3t").expect_err("no pair");
        for error in [error.to_string(), format!("{error:?}")] {
            assert!(
                error.contains("OTLP_HEADERS") && !error.contains("s3cr3t"),
                "{error}"
            );
        }
        let debug = format!("{:?}", of("api-key=s3cr3t").expect("a destination"));
        assert!(
            debug.contains("api-key") && !debug.contains("s3cr3t"),
            "{debug}"
        );
    }

    #[test]
    fn queues_of_different_destinations_lie_apart() {
        let folder = |bus: &str, url: &str| {
            let destination =
                Destination::parse(url, Protocol::RemoteWrite).expect("a destination");
            destination.folder(&bus.parse().expect("an address"))
        };
        let one = folder("a", "http://mimir/x");
        assert_eq!(one, folder("a", "http://mimir/x"));
        assert_ne!(one, folder("a", "http://mimir/y"));
        assert_ne!(one, folder("b", "http://mimir/x"));
        assert_ne!(one, folder("a", "http://mimir/x,headers=/tenant"));
        assert!(!folder("/tmp/é/bus", "http://mimir/../x").contains('/'));
    }
}
