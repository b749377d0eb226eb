//! One connection: who is at its other end, and what it may take.

use std::{
    io::{self, Cursor},
    os::fd::AsFd,
    pin::pin,
    sync::Arc,
};

use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{io::AsyncReadExt, net::UnixStream};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::util::MapRequest;

use super::{Service, peer::unix_peer};
use crate::{caller::Peer, config::Limits};

/// What every HTTP/2 client says first: <https://www.rfc-editor.org/rfc/rfc9113#section-3.4>.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one connection until its peer, its age or `drain` ends it; each but the first with a GOAWAY, and time for the
/// calls under way.
pub(super) async fn connection(
    mut stream: UnixStream,
    service: Service,
    limits: Limits,
    drain: CancellationToken,
) {
    let peer = match unix_peer(stream.as_fd()) {
        Ok(peer) => Arc::new(peer),
        Err(error) => {
            tracing::warn!(%error, "the kernel does not tell who connected; connection closed");
            return;
        }
    };
    // Until its preface is complete, a peer is nobody yet, and gets no more than these few bytes of memory.
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(limits.first_byte_timeout, greets(&mut stream)) => greeted,
        () = drain.cancelled() => return,
    };
    if !matches!(greeted, Ok(Ok(true))) {
        tracing::debug!(%peer, "no HTTP/2 preface; connection closed");
        return;
    }
    if let Err(error) = serve(stream, Arc::clone(&peer), service, &limits, drain).await {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

/// Whether the peer says the preface. The first byte that is not its ends the matter: who speaks another protocol, and
/// waits for an answer before it says more, should not wait for the timeout.
async fn greets(stream: &mut UnixStream) -> io::Result<bool> {
    let mut said = [0; PREFACE.len()];
    let mut length = 0;
    while length < said.len() {
        let read = stream.read(&mut said[length..]).await?;
        length += read;
        if read == 0 || said[..length] != PREFACE[..length] {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn serve(
    stream: UnixStream,
    peer: Arc<Peer>,
    service: Service,
    limits: &Limits,
    drain: CancellationToken,
) -> Result<(), hyper::Error> {
    let service = MapRequest::new(service, move |request: http::Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Arc::clone(&peer));
        request
    });
    let (read, write) = stream.into_split();
    let io = TokioIo::new(tokio::io::join(Cursor::new(PREFACE).chain(read), write));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams_per_connection)
        .max_header_list_size(limits.max_header_bytes)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    let mut served = pin!(builder.serve_connection(io, TowerToHyperService::new(service)));

    let aged = async {
        match limits.max_connection_age {
            Some(age) => tokio::time::sleep(age).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = served.as_mut() => return ended,
        () = drain.cancelled() => {
            served.as_mut().graceful_shutdown();
            return served.await;
        }
        () = aged => served.as_mut().graceful_shutdown(),
    }
    // An aged connection has as long to finish as a stopping broker gives; who holds a stream open is cut off then.
    tokio::time::timeout(limits.drain_deadline, served).await.unwrap_or(Ok(()))
}
