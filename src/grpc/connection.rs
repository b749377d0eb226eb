//! One connection: what it may take, and when it ends.

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::util::MapRequest;

use super::{Service, listener::Distrust, tls::Reason};
use crate::{
    caller::{NoName, Peer},
    config::Limits,
};

/// What every HTTP/2 client says first: <https://www.rfc-editor.org/rfc/rfc9113#section-3.4>.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long calls may go on of a peer whose certificate is no longer believed: for an answer that is on its way.
const DISTRUSTED_GRACE: Duration = Duration::from_secs(1);

/// How many streams that their peer reset may wait to be looked at. A client that resets more of them in one go has no other
/// purpose (rapid reset, CVE-2023-44487), and its connection ends.
const PENDING_RESETS: usize = 20;

/// How many streams may be reset because of their peer's mistakes before its connection ends (RUSTSEC-2024-0003).
const FAULTY_STREAMS: usize = 1024;

/// How much of an answer waits in memory for a peer that doesn't read it. Answers are a few KiB.
const SEND_BUFFER: usize = 64 * 1024;

/// How long a connection that carried a token to somebody who is locked out may go on: for the answers under way, that to
/// the lockdown itself among them. Then what it holds in its buffers is gone, whoever didn't read it.
const LAST_BYTES: Duration = Duration::from_millis(900);

/// Whether a connection ever carried a token. Whoever hands one over says so, before it does.
#[derive(Clone, Debug, Default)]
pub(super) struct Carried(Arc<watch::Sender<bool>>);

impl Carried {
    /// A token is about to be handed over.
    pub(super) fn a_token(&self) {
        self.0.send_if_modified(|carried| !std::mem::replace(carried, true));
    }
}

/// How long a connection may last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stay {
    /// Whether the policy knew the peer when it came.
    of_caller: bool,
    /// Since its preface. When it is over, a GOAWAY is sent.
    age: Option<Duration>,
    /// For the calls under way then. Who is not gone after that is cut off.
    grace: Duration,
}

impl Stay {
    /// Of a peer that the policy knows.
    pub(super) const fn of_caller(limits: &Limits) -> Self {
        Self { of_caller: true, age: limits.max_connection_age, grace: limits.drain_deadline }
    }

    /// Of any other. All that it can be told is that nobody knows it, and that needs no time: with the preface it is gone
    /// after three times `first_byte_timeout`, whatever it does.
    pub(super) const fn of_stranger(limits: &Limits) -> Self {
        Self { of_caller: false, age: Some(limits.first_byte_timeout), grace: limits.first_byte_timeout }
    }
}

/// Serves one connection until its peer, its age or `drain` ends it; each but the first with a GOAWAY, and time for the
/// calls under way.
pub(super) async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    mut stream: S,
    peer: Arc<Peer>,
    distrust: Distrust,
    stay: Stay,
    service: Service,
    limits: Limits,
    drain: CancellationToken,
) {
    // Until its preface is complete, a peer is nobody yet, and gets no more than these few bytes of memory.
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(limits.first_byte_timeout, greets(&mut stream)) => greeted,
        () = drain.cancelled() => return,
    };
    if !matches!(greeted, Ok(Ok(true))) {
        tracing::debug!(%peer, "no HTTP/2 preface; connection closed");
        return;
    }
    if let Err(error) = serve(stream, Arc::clone(&peer), distrust, stay, service, &limits, drain).await {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

/// Whether the peer says the preface. The first byte that is not its ends the matter: who speaks another protocol, and
/// waits for an answer before it says more, should not wait for the timeout.
async fn greets(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
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

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: Arc<Peer>,
    distrust: Distrust,
    stay: Stay,
    service: Service,
    limits: &Limits,
    drain: CancellationToken,
) -> Result<(), hyper::Error> {
    // What the guard is told of the peer: itself, until it is distrusted.
    let known = Arc::new(ArcSwap::new(Arc::clone(&peer)));
    let distrusted = distrusted(Arc::clone(&peer), distrust, Arc::clone(&known), service.clone());
    let carried = Carried::default();
    let due = due(Arc::clone(&peer), stay, service.clone(), limits.first_byte_timeout);
    let locked_out = || locked_out(Arc::clone(&peer), service.clone(), carried.clone());
    let (began, cut_off) = (locked_out(), locked_out());
    let marked = carried.clone();
    let service = MapRequest::new(service.clone(), move |request: http::Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(known.load_full());
        request.extensions_mut().insert(marked.clone());
        request
    });
    let io = TokioIo::new(Greeted { preface: PREFACE, stream });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams_per_connection)
        .max_header_list_size(limits.max_header_bytes)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(FAULTY_STREAMS)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    let mut served = pin!(builder.serve_connection(io, TowerToHyperService::new(service)));

    let grace = tokio::select! {
        ended = served.as_mut() => return ended,
        // Until the listener is told to abort.
        () = drain.cancelled() => Duration::MAX,
        grace = due => grace,
        () = distrusted => DISTRUSTED_GRACE,
        () = began => LAST_BYTES,
    };
    served.as_mut().graceful_shutdown();
    tokio::select! {
        ended = tokio::time::timeout(grace, served) => ended.unwrap_or(Ok(())),
        // Whatever time it had been given.
        () = async { cut_off.await; tokio::time::sleep(LAST_BYTES).await } => Ok(()),
    }
}

/// Comes when the connection has carried a token and its peer is locked out.
async fn locked_out(peer: Arc<Peer>, service: Service, carried: Carried) {
    let (mut rulings, mut token) = (service.rulings(), carried.0.subscribe());
    loop {
        // Subscribed before they are looked at: a change in between wakes us. Their senders outlive this.
        let carried_one = *token.borrow_and_update();
        if carried_one && service.locks_out(&peer) {
            return;
        }
        tokio::select! {
            _ = rulings.changed() => {}
            _ = token.changed() => {}
        }
    }
}

/// Comes when the connection must end though its peer would stay, and says how much time the calls under way have then.
async fn due(peer: Arc<Peer>, stay: Stay, service: Service, of_stranger: Duration) -> Duration {
    let aged = async {
        match stay.age {
            Some(age) => tokio::time::sleep(age).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = aged => stay.grace,
        () = disowned(&peer, &service), if stay.of_caller => of_stranger,
    }
}

/// Comes when the peer's certificate is no longer believed. From then on its calls are a nameless one's.
async fn distrusted(peer: Arc<Peer>, distrust: Distrust, known: Arc<ArcSwap<Peer>>, service: Service) {
    let Reason { word, why } = distrust.await;
    tracing::info!(%peer, "its connection ends: {why}");
    service.note_connection_end(&peer, word, &why);
    if let Peer::Tls { address, .. } = *peer {
        known.store(Arc::new(Peer::Tls { address, name: Err(NoName::Distrusted) }));
    }
}

/// Comes when the policy doesn't know the peer, which it did. Its calls have been told so; what is left is its place.
async fn disowned(peer: &Peer, service: &Service) {
    let mut rulings = service.rulings();
    // Subscribed before it is looked at: a change in between wakes us. The service outlives its connections.
    while service.knows(peer) {
        let _ = rulings.changed().await;
    }
    tracing::info!(%peer, "the policy knows this peer no more; its connection ends");
    service.note_connection_end(peer, "CALLER_UNKNOWN", "the policy knows this peer no more");
}

/// A stream whose preface was read and is to be read again.
struct Greeted<S> {
    /// What is left of it.
    preface: &'static [u8],
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.preface.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let (now, later) = self.preface.split_at(self.preface.len().min(into.remaining()));
        into.put_slice(now);
        self.preface = later;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
