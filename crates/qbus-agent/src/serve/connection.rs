//! One client's connection, from the accept to its end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time;

use super::body::Payload;
use super::host::Locality;
use super::impatient::Impatient;
use super::limits::{Connections, Place};
use super::listen::Listener;
use super::routes::{Request, Routes, too_many};
#[cfg(feature = "tls")]
use super::secure::Security;

/// For the whole of a request's head, and between two requests: who sends a byte a second is cut
/// off.
const HEAD_TIME: Duration = Duration::from_secs(10);
#[cfg(feature = "tls")]
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// A client that for so long takes not a byte of its answer is gone.
const TAKE_TIME: Duration = Duration::from_secs(10);
/// For the whole of a request's head.
const HEAD_BYTES: usize = 64 * 1024;
/// When the system has no descriptors left, it has none for a while.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// What stands between a connection and an answer.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) routes: Arc<Routes>,
    pub(super) max_requests: usize,
    #[cfg(feature = "tls")]
    pub(super) security: Arc<Security>,
}

/// Takes connections for ever.
pub(super) async fn accept(listener: Listener, gate: Arc<Gate>, connections: Arc<Connections>) {
    loop {
        let accepted = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                // A page is one write; what comes in small pieces is meant to arrive at once.
                let _ = stream.set_nodelay(true);
                let locality = match stream.local_addr() {
                    Ok(address) if address.ip().to_canonical().is_loopback() => Locality::Loopback,
                    _ => Locality::Network,
                };
                start(stream, locality, &gate, &connections);
            }),
            Listener::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| {
                start(stream, Locality::Unix, &gate, &connections);
            }),
        };
        if let Err(error) = accepted
            && !is_of_one_client(&error)
        {
            time::sleep(OUT_OF_DESCRIPTORS).await;
        }
    }
}

fn is_of_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

fn start<S>(stream: S, locality: Locality, gate: &Arc<Gate>, connections: &Arc<Connections>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // All are busy: to close it at once tells the client more than silence would.
    if let Some(place) = connections.admit() {
        let stream = Impatient::new(stream, TAKE_TIME);
        tokio::spawn(converse(stream, locality, gate.clone(), place));
    }
}

async fn converse<S>(stream: S, locality: Locality, gate: Arc<Gate>, place: Place)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let place = Arc::new(place);
    #[cfg(feature = "tls")]
    if let Some(acceptor) = gate.security.acceptor() {
        let handshake = time::timeout(HANDSHAKE_TIME, acceptor.accept(stream));
        let stream = tokio::select! {
            stream = handshake => stream,
            () = place.evicted() => return,
        };
        // A client that fails the handshake is told so by the protocol.
        if let Ok(Ok(stream)) = stream {
            talk(stream, locality, gate, place).await;
        }
        return;
    }
    talk(stream, locality, gate, place).await;
}

async fn talk<S>(stream: S, locality: Locality, gate: Arc<Gate>, place: Arc<Place>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request| {
        let (gate, place) = (gate.clone(), place.clone());
        async move {
            let mut response = if place.begin() {
                answer(&gate, request, locality).await
            } else {
                too_many()
            };
            match response.body_mut() {
                Payload::Whole { unsent, .. } => *unsent = Some(place.made()),
                Payload::Stream(_) => place.streams(),
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A client that talks garbage or vanishes has nobody to be told.
        _ = connection => {}
        () = place.evicted() => {}
    }
}

async fn answer(gate: &Gate, request: Request, locality: Locality) -> hyper::Response<Payload> {
    #[cfg(feature = "tls")]
    {
        if let Some(refusal) = gate.security.refuse(&request).await {
            return refusal;
        }
        let mut response = gate.routes.answer(request, locality).await;
        gate.security.add_headers(&mut response);
        response
    }
    #[cfg(not(feature = "tls"))]
    gate.routes.answer(request, locality).await
}
