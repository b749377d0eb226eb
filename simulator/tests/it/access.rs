//! `/wallet/`, which tells live tokens from dead ones, and the account's list of addresses.

use std::time::Duration;

use b2binpay_simulator::{Credentials, Endpoint, Fingerprint, Settings};
use serde_json::Value;

use crate::support::{client, login_v2, login_v3, noon, post, refresh, simulator_at, start, v3, wallet};

#[tokio::test]
async fn a_live_token_gets_the_list_and_a_dead_one_401() {
    let clock = noon();
    let simulator = simulator_at(&clock, Settings::default()).await;
    let token = login_v2(&simulator).await.access().to_owned();
    let answer = wallet(&simulator, &token).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.text("/data/0/type"), "wallet");
    clock.advance(Duration::from_secs(899));
    assert_eq!(wallet(&simulator, &token).await.status, 200);
    clock.advance(Duration::from_secs(1));
    let dead = wallet(&simulator, &token).await;
    assert_eq!(dead.status, 401);
    assert!(dead.body["errors"][0]["detail"].is_string());
    let calls = simulator.calls();
    let dead: Vec<_> = calls.with_dead_token().collect();
    assert_eq!(dead.len(), 1);
    assert_eq!(
        dead[0].presented,
        Some(Fingerprint::of(&token)),
        "the record names the token without showing it"
    );
}

#[tokio::test]
async fn no_token_or_a_made_up_one_gets_401() {
    let simulator = start().await;
    let bare = client().get(format!("{}/wallet/", simulator.base_url())).send().await.unwrap();
    assert_eq!(bare.status(), 401);
    assert_eq!(wallet(&simulator, "made-up").await.status, 401);
}

#[tokio::test]
async fn revoked_tokens_are_dead_and_new_ones_live() {
    let simulator = start().await;
    let before = login_v3(&simulator).await;
    assert_eq!(simulator.revoke_access_tokens(), 1);
    assert_eq!(wallet(&simulator, before.access()).await.status, 401);
    let after = login_v3(&simulator).await;
    assert_eq!(wallet(&simulator, after.access()).await.status, 200);
}

#[tokio::test]
async fn new_credentials_stop_the_old_ones_at_once_and_leave_access_tokens_alone() {
    let simulator = start().await;
    let old = simulator.credentials();
    let token = login_v3(&simulator).await.access().to_owned();
    simulator.set(|settings| settings.credentials = Credentials::new("new-key", "new-secret"));
    assert_eq!(post(&simulator, "/token/", v3(&old)).await.code(), Some("2006"));
    assert_eq!(login_v3(&simulator).await.status, 200);
    assert_eq!(wallet(&simulator, &token).await.status, 200);
}

#[tokio::test]
async fn an_address_that_is_not_on_the_list_gets_403_and_spends_nothing() {
    let simulator = start().await;
    let login = login_v2(&simulator).await;
    simulator.set(|settings| settings.allowed_addresses = Some(vec!["192.0.2.1".parse().unwrap()]));
    let refused = [
        login_v2(&simulator).await,
        refresh(&simulator, login.refresh()).await,
        wallet(&simulator, login.access()).await,
    ];
    for answer in refused {
        assert_eq!((answer.status, answer.code()), (403, Some("2016")));
    }
    simulator.set(|settings| settings.allowed_addresses = Some(vec!["127.0.0.1".parse().unwrap()]));
    assert_eq!(refresh(&simulator, login.refresh()).await.status, 200);
}

#[tokio::test]
async fn a_ping_needs_no_authorization() {
    let simulator = start().await;
    let answer = client().get(format!("{}/ping", simulator.base_url())).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(simulator.calls().count(Endpoint::Ping), 1);
}

#[tokio::test]
async fn no_token_and_no_secret_is_in_the_record() {
    let simulator = start().await;
    let login = login_v2(&simulator).await;
    wallet(&simulator, login.access()).await;
    refresh(&simulator, login.refresh()).await;
    let record = format!("{:?} {}", simulator.calls(), serde_json::to_value(simulator.calls()).unwrap());
    let Credentials { key, secret } = simulator.credentials();
    for hidden in [login.access(), login.refresh(), &key, &secret] {
        assert!(!record.contains(hidden));
    }
    let calls: Value = serde_json::to_value(simulator.calls()).unwrap();
    assert_eq!(calls[0]["issued_refresh"], calls[2]["presented"]);
}
