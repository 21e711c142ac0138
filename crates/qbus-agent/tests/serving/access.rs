//! Who may ask: names, passwords, certificates.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use qbus_agent::serve::{ServeError, ServeOptions, Server};
use qbus_tests::until;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::client::{Answer, MOMENT, Served, ask, served};

#[test]
fn a_name_that_a_stranger_could_own_is_refused() {
    let served = served(|options| options.hosts = vec!["metrics.example".to_owned()]);
    let by = |host: &str| {
        let mut stream = served.connect();
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it is sent");
        Answer::read(stream).status
    };
    assert_eq!(
        [by("localhost:1"), by("127.0.0.1"), by("metrics.example")],
        [200; 3]
    );
    assert_eq!(
        [by("evil.example"), by("localhost.evil.example:80")],
        [421; 2]
    );
    let ask = |request: &[u8]| {
        let mut stream = served.connect();
        stream.write_all(request).expect("it is sent");
        Answer::read(stream).status
    };
    // The first line counts before the header; two names are one too many; and one that cannot be
    // read is none of ours.
    for (request, status) in [
        (
            &b"GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n"[..],
            421,
        ),
        (
            b"GET http://localhost/metrics HTTP/1.1\r\nHost: localhost\r\n",
            200,
        ),
        (
            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n",
            400,
        ),
        (b"GET /metrics HTTP/1.1\r\nHost: \xff\r\n", 400),
        (b"GET /metrics HTTP/1.0\r\n", 200),
    ] {
        let found = ask(&[request, b"Connection: close\r\n\r\n"].concat());
        assert_eq!(found, status, "{}", String::from_utf8_lossy(request));
    }
}

#[test]
fn too_many_at_once_are_told_so() {
    // The permit is taken before anything else is done: a stopped reading of the page holds it.
    let served = served(|options| options.max_requests = 1);
    let statuses = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..32)
            .map(|_| scope.spawn(|| served.get("/metrics", "").status))
            .collect();
        asked
            .into_iter()
            .map(|one| one.join().expect("no panic"))
            .collect::<Vec<_>>()
    });
    assert!(
        statuses.iter().all(|status| [200, 503].contains(status)),
        "{statuses:?}"
    );
    assert!(statuses.contains(&200));
    assert_eq!(served.get("/metrics", "").status, 200);
}

/// An authority, and a certificate of it for `localhost`, in a folder.
struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let authority = Authority {
            folder: tempfile::tempdir().expect("a folder"),
            issuer: Issuer::new(params, key),
            pem,
        };
        authority.write("ca.crt", &authority.pem);
        authority.issue("server");
        authority
    }

    fn issue(&self, name: &str) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        self.write(&format!("{name}.key"), &key.serialize_pem());
        self.write(&format!("{name}.crt"), &certificate.pem());
    }

    fn write(&self, name: &str, text: &str) {
        // As a whole: a server may look at any time.
        let beside = self.folder.path().join(format!(".{name}"));
        fs::write(&beside, text).expect("room");
        fs::rename(beside, self.folder.path().join(name)).expect("a file");
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// A client that knows the authority, and shows a certificate if it has one.
    fn client(&self, certificate: Option<&str>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.path("ca.crt")).expect("PEM"))
            .expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        Arc::new(match certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let chain = CertificateDer::from_pem_file(self.path(&format!("{name}.crt")));
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key")));
                builder
                    .with_client_auth_cert(vec![chain.expect("PEM")], key.expect("PEM"))
                    .expect("a certificate and its key")
            }
        })
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn tls(served: &Served, config: Arc<ClientConfig>) -> Tls {
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(config, name).expect("a client");
    StreamOwned::new(connection, served.connect())
}

/// Whether the page comes, with these further header lines.
fn status(served: &Served, config: Arc<ClientConfig>, headers: &str) -> Option<u16> {
    let mut stream = tls(served, config);
    let request =
        format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    let head = String::from_utf8_lossy(&said).into_owned();
    head.split(' ').nth(1)?.parse().ok()
}

const CONFIG: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";
/// alice:secret
const ALICE: &str = "Authorization: Basic YWxpY2U6c2VjcmV0\r\n";

fn users(password: &str) -> String {
    let hash = bcrypt::hash(password, 4).expect("a hash");
    format!("basic_auth_users:\n  alice: {hash}\n")
}

fn configured(authority: &Authority, text: &str) -> Served {
    authority.write("web.yml", text);
    let path = authority.path("web.yml");
    served(|options| options.web_config = Some(path))
}

#[test]
fn pages_are_private_and_passwords_asked_for() {
    let authority = Authority::new();
    let served = configured(&authority, &format!("{CONFIG}{}", users("secret")));
    assert!(served.server.urls()[0].starts_with("https://"));
    let client = authority.client(None);
    assert_eq!(status(&served, client.clone(), ALICE), Some(200));
    assert_eq!(status(&served, client.clone(), ""), Some(401));
    assert_eq!(
        status(
            &served,
            client.clone(),
            "Authorization: Basic YWxpY2U6d3Jvbmc=\r\n"
        ),
        Some(401)
    );
    let answer = ask(tls(&served, client.clone()), "GET", "/", "");
    assert_eq!(
        answer.header("www-authenticate"),
        Some("Basic realm=\"qbus\", charset=\"UTF-8\"")
    );
    // In plain there is no answer, and the others are still served.
    let mut plain = served.connect();
    plain
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("it is sent");
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    assert_eq!(status(&served, client, ALICE), Some(200));
}

#[test]
fn clients_show_certificates_where_they_must() {
    let authority = Authority::new();
    authority.issue("client");
    let stranger = Authority::new();
    stranger.issue("client");
    let text = format!(
        "{CONFIG}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n"
    );
    let served = configured(&authority, &text);
    assert_eq!(
        status(&served, authority.client(Some("client")), ""),
        Some(200)
    );
    assert_eq!(status(&served, authority.client(None), ""), None);
    // Somebody else's certificate, from a client that trusts this server.
    for name in ["client.crt", "client.key"] {
        fs::copy(stranger.path(name), authority.path(name)).expect("a file");
    }
    assert_eq!(status(&served, authority.client(Some("client")), ""), None);
}

#[test]
fn what_changes_is_read_again_and_what_is_broken_changes_nothing() {
    let authority = Authority::new();
    let served = configured(&authority, &format!("{CONFIG}{}", users("secret")));
    let client = authority.client(None);
    assert_eq!(status(&served, client.clone(), ALICE), Some(200));
    authority.write("web.yml", &format!("{CONFIG}{}", users("another")));
    assert_eq!(status(&served, client.clone(), ALICE), Some(401));
    authority.write("web.yml", "basic_auth_users: {alice: plain}\n");
    for _ in 0..3 {
        assert_eq!(status(&served, client.clone(), ALICE), Some(401));
    }
    let told = served.news.lock().expect("no panic").clone();
    let broken = told
        .iter()
        .filter(|said| said.contains("no bcrypt hash"))
        .count();
    assert_eq!(broken, 1, "{told:?}");
    authority.write("web.yml", &format!("{CONFIG}{}", users("secret")));
    assert_eq!(status(&served, client.clone(), ALICE), Some(200));
    // A certificate that was renewed in place.
    let before = tls_certificate(&served, client.clone());
    authority.issue("server");
    until("the new certificate", || {
        std::thread::sleep(MOMENT);
        tls_certificate(&served, client.clone()) != before
    });
    // One that is broken, or whose key is gone, leaves the last good one.
    let before = tls_certificate(&served, client.clone());
    let broken: [(&str, &dyn Fn()); 2] = [
        ("certificate", &|| {
            authority.write("server.crt", "-----BEGIN nothing")
        }),
        ("server.key", &|| {
            fs::remove_file(authority.path("server.key")).expect("it was there")
        }),
    ];
    for (gist, break_it) in broken {
        authority.issue("server");
        break_it();
        for _ in 0..2 {
            assert!(!tls_certificate(&served, client.clone()).is_empty());
        }
        let told = served.news.lock().expect("no panic").clone();
        let is_told = |said: &String| said.contains(gist) && said.contains("going on with");
        assert!(told.iter().any(is_told), "{gist}: {told:?}");
    }
    authority.issue("server");
    until("a sound certificate", || {
        std::thread::sleep(MOMENT);
        tls_certificate(&served, client.clone()) != before
    });
}

fn tls_certificate(served: &Served, config: Arc<ClientConfig>) -> Vec<u8> {
    let mut stream = tls(served, config);
    let _ = stream.flush();
    let certificates = stream.conn.peer_certificates();
    certificates
        .and_then(|chain| chain.first())
        .map_or_else(Vec::new, |first| first.to_vec())
}

#[test]
fn a_configuration_that_cannot_be_kept_stops_the_start() {
    let authority = Authority::new();
    for (text, gist) in [
        (
            "tls_server_config: {cert_file: none, key_file: server.key}",
            "none",
        ),
        (
            "tls_server_config: {cert_file: server.key, key_file: server.key}",
            "certificate",
        ),
        ("rate_limit: {}", "rate_limit is not known"),
    ] {
        authority.write("web.yml", text);
        let mut options = ServeOptions::new(Path::new("/none").to_owned());
        options.listen = vec!["127.0.0.1:0".parse().expect("an address")];
        options.web_config = Some(authority.path("web.yml"));
        let error = Server::start(options, |_| ()).expect_err(text);
        assert!(
            matches!(error, ServeError::WebConfig(_)) && error.to_string().contains(gist),
            "{error}"
        );
    }
}
