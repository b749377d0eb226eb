//! What one caller may take, so that others get theirs.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::time::Duration;

use b2binpay_broker::grpc::proto::GetStatusResponse;
use b2binpay_simulator::{Api, Fault, FaultKind};
use support::{
    Answered, Caller, Refused, Setup, World, generous,
    raw::{GET_ACCESS_TOKEN, GET_STATUS, VERIFY_SIGN},
    soon,
    users::may_be_others,
};
use tonic::Code;

const OTHER: u32 = 54321;

/// Whoever runs the tests, with this line more, and another user.
fn two_callers(more: &str) -> Setup {
    let callers = format!(
        "[[caller]]\nname = \"tests\"\nunix_user = \"{}\"\n\
         allow = [\"GetAccessToken\", \"WatchAccessToken\", \"VerifySign\", \"Health\"]\n{more}\n\
         [[caller]]\nname = \"other\"\nunix_user = \"{OTHER}\"\nallow = [\"GetAccessToken\", \"Admin:GetStatus\"]\n",
        nix::unistd::getuid()
    );
    Setup { callers: Some(callers), ..Setup::default() }
}

/// How many calls of a method ended well, and how many didn't.
fn counts(status: &GetStatusResponse, caller: &str, method: &str) -> (u64, u64) {
    let caller = status.callers.iter().find(|found| found.name == caller).unwrap();
    let counts = caller.calls.iter().find(|count| count.method == method);
    counts.map_or((0, 0), |count| (count.ok, count.failed))
}

#[tokio::test]
async fn a_caller_beyond_its_rate_is_told_when_to_come_back_and_others_are_served() {
    if !may_be_others() {
        return;
    }
    let world = World::with(generous(Api::V3), two_callers("rate = \"5/h\"")).await;
    let caller = world.caller();
    for _ in 0..5 {
        caller.token().await.unwrap();
    }
    for _ in 0..3 {
        let refused = caller.token().await.refused();
        assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "CALLER_RATE_LIMITED"));
        let retry = refused.retry_after.unwrap();
        assert!((Duration::from_secs(600)..=Duration::from_secs(720)).contains(&retry), "{retry:?}");
        assert!(refused.message.contains("5/h"), "{}", refused.message);
    }
    // The rate is the caller's, and not a connection's or a method's.
    assert_eq!(world.caller().watch().await.err().unwrap().reason, "CALLER_RATE_LIMITED");

    let other = Caller::to_as(&world.daemon.home.socket(), OTHER);
    for _ in 0..50 {
        other.token().await.unwrap();
    }
    let status = other.status().await.unwrap();
    assert_eq!(counts(&status, "tests", "GetAccessToken"), (5, 3));
    assert_eq!(counts(&status, "tests", "WatchAccessToken"), (0, 1));
    world.daemon.logged("CALLER_RATE_LIMITED").await;
}

#[tokio::test]
async fn a_caller_has_no_more_calls_open_than_it_may_whatever_its_connections() {
    if !may_be_others() {
        return;
    }
    let setup = two_callers("");
    let setup = Setup { rest: "[limits]\nmax_calls_per_caller = 3\n".into(), ..setup };
    let world = World::with(generous(Api::V3), setup).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        // A connection each; its stream is its only call.
        let caller = world.caller();
        let mut watch = caller.watch().await.unwrap();
        soon("a token", watch.message()).await.unwrap();
        open.push((caller, watch));
    }
    let refused = world.caller().token().await.refused();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::ResourceExhausted, "TOO_MANY_STREAMS"));
    assert!(refused.message.contains("max_calls_per_caller"), "{}", refused.message);
    let other = Caller::to_as(&world.daemon.home.socket(), OTHER);
    other.token().await.unwrap();

    // One ends its stream, one its connection.
    for _ in 0..2 {
        let (caller, watch) = open.pop().unwrap();
        drop(watch);
        drop(caller);
        let again = world.caller();
        soon("a place", async {
            while again.token().await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
    // Answered calls leave nothing behind.
    for _ in 0..100 {
        world.caller().token().await.unwrap();
    }
}

#[tokio::test]
async fn a_call_that_waits_is_open_and_one_that_is_given_up_is_not() {
    let setup = Setup { rest: "[limits]\nmax_calls_per_caller = 2\n".into(), ..Setup::default() };
    let world = World::with(generous(Api::V3), setup).await;
    let token = world.caller().token().await.unwrap();
    world.simulator.inject(Fault::new(FaultKind::LateAnswer { by: Duration::from_secs(3) }).times(10));
    let caller = world.caller();
    let waiting = || caller.token_for(Duration::ZERO, &token.token_id, None);
    let (mut one, mut two) = (Box::pin(waiting()), Box::pin(waiting()));
    let third = world.caller();
    // Which of them has no place is known only when the two have theirs: until then each asks again.
    let refused = soon("a refusal", async {
        let no_place = |answer: Result<_, Refused>| assert_eq!(answer.refused().reason, "TOO_MANY_STREAMS");
        loop {
            tokio::select! {
                biased;
                answer = &mut one => { no_place(answer); one = Box::pin(waiting()) }
                answer = &mut two => { no_place(answer); two = Box::pin(waiting()) }
                answer = third.token() => if let Err(refused) = answer { return refused },
            }
        }
    })
    .await;
    assert_eq!(refused.reason, "TOO_MANY_STREAMS");
    drop((one, two));
    soon("a place", async {
        while world.caller().token().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn every_call_is_counted_once_those_included_that_no_service_sees() {
    let world = World::with(generous(Api::V3), Setup::default()).await;
    let raw = world.daemon.raw_caller().await;
    for path in [GET_ACCESS_TOKEN, GET_STATUS, VERIFY_SIGN] {
        for _ in 0..3 {
            assert_eq!(raw.send(path, &[], &[0xff]).await.unwrap().refused().reason, "BAD_REQUEST");
        }
    }
    world.caller().token().await.unwrap();
    // Decoded, and refused by the service for want of a subject.
    assert_eq!(raw.send(VERIFY_SIGN, &[], b"").await.unwrap().refused().reason, "BAD_REQUEST");
    let status = world.caller().status().await.unwrap();
    assert_eq!(counts(&status, "tests", "GetAccessToken"), (1, 3));
    assert_eq!(counts(&status, "tests", "VerifySign"), (0, 4));
    assert_eq!(counts(&status, "tests", "Admin:GetStatus"), (0, 3));
}

#[tokio::test]
async fn an_operator_gets_in_and_locks_out_who_took_all_connections() {
    if !may_be_others() {
        return;
    }
    let setup = two_callers("");
    let callers = setup.callers.unwrap().replace("Admin:GetStatus", "Admin");
    let rest = "[limits]\nmax_connections = 2\nmax_connections_per_caller = 2\n".into();
    let world =
        World::with(generous(Api::V3), Setup { callers: Some(callers), rest, ..Setup::default() }).await;
    let greedy = [world.caller(), world.caller()];
    for caller in &greedy {
        caller.token().await.unwrap();
    }
    let operator = Caller::to_as(&world.daemon.home.socket(), OTHER);
    operator.lockdown(Some("tests"), "it takes all connections").await.unwrap();
    assert_eq!(operator.status().await.unwrap().locks[0].caller.as_deref(), Some("tests"));
}

#[tokio::test]
async fn a_caller_has_no_more_connections_than_it_may_and_leaves_the_rest_to_others() {
    if !may_be_others() {
        return;
    }
    let setup = two_callers("");
    let setup =
        Setup { rest: "[limits]\nmax_connections = 4\nmax_connections_per_caller = 2\n".into(), ..setup };
    let world = World::with(generous(Api::V3), setup).await;
    let callers = [world.caller(), world.caller()];
    for caller in &callers {
        caller.token().await.unwrap();
    }
    for _ in 0..20 {
        let mut third = world.daemon.peer().await;
        let _ = soon("its end", tokio::io::AsyncReadExt::read_to_end(&mut third, &mut Vec::new())).await;
    }
    world.daemon.logged("a caller has taken all connections that one caller gets").await;
    world.daemon.logged("TOO_MANY_CONNECTIONS").await;
    let other = Caller::to_as(&world.daemon.home.socket(), OTHER);
    other.token().await.unwrap();
    drop(callers);
    soon("a place", async {
        let again = world.caller();
        while !again.is_served().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
