//! The limit of calls without an access token.

use std::time::Duration;

use b2binpay_simulator::settings::{Limit, RetryAfter};
use b2binpay_simulator::{Endpoint, Outcome, Settings};

use crate::support::{client, login_v2, login_v3, noon, post, refresh, simulator_at, v3};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn fifteen_calls_of_both_endpoints_are_let_in_and_the_sixteenth_is_told_when_to_come_again() {
    let clock = noon();
    let simulator = simulator_at(&clock, Settings::default()).await;
    let mut token = login_v2(&simulator).await.refresh().to_owned();
    clock.advance(10 * SECOND);
    for _ in 0..14 {
        token = refresh(&simulator, &token).await.refresh().to_owned();
    }
    let throttled = login_v3(&simulator).await;
    assert_eq!((throttled.status, throttled.code()), (429, Some("throttled")));
    assert_eq!(throttled.header("retry-after"), Some("50"));
    assert_eq!(
        throttled.text("/errors/0/detail"),
        "Request was throttled. Expected available in 50 seconds."
    );
    assert_eq!(refresh(&simulator, &token).await.status, 429, "both endpoints share the limit");
    clock.advance(50 * SECOND);
    assert_eq!(refresh(&simulator, &token).await.status, 200, "the throttled call spent nothing");
}

#[tokio::test]
async fn a_throttled_call_does_not_make_the_wait_longer() {
    let clock = noon();
    let simulator = simulator_at(&clock, Settings::default()).await;
    for _ in 0..20 {
        login_v3(&simulator).await;
    }
    clock.advance(59 * SECOND);
    assert_eq!(login_v3(&simulator).await.header("retry-after"), Some("1"));
    clock.advance(SECOND);
    assert_eq!(login_v3(&simulator).await.status, 200);
    let calls = simulator.calls();
    assert_eq!(calls.max_in_any_window(60 * SECOND), 21, "arrivals count the throttled ones too");
    assert_eq!(calls.iter().filter(|call| call.counted).count(), 16);
}

#[tokio::test]
async fn refused_calls_count_and_calls_of_other_endpoints_do_not() {
    let simulator = simulator_at(&noon(), Settings::default()).await;
    for _ in 0..20 {
        let ping = client().get(format!("{}/ping", simulator.base_url())).send().await.unwrap();
        assert_eq!(ping.status(), 200);
    }
    let wrong = b2binpay_simulator::Credentials::new("wrong", "wrong");
    for _ in 0..15 {
        assert_eq!(post(&simulator, "/token/", v3(&wrong)).await.status, 400);
    }
    assert_eq!(login_v3(&simulator).await.status, 429);
    assert_eq!(simulator.calls().count(Endpoint::Ping), 20);
    assert_eq!(simulator.calls().count_of(Outcome::Throttled), 1);
    simulator.reset_limit();
    assert_eq!(login_v3(&simulator).await.status, 200);
}

#[tokio::test]
async fn the_limit_and_the_form_of_retry_after_are_settings() {
    let simulator = simulator_at(&noon(), Settings::default()).await;
    simulator.set(|settings| {
        settings.limit = Limit { calls: 1, window: 5 * SECOND };
        settings.retry_after = RetryAfter::HttpDate;
    });
    login_v3(&simulator).await;
    // Noon and 0.123456 s, and five more, rounded up: a client that waits until then is let in.
    assert_eq!(login_v3(&simulator).await.header("retry-after"), Some("Tue, 29 Dec 2020 12:00:06 GMT"));
    simulator.set(|settings| settings.retry_after = RetryAfter::Absent);
    let answer = login_v3(&simulator).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, None));
}
