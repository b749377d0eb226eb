//! The doors against those who mean no good, or read no log: who is kept out, who is let in all the same.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::{process::Stdio, time::Duration};

use b2binpay_broker::grpc::proto::GetAccessTokenRequest;
use b2binpay_simulator::{Api, Fault, FaultKind, Simulator};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{
    Caller, Daemon, Home, RawCaller, Setup, Stopwatch, World, closed, generous, soon,
    users::{connect_as, may_be_others},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    process::{Child, Command},
};

/// A user whom no policy of these tests names.
const STRANGER: u32 = 54321;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn with_limits(limits: &str) -> Setup {
    Setup { rest: format!("[limits]\n{limits}\n"), ..Setup::default() }
}

// ---- stopping

#[tokio::test]
async fn while_it_drains_new_clients_are_refused_at_once() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    simulator.inject(Fault::new(FaultKind::LateAnswer { by: Duration::from_secs(3) }));
    let mut daemon = Daemon::start(&simulator, Setup::default()).await;
    let caller = daemon.caller();
    let mut waiting = Box::pin(caller.token());
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("the call does not wait"),
        _ = caller.status() => {}
    }
    let socket = daemon.home.socket();
    daemon.signal(Signal::SIGTERM);
    soon("nobody listens", async {
        while UnixStream::connect(&socket).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    // The call is still under way, and a successor could take the path.
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("the call was over before the socket was closed"),
        () = std::future::ready(()) => {}
    }
    assert!(!socket.exists());
    let home = Home::new(&simulator, &Setup::default());
    let same_socket = std::fs::read_to_string(home.config())
        .unwrap()
        .replace(home.socket().to_str().unwrap(), socket.to_str().unwrap());
    std::fs::write(home.config(), same_socket).unwrap();
    let successor = Daemon::start_in(home).await;
    assert!(waiting.await.is_ok(), "a call under way is answered");
    assert_eq!(daemon.ended().await.code(), Some(0));
    // Its end takes nothing from the successor.
    assert!(Caller::to(&socket).token().await.is_ok());
    drop(successor);
}

// ---- strangers

#[tokio::test]
async fn strangers_take_no_place_from_callers() {
    if !may_be_others() {
        return;
    }
    let limits = "max_connections = 3\nfirst_byte_timeout = \"1m\"";
    // No operator, for whom there are places beside these.
    let setup = Setup { allow: vec!["GetAccessToken"], ..with_limits(limits) };
    let world = World::with(generous(Api::V3), setup).await;
    let socket = world.daemon.home.socket();
    let mut strangers = Vec::new();
    for _ in 0..4 {
        strangers.push(connect_as(&socket, STRANGER).await.unwrap());
    }
    // A sixteenth of 3 is less than 4, which is what strangers have at least.
    for _ in 0..100 {
        closed(&mut connect_as(&socket, STRANGER).await.unwrap()).await;
    }
    world.daemon.logged("peers that are no callers have taken all connections").await;
    let mut callers = Vec::new();
    for _ in 0..3 {
        let caller = world.caller();
        caller.token().await.unwrap();
        callers.push(caller);
    }
    closed(&mut world.daemon.peer().await).await;
    world.daemon.logged("all connections are taken").await;

    // Who leaves makes room for the next.
    strangers.clear();
    soon("a place for a stranger", async {
        loop {
            let mut stranger = connect_as(&socket, STRANGER).await.unwrap();
            if stranger.write_all(PREFACE).await.is_ok() && stranger.read_exact(&mut [0; 9]).await.is_ok() {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_stranger_is_shown_out_whatever_it_does() {
    if !may_be_others() {
        return;
    }
    let world = World::with(generous(Api::V3), with_limits("first_byte_timeout = \"300ms\"")).await;
    let socket = world.daemon.home.socket();
    let caller = world.daemon.raw_caller().await;
    caller.token_within("10S", &GetAccessTokenRequest::default()).await.unwrap();

    // One that keeps asking until it is cut off, and one that says nothing more.
    let since = Stopwatch::start();
    let busy = RawCaller::over(connect_as(&socket, STRANGER).await.unwrap()).await;
    let mut deaf = connect_as(&socket, STRANGER).await.unwrap();
    deaf.write_all(PREFACE).await.unwrap();
    deaf.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut answers = 0;
    while let Ok(answer) = busy.send("/no.Such/Method", &[], b"").await {
        assert_eq!(answer.refused().reason, "CALLER_UNKNOWN");
        answers += 1;
    }
    assert!(answers > 0);
    closed(&mut deaf).await;
    assert!(since.read() < Duration::from_secs(20), "{:?}", since.read());
    world.daemon.logged("call_denied").await;

    // A caller's connection lasts.
    assert!(caller.token_in_hand().await.is_ok());
}

#[tokio::test]
async fn a_method_that_there_is_not_leaves_a_trace_when_a_stranger_asks_for_it() {
    let callers = "[[caller]]\nname = \"other\"\nunix_user = \"54321\"\nallow = [\"Health\"]\n";
    let world =
        World::with(generous(Api::V3), Setup { callers: Some(callers.into()), ..Setup::default() }).await;
    let stranger = world.daemon.raw_caller().await;
    stranger.send("/no.Such/Method", &[], b"").await.unwrap();
    world.daemon.logged("call_denied").await;
}

// ---- a log that nobody reads

/// Has the broker write far more lines than a pipe and its own queue hold.
async fn flood_the_log(home: &Home) {
    for _ in 0..4000 {
        let mut peer = UnixStream::connect(home.socket()).await.unwrap();
        peer.write_all(b"x").await.unwrap();
        closed(&mut peer).await;
    }
}

fn spawn_unread(home: &Home) -> Child {
    Command::new(env!("CARGO_BIN_EXE_b2binpay-broker"))
        .args(["serve", "--config"])
        .arg(home.config())
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing_and_its_gaps_are_told() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    let home = Home::new(&simulator, &Setup { log_level: "trace", ..Setup::default() });
    let mut daemon = spawn_unread(&home);
    let mut log = daemon.stderr.take().unwrap();
    soon("it serves", async {
        while UnixStream::connect(home.socket()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;

    flood_the_log(&home).await;
    let caller = Caller::to(&home.socket());
    let token = caller.token().await.unwrap();
    // A new one takes the keeper, which logs what it does.
    let next = caller.token_for(Duration::ZERO, &token.token_id, None).await.unwrap();
    assert_ne!(next.token_id, token.token_id);

    let mut read = Vec::new();
    soon("the gap is told", async {
        let mut more = [0; 4096];
        while !String::from_utf8_lossy(&read).contains("log lines were lost") {
            let length = log.read(&mut more).await.unwrap();
            assert!(length > 0, "the log ended");
            read.extend_from_slice(&more[..length]);
        }
    })
    .await;

    // Nor is its end held up.
    flood_the_log(&home).await;
    let since = Stopwatch::start();
    kill(Pid::from_raw(i32::try_from(daemon.id().unwrap()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(soon("it ends", daemon.wait()).await.unwrap().code(), Some(0));
    assert!(since.read() < Duration::from_secs(8), "{:?}", since.read());
}
