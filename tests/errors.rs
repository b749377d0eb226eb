//! Every error that callers can be given, provoked: its code, its reason, when to try again, and words that help. And the
//! rules by which a call that the token in hand can't satisfy is kept waiting.
//!
//! `INTERNAL` is missing: it is for mistakes of the broker's, and none is known.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::time::Duration;

use b2binpay_broker::grpc::proto::{
    BrokerState, GetAccessTokenRequest, SignedMessage, TokenResponse, Verdict, VerifySignRequest,
    verify_sign_request::Subject,
};
use b2binpay_simulator::{Api, CallbackSpec, Fault, FaultKind, Settings, Simulator};
use nix::sys::signal::Signal;
use prost::Message;
use support::{
    Answered, Daemon, Refused, Setup, Stopwatch, World, generous,
    raw::{GET_ACCESS_TOKEN, GET_STATUS, HEALTH_CHECK, METHODS, VERIFY_SIGN},
    soon,
};
use tonic::Code;

const SECOND: Duration = Duration::from_secs(1);

#[track_caller]
fn assert_is(refused: &Refused, code: Code, reason: &str, says: &str) {
    assert_eq!((refused.code, refused.reason.as_str()), (code, reason), "{refused:?}");
    assert!(refused.message.contains(says), "{:?} should hold {says:?}", refused.message);
}

/// Without `RetryInfo`: the same call would be refused again.
#[track_caller]
fn assert_is_final(refused: &Refused, code: Code, reason: &str, says: &str) {
    assert_is(refused, code, reason, says);
    assert_eq!(refused.retry_after, None, "{refused:?}");
}

/// With `RetryInfo`.
#[track_caller]
fn assert_passes(refused: &Refused, reason: &str, says: &str) {
    assert_is(refused, Code::Unavailable, reason, says);
    assert!(refused.retry_after.is_some(), "{refused:?}");
}

// ---- who calls, and what

#[tokio::test]
async fn caller_unknown_is_all_that_a_stranger_hears() {
    let callers = "[[caller]]\nname = \"other\"\nunix_user = \"54321\"\nallow = [\"Admin\", \"Health\"]\n";
    let world =
        World::with(generous(Api::V3), Setup { callers: Some(callers.into()), ..Setup::default() }).await;
    let stranger = world.daemon.raw_caller().await;
    let unknown = ["/b2binpay.broker.v1.TokenBrokerService/Nothing", "/nothing.Service/Nothing", "/"];
    for method in METHODS.into_iter().chain(unknown) {
        let refused = stranger.send(method, &[], b"").await.unwrap().refused();
        assert_is_final(
            &refused,
            Code::Unauthenticated,
            "CALLER_UNKNOWN",
            "is no caller that the broker knows",
        );
        assert!(refused.message.contains(&format!("uid {}", nix::unistd::getuid())), "{method}: {refused:?}");
    }
}

#[tokio::test]
async fn method_not_allowed_is_answered_to_each_method_that_is_not_on_the_callers_list() {
    let allowing = |allow: &[&'static str]| Setup { allow: allow.to_vec(), ..Setup::default() };
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    let daemon = Daemon::start(&simulator, allowing(&["Health"])).await;
    let caller = daemon.raw_caller().await;
    for method in METHODS {
        if method.starts_with("/grpc.health") {
            continue;
        }
        let refused = caller.send(method, &[], b"").await.unwrap().refused();
        assert_is_final(&refused, Code::PermissionDenied, "METHOD_NOT_ALLOWED", "caller tests may not use");
    }
    let answer = caller.send(HEALTH_CHECK, &[], b"").await.unwrap();
    assert!(answer.error.is_none(), "{:?}", answer.error);

    let daemon = Daemon::start(&simulator, allowing(&["Admin:GetStatus"])).await;
    let caller = daemon.raw_caller().await;
    for method in METHODS.into_iter().filter(|method| *method != GET_STATUS) {
        let refused = caller.send(method, &[], b"").await.unwrap().refused();
        assert_is_final(
            &refused,
            Code::PermissionDenied,
            "METHOD_NOT_ALLOWED",
            "doesn't list that word under allow",
        );
    }
    let counts = daemon.caller().status().await.unwrap().callers.remove(0);
    let denied: u64 = counts.calls.iter().map(|count| count.failed).sum();
    assert_eq!(denied, METHODS.len() as u64 - 1, "{counts:?}");
}

#[tokio::test]
async fn who_may_verify_messages_may_verify_nothing_else_and_the_reverse() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    let message = || Subject::SignedMessage(SignedMessage { message: b"x".into(), sign: "00".repeat(32) });
    let answer = || Subject::TokenResponse(TokenResponse::default());
    let callback = || Subject::Callback(simulator.callback(&CallbackSpec::default()));

    let only_messages = Setup { allow: vec!["VerifySign:message"], ..Setup::default() };
    let daemon = Daemon::start(&simulator, only_messages).await;
    let caller = daemon.caller();
    assert_eq!(caller.verify(message(), None).await.unwrap().verdict(), Verdict::Invalid);
    for subject in [answer(), callback()] {
        let refused = caller.verify(subject, None).await.refused();
        assert_is_final(&refused, Code::PermissionDenied, "METHOD_NOT_ALLOWED", "may not use VerifySign:");
    }
    let refused = caller.token().await.refused();
    assert_is_final(&refused, Code::PermissionDenied, "METHOD_NOT_ALLOWED", "may not use GetAccessToken");

    let no_messages = Setup { allow: vec!["VerifySign"], ..Setup::default() };
    let daemon = Daemon::start(&simulator, no_messages).await;
    let caller = daemon.caller();
    assert_eq!(caller.verify(callback(), None).await.unwrap().verdict(), Verdict::Valid);
    let refused = caller.verify(message(), None).await.refused();
    assert_is_final(&refused, Code::PermissionDenied, "METHOD_NOT_ALLOWED", "may not use VerifySign:message");
}

#[tokio::test]
async fn method_unknown_is_answered_to_callers_that_the_policy_names() {
    let world = World::of(Api::V3).await;
    let caller = world.daemon.raw_caller().await;
    for path in [
        "/b2binpay.broker.v1.TokenBrokerService/Nothing",
        "/b2binpay.broker.v1.BrokerAdminService/Nothing",
        "/nothing.Service/Nothing",
        "/grpc.health.v1.Health/Nothing",
        "/",
    ] {
        let refused = caller.send(path, &[], b"").await.unwrap().refused();
        assert_is_final(&refused, Code::Unimplemented, "METHOD_UNKNOWN", "no such method");
    }
}

// ---- what makes no sense

#[tokio::test]
async fn bad_request_names_the_field() {
    let world = World::of(Api::V3).await;
    let caller = world.daemon.raw_caller().await;
    let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let token = |request: GetAccessTokenRequest| (GET_ACCESS_TOKEN, request.encode_to_vec());
    let verify = |request: VerifySignRequest| (VERIFY_SIGN, request.encode_to_vec());
    let rejected = |id: &str| GetAccessTokenRequest { rejected_token_id: id.into(), ..Default::default() };
    let callback = || Some(Subject::Callback(world.simulator.callback(&CallbackSpec::default())));
    for ((path, message), headers, field) in [
        (token(rejected("nonsense")), [].as_slice(), "rejected_token_id"),
        (token(rejected("BA7816BF8F01CFEA")), &[], "rejected_token_id"),
        (token(GetAccessTokenRequest { min_validity: negative, ..Default::default() }), &[], "min_validity"),
        (verify(VerifySignRequest::default()), &[], "subject"),
        (verify(VerifySignRequest { subject: callback(), max_age: negative }), &[], "max_age"),
        (token(GetAccessTokenRequest::default()), &[("grpc-timeout", "10x")], "grpc-timeout"),
        (token(GetAccessTokenRequest::default()), &[("grpc-timeout", "123456789S")], "grpc-timeout"),
        (token(GetAccessTokenRequest::default()), &[("grpc-timeout", "-1S")], "grpc-timeout"),
    ] {
        let refused = caller.send(path, headers, &message).await.unwrap().refused();
        assert_is_final(&refused, Code::InvalidArgument, "BAD_REQUEST", field);
        assert_eq!(refused.fields, [field]);
    }
}

#[tokio::test]
async fn bad_request_is_what_can_not_be_decoded() {
    let world = World::of(Api::V3).await;
    let caller = world.daemon.raw_caller().await;
    for path in [GET_ACCESS_TOKEN, VERIFY_SIGN, GET_STATUS, HEALTH_CHECK] {
        let refused = caller.send(path, &[], b"\xff\xff\xff").await.unwrap().refused();
        assert_eq!(refused.reason, "BAD_REQUEST", "{path}: {refused:?}");
        assert_eq!(refused.retry_after, None);
        assert!(refused.message.contains("can't be decoded"), "{path}: {refused:?}");
    }
    // A frame that says it is compressed, one that is cut short, and none at all.
    for body in [b"\x01\0\0\0\0".as_slice(), b"\0\0\0\0\x05ab", b""] {
        let refused =
            caller.send_body(GET_ACCESS_TOKEN, &[], bytes::Bytes::from_static(body)).await.unwrap().refused();
        assert_is_final(&refused, refused.code, "BAD_REQUEST", "");
    }
    let answer = caller.token_within("10S", &GetAccessTokenRequest::default()).await;
    assert!(answer.is_ok(), "the connection outlives it");
}

#[tokio::test]
async fn malformed_callback_names_the_fields() {
    let world = World::of(Api::V3).await;
    let genuine = String::from_utf8(world.simulator.callback(&CallbackSpec::default())).unwrap();
    let two_ids = genuine.replacen("\"attributes\"", "\"attributes\":{},\"attributes\"", 1);
    let too_long = format!("{genuine}{}", " ".repeat(256 * 1024));
    for body in ["", "{", "[]", "null", &"[".repeat(10_000), &two_ids, &too_long, "\u{feff}{}"] {
        let refused = world.caller().verify(Subject::Callback(body.into()), None).await.refused();
        let start = &body[..body.len().min(40)];
        assert_is_final(
            &refused,
            Code::InvalidArgument,
            "MALFORMED_CALLBACK",
            "the callback can't be read: ",
        );
        assert!(!refused.fields.is_empty(), "{start:?}: {refused:?}");
    }
}

#[tokio::test]
async fn validity_too_long_says_what_there_is() {
    let world = World::of(Api::V3).await;
    let caller = world.caller();
    caller.token_for(Duration::from_secs(800), "", None).await.unwrap();
    let refused = caller.token_for(Duration::from_secs(811), "", None).await.refused();
    assert_is_final(&refused, Code::InvalidArgument, "VALIDITY_TOO_LONG", "810s");
    assert_eq!(world.simulator.calls().len(), 1);
}

#[tokio::test]
async fn validity_too_long_is_also_found_once_the_lifetime_is_known() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    simulator.inject(Fault::new(FaultKind::LateAnswer { by: SECOND / 2 }));
    let daemon = Daemon::start(&simulator, Setup::default()).await;
    let refused = daemon.caller().token_for(Duration::from_secs(3600), "", None).await.refused();
    assert_is_final(&refused, Code::InvalidArgument, "VALIDITY_TOO_LONG", "810s");
}

#[tokio::test]
async fn message_too_large_is_answered_to_what_no_callback_can_be() {
    let world = World::of(Api::V3).await;
    let refused = world.caller().verify(Subject::Callback(vec![b' '; 330 * 1024]), None).await.refused();
    assert_is_final(&refused, Code::OutOfRange, "MESSAGE_TOO_LARGE", "too large");
    assert!(world.caller().token().await.is_ok());
}

#[tokio::test]
async fn no_callback_secret_says_where_it_belongs() {
    let world = World::with(generous(Api::V3), Setup { callback_secret: false, ..Setup::default() }).await;
    let body = world.simulator.callback(&CallbackSpec::default());
    let refused = world.caller().verify(Subject::Callback(body), None).await.refused();
    assert_is_final(&refused, Code::FailedPrecondition, "NO_CALLBACK_SECRET", "callback_secret_file");
}

// ---- what the upstream does (its failures one by one: faults.rs)

#[tokio::test]
async fn credentials_rejected_and_upstream_forbidden_need_a_person() {
    for api in [Api::V2, Api::V3] {
        let world = World::with(Settings { ..generous(api) }, Setup::default()).await;
        let home = {
            world.daemon.home.write_secret("api-secret", "not-the-secret-at-all");
            world.daemon.kill().await
        };
        let daemon = Daemon::start_in(home).await;
        let refused = daemon.caller().token().await.refused();
        let says = "an operator must put the right ones into the files that [credentials] names";
        assert_is_final(&refused, Code::FailedPrecondition, "CREDENTIALS_REJECTED", says);
        assert!(!refused.message.contains("not-the-secret"), "{refused:?}");

        let settings = Settings { allowed_addresses: Some(vec![]), ..generous(api) };
        let world = World::with(settings, Setup::default()).await;
        let refused = world.caller().token().await.refused();
        let says = "an operator must add it to the account's list of allowed addresses";
        assert_is_final(&refused, Code::FailedPrecondition, "UPSTREAM_FORBIDDEN", says);
        assert_eq!(world.caller().state().await, BrokerState::UpstreamForbidden);
    }
}

#[tokio::test]
async fn upstream_unavailable_and_throttled_say_when_to_try_again() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    simulator.inject(Fault::new(FaultKind::status(503, None, "Later.")).until_cleared());
    let daemon = Daemon::start(&simulator, Setup::default()).await;
    let refused = daemon.caller().token().await.refused();
    assert_passes(&refused, "UPSTREAM_UNAVAILABLE", "the upstream answered 503 (Later.); try again");
    simulator.clear_faults();
    let throttle = FaultKind::Status { status: 429, errors: vec![], retry_after: Some(30) };
    simulator.inject(Fault::new(throttle).until_cleared());
    let daemon = Daemon::start(&simulator, Setup::default()).await;
    let refused = daemon.caller().token().await.refused();
    assert_passes(
        &refused,
        "UPSTREAM_THROTTLED",
        "the upstream throttles this address, for 30s more; try again in",
    );
    assert!(
        refused.retry_after.is_some_and(|after| after > 25 * SECOND && after < 31 * SECOND),
        "{refused:?}"
    );
}

#[tokio::test]
async fn budget_exhausted_is_answered_at_once_when_no_call_is_left_before_the_deadline() {
    // Of three calls in a minute one is in reserve, and the other two are a minute apart.
    let setup = Setup { budget: "requests = 3\nwindow = \"60s\"".into(), ..Setup::default() };
    let world = World::with(generous(Api::V3), setup).await;
    let caller = world.caller();
    let token = caller.token().await.unwrap();
    let since = Stopwatch::start();
    let refused = caller.token_for(Duration::ZERO, &token.token_id, None).await.refused();
    assert_passes(&refused, "BUDGET_EXHAUSTED", "the upstream's call limit allows no request for another");
    assert!(
        // Callers leave a call for the schedule, and so wait longer than for the next one.
        refused.retry_after.is_some_and(|after| after > 30 * SECOND && after <= 120 * SECOND),
        "{refused:?}"
    );
    assert!(since.read() < 5 * SECOND, "{:?}", since.read());
    // Also for who finds no token at all.
    let daemon = Daemon::start_in(world.daemon.kill().await).await;
    let refused = daemon.caller().token().await.refused();
    assert_passes(&refused, "BUDGET_EXHAUSTED", "the upstream's call limit");
    assert_eq!(world.simulator.calls().len(), 1);
}

#[tokio::test]
async fn starting_is_answered_while_the_first_token_is_on_its_way() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    simulator.inject(Fault::new(FaultKind::Hang).until_cleared());
    let daemon = Daemon::start(&simulator, Setup::default()).await;
    soon("the first try", simulator.wait_for_calls(1)).await;
    let refused = daemon.raw_caller().await.token_for(Duration::ZERO, "", SECOND).await.refused();
    assert_passes(&refused, "STARTING", "the broker has just started and has no token yet");
}

#[tokio::test]
async fn shutting_down_is_answered_to_calls_and_streams_that_the_drain_cuts_short() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    simulator.inject(Fault::new(FaultKind::Hang).until_cleared());
    let rest = "[limits]\ndrain_deadline = \"1500ms\"\n".into();
    let mut daemon = Daemon::start(&simulator, Setup { rest, ..Setup::default() }).await;
    let caller = daemon.caller();
    let mut watch = caller.watch().await.unwrap();
    let mut waiting = std::pin::pin!(caller.token());
    // What is answered on the same connection came after it.
    tokio::select! {
        biased;
        _ = &mut waiting => panic!("the call does not wait"),
        _ = caller.status() => {}
    }
    daemon.signal(Signal::SIGTERM);
    let ended: Refused = soon("the end of the stream", watch.message()).await.err().unwrap().into();
    assert_is(&ended, Code::Unavailable, "SHUTTING_DOWN", "the broker is stopping; connect again");
    let refused = waiting.await.refused();
    assert_is(&refused, Code::Unavailable, "SHUTTING_DOWN", "the broker is stopping");
    assert_eq!(daemon.ended().await.code(), Some(0));
}

// ---- how long a call waits

#[tokio::test]
async fn deadline_exceeded_is_only_for_a_deadline_too_short_to_wait_at_all() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    simulator.inject(Fault::new(FaultKind::Hang).until_cleared());
    let daemon = Daemon::start(&simulator, Setup::default()).await;
    let caller = daemon.raw_caller().await;
    let nothing = GetAccessTokenRequest::default();
    for timeout in ["0S", "1n", "49m"] {
        let refused = caller.token_within(timeout, &nothing).await.refused();
        assert_is_final(&refused, Code::DeadlineExceeded, "DEADLINE_TOO_SHORT", "allow more than 50ms");
    }
    let refused = caller.token_within("200m", &nothing).await.refused();
    assert_eq!(refused.code, Code::Unavailable, "{refused:?}");
}

#[tokio::test]
async fn a_call_is_answered_shortly_before_its_deadline() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    simulator.inject(Fault::new(FaultKind::Hang).until_cleared());
    let daemon = Daemon::start(&simulator, Setup::default()).await;
    // Once the first try has failed, the next one lasts four seconds: longer than the call.
    soon("the second try", simulator.wait_for_calls(2)).await;
    let caller = daemon.raw_caller().await;
    let since = Stopwatch::start();
    let refused = caller.token_within("2S", &GetAccessTokenRequest::default()).await.refused();
    let took = since.read();
    assert_passes(&refused, "UPSTREAM_UNAVAILABLE", "no answer from the upstream: timed out after 4s");
    assert!(took >= Duration::from_millis(1945), "{took:?}");
    assert!(took < Duration::from_millis(2500), "{took:?}");
}

#[tokio::test]
async fn a_call_without_a_deadline_waits_ten_seconds_and_satisfied_ones_not_at_all() {
    let world = World::of(Api::V2).await;
    let caller = world.caller();
    let token = caller.token().await.unwrap();
    world.simulator.inject(Fault::new(FaultKind::Hang).until_cleared());
    let reporting = tokio::spawn({
        let (caller, id) = (caller.clone(), token.token_id.clone());
        async move { caller.token_for(Duration::ZERO, &id, None).await }
    });
    soon("the login", world.simulator.wait_for_calls(2)).await;

    // This one came after the login began, so that no try that began after it can fail in time.
    let since = Stopwatch::start();
    let waiting = tokio::spawn({
        let (caller, id) = (caller.clone(), token.token_id.clone());
        async move { caller.token_for(Duration::ZERO, &id, None).await }
    });
    let raw = world.daemon.raw_caller().await;
    let mut satisfied = 0;
    while !waiting.is_finished() {
        assert_eq!(raw.token_in_hand().await.unwrap().token_id, token.token_id);
        assert!(caller.token_for(Duration::from_secs(600), "", None).await.is_ok());
        satisfied += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let refused = waiting.await.unwrap().refused();
    let took = since.read();
    assert_passes(&refused, "UPSTREAM_UNAVAILABLE", "the upstream");
    assert!(took >= Duration::from_millis(9900) && took < Duration::from_secs(12), "{took:?}");
    assert!(satisfied > 10, "{satisfied}");
    assert_passes(&reporting.await.unwrap().refused(), "UPSTREAM_UNAVAILABLE", "");
    // The hanging login, and at most the try that follows its failure.
    assert!(world.simulator.calls().len() <= 3, "{:?}", world.simulator.calls());
}

#[tokio::test]
async fn a_call_is_answered_at_once_when_no_try_may_start_before_its_deadline() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    let throttle = FaultKind::Status { status: 429, errors: vec![], retry_after: Some(60) };
    simulator.inject(Fault::new(throttle).until_cleared());
    let daemon = Daemon::start(&simulator, Setup::default()).await;
    daemon.logged("no new access token").await;
    let caller = daemon.raw_caller().await;
    let since = Stopwatch::start();
    for timeout in ["5S", "30S"] {
        let refused = caller.token_within(timeout, &GetAccessTokenRequest::default()).await.refused();
        assert_passes(&refused, "UPSTREAM_THROTTLED", "try again in");
    }
    assert!(since.read() < 4 * SECOND, "{:?}", since.read());
    assert_eq!(simulator.calls().len(), 1);
}
