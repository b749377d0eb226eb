//! What systemd hears and hands over: a listener in its place, the real daemon, and the environment between them.

mod support;

use std::{
    os::{fd::OwnedFd, unix::net::UnixListener},
    time::Duration,
};

use b2binpay_simulator::{Api, Fault, FaultKind, Simulator};
use nix::sys::signal::Signal;
use support::{Caller, Daemon, Home, Setup, generous, manager::Manager};

const WATCHDOG: Duration = Duration::from_secs(6);

#[tokio::test]
async fn it_is_ready_with_a_token_tells_how_it_is_and_says_when_it_stops() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    let home = Home::new(&simulator, &Setup::default());
    let (mut manager, notify) = Manager::in_place_of_systemd(&home);
    simulator.inject(Fault::new(FaultKind::LateAnswer { by: Duration::from_secs(1) }));
    let mut daemon = Daemon::spawn_supervised(home, &notify, WATCHDOG, None);
    let status = manager.hears("STATUS=").await;
    assert!(status.starts_with("STATUS=STARTING, not ready, since 2"), "{status}");
    assert!(!manager.has_heard("READY=1"), "there is no token yet");
    manager.hears("READY=1").await;
    let status = manager.heard.iter().rfind(|line| line.starts_with("STATUS=")).unwrap();
    assert!(status.starts_with("STATUS=FRESH, ready, with a token for callers until 2"), "{status}");
    manager.hears("WATCHDOG=1").await;

    let locked = daemon.caller().lockdown(None, "a drill").await.unwrap();
    assert!(locked.lock.is_some());
    let status = manager.hears("STATUS=LOCKED_DOWN, not ready, since 2").await;
    assert!(status.contains("a drill"), "{status}");
    daemon.caller().unlock(None).await.unwrap();
    manager.hears("STATUS=FRESH").await;

    daemon.signal(Signal::SIGTERM);
    manager.hears("STOPPING=1").await;
    assert!(manager.has_heard("EXTEND_TIMEOUT_USEC=11000000"), "{:?}", manager.heard);
    assert!(manager.has_heard("STATUS=stopping: calls under way may finish"), "{:?}", manager.heard);
    assert!(daemon.ended().await.success());
}

#[tokio::test]
async fn without_a_token_it_counts_as_started_after_a_while_says_why_and_gets_well_by_itself() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    let home = Home::new(&simulator, &Setup::default());
    let (mut manager, notify) = Manager::in_place_of_systemd(&home);
    simulator.inject(Fault::new(FaultKind::status(503, None, "Later.")).until_cleared());
    let _daemon = Daemon::spawn_supervised(home, &notify, WATCHDOG, None);
    manager.hears("READY=1").await;
    let status = manager.heard.iter().rfind(|line| line.starts_with("STATUS=")).unwrap();
    assert!(status.starts_with("STATUS=STARTING, not ready, since 2") && status.contains("503"), "{status}");
    simulator.clear_faults();
    manager.hears("STATUS=FRESH, ready").await;
}

#[tokio::test]
async fn callers_queue_at_a_socket_that_was_handed_over_until_the_next_process_serves_them() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    let setup = Setup { listen: Some("systemd = \"broker\"".into()), ..Setup::default() };
    let home = Home::new(&simulator, &setup);
    let (mut manager, notify) = Manager::in_place_of_systemd(&home);
    let socket: OwnedFd = UnixListener::bind(home.socket()).unwrap().into();
    let handed_over = || Some(("broker", socket.try_clone().unwrap()));
    let mut daemon = Daemon::spawn_supervised(home, &notify, WATCHDOG, handed_over());
    manager.hears("READY=1").await;
    daemon.caller().token().await.unwrap();
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.ended().await.success());

    let home = daemon.leave();
    let early = Caller::to(&home.socket());
    let queued = tokio::spawn(async move { early.token().await.map(drop) });
    manager.heard.clear();
    let daemon = Daemon::spawn_supervised(home, &notify, WATCHDOG, handed_over());
    queued.await.unwrap().unwrap();
    let home = daemon.kill().await;
    assert!(home.socket().exists(), "it is not the broker's to remove");
}

#[tokio::test]
async fn a_socket_that_was_not_handed_over_or_does_not_fit_is_told_with_what_to_do() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    let setup = Setup { listen: Some("systemd = \"broker\"".into()), ..Setup::default() };
    let home = Home::new(&simulator, &setup);
    let (_manager, notify) = Manager::in_place_of_systemd(&home);
    let socket = || OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let mut home = Some(home);
    for (handed_over, told) in [
        (None, "it handed over none"),
        (Some(("other", socket())), "those it did: other"),
        (Some(("broker", socket())), "is a TCP port"),
    ] {
        let mut daemon = Daemon::spawn_supervised(home.take().unwrap(), &notify, WATCHDOG, handed_over);
        assert_eq!(daemon.ended().await.code(), Some(78), "{told}");
        daemon.logged(told).await;
        home = Some(daemon.leave());
    }
}
