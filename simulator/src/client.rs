//! The smallest HTTP client that does: one plain HTTP/1.1 connection for each call. For delivering callbacks, and for
//! the commands that talk to a running simulator.

use std::error::Error;
use std::io;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;

/// The longest answer that is read: a long record of calls has some MiB.
const MAX_ANSWER: usize = 256 << 20;

/// What to send where.
pub(crate) struct Call {
    pub(crate) method: Method,
    /// An absolute `http://` URL.
    pub(crate) uri: Uri,
    pub(crate) media_type: &'static str,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    #[error("the request can't be made: {0}")]
    Request(#[from] http::Error),
    #[error("the connection broke: {0}")]
    Broke(#[from] hyper::Error),
    #[error("the answer broke off: {0}")]
    Body(#[source] Box<dyn Error + Send + Sync>),
}

/// Sends one request and reads the whole answer.
pub(crate) async fn send(call: Call) -> Result<(StatusCode, Bytes), ClientError> {
    let host = call.uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let stream =
        TcpStream::connect((host, call.uri.port_u16().unwrap_or(80))).await.map_err(ClientError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let path = call.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let authority = call.uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let request = Request::builder()
        .method(call.method)
        .uri(path)
        .header(HOST, authority)
        .header(CONTENT_TYPE, call.media_type)
        .body(Full::new(call.body))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(ClientError::Body)?;
    connection.abort();
    Ok((status, body.to_bytes()))
}
