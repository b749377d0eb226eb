//! From an answer to the body of a success, or to what the keeper may do next.
//!
//! The status decides, since it survives a body that is cut off or missing; codes decide only where one status stands
//! for several things. HTML is not the API's: its status says nothing about the credentials or the token, which its
//! sender has not looked at.

use http::{StatusCode, header::LOCATION};
use serde_json::Value;

use super::{
    client::{Body, Call, LONGEST_BODY, Reply},
    quote::quotable,
    wire::unusable,
};
use crate::{credentials::ApiVersion, issuer::IssueError, secret::SecretString};

/// v2's code for a wrong key or secret …
const NO_SUCH_ACCOUNT: &str = "2006";
/// … and the words that come with it, for answers that leave the code out.
const NO_SUCH_ACCOUNT_WORDS: &str = "no active account found";
/// v2's code for a refresh token that is spent, revoked or expired.
const BAD_REFRESH_TOKEN: &str = "2007";
/// The code for an address that is not on the account's allow-list.
const FOREIGN_ADDRESS: &str = "2016";

/// So many of an answer's errors are reported.
const MOST_ERRORS: usize = 3;

/// The body of an answer, if it is a success that has one. `secrets` are those of the call: a refusal can repeat what
/// was sent.
pub(super) fn accepted<'r>(
    api: ApiVersion,
    call: Call,
    reply: &'r Reply,
    secrets: &[&SecretString],
) -> Result<&'r [u8], IssueError> {
    match (reply.status, &reply.body) {
        (StatusCode::OK | StatusCode::CREATED, Body::Whole(body)) => Ok(body),
        (StatusCode::OK | StatusCode::CREATED, Body::TooLong) => {
            Err(unusable(&format!("it is longer than {LONGEST_BODY} bytes")))
        }
        (StatusCode::OK | StatusCode::CREATED, Body::Lost(why)) => {
            Err(IssueError::AnswerLost { detail: format!("it broke off: {why}") })
        }
        (status, _) if status.is_success() => {
            Err(unusable(&format!("its status is {}, with which no token comes", status.as_u16())))
        }
        _ => Err(refusal(api, call, reply, secrets)),
    }
}

/// What an answer that is not a success means.
fn refusal(api: ApiVersion, call: Call, reply: &Reply, secrets: &[&SecretString]) -> IssueError {
    let said = Said::read(&reply.body, secrets);
    let status = reply.status.as_u16();
    let in_full = || join(", ", [Some(status.to_string()), said.in_words()]);
    let failed =
        || IssueError::Failed { status, detail: join("; ", [said.in_words(), hint(reply, secrets)]) };
    match (call, reply.status) {
        (_, StatusCode::TOO_MANY_REQUESTS) => IssueError::Throttled { retry_after: reply.retry_after },
        (_, StatusCode::FORBIDDEN) if said.has(FOREIGN_ADDRESS) || !said.has_codes() => {
            IssueError::Forbidden { detail: in_full() }
        }
        _ if said.is_html => failed(),
        (Call::Refresh, StatusCode::UNAUTHORIZED) => IssueError::RefreshTokenRejected { detail: in_full() },
        (Call::Refresh, StatusCode::BAD_REQUEST) if said.has(BAD_REFRESH_TOKEN) => {
            IssueError::RefreshTokenRejected { detail: in_full() }
        }
        (Call::Login, StatusCode::UNAUTHORIZED) => IssueError::CredentialsRejected { detail: in_full() },
        (Call::Login, StatusCode::BAD_REQUEST) if api == ApiVersion::V3 || said.has_no_such_account() => {
            IssueError::CredentialsRejected { detail: in_full() }
        }
        _ => failed(),
    }
}

/// What the operator can look at, for statuses that come of a wrong `base_url` more often than of the API.
fn hint(reply: &Reply, secrets: &[&SecretString]) -> Option<String> {
    match reply.status {
        status if status.is_redirection() => {
            let target = reply
                .headers
                .get(LOCATION)
                .and_then(|location| location.to_str().ok())
                .and_then(|location| reqwest::Url::parse(location).ok())
                .map(|url| url.origin().ascii_serialization())
                .and_then(|origin| quotable(&origin, secrets).map(|origin| format!(" (to {origin})")))
                .unwrap_or_default();
            Some(format!(
                "redirects{target} are not followed, they could take the credentials anywhere: check upstream.base_url"
            ))
        }
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            Some("the API is not there: check upstream.base_url and upstream.api".to_owned())
        }
        _ => None,
    }
}

fn join(separator: &str, parts: impl IntoIterator<Item = Option<String>>) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(separator)
}

/// What the body of a refusal says.
#[derive(Default)]
struct Said {
    errors: Vec<SaidError>,
    /// What the body is, where it is not the API's.
    instead: Option<&'static str>,
    is_html: bool,
}

/// Meanings are taken from the words as they stand; only what is quoted of them goes through [`quotable`].
struct SaidError {
    code: Option<String>,
    is_no_such_account: bool,
    quoted: Option<String>,
}

impl SaidError {
    fn read(error: &Value, secrets: &[&SecretString]) -> Self {
        let code = error.get("code").and_then(code_text);
        let detail = error.get("detail").and_then(Value::as_str);
        let is_no_such_account = match (&code, detail) {
            (Some(code), _) => code == NO_SUCH_ACCOUNT,
            (None, Some(detail)) => detail.trim().to_ascii_lowercase().starts_with(NO_SUCH_ACCOUNT_WORDS),
            (None, None) => false,
        };
        let quoted_code =
            code.as_deref().and_then(|code| quotable(code, secrets)).map(|code| format!("code {code}"));
        let quoted_detail = detail.and_then(|detail| quotable(detail, secrets)).map(str::to_owned);
        let quoted = join(": ", [quoted_code, quoted_detail]);
        Self { code, is_no_such_account, quoted: (!quoted.is_empty()).then_some(quoted) }
    }
}

impl Said {
    fn read(body: &Body, secrets: &[&SecretString]) -> Self {
        let instead = |what| Self { instead: Some(what), ..Self::default() };
        let body = match body {
            Body::Whole(body) => body,
            Body::TooLong => return instead("with a body too long to read"),
            Body::Lost(_) => return instead("with a body that broke off"),
        };
        let Ok(mut value) = serde_json::from_slice::<Value>(body) else {
            return match body.trim_ascii().first() {
                None => instead("with an empty body"),
                Some(b'<') => {
                    Self { is_html: true, ..instead("with HTML, so from a proxy and not from the API") }
                }
                Some(_) => instead("with a body that is not JSON"),
            };
        };
        let errors = match value.get_mut("errors").map(Value::take) {
            Some(Value::Array(errors)) => errors,
            // Frameworks below the API write one error without the wrapper.
            _ => vec![value],
        };
        let errors = errors.iter().take(MOST_ERRORS).map(|error| SaidError::read(error, secrets)).collect();
        Self { errors, ..Self::default() }
    }

    fn has(&self, code: &str) -> bool {
        self.errors.iter().any(|error| error.code.as_deref() == Some(code))
    }

    fn has_codes(&self) -> bool {
        self.errors.iter().any(|error| error.code.is_some())
    }

    fn has_no_such_account(&self) -> bool {
        self.errors.iter().any(|error| error.is_no_such_account)
    }

    fn in_words(&self) -> Option<String> {
        let quoted = self.errors.iter().map(|error| error.quoted.clone());
        let words = join("; ", quoted.chain([self.instead.map(str::to_owned)]));
        (!words.is_empty()).then_some(words)
    }
}

/// A code as text: some senders write it as a number.
fn code_text(code: &Value) -> Option<String> {
    let text = match code {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let is_word = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    is_word.then_some(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;
    use zeroize::Zeroizing;

    use super::*;

    const LOGIN_FAILED: &str = r#"{"errors":[{"status":"400","code":"2006","detail":"No active account found with the given credentials","source":{"pointer":"/data"}}]}"#;

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            retry_after: None,
            body: Body::Whole(Zeroizing::new(body.as_bytes().to_vec())),
        }
    }

    fn meaning(api: ApiVersion, call: Call, status: u16, body: &str) -> IssueError {
        refusal(api, call, &reply(status, body), &[&SecretString::from("the-api-secret")])
    }

    fn login(status: u16, body: &str) -> IssueError {
        meaning(ApiVersion::V2, Call::Login, status, body)
    }

    fn refresh(status: u16, body: &str) -> IssueError {
        meaning(ApiVersion::V2, Call::Refresh, status, body)
    }

    fn failed(status: u16, detail: &str) -> IssueError {
        IssueError::Failed { status, detail: detail.to_owned() }
    }

    #[test]
    fn only_a_200_or_a_201_carries_a_token() {
        let word = |status, body| {
            accepted(ApiVersion::V3, Call::Login, &Reply { body, ..reply(status, "") }, &[])
                .map_or_else(|error| error.word(), |_| "accepted")
        };
        let whole = || Body::Whole(Zeroizing::new(b"{}".to_vec()));
        assert_eq!(word(200, whole()), "accepted");
        assert_eq!(word(201, whole()), "accepted");
        for status in [202, 204, 206, 299] {
            assert_eq!(word(status, whole()), "unusable", "{status}");
        }
        for status in [300, 304, 404, 418, 500, 599] {
            assert_eq!(word(status, whole()), "failed", "{status}");
        }
        assert_eq!(word(200, Body::TooLong), "unusable");
        assert_eq!(word(200, Body::Lost("connection reset".to_owned())), "answer_lost");
    }

    #[test]
    fn v2_says_that_the_credentials_are_wrong_by_a_code() {
        let rejected = |detail: &str| IssueError::CredentialsRejected { detail: detail.to_owned() };
        let words = "No active account found with the given credentials";
        assert_eq!(login(400, LOGIN_FAILED), rejected(&format!("400, code 2006: {words}")));
        assert_eq!(login(400, r#"{"errors":[{"code":2006}]}"#), rejected("400, code 2006"));
        assert_eq!(
            login(400, r#"{"errors":[{"code":"invalid","detail":"x"},{"code":"2006"}]}"#),
            rejected("400, code invalid: x; code 2006")
        );
        assert_eq!(
            login(400, &format!(r#"{{"errors":[{{"detail":"{words}"}}]}}"#)),
            rejected(&format!("400, {words}"))
        );
        assert_eq!(login(401, ""), rejected("401, with an empty body"));
    }

    #[test]
    fn any_other_400_of_v2_is_no_verdict_on_the_credentials() {
        assert_eq!(
            login(400, r#"{"errors":[{"code":"parse_error","detail":"JSON parse error"}]}"#),
            failed(400, "code parse_error: JSON parse error")
        );
        assert_eq!(login(400, r#"{"errors":[{}]}"#), failed(400, ""));
        assert_eq!(login(400, ""), failed(400, "with an empty body"));
        assert_eq!(refresh(400, LOGIN_FAILED).word(), "failed");
    }

    #[test]
    fn v3_says_that_the_credentials_are_wrong_by_the_status_alone() {
        for body in [LOGIN_FAILED, r#"{"errors":[]}"#, "", r#"{"errors":[{"code":"invalid"}]}"#] {
            let error = meaning(ApiVersion::V3, Call::Login, 400, body);
            assert_eq!(error.word(), "credentials_rejected", "{body}");
        }
    }

    #[test]
    fn a_refused_refresh_says_nothing_about_the_credentials() {
        let rejected = |detail: &str| IssueError::RefreshTokenRejected { detail: detail.to_owned() };
        assert_eq!(
            refresh(401, r#"{"errors":[{"code":"2007","detail":"Token is invalid or expired"}]}"#),
            rejected("401, code 2007: Token is invalid or expired")
        );
        assert_eq!(
            refresh(401, r#"{"detail":"Token is invalid","code":"token_not_valid"}"#),
            rejected("401, code token_not_valid: Token is invalid")
        );
        assert_eq!(refresh(400, r#"{"errors":[{"code":"2007"}]}"#), rejected("400, code 2007"));
    }

    #[test]
    fn html_is_no_verdict_on_what_its_sender_has_not_looked_at() {
        for (api, call, status) in [
            (ApiVersion::V3, Call::Login, 400),
            (ApiVersion::V2, Call::Login, 401),
            (ApiVersion::V2, Call::Refresh, 401),
        ] {
            assert_eq!(meaning(api, call, status, "\r\n<html>").word(), "failed", "{call:?}: {status}");
        }
    }

    #[test]
    fn a_403_forbids_the_address_unless_its_code_says_otherwise() {
        for (call, body) in [
            (Call::Login, r#"{"errors":[{"code":"2016"}]}"#),
            (Call::Refresh, r#"{"errors":[{"detail":"x"}]}"#),
            (Call::Login, ""),
            (Call::Login, "<html>"),
        ] {
            assert_eq!(meaning(ApiVersion::V2, call, 403, body).word(), "forbidden", "{body}");
        }
        assert_eq!(login(403, r#"{"errors":[{"code":"1234"}]}"#), failed(403, "code 1234"));
    }

    #[test]
    fn a_429_throttles_whatever_its_body() {
        for body in ["", "<html>", r#"{"errors":[{"code":"2006"}]}"#] {
            let reply = Reply { retry_after: Some(Duration::from_secs(7)), ..reply(429, body) };
            let error = refusal(ApiVersion::V2, Call::Refresh, &reply, &[]);
            assert_eq!(error, IssueError::Throttled { retry_after: Some(Duration::from_secs(7)) });
        }
    }

    #[test]
    fn a_redirect_says_what_to_check() {
        let mut reply = reply(307, "");
        reply
            .headers
            .insert(LOCATION, "https://user:x@evil.example/token/?x=the-api-secret".parse().unwrap());
        let error = refusal(ApiVersion::V3, Call::Login, &reply, &[]);
        let IssueError::Failed { status: 307, detail } = error else { panic!("{error:?}") };
        assert!(detail.contains("(to https://evil.example) are not followed"), "{detail}");
        assert!(detail.contains("check upstream.base_url"), "{detail}");
        assert!(!detail.contains("the-api-secret") && !detail.contains("user"), "{detail}");
    }

    #[test]
    fn a_status_speaks_for_itself_when_its_body_is_not_the_apis() {
        let from_a_proxy = "with HTML, so from a proxy and not from the API";
        assert_eq!(login(502, "<html><h1>Bad Gateway"), failed(502, from_a_proxy));
        assert_eq!(login(503, ""), failed(503, "with an empty body"));
        assert_eq!(login(500, "oops"), failed(500, "with a body that is not JSON"));
        for value in ["null", "[]", "7", r#""x""#, r#"{"errors":{}}"#, r#"{"errors":[1,null,"x"]}"#] {
            assert_eq!(login(500, value), failed(500, ""), "{value}");
        }
        assert_eq!(
            login(404, ""),
            failed(404, "with an empty body; the API is not there: check upstream.base_url and upstream.api")
        );
        let lost = Reply { body: Body::Lost("connection reset".to_owned()), ..reply(401, "") };
        assert_eq!(
            refusal(ApiVersion::V2, Call::Refresh, &lost, &[]),
            IssueError::RefreshTokenRejected { detail: "401, with a body that broke off".to_owned() }
        );
        let long = Reply { body: Body::TooLong, ..reply(500, "") };
        assert_eq!(
            refusal(ApiVersion::V2, Call::Login, &long, &[]),
            failed(500, "with a body too long to read")
        );
    }

    #[test]
    fn an_answer_that_repeats_a_secret_is_not_repeated() {
        for body in [
            r#"{"errors":[{"code":"2006","detail":"no account the-api-secret"}]}"#,
            r#"{"errors":[{"code":"2006","detail":"no account The%2DAPI-secret"}]}"#,
        ] {
            assert_eq!(
                login(400, body),
                IssueError::CredentialsRejected { detail: "400, code 2006".to_owned() },
                "{body}"
            );
        }
        assert_eq!(login(500, r#"{"errors":[{"code":"the-api-secret"}]}"#), failed(500, ""));
        assert_eq!(login(500, r#"{"errors":[{"code":"two words"}]}"#), failed(500, ""));
    }

    #[test]
    fn a_secret_that_looks_like_a_code_does_not_hide_what_the_code_means() {
        let error =
            refusal(ApiVersion::V2, Call::Login, &reply(400, LOGIN_FAILED), &[&SecretString::from("2006")]);
        assert_eq!(
            error,
            IssueError::CredentialsRejected {
                detail: "400, No active account found with the given credentials".to_owned()
            }
        );
    }

    #[test]
    fn many_errors_are_cut_short() {
        let body = format!(r#"{{"errors":[{}{{}}]}}"#, r#"{"code":"1"},"#.repeat(100));
        assert_eq!(login(500, &body), failed(500, "code 1; code 1; code 1"));
    }
}
