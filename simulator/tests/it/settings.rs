//! The forms in which the published samples differ, and the server's clock.

use b2binpay_simulator::{ManualClock, Settings, Simulator};
use jiff::SignedDuration;
use serde_json::Value;

use crate::support::{login_v2, login_v3, noon, refresh, simulator_at};

async fn with(change: impl FnOnce(&mut Settings)) -> Simulator {
    let mut settings = Settings::default();
    change(&mut settings);
    simulator_at(&noon(), settings).await
}

#[tokio::test]
async fn one_body_can_mix_offsets() {
    let simulator = with(|settings| settings.forms.expiry_offset = "+03:00".parse().unwrap()).await;
    let answer = login_v2(&simulator).await;
    assert_eq!(answer.text("/data/attributes/access_expired_at"), "2020-12-29T15:15:00.123456+03:00");
    assert_eq!(answer.text("/data/attributes/refresh_expired_at"), "2020-12-29T18:00:00.123456Z");
    assert_eq!(answer.text("/meta/time"), "2020-12-29T12:00:00.123456Z");
}

#[tokio::test]
async fn the_fraction_can_be_absent() {
    let simulator = with(|settings| settings.forms.fraction = false).await;
    let answer = login_v2(&simulator).await;
    assert_eq!(answer.text("/meta/time"), "2020-12-29T12:00:00Z");
    assert_eq!(answer.text("/data/attributes/access_expired_at"), "2020-12-29T12:15:00Z");
}

#[tokio::test]
async fn the_id_can_be_null() {
    let simulator = with(|settings| settings.forms.null_id = true).await;
    for answer in [login_v2(&simulator).await, login_v3(&simulator).await] {
        assert_eq!(answer.body.pointer("/data/id"), Some(&Value::Null));
    }
}

#[tokio::test]
async fn the_answer_to_a_refresh_can_be_at_the_top_level() {
    let simulator = with(|settings| settings.forms.refresh_at_top_level = true).await;
    let login = login_v2(&simulator).await;
    let refreshed = refresh(&simulator, login.refresh()).await;
    assert_eq!(refreshed.body.get("data"), None);
    assert_eq!(refreshed.text("/type"), "auth-token");
    assert!(simulator.is_live(refreshed.text("/attributes/access")));
}

#[tokio::test]
async fn the_servers_clock_can_be_off() {
    let clock: ManualClock = noon();
    let settings = Settings { clock_offset: SignedDuration::from_hours(-2), ..Settings::default() };
    let simulator = simulator_at(&clock, settings).await;
    let answer = login_v2(&simulator).await;
    assert_eq!(answer.text("/meta/time"), "2020-12-29T10:00:00.123456Z");
    assert_eq!(
        answer.time("/data/attributes/access_expired_at"),
        "2020-12-29T10:15:00.123456Z".parse().unwrap()
    );
    assert_eq!(answer.header("date"), Some("Tue, 29 Dec 2020 10:00:00 GMT"));
    assert!(simulator.is_live(answer.access()));
    simulator.set(|settings| settings.clock_offset = SignedDuration::ZERO);
    assert!(!simulator.is_live(answer.access()), "a step of the server's clock ends its tokens");
}
