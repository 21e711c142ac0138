//! TLS, passwords and headers, by a file in the format of Prometheus' exporter toolkit, which is
//! read again when it, or a certificate that it names, changes.

mod passwords;
mod tls;
mod web_config;

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use hyper::Response;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use tokio_rustls::TlsAcceptor;

use super::Log;
use super::body::Payload;
use super::routes::{Request, header, plain};
use passwords::{Passwords, Verdicts};
use web_config::WebConfig;

/// Why the file with TLS and passwords cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum WebConfigError {
    /// It, or a file that it names, cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It says something that is not understood, or not supported here.
    Content {
        /// The file.
        path: PathBuf,
        /// What, and what was expected.
        reason: String,
    },
}

impl fmt::Display for WebConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WebConfigError::Read { path, source } => {
                write!(f, "could not read {}: {source}", path.display())
            }
            WebConfigError::Content { path, reason } => write!(
                f,
                "{}: {reason} (`promtool check web-config` knows the format)",
                path.display()
            ),
        }
    }
}

impl std::error::Error for WebConfigError {}

/// What a file looked like when it was read; none when it was not there.
type Stamp = Option<(u64, u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    ))
}

/// The configuration as it was last read.
#[derive(Default)]
struct Loaded {
    /// All files that it was read from.
    files: Vec<(PathBuf, Stamp)>,
    acceptor: Option<TlsAcceptor>,
    passwords: Arc<Passwords>,
    headers: Vec<(hyper::header::HeaderName, HeaderValue)>,
}

impl Loaded {
    fn open(path: &Path) -> Result<Loaded, WebConfigError> {
        // Before they are read: a change in between is one more reading.
        let mut files = vec![(path.to_owned(), stamp(path))];
        let config = WebConfig::read(path)?;
        let named = config.tls.iter().flat_map(|tls| tls.files());
        files.extend(named.map(|file| (file.to_owned(), stamp(file))));
        let acceptor = config
            .tls
            .as_ref()
            .map(|tls| tls::acceptor(path, tls))
            .transpose()?;
        Ok(Loaded {
            files,
            acceptor,
            passwords: Arc::new(Passwords::new(config.users)),
            headers: config.headers,
        })
    }

    fn has_changed(&self) -> bool {
        self.files.iter().any(|(path, known)| stamp(path) != *known)
    }
}

/// Who may ask, and over what.
pub(super) struct Security {
    path: Option<PathBuf>,
    loaded: RwLock<Arc<Loaded>>,
    verdicts: Arc<Verdicts>,
    report: Log,
}

impl fmt::Debug for Security {
    /// Without any secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Security {
    /// Without a file everything is open, in plain.
    pub(super) fn open(path: Option<PathBuf>, report: Log) -> Result<Security, WebConfigError> {
        let loaded = path.as_deref().map(Loaded::open).transpose()?;
        Ok(Security {
            path,
            loaded: RwLock::new(Arc::new(loaded.unwrap_or_default())),
            verdicts: Arc::default(),
            report,
        })
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.loaded().acceptor.is_some() {
            "https"
        } else {
            "http"
        }
    }

    pub(super) fn has_passwords(&self) -> bool {
        !self.loaded().passwords.is_empty()
    }

    fn loaded(&self) -> Arc<Loaded> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.clone()
    }

    /// Reads the files again if they changed. What cannot be read leaves everything as it was: a
    /// half-written file must not open a door.
    fn renew(&self) -> Arc<Loaded> {
        let loaded = self.loaded();
        let Some(path) = self.path.as_deref().filter(|_| loaded.has_changed()) else {
            return loaded;
        };
        let renewed = match Loaded::open(path) {
            Ok(renewed) => renewed,
            Err(error) => {
                (self.report)(format!("{error}; going on with what was read before"));
                let files = loaded.files.iter();
                Loaded {
                    // Told once, until the next change.
                    files: files.map(|(path, _)| (path.clone(), stamp(path))).collect(),
                    acceptor: loaded.acceptor.clone(),
                    passwords: loaded.passwords.clone(),
                    headers: loaded.headers.clone(),
                }
            }
        };
        let renewed = Arc::new(renewed);
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = renewed.clone();
        renewed
    }

    /// What makes a connection a private one, if it is to be.
    pub(super) fn acceptor(&self) -> Option<TlsAcceptor> {
        self.renew().acceptor.clone()
    }

    /// The answer to a wrong name or password.
    pub(super) async fn refuse(&self, request: &Request) -> Option<Response<Payload>> {
        let passwords = self.renew().passwords.clone();
        if passwords.is_empty() {
            return None;
        }
        let said =
            header(request.headers(), AUTHORIZATION.as_str()).and_then(passwords::credentials);
        if let Some((user, password)) = said
            && self.verdicts.is_right(passwords, user, password).await
        {
            return None;
        }
        let mut refusal = plain(
            StatusCode::UNAUTHORIZED,
            "a user and a password are needed here\n".to_owned(),
        );
        let challenge = HeaderValue::from_static("Basic realm=\"qbus\", charset=\"UTF-8\"");
        refusal.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        Some(refusal)
    }

    /// The headers that the file asks for.
    pub(super) fn add_headers(&self, response: &mut Response<Payload>) {
        for (name, value) in &self.loaded().headers {
            response.headers_mut().insert(name, value.clone());
        }
    }
}
