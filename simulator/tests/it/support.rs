//! A plain HTTP client that sends what a client of the real API would send.

use std::sync::Once;
use std::time::Duration;

use b2binpay_simulator::{Credentials, ManualClock, Settings, Simulator};
use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) const MEDIA_TYPE: &str = "application/vnd.api+json";

/// Long enough for anything that happens at all, short enough to notice what doesn't.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// A text somewhere in the body.
    pub(crate) fn text(&self, pointer: &str) -> &str {
        self.body
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{pointer} in {}", self.body))
    }

    pub(crate) fn access(&self) -> &str {
        self.text("/data/attributes/access")
    }

    pub(crate) fn refresh(&self) -> &str {
        self.text("/data/attributes/refresh")
    }

    pub(crate) fn time(&self, pointer: &str) -> Timestamp {
        self.text(pointer).parse().unwrap()
    }

    pub(crate) fn code(&self) -> Option<&str> {
        self.body.pointer("/errors/0/code").and_then(Value::as_str)
    }
}

pub(crate) fn builder() -> reqwest::ClientBuilder {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy()
}

/// A client with connections of its own. It trusts no certificate, because reading the machine's takes longer than a
/// whole test.
pub(crate) fn client() -> reqwest::Client {
    builder().tls_certs_only([]).build().unwrap()
}

/// A simulator that serves both generations, at a time of its own.
pub(crate) async fn simulator_at(clock: &ManualClock, settings: Settings) -> Simulator {
    Simulator::builder().settings(settings).clock(clock.clone()).start().await.unwrap()
}

pub(crate) fn noon() -> ManualClock {
    ManualClock::new("2020-12-29T12:00:00.123456Z".parse().unwrap())
}

pub(crate) async fn start() -> Simulator {
    Simulator::start(Settings::default()).await.unwrap()
}

pub(crate) async fn try_post(
    simulator: &Simulator,
    path: &str,
    attributes: Value,
) -> reqwest::Result<Answer> {
    let body = json!({ "data": { "type": "auth-token", "attributes": attributes } });
    let request = client()
        .post(format!("{}{path}", simulator.base_url()))
        .header("content-type", MEDIA_TYPE)
        .body(body.to_string());
    read(request.send().await?).await
}

pub(crate) async fn read(response: reqwest::Response) -> reqwest::Result<Answer> {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Answer { status, headers, body })
}

pub(crate) async fn post(simulator: &Simulator, path: &str, attributes: Value) -> Answer {
    try_post(simulator, path, attributes).await.unwrap()
}

pub(crate) fn v2(Credentials { key, secret }: &Credentials) -> Value {
    json!({ "login": key, "password": secret })
}

pub(crate) fn v3(Credentials { key, secret }: &Credentials) -> Value {
    json!({ "client_id": key, "client_secret": secret })
}

pub(crate) async fn login_v2(simulator: &Simulator) -> Answer {
    post(simulator, "/token/", v2(&simulator.credentials())).await
}

pub(crate) async fn login_v3(simulator: &Simulator) -> Answer {
    post(simulator, "/token/", v3(&simulator.credentials())).await
}

pub(crate) async fn refresh(simulator: &Simulator, token: &str) -> Answer {
    post(simulator, "/token/refresh/", json!({ "refresh": token })).await
}

pub(crate) async fn wallet(simulator: &Simulator, token: &str) -> Answer {
    let request = client().get(format!("{}/wallet/", simulator.base_url())).bearer_auth(token);
    read(request.send().await.unwrap()).await.unwrap()
}
