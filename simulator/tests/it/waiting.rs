//! Waiting for calls without sleeping.

use b2binpay_simulator::{Endpoint, Fault, FaultKind, Outcome};
use tokio::time::timeout;

use crate::support::{SOON, client, login_v2, login_v3, start};

#[tokio::test]
async fn the_next_call_is_the_next_after_asking() {
    let simulator = start().await;
    login_v2(&simulator).await;
    let next = simulator.next_call();
    login_v3(&simulator).await;
    let call = timeout(SOON, next).await.unwrap();
    assert_eq!((call.number, call.endpoint), (2, Endpoint::Login));
}

#[tokio::test]
async fn a_watch_returns_each_call_once_and_in_order() {
    let simulator = start().await;
    let mut watch = simulator.watch_calls();
    for _ in 0..3 {
        login_v3(&simulator).await;
    }
    for number in 1..=3 {
        assert_eq!(timeout(SOON, watch.next()).await.unwrap().number, number);
    }
}

#[tokio::test]
async fn waiting_ends_with_the_call_that_makes_it_true() {
    let simulator = start().await;
    let (calls, ..) = tokio::join!(
        timeout(SOON, simulator.wait_for_token_calls(2)),
        login_v2(&simulator),
        login_v3(&simulator)
    );
    assert_eq!(calls.unwrap().count(Endpoint::Login), 2);
    let calls = simulator.wait_until(|calls| calls.count_of(Outcome::Accepted) == 2);
    assert_eq!(timeout(SOON, calls).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_call_that_is_never_answered_is_recorded_all_the_same() {
    let simulator = start().await;
    simulator.inject(Fault::new(FaultKind::Hang));
    let next = simulator.next_call();
    let url = format!("{}/token/", simulator.base_url());
    let body = r#"{"data":{"type":"auth-token","attributes":{"client_id":"a","client_secret":"b"}}}"#;
    let hanging = client().post(url).header("content-type", "application/vnd.api+json").body(body).send();
    let call = tokio::select! {
        call = next => call,
        _ = hanging => panic!("nothing answers"),
    };
    assert_eq!((call.outcome, call.fault, call.status), (Outcome::NotProcessed, Some("hang"), None));
}
