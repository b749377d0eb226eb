//! `POST /token/refresh/`: single use, a successor, and what a thief leaves behind.

use std::time::Duration;

use b2binpay_simulator::{Credentials, Settings};

use crate::support::{login_v2, noon, refresh, simulator_at, start};

#[tokio::test]
async fn a_refresh_gives_a_successor_without_meta() {
    let simulator = start().await;
    let first = login_v2(&simulator).await;
    let second = refresh(&simulator, first.refresh()).await;
    assert_eq!(second.status, 200);
    assert_eq!(second.body.get("meta"), None);
    assert_ne!(second.refresh(), first.refresh());
    assert_ne!(second.access(), first.access());
    assert!(simulator.is_live(first.access()), "the access token before it lives on");
    assert_eq!(refresh(&simulator, second.refresh()).await.status, 200);
}

#[tokio::test]
async fn a_refresh_token_works_once() {
    let simulator = start().await;
    let login = login_v2(&simulator).await;
    refresh(&simulator, login.refresh()).await;
    let again = refresh(&simulator, login.refresh()).await;
    assert_eq!((again.status, again.code()), (401, Some("2007")));
    assert_eq!(simulator.calls().refreshed_twice().len(), 1);
}

#[tokio::test]
async fn an_unknown_refresh_token_and_an_access_token_are_401() {
    let simulator = start().await;
    let login = login_v2(&simulator).await;
    for token in ["unknown", login.access()] {
        let answer = refresh(&simulator, token).await;
        assert_eq!((answer.status, answer.code()), (401, Some("2007")));
    }
}

#[tokio::test]
async fn an_expired_refresh_token_is_401() {
    let clock = noon();
    let simulator = simulator_at(&clock, Settings::default()).await;
    let login = login_v2(&simulator).await;
    clock.advance(Duration::from_secs(6 * 3600));
    assert_eq!(refresh(&simulator, login.refresh()).await.status, 401);
}

#[tokio::test]
async fn a_thief_who_refreshes_first_leaves_the_token_spent() {
    let simulator = start().await;
    let login = login_v2(&simulator).await;
    assert_eq!(simulator.spend_refresh_tokens(), 1);
    assert_eq!(refresh(&simulator, login.refresh()).await.status, 401);
    assert!(simulator.is_live(login.access()));
}

#[tokio::test]
async fn a_rotation_of_credentials_ends_refresh_tokens_unless_told_otherwise() {
    for (ends, status) in [(true, 401), (false, 200)] {
        let simulator = start().await;
        let login = login_v2(&simulator).await;
        simulator.set(|settings| {
            settings.rotation_ends_refresh = ends;
            settings.credentials = Credentials::new("new", "new");
        });
        assert_eq!(refresh(&simulator, login.refresh()).await.status, status);
    }
}
