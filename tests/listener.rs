//! The doors: what a peer can take, how the broker stops, and whose the socket's path is.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use b2binpay_broker::grpc::proto::GetAccessTokenRequest;
use b2binpay_simulator::{Api, Fault, FaultKind, Simulator};
use http::StatusCode;
use nix::sys::signal::Signal;
use support::{
    Answered, Caller, Daemon, Home, RawCaller, Setup, Stopwatch, World, closed, generous,
    raw::GET_ACCESS_TOKEN, soon,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame, which a client sends after its preface.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

fn with_limits(limits: &str) -> Setup {
    Setup { rest: format!("[limits]\n{limits}\n"), ..Setup::default() }
}

// ---- connections

#[tokio::test]
async fn a_silent_peer_is_closed_after_its_time() {
    let world = World::with(generous(Api::V3), with_limits("first_byte_timeout = \"500ms\"")).await;
    for greeting in [&[][..], &PREFACE[..10]] {
        let since = Stopwatch::start();
        let mut peer = world.daemon.peer().await;
        peer.write_all(greeting).await.unwrap();
        assert_eq!(closed(&mut peer).await, b"");
        assert!(since.read() >= Duration::from_millis(490), "{:?}", since.read());
    }
    // Who has greeted may be silent for longer.
    let raw = world.daemon.raw_caller().await;
    raw.token_within("10S", &GetAccessTokenRequest::default()).await.unwrap();
    let mut silent = world.daemon.peer().await;
    closed(&mut silent).await;
    assert!(raw.token_in_hand().await.is_ok());
}

#[tokio::test]
async fn garbage_is_closed_at_once() {
    let world = World::with(generous(Api::V3), with_limits("first_byte_timeout = \"1m\"")).await;
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n".as_slice(),
        b"POST /token/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"x",
        &[0; 4096],
    ] {
        let since = Stopwatch::start();
        let mut peer = world.daemon.peer().await;
        peer.write_all(garbage).await.unwrap();
        assert_eq!(closed(&mut peer).await, b"", "{garbage:?}");
        assert!(since.read() < Duration::from_secs(20), "{garbage:?}");
    }
    assert!(world.caller().token().await.is_ok());
}

#[tokio::test]
async fn what_is_no_http_2_after_the_preface_ends_that_connection_alone() {
    let world = World::of(Api::V3).await;
    let mut peer = world.daemon.peer().await;
    peer.write_all(PREFACE).await.unwrap();
    peer.write_all(&[0xff; 100]).await.unwrap();
    closed(&mut peer).await;
    assert!(world.caller().token().await.is_ok());
}

#[tokio::test]
async fn a_preface_in_pieces_is_a_preface() {
    let world = World::of(Api::V3).await;
    let mut peer = world.daemon.peer().await;
    for piece in PREFACE.chunks(5).chain([SETTINGS]) {
        peer.write_all(piece).await.unwrap();
        peer.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = [0; 9];
    soon("the server's settings", peer.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer[3], 4, "{answer:?}");
}

#[tokio::test]
async fn beyond_the_most_connections_new_ones_are_closed_and_old_ones_served() {
    let limits = "max_connections = 3\nfirst_byte_timeout = \"1m\"";
    // No operator, for whom there are places beside these.
    let setup = Setup { allow: vec!["GetAccessToken"], ..with_limits(limits) };
    let world = World::with(generous(Api::V3), setup).await;
    let raw = world.daemon.raw_caller().await;
    raw.token_within("10S", &GetAccessTokenRequest::default()).await.unwrap();
    let (one, two) = (world.daemon.peer().await, world.daemon.peer().await);
    // A place is taken when the broker has accepted, which is later than that the kernel has.
    let mut refused = world.daemon.peer().await;
    let said = closed(&mut refused).await;
    assert_eq!(said, b"");
    world.daemon.logged("all connections are taken").await;
    assert!(raw.token_in_hand().await.is_ok());

    drop((one, two));
    soon("a place", async {
        while !is_let_in(&world.daemon).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    world.daemon.logged("accepting connections again").await;
    assert!(world.caller().token().await.is_ok());
}

/// Whether a new connection is answered.
async fn is_let_in(daemon: &Daemon) -> bool {
    let mut peer = daemon.peer().await;
    let greeted = peer.write_all(PREFACE).await.is_ok() && peer.write_all(SETTINGS).await.is_ok();
    greeted && peer.read_exact(&mut [0; 9]).await.is_ok()
}

#[tokio::test]
async fn one_connection_has_no_more_calls_open_than_it_may() {
    let world = World::with(generous(Api::V3), with_limits("max_streams_per_connection = 2")).await;
    let caller = world.caller();
    let mut one = caller.watch().await.unwrap();
    soon("a token", one.message()).await.unwrap();
    let two = caller.watch().await.unwrap();
    let mut third = Box::pin(caller.token());
    // Another connection has streams of its own, and is answered meanwhile.
    for _ in 0..20 {
        tokio::select! {
            biased;
            _ = &mut third => panic!("a third stream was opened"),
            other = world.daemon.raw_caller() => assert!(other.token_in_hand().await.is_ok()),
        }
    }
    drop(one);
    assert!(third.await.is_ok());
    drop(two);
}

#[tokio::test]
async fn headers_that_are_too_large_are_refused() {
    let world = World::of(Api::V3).await;
    world.caller().token().await.unwrap();
    let raw = world.daemon.raw_caller().await;
    let large = "x".repeat(20 * 1024);
    match raw.send(GET_ACCESS_TOKEN, &[("x-large", &large)], b"").await {
        Ok(answer) => {
            assert_eq!(answer.http_status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
            assert!(answer.message.is_none());
        }
        Err(error) => assert!(!error.is_timeout(), "{error:?}"),
    }
    let ordinary = "x".repeat(8 * 1024);
    let raw = world.daemon.raw_caller().await;
    assert!(raw.send(GET_ACCESS_TOKEN, &[("x-ordinary", &ordinary)], b"").await.unwrap().error.is_none());
}

#[tokio::test]
async fn without_file_descriptors_it_waits_and_then_serves_again() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    let home = Home::new(&simulator, &with_limits("first_byte_timeout = \"3s\""));
    let daemon = Daemon::spawn_with_few_files(home, 32);
    daemon.logged("\"serving\"").await;
    let raw = daemon.raw_caller().await;
    raw.token_within("10S", &GetAccessTokenRequest::default()).await.unwrap();

    let before = cpu_time(&daemon);
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(daemon.peer().await);
    }
    daemon.logged("can't accept connections").await;
    assert!(raw.token_in_hand().await.is_ok(), "who is connected is served");
    // The silent ones are closed by the broker, and the rest of them let in, closed, and so on.
    daemon.logged("accepting connections again").await;
    for peer in &mut silent {
        closed(peer).await;
    }
    assert!(daemon.caller().token().await.is_ok());
    // It had nothing to do for seconds. A loop that spins would have used them all.
    let used = cpu_time(&daemon).saturating_sub(before);
    assert!(used < Duration::from_secs(1), "{used:?}");
}

/// What the daemon has used of the processors so far.
fn cpu_time(daemon: &Daemon) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    // Fields 14 and 15, of which the name is the second: in hundredths of a second everywhere that Linux runs.
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

// ---- stopping

#[tokio::test]
async fn a_call_in_flight_is_answered_before_the_broker_ends() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    simulator.inject(Fault::new(FaultKind::LateAnswer { by: Duration::from_millis(1500) }));
    let mut daemon = Daemon::start(&simulator, Setup::default()).await;
    let caller = daemon.caller();
    let mut waiting = Box::pin(caller.token());
    // What is answered on the same connection came after it.
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("the call does not wait"),
        _ = caller.status() => {}
    }
    daemon.signal(Signal::SIGTERM);
    daemon.logged("stopping: calls under way may finish").await;
    let token = waiting.await.unwrap();
    assert!(simulator.is_live(&token.access_token));
    assert_eq!(daemon.ended().await.code(), Some(0));
    daemon.logged("\"stopped\"").await;
    assert!(!daemon.log().contains("cut off"), "{}", daemon.log());
}

#[tokio::test]
async fn the_broker_ends_within_its_deadline_whoever_is_silent() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let limits = "drain_deadline = \"2s\"\nfirst_byte_timeout = \"1m\"";
        let mut world = World::with(generous(Api::V3), with_limits(limits)).await;
        // One that never greets, one that greets and never reads a GOAWAY, one that watches.
        let silent = world.daemon.peer().await;
        let mut deaf = world.daemon.peer().await;
        deaf.write_all(PREFACE).await.unwrap();
        deaf.write_all(SETTINGS).await.unwrap();
        let mut watch = world.caller().watch().await.unwrap();
        soon("a token", watch.message()).await.unwrap();
        let since = Stopwatch::start();
        world.daemon.signal(signal);
        assert_eq!(world.daemon.ended().await.code(), Some(0));
        assert!(since.read() < Duration::from_millis(3500), "{:?}", since.read());
        drop((silent, deaf));
    }
}

#[tokio::test]
async fn an_idle_broker_ends_at_once() {
    let mut world = World::of(Api::V3).await;
    world.caller().token().await.unwrap();
    let since = Stopwatch::start();
    world.daemon.signal(Signal::SIGTERM);
    assert_eq!(world.daemon.ended().await.code(), Some(0));
    assert!(since.read() < Duration::from_secs(5), "{:?}", since.read());
}

#[tokio::test]
async fn a_broker_that_has_said_that_it_serves_can_be_stopped_politely() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    let mut home = Home::new(&simulator, &Setup::default());
    for _ in 0..20 {
        let mut daemon = Daemon::start_in(home).await;
        daemon.signal(Signal::SIGTERM);
        assert_eq!(daemon.ended().await.code(), Some(0));
        home = daemon.leave();
    }
}

// ---- the socket's path

#[tokio::test]
async fn the_socket_has_its_mode_and_is_gone_with_the_broker() {
    let mut world = World::of(Api::V3).await;
    let socket = world.daemon.home.socket();
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o666);
    world.caller().token().await.unwrap();
    world.daemon.signal(Signal::SIGTERM);
    assert_eq!(world.daemon.ended().await.code(), Some(0));
    assert!(!socket.exists());
    let left: Vec<_> =
        fs::read_dir(world.daemon.home.path()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().contains("sock")), "{left:?}");
}

#[tokio::test]
async fn a_socket_that_a_killed_broker_left_is_replaced() {
    let world = World::of(Api::V3).await;
    let home = world.daemon.kill().await;
    assert!(home.socket().exists());
    let daemon = Daemon::start_in(home).await;
    assert!(daemon.caller().token().await.is_ok());
}

#[tokio::test]
async fn a_socket_on_which_another_listens_is_left_alone() {
    let world = World::of(Api::V3).await;
    let socket = world.daemon.home.socket();
    let mut second = Home::new(&world.simulator, &Setup::default());
    let text = fs::read_to_string(second.config()).unwrap();
    let theirs = second.socket().display().to_string();
    fs::write(second.config(), text.replace(&theirs, &socket.display().to_string())).unwrap();
    let mut daemon = Daemon::spawn(second);
    assert_eq!(daemon.ended().await.code(), Some(1));
    daemon.logged("another process listens here already").await;
    assert!(daemon.log().contains(&socket.display().to_string()), "{}", daemon.log());
    assert!(world.caller().token().await.is_ok());
    second = daemon.leave();
    drop(second);
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    let home = Home::new(&simulator, &Setup::default());
    fs::write(home.socket(), "precious").unwrap();
    let mut daemon = Daemon::spawn(home);
    assert_eq!(daemon.ended().await.code(), Some(1));
    daemon.logged("there is something that is no socket").await;
    assert_eq!(fs::read_to_string(daemon.home.socket()).unwrap(), "precious");
    assert_eq!(simulator.calls().len(), 0, "nothing is asked of the upstream before the sockets are open");
}

#[tokio::test]
async fn a_socket_in_no_folder_is_told() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    let home = Home::new(&simulator, &Setup::default());
    let text = fs::read_to_string(home.config()).unwrap();
    let ours = home.socket().display().to_string();
    fs::write(home.config(), text.replace(&ours, "/nowhere/at/all/broker.sock")).unwrap();
    let mut daemon = Daemon::spawn(home);
    assert_eq!(daemon.ended().await.code(), Some(1));
    daemon.logged("/nowhere/at/all/broker.sock: can't listen").await;
}

#[tokio::test]
async fn callers_come_and_go_by_the_hundred() {
    let world = World::of(Api::V3).await;
    let first = world.caller().token().await.unwrap().token_id;
    for _ in 0..20 {
        let callers: Vec<_> = (0..20).map(|_| Caller::to(&world.daemon.home.socket())).collect();
        let tokens = callers.iter().map(Caller::token);
        for token in futures_util::future::join_all(tokens).await {
            assert_eq!(token.unwrap().token_id, first);
        }
    }
    let refused =
        RawCaller::over(world.daemon.peer().await).await.send("/", &[], b"").await.unwrap().refused();
    assert_eq!(refused.reason, "METHOD_UNKNOWN");
    assert!(
        world.caller().token_for(Duration::from_secs(3600), "", None).await.refused().retry_after.is_none()
    );
}
