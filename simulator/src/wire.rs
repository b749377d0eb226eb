//! The bodies that go over the wire: reading requests, writing answers.

use http::StatusCode;
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::settings::{Forms, Generation, UtcOffset};

/// The media type of every body, both ways.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.api+json";

/// What a caller presents.
pub(crate) enum Presented {
    Nothing,
    Login { generation: Generation, key: String, secret: String },
    Refresh(String),
    Bearer(Option<String>),
}

/// A request that the API doesn't understand.
pub(crate) struct NotUnderstood {
    pub(crate) status: StatusCode,
    pub(crate) detail: String,
}

impl NotUnderstood {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into() }
    }

    fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }
}

#[derive(Deserialize)]
struct Document {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "type")]
    kind: String,
    attributes: Attributes,
}

#[derive(Deserialize)]
struct Attributes {
    login: Option<String>,
    password: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
    refresh: Option<String>,
}

fn attributes(body: &[u8]) -> Result<Attributes, NotUnderstood> {
    let document: Document = serde_json::from_slice(body).map_err(|error| {
        NotUnderstood::bad(format!("The body is not the expected JSON:API document: {error}"))
    })?;
    if document.data.kind == "auth-token" {
        Ok(document.data.attributes)
    } else {
        Err(NotUnderstood::bad("data.type must be auth-token."))
    }
}

/// Reads the body of `POST /token/`.
pub(crate) fn read_login(body: &[u8]) -> Result<Presented, NotUnderstood> {
    match attributes(body)? {
        Attributes {
            login: Some(key), password: Some(secret), client_id: None, client_secret: None, ..
        } => Ok(Presented::Login { generation: Generation::V2, key, secret }),
        Attributes {
            client_id: Some(key), client_secret: Some(secret), login: None, password: None, ..
        } => Ok(Presented::Login { generation: Generation::V3, key, secret }),
        _ => Err(NotUnderstood::bad(
            "data.attributes must hold login and password, or client_id and client_secret.",
        )),
    }
}

/// Reads the body of `POST /token/refresh/`.
pub(crate) fn read_refresh(body: &[u8]) -> Result<Presented, NotUnderstood> {
    let refresh = attributes(body)?.refresh;
    refresh.map(Presented::Refresh).ok_or_else(|| NotUnderstood::bad("data.attributes must hold refresh."))
}

/// An error body with one error.
pub(crate) fn error(status: StatusCode, code: Option<&str>, detail: &str) -> Value {
    let mut error = json!({ "status": status.as_str(), "detail": detail, "source": { "pointer": "/data" } });
    if let Some(code) = code {
        error["code"] = code.into();
    }
    json!({ "errors": [error] })
}

/// A time as the API writes it: microseconds or none, `Z` or an offset.
pub(crate) fn time(instant: Timestamp, fraction: bool, offset: UtcOffset) -> String {
    let printer = DateTimePrinter::new().precision(Some(if fraction { 6 } else { 0 }));
    match offset.0 {
        None => printer.timestamp_to_string(&instant),
        Some(offset) => printer.timestamp_with_offset_to_string(&instant, offset),
    }
}

/// What a v2 answer says.
pub(crate) struct V2Tokens<'a> {
    pub(crate) access: &'a str,
    pub(crate) access_expires: Timestamp,
    pub(crate) refresh: &'a str,
    pub(crate) refresh_expires: Timestamp,
}

impl V2Tokens<'_> {
    fn data(&self, forms: Forms) -> Value {
        json!({
            "type": "auth-token",
            "id": id(forms),
            "attributes": {
                "refresh": self.refresh,
                "access": self.access,
                "access_expired_at": time(self.access_expires, forms.fraction, forms.expiry_offset),
                "refresh_expired_at": time(self.refresh_expires, forms.fraction, UtcOffset::Z),
                "is_2fa_confirmed": false,
            },
        })
    }

    /// The answer to a login, with its `meta`.
    pub(crate) fn login(&self, forms: Forms, meta_time: &str, sign: &str) -> Value {
        json!({ "data": self.data(forms), "meta": { "time": meta_time, "sign": sign } })
    }

    /// The answer to a refresh, which has no `meta`.
    pub(crate) fn refresh(&self, forms: Forms) -> Value {
        let data = self.data(forms);
        if forms.refresh_at_top_level { data } else { json!({ "data": data }) }
    }
}

/// The answer to a v3 login.
pub(crate) fn v3_tokens(access: &str, expires_in: u64, forms: Forms) -> Value {
    let attributes = json!({ "access": access, "expires_in": expires_in, "token_type": "Bearer" });
    json!({ "data": { "type": "auth-token", "id": id(forms), "attributes": attributes } })
}

fn id(forms: Forms) -> Value {
    if forms.null_id { Value::Null } else { "0".into() }
}

/// The answer of `GET /wallet/`: a list with one wallet in it.
pub(crate) fn wallets() -> Value {
    json!({
        "data": [{
            "type": "wallet",
            "id": "318",
            "attributes": { "label": "Simulated wallet", "balance_confirmed": "12.500000000000000000" },
            "relationships": { "currency": { "data": { "type": "currency", "id": "1002" } } },
        }],
        "meta": { "pagination": { "page": 1, "pages": 1, "count": 1 } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_every_published_form() {
        let instant: Timestamp = "2020-08-24T10:50:12.192479Z".parse().unwrap();
        assert_eq!(time(instant, true, UtcOffset::Z), "2020-08-24T10:50:12.192479Z");
        assert_eq!(time(instant, false, UtcOffset::Z), "2020-08-24T10:50:12Z");
        assert_eq!(time(instant, true, "+03:00".parse().unwrap()), "2020-08-24T13:50:12.192479+03:00");
        assert_eq!(time(Timestamp::UNIX_EPOCH, true, UtcOffset::Z), "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn a_login_with_the_names_of_both_generations_is_not_understood() {
        let body =
            br#"{"data":{"type":"auth-token","attributes":{"login":"a","password":"b","client_id":"c"}}}"#;
        assert!(read_login(body).is_err());
    }
}
