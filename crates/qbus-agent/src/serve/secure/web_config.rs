//! The file itself: YAML, as the exporter toolkit documents it.
//!
//! What is not known there is refused, and so is what is known there and not supported here: a door
//! that is less closed than its owner thinks is worse than none.

use std::fs;
use std::path::{Path, PathBuf};

use hyper::header::{HeaderName, HeaderValue};
use saphyr::{LoadableYamlNode, Yaml};

use super::WebConfigError;

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct WebConfig {
    pub(super) tls: Option<Tls>,
    /// Names and bcrypt hashes.
    pub(super) users: Vec<(String, String)>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

/// `tls_server_config`.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) certificate: Pem,
    pub(super) key: Pem,
    pub(super) clients: Clients,
    pub(super) min_version: Version,
    pub(super) max_version: Version,
}

/// Something in PEM: a file, or as it stands.
#[derive(Debug)]
pub(super) enum Pem {
    File(PathBuf),
    Text(String),
}

/// Which certificates clients must show.
#[derive(Debug)]
pub(super) enum Clients {
    Anybody,
    /// One of these authorities', if they show any.
    VerifiedIfGiven(Pem),
    /// One of these authorities'.
    Verified(Pem),
}

/// Of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

impl Tls {
    /// All files that it names.
    pub(super) fn files(&self) -> Vec<&Path> {
        let authorities = match &self.clients {
            Clients::Anybody => None,
            Clients::VerifiedIfGiven(pem) | Clients::Verified(pem) => Some(pem),
        };
        let all = [Some(&self.certificate), Some(&self.key), authorities];
        all.into_iter()
            .flatten()
            .filter_map(|pem| match pem {
                Pem::File(path) => Some(path.as_path()),
                Pem::Text(_) => None,
            })
            .collect()
    }
}

impl WebConfig {
    pub(super) fn read(path: &Path) -> Result<WebConfig, WebConfigError> {
        let text = fs::read_to_string(path).map_err(|source| WebConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        parse(&text, folder).map_err(|reason| WebConfigError::Content {
            path: path.to_owned(),
            reason,
        })
    }
}

/// Paths are relative to the folder of the file.
fn parse(text: &str, folder: &Path) -> Result<WebConfig, String> {
    let documents = Yaml::load_from_str(text).map_err(|error| error.to_string())?;
    let Some(document) = documents.first() else {
        return Ok(WebConfig::default());
    };
    if document.is_null() {
        return Ok(WebConfig::default());
    }
    let mut config = WebConfig::default();
    for (key, value) in Section::new("the file", document)?.entries()? {
        match key {
            "tls_server_config" => config.tls = tls(&Section::new(key, value)?, folder)?,
            "http_server_config" => config.headers = http(&Section::new(key, value)?)?,
            "basic_auth_users" => config.users = users(&Section::new(key, value)?)?,
            _ => {
                return Err(format!(
                    "{key} is not known here; expected tls_server_config, \
                 http_server_config or basic_auth_users"
                ));
            }
        }
    }
    Ok(config)
}

/// A mapping, and where it stands.
struct Section<'a> {
    name: &'a str,
    node: &'a Yaml<'a>,
}

impl<'a> Section<'a> {
    fn new(name: &'a str, node: &'a Yaml<'a>) -> Result<Section<'a>, String> {
        if node.as_mapping().is_none() {
            return Err(format!(
                "{name} holds no settings; expected `name: value` lines"
            ));
        }
        Ok(Section { name, node })
    }

    fn entries(&self) -> Result<Vec<(&'a str, &'a Yaml<'a>)>, String> {
        let mapping = self.node.as_mapping().into_iter().flatten();
        let entry = |(key, value): (&'a Yaml<'a>, &'a Yaml<'a>)| {
            let key = key
                .as_str()
                .ok_or_else(|| format!("a name in {} is no text", self.name))?;
            Ok((key, value))
        };
        mapping.map(entry).collect()
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        match self.node.as_mapping_get(key) {
            None => Ok(None),
            Some(value) => match value.as_str() {
                Some("") => Ok(None),
                Some(text) => Ok(Some(text)),
                None => Err(format!("{key} in {} is no text", self.name)),
            },
        }
    }

    /// A file named by `key_file`, or what stands behind `key`.
    fn pem(&self, key: &str, folder: &Path) -> Result<Option<Pem>, String> {
        let file = self.text(&format!("{key}_file"))?;
        match (file, self.text(key)?) {
            (Some(_), Some(_)) => Err(format!("{key} and {key}_file are both given; expected one")),
            (Some(file), None) => Ok(Some(Pem::File(folder.join(file)))),
            (None, Some(text)) => Ok(Some(Pem::Text(text.to_owned()))),
            (None, None) => Ok(None),
        }
    }

    fn version(&self, key: &str, default: Version) -> Result<Version, String> {
        match self.text(key)? {
            None => Ok(default),
            Some("TLS12") => Ok(Version::Tls12),
            Some("TLS13") => Ok(Version::Tls13),
            Some(other) => Err(format!("{key} is {other:?}; expected TLS12 or TLS13")),
        }
    }
}

fn tls(section: &Section<'_>, folder: &Path) -> Result<Option<Tls>, String> {
    for (key, value) in section.entries()? {
        match key {
            "cert_file" | "cert" | "key_file" | "key" | "client_auth_type" | "client_ca_file"
            | "client_ca" | "min_version" | "max_version" => {}
            // TLS 1.2 and 1.3 have no order left to prefer.
            "prefer_server_cipher_suites" => {}
            "client_allowed_sans" | "cipher_suites" | "curve_preferences"
                if value.as_sequence().is_some_and(|list| list.is_empty()) => {}
            _ => {
                return Err(format!(
                    "{key} is not supported here; take it out of tls_server_config"
                ));
            }
        }
    }
    let certificate = section.pem("cert", folder)?;
    let key = section.pem("key", folder)?;
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) => return Ok(None),
        _ => return Err("one of cert_file and key_file is missing; expected both".to_owned()),
    };
    let authorities = section.pem("client_ca", folder)?;
    let clients = match (section.text("client_auth_type")?, authorities) {
        (None | Some("NoClientCert"), None) => Clients::Anybody,
        (None | Some("NoClientCert"), Some(_)) => {
            return Err("client_ca_file is of no use without client_auth_type".to_owned());
        }
        (Some("VerifyClientCertIfGiven"), Some(pem)) => Clients::VerifiedIfGiven(pem),
        (Some("RequireAndVerifyClientCert"), Some(pem)) => Clients::Verified(pem),
        (Some("VerifyClientCertIfGiven" | "RequireAndVerifyClientCert"), None) => {
            return Err(
                "client_ca_file is missing: nobody's certificate could be verified".to_owned(),
            );
        }
        (Some(other), _) => {
            return Err(format!(
                "client_auth_type is {other:?}; expected NoClientCert, \
                 VerifyClientCertIfGiven or RequireAndVerifyClientCert"
            ));
        }
    };
    let min_version = section.version("min_version", Version::Tls12)?;
    let max_version = section.version("max_version", Version::Tls13)?;
    if min_version > max_version {
        return Err("min_version is above max_version".to_owned());
    }
    Ok(Some(Tls {
        certificate,
        key,
        clients,
        min_version,
        max_version,
    }))
}

/// The headers that the toolkit lets one set.
const HEADERS: [&str; 5] = [
    "Content-Security-Policy",
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
];

fn http(section: &Section<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let mut headers = Vec::new();
    for (key, value) in section.entries()? {
        match key {
            // This server speaks HTTP/1.1, which every scraper does.
            "http2" => {}
            "headers" => {
                for (name, value) in Section::new("headers", value)?.entries()? {
                    headers.push(named_header(name, value.as_str().unwrap_or_default())?);
                }
            }
            _ => {
                return Err(format!(
                    "{key} in http_server_config is not known; expected http2 or headers"
                ));
            }
        }
    }
    Ok(headers)
}

fn named_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let known = HEADERS
        .iter()
        .find(|known| known.eq_ignore_ascii_case(name));
    let known = known.ok_or_else(|| {
        format!(
            "header {name} cannot be set; expected one of {}",
            HEADERS.join(", ")
        )
    })?;
    match (known.parse(), value.parse()) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        _ => Err(format!(
            "the value of header {name} is not valid in HTTP: {value:?}"
        )),
    }
}

fn users(section: &Section<'_>) -> Result<Vec<(String, String)>, String> {
    let user = |(name, hash): (&str, &Yaml<'_>)| {
        let hash = hash.as_str().unwrap_or_default();
        let is_bcrypt = hash.parse::<bcrypt::HashParts>().is_ok();
        if !is_bcrypt {
            return Err(format!(
                "the password of {name} is no bcrypt hash; expected what \
                 `htpasswd -nBC 10 {name}` prints"
            ));
        }
        Ok((name.to_owned(), hash.to_owned()))
    };
    section.entries()?.into_iter().map(user).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";

    fn parsed(text: &str) -> Result<WebConfig, String> {
        parse(text, Path::new("/etc/qbus"))
    }

    #[test]
    fn a_file_is_read_as_the_toolkit_reads_it() {
        for nothing in ["", "# only a remark\n", "{}", "tls_server_config: {}"] {
            let config = parsed(nothing).expect(nothing);
            assert!(config.tls.is_none() && config.users.is_empty());
        }
        let text = format!(
            "tls_server_config:\n  cert_file: a.crt\n  key_file: /b.key\n  \
             client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n  \
             min_version: TLS13\n\
             http_server_config:\n  http2: false\n  headers:\n    x-frame-options: deny\n\
             basic_auth_users:\n  alice: {HASH}\n"
        );
        let config = parsed(&text).expect("a whole one");
        let tls = config.tls.expect("TLS");
        let expected = ["/etc/qbus/a.crt", "/b.key", "/etc/qbus/ca.crt"].map(Path::new);
        assert_eq!(tls.files(), expected);
        assert_eq!(
            (tls.min_version, tls.max_version),
            (Version::Tls13, Version::Tls13)
        );
        assert_eq!(config.users, [("alice".to_owned(), HASH.to_owned())]);
        assert_eq!(config.headers[0].0, "x-frame-options");
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        for (text, gist) in [
            ("tls_config: {}", "tls_config is not known"),
            ("[]", "no settings"),
            ("a: [", ""),
            (
                "tls_server_config: {cert_file: a}",
                "one of cert_file and key_file is missing",
            ),
            (
                "tls_server_config: {cert_file: a, cert: b, key: c}",
                "both given",
            ),
            (
                "tls_server_config: {cipher_suites: [X]}",
                "not supported here",
            ),
            (
                "tls_server_config: {cert: a, key: b, client_auth_type: RequireAnyClientCert}",
                "RequireAny",
            ),
            (
                "tls_server_config: {cert: a, key: b, client_auth_type: VerifyClientCertIfGiven}",
                "client_ca_file is missing",
            ),
            (
                "tls_server_config: {cert: a, key: b, client_ca: c}",
                "without client_auth_type",
            ),
            (
                "tls_server_config: {cert: a, key: b, min_version: TLS10}",
                "TLS10",
            ),
            (
                "tls_server_config: {cert: a, key: b, min_version: TLS13, max_version: TLS12}",
                "above",
            ),
            ("rate_limit: {burst: 3}", "rate_limit"),
            (
                "http_server_config: {headers: {Server: x}}",
                "cannot be set",
            ),
            ("basic_auth_users: {alice: secret}", "no bcrypt hash"),
        ] {
            let error = parsed(text).expect_err(text);
            assert!(error.contains(gist), "{text}: {error}");
        }
    }
}
