//! One receiver over HTTP.

use std::io::Read;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::Agent;
use ureq::http::{HeaderName, HeaderValue};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::batch::Body;
use super::destination::{Destination, DestinationError, read};
use super::reply::{Reply, Verdict};

/// So much of an answer is read.
const ANSWER_MAX: u64 = 64 << 10;
/// No answer is waited for longer, whatever timeout was configured.
const TIMEOUT_MAX: Duration = Duration::from_secs(86_400);

#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    destination: Destination,
}

impl Client {
    /// Nothing is connected yet; the files of certificates are read.
    pub(super) fn new(destination: &Destination) -> Result<Client, DestinationError> {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // A password must not follow to wherever a receiver points.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("qbus/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls(destination)?)
            .build()
            .new_agent();
        let client = Client {
            agent,
            destination: destination.clone(),
        };
        // What cannot be read now is a mistake of whoever typed it.
        client.headers()?;
        Ok(client)
    }

    /// Sends a request of so many samples, and waits for the answer.
    pub(super) fn send(&self, body: &Body, samples: u64, time_left: Option<Duration>) -> Verdict {
        let later = |why: String| Verdict::Later { after: None, why };
        // Read again each time: tokens are renewed.
        let headers = match self.headers() {
            Ok(headers) => headers,
            Err(error) => return later(error.to_string()),
        };
        let timeout = self.destination.timeout.min(TIMEOUT_MAX);
        let timeout = time_left.map_or(timeout, |left| timeout.min(left));
        let mut request = self.agent.post(&self.destination.url);
        let fixed = body
            .encoding
            .headers()
            .iter()
            .map(|&(name, value)| (name, value));
        let own = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in fixed.chain(own) {
            request = request.header(name, value);
        }
        let request = request
            .config()
            .timeout_global(Some(timeout.max(Duration::from_millis(1))))
            .build();
        let sent = request.send(body.bytes.as_slice());
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => return later(error.to_string()),
        };
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let mut reply = Reply {
            status: response.status().as_u16(),
            retry_after: header("Retry-After"),
            content_type: header("Content-Type").unwrap_or_default(),
            written: ["Samples", "Histograms"]
                .map(|what| header(&format!("X-Prometheus-Remote-Write-{what}-Written")))
                .into_iter()
                .flatten()
                .filter_map(|text| text.trim().parse::<u64>().ok())
                .reduce(u64::saturating_add),
            body: Vec::new(),
        };
        let body_reader = response.body_mut().as_reader();
        // The status says it all; a body that breaks off changes nothing.
        let _ = body_reader.take(ANSWER_MAX).read_to_end(&mut reply.body);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        reply.verdict(body.encoding, samples, now.unwrap_or_default())
    }

    fn headers(&self) -> Result<Vec<(String, String)>, DestinationError> {
        let mut headers = self.destination.headers.clone();
        if let Some(path) = &self.destination.headers_file {
            let text = read(path)?;
            for (at, line) in text.lines().enumerate() {
                if line.trim().is_empty() {
                    continue;
                }
                // What the line says may be secret.
                let why = || format!("line {} is no `Name: value`", at + 1);
                let (name, value) = line.split_once(':').ok_or_else(|| unusable(path, &why()))?;
                headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
        }
        if let Some(path) = &self.destination.bearer_file {
            headers.push((
                "Authorization".to_owned(),
                format!("Bearer {}", read(path)?.trim()),
            ));
        }
        if let Some(path) = &self.destination.basic_file {
            let pair = BASE64_STANDARD.encode(read(path)?.trim_end_matches(['\r', '\n']));
            headers.push(("Authorization".to_owned(), format!("Basic {pair}")));
        }
        // Found here, it is told without its value, and tried again once the file is mended.
        let is_header = |(name, value): &(String, String)| {
            HeaderName::from_str(name).is_ok() && HeaderValue::from_str(value).is_ok()
        };
        match headers.iter().find(|header| !is_header(header)) {
            Some((name, _)) => Err(DestinationError::Header { name: name.clone() }),
            None => Ok(headers),
        }
    }
}

fn tls(destination: &Destination) -> Result<TlsConfig, DestinationError> {
    let mut config = TlsConfig::builder();
    if let Some(path) = &destination.ca_file {
        config = config.root_certs(RootCerts::Specific(Arc::new(certificates(path)?)));
    }
    if let Some(path) = &destination.cert_file {
        let key_file = destination.key_file.as_ref().unwrap_or(path);
        let key = PrivateKey::from_pem(read(key_file)?.as_bytes());
        let key = key.map_err(|error| unusable(key_file, &error))?;
        let client = ClientCert::new_with_certs(&certificates(path)?, key);
        config = config.client_cert(Some(client));
    }
    Ok(config.build())
}

fn unusable(path: &std::path::Path, error: &dyn std::fmt::Display) -> DestinationError {
    DestinationError::File {
        path: path.to_owned(),
        source: std::io::Error::other(error.to_string()),
    }
}

fn certificates(path: &std::path::PathBuf) -> Result<Vec<Certificate<'static>>, DestinationError> {
    let text = read(path)?;
    let mut found = Vec::new();
    for item in parse_pem(text.as_bytes()) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| unusable(path, &error))? {
            found.push(certificate);
        }
    }
    match found.is_empty() {
        true => Err(unusable(path, &"there is no certificate in it (PEM)")),
        false => Ok(found),
    }
}
