//! Everything that the simulator can make go wrong, and what callers see of it.
//!
//! A table of faults, each under both APIs where it applies, in both situations that matter: when the broker has no token
//! yet, and while a good one is in hand. Below it stand the faults that need a story of their own.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::{collections::HashSet, time::Duration};

use b2binpay_broker::grpc::proto::{BrokerState, GetStatusResponse, TokenReason, WatchAccessTokenResponse};
use b2binpay_simulator::{
    Api, Call, Calls, Endpoint, Fault, FaultKind, Outcome, Settings, Simulator, Target,
    fault::{BadCharacters, BadLifetime, ErrorItem},
    settings::{Forms, Limit, RetryAfter},
};
use jiff::SignedDuration;
use support::{Answered, Caller, Daemon, RawCaller, Refused, Setup, generous, soon, table::all_pass, told};
use tokio::{net::TcpStream, task::JoinHandle};
use tonic::{Code, Streaming};

const BOTH: &[Api] = &[Api::V2, Api::V3];

/// One kind of failure, as callers are told it.
#[derive(Clone)]
struct Failure {
    name: &'static str,
    kind: FaultKind,
    apis: &'static [Api],
    reason: &'static str,
    /// What the message holds.
    says: &'static str,
    /// The state while a token is in hand.
    state: BrokerState,
    /// Whether trying again can help without a person's doing.
    passes: bool,
    /// It means this in the answer to a login alone: under v2 a thief has to make the broker log in.
    only_logins: bool,
    /// Whether a renewal is struck by it.
    renewals: bool,
}

/// A failure of the upstream that trying again may mend.
fn unavailable(name: &'static str, kind: FaultKind, says: &'static str) -> Failure {
    Failure {
        name,
        kind,
        apis: BOTH,
        reason: "UPSTREAM_UNAVAILABLE",
        says,
        state: BrokerState::Degraded,
        passes: true,
        only_logins: false,
        renewals: true,
    }
}

fn throttled(name: &'static str, kind: FaultKind, says: &'static str) -> Failure {
    Failure { reason: "UPSTREAM_THROTTLED", ..unavailable(name, kind, says) }
}

fn rejected(name: &'static str, kind: FaultKind, says: &'static str) -> Failure {
    let state = BrokerState::CredentialsRejected;
    Failure { reason: "CREDENTIALS_REJECTED", state, passes: false, ..unavailable(name, kind, says) }
}

fn forbidden(name: &'static str, kind: FaultKind, says: &'static str) -> Failure {
    let state = BrokerState::UpstreamForbidden;
    Failure { reason: "UPSTREAM_FORBIDDEN", state, passes: false, ..unavailable(name, kind, says) }
}

impl Failure {
    fn only(self, apis: &'static [Api]) -> Self {
        Self { apis, ..self }
    }

    const fn code(&self) -> Code {
        if self.passes { Code::Unavailable } else { Code::FailedPrecondition }
    }

    /// How long a caller waits. Where a try is a long way off, less than that: one more failure would make it minutes.
    const fn patience(&self) -> Option<Duration> {
        if self.passes { None } else { Some(Duration::from_secs(2)) }
    }

    fn check(&self, refused: &Refused) {
        let Refused { code, reason, message, retry_after, fields } = refused;
        assert_eq!((*code, reason.as_str()), (self.code(), self.reason), "{refused:?}");
        assert!(message.contains(self.says), "{message:?} should hold {:?}", self.says);
        assert_eq!(retry_after.is_some(), self.passes, "{refused:?}");
        assert!(retry_after.is_none_or(|after| after <= Duration::from_secs(130)), "{refused:?}");
        assert!(fields.is_empty(), "{refused:?}");
        assert!((20..400).contains(&message.len()) && !message.contains('\n'), "{message:?}");
        for secret in ["demo-api-key", "demo-api-secret", "eyJ", "X-Smuggled"] {
            assert!(!message.contains(secret), "{message:?}");
        }
    }
}

#[rustfmt::skip]
fn failures(elsewhere: &str) -> Vec<Failure> {
    use FaultKind as F;
    let status = FaultKind::status;
    let two_errors = F::Status {
        status: 500,
        errors: vec![
            ErrorItem { code: Some("1001".into()), detail: "First.".into() },
            ErrorItem { code: None, detail: "Second.".into() },
        ],
        retry_after: None,
    };
    let retry_after = |seconds| F::Status { status: 429, errors: vec![], retry_after: Some(seconds) };
    let lifetime = |lifetime| F::ImpossibleLifetime { lifetime };
    let characters = |characters| F::BadTokenChars { characters };
    let ages = Duration::from_secs(3600);
    vec![
        // Those that a person has to mend come first: the broker asks about them in people's time.
        Failure { only_logins: true, ..rejected("400 with code 2006", status(400, Some("2006"), "No active account found"), "400, code 2006: No active account found") },
        Failure { only_logins: true, ..rejected("400 with the words of 2006 and no code", status(400, None, "No active account found with the given credentials"), "No active account found") },
        rejected("any 400 of v3", status(400, Some("invalid"), "Invalid."), "400, code invalid").only(&[Api::V3]),
        rejected("401", status(401, Some("2007"), "Denied."), "401, code 2007"),
        forbidden("403 with code 2016", status(403, Some("2016"), "Not from here."), "403, code 2016: Not from here."),
        forbidden("403 without a code", status(403, None, "Not from here."), "forbids this host's address"),
        unavailable("400 with another code", status(400, Some("parse_error"), "JSON parse error"), "answered 400 (code parse_error: JSON parse error)").only(&[Api::V2]),
        unavailable("403 with another code", status(403, Some("1234"), "No."), "answered 403 (code 1234: No.)"),
        unavailable("404", status(404, None, "Not found."), "check upstream.base_url"),
        throttled("429 with Retry-After", retry_after(1), "throttles this address, for 1s more"),
        unavailable("500", status(500, Some("1000"), "Oops."), "answered 500 (code 1000: Oops.)"),
        unavailable("503", status(503, None, "Later."), "answered 503 (Later.)"),
        unavailable("two errors in one body", two_errors, "answered 500 (code 1001: First.; Second.)"),
        unavailable("an error list without errors", F::Status { status: 500, errors: vec![], retry_after: None }, "answered 500"),
        unavailable("an error that repeats what it was sent", status(500, Some("demo-api-secret"), "demo-api-key is not demo-api-secret"), "answered 500"),
        unavailable("a proxy's 502", F::Html { status: 502 }, "answered 502 (with HTML"),
        unavailable("a proxy's 400", F::Html { status: 400 }, "answered 400 (with HTML"),
        unavailable("a proxy's 401", F::Html { status: 401 }, "answered 401 (with HTML"),
        unavailable("HTML with 200", F::Html { status: 200 }, "can't be used"),
        unavailable("an empty 200", F::Empty, "can't be used: it is empty"),
        unavailable("a hang", F::Hang, "timed out"),
        unavailable("a reset before", F::ResetBefore, "no answer from the upstream: connection"),
        unavailable("a reset after", F::ResetAfter, "no answer from the upstream: connection"),
        unavailable("a redirect with 307", F::Redirect { location: elsewhere.into(), status: 307 }, "redirects (to http://127.0.0.1"),
        unavailable("a redirect with 302", F::Redirect { location: elsewhere.into(), status: 302 }, "are not followed"),
        unavailable("a huge body", F::HugeBody { mebibytes: 64 }, "longer than 65536 bytes"),
        unavailable("a body that is too slow", F::SlowBody { pause: Duration::from_millis(200) }, "broke off: timed out"),
        unavailable("a truncated body", F::TruncatedBody, "broke off"),
        unavailable("JSON that breaks off", F::BadJson, "can't be used"),
        unavailable("an answer that comes too late", F::LateAnswer { by: ages }, "timed out"),
        unavailable("no token", F::MissingToken, "there is no access token in it"),
        unavailable("a token with a line break", characters(BadCharacters::Newline), "characters that don't belong in an HTTP header"),
        unavailable("a token outside ASCII", characters(BadCharacters::NonAscii), "characters that don't belong in an HTTP header"),
        unavailable("a lifetime in the past", lifetime(BadLifetime::Past), "can't be used"),
        unavailable("no lifetime", lifetime(BadLifetime::Zero), "to live"),
        unavailable("a negative lifetime", lifetime(BadLifetime::Negative), "can't be used"),
        unavailable("a lifetime of ten years under v3", lifetime(BadLifetime::TenYears), "to live").only(&[Api::V3]),
        // The token of a refresh tells its real lifetime, and is believed as far as that.
        Failure { renewals: false, ..unavailable("a lifetime of ten years under v2", lifetime(BadLifetime::TenYears), "to live").only(&[Api::V2]) },
        Failure { only_logins: true, ..unavailable("a wrong sign", F::WrongSign, "wrong sign").only(&[Api::V2]) },
    ]
}

/// Renewals come soon after a token, and long before its end.
fn renewing_early() -> Setup {
    Setup {
        upstream: "request_timeout = \"1500ms\"".into(),
        rest: "[token]\nrefresh_at = 0.11\n".into(),
        ..Setup::default()
    }
}

/// Tokens that live long enough for a failure of this kind.
fn settings(api: Api, failure: &Failure) -> Settings {
    // A refusal is asked about again after ten to thirty seconds.
    let lifetime = if failure.passes { 30 } else { 60 };
    Settings { access_lifetime: Some(Duration::from_secs(lifetime)), ..generous(api) }
}

/// No refresh token was presented again once the upstream may have spent it.
fn assert_no_refresh_token_was_risked(calls: &Calls) {
    let mut risked = HashSet::new();
    for call in calls.iter().filter(|call| call.endpoint == Endpoint::Refresh) {
        let token = call.presented.clone().expect("a refresh presents a token");
        assert!(!risked.contains(&token), "presented again: {call:?}");
        // A 429 says that nothing was looked at.
        if call.status != Some(429) {
            risked.insert(token);
        }
    }
}

/// Nothing that came with a spoiled answer was handed to a caller or presented to the upstream.
fn assert_nothing_spoiled_was_used(calls: &Calls, given: &HashSet<String>) {
    for spoiled in calls.iter().filter(|call| call.fault.is_some()) {
        let access = spoiled.issued_access.as_ref().map(ToString::to_string);
        assert!(access.is_none_or(|token| !given.contains(&token)), "handed out: {spoiled:?}");
        let presented =
            |call: &Call| spoiled.issued_refresh.is_some() && call.presented == spoiled.issued_refresh;
        assert!(!calls.iter().any(presented), "presented: {spoiled:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_start_tells_callers_what_is_wrong_until_it_ends() {
    let other_host = Simulator::start(generous(Api::Both)).await.unwrap();
    let elsewhere = format!("{}/token/", other_host.base_url());
    let cases = failures(&elsewhere).into_iter().flat_map(|failure| {
        failure
            .apis
            .iter()
            .map(move |&api| (format!("{} under {api:?}", failure.name), cold_start(failure.clone(), api)))
            .collect::<Vec<_>>()
    });
    all_pass(cases).await;
    assert_eq!(other_host.calls().len(), 0, "another host was called");
}

async fn cold_start(failure: Failure, api: Api) {
    let simulator = Simulator::start(settings(api, &failure)).await.unwrap();
    simulator.inject(Fault::new(failure.kind.clone()).until_cleared());
    let daemon = Daemon::start(&simulator, renewing_early()).await;
    let caller = daemon.caller();
    let mut watch = caller.watch().await.unwrap();

    failure.check(&caller.token_for(Duration::ZERO, "", failure.patience()).await.refused());
    let state = if failure.passes { BrokerState::Starting } else { failure.state };
    let as_told =
        |status: &GetStatusResponse| status.state() == state && status.reason.contains(failure.says);
    let status = caller.status_where(failure.says, as_told).await;
    assert!(!status.ready && status.token.is_none(), "{status:?}");

    simulator.clear_faults();
    let (reason, token) = told(&mut watch).await;
    assert_eq!(reason, TokenReason::Current);
    assert_eq!(caller.in_state(BrokerState::Fresh).await.reason, "");
    let calls = simulator.calls();
    assert_no_refresh_token_was_risked(&calls);
    assert_nothing_spoiled_was_used(&calls, &[token].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_upstream_leaves_the_token_in_hand_served_and_the_next_comes_by_itself() {
    let other_host = Simulator::start(generous(Api::Both)).await.unwrap();
    let elsewhere = format!("{}/token/", other_host.base_url());
    let cases = failures(&elsewhere).into_iter().filter(|failure| failure.renewals).flat_map(|failure| {
        failure
            .apis
            .iter()
            .map(move |&api| (format!("{} under {api:?}", failure.name), in_hand(failure.clone(), api)))
            .collect::<Vec<_>>()
    });
    all_pass(cases).await;
    assert_eq!(other_host.calls().len(), 0, "another host was called");
}

async fn in_hand(failure: Failure, api: Api) {
    let simulator = Simulator::start(settings(api, &failure)).await.unwrap();
    let daemon = Daemon::start(&simulator, renewing_early()).await;
    let caller = daemon.caller();
    let mut watch = caller.watch().await.unwrap();
    let (_, first) = told(&mut watch).await;
    let fault = Fault::new(failure.kind.clone()).until_cleared();
    if failure.only_logins {
        simulator.spend_refresh_tokens();
        simulator.inject(fault.on(Target::Login));
    } else {
        simulator.inject(fault);
    }
    let steady = Steady::begin(&daemon).await;

    // On a busy machine the first try may end otherwise than the fault has it.
    let as_told =
        |status: &GetStatusResponse| status.state() == failure.state && status.reason.contains(failure.says);
    let status = caller.status_where(failure.says, as_told).await;
    assert!(status.ready, "{status:?}");
    assert_eq!(status.token.unwrap().token_id, first);
    // A caller that needs more than the token in hand has is told why it can't have it.
    let lifetime = simulator.settings().access_lifetime.unwrap();
    let more = lifetime.mul_f64(0.899);
    failure.check(&caller.token_for(more, "", failure.patience()).await.refused());

    simulator.clear_faults();
    let (reason, second) = told(&mut watch).await;
    assert_eq!(reason, TokenReason::Rotated);
    assert_eq!(caller.in_state(BrokerState::Fresh).await.reason, "");
    let given = steady.end().await;
    assert!(given.is_subset(&[first.clone(), second.clone()].into()), "{given:?}");
    let calls = simulator.calls();
    assert_no_refresh_token_was_risked(&calls);
    assert_nothing_spoiled_was_used(&calls, &[first, second].into());
}

/// A caller that wants the token in hand every so often, and waits for nothing.
struct Steady {
    task: JoinHandle<HashSet<String>>,
    stop: tokio::sync::oneshot::Sender<()>,
}

impl Steady {
    async fn begin(daemon: &Daemon) -> Self {
        let caller = daemon.raw_caller().await;
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let mut given = HashSet::new();
            while stopped.try_recv().is_err() {
                given.insert(caller.token_in_hand().await.expect("the token in hand").token_id);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            given
        });
        Self { task, stop }
    }

    /// The tokens it was given, without ever waiting for one.
    async fn end(self) -> HashSet<String> {
        let _ = self.stop.send(());
        self.task.await.expect("it was always given one")
    }
}

// ---- stories

/// A daemon that renews early, with a stream that has told the first token.
struct Scene {
    simulator: Simulator,
    daemon: Daemon,
    caller: Caller,
    watch: Streaming<WatchAccessTokenResponse>,
    first: String,
}

impl Scene {
    async fn with(settings: Settings) -> Self {
        let lifetime = Some(Duration::from_secs(30));
        let simulator = Simulator::start(Settings { access_lifetime: lifetime, ..settings }).await.unwrap();
        let daemon = Daemon::start(&simulator, renewing_early()).await;
        let caller = daemon.caller();
        let mut watch = caller.watch().await.unwrap();
        let (_, first) = told(&mut watch).await;
        Self { simulator, daemon, caller, watch, first }
    }

    async fn next_token(&mut self) -> String {
        let (reason, token) = told(&mut self.watch).await;
        assert_eq!(reason, TokenReason::Rotated);
        token
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_spends_no_refresh_token() {
    all_pass([Api::V2, Api::V3].map(|api| (format!("{api:?}"), outage_in_hand(api)))).await;
}

async fn outage_in_hand(api: Api) {
    let mut scene = Scene::with(generous(api)).await;
    let steady = Steady::begin(&scene.daemon).await;
    scene.simulator.pause_listening().await;
    let status = scene.caller.in_state(BrokerState::Degraded).await;
    assert_eq!(status.reason, "the upstream can't be reached: connection refused");
    let refused = scene.caller.token_for(Duration::from_secs(27), "", None).await.refused();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "UPSTREAM_UNAVAILABLE"));
    assert!(refused.retry_after.is_some());

    scene.simulator.resume_listening().await.unwrap();
    scene.next_token().await;
    scene.caller.in_state(BrokerState::Fresh).await;
    steady.end().await;
    // What was surely not sent is presented again: no login was needed.
    let calls = scene.simulator.calls();
    let logins = if api == Api::V2 { 1 } else { 2 };
    assert_eq!((calls.len(), calls.count(Endpoint::Login)), (2, logins));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_at_a_cold_start_ends_by_itself() {
    all_pass([Api::V2, Api::V3].map(|api| (format!("{api:?}"), outage_at_the_start(api)))).await;
}

async fn outage_at_the_start(api: Api) {
    let simulator = Simulator::start(generous(api)).await.unwrap();
    simulator.pause_listening().await;
    let daemon = Daemon::start(&simulator, Setup::default()).await;
    let caller = daemon.caller();
    let mut watch = caller.watch().await.unwrap();
    let refused = caller.token().await.refused();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "UPSTREAM_UNAVAILABLE"));
    assert!(refused.message.contains("can't be reached: connection refused"), "{}", refused.message);
    simulator.resume_listening().await.unwrap();
    assert_eq!(told(&mut watch).await.0, TokenReason::Current);
    caller.in_state(BrokerState::Fresh).await;
}

#[tokio::test]
async fn an_address_that_is_not_on_the_list_is_told_and_its_token_served() {
    let settings = Settings { allowed_addresses: Some(vec![]), ..generous(Api::V3) };
    let simulator = Simulator::start(settings).await.unwrap();
    let daemon = Daemon::start(&simulator, Setup::default()).await;
    let refused = daemon.caller().token().await.refused();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::FailedPrecondition, "UPSTREAM_FORBIDDEN"));
    assert!(refused.message.contains("an operator must add it to the account's list"), "{}", refused.message);
    assert_eq!(refused.retry_after, None);

    let scene = Scene::with(generous(Api::V2)).await;
    scene.simulator.set(|settings| settings.allowed_addresses = Some(vec![]));
    assert!(scene.caller.in_state(BrokerState::UpstreamForbidden).await.ready);
    assert_eq!(scene.caller.token().await.unwrap().token_id, scene.first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_who_spends_the_limit_is_noticed_and_waited_out() {
    all_pass(
        [RetryAfter::Seconds, RetryAfter::HttpDate, RetryAfter::Absent]
            .map(|form| (format!("{form:?}"), Box::pin(a_stranger_spends_the_limit(form)))),
    )
    .await;
}

async fn a_stranger_spends_the_limit(form: RetryAfter) {
    let limit = Limit { calls: 3, window: Duration::from_secs(4) };
    let mut scene = Scene::with(Settings { limit, retry_after: form, ..generous(Api::V2) }).await;
    let steady = Steady::begin(&scene.daemon).await;
    let stranger = tokio::spawn({
        let address = scene.simulator.addr();
        async move {
            loop {
                call_as_a_stranger(address).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    });
    scene.caller.in_state(BrokerState::Degraded).await;
    let raw = scene.daemon.raw_caller().await;
    let refused = raw.token_for(Duration::from_secs(27), "", Duration::from_millis(600)).await;
    let refused = refused.refused();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "UPSTREAM_THROTTLED"));
    assert!(refused.retry_after.is_some(), "{refused:?}");
    stranger.abort();
    let _ = stranger.await;

    scene.next_token().await;
    let status = scene.caller.in_state(BrokerState::Fresh).await;
    assert_eq!(status.recent_security_events[0].event, "foreign_traffic");
    steady.end().await;
    // A throttled refresh spent nothing: the token was presented again, and no login was needed.
    let calls = scene.simulator.calls();
    let ours = calls.iter().filter(|call| call.credential.is_some() && call.outcome == Outcome::Accepted);
    assert_eq!(ours.count(), 1);
    assert!(
        calls.iter().any(|call| call.endpoint == Endpoint::Refresh && call.outcome == Outcome::Throttled)
    );
}

/// A call of somebody else on this host, who knows no credentials.
async fn call_as_a_stranger(address: std::net::SocketAddr) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = TcpStream::connect(address).await.expect("the simulator listens");
    let request = "POST /token/refresh/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/vnd.api+json\r\n\
                   Content-Length: 2\r\nConnection: close\r\n\r\n{}";
    stream.write_all(request.as_bytes()).await.expect("it takes the request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("it answers");
}

#[tokio::test]
async fn a_spent_refresh_token_means_a_login_and_an_alarm() {
    let mut scene = Scene::with(generous(Api::V2)).await;
    let steady = Steady::begin(&scene.daemon).await;
    assert_eq!(scene.simulator.spend_refresh_tokens(), 1);
    scene.next_token().await;
    let status = scene.caller.status().await.unwrap();
    assert_eq!((status.state(), status.reason.as_str()), (BrokerState::Fresh, ""));
    assert_eq!(status.recent_security_events[0].event, "refresh_token_suspicious");
    steady.end().await;
    let endpoints: Vec<_> = scene.simulator.calls().iter().map(|call| call.endpoint).collect();
    assert_eq!(endpoints, [Endpoint::Login, Endpoint::Refresh, Endpoint::Login]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_means_a_login_and_no_alarm() {
    all_pass(
        [FaultKind::ResetAfter, FaultKind::TruncatedBody, FaultKind::Hang]
            .map(|kind| (kind.name().to_owned(), an_answer_is_lost(kind))),
    )
    .await;
}

async fn an_answer_is_lost(kind: FaultKind) {
    let mut scene = Scene::with(generous(Api::V2)).await;
    scene.simulator.inject(Fault::new(kind).on(Target::Refresh).processed());
    scene.next_token().await;
    let status = scene.caller.status().await.unwrap();
    assert_eq!(status.recent_security_events, []);
    let endpoints: Vec<_> = scene.simulator.calls().iter().map(|call| call.endpoint).collect();
    assert_eq!(endpoints, [Endpoint::Login, Endpoint::Refresh, Endpoint::Login]);
}

#[tokio::test]
async fn a_wrong_sign_is_an_alarm() {
    let simulator = Simulator::start(generous(Api::V2)).await.unwrap();
    simulator.inject(Fault::new(FaultKind::WrongSign));
    let daemon = Daemon::start(&simulator, Setup::default()).await;
    let token = daemon.caller().token().await.unwrap();
    let calls = simulator.calls();
    assert_eq!((calls.len(), calls[0].fault), (2, Some("wrong_sign")));
    assert_eq!(calls[1].issued_access.as_ref().unwrap().as_str(), token.token_id);
    let status = daemon.caller().status().await.unwrap();
    assert_eq!(status.recent_security_events[0].event, "upstream_sign_wrong");
}

#[tokio::test]
async fn an_answer_that_is_only_slow_is_used() {
    for (api, kind) in [
        (Api::V2, FaultKind::SlowBody { pause: Duration::from_millis(1) }),
        (Api::V3, FaultKind::SlowBody { pause: Duration::from_millis(1) }),
        (Api::V2, FaultKind::LateAnswer { by: Duration::from_millis(300) }),
        (Api::V3, FaultKind::LateAnswer { by: Duration::from_millis(300) }),
    ] {
        let simulator = Simulator::start(generous(api)).await.unwrap();
        simulator.inject(Fault::new(kind));
        let daemon = Daemon::start(&simulator, Setup::default()).await;
        let token = daemon.caller().token().await.unwrap();
        let calls = simulator.calls();
        assert_eq!(calls.len(), 1);
        assert_eq!(calls[0].issued_access.as_ref().unwrap().as_str(), token.token_id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_arrives_long_after_it_was_given_up_does_no_harm() {
    all_pass([Api::V2, Api::V3].map(|api| (format!("{api:?}"), a_call_arrives_late(api)))).await;
}

async fn a_call_arrives_late(api: Api) {
    let mut scene = Scene::with(generous(api)).await;
    let steady = Steady::begin(&scene.daemon).await;
    // Given up after 1.5 s; the login that follows is answered before it arrives.
    scene.simulator.inject(Fault::new(FaultKind::Pass).delayed(Duration::from_secs(3)));
    let second = scene.next_token().await;
    let calls = soon("the late arrival", scene.simulator.wait_for_calls(3)).await;
    assert_no_refresh_token_was_risked(&calls);
    assert_eq!(calls[2].fault, Some("pass"));
    assert_eq!(calls[1].issued_access.as_ref().unwrap().as_str(), second);
    // Only the renewal after that shows whether the chain holds.
    let third = scene.next_token().await;
    let given = steady.end().await;
    assert!(given.is_subset(&[scene.first.clone(), second, third].into()));
    assert_no_refresh_token_was_risked(&scene.simulator.calls());
    assert_eq!(scene.caller.status().await.unwrap().recent_security_events, []);
}

#[tokio::test]
async fn ten_years_for_a_refreshed_token_are_not_believed() {
    let mut scene = Scene::with(generous(Api::V2)).await;
    let kind = FaultKind::ImpossibleLifetime { lifetime: BadLifetime::TenYears };
    scene.simulator.inject(Fault::new(kind).on(Target::Refresh));
    scene.next_token().await;
    let token = scene.caller.token().await.unwrap();
    assert!(token.valid_for.unwrap().seconds <= 30, "{:?}", token.valid_for);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flaky_upstream_leaves_nobody_without_a_token() {
    all_pass([Api::V2, Api::V3].map(|api| (format!("{api:?}"), flaky(api)))).await;
}

async fn flaky(api: Api) {
    let mut scene = Scene::with(generous(api)).await;
    let steady = Steady::begin(&scene.daemon).await;
    let kinds = vec![
        FaultKind::ResetBefore,
        FaultKind::ResetAfter,
        FaultKind::Html { status: 502 },
        FaultKind::Empty,
        FaultKind::MissingToken,
        FaultKind::TruncatedBody,
    ];
    let flaky = FaultKind::Flaky { probability: 0.7, seed: 7, kinds };
    scene.simulator.inject(Fault::new(flaky).until_cleared());
    let mut tokens = HashSet::from([scene.first.clone()]);
    for _ in 0..3 {
        tokens.insert(scene.next_token().await);
    }
    let given = steady.end().await;
    let calls = scene.simulator.calls();
    assert!(calls.iter().any(|call| call.fault.is_some()), "nothing was flaky");
    assert_no_refresh_token_was_risked(&calls);
    assert_nothing_spoiled_was_used(&calls, &tokens);
    assert_nothing_spoiled_was_used(&calls, &given);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_published_form_and_any_clock_give_tokens_that_work_and_rotate() {
    let plain = Forms::default();
    let forms = [
        ("plain", plain),
        ("an offset of +03:00", Forms { expiry_offset: "+03:00".parse().unwrap(), ..plain }),
        ("an offset of -09:30", Forms { expiry_offset: "-09:30".parse().unwrap(), ..plain }),
        ("id null", Forms { null_id: true, ..plain }),
        ("a refresh at the top level", Forms { refresh_at_top_level: true, ..plain }),
        ("no fractions", Forms { fraction: false, ..plain }),
        (
            "all at once",
            Forms {
                expiry_offset: "+03:00".parse().unwrap(),
                null_id: true,
                refresh_at_top_level: true,
                fraction: false,
            },
        ),
    ];
    let hours = SignedDuration::from_hours;
    let forms = forms.map(|(name, forms)| (name, forms, hours(0)));
    let clocks = [("5 h ahead", hours(5)), ("5 h behind", hours(-5)), ("a month ahead", hours(720))]
        .map(|(name, offset)| (name, plain, offset));
    let cases = forms.into_iter().chain(clocks).flat_map(|(name, forms, clock_offset)| {
        [Api::V2, Api::V3].map(|api| {
            let settings = Settings { forms, clock_offset, ..generous(api) };
            (format!("{name} under {api:?}"), rotates(settings))
        })
    });
    Box::pin(all_pass(cases)).await;
}

async fn rotates(settings: Settings) {
    let mut scene = Scene::with(settings).await;
    let raw: RawCaller = scene.daemon.raw_caller().await;
    let mut ids = HashSet::from([scene.first.clone()]);
    for _ in 0..2 {
        let token = raw.token_in_hand().await.unwrap();
        assert!(scene.simulator.is_live(&token.access_token));
        let valid_for = token.valid_for.unwrap().seconds;
        assert!((20..=30).contains(&valid_for), "{valid_for}");
        ids.insert(scene.next_token().await);
    }
    assert_eq!(ids.len(), 3);
    let calls = scene.simulator.calls();
    let refreshes = if scene.simulator.settings().api == Api::V2 { 2 } else { 0 };
    assert_eq!((calls.len(), calls.count(Endpoint::Refresh)), (3, refreshes));
    assert_eq!(scene.caller.state().await, BrokerState::Fresh);
}
