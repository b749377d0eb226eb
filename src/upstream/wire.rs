//! The JSON of both APIs, as it stands on the wire and nothing more.
//!
//! Reading is lenient where the upstream is known to vary (`id`, missing parts, the wrapper around a refresh's answer)
//! and strict where something is used. What can't be read is described by kind and place, never by content: it may be a
//! token.

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::error::Category;
use zeroize::Zeroizing;

use crate::{
    issuer::IssueError,
    secret::{ExposeSecret, SecretString},
};

/// `{"data":{"type":"auth-token","attributes":…}}`, what every call sends.
#[derive(Serialize)]
struct Request<A> {
    data: RequestData<A>,
}

#[derive(Serialize)]
struct RequestData<A> {
    r#type: &'static str,
    attributes: A,
}

/// What v2's `/token/` is asked with.
pub(super) fn v2_login(key: &SecretString, secret: &SecretString) -> Result<Zeroizing<Vec<u8>>, IssueError> {
    #[derive(Serialize)]
    struct Login<'a> {
        login: &'a str,
        password: &'a str,
    }
    request(Login { login: key.expose_secret(), password: secret.expose_secret() })
}

/// What v2's `/token/refresh/` is asked with.
pub(super) fn v2_refresh(refresh: &SecretString) -> Result<Zeroizing<Vec<u8>>, IssueError> {
    #[derive(Serialize)]
    struct Refresh<'a> {
        refresh: &'a str,
    }
    request(Refresh { refresh: refresh.expose_secret() })
}

/// What v3's `/token/` is asked with.
pub(super) fn v3_login(key: &SecretString, secret: &SecretString) -> Result<Zeroizing<Vec<u8>>, IssueError> {
    #[derive(Serialize)]
    struct Login<'a> {
        client_id: &'a str,
        client_secret: &'a str,
    }
    request(Login { client_id: key.expose_secret(), client_secret: secret.expose_secret() })
}

fn request(attributes: impl Serialize) -> Result<Zeroizing<Vec<u8>>, IssueError> {
    let request = Request { data: RequestData { r#type: "auth-token", attributes } };
    // Strings always become JSON; if one day they don't, then nothing was sent.
    serde_json::to_vec(&request)
        .map(Zeroizing::new)
        .map_err(|_| IssueError::NotSent { detail: "the request can't be written as JSON".to_owned() })
}

/// A successful answer. Its attributes stand in `data`, or, in one published form of v2's refresh, at the top.
#[derive(Deserialize)]
pub(super) struct TokenAnswer<A> {
    data: Option<Resource<A>>,
    attributes: Option<A>,
    /// Only in the answer to a login under v2.
    pub(super) meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Resource<A> {
    attributes: Option<A>,
}

/// v2's signature over its answer, and what it covers besides the refresh token.
#[derive(Deserialize)]
pub(super) struct Meta {
    /// As written: the sign is made of the text.
    pub(super) time: Option<String>,
    pub(super) sign: Option<String>,
}

/// What v2 gives.
#[derive(Deserialize)]
pub(super) struct V2Attributes {
    #[serde(default, deserialize_with = "secret")]
    pub(super) access: Option<SecretString>,
    #[serde(default, deserialize_with = "secret")]
    pub(super) refresh: Option<SecretString>,
    pub(super) access_expired_at: Option<String>,
    pub(super) refresh_expired_at: Option<String>,
}

/// What v3 gives.
#[derive(Deserialize)]
pub(super) struct V3Attributes {
    #[serde(default, deserialize_with = "secret")]
    pub(super) access: Option<SecretString>,
    #[serde(default, deserialize_with = "whole_seconds")]
    pub(super) expires_in: Option<u64>,
    pub(super) token_type: Option<String>,
}

/// Reads a successful answer's body.
pub(super) fn token_answer<A: de::DeserializeOwned>(body: &[u8]) -> Result<(A, Option<Meta>), IssueError> {
    let TokenAnswer { data, attributes, meta } =
        serde_json::from_slice(body).map_err(|error| unusable(&misread(body, &error)))?;
    let attributes = data.and_then(|data| data.attributes).or(attributes);
    Ok((attributes.ok_or_else(|| unusable("there is no token in it"))?, meta))
}

/// What makes a body unreadable. `serde_json`'s own text can quote the body.
fn misread(body: &[u8], error: &serde_json::Error) -> String {
    let place = format!("line {}, column {}", error.line(), error.column());
    match (body.trim_ascii().first(), error.classify()) {
        (None, _) => "it is empty".to_owned(),
        (Some(b'<'), _) => "it is HTML, so from a proxy and not from the API".to_owned(),
        (_, Category::Data) => format!("it is JSON, but not in the shape of a token answer ({place})"),
        (_, _) => format!("it is not JSON ({place})"),
    }
}

/// A success that nothing can be made of.
pub(super) fn unusable(detail: &str) -> IssueError {
    IssueError::Unusable { detail: detail.to_owned() }
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(SecretString::from))
}

/// A whole number, or a string of digits: some JSON libraries quote numbers.
fn whole_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Number(u64),
        Digits(String),
    }
    match Option::<Form>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Form::Number(seconds)) => Ok(Some(seconds)),
        Some(Form::Digits(digits)) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse().map(Some).map_err(|_| de::Error::custom("not a number of seconds"))
        }
        Some(Form::Digits(_)) => Err(de::Error::custom("not a number of seconds")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sent(body: Result<Zeroizing<Vec<u8>>, IssueError>) -> Value {
        serde_json::from_slice(&body.unwrap()).unwrap()
    }

    fn v2(body: &str) -> Result<(V2Attributes, Option<Meta>), IssueError> {
        token_answer(body.as_bytes())
    }

    fn expires_in(text: &str) -> Option<u64> {
        let body = format!(r#"{{"data":{{"attributes":{{"access":"a","expires_in":{text}}}}}}}"#);
        token_answer::<V3Attributes>(body.as_bytes()).ok().and_then(|(attributes, _)| attributes.expires_in)
    }

    fn detail<T>(result: Result<T, IssueError>) -> String {
        match result {
            Err(IssueError::Unusable { detail }) => detail,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("it was read"),
        }
    }

    #[test]
    fn requests_are_what_the_upstream_documents() {
        let (key, secret) = (SecretString::from("k\"ey"), SecretString::from("sécret\\"));
        let expect = |attributes| json!({"data": {"type": "auth-token", "attributes": attributes}});
        assert_eq!(sent(v2_login(&key, &secret)), expect(json!({"login": "k\"ey", "password": "sécret\\"})));
        assert_eq!(sent(v2_refresh(&key)), expect(json!({"refresh": "k\"ey"})));
        assert_eq!(
            sent(v3_login(&key, &secret)),
            expect(json!({"client_id": "k\"ey", "client_secret": "sécret\\"}))
        );
    }

    #[test]
    fn an_answer_is_read_whatever_its_id_and_with_or_without_its_wrapper() {
        for id in [r#""id":"0","#, r#""id":null,"#, r#""id":0,"#, ""] {
            let resource =
                format!(r#"{{"type":"auth-token",{id}"attributes":{{"access":"a","refresh":"r"}}}}"#);
            for body in [format!(r#"{{"data":{resource}}}"#), resource] {
                let (attributes, meta) = v2(&body).unwrap();
                assert_eq!(attributes.access.unwrap().expose_secret(), "a", "{body}");
                assert_eq!(attributes.refresh.unwrap().expose_secret(), "r", "{body}");
                assert!(meta.is_none());
            }
        }
    }

    #[test]
    fn a_body_that_is_no_answer_is_described_without_being_shown() {
        assert_eq!(detail(v2("")), "it is empty");
        assert_eq!(detail(v2(" \r\n")), "it is empty");
        assert!(detail(v2("\n<!DOCTYPE html>")).starts_with("it is HTML"));
        assert_eq!(detail(v2("{}")), "there is no token in it");
        assert_eq!(detail(v2(r#"{"data":null}"#)), "there is no token in it");
        let cut_short = detail(v2(r#"{"data":{"attributes":{"access":"s3cret"#));
        assert!(cut_short.starts_with("it is not JSON (line 1, column "), "{cut_short}");
        for body in [
            r#"{"data":{"attributes":{"access":{"s3cret":1}}}}"#,
            r#"{"data":{"attributes":{"access_expired_at":12,"access":"s3cret"}}}"#,
            r#"{"data":{"attributes":{"access":"s3cret","access":"s3cret"}}}"#,
            r#"{"data":"s3cret"}"#,
            r#""s3cret""#,
        ] {
            let detail = detail(v2(body));
            assert!(detail.starts_with("it is JSON, but not in the shape"), "{body}: {detail}");
            assert!(!detail.contains("s3cret"), "{detail}");
        }
    }

    #[test]
    fn a_lifetime_is_a_whole_number_or_its_digits() {
        assert_eq!(expires_in("3599"), Some(3599));
        assert_eq!(expires_in(r#""3599""#), Some(3599));
        for text in
            ["3599.0", "-1", r#""""#, r#""3599.0""#, r#""+5""#, r#"" 5""#, "true", "null", "[5]", "1e3"]
        {
            assert_eq!(expires_in(text), None, "{text}");
        }
    }
}
