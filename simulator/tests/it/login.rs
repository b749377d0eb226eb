//! `POST /token/`, in both generations.

use std::time::Duration;

use b2binpay_simulator::{Api, Credentials, Outcome, Settings, Simulator};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{MEDIA_TYPE, login_v2, login_v3, noon, post, simulator_at, start, v2, v3};

#[tokio::test]
async fn a_v2_login_gives_both_tokens_their_expiries_and_a_sign() {
    let simulator = simulator_at(&noon(), Settings::default()).await;
    let answer = login_v2(&simulator).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some(MEDIA_TYPE));
    assert_eq!(answer.text("/data/type"), "auth-token");
    assert_eq!(answer.text("/data/id"), "0");
    assert_eq!(answer.text("/meta/time"), "2020-12-29T12:00:00.123456Z");
    assert_eq!(answer.text("/data/attributes/access_expired_at"), "2020-12-29T12:15:00.123456Z");
    assert_eq!(answer.text("/data/attributes/refresh_expired_at"), "2020-12-29T18:00:00.123456Z");
    assert_eq!(answer.body.pointer("/data/attributes/is_2fa_confirmed"), Some(&json!(false)));
    assert!(simulator.is_live(answer.access()));
}

#[tokio::test]
async fn the_sign_of_a_v2_login_is_over_time_and_refresh_token() {
    let simulator = start().await;
    let answer = login_v2(&simulator).await;
    let Credentials { key, secret } = simulator.credentials();
    let signing_key = Sha256::digest(format!("{key}{secret}"));
    let mut mac = Hmac::<Sha256>::new_from_slice(&signing_key).unwrap();
    mac.update(format!("{}{}", answer.text("/meta/time"), answer.refresh()).as_bytes());
    let expected: Vec<_> = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(answer.text("/meta/sign"), expected.concat());
}

#[tokio::test]
async fn both_v2_tokens_are_jwts_that_tell_their_lifetime() {
    let answer = login_v2(&start().await).await;
    for (token, kind, lifetime) in [(answer.access(), "access", 900), (answer.refresh(), "refresh", 21600)] {
        let parts: Vec<_> = token.split('.').map(decoded).collect();
        let [header, claims, _signature] = &parts[..] else { panic!("three parts: {token}") };
        let header: Value = serde_json::from_slice(header).unwrap();
        let claims: Value = serde_json::from_slice(claims).unwrap();
        assert_eq!(header["alg"], "HS256");
        assert_eq!(claims["token_type"], kind);
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), lifetime);
    }
}

fn decoded(part: &str) -> Vec<u8> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits: Vec<_> = part.chars().map(|c| format!("{:06b}", ALPHABET.find(c).unwrap())).collect();
    let bits = bits.concat();
    let bytes = bits.as_bytes().chunks_exact(8);
    bytes.map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap()).collect()
}

#[tokio::test]
async fn a_v3_login_gives_an_access_token_and_its_seconds() {
    let simulator = start().await;
    let answer = login_v3(&simulator).await;
    assert_eq!(answer.status, 200);
    let attributes = answer.body.pointer("/data/attributes").unwrap();
    assert_eq!(attributes["expires_in"], 3599);
    assert_eq!(attributes["token_type"], "Bearer");
    assert_eq!(attributes.get("refresh"), None);
    assert_eq!(answer.body.get("meta"), None);
    assert!(simulator.is_live(answer.access()));
}

#[tokio::test]
async fn wrong_credentials_are_400_with_code_2006() {
    let simulator = start().await;
    let wrong = Credentials::new(simulator.credentials().key, "wrong");
    for attributes in [v2(&wrong), v3(&wrong)] {
        let answer = post(&simulator, "/token/", attributes).await;
        assert_eq!((answer.status, answer.code()), (400, Some("2006")));
        assert_eq!(answer.text("/errors/0/status"), "400");
        assert_eq!(answer.text("/errors/0/detail"), "No active account found with the given credentials");
    }
    assert_eq!(simulator.calls().count_of(Outcome::WrongCredentials), 2);
}

#[tokio::test]
async fn the_other_generation_is_refused() {
    let settings = |api| Settings { api, ..Settings::default() };
    let only_v2 = Simulator::start(settings(Api::V2)).await.unwrap();
    assert_eq!((login_v2(&only_v2).await.status, login_v3(&only_v2).await.status), (200, 400));
    let only_v3 = Simulator::start(settings(Api::V3)).await.unwrap();
    assert_eq!((login_v2(&only_v3).await.status, login_v3(&only_v3).await.status), (400, 200));
    let refreshed = post(&only_v3, "/token/refresh/", json!({ "refresh": "any" })).await;
    assert_eq!(refreshed.status, 404);
}

#[tokio::test]
async fn what_is_not_understood_is_refused_in_the_form_of_the_api() {
    let simulator = start().await;
    for attributes in [json!({}), json!({ "login": "a" }), json!({ "login": "a", "client_secret": "b" })] {
        let answer = post(&simulator, "/token/", attributes).await;
        assert_eq!(answer.status, 400);
        assert!(!answer.text("/errors/0/detail").is_empty());
    }
    let url = format!("{}/token/", simulator.base_url());
    let other_type = crate::support::client().post(&url).json(&json!({})).send().await.unwrap();
    assert_eq!(other_type.status(), 415);
    let other_method = crate::support::client().get(&url).send().await.unwrap();
    assert_eq!(other_method.status(), 405);
    let no_slash = post(&simulator, "/token", v2(&simulator.credentials())).await;
    assert_eq!(no_slash.status, 404);
    assert!(no_slash.text("/errors/0/detail").contains("/token/"));
}

#[tokio::test]
async fn a_lifetime_override_holds_for_both_generations() {
    let lifetime = Duration::from_secs(60);
    let settings = Settings { access_lifetime: Some(lifetime), ..Settings::default() };
    let simulator = simulator_at(&noon(), settings).await;
    let v2 = login_v2(&simulator).await;
    assert_eq!(v2.text("/data/attributes/access_expired_at"), "2020-12-29T12:01:00.123456Z");
    let v3 = login_v3(&simulator).await;
    assert_eq!(v3.body.pointer("/data/attributes/expires_in"), Some(&json!(60)));
    assert_eq!(simulator.expires_at(v3.access()), Some("2020-12-29T12:01:00.123456Z".parse().unwrap()));
}
