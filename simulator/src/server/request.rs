//! From an HTTP request to a call of the API.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::connection::Peer;
use crate::api::Request;
use crate::log::Endpoint;
use crate::wire::{self, MEDIA_TYPE, NotUnderstood, Presented};

/// The largest request body that is read. The largest real one has less than 1 KiB.
const MAX_BODY: usize = 1 << 20;

/// Reads a call. A body that is too long or breaks off makes it one that isn't understood.
pub(super) async fn read(request: http::Request<Incoming>, peer: &Peer) -> Request {
    let (head, body) = request.into_parts();
    let client = peer.client;
    let endpoint = match endpoint(&head.method, head.uri.path()) {
        Ok(endpoint) => endpoint,
        Err(refusal) => return Request { client, endpoint: Endpoint::Other, presented: Err(refusal) },
    };
    let presented = match endpoint {
        Endpoint::Wallet => Ok(Presented::Bearer(bearer(&head.headers))),
        Endpoint::Login => body_of(&head.headers, body).await.and_then(|body| wire::read_login(&body)),
        Endpoint::Refresh => body_of(&head.headers, body).await.and_then(|body| wire::read_refresh(&body)),
        Endpoint::Ping | Endpoint::Other => Ok(Presented::Nothing),
    };
    Request { client, endpoint, presented }
}

fn endpoint(method: &Method, path: &str) -> Result<Endpoint, NotUnderstood> {
    let (expected, endpoint) = match path {
        "/token/" => (Method::POST, Endpoint::Login),
        "/token/refresh/" => (Method::POST, Endpoint::Refresh),
        "/ping" => (Method::GET, Endpoint::Ping),
        "/wallet/" => (Method::GET, Endpoint::Wallet),
        "/token" | "/token/refresh" | "/wallet" => {
            let detail = format!("Not found. Paths end with a slash here: {path}/");
            return Err(NotUnderstood::new(StatusCode::NOT_FOUND, detail));
        }
        _ => return Err(NotUnderstood::new(StatusCode::NOT_FOUND, "Not found.")),
    };
    if *method == expected {
        return Ok(endpoint);
    }
    Err(NotUnderstood::new(StatusCode::METHOD_NOT_ALLOWED, format!("Method \"{method}\" not allowed.")))
}

async fn body_of(headers: &HeaderMap, body: Incoming) -> Result<Bytes, NotUnderstood> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if media_type.split(';').next().map(str::trim) != Some(MEDIA_TYPE) {
        let detail = format!("Unsupported media type \"{media_type}\" in request; send {MEDIA_TYPE}.");
        return Err(NotUnderstood::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    read_body(body).await.map_err(|detail| NotUnderstood::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
}

/// Reads a body up to [`MAX_BODY`].
pub(crate) async fn read_body(body: Incoming) -> Result<Bytes, String> {
    let collected = Limited::new(body, MAX_BODY).collect().await;
    collected
        .map(http_body_util::Collected::to_bytes)
        .map_err(|error| format!("The body can't be read: {error}"))
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}
