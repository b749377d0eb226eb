//! Every fault, as a client meets it.

use std::error::Error as _;
use std::io;
use std::time::{Duration, Instant};

use b2binpay_simulator::fault::{BadCharacters, BadLifetime, ErrorItem};
use b2binpay_simulator::{Fault, FaultKind, Outcome, Settings, Simulator, Target};
use serde_json::json;
use tokio::time::timeout;

use crate::support::{
    SOON, client, login_v2, login_v3, noon, refresh, simulator_at, start, try_post, v2, v3, wallet,
};

/// The kind of the I/O error that an error was caused by.
fn io_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        cause = error.source();
    }
    None
}

async fn failed_login(simulator: &Simulator) -> reqwest::Error {
    match try_post(simulator, "/token/", v2(&simulator.credentials())).await {
        Err(error) => error,
        Ok(answer) => panic!("answered {}", answer.status),
    }
}

#[tokio::test]
async fn a_status_comes_with_the_errors_asked_for() {
    let simulator = start().await;
    simulator.inject(Fault::new(FaultKind::status(503, None, "Try later.")));
    let answer = login_v2(&simulator).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.body, json!({ "errors": [{ "status": "503", "detail": "Try later." }] }));

    let error = |code: &str| ErrorItem { code: Some(code.to_owned()), detail: "Both.".to_owned() };
    let errors = vec![error("2006"), error("2016")];
    simulator.inject(Fault::new(FaultKind::Status { status: 400, errors, retry_after: Some(7) }));
    let answer = login_v2(&simulator).await;
    assert_eq!(answer.text("/errors/1/code"), "2016");
    assert_eq!(answer.header("retry-after"), Some("7"));
    assert_eq!(login_v2(&simulator).await.status, 200, "each struck once");
    assert_eq!(simulator.calls().iter().filter(|call| call.counted).count(), 1);
}

#[tokio::test]
async fn a_proxy_answers_html_or_an_empty_200() {
    let simulator = start().await;
    simulator.inject(Fault::new(FaultKind::Html { status: 504 }));
    let answer = login_v2(&simulator).await;
    assert_eq!((answer.status, answer.header("content-type")), (504, Some("text/html")));
    assert!(answer.body.as_str().unwrap().contains("<html>"));
    simulator.inject(Fault::new(FaultKind::Empty));
    let answer = login_v2(&simulator).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, Some("")));
}

#[tokio::test]
async fn a_lost_answer_behind_a_proxy_spends_the_token() {
    let simulator = start().await;
    let login = login_v2(&simulator).await;
    simulator.inject(Fault::new(FaultKind::Html { status: 504 }).on(Target::Refresh).processed());
    assert_eq!(refresh(&simulator, login.refresh()).await.status, 504);
    assert_eq!(refresh(&simulator, login.refresh()).await.status, 401);
    assert_eq!(simulator.calls()[1].outcome, Outcome::Accepted);
}

#[tokio::test]
async fn a_reset_before_spends_nothing_and_a_reset_after_spends_the_token() {
    let simulator = start().await;
    let login = login_v2(&simulator).await;
    let attributes = json!({ "refresh": login.refresh() });

    simulator.inject(Fault::new(FaultKind::ResetBefore).on(Target::Refresh));
    let error = try_post(&simulator, "/token/refresh/", attributes.clone()).await.err().unwrap();
    assert_eq!(io_kind(&error), Some(io::ErrorKind::ConnectionReset), "{error:?}");

    simulator.inject(Fault::new(FaultKind::ResetAfter).on(Target::Refresh));
    let error = try_post(&simulator, "/token/refresh/", attributes).await.err().unwrap();
    assert_eq!(io_kind(&error), Some(io::ErrorKind::ConnectionReset), "{error:?}");

    assert_eq!(refresh(&simulator, login.refresh()).await.status, 401);
    let calls = simulator.calls();
    assert_eq!((calls[1].outcome, calls[1].counted), (Outcome::NotProcessed, false));
    assert_eq!((calls[2].outcome, calls[2].counted, calls[2].status), (Outcome::Accepted, true, None));
    assert!(calls[2].issued_refresh.is_some());
}

#[tokio::test]
async fn a_wrong_sign_has_the_form_of_a_right_one() {
    let simulator = simulator_at(&noon(), Settings::default()).await;
    simulator.inject(Fault::new(FaultKind::WrongSign));
    let answer = login_v2(&simulator).await;
    let sign = answer.text("/meta/sign");
    assert_eq!(sign.len(), 64);
    assert!(sign.chars().all(|digit| digit.is_ascii_hexdigit() && !digit.is_ascii_uppercase()));
    assert_eq!(simulator.calls()[0].fault, Some("wrong_sign"));
    assert_eq!(simulator.waiting_faults(), []);
}

#[tokio::test]
async fn a_redirect_names_another_place() {
    let simulator = start().await;
    let location = "http://127.0.0.1:9/token/".to_owned();
    simulator.inject(Fault::new(FaultKind::Redirect { location: location.clone(), status: 307 }));
    let answer = login_v3(&simulator).await;
    assert_eq!((answer.status, answer.header("location")), (307, Some(&*location)));
}

#[tokio::test]
async fn a_huge_body_goes_on_for_mebibytes() {
    let simulator = start().await;
    simulator.inject(Fault::new(FaultKind::HugeBody { mebibytes: 3 }));
    let answer = login_v3(&simulator).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text("/data/id").len() == 3 << 20);
}

#[tokio::test]
async fn a_slow_body_takes_its_time_and_is_right_in_the_end() {
    let simulator = start().await;
    let pause = Duration::from_millis(2);
    simulator.inject(Fault::new(FaultKind::SlowBody { pause }));
    let began = began();
    let answer = login_v3(&simulator).await;
    let parts = u32::try_from(answer.body.to_string().len() / 8).unwrap();
    assert!(began.elapsed() >= pause * parts);
    assert!(simulator.is_live(answer.access()));
}

#[expect(clippy::disallowed_methods, reason = "a test measures real waits")]
fn began() -> Instant {
    Instant::now()
}

#[tokio::test]
async fn a_truncated_body_announces_more_than_it_sends() {
    let simulator = start().await;
    simulator.inject(Fault::new(FaultKind::TruncatedBody));
    let url = format!("{}/token/", simulator.base_url());
    let body = json!({ "data": { "type": "auth-token", "attributes": v3(&simulator.credentials()) } });
    let request =
        client().post(url).header("content-type", "application/vnd.api+json").body(body.to_string());
    let mut response = request.send().await.unwrap();
    let announced = usize::try_from(response.content_length().unwrap()).unwrap();
    let mut received = 0;
    let broke = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => received += chunk.len(),
            end => break end,
        }
    };
    assert!(broke.is_err(), "the body breaks off");
    assert_eq!(received, announced / 2);
}

#[tokio::test]
async fn unusable_answers_look_like_answers() {
    let simulator = start().await;
    simulator.inject(Fault::new(FaultKind::BadJson));
    let answer = login_v2(&simulator).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.is_string(), "it is no JSON");

    simulator.inject(Fault::new(FaultKind::MissingToken).times(2));
    for answer in [login_v2(&simulator).await, login_v3(&simulator).await] {
        assert_eq!(answer.body.pointer("/data/attributes/access"), None);
    }
    for (characters, found) in [(BadCharacters::Newline, '\n'), (BadCharacters::NonAscii, 'é')] {
        simulator.inject(Fault::new(FaultKind::BadTokenChars { characters }));
        assert!(login_v2(&simulator).await.access().contains(found));
    }
}

#[tokio::test]
async fn lifetimes_can_be_impossible() {
    let simulator = simulator_at(&noon(), Settings::default()).await;
    let expected = [
        (BadLifetime::Past, -3600, "2020-12-29T11:00:00.123456Z"),
        (BadLifetime::Zero, 0, "2020-12-29T12:00:00.123456Z"),
        (BadLifetime::Negative, -1, "2020-12-29T11:59:59.123456Z"),
        (BadLifetime::TenYears, 315_619_200, "2030-12-30T12:00:00.123456Z"),
    ];
    for (lifetime, seconds, at) in expected {
        simulator.inject(Fault::new(FaultKind::ImpossibleLifetime { lifetime }).times(2));
        assert_eq!(login_v2(&simulator).await.text("/data/attributes/access_expired_at"), at);
        assert_eq!(
            login_v3(&simulator).await.body.pointer("/data/attributes/expires_in"),
            Some(&json!(seconds))
        );
    }
}

#[tokio::test]
async fn a_call_that_hangs_holds_its_connection_until_the_client_gives_up() {
    let simulator = start().await;
    simulator.inject(Fault::new(FaultKind::Hang).on(Target::Login));
    let next = simulator.next_call();
    let credentials = v2(&simulator.credentials());
    let hanging = try_post(&simulator, "/token/", credentials);
    tokio::pin!(hanging);
    tokio::select! {
        call = next => assert_eq!(call.outcome, Outcome::NotProcessed),
        _ = &mut hanging => panic!("nothing answers"),
    }
    assert!(timeout(Duration::from_millis(100), hanging).await.is_err());
    assert_eq!(login_v2(&simulator).await.status, 200, "others are served");
}

#[tokio::test]
async fn a_late_answer_is_processed_at_once_and_a_delayed_call_arrives_late() {
    let simulator = start().await;
    simulator.inject(Fault::new(FaultKind::LateAnswer { by: Duration::from_secs(600) }));
    let next = simulator.next_call();
    let credentials = v2(&simulator.credentials());
    tokio::select! {
        call = next => assert!(call.counted),
        _ = try_post(&simulator, "/token/", credentials.clone()) => panic!("the answer is late"),
    }

    simulator.inject(Fault::new(FaultKind::Pass).delayed(Duration::from_millis(200)));
    let mut watch = simulator.watch_calls();
    tokio::select! {
        () = all_struck(&simulator) => {}
        _ = try_post(&simulator, "/token/", credentials) => panic!("the call is on its way for longer"),
    }
    let late = timeout(SOON, watch.next()).await.unwrap();
    assert_eq!(late.outcome, Outcome::Accepted, "it arrives although the client has given up");
}

/// Returns when no fault waits any more: its call has been read.
async fn all_struck(simulator: &Simulator) {
    while !simulator.waiting_faults().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn faults_keep_to_their_target_until_they_are_cleared() {
    let simulator = start().await;
    let login = login_v2(&simulator).await;
    simulator.inject(Fault::new(FaultKind::Empty).on(Target::Wallet).until_cleared());
    for _ in 0..3 {
        assert_eq!(wallet(&simulator, login.access()).await.body.as_str(), Some(""));
    }
    assert_eq!(login_v2(&simulator).await.status, 200);
    simulator.clear_faults();
    assert!(wallet(&simulator, login.access()).await.body.is_object());
}

#[tokio::test]
async fn flaky_calls_fail_by_chance_and_the_others_are_right() {
    let simulator = start().await;
    simulator.set(|settings| settings.limit.calls = 1000);
    let kinds = vec![FaultKind::Html { status: 502 }, FaultKind::ResetBefore];
    simulator.inject(Fault::new(FaultKind::Flaky { probability: 0.5, seed: 1, kinds }).until_cleared());
    let (mut right, mut struck) = (0, 0);
    for _ in 0..40 {
        match try_post(&simulator, "/token/", v3(&simulator.credentials())).await {
            Ok(answer) if answer.status == 200 => right += 1,
            _ => struck += 1,
        }
    }
    assert!(right > 5 && struck > 5, "{right} right, {struck} struck");
    let calls = simulator.calls();
    assert_eq!(calls.iter().filter(|call| call.fault.is_some()).count(), struck);
}

#[tokio::test]
async fn a_reset_is_seen_over_a_login_too() {
    let simulator = start().await;
    simulator.inject(Fault::new(FaultKind::ResetAfter));
    assert_eq!(io_kind(&failed_login(&simulator).await), Some(io::ErrorKind::ConnectionReset));
}
