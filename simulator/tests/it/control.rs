//! The control API over plain HTTP.

use b2binpay_simulator::Simulator;
use reqwest::Method;
use serde_json::{Value, json};

use crate::receiver::Receiver;
use crate::support::{Answer, SOON, client, login_v2, login_v3, read, refresh, start, wallet};

async fn control(simulator: &Simulator, method: Method, path: &str, body: Option<Value>) -> Answer {
    let request = client().request(method, format!("{}/_simulator/{path}", simulator.base_url()));
    let request = match body {
        Some(body) => request.json(&body),
        None => request,
    };
    read(request.send().await.unwrap()).await.unwrap()
}

async fn get(simulator: &Simulator, path: &str) -> Answer {
    control(simulator, Method::GET, path, None).await
}

async fn post(simulator: &Simulator, path: &str, body: Value) -> Answer {
    control(simulator, Method::POST, path, Some(body)).await
}

async fn patch(simulator: &Simulator, body: Value) -> Answer {
    control(simulator, Method::PATCH, "settings", Some(body)).await
}

#[tokio::test]
async fn the_front_page_lists_what_there_is() {
    let simulator = start().await;
    let help = get(&simulator, "").await;
    assert_eq!(help.status, 200);
    let help = help.body.as_str().unwrap();
    for kind in ["settings", "faults", "calls", "limit", "callbacks", "revoke", "outage", "flaky", "pass"] {
        assert!(help.contains(kind), "{kind}");
    }
    assert!(simulator.calls().is_empty(), "control is not recorded");
}

#[tokio::test]
async fn settings_are_shown_and_changed() {
    let simulator = start().await;
    assert_eq!(get(&simulator, "settings").await.body["limit_calls"], 15);
    let changed = patch(&simulator, json!({ "access_lifetime": "60s", "secret": "another" })).await;
    assert_eq!((changed.status, changed.text("/access_lifetime")), (200, "1m"));
    assert!(!changed.body.to_string().contains("another"), "secrets are not shown");
    assert_eq!(simulator.credentials().secret, "another");
    assert_eq!(login_v3(&simulator).await.body.pointer("/data/attributes/expires_in"), Some(&json!(60)));
}

#[tokio::test]
async fn a_wrong_change_changes_nothing_and_says_why() {
    let simulator = start().await;
    for (body, reason) in [
        (json!({ "null_id": true, "acces_lifetime": 1 }), "acces_lifetime"),
        (json!({ "null_id": true, "access_lifetime": "soon" }), "soon"),
        (json!({ "null_id": true, "expiry_offset": "3" }), "offset"),
        (json!({ "null_id": true, "limit_calls": 0 }), "limit_calls"),
    ] {
        let refused = patch(&simulator, body).await;
        assert_eq!(refused.status, 400);
        assert!(refused.text("/error").contains(reason), "{}", refused.body);
    }
    assert!(!simulator.settings().forms.null_id);
}

#[tokio::test]
async fn faults_are_added_listed_and_cleared() {
    let simulator = start().await;
    let added = post(&simulator, "faults", json!({ "kind": "html", "times": 2, "target": "login" })).await;
    assert_eq!(added.body["faults"][0]["status"], 502);
    assert_eq!(login_v2(&simulator).await.status, 502);
    assert_eq!(get(&simulator, "faults").await.body["faults"][0]["times"], 1);
    control(&simulator, Method::DELETE, "faults", None).await;
    assert_eq!(login_v2(&simulator).await.status, 200);
    let refused = post(&simulator, "faults", json!({ "kind": "htlm" })).await;
    assert_eq!(refused.status, 400);
    assert!(refused.text("/error").contains("htlm"), "{}", refused.body);
}

#[tokio::test]
async fn calls_are_listed_summed_up_and_waited_for() {
    let simulator = start().await;
    let first = login_v2(&simulator).await;
    refresh(&simulator, first.refresh()).await;
    wallet(&simulator, "dead").await;
    let calls = get(&simulator, "calls?after=1").await.body;
    assert_eq!((&calls["total"], &calls["calls"][0]["endpoint"]), (&json!(3), &json!("refresh")));
    assert_eq!(calls["summary"]["calls_with_dead_token"], 1);

    let (waited, _) = tokio::join!(
        tokio::time::timeout(SOON, get(&simulator, "calls?after=3&wait=10m")),
        login_v3(&simulator)
    );
    assert_eq!(waited.unwrap().body["calls"][0]["number"], 4);
    assert_eq!(get(&simulator, "calls?until=3").await.status, 400);
    control(&simulator, Method::DELETE, "calls", None).await;
    assert_eq!(simulator.calls().len(), 0);
}

#[tokio::test]
async fn a_callback_is_posted_or_handed_out() {
    let simulator = start().await;
    let (receiver, url) = Receiver::start([500]).await;
    let order = json!({ "url": url, "callback": { "kind": "payout" }, "delivery": { "pause": 0.001 } });
    let delivery = post(&simulator, "callbacks", order).await.body;
    assert_eq!(delivery, json!({ "delivered": true, "attempts": [{ "status": 500 }, { "status": 200 }] }));
    assert_eq!(receiver.received().len(), 2);
    let body = post(&simulator, "callbacks", json!({ "callback": { "form": "no_transfer" } })).await.body;
    assert_eq!((&body["data"]["type"], body.pointer("/meta/sign")), (&json!("deposit"), None));
    let refused = post(&simulator, "callbacks", json!({ "url": "https://127.0.0.1/" })).await;
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn tokens_are_revoked_and_the_limit_is_reset() {
    let simulator = start().await;
    let login = login_v2(&simulator).await;
    let revoked = post(&simulator, "revoke", json!({ "access_tokens": true })).await.body;
    assert_eq!(revoked, json!({ "access_tokens": 1, "refresh_tokens": 0 }));
    assert_eq!(wallet(&simulator, login.access()).await.status, 401);
    post(&simulator, "revoke", json!({ "refresh_tokens": true })).await;
    assert_eq!(refresh(&simulator, login.refresh()).await.status, 401);
    assert_eq!(post(&simulator, "revoke", json!({})).await.status, 400);

    patch(&simulator, json!({ "limit_calls": 1 })).await;
    assert_eq!(login_v2(&simulator).await.status, 429);
    control(&simulator, Method::DELETE, "limit", None).await;
    assert_eq!(login_v2(&simulator).await.status, 200);
}

#[tokio::test]
async fn an_outage_is_promised_before_it_begins() {
    let simulator = start().await;
    let promised = post(&simulator, "outage", json!({ "length": 0.05 })).await;
    assert_eq!(promised.status, 202);
}

#[tokio::test]
async fn what_does_not_exist_or_is_no_json_is_refused_helpfully() {
    let simulator = start().await;
    let missing = get(&simulator, "nothing").await;
    assert_eq!(missing.status, 404);
    assert!(missing.text("/error").contains("/_simulator/"), "{}", missing.body);
    assert_eq!(control(&simulator, Method::PUT, "settings", None).await.status, 405);
    let url = format!("{}/_simulator/faults", simulator.base_url());
    let form = client().post(url).body(r#"{"kind":"hang"}"#).send().await.unwrap();
    assert_eq!(form.status(), 415, "a web page must not be able to send it");
}
