//! The vectors, which were computed by somebody else.

use serde::Deserialize;

use super::support::now;
use crate::{
    credentials::{ApiVersion, Credentials},
    sign::{Finding, SIGNED_FIELDS, SignKeys, Subject, Verdict, explain, verify},
};

#[derive(Deserialize)]
struct Vectors {
    login: String,
    password: String,
    callback_secret: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    key: String,
    verdict: String,
    #[serde(flatten)]
    subject: CaseSubject,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum CaseSubject {
    TokenResponse { time: String, refresh_token: String, sign: String },
    Callback { body: String, message: String },
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../tests/vectors/sign.json")).unwrap()
}

impl Vectors {
    fn keys(&self, api: &str) -> SignKeys {
        let api = match api {
            "v2" => ApiVersion::V2,
            "v3" => ApiVersion::V3,
            other => panic!("no such API: {other}"),
        };
        let current = Credentials {
            api,
            key: self.login.clone().into(),
            secret: self.password.clone().into(),
            callback_secret: Some(self.callback_secret.clone().into()),
        };
        SignKeys::new(&current, None)
    }
}

fn judged(keys: &SignKeys, subject: Subject<'_>) -> Finding {
    verify(keys, subject, None, now()).unwrap()
}

#[test]
fn every_vector_has_its_verdict() {
    let vectors = vectors();
    assert!(!vectors.cases.is_empty());
    for case in &vectors.cases {
        let keys = vectors.keys(&case.key);
        let finding = match &case.subject {
            CaseSubject::TokenResponse { time, refresh_token, sign } => {
                judged(&keys, Subject::TokenResponse { time, refresh_token, sign })
            }
            CaseSubject::Callback { body, .. } => judged(&keys, Subject::Callback(body.as_bytes())),
        };
        assert_eq!(finding.verdict.as_str(), case.verdict, "{}: {}", case.name, finding.reason);
    }
}

#[test]
fn every_valid_vector_is_invalid_with_one_byte_changed() {
    let vectors = vectors();
    let mut changes = 0;
    for case in vectors.cases.iter().filter(|case| case.verdict == "VALID") {
        let keys = vectors.keys(&case.key);
        match &case.subject {
            CaseSubject::TokenResponse { time, refresh_token, sign } => {
                for time in changed(time) {
                    let finding = judged(&keys, Subject::TokenResponse { time: &time, refresh_token, sign });
                    assert_eq!(finding.verdict, Verdict::Invalid, "{}: {time}", case.name);
                    changes += 1;
                }
                for token in changed(refresh_token) {
                    let finding = judged(&keys, Subject::TokenResponse { time, refresh_token: &token, sign });
                    assert_eq!(finding.verdict, Verdict::Invalid, "{}: {token}", case.name);
                    changes += 1;
                }
            }
            CaseSubject::Callback { body, .. } => {
                let facts = judged(&keys, Subject::Callback(body.as_bytes())).callback.unwrap();
                assert_eq!(facts.authenticated_fields, SIGNED_FIELDS);
                let members = [
                    ("amount", format!("\"{}\"", facts.amount)),
                    ("tracking_id", format!("\"{}\"", facts.tracking_id)),
                    ("time", format!("\"{}\"", facts.time)),
                    ("status", facts.status.unwrap().to_string()),
                ];
                for (name, value) in members {
                    let member = format!("\"{name}\":{value}");
                    assert_eq!(body.matches(&member).count(), 1, "{}: {member}", case.name);
                    for value in changed(&value) {
                        let body = body.replacen(&member, &format!("\"{name}\":{value}"), 1);
                        let verdict = verify(&keys, Subject::Callback(body.as_bytes()), None, now())
                            .map(|finding| finding.verdict);
                        assert!(matches!(verdict, Ok(Verdict::Invalid) | Err(_)), "{}: {value}", case.name);
                        changes += 1;
                    }
                }
            }
        }
    }
    assert!(changes > 100);
}

/// The text with one byte changed, in every place where that leaves a text.
fn changed(text: &str) -> Vec<String> {
    let flipped = (0..text.len()).map(|index| {
        let mut bytes = text.as_bytes().to_vec();
        bytes[index] ^= 1;
        String::from_utf8(bytes)
    });
    flipped.filter_map(Result::ok).collect()
}

#[test]
fn an_explanation_shows_the_message_that_each_vector_states() {
    for case in vectors().cases {
        let CaseSubject::Callback { body, message } = &case.subject else { continue };
        let explained = explain(body.as_bytes()).unwrap().message;
        match case.verdict.as_str() {
            "VALID" => assert_eq!(explained.as_deref(), Some(message.as_str()), "{}", case.name),
            "UNSIGNED" => assert_eq!(explained, None, "{}", case.name),
            _ => {}
        }
    }
}
