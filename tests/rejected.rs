//! Tokens that callers report as rejected by the upstream.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::time::Duration;

use b2binpay_broker::grpc::proto::{GetStatusResponse, TokenReason};
use b2binpay_simulator::{Api, Endpoint, Fault, FaultKind};
use support::{Answered, Caller, RawCaller, Setup, World, generous, soon, users};
use tonic::Code;

const NO_NEED: Duration = Duration::ZERO;

/// Two callers that are neither root nor whoever runs the tests.
const TWO_CALLERS: &str = "
[[caller]]
name = \"first\"
unix_user = \"54321\"
allow = [\"GetAccessToken\"]
[[caller]]
name = \"second\"
unix_user = \"54322\"
allow = [\"GetAccessToken\"]
[[caller]]
name = \"tests\"
unix_user = \"0\"
allow = [\"GetAccessToken\", \"WatchAccessToken\", \"Admin\"]
";

fn endpoints(world: &World) -> Vec<Endpoint> {
    world.simulator.calls().iter().map(|call| call.endpoint).collect()
}

#[tokio::test]
async fn a_token_that_is_not_the_current_one_costs_nothing() {
    let world = World::of(Api::V3).await;
    let caller = world.caller();
    let current = caller.token().await.unwrap();
    let answer = caller.token_for(NO_NEED, "0123456789abcdef", None).await.unwrap();
    assert_eq!(answer.token_id, current.token_id);
    assert_eq!(world.simulator.calls().len(), 1);
    assert_eq!(caller.status().await.unwrap().recent_security_events, []);
}

#[tokio::test]
async fn who_reports_the_current_token_gets_another_by_a_login() {
    for api in [Api::V2, Api::V3] {
        let world = World::of(api).await;
        let caller = world.caller();
        let mut watch = caller.watch().await.unwrap();
        let first = soon("the first", watch.message()).await.unwrap().unwrap().token.unwrap();
        assert_eq!(world.simulator.revoke_access_tokens(), 1);
        assert!(!world.simulator.is_live(&first.access_token));

        let second = caller.token_for(NO_NEED, &first.token_id, None).await.unwrap();
        assert_ne!(second.token_id, first.token_id);
        assert!(world.simulator.is_live(&second.access_token));
        // A refresh would have been the thief's, too.
        assert_eq!(endpoints(&world), [Endpoint::Login, Endpoint::Login]);

        let told = soon("the second", watch.message()).await.unwrap().unwrap();
        assert_eq!(told.reason(), TokenReason::ReplacedAfterRejection);
        assert_eq!(told.token.unwrap().token_id, second.token_id);
        // Reporting the first again is reporting what is gone.
        let again = caller.token_for(NO_NEED, &first.token_id, None).await.unwrap();
        assert_eq!(again.token_id, second.token_id);
        assert_eq!(world.simulator.calls().len(), 2);
        let events = caller.status().await.unwrap().recent_security_events;
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(events[0].event, "token_reported_rejected");
        assert!(events[0].detail.contains("caller tests"), "{events:?}");
    }
}

#[tokio::test]
async fn many_reports_of_one_token_cost_one_login() {
    let world = World::of(Api::V2).await;
    let caller = world.caller();
    let first = caller.token().await.unwrap();
    world.simulator.inject(Fault::new(FaultKind::LateAnswer { by: Duration::from_millis(500) }));
    let reports = (0..50).map(|_| caller.token_for(NO_NEED, &first.token_id, None));
    let answers = futures_util::future::join_all(reports).await;
    let mut ids: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().token_id).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_ne!(ids[0], first.token_id);
    assert_eq!(world.simulator.calls().len(), 2);
}

#[tokio::test]
async fn one_reporter_waits_and_the_others_have_the_token_in_hand() {
    let world = World::of(Api::V3).await;
    let caller = world.caller();
    let first = caller.token().await.unwrap();
    world.simulator.inject(Fault::new(FaultKind::LateAnswer { by: Duration::from_secs(2) }));
    let reporting = tokio::spawn({
        let (caller, id) = (caller.clone(), first.token_id.clone());
        async move { caller.token_for(NO_NEED, &id, None).await }
    });
    soon("the login", world.simulator.wait_for_calls(2)).await;
    assert_eq!(world.daemon.raw_caller().await.token_in_hand().await.unwrap().token_id, first.token_id);
    // The same caller's word counts once, however often it gives it.
    let raw = world.daemon.raw_caller().await;
    assert!(raw.token_for(NO_NEED, &first.token_id, Duration::from_millis(300)).await.is_err());
    assert_eq!(world.daemon.raw_caller().await.token_in_hand().await.unwrap().token_id, first.token_id);
    assert!(!reporting.is_finished());
    assert_ne!(reporting.await.unwrap().unwrap().token_id, first.token_id);
}

#[tokio::test]
async fn the_word_of_two_callers_makes_a_token_unfit_for_all() {
    if !users::may_be_others() {
        return;
    }
    let setup = Setup { callers: Some(TWO_CALLERS.into()), ..Setup::default() };
    let world = World::with(generous(Api::V2), setup).await;
    let socket = world.daemon.home.socket();
    let (one, two) = (Caller::to_as(&socket, 54321), Caller::to_as(&socket, 54322));
    let third = world.daemon.raw_caller().await;
    let first = one.token().await.unwrap();
    assert_eq!(two.token().await.unwrap().token_id, first.token_id);

    let late = FaultKind::LateAnswer { by: Duration::from_secs(2) };
    world.simulator.inject(Fault::new(late));
    let report = |caller: Caller| {
        let id = first.token_id.clone();
        tokio::spawn(async move { caller.token_for(NO_NEED, &id, None).await })
    };
    let reporting = report(one);
    soon("the login", world.simulator.wait_for_calls(2)).await;
    assert_eq!(third.token_in_hand().await.unwrap().token_id, first.token_id);
    let reporting_too = report(two);
    let withdrawn = |status: &GetStatusResponse| !status.ready && status.recent_security_events.len() == 3;
    let status = world.caller().status_where("the token is withdrawn", withdrawn).await;
    let events: Vec<_> = status.recent_security_events.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(events, ["token_withdrawn", "token_reported_rejected", "token_reported_rejected"]);
    assert_eq!(third.token_in_hand().await.refused().code, Code::DeadlineExceeded);

    let second = reporting.await.unwrap().unwrap().token_id;
    assert_eq!(reporting_too.await.unwrap().unwrap().token_id, second);
    assert_eq!(world.caller().token().await.unwrap().token_id, second);
    assert_ne!(second, first.token_id);
    assert_eq!(endpoints(&world), [Endpoint::Login, Endpoint::Login]);
}

#[tokio::test]
async fn strangers_may_not_report() {
    if !users::may_be_others() {
        return;
    }
    let world = World::of(Api::V3).await;
    let token = world.caller().token().await.unwrap();
    let peer = users::connect_as(&world.daemon.home.socket(), 54321).await.unwrap();
    let stranger = RawCaller::over(peer).await;
    let refused = stranger.token_in_hand().await.refused();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unauthenticated, "CALLER_UNKNOWN"));
    assert!(refused.message.contains("uid 54321"), "{refused:?}");
    let stranger = Caller::to_as(&world.daemon.home.socket(), 54321);
    let refused = stranger.token_for(NO_NEED, &token.token_id, None).await.refused();
    assert_eq!(refused.code, Code::Unauthenticated);
    assert_eq!(world.simulator.calls().len(), 1);
}

#[tokio::test]
async fn a_second_report_within_twenty_seconds_finds_the_lane_closed() {
    let world = World::of(Api::V3).await;
    let caller = world.caller();
    let first = caller.token().await.unwrap();
    let second = caller.token_for(NO_NEED, &first.token_id, None).await.unwrap();
    // Without a deadline it waits for ten seconds at most, in which nothing may be tried.
    let refused = caller.token_for(NO_NEED, &second.token_id, None).await.refused();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "BUDGET_EXHAUSTED"));
    let after = refused.retry_after.unwrap();
    assert!(after > Duration::from_secs(10) && after <= Duration::from_secs(20), "{after:?}");
    // Who didn't report it has it.
    assert_eq!(caller.token().await.unwrap().token_id, second.token_id);
    assert_eq!(world.simulator.calls().len(), 2);
}
