//! Certificates and keys, as rustls takes them.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use tokio_rustls::TlsAcceptor;

use super::WebConfigError;
use super::web_config::{Clients, Pem, Tls, Version};

/// Makes what accepts connections. `path` is the file that asked for it.
pub(super) fn acceptor(path: &Path, tls: &Tls) -> Result<TlsAcceptor, WebConfigError> {
    let wrong = |reason: String| WebConfigError::Content {
        path: path.to_owned(),
        reason,
    };
    let chain =
        certificates(&tls.certificate)?.map_err(|error| wrong(format!("certificate: {error}")))?;
    let key = PrivateKeyDer::from_pem_slice(&bytes(&tls.key)?)
        .map_err(|error| wrong(format!("key: {error}")))?;
    let versions = match (tls.min_version, tls.max_version) {
        (Version::Tls12, Version::Tls12) => &[&TLS12][..],
        (Version::Tls12, Version::Tls13) => &[&TLS12, &TLS13],
        (Version::Tls13, _) => &[&TLS13],
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| wrong(error.to_string()))?;
    let builder = match &tls.clients {
        Clients::Anybody => builder.with_no_client_auth(),
        Clients::VerifiedIfGiven(pem) | Clients::Verified(pem) => {
            let mut roots = RootCertStore::empty();
            let authorities =
                certificates(pem)?.map_err(|error| wrong(format!("client_ca: {error}")))?;
            for authority in authorities {
                roots
                    .add(authority)
                    .map_err(|error| wrong(format!("client_ca: {error}")))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match tls.clients {
                Clients::VerifiedIfGiven(_) => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            let verifier = verifier
                .build()
                .map_err(|error| wrong(format!("client_ca: {error}")))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| wrong(format!("certificate and key: {error}")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

type Chain = Vec<CertificateDer<'static>>;

/// At least one certificate.
fn certificates(pem: &Pem) -> Result<Result<Chain, rustls::pki_types::pem::Error>, WebConfigError> {
    let bytes = bytes(pem)?;
    let chain: Result<Chain, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    Ok(chain.and_then(|chain| {
        if chain.is_empty() {
            return Err(rustls::pki_types::pem::Error::NoItemsFound);
        }
        Ok(chain)
    }))
}

fn bytes(pem: &Pem) -> Result<Vec<u8>, WebConfigError> {
    match pem {
        Pem::Text(text) => Ok(text.as_bytes().to_vec()),
        Pem::File(path) => fs::read(path).map_err(|source| WebConfigError::Read {
            path: path.clone(),
            source,
        }),
    }
}
