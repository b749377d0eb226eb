//! One connection: what it may take, and when it ends.

mod carried;
mod known;
mod wire;

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

pub(super) use carried::Carried;
use futures_util::{StreamExt, stream::FuturesUnordered};
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
pub(super) use known::Known;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::util::MapRequest;
use wire::Greeted;
pub(super) use wire::Wire;

use super::{
    Service,
    tls::{Reason, Trust},
};
use crate::{caller::Peer, config::Limits};

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

/// How much a peer may send before it was looked at, on one stream and on all of a connection: what it sends waits in memory.
/// The largest message still comes in five turns.
const WINDOW: u32 = 64 * 1024;

/// How long a peer that was accepted just before the broker stops may take for its preface. It is served then, and told to go:
/// closed without a word, its call would be lost, where one that was still in the queue waits for the next process.
const LAST_GREETING: Duration = Duration::from_millis(500);

/// How long a stream that its caller has lost the right to may wait for its peer to take the news.
const STALLED: Duration = Duration::from_secs(5);

/// How long a connection that carried a token to somebody who is locked out may go on: for the answers under way, that to
/// the lockdown itself among them. Then what it holds in its buffers is gone, whoever didn't read it.
const LAST_BYTES: Duration = Duration::from_millis(900);

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
pub(super) async fn connection<S: Wire>(
    mut stream: S,
    peer: Arc<Peer>,
    trust: Option<Trust>,
    stay: Stay,
    service: Service,
    limits: Limits,
    drain: CancellationToken,
) {
    // Until its preface is complete, a peer is nobody yet, and gets no more than these few bytes of memory.
    let turned_away = async {
        drain.cancelled().await;
        tokio::time::sleep(LAST_GREETING).await;
    };
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(limits.first_byte_timeout, greets(&mut stream)) => greeted,
        () = turned_away => return,
    };
    if !matches!(greeted, Ok(Ok(true))) {
        tracing::debug!(%peer, "no HTTP/2 preface; connection closed");
        return;
    }
    if let Err(error) = serve(stream, Arc::clone(&peer), trust, stay, service, &limits, drain).await {
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

async fn serve<S: Wire>(
    stream: S,
    peer: Arc<Peer>,
    trust: Option<Trust>,
    stay: Stay,
    service: Service,
    limits: &Limits,
    drain: CancellationToken,
) -> Result<(), hyper::Error> {
    let known = Known::new(Arc::clone(&peer), trust);
    let carried = Carried::default();
    let mut causes = causes(&peer, &known, stay, &service, &carried, limits, drain);
    let service = MapRequest::new(service, move |request: http::Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(known.clone());
        request.extensions_mut().insert(carried.clone());
        request
    });
    let io = TokioIo::new(Greeted::new(PREFACE, stream));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams_per_connection)
        .max_header_list_size(limits.max_header_bytes)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(FAULTY_STREAMS)
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout);
    let mut served = pin!(builder.serve_connection(io, TowerToHyperService::new(service)));

    let mut ends = FuturesUnordered::new();
    loop {
        tokio::select! {
            ended = served.as_mut() => return ended,
            // Who is not gone is cut off.
            Some(()) = ends.next() => return Ok(()),
            Some(grace) = causes.next() => {
                // Asked once; whatever comes after that can only shorten the time that it has.
                if ends.is_empty() {
                    served.as_mut().graceful_shutdown();
                }
                ends.push(tokio::time::sleep(grace));
            }
        }
    }
}

/// Why a connection must end though its peer would stay. Each comes once, whatever came before it, and says how much time the
/// calls under way have then.
type Causes = FuturesUnordered<Pin<Box<dyn Future<Output = Duration> + Send>>>;

fn causes(
    peer: &Arc<Peer>,
    known: &Known,
    stay: Stay,
    service: &Service,
    carried: &Carried,
    limits: &Limits,
    drain: CancellationToken,
) -> Causes {
    let causes = Causes::new();
    // Until the listener is told to abort.
    causes.push(Box::pin(async move {
        drain.cancelled().await;
        Duration::MAX
    }));
    if let Some(age) = stay.age {
        causes.push(Box::pin(async move {
            tokio::time::sleep(age).await;
            stay.grace
        }));
    }
    if stay.of_caller {
        let (peer, service, grace) = (Arc::clone(peer), service.clone(), limits.first_byte_timeout);
        causes.push(Box::pin(async move {
            disowned(&peer, &service).await;
            grace
        }));
    }
    let distrusted = distrusted(Arc::clone(peer), known.clone(), service.clone());
    causes.push(Box::pin(async move {
        distrusted.await;
        DISTRUSTED_GRACE
    }));
    let locked_out = locked_out(Arc::clone(peer), service.clone(), carried.clone());
    causes.push(Box::pin(async move {
        locked_out.await;
        LAST_BYTES
    }));
    let stalled = stalled(Arc::clone(peer), service.clone(), carried.clone());
    causes.push(Box::pin(async move {
        stalled.await;
        Duration::ZERO
    }));
    causes
}

/// Comes when the connection has carried a token and its peer is locked out.
async fn locked_out(peer: Arc<Peer>, service: Service, carried: Carried) {
    let (mut rulings, mut token) = (service.rulings(), carried.tokens());
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

/// Comes when a stream should have ended some time ago and goes on: its peer takes nothing, and so the stream isn't asked.
async fn stalled(peer: Arc<Peer>, service: Service, carried: Carried) {
    let mut rulings = service.rulings();
    loop {
        // The service outlives its connections.
        let _ = rulings.changed().await;
        tokio::time::sleep(STALLED).await;
        if carried.a_forbidden_stream() {
            tracing::info!(%peer, "it has lost the right to a stream, and doesn't take the news; its connection is cut off");
            return;
        }
    }
}

/// Comes when the peer's certificate is no longer believed. From then on its calls are a nameless one's, and those that wait or
/// watch are judged again.
async fn distrusted(peer: Arc<Peer>, known: Known, service: Service) {
    let Reason { word, why } = known.distrusted().await;
    service.judge_again();
    tracing::info!(%peer, "its connection ends: {why}");
    service.note_connection_end(&peer, word, &why);
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
