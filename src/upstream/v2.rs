//! v2: a login gives an access token and a refresh token, signed; a refresh gives the next pair, unsigned.
//!
//! Times in v2's answers are by the upstream's clock, and only a login's answer says what time it is there. So a login
//! begins a chain: the reading of both clocks it makes travels with the refresh token, and its successors' ends are
//! converted with it. If the upstream's clock is set during a chain, that goes wrong; where the tokens are JWTs, their
//! own claims then limit the damage to the safe side.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    checks::{access_token, believable},
    client::{Call, Client},
    errors::accepted,
    jwt::claimed_lifetime,
    wire::{self, V2Attributes, unusable},
};
use crate::{
    clock::BootInstant,
    credentials::{ApiVersion, Credentials},
    issuer::{Answer, IssueError, TokenIssuer},
    secret::{ExposeSecret, SecretString},
    sign::{SignKey, parse_time},
    token::{Grant, RefreshToken, ServerClock},
};

pub(super) struct V2 {
    client: Client,
    credentials: Credentials,
    /// Under no key, no sign is right.
    key: Option<SignKey>,
}

impl V2 {
    pub(super) fn new(client: Client, credentials: Credentials) -> Self {
        let key = SignKey::of(&credentials);
        Self { client, credentials, key }
    }

    async fn log_in(&self, timeout: Duration) -> Result<Grant, IssueError> {
        let Credentials { key, secret, .. } = &self.credentials;
        let request = wire::v2_login(key, secret)?;
        self.client
            .call(Call::Login, request, timeout, |reply, asked_at| {
                let body = accepted(ApiVersion::V2, Call::Login, reply, &[key, secret])?;
                login_grant(body, asked_at, self.key.as_ref())
            })
            .await
    }

    async fn refresh(&self, token: &RefreshToken, timeout: Duration) -> Result<Grant, IssueError> {
        let request = wire::v2_refresh(&token.secret)?;
        self.client
            .call(Call::Refresh, request, timeout, |reply, asked_at| {
                let Credentials { key, secret, .. } = &self.credentials;
                let body = accepted(ApiVersion::V2, Call::Refresh, reply, &[&token.secret, key, secret])?;
                refresh_grant(body, asked_at, token.server_clock)
            })
            .await
    }
}

impl TokenIssuer for V2 {
    fn fetch_token(&self, timeout: Duration) -> Answer<'_> {
        Box::pin(self.log_in(timeout))
    }

    fn refresh_token<'a>(&'a self, token: &'a RefreshToken, timeout: Duration) -> Answer<'a> {
        Box::pin(self.refresh(token, timeout))
    }
}

/// What the body of a login's answer gives. Its sign is checked before anything in it is used.
fn login_grant(body: &[u8], asked_at: BootInstant, key: Option<&SignKey>) -> Result<Grant, IssueError> {
    let (attributes, meta) = wire::token_answer::<V2Attributes>(body)?;
    let (time, sign) = meta.map(|meta| (meta.time, meta.sign)).unwrap_or_default();
    let (time, sign) = time.zip(sign).ok_or(IssueError::WrongSign)?;
    let refresh = attributes.refresh.as_ref().map_or("", |refresh| refresh.expose_secret());
    if !key.is_some_and(|key| key.signs_token_response(&time, refresh, &sign)) {
        return Err(IssueError::WrongSign);
    }
    let server = parse_time(&time).map_err(|_| unusable("its meta.time is not a time"))?;
    let clock = ServerClock { boot: asked_at, server };
    grant(attributes, asked_at, clock, |_, _| None)
}

/// What the body of a refresh's answer gives, by the reading of the clocks that began its chain.
fn refresh_grant(body: &[u8], asked_at: BootInstant, clock: ServerClock) -> Result<Grant, IssueError> {
    let (attributes, _) = wire::token_answer::<V2Attributes>(body)?;
    grant(attributes, asked_at, clock, claimed_lifetime)
}

/// `hint` may know a lifetime that a token claims for itself; it can only shorten what `clock` says.
fn grant(
    attributes: V2Attributes,
    asked_at: BootInstant,
    clock: ServerClock,
    hint: impl Fn(&str, Timestamp) -> Option<Duration>,
) -> Result<Grant, IssueError> {
    let lifetime = |token: &SecretString, ends_at: Timestamp| {
        let by_clock = clock.boot_at(ends_at).unwrap_or_default().saturating_since(asked_at);
        hint(token.expose_secret(), ends_at).map_or(by_clock, |claimed| by_clock.min(claimed))
    };
    let access = access_token(attributes.access)?;
    let ends_at = attributes
        .access_expired_at
        .as_deref()
        .and_then(|text| parse_time(text).ok())
        .ok_or_else(|| unusable("it does not say when the access token ends"))?;
    // The access token is good whatever is wrong with the refresh token: without one, the next token takes a login.
    let refresh = attributes
        .refresh
        .filter(|refresh| !refresh.expose_secret().is_empty())
        .zip(attributes.refresh_expired_at.and_then(|text| parse_time(&text).ok()))
        .map(|(secret, ends_at)| {
            let expires_at = asked_at + lifetime(&secret, ends_at);
            RefreshToken { secret, expires_at, server_clock: clock }
        });
    Ok(Grant { lifetime: believable(lifetime(access.secret(), ends_at))?, access, asked_at, refresh })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::upstream::tests::{credentials, jwt, v2_sign};

    const ASKED_AT: BootInstant = BootInstant::since_boot(Duration::from_secs(1000));
    const TIME: &str = "2020-12-29T05:27:11.925654Z";

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn key() -> SignKey {
        SignKey::of(&credentials(ApiVersion::V2)).unwrap()
    }

    /// A login's answer, changed by `change` and then signed.
    fn signed(change: impl FnOnce(&mut Value)) -> Value {
        let mut body = json!({
            "data": {"type": "auth-token", "id": "0", "attributes": {
                "refresh": "r.e.f", "access": "a.c.c",
                "access_expired_at": "2020-12-29T05:42:11.925654Z",
                "refresh_expired_at": "2020-12-29T11:27:11.925654Z",
                "is_2fa_confirmed": false,
            }},
            "meta": {"time": TIME},
        });
        change(&mut body);
        let time = body["meta"]["time"].as_str().unwrap_or_default();
        let refresh = body["data"]["attributes"]["refresh"].as_str().unwrap_or_default();
        body["meta"]["sign"] = v2_sign(time, refresh).into();
        body
    }

    fn log_in(body: &Value) -> Result<Grant, IssueError> {
        login_grant(body.to_string().as_bytes(), ASKED_AT, Some(&key()))
    }

    fn attribute(name: &'static str, value: impl Into<Value>) -> impl FnOnce(&mut Value) {
        move |body| body["data"]["attributes"][name] = value.into()
    }

    mod a_login {
        use super::*;

        #[test]
        fn gives_both_tokens_and_begins_a_chain() {
            let grant = log_in(&signed(|_| ())).unwrap();
            assert_eq!(grant.access.secret().expose_secret(), "a.c.c");
            assert_eq!((grant.asked_at, grant.lifetime), (ASKED_AT, seconds(900)));
            let refresh = grant.refresh.unwrap();
            assert_eq!(refresh.secret.expose_secret(), "r.e.f");
            assert_eq!(refresh.expires_at, ASKED_AT + seconds(6 * 3600));
            assert_eq!(refresh.server_clock, ServerClock { boot: ASKED_AT, server: TIME.parse().unwrap() });
        }

        #[test]
        fn may_mix_offsets() {
            let grant =
                log_in(&signed(attribute("access_expired_at", "2020-12-29T08:42:11.925654+03:00"))).unwrap();
            assert_eq!(grant.lifetime, seconds(900));
            let grant = log_in(&signed(|body| body["meta"]["time"] = "2020-12-29T05:27:11-00:30".into()));
            assert_eq!(grant.unwrap_err().word(), "unusable", "05:27 half an hour west is after 05:42 UTC");
        }

        #[test]
        fn may_leave_out_the_fraction_of_a_second() {
            let body = signed(|body| {
                body["meta"]["time"] = "2020-12-29T05:27:11Z".into();
                body["data"]["attributes"]["access_expired_at"] = "2020-12-29T05:28:11Z".into();
            });
            assert_eq!(log_in(&body).unwrap().lifetime, seconds(60));
        }

        #[test]
        fn without_a_right_sign_is_not_used() {
            let sign = v2_sign(TIME, "r.e.f");
            let wrong = [
                Value::Null,
                "".into(),
                sign[..63].into(),
                format!("{sign}0").into(),
                v2_sign(TIME, "r.e.g").into(),
                v2_sign("2020-12-29T05:27:11.925655Z", "r.e.f").into(),
                "0".repeat(64).into(),
            ];
            for sign in wrong {
                let mut body = signed(|_| ());
                body["meta"]["sign"] = sign.clone();
                assert_eq!(log_in(&body).unwrap_err(), IssueError::WrongSign, "{sign}");
            }
            for cut in ["/meta", "/meta/sign", "/meta/time"] {
                let mut body = signed(|_| ());
                *body.pointer_mut(cut).unwrap() = Value::Null;
                assert_eq!(log_in(&body).unwrap_err(), IssueError::WrongSign, "{cut}");
            }
        }

        #[test]
        fn is_judged_by_its_sign_before_anything_else_in_it() {
            for (name, value) in [
                ("access", Value::Null),
                ("access", "a b".into()),
                ("access_expired_at", "never".into()),
                ("access_expired_at", TIME.into()),
            ] {
                let body = signed(attribute(name, value));
                assert_eq!(log_in(&body).unwrap_err().word(), "unusable", "{name}, signed");
                let mut forged = body;
                forged["meta"]["sign"] = "0".repeat(64).into();
                assert_eq!(log_in(&forged).unwrap_err(), IssueError::WrongSign, "{name}, forged");
            }
        }

        #[test]
        fn is_not_used_without_a_key_to_judge_it_by() {
            let body = signed(|_| ()).to_string();
            assert_eq!(login_grant(body.as_bytes(), ASKED_AT, None).unwrap_err(), IssueError::WrongSign);
        }

        #[test]
        fn with_a_time_that_is_none_is_unusable_even_when_signed() {
            for time in ["", "yesterday", "2020-12-29T05:27:11", "1609219631"] {
                let error = log_in(&signed(|body| body["meta"]["time"] = time.into())).unwrap_err();
                assert_eq!(error, unusable("its meta.time is not a time"), "{time:?}");
            }
        }

        #[test]
        fn with_an_impossible_lifetime_is_unusable() {
            for ends_at in [
                "2020-12-29T05:27:11.925654Z",
                "2020-12-29T05:27:16.925653Z",
                "2020-12-29T05:00:00Z",
                "2021-01-05T05:27:11.925655Z",
                "9999-12-30T00:00:00Z",
            ] {
                let error = log_in(&signed(attribute("access_expired_at", ends_at))).unwrap_err();
                assert_eq!(error.word(), "unusable", "{ends_at}");
            }
        }

        #[test]
        fn with_a_good_access_token_is_used_whatever_became_of_the_refresh_token() {
            for (name, value) in [
                ("refresh", Value::Null),
                ("refresh", "".into()),
                ("refresh_expired_at", Value::Null),
                ("refresh_expired_at", "never".into()),
            ] {
                let grant = log_in(&signed(attribute(name, value.clone()))).unwrap();
                assert_eq!(grant.lifetime, seconds(900));
                assert!(grant.refresh.is_none(), "{name}: {value}");
            }
        }
    }

    mod a_refresh {
        use super::*;

        /// Read at the login that began the chain, 800 s before the refresh.
        fn clock() -> ServerClock {
            ServerClock { boot: ASKED_AT - seconds(800), server: TIME.parse().unwrap() }
        }

        fn refresh(attributes: &Value) -> Result<Grant, IssueError> {
            let body =
                json!({"data": {"type": "auth-token", "id": null, "attributes": attributes}}).to_string();
            refresh_grant(body.as_bytes(), ASKED_AT, clock())
        }

        /// The answer of an upstream whose clock shows `second` when it makes tokens that live 900 s and 6 h.
        fn answer(second: i64, is_jwt: bool) -> Value {
            let text = |second: i64| Timestamp::from_second(second).unwrap().to_string();
            let token =
                |lifetime| if is_jwt { jwt(second, second + lifetime) } else { format!("opaque.{lifetime}") };
            json!({
                "access": token(900), "access_expired_at": text(second + 900),
                "refresh": token(21_600), "refresh_expired_at": text(second + 21_600),
            })
        }

        /// What the upstream's clock should show when asked.
        fn now() -> i64 {
            clock().server.as_second() + 800
        }

        #[test]
        fn is_measured_by_the_clock_of_its_chain() {
            let grant = refresh(&answer(now(), false)).unwrap();
            // The reading has 0.925654 s that the answer's whole seconds have not.
            assert_eq!(grant.lifetime, Duration::from_micros(900_000_000 - 925_654));
            let refresh = grant.refresh.unwrap();
            assert_eq!(refresh.expires_at, ASKED_AT + seconds(21_600) - Duration::from_micros(925_654));
            assert_eq!(refresh.server_clock, clock());
        }

        #[test]
        fn is_measured_by_what_its_tokens_claim_where_that_is_shorter() {
            let an_hour_ahead = answer(now() + 3600, true);
            let grant = refresh(&an_hour_ahead).unwrap();
            assert_eq!(grant.lifetime, seconds(900), "the upstream's clock was put forward");
            assert_eq!(grant.refresh.unwrap().expires_at, ASKED_AT + seconds(21_600));
        }

        #[test]
        fn is_not_lengthened_by_what_its_tokens_claim() {
            let ten_minutes_behind = answer(now() - 600, true);
            let lifetime = refresh(&ten_minutes_behind).unwrap().lifetime;
            assert_eq!(lifetime, Duration::from_micros(300_000_000 - 925_654));
            assert_eq!(refresh(&answer(now() - 3600, true)).unwrap_err().word(), "unusable");
        }

        #[test]
        fn is_not_shortened_by_a_token_that_speaks_of_another_end() {
            let mut answer = answer(now(), false);
            answer["access"] = jwt(now(), now() + 60).into();
            assert!(refresh(&answer).unwrap().lifetime > seconds(899));
        }

        #[test]
        fn may_come_without_its_wrapper() {
            let body =
                json!({"type": "auth-token", "id": "0", "attributes": answer(now(), true)}).to_string();
            assert!(refresh_grant(body.as_bytes(), ASKED_AT, clock()).unwrap().refresh.is_some());
        }

        #[test]
        fn without_a_successor_is_used_and_ends_the_chain() {
            let mut answer = answer(now(), true);
            answer["refresh"] = Value::Null;
            assert!(refresh(&answer).unwrap().refresh.is_none());
        }

        #[test]
        fn that_does_not_say_when_the_token_ends_is_unusable_whatever_the_token_claims() {
            let mut answer = answer(now(), true);
            answer["access_expired_at"] = Value::Null;
            let error = refresh(&answer).unwrap_err();
            assert_eq!(error, unusable("it does not say when the access token ends"));
        }
    }
}
