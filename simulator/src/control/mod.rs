//! The control API.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::server::{Body, Shared, with_body};

/// Where every path of the control API begins.
pub(crate) const PREFIX: &str = "/_simulator";

#[expect(clippy::unused_async, reason = "not there yet")]
pub(crate) async fn handle(_request: Request<Incoming>, _shared: &Shared) -> Response<Body> {
    with_body(StatusCode::NOT_FOUND, Bytes::new())
}
