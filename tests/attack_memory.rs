//! The broker's memory at its real limits: one caller takes as many connections and streams as it may, and makes of them what
//! it can. What is in memory then stays below what a service's `MemoryMax` can be, and another caller is served.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::{convert::Infallible, time::Duration};

use b2binpay_simulator::Api;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::Request;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    body::Frame,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{
    Caller, Setup, World,
    frames::{DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, call, flood, frame, greeting},
    generous,
    raw::{GET_ACCESS_TOKEN, VERIFY_SIGN, WATCH_ACCESS_TOKEN},
    siege::besieged,
    users::may_be_others,
};
use tokio::{io::AsyncWriteExt, net::UnixStream, task::JoinSet};

/// The good caller's user.
const GOOD: u32 = 54321;

/// What the broker may have in memory, in a build for debugging. A quarter of it is the program itself.
const MOST: u64 = 128 << 20;

/// The limits' defaults.
const CONNECTIONS: usize = 256;
const STREAMS: u32 = 128;
const CALLS: usize = 1024;
const LARGEST: usize = 320 * 1024;

/// For how long all of it is held.
const HELD: Duration = Duration::from_secs(3);

fn setup() -> Setup {
    let all = "\"GetAccessToken\", \"WatchAccessToken\", \"VerifySign\"";
    let callers = format!(
        "[[caller]]\nname = \"attacker\"\nunix_user = \"{}\"\nallow = [{all}]\n\
         [[caller]]\nname = \"good\"\nunix_user = \"{GOOD}\"\nallow = [{all}]\n",
        nix::unistd::getuid()
    );
    Setup { callers: Some(callers), log_level: "info", ..Setup::default() }
}

/// Has the attacker do this on as many connections as it may have.
async fn under<F>(attack: impl Fn(UnixStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    if !may_be_others() {
        return;
    }
    let world = World::with(generous(Api::V3), setup()).await;
    let attacking = async {
        let mut all = JoinSet::new();
        for _ in 0..CONNECTIONS {
            all.spawn(attack(world.daemon.peer().await));
        }
        while all.join_next().await.transpose().expect("no attacker panics").is_some() {}
    };
    let good = || Caller::to_as(&world.daemon.home.socket(), GOOD);
    let seen = besieged(&world.daemon, good, attacking).await;
    assert!(seen.most < MOST, "{seen:?}");
}

type Body = BoxBody<Bytes, Infallible>;

/// A connection that keeps to the rules.
async fn polite(stream: UnixStream) -> SendRequest<Body> {
    let (connection, driver) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(driver);
    connection
}

/// The first `count` bytes of a message that is `LARGEST` bytes long, and never its end.
fn unfinished(count: usize) -> Body {
    static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];
    let length = u32::try_from(LARGEST).unwrap().to_be_bytes();
    let prefix = Bytes::copy_from_slice(&[&[0], &length[..]].concat());
    let rest = (0..count / ZEROS.len()).map(|_| Bytes::from_static(&ZEROS));
    let come = stream::iter(std::iter::once(prefix).chain(rest));
    let frames = come.chain(stream::pending()).map(|data| Ok(Frame::data(data)));
    BodyExt::boxed(StreamBody::new(frames))
}

fn request(body: Body) -> Request<Body> {
    Request::post(format!("http://localhost{VERIFY_SIGN}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_the_greatest_size_that_never_end() {
    under(|stream| async {
        let connection = polite(stream).await;
        let mut calls = JoinSet::new();
        // Twice as many as one caller may have in all.
        for _ in 0..2 * CALLS / CONNECTIONS {
            let mut connection = connection.clone();
            calls.spawn(async move {
                // Refused, or not answered at all.
                let _ = connection.send_request(request(unfinished(LARGEST - 1))).await;
            });
        }
        tokio::time::sleep(HELD).await;
        calls.shutdown().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_announced_and_taken_back() {
    under(|stream| async {
        let connection = polite(stream).await;
        for _ in 0..5 {
            let mut calls = JoinSet::new();
            for _ in 0..CALLS / CONNECTIONS {
                let mut connection = connection.clone();
                calls.spawn(async move {
                    let _ = connection.send_request(request(unfinished(0))).await;
                });
            }
            tokio::time::sleep(HELD / 5).await;
            calls.shutdown().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes() {
    under(|mut stream| async move {
        let _ = stream.write_all(&greeting()).await;
        // No byte of an answer fits into a window of nothing, and nothing is read either.
        let _ = stream.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
        let paths = [GET_ACCESS_TOKEN, WATCH_ACCESS_TOKEN].map(call);
        flood(&mut stream, STREAMS, |n| {
            let first = frame(HEADERS, END_HEADERS, 2 * n + 1, &paths[n as usize % 2]);
            [first, frame(DATA, END_STREAM, 2 * n + 1, &[0; 5])].concat()
        })
        .await;
        tokio::time::sleep(HELD).await;
    })
    .await;
}
