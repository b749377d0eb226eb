//! Signs, as callers have them verified: what the simulator signs, and what it forges.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::time::Duration;

use b2binpay_broker::grpc::proto::{
    KeyGeneration, SignedMessage, TokenResponse, Verdict, VerifySignResponse, verify_sign_request::Subject,
};
use b2binpay_simulator::{
    Api, CallbackForm, CallbackKind, CallbackSpec, Credentials, Settings, Simulator, settings::Generation,
};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use support::{Answered, Caller, Daemon, Setup, World, generous, hex, soon};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;

const BOTH: [(Api, Generation); 2] = [(Api::V2, Generation::V2), (Api::V3, Generation::V3)];

/// A third hand at the formula: HMAC-SHA256 in hex.
fn sign(key: &[u8], message: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message.as_bytes());
    hex(&mac.finalize().into_bytes())
}

fn v2_key(credentials: &Credentials) -> Vec<u8> {
    Sha256::digest(format!("{}{}", credentials.key, credentials.secret)).to_vec()
}

#[expect(clippy::disallowed_methods, reason = "the callbacks' times are the wall clock's")]
fn ago(seconds: i64) -> String {
    (Timestamp::now() - SignedDuration::from_secs(seconds)).to_string()
}

async fn verdict(caller: &Caller, body: Vec<u8>, max_age: Option<Duration>) -> VerifySignResponse {
    caller.verify(Subject::Callback(body), max_age).await.unwrap()
}

#[tokio::test]
async fn callbacks_are_judged_under_both_apis() {
    for (api, generation) in BOTH {
        let world = World::of(api).await;
        let caller = world.caller();
        let made = |form| {
            let spec = CallbackSpec { api: generation, form, ..CallbackSpec::default() };
            world.simulator.callback(&spec)
        };

        let found = verdict(&caller, made(CallbackForm::Genuine), None).await;
        assert_eq!((found.verdict(), found.key_generation()), (Verdict::Valid, KeyGeneration::Current));
        let says = found.callback.unwrap();
        assert_eq!((says.kind.as_str(), says.id.as_str(), says.status), ("deposit", "11203", Some(2)));
        assert_eq!((says.amount.as_str(), says.tracking_id.as_str()), ("0.300000000000000000", "order-77"));
        assert_eq!(says.authenticated_fields, ["status", "amount", "tracking_id", "time"]);
        assert!(says.time.parse::<Timestamp>().is_ok(), "{}", says.time);

        for form in
            [CallbackForm::WrongSign, CallbackForm::OtherKey, CallbackForm::AmountChanged("9.3".to_owned())]
        {
            let found = verdict(&caller, made(form.clone()), None).await;
            assert_eq!(found.verdict(), Verdict::Invalid, "{form:?}");
            assert!(!found.reason.is_empty() && found.callback.is_none(), "{form:?}: {found:?}");
            assert_eq!(found.key_generation(), KeyGeneration::Unspecified);
        }

        let found = verdict(&caller, made(CallbackForm::NoTransfer), None).await;
        assert_eq!(found.verdict(), Verdict::Unsigned);
        assert!(found.reason.contains("API"), "{}", found.reason);
        let says = found.callback.unwrap();
        assert_eq!((says.status, says.amount.as_str()), (None, ""));
        assert!(says.authenticated_fields.is_empty());
    }
}

#[tokio::test]
async fn payouts_and_unusual_values_are_verified_as_they_are_written() {
    for (api, generation) in BOTH {
        let world = World::of(api).await;
        for spec in [
            CallbackSpec { kind: CallbackKind::Payout, ..CallbackSpec::default() },
            CallbackSpec { status: -3, tracking_id: String::new(), ..CallbackSpec::default() },
            CallbackSpec { tracking_id: "zażółć \"😀\"\n".into(), ..CallbackSpec::default() },
            CallbackSpec { amount: "12".into(), exp: 0, ..CallbackSpec::default() },
            CallbackSpec { time: Some("2020-08-24T13:50:12+03:00".into()), ..CallbackSpec::default() },
        ] {
            let spec = CallbackSpec { api: generation, ..spec };
            let found = verdict(&world.caller(), world.simulator.callback(&spec), None).await;
            assert_eq!(found.verdict(), Verdict::Valid, "{spec:?}: {}", found.reason);
            let says = found.callback.unwrap();
            assert_eq!(
                (says.status, says.amount, says.tracking_id),
                (Some(spec.status), spec.amount, spec.tracking_id)
            );
        }
        // A right sign is not enough: more decimals than the currency has.
        let spec =
            CallbackSpec { api: generation, amount: "0.123".into(), exp: 2, ..CallbackSpec::default() };
        let found = verdict(&world.caller(), world.simulator.callback(&spec), None).await;
        assert_eq!(found.verdict(), Verdict::Invalid);
        assert!(found.reason.contains("decimals"), "{}", found.reason);
    }
}

#[tokio::test]
async fn a_changed_byte_is_noticed() {
    let world = World::of(Api::V3).await;
    let genuine = String::from_utf8(world.simulator.callback(&CallbackSpec::default())).unwrap();
    for (was, is) in
        [("order-77", "order-78"), ("\"status\":2", "\"status\":1"), ("0.300000000000000000", "0.3")]
    {
        assert!(genuine.contains(was), "{was}");
        let found = verdict(&world.caller(), genuine.replace(was, is).into_bytes(), None).await;
        assert_eq!(found.verdict(), Verdict::Invalid, "{was} → {is}");
    }
}

#[tokio::test]
async fn max_age_makes_old_and_future_callbacks_stale() {
    let world = World::of(Api::V3).await;
    let minute = Some(Duration::from_secs(60));
    for (time, max_age, wanted) in [
        (ago(10), minute, Verdict::Valid),
        (ago(120), minute, Verdict::Stale),
        (ago(120), None, Verdict::Valid),
        (ago(-30), minute, Verdict::Valid),
        (ago(-120), minute, Verdict::Stale),
        (ago(86_400), Some(Duration::from_secs(2 * 86_400)), Verdict::Valid),
    ] {
        let spec = CallbackSpec { time: Some(time.clone()), ..CallbackSpec::default() };
        let found = verdict(&world.caller(), world.simulator.callback(&spec), max_age).await;
        assert_eq!(found.verdict(), wanted, "{time}, {max_age:?}: {}", found.reason);
        assert!(found.callback.is_some());
        assert_eq!(found.key_generation(), KeyGeneration::Current);
        // What is forged is not merely old.
        let forged = CallbackSpec { form: CallbackForm::WrongSign, ..spec };
        let found = verdict(&world.caller(), world.simulator.callback(&forged), max_age).await;
        assert_eq!(found.verdict(), Verdict::Invalid);
    }
}

#[tokio::test]
async fn signs_are_verified_without_a_token_and_without_the_upstream() {
    let simulator = Simulator::start(generous(Api::V3)).await.unwrap();
    simulator.pause_listening().await;
    let daemon = Daemon::start(&simulator, Setup::default()).await;
    let body = simulator.callback(&CallbackSpec::default());
    assert_eq!(verdict(&daemon.caller(), body, None).await.verdict(), Verdict::Valid);
    assert!(daemon.caller().token().await.is_err());
}

#[tokio::test]
async fn the_previous_credentials_are_good_for_signs_until_their_time() {
    for (api, generation) in BOTH {
        // The account before the rotation, and what it signed.
        let before = Settings {
            credentials: Credentials::new("previous-key", "previous-secret"),
            callback_secret: "previous-callback-secret".to_owned(),
            ..generous(api)
        };
        let old = Simulator::start(before.clone()).await.unwrap();
        let new = Simulator::start(generous(api)).await.unwrap();
        let spec = CallbackSpec { api: generation, ..CallbackSpec::default() };
        let (signed_before, signed_now) = (old.callback(&spec), new.callback(&spec));

        for (until, wanted) in
            [("2099-01-01T00:00:00Z", Verdict::Valid), ("2020-01-01T00:00:00Z", Verdict::Invalid)]
        {
            let callback_secret = match api {
                Api::V2 => "",
                _ => "callback_secret_file = \"old-callback-secret\"",
            };
            let word = if api == Api::V2 { "v2" } else { "v3" };
            let rest = format!(
                "[credentials.previous]\napi = \"{word}\"\nkey_file = \"old-key\"\nsecret_file = \"old-secret\"\n\
                 {callback_secret}\nuntil = {until}\n"
            );
            let home = support::Home::new(&new, &Setup { rest, ..Setup::default() });
            home.write_secret("old-key", &before.credentials.key);
            home.write_secret("old-secret", &before.credentials.secret);
            home.write_secret("old-callback-secret", &before.callback_secret);
            let daemon = Daemon::start_in(home).await;
            let caller = daemon.caller();

            let found = verdict(&caller, signed_before.clone(), None).await;
            assert_eq!(found.verdict(), wanted, "{api:?}, until {until}: {}", found.reason);
            if wanted == Verdict::Valid {
                assert_eq!(found.key_generation(), KeyGeneration::Previous);
            }
            let found = verdict(&caller, signed_now.clone(), None).await;
            assert_eq!((found.verdict(), found.key_generation()), (Verdict::Valid, KeyGeneration::Current));
            let status = caller.status().await.unwrap();
            assert_eq!(status.credentials.unwrap().previous_until.is_some(), wanted == Verdict::Valid);
        }
    }
}

#[tokio::test]
async fn the_previous_credentials_are_gone_the_moment_their_time_is_over() {
    let old =
        Simulator::start(Settings { callback_secret: "before".into(), ..generous(Api::V3) }).await.unwrap();
    let new = Simulator::start(generous(Api::V3)).await.unwrap();
    let until = ago(-4);
    let rest = format!(
        "[credentials.previous]\napi = \"v3\"\nkey_file = \"api-key\"\nsecret_file = \"api-secret\"\n\
         callback_secret_file = \"old-callback-secret\"\nuntil = {until}\n"
    );
    let home = support::Home::new(&new, &Setup { rest, ..Setup::default() });
    home.write_secret("old-callback-secret", "before");
    let daemon = Daemon::start_in(home).await;
    let caller = daemon.caller();
    let body = old.callback(&CallbackSpec::default());
    assert_eq!(verdict(&caller, body.clone(), None).await.verdict(), Verdict::Valid);
    soon("the end of its time", async {
        while verdict(&caller, body.clone(), None).await.verdict() == Verdict::Valid {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(ago(0) >= until, "it was gone before its time");
    assert!(caller.status().await.unwrap().credentials.unwrap().previous_until.is_none());
}

#[tokio::test]
async fn the_answer_to_a_v2_login_is_verified() {
    let world = World::of(Api::V2).await;
    let caller = world.caller();
    let genuine = log_in(&world.simulator).await;
    let judge =
        async |answer: TokenResponse| caller.verify(Subject::TokenResponse(answer), None).await.unwrap();
    let found = judge(genuine.clone()).await;
    assert_eq!((found.verdict(), found.key_generation()), (Verdict::Valid, KeyGeneration::Current));
    assert!(found.callback.is_none());
    for forged in [
        TokenResponse { refresh_token: format!("{}x", genuine.refresh_token), ..genuine.clone() },
        TokenResponse { time: ago(0), ..genuine.clone() },
        TokenResponse { sign: "00".repeat(32), ..genuine.clone() },
        TokenResponse { sign: String::new(), ..genuine.clone() },
        TokenResponse { sign: genuine.sign[..16].to_owned(), ..genuine.clone() },
        TokenResponse::default(),
    ] {
        assert_eq!(judge(forged).await.verdict(), Verdict::Invalid);
    }
    let upper = TokenResponse { sign: genuine.sign.to_uppercase(), ..genuine.clone() };
    assert_eq!(judge(upper).await.verdict(), Verdict::Valid);
    // By a hand that is neither ours nor the simulator's.
    let key = v2_key(&world.simulator.credentials());
    let ours =
        TokenResponse { time: ago(0), refresh_token: "r".into(), sign: sign(&key, &format!("{}r", ago(0))) };
    let ours = TokenResponse { sign: sign(&key, &format!("{}r", ours.time)), ..ours };
    assert_eq!(judge(ours).await.verdict(), Verdict::Valid);
}

/// A login of somebody who has the credentials and reads the answer as it stands on the wire.
async fn log_in(simulator: &Simulator) -> TokenResponse {
    let Credentials { key, secret } = simulator.credentials();
    let body =
        serde_json::json!({"data": {"type": "auth-token", "attributes": {"login": key, "password": secret}}})
            .to_string();
    let mut stream = TcpStream::connect(simulator.addr()).await.unwrap();
    let request = format!(
        "POST /token/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/vnd.api+json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    let answer: serde_json::Value = serde_json::from_str(body).unwrap();
    let text = |pointer| answer.pointer(pointer).and_then(serde_json::Value::as_str).unwrap().to_owned();
    TokenResponse {
        time: text("/meta/time"),
        refresh_token: text("/data/attributes/refresh"),
        sign: text("/meta/sign"),
    }
}

#[tokio::test]
async fn v3_signs_no_token_answers() {
    let world = World::of(Api::V3).await;
    let refused =
        world.caller().verify(Subject::TokenResponse(TokenResponse::default()), None).await.refused();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::InvalidArgument, "BAD_REQUEST"));
    assert!(refused.message.contains("v3 does not sign its token answers"), "{}", refused.message);
    assert_eq!(refused.retry_after, None);
}

#[tokio::test]
async fn messages_are_verified_under_the_configured_key() {
    for (api, _) in BOTH {
        let world = World::of(api).await;
        let settings = world.simulator.settings();
        let key = match api {
            Api::V2 => v2_key(&settings.credentials),
            _ => settings.callback_secret.into_bytes(),
        };
        let judge = async |message: &str, sign: String| {
            let subject = Subject::SignedMessage(SignedMessage { message: message.into(), sign });
            world.caller().verify(subject, None).await.unwrap()
        };
        for message in ["", "hello", "zażółć\n"] {
            let right = sign(&key, message);
            let found = judge(message, right.clone()).await;
            assert_eq!((found.verdict(), found.key_generation()), (Verdict::Valid, KeyGeneration::Current));
            let found = judge(&format!("{message}x"), right.clone()).await;
            assert_eq!(found.verdict(), Verdict::Invalid);
            assert!(!found.reason.contains(&right[..16]), "{}", found.reason);
            assert_eq!(judge(message, sign(b"another key", message)).await.verdict(), Verdict::Invalid);
        }
    }
}
