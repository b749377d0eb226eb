//! The one HTTP client, which does nothing that it was not asked to.
//!
//! It presents a password, so: it follows no redirect (a 307 would carry the body to another host), sends nothing twice,
//! uses no proxy from the environment, trusts the authorities it is told to, and reads no more than it must.
//!
//! Each call has a connection of its own. Calls come minutes apart, a pooled connection would be dead after a suspend
//! without anybody knowing, and a request that died with it could not be told from one that was answered; a refresh
//! token would be lost for a handshake saved.
//!
//! Whether a failed request *left* decides whether its refresh token may be presented again. What tells is the body:
//! key, secret and refresh token are in nothing else, so as long as the transport has not asked for it, nobody out there
//! has seen them. This covers names that don't resolve, refused connections, failed handshakes, proxies that refuse, and
//! a deadline that strikes in any of these. From the moment the body is handed over, the request counts as sent.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use zeroize::Zeroizing;

use super::{BaseUrl, Settings, SetupError, describe::in_words, retry_after::retry_after};
use crate::{
    clock::{BootInstant, Clock},
    issuer::IssueError,
    token::Grant,
};

/// The most of an answer's body that is read. A real one has 2 KiB.
pub(super) const LONGEST_BODY: usize = 64 * 1024;

/// The most of an answer's headers that is read, over HTTP/2. Over HTTP/1 hyper has its own, larger limit.
const LONGEST_HEADERS: u32 = 16 * 1024;

const JSON_API: HeaderValue = HeaderValue::from_static("application/vnd.api+json");

const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// The calls there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Call {
    /// Credentials for a token.
    Login,
    /// A refresh token for a token.
    Refresh,
}

impl Call {
    const fn path(self) -> &'static str {
        match self {
            Self::Login => "/token/",
            Self::Refresh => "/token/refresh/",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Refresh => "refresh",
        }
    }
}

/// An answer: at least its head came.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Counted from when the answer came.
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Body,
}

/// What came of an answer's body.
pub(super) enum Body {
    /// All of it.
    Whole(Zeroizing<Vec<u8>>),
    /// More than is read.
    TooLong,
    /// Not all of it; why.
    Lost(String),
}

pub(super) struct Client {
    http: reqwest::Client,
    base_url: BaseUrl,
    connect_timeout: Duration,
    request_timeout: Duration,
    clock: Arc<dyn Clock>,
}

impl Client {
    pub(super) fn new(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, SetupError> {
        let Settings { base_url, ca_pem, proxy, connect_timeout, request_timeout, api: _ } = settings;
        // reqwest would panic; and it prepares TLS even for an upstream that is spoken to without.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(SetupError::NoCryptoProvider);
        }
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .no_proxy()
            .https_only(!base_url.is_plaintext())
            .connect_timeout(connect_timeout)
            .pool_max_idle_per_host(0)
            .http2_max_header_list_size(LONGEST_HEADERS)
            .user_agent(USER_AGENT);
        if base_url.is_plaintext() {
            // No authorities, so that a machine without any can talk to itself; and `localhost` is this machine even
            // where a name server says otherwise.
            let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            builder = builder
                .tls_certs_only([])
                .resolve_to_addrs("localhost", &loopback.map(|address| SocketAddr::new(address, 0)));
        } else if let Some(pem) = ca_pem {
            builder = builder.tls_certs_only(authorities(&pem)?);
        }
        if let Some(proxy) = proxy {
            if base_url.is_plaintext() {
                return Err(SetupError::PlaintextThroughProxy);
            }
            let proxy = reqwest::Proxy::all(proxy.as_str()).map_err(|error| setup(&error))?;
            builder = builder.proxy(proxy);
        }
        let http = builder.build().map_err(|error| setup(&error))?;
        Ok(Self { http, base_url, connect_timeout, request_timeout, clock })
    }

    /// Makes one call, which ends within `timeout`, and leaves a line about it in the log. `read` turns an answer, if
    /// one came, into what it gives, told when the call began.
    pub(super) async fn call(
        &self,
        call: Call,
        body: Zeroizing<Vec<u8>>,
        timeout: Duration,
        read: impl FnOnce(&Reply, BootInstant) -> Result<Grant, IssueError>,
    ) -> Result<Grant, IssueError> {
        let asked_at = self.clock.now().boot;
        let reply = self.exchange(call, body, timeout.min(self.request_timeout)).await;
        let took = self.clock.now().boot.saturating_since(asked_at);
        let status = reply.as_ref().ok().map(|reply| reply.status.as_u16());
        let grant = reply.and_then(|reply| read(&reply, asked_at));
        tracing::debug!(
            upstream = self.base_url.origin(),
            call = call.word(),
            outcome = grant.as_ref().err().map_or("granted", IssueError::word),
            status,
            ?took,
            "called the upstream"
        );
        grant
    }

    async fn exchange(
        &self,
        call: Call,
        body: Zeroizing<Vec<u8>>,
        timeout: Duration,
    ) -> Result<Reply, IssueError> {
        let sent = Arc::new(AtomicBool::new(false));
        let body = OneShot { content: Some(Bytes::from_owner(body)), sent: Arc::clone(&sent) };
        let request = self
            .http
            .post(self.base_url.join(call.path()))
            .header(CONTENT_TYPE, JSON_API)
            .header(ACCEPT, JSON_API)
            .body(reqwest::Body::wrap(body));

        // What is known when the deadline strikes: an answer's head is worth having without its body.
        let mut head = None;
        let exchange = async {
            let mut response = request.send().await.map_err(|error| self.in_words(&error))?;
            head = Some((response.status(), response.headers().clone()));
            read_body(&mut response).await
        };
        let body = match tokio::time::timeout(timeout, exchange).await {
            Ok(body) => body,
            Err(_) => Err(format!("timed out after {timeout:?}")),
        };
        if let Some((status, headers)) = head {
            let retry_after = retry_after(&headers, self.clock.now().wall);
            return Ok(Reply { status, headers, retry_after, body: body.unwrap_or_else(Body::Lost) });
        }
        let detail = body.err().unwrap_or_default();
        if sent.load(Ordering::Acquire) {
            Err(IssueError::AnswerLost { detail })
        } else {
            Err(IssueError::NotSent { detail })
        }
    }

    fn in_words(&self, error: &reqwest::Error) -> String {
        if error.is_timeout() && error.is_connect() {
            format!("no connection within {:?}", self.connect_timeout)
        } else {
            in_words(error)
        }
    }
}

async fn read_body(response: &mut reqwest::Response) -> Result<Body, String> {
    if response.content_length().is_some_and(|length| length > LONGEST_BODY as u64) {
        return Ok(Body::TooLong);
    }
    let mut body = Zeroizing::new(Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(|error| in_words(&error))? {
        if body.len() + chunk.len() > LONGEST_BODY {
            return Ok(Body::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Body::Whole(body))
}

fn authorities(pem: &[u8]) -> Result<Vec<reqwest::Certificate>, SetupError> {
    // reqwest would take what is PEM but no certificate, and fail later without saying why.
    let mut readable = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(pem)
        .map(|certificate| {
            let certificate = certificate.map_err(|_| SetupError::BadAuthorities)?;
            readable.add(certificate.clone()).map_err(|_| SetupError::BadAuthorities)?;
            reqwest::Certificate::from_der(&certificate).map_err(|_| SetupError::BadAuthorities)
        })
        .collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() { Err(SetupError::BadAuthorities) } else { Ok(certificates) }
}

fn setup(error: &reqwest::Error) -> SetupError {
    SetupError::Client { detail: in_words(error) }
}

/// A request's body, which notes that it was handed to the transport, and is handed over once.
struct OneShot {
    content: Option<Bytes>,
    sent: Arc<AtomicBool>,
}

impl HttpBody for OneShot {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.sent.store(true, Ordering::Release);
        Poll::Ready(self.content.take().map(|content| Ok(Frame::data(content))))
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.content.as_ref().map_or(0, |content| content.len() as u64))
    }
}
