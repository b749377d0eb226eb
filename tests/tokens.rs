//! Tokens, as callers get them.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::time::Duration;

use b2binpay_broker::grpc::proto::{BrokerState, TokenReason};
use b2binpay_simulator::{Api, Settings};
use support::{Setup, World, generous, soon, table::all_pass};

#[tokio::test]
async fn a_caller_gets_a_token_that_works() {
    for api in [Api::V2, Api::V3] {
        let world = World::of(api).await;
        let token = world.caller().token().await.unwrap();
        assert!(world.simulator.is_live(&token.access_token));
        assert_eq!(token.token_type, "Bearer");
        assert_eq!(token.base_url, world.simulator.base_url());
        assert_eq!(token.api_version, if api == Api::V2 { "v2" } else { "v3" });
        assert_eq!(token.token_id.len(), 16);
        let valid_for = token.valid_for.unwrap().seconds;
        assert!((890..=900).contains(&valid_for), "{valid_for}");
    }
}

#[tokio::test]
async fn many_callers_cost_one_call_of_the_upstream() {
    let world = World::of(Api::V3).await;
    let caller = world.caller();
    let calls: Vec<_> = (0..200).map(|_| caller.token()).collect();
    let mut tokens: Vec<_> =
        futures_util::future::join_all(calls).await.into_iter().map(|t| t.unwrap().token_id).collect();
    tokens.dedup();
    assert_eq!(tokens.len(), 1);
    assert_eq!(world.simulator.calls().to_token_endpoints().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_is_told_each_rotation_and_none_is_dead() {
    all_pass([Api::V2, Api::V3].map(|api| (format!("{api:?}"), rotate(api)))).await;
}

async fn rotate(api: Api) {
    let settings = Settings { access_lifetime: Some(Duration::from_secs(6)), ..generous(api) };
    let world = World::with(settings, Setup::default()).await;
    let mut watch = world.caller().watch().await.unwrap();
    let mut reasons = Vec::new();
    for _ in 0..3 {
        let told = soon("a token", watch.message()).await.unwrap().unwrap();
        reasons.push(told.reason());
        let token = told.token.unwrap();
        assert!(world.simulator.is_live(&token.access_token));
        assert_eq!(world.caller().token().await.unwrap().token_id, token.token_id);
    }
    assert_eq!(reasons, [TokenReason::Current, TokenReason::Rotated, TokenReason::Rotated]);
    assert_eq!(world.simulator.calls().refreshed_twice(), []);
}

#[tokio::test]
async fn the_status_tells_how_it_is() {
    let world = World::of(Api::V3).await;
    let caller = world.caller();
    let token = caller.token().await.unwrap();
    let status = caller.status().await.unwrap();
    assert_eq!((status.state(), status.ready, status.reason.as_str()), (BrokerState::Fresh, true, ""));
    assert_eq!(status.token.unwrap().token_id, token.token_id);
    assert_eq!(status.callers[0].last_token_id, token.token_id);
    assert_eq!(status.last_upstream_outcome.unwrap().outcome, "ok");
    assert_eq!(status.budget.unwrap().used, 1);
    let sources: Vec<_> = status.credentials.unwrap().sources.into_iter().map(|source| source.name).collect();
    assert_eq!(sources, ["key_file", "secret_file", "callback_secret_file"]);
}
