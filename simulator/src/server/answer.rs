//! From a call to its HTTP answer, faults included.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use serde_json::json;

use super::connection::Peer;
use super::{Shared, request, spoil};
use crate::api::{self, Answer, Request};
use crate::control;
use crate::fault::{ErrorItem, FaultKind};
use crate::wire::MEDIA_TYPE;

/// A body that can be made to break off.
pub(crate) type Body = UnsyncBoxBody<Bytes, BrokenOff>;

/// Why a body breaks off: because it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("the simulator was told to break this body off")]
pub(crate) struct BrokenOff;

/// How many bytes of a slow body go out at a time.
const DRIP: usize = 8;
const MEBIBYTE: usize = 1 << 20;

pub(super) async fn answer(
    request: http::Request<Incoming>,
    peer: Peer,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Infallible> {
    if request.uri().path().starts_with(control::PREFIX) {
        return Ok(control::handle(request, &shared).await);
    }
    let request = request::read(request, &peer).await;
    // A task of its own, because a client that gives up doesn't take back a request that is on its way.
    let arrival = tokio::spawn(arrive(request, Arc::clone(&shared)));
    let Ok(Arrived { fault, mut answer }) = arrival.await else {
        return Ok(with_body(StatusCode::INTERNAL_SERVER_ERROR, Bytes::new()));
    };
    let (forms, now) = {
        let state = shared.lock();
        (state.settings.forms, api::server_time(&state.settings, &shared.clock))
    };
    if let (Some(kind), Some(answer)) = (&fault, &mut answer) {
        spoil::spoil(kind, answer, forms, now);
    }
    let mut response = match fault {
        None => plain(answer),
        Some(kind) => faulty(kind, answer, &peer).await,
    };
    // Without this hyper would put the machine's own time here.
    if let Ok(date) = HeaderValue::from_str(&api::http_date(now)) {
        response.headers_mut().insert(DATE, date);
    }
    Ok(response)
}

struct Arrived {
    fault: Option<FaultKind>,
    /// What the server made of the call, if it processed it.
    answer: Option<Answer>,
}

/// Chooses the call's fault, lets it travel, processes it, records it.
async fn arrive(request: Request, shared: Arc<Shared>) -> Arrived {
    let chosen = shared.lock().faults.strike(request.endpoint, request.generation());
    if let Some(delay) = chosen.as_ref().map(|chosen| chosen.delay).filter(|delay| !delay.is_zero()) {
        tokio::time::sleep(delay).await;
    }
    let mut state = shared.lock();
    let mut call = request.record(&shared.clock);
    let processed = chosen.as_ref().is_none_or(|chosen| chosen.processed);
    let answer = processed.then(|| state.process(&request, &shared.clock));
    let fault = chosen.map(|chosen| chosen.kind);
    if let Some(answer) = &answer {
        call.outcome = answer.outcome;
        call.counted = answer.counted;
        call.issued_access.clone_from(&answer.issued_access);
        call.issued_refresh.clone_from(&answer.issued_refresh);
    }
    call.fault = fault.as_ref().map(FaultKind::name);
    call.status = status_sent(fault.as_ref(), answer.as_ref()).map(|status| status.as_u16());
    shared.record(&mut state, call);
    Arrived { fault, answer }
}

/// The status that goes out, if one does.
fn status_sent(fault: Option<&FaultKind>, answer: Option<&Answer>) -> Option<StatusCode> {
    match fault {
        Some(FaultKind::Hang | FaultKind::ResetBefore | FaultKind::ResetAfter) => None,
        Some(
            FaultKind::Status { status, .. }
            | FaultKind::Html { status }
            | FaultKind::Redirect { status, .. },
        ) => Some(chosen_status(*status)),
        Some(FaultKind::Empty | FaultKind::HugeBody { .. } | FaultKind::BadJson) => Some(StatusCode::OK),
        _ => answer.map(|answer| answer.status),
    }
}

fn chosen_status(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn plain(answer: Option<Answer>) -> Response<Body> {
    // Only a fault that stands in for the server leaves a call without an answer, and that has one of its own.
    let Some(answer) = answer else { return with_body(StatusCode::INTERNAL_SERVER_ERROR, Bytes::new()) };
    let mut response = with_body(answer.status, Bytes::from(answer.body.to_string()));
    if let Some(value) = answer.retry_after.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(RETRY_AFTER, value);
    }
    response
}

async fn faulty(kind: FaultKind, answer: Option<Answer>, peer: &Peer) -> Response<Body> {
    match kind {
        FaultKind::Hang => std::future::pending().await,
        FaultKind::ResetBefore | FaultKind::ResetAfter => match peer.reset().await {},
        FaultKind::Status { status, errors, retry_after } => errors_body(status, &errors, retry_after),
        FaultKind::Html { status } => html(status),
        FaultKind::Empty => with_body(StatusCode::OK, Bytes::new()),
        FaultKind::BadJson => {
            with_body(StatusCode::OK, Bytes::from_static(br#"{"data":{"type":"auth-token","id":"0","attrib"#))
        }
        FaultKind::Redirect { location, status } => {
            let mut response = with_body(chosen_status(status), Bytes::new());
            if let Ok(location) = HeaderValue::from_str(&location) {
                response.headers_mut().insert(LOCATION, location);
            }
            response
        }
        FaultKind::HugeBody { mebibytes } => streamed(StatusCode::OK, |to| huge(to, mebibytes)),
        FaultKind::LateAnswer { by } => {
            tokio::time::sleep(by).await;
            plain(answer)
        }
        FaultKind::SlowBody { pause } => replaced(plain(answer), |body, to| slow(to, body, pause)).await,
        FaultKind::TruncatedBody => truncated(plain(answer)).await,
        _ => plain(answer),
    }
}

fn errors_body(status: u16, errors: &[ErrorItem], retry_after: Option<u64>) -> Response<Body> {
    let errors: Vec<_> = errors
        .iter()
        .map(|error| {
            let mut item = json!(error);
            item["status"] = status.to_string().into();
            item
        })
        .collect();
    let mut response = with_body(chosen_status(status), Bytes::from(json!({ "errors": errors }).to_string()));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

fn html(status: u16) -> Response<Body> {
    let status = chosen_status(status);
    let page = format!(
        "<html>\r\n<head><title>{status}</title></head>\r\n<body>\r\n<center><h1>{status}</h1></center>\r\n\
         <hr><center>simulated proxy</center>\r\n</body>\r\n</html>\r\n"
    );
    let mut response = with_body(status, Bytes::from(page));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    response
}

/// A response with a body of the API's media type.
pub(crate) fn with_body(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response
}

/// A response whose body is written by a task.
fn streamed<F>(status: StatusCode, write: impl FnOnce(Sender<Bytes, BrokenOff>) -> F) -> Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (to, body) = Channel::new(4);
    tokio::spawn(write(to));
    let mut response = with_body(status, Bytes::new());
    *response.body_mut() = body.boxed_unsync();
    response
}

/// The same response, its body written by a task that knows the whole of it. Its length stays announced.
async fn replaced<F>(
    response: Response<Body>,
    write: impl FnOnce(Bytes, Sender<Bytes, BrokenOff>) -> F,
) -> Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (head, body) = response.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let length = body.len();
    let mut response = streamed(head.status, |to| write(body, to));
    *response.headers_mut() = head.headers;
    response.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
    response
}

/// Half of the body that was announced, then the end of the connection (or, in HTTP/2, of the stream).
async fn truncated(response: Response<Body>) -> Response<Body> {
    replaced(response, |body, mut to| async move {
        if to.send_data(body.slice(..body.len() / 2)).await.is_ok() {
            // The connection has to have taken the first half before it hears of the end.
            while to.capacity() < to.max_capacity() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            to.abort(BrokenOff);
        }
    })
    .await
}

async fn slow(mut to: Sender<Bytes, BrokenOff>, body: Bytes, pause: Duration) {
    for start in (0..body.len()).step_by(DRIP) {
        tokio::time::sleep(pause).await;
        let part = body.slice(start..body.len().min(start + DRIP));
        if to.send_data(part).await.is_err() {
            return;
        }
    }
}

async fn huge(mut to: Sender<Bytes, BrokenOff>, mebibytes: u32) {
    let filler = Bytes::from(vec![b'a'; MEBIBYTE]);
    if to.send_data(Bytes::from_static(br#"{"data":{"type":"auth-token","id":""#)).await.is_err() {
        return;
    }
    for _ in 0..mebibytes {
        if to.send_data(filler.clone()).await.is_err() {
            return;
        }
    }
    let _ = to.send_data(Bytes::from_static(br#""}}"#)).await;
}
