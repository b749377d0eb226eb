//! How connections end that must: whoever stays, whatever else is going on, and with what the kernel holds for them.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::{fs, io::ErrorKind, time::Duration};

use b2binpay_simulator::Api;
use nix::sys::signal::Signal;
use support::{
    Setup, Stopwatch, World,
    frames::{DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, SETTINGS, call, frame, greeting, read_until},
    generous,
    pki::{NOTICED, Says, replace},
    raw::{GET_ACCESS_TOKEN, WATCH_ACCESS_TOKEN},
    soon,
    tls::{PAYOUTS, Port},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// Asks for this on the stream of this number.
fn ask(stream: u32, path: &str) -> Vec<u8> {
    let headers = frame(HEADERS, END_HEADERS, stream, &call(path));
    [headers, frame(DATA, END_STREAM, stream, &[0; 5])].concat()
}

/// A client's greeting that leaves no room for the body of an answer.
fn greeting_without_room() -> Vec<u8> {
    [greeting(), frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat()
}

/// Waits until the connection is reset. One that is closed in the ordinary way never is.
async fn reset(stream: &TlsStream<TcpStream>) -> Duration {
    let watched = Stopwatch::start();
    let tcp = stream.get_ref().0;
    let waiting = async {
        loop {
            match tcp.take_error().unwrap() {
                Some(error) if error.kind() == ErrorKind::ConnectionReset => return,
                Some(error) => panic!("{error}"),
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    soon("a reset", waiting).await;
    watched.read()
}

/// Waits for the end of a connection, whatever is said before.
async fn closed(mut stream: TlsStream<TcpStream>) {
    let mut sink = Vec::new();
    let end = tokio::time::timeout(NOTICED, stream.read_to_end(&mut sink)).await;
    assert!(end.is_ok(), "it stays open");
}

#[tokio::test]
async fn tokens_that_a_remote_peer_does_not_take_leave_the_kernel_with_a_lockdown() {
    let port = Port::open().await;
    let admin = port.payouts().caller();
    admin.token().await.unwrap();
    let before = calls(&admin).await;
    let mut deaf = port.payouts().with_little_room().connect().await.unwrap();
    let asks: Vec<u8> = (0..100).flat_map(|n| ask(2 * n + 1, GET_ACCESS_TOKEN)).collect();
    deaf.write_all(&greeting()).await.unwrap();
    deaf.write_all(&asks).await.unwrap();
    soon("its answers", async {
        while calls(&admin).await < before + 100 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(deaf.get_ref().0.take_error().unwrap().is_none());
    admin.lockdown(None, "stolen laptop").await.unwrap();
    let took = reset(&deaf).await;
    println!("reset after {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// How many tokens `payouts` was answered with.
async fn calls(admin: &support::Caller) -> u64 {
    let status = admin.status().await.unwrap();
    let payouts = status.callers.iter().find(|caller| caller.name == "payouts").unwrap();
    payouts.calls.iter().find(|count| count.method == "GetAccessToken").map_or(0, |count| count.ok)
}

/// A port with a list of revoked certificates that is empty.
async fn port_with_list(limits: &str) -> Port {
    let (simulator, home, clients, servers) = Port::prepare("client_crl = [\"clients.crl\"]\n", limits).await;
    replace(&home.path().join("clients.crl"), &clients.revoke(&[]));
    Port::serve(simulator, home, clients, servers).await
}

#[tokio::test]
async fn who_is_revoked_while_its_old_connection_may_finish_is_ended() {
    let port = port_with_list("max_connection_age = \"1s\"\ndrain_deadline = \"2m\"\n").await;
    let identity = port.clients.issue(&Says::uri(PAYOUTS));
    let mut old = port.client(&identity).connect().await.unwrap();
    old.write_all(&[greeting(), ask(1, WATCH_ACCESS_TOKEN)].concat()).await.unwrap();
    soon("a GOAWAY", read_until(&mut old, GOAWAY)).await.unwrap();
    replace(&port.file("clients.crl"), &port.clients.revoke(&[&identity]));
    closed(old).await;
    port.daemon.logged("its connection ends: its certificate is revoked").await;
}

#[tokio::test]
async fn who_is_revoked_while_the_broker_stops_is_ended() {
    let port = port_with_list("drain_deadline = \"2m\"\n").await;
    let identity = port.clients.issue(&Says::uri(PAYOUTS));
    let mut stalled = port.client(&identity).connect().await.unwrap();
    // Its end doesn't reach it: it has no room for what would have come before.
    stalled.write_all(&[greeting_without_room(), ask(1, WATCH_ACCESS_TOKEN)].concat()).await.unwrap();
    soon("the stream's beginning", read_until(&mut stalled, HEADERS)).await.unwrap();
    port.daemon.signal(Signal::SIGTERM);
    soon("a GOAWAY", read_until(&mut stalled, GOAWAY)).await.unwrap();
    replace(&port.file("clients.crl"), &port.clients.revoke(&[&identity]));
    closed(stalled).await;
    port.daemon.logged("its connection ends: its certificate is revoked").await;
}

#[tokio::test]
async fn who_speaks_an_older_tls_than_a_reload_allows_is_ended_and_others_are_not() {
    let port = Port::with("min_tls = \"1.2\"\n", "").await;
    let mut old = port.payouts().with_tls12_alone().connect().await.unwrap();
    old.write_all(&[greeting(), ask(1, WATCH_ACCESS_TOKEN)].concat()).await.unwrap();
    soon("a token", read_until(&mut old, DATA)).await.unwrap();
    let mut new = port.payouts().connect().await.unwrap();
    new.write_all(&[greeting(), ask(1, WATCH_ACCESS_TOKEN)].concat()).await.unwrap();
    soon("a token", read_until(&mut new, DATA)).await.unwrap();

    let text = fs::read_to_string(port.daemon.home.config()).unwrap();
    fs::write(port.daemon.home.config(), text.replace("min_tls = \"1.2\"", "min_tls = \"1.3\"")).unwrap();
    port.daemon.signal(Signal::SIGHUP);
    soon("a GOAWAY", read_until(&mut old, GOAWAY)).await.unwrap();
    closed(old).await;
    port.daemon.logged("it speaks an older TLS than listen.min_tls allows by now").await;
    assert!(port.payouts().with_tls12_alone().greet().await.is_err());
    new.write_all(&ask(3, WATCH_ACCESS_TOKEN)).await.unwrap();
    soon("a token on the other", read_until(&mut new, DATA)).await.unwrap();
}

#[tokio::test]
async fn who_loses_the_right_to_a_stream_and_does_not_take_its_end_is_cut_off() {
    let world = World::with(generous(Api::V3), Setup::default()).await;
    world.caller().token().await.unwrap();
    let mut stalled = world.daemon.peer().await;
    stalled.write_all(&[greeting_without_room(), ask(1, WATCH_ACCESS_TOKEN)].concat()).await.unwrap();
    soon("the stream's beginning", read_until(&mut stalled, HEADERS)).await.unwrap();
    let other = world.daemon.raw_caller().await;

    let allow = vec!["GetAccessToken", "Admin"];
    world.daemon.home.configure(&world.simulator, &Setup { allow, ..Setup::default() });
    world.daemon.signal(Signal::SIGHUP);
    support::closed(&mut stalled).await;
    world.daemon.logged("its connection is cut off").await;
    assert!(other.token_in_hand().await.is_ok(), "a connection without such a stream goes on");
}
