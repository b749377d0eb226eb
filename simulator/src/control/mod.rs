//! The control API: everything a Rust test does through the handle, over HTTP, for tests in any language.
//!
//! It has no authentication, so it is for loopback. Bodies must say that they are JSON, which a web page can't make a
//! browser send across origins without being asked first.

mod route;

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api;
use crate::callback::{self, CallbackSpec, DeliveryPlan};
use crate::duration::{self, Plain};
use crate::fault::Fault;
use crate::server::{Body, Command, Shared, read_body, with_body};
use crate::settings::SettingsPatch;

use route::{Query, Route};

/// Where every path of the control API begins.
pub(crate) const PREFIX: &str = "/_simulator";

const HELP: &str = include_str!("help.txt");

/// The longest that a request for calls waits for one.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// Why a request was not carried out.
struct Refusal {
    status: StatusCode,
    reason: String,
}

impl Refusal {
    fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    fn bad(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }
}

/// Answers a request whose path begins with [`PREFIX`].
pub(crate) async fn handle(request: Request<Incoming>, shared: &Shared) -> Response<Body> {
    match carry_out(request, shared).await {
        Ok(response) => response,
        Err(Refusal { status, reason }) => answer(status, &json!({ "error": reason })),
    }
}

async fn carry_out(request: Request<Incoming>, shared: &Shared) -> Result<Response<Body>, Refusal> {
    let (head, body) = request.into_parts();
    let route = Route::find(&head.method, head.uri.path())?;
    let query = Query::of(head.uri.query());
    let body = if matches!(head.method, Method::POST | Method::PATCH) {
        json_text(&head.headers, body).await?
    } else {
        String::new()
    };
    let done = |value: Value| Ok(answer(StatusCode::OK, &value));
    match route {
        Route::Help => Ok(text("text/plain; charset=utf-8", HELP.into())),
        Route::ShowSettings => done(shared.lock().settings.to_json()),
        Route::ChangeSettings => {
            let patch: SettingsPatch = read(&body)?;
            let mut state = shared.lock();
            patch.apply(&mut state.settings).map_err(Refusal::bad)?;
            done(state.settings.to_json())
        }
        Route::ShowFaults => done(json!({ "faults": shared.lock().faults.waiting() })),
        Route::AddFault => {
            let fault = Fault::from_json(&body).map_err(Refusal::bad)?;
            let mut state = shared.lock();
            state.faults.add(fault);
            done(json!({ "faults": state.faults.waiting() }))
        }
        Route::ClearFaults => {
            shared.lock().faults.clear();
            done(json!({ "faults": [] }))
        }
        Route::ShowCalls => done(calls(shared, &query).await?),
        Route::ForgetCalls => {
            shared.lock().log.clear();
            done(json!({ "calls": [] }))
        }
        Route::ResetLimit => {
            shared.lock().admitted.clear();
            done(json!({}))
        }
        Route::Callback => callback(shared, &body).await,
        Route::Revoke => done(revoke(shared, &read(&body)?)?),
        Route::Outage => outage(shared, read(&body)?).await,
    }
}

/// The calls after a number, and what they amount to. Waits for one if asked to and there is none yet.
async fn calls(shared: &Shared, query: &Query<'_>) -> Result<Value, Refusal> {
    query.only(&["after", "wait"])?;
    let after = query.get("after").map_or(Ok(0), str::parse);
    let after = after.map_err(|_| Refusal::bad("after must be the number of a call"))?;
    let wait = query.get("wait").map_or(Ok(Duration::ZERO), duration::parse).map_err(Refusal::bad)?;
    let mut arrived = shared.arrived.subscribe();
    let newer = arrived.wait_for(|&total| total > after);
    // Whether one came or time ran out: the answer is what there is.
    let _ = tokio::time::timeout(wait.min(LONGEST_WAIT), newer).await;
    let state = shared.lock();
    let calls = state.log.after(after);
    Ok(json!({
        "total": state.log.total(),
        "summary": {
            "token_calls": calls.to_token_endpoints().count(),
            "most_token_calls_in_60_s": calls.max_in_any_window(Duration::from_secs(60)),
            "shortest_gap_seconds": calls.shortest_gap().map(|gap| gap.as_secs_f64()),
            "refresh_tokens_presented_twice": calls.refreshed_twice(),
            "calls_with_dead_token": calls.with_dead_token().count(),
        },
        "calls": calls,
    }))
}

/// An order for a callback.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallbackOrder {
    /// Where to post it. Without it the body is the answer.
    url: Option<String>,
    #[serde(default)]
    callback: CallbackSpec,
    #[serde(default)]
    delivery: DeliveryPlan,
}

async fn callback(shared: &Shared, order: &str) -> Result<Response<Body>, Refusal> {
    let CallbackOrder { url, callback: spec, delivery: plan } = read(order)?;
    let body = shared.callback(&spec);
    let Some(url) = url else { return Ok(text(crate::wire::MEDIA_TYPE, body.into())) };
    let anywhere = shared.lock().settings.callbacks_anywhere;
    let delivery = callback::deliver(&url, body, &plan, anywhere).await;
    let delivery = delivery.map_err(|error| Refusal::bad(error.to_string()))?;
    Ok(answer(StatusCode::OK, &json!(delivery)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revocation {
    #[serde(default)]
    access_tokens: bool,
    #[serde(default)]
    refresh_tokens: bool,
}

fn revoke(shared: &Shared, which: &Revocation) -> Result<Value, Refusal> {
    if !which.access_tokens && !which.refresh_tokens {
        return Err(Refusal::bad(r#"say which: {"access_tokens": true}, {"refresh_tokens": true} or both"#));
    }
    let mut state = shared.lock();
    let now = api::server_time(&state.settings, &shared.clock);
    let access = if which.access_tokens { state.tokens.revoke_all(now) } else { 0 };
    let refresh = if which.refresh_tokens { state.tokens.spend_all(now) } else { 0 };
    Ok(json!({ "access_tokens": access, "refresh_tokens": refresh }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Outage {
    length: Plain,
}

async fn outage(
    shared: &Shared,
    Outage { length: Plain(length) }: Outage,
) -> Result<Response<Body>, Refusal> {
    let stopped = |_| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the simulator is stopping");
    shared.commands.send(Command::Outage(length)).await.map_err(stopped)?;
    Ok(answer(StatusCode::ACCEPTED, &json!({ "length": duration::friendly(length) })))
}

async fn json_text(headers: &HeaderMap, body: Incoming) -> Result<String, Refusal> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if media_type.split(';').next().map(str::trim) != Some("application/json") {
        let reason = "send JSON, and say so: Content-Type: application/json (curl --json does both)";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
    }
    let body = read_body(body).await.map_err(|reason| Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason))?;
    String::from_utf8(body.into()).map_err(|_| Refusal::bad("the body is not UTF-8"))
}

fn read<T: DeserializeOwned>(body: &str) -> Result<T, Refusal> {
    serde_json::from_str(body).map_err(|error| Refusal::bad(format!("the body can't be used: {error}")))
}

fn answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut body = format!("{value:#}");
    body.push('\n');
    let mut response = text("application/json", body.into());
    *response.status_mut() = status;
    response
}

fn text(media_type: &'static str, body: Bytes) -> Response<Body> {
    let mut response = with_body(StatusCode::OK, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
