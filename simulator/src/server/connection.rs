//! One connection: its protocol, and its end by reset.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use super::{Shared, answer};

/// What an answer needs to know of its connection.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) client: SocketAddr,
    reset: Arc<Notify>,
}

impl Peer {
    /// Ends the connection with a TCP RST, and every call on it. Never returns.
    pub(super) async fn reset(&self) -> std::convert::Infallible {
        self.reset.notify_one();
        std::future::pending().await
    }
}

pub(super) async fn serve(
    stream: TcpStream,
    client: SocketAddr,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
) {
    // A second handle on the socket, because the first one disappears inside the protocol's machinery.
    let Ok(socket) = SockRef::from(&stream).try_clone() else { return };
    let _ = stream.set_nodelay(true);
    let peer = Peer { client, reset: Arc::new(Notify::new()) };
    let reset = Arc::clone(&peer.reset);
    tokio::select! {
        () = speak(stream, tls, peer, shared) => {}
        () = reset.notified() => {
            // Closing a socket that may not linger discards what is unsent and sends RST instead of FIN.
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
    }
}

async fn speak(stream: TcpStream, tls: Option<TlsAcceptor>, peer: Peer, shared: Arc<Shared>) {
    match tls {
        None => http(stream, peer, shared).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => http(stream, peer, shared).await,
            Err(error) => tracing::debug!(%error, client = %peer.client, "no TLS connection came about"),
        },
    }
}

async fn http(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, peer: Peer, shared: Arc<Shared>) {
    let service = service_fn(move |request| answer::answer(request, peer.clone(), Arc::clone(&shared)));
    // A connection that ends in an error is a client that left, or a fault that worked.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}
