//! What goes on after its first answer: watches of the token and of the health, and reflection.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::time::Duration;

use b2binpay_broker::grpc::proto::{BrokerState, TokenReason};
use b2binpay_simulator::{Api, Fault, FaultKind, Settings, Simulator};
use futures_util::stream;
use nix::sys::signal::Signal;
use support::{
    Answered, Caller, Daemon, Refused, Setup, World, end_of, generous, soon, table::all_pass, told,
};
use tonic::{Code, Streaming};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

const TOKENS: &str = "b2binpay.broker.v1.TokenBrokerService";
const SIGNS: &str = "b2binpay.broker.v1.TokenBrokerService/VerifySign";
const ADMIN: &str = "b2binpay.broker.v1.BrokerAdminService";

async fn check(caller: &Caller, service: &str) -> Result<ServingStatus, Refused> {
    let mut health = HealthClient::new(caller.channel.clone());
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = soon("a health check", health.check(request)).await;
    answer.map(|answer| answer.into_inner().status()).map_err(Refused::from)
}

async fn watch_health(caller: &Caller, service: &str) -> Streaming<HealthCheckResponse> {
    let mut health = HealthClient::new(caller.channel.clone());
    let request = HealthCheckRequest { service: service.to_owned() };
    soon("a health watch", health.watch(request)).await.expect("it begins").into_inner()
}

/// Waits until the watched service is in this status.
async fn serving(watch: &mut Streaming<HealthCheckResponse>, wanted: ServingStatus) {
    loop {
        let told =
            soon(wanted.as_str_name(), watch.message()).await.expect("it goes on").expect("it goes on");
        if told.status() == wanted {
            return;
        }
    }
}

// ---- tokens

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_what_is_what_follows_and_what_replaces() {
    all_pass([Api::V2, Api::V3].map(|api| (format!("{api:?}"), watched(api)))).await;
}

async fn watched(api: Api) {
    let settings = Settings { access_lifetime: Some(Duration::from_secs(30)), ..generous(api) };
    let setup = Setup { rest: "[token]\nrefresh_at = 0.1\n".into(), ..Setup::default() };
    let world = World::with(settings, setup).await;
    let caller = world.caller();
    let mut watch = caller.watch().await.unwrap();
    let (reason, current) = told(&mut watch).await;
    assert_eq!(reason, TokenReason::Current);
    let (reason, rotated) = told(&mut watch).await;
    assert_eq!(reason, TokenReason::Rotated);
    let replaced = caller.token_for(Duration::ZERO, &rotated, None).await.unwrap().token_id;
    assert_eq!(told(&mut watch).await, (TokenReason::ReplacedAfterRejection, replaced.clone()));
    // Who comes now is told that one as the current.
    let mut late = caller.watch().await.unwrap();
    assert_eq!(told(&mut late).await, (TokenReason::Current, replaced.clone()));
    assert!(current != rotated && rotated != replaced);
}

#[tokio::test]
async fn a_stream_opened_before_the_first_token_gets_it_when_it_comes() {
    let simulator = Simulator::start(generous(Api::V2)).await.unwrap();
    simulator.inject(Fault::new(FaultKind::status(503, None, "Later.")).until_cleared());
    let daemon = Daemon::start(&simulator, Setup::default()).await;
    let mut watches = Vec::new();
    for _ in 0..5 {
        watches.push(daemon.caller().watch().await.unwrap());
    }
    soon("a failure", simulator.wait_for_calls(2)).await;
    simulator.clear_faults();
    let first = told(&mut watches[0]).await;
    assert_eq!(first.0, TokenReason::Current);
    for watch in &mut watches[1..] {
        assert_eq!(told(watch).await, first);
    }
}

#[tokio::test]
async fn a_watch_is_silent_through_an_outage_and_goes_on_after_it() {
    let settings = Settings { access_lifetime: Some(Duration::from_secs(6)), ..generous(Api::V3) };
    let world = World::with(settings, Setup::default()).await;
    let caller = world.caller();
    let mut watch = caller.watch().await.unwrap();
    let (_, first) = told(&mut watch).await;
    world.simulator.pause_listening().await;
    assert!(!caller.in_state(BrokerState::Expired).await.ready);
    world.simulator.resume_listening().await.unwrap();
    let (reason, next) = told(&mut watch).await;
    assert_eq!(reason, TokenReason::Rotated);
    assert_ne!(next, first);
}

#[tokio::test]
async fn every_stream_ends_politely_when_the_broker_stops() {
    let mut world = World::of(Api::V3).await;
    let caller = world.caller();
    let mut tokens = caller.watch().await.unwrap();
    told(&mut tokens).await;
    let mut health = watch_health(&caller, SIGNS).await;
    serving(&mut health, ServingStatus::Serving).await;
    let mut reflection = Reflection::open(&caller).await;
    assert!(!reflection.services().await.is_empty());

    world.daemon.signal(Signal::SIGTERM);
    for ended in [end_of(&mut tokens).await, end_of(&mut health).await, end_of(&mut reflection.answers).await]
    {
        assert_eq!((ended.code, ended.reason.as_str()), (Code::Unavailable, "SHUTTING_DOWN"));
        assert_eq!(ended.message, "the broker is stopping; connect again");
    }
    assert_eq!(world.daemon.ended().await.code(), Some(0));
}

// ---- health

#[tokio::test]
async fn health_follows_whether_a_token_can_be_handed_out() {
    let settings = Settings { access_lifetime: Some(Duration::from_secs(6)), ..generous(Api::V3) };
    let world = World::with(settings, Setup::default()).await;
    let caller = world.caller();
    let mut watches = [watch_health(&caller, TOKENS).await, watch_health(&caller, "").await];
    for watch in &mut watches {
        serving(watch, ServingStatus::Serving).await;
    }
    let mut signs = watch_health(&caller, SIGNS).await;
    serving(&mut signs, ServingStatus::Serving).await;

    // Not at the first failure, while the token is still good, but when it ends.
    world.simulator.pause_listening().await;
    let degraded = caller.in_state(BrokerState::Degraded).await;
    assert!(degraded.ready);
    for watch in &mut watches {
        serving(watch, ServingStatus::NotServing).await;
    }
    let status = caller.status().await.unwrap();
    assert_eq!((status.state(), status.ready), (BrokerState::Expired, false));
    assert_eq!(check(&caller, TOKENS).await, Ok(ServingStatus::NotServing));
    for service in [SIGNS, ADMIN] {
        assert_eq!(check(&caller, service).await, Ok(ServingStatus::Serving), "{service}");
    }

    world.simulator.resume_listening().await.unwrap();
    for watch in &mut watches {
        serving(watch, ServingStatus::Serving).await;
    }
    assert_eq!(check(&caller, TOKENS).await, Ok(ServingStatus::Serving));
    // Nothing was said of the signs since. Stopping may be told before the end.
    world.daemon.signal(Signal::SIGTERM);
    let mut told = soon("the next word", signs.message()).await;
    if let Ok(Some(last)) = told {
        assert_eq!(last.status(), ServingStatus::NotServing);
        told = soon("the end", signs.message()).await;
    }
    assert_eq!(Refused::from(told.unwrap_err()).reason, "SHUTTING_DOWN");
}

#[tokio::test]
async fn health_is_not_serving_before_the_first_token() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    simulator.inject(Fault::new(FaultKind::status(503, None, "Later.")).until_cleared());
    let daemon = Daemon::start(&simulator, Setup::default()).await;
    let caller = daemon.caller();
    let mut watch = watch_health(&caller, TOKENS).await;
    serving(&mut watch, ServingStatus::NotServing).await;
    assert_eq!(check(&caller, "").await, Ok(ServingStatus::NotServing));
    simulator.clear_faults();
    serving(&mut watch, ServingStatus::Serving).await;
}

#[tokio::test]
async fn health_of_what_nobody_knows_is_not_found_with_details_of_ours() {
    let world = World::of(Api::V3).await;
    let refused = check(&world.caller(), "nothing.Service").await.refused();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::NotFound, "BAD_REQUEST"));
}

#[tokio::test]
async fn health_checks_are_counted_as_what_they_were() {
    let world = World::of(Api::V3).await;
    let caller = world.caller();
    check(&caller, SIGNS).await.unwrap();
    check(&caller, SIGNS).await.unwrap();
    let counts = caller.status().await.unwrap().callers.remove(0).calls;
    let health = counts.iter().find(|count| count.method == "Health").unwrap();
    assert_eq!((health.ok, health.failed), (2, 0));
}

// ---- reflection

/// A conversation with the newer of the two reflection services.
struct Reflection {
    ask: tokio::sync::mpsc::Sender<tonic_reflection::pb::v1::ServerReflectionRequest>,
    answers: Streaming<tonic_reflection::pb::v1::ServerReflectionResponse>,
}

impl Reflection {
    async fn open(caller: &Caller) -> Self {
        use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
        let (ask, asked) = tokio::sync::mpsc::channel(1);
        let asked =
            stream::unfold(asked, async |mut asked| asked.recv().await.map(|question| (question, asked)));
        let mut client = ServerReflectionClient::new(caller.channel.clone());
        let answers = soon("reflection", client.server_reflection_info(asked)).await.unwrap().into_inner();
        Self { ask, answers }
    }

    async fn services(&mut self) -> Vec<String> {
        use tonic_reflection::pb::v1::{
            ServerReflectionRequest, server_reflection_request::MessageRequest,
            server_reflection_response::MessageResponse,
        };
        let list = Some(MessageRequest::ListServices(String::new()));
        let request = ServerReflectionRequest { host: String::new(), message_request: list };
        self.ask.send(request).await.unwrap();
        let answer = soon("the list", self.answers.message()).await.unwrap().unwrap();
        let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
            panic!("{answer:?}")
        };
        list.service.into_iter().map(|service| service.name).collect()
    }
}

fn assert_lists_all(mut services: Vec<String>) {
    services.sort_unstable();
    for service in [TOKENS, ADMIN, "grpc.health.v1.Health"] {
        assert!(services.iter().any(|name| name == service), "{service} is not among {services:?}");
    }
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_of_its_versions() {
    use tonic_reflection::pb::v1alpha::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let world = World::of(Api::V3).await;
    let caller = world.caller();
    assert_lists_all(Reflection::open(&caller).await.services().await);

    let list = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { host: String::new(), message_request: list };
    let mut client = ServerReflectionClient::new(caller.channel.clone());
    let asked = stream::iter([request]);
    let mut answers = soon("reflection", client.server_reflection_info(asked)).await.unwrap().into_inner();
    let answer = soon("the list", answers.message()).await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}")
    };
    assert_lists_all(list.service.into_iter().map(|service| service.name).collect());
    // Who asks no more is answered no more, and that is no error.
    assert!(soon("the end", answers.message()).await.unwrap().is_none());
}

#[tokio::test]
async fn reflection_answers_with_details_of_ours_what_it_can_not() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest,
    };
    let world = World::of(Api::V3).await;
    for (message_request, code, reason) in [
        (None, Code::InvalidArgument, "BAD_REQUEST"),
        (Some(MessageRequest::FileByFilename("nothing.proto".into())), Code::NotFound, "BAD_REQUEST"),
    ] {
        let request = ServerReflectionRequest { host: String::new(), message_request };
        let mut client = ServerReflectionClient::new(world.caller().channel);
        let asked = stream::iter([request]);
        let mut answers =
            soon("reflection", client.server_reflection_info(asked)).await.unwrap().into_inner();
        let refused = end_of(&mut answers).await;
        assert_eq!((refused.code, refused.reason.as_str()), (code, reason));
    }
}
