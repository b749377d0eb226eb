//! A connection without manners: it sends what a proper gRPC client would not, and leaves the deadline to the broker.

use std::{convert::Infallible, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt};
use http::{HeaderMap, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{net::UnixStream, sync::oneshot, task::JoinHandle};
use tonic::Status;

use b2binpay_broker::grpc::proto::{GetAccessTokenRequest, GetAccessTokenResponse};

use super::{Refused, soon};

pub const GET_ACCESS_TOKEN: &str = "/b2binpay.broker.v1.TokenBrokerService/GetAccessToken";
pub const WATCH_ACCESS_TOKEN: &str = "/b2binpay.broker.v1.TokenBrokerService/WatchAccessToken";
pub const VERIFY_SIGN: &str = "/b2binpay.broker.v1.TokenBrokerService/VerifySign";
pub const GET_STATUS: &str = "/b2binpay.broker.v1.BrokerAdminService/GetStatus";
pub const RELOAD: &str = "/b2binpay.broker.v1.BrokerAdminService/Reload";
pub const LOCKDOWN: &str = "/b2binpay.broker.v1.BrokerAdminService/Lockdown";
pub const UNLOCK: &str = "/b2binpay.broker.v1.BrokerAdminService/Unlock";
pub const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
pub const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";
pub const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
pub const REFLECTION_ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

/// Every method that is served.
pub const METHODS: [&str; 11] = [
    GET_ACCESS_TOKEN,
    WATCH_ACCESS_TOKEN,
    VERIFY_SIGN,
    GET_STATUS,
    RELOAD,
    LOCKDOWN,
    UNLOCK,
    HEALTH_CHECK,
    HEALTH_WATCH,
    REFLECTION,
    REFLECTION_ALPHA,
];

/// An HTTP/2 connection to the broker.
#[derive(Clone)]
pub struct RawCaller {
    connection: SendRequest<UnsyncBoxBody<Bytes, Infallible>>,
}

/// A caller that asks for so many tokens, has no room for the answers, and neither reads nor closes from then on: what it
/// asked for stays in the broker. For as long as what is returned is held.
pub async fn never_reads(socket: UnixStream, calls: usize) -> impl Sized {
    let mut client = http2::Builder::new(TokioExecutor::new());
    client.initial_stream_window_size(0);
    let (mut connection, driver) = client.handshake(TokioIo::new(socket)).await.expect("a connection");
    let mut driver = Box::pin(driver);
    // It speaks for as long as it takes to ask.
    let asks = async {
        let mut answers = Vec::new();
        for _ in 0..calls {
            let request = Request::post(format!("http://localhost{GET_ACCESS_TOKEN}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(Full::new(Bytes::from_static(&[0; 5])))
                .expect("a request");
            connection.ready().await.expect("a connection");
            answers.push(connection.send_request(request));
        }
        answers.swap_remove(0).await.expect("the head of an answer");
        answers
    };
    let answers = tokio::select! {
        answers = asks => answers,
        _ = &mut driver => panic!("the connection ended"),
    };
    (connection, driver, answers)
}

/// An answer as it came.
pub struct RawAnswer {
    pub http_status: StatusCode,
    /// The message, if there is one.
    pub message: Option<Bytes>,
    /// The status that ended it; `None` for OK.
    pub error: Option<Status>,
}

impl RawAnswer {
    /// The error in our words.
    pub fn refused(self) -> Refused {
        self.error.unwrap_or_else(|| panic!("answered with {:?} and no error", self.http_status)).into()
    }
}

impl RawCaller {
    /// Speaks HTTP/2 over `stream`.
    pub async fn over(stream: UnixStream) -> Self {
        let (connection, driver) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("a handshake");
        // Ends with the connection; what went wrong is seen by who sends.
        tokio::spawn(driver);
        Self { connection }
    }

    /// Sends these bytes as the message of a call. `Err`: there was no answer at all.
    pub async fn send(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        message: &[u8],
    ) -> Result<RawAnswer, hyper::Error> {
        self.send_body(path, headers, framed(message)).await
    }

    /// Begins a call, and leaves its message for later. The broker has let it in, or not, when this returns.
    pub async fn begin(&self, path: &'static str) -> BegunCall {
        let (message, coming) = oneshot::channel();
        let coming = coming.into_stream().filter_map(|message| std::future::ready(message.ok()));
        let body = StreamBody::new(coming.map(|message| Ok(Frame::data(message)))).boxed_unsync();
        let asking = self.clone();
        let (begun, on_its_way) = oneshot::channel();
        let answer = tokio::spawn(async move { asking.exchange(path, &[], body, Some(begun)).await });
        on_its_way.await.expect("it is on its way");
        // A connection's calls are let in one after the other.
        let after = self.send(GET_ACCESS_TOKEN, &[], &[]).await;
        after.expect("an answer to the call after it");
        BegunCall { message, answer }
    }

    /// Sends these bytes as the whole body of a call.
    pub async fn send_body(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<RawAnswer, hyper::Error> {
        let exchange = self.exchange(path, headers, Full::new(body).boxed_unsync(), None);
        soon(&format!("an answer to {path}"), exchange).await
    }

    /// Sends a call, says when its headers are on their way, and waits for its answer.
    async fn exchange(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: UnsyncBoxBody<Bytes, Infallible>,
        begun: Option<oneshot::Sender<()>>,
    ) -> Result<RawAnswer, hyper::Error> {
        let mut request = Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).expect("a request");
        let mut connection = self.connection.clone();
        connection.ready().await?;
        let response = connection.send_request(request);
        if let Some(begun) = begun {
            let _ = begun.send(());
        }
        let (head, body) = response.await?.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        Ok(answer(head.status, &head.headers, &trailers, &body.to_bytes()))
    }

    /// The token in hand. A deadline this short leaves no time to wait, so whoever gets a token has not waited.
    pub async fn token_in_hand(&self) -> Result<GetAccessTokenResponse, Refused> {
        self.token_within("1n", &GetAccessTokenRequest::default()).await
    }

    /// A token of at least this validity that is not the rejected one, asked for with a deadline that nobody but the broker
    /// looks at: a proper client may give the call up just before the broker's answer comes.
    pub async fn token_for(
        &self,
        min_validity: Duration,
        rejected: &str,
        timeout: Duration,
    ) -> Result<GetAccessTokenResponse, Refused> {
        let request = GetAccessTokenRequest {
            min_validity: Some(min_validity.try_into().expect("a duration")),
            rejected_token_id: rejected.to_owned(),
        };
        self.token_within(&format!("{}m", timeout.as_millis()), &request).await
    }

    /// A token, with this `grpc-timeout`, which nobody but the broker looks at.
    pub async fn token_within(
        &self,
        timeout: &str,
        request: &GetAccessTokenRequest,
    ) -> Result<GetAccessTokenResponse, Refused> {
        let answer = self
            .send(GET_ACCESS_TOKEN, &[("grpc-timeout", timeout)], &request.encode_to_vec())
            .await
            .expect("an answer");
        match answer.message.clone() {
            Some(message) if answer.error.is_none() => {
                Ok(GetAccessTokenResponse::decode(message).expect("a token"))
            }
            _ => Err(answer.refused()),
        }
    }
}

/// A call whose message is not sent yet.
pub struct BegunCall {
    message: oneshot::Sender<Bytes>,
    answer: JoinHandle<Result<RawAnswer, hyper::Error>>,
}

impl BegunCall {
    /// Sends these bytes as its message.
    pub async fn end(self, message: &[u8]) -> RawAnswer {
        // Nobody takes it where the answer came first.
        let _ = self.message.send(framed(message));
        soon("an answer", self.answer).await.expect("no panic").expect("an answer")
    }
}

/// A message behind its prefix.
fn framed(message: &[u8]) -> Bytes {
    let mut body = BytesMut::with_capacity(message.len() + 5);
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).expect("a short message"));
    body.put_slice(message);
    body.freeze()
}

fn answer(http_status: StatusCode, head: &HeaderMap, trailers: &HeaderMap, body: &Bytes) -> RawAnswer {
    let status = Status::from_header_map(trailers).or_else(|| Status::from_header_map(head));
    RawAnswer {
        http_status,
        message: (body.len() >= 5).then(|| body.slice(5..)),
        error: status.filter(|status| status.code() != tonic::Code::Ok),
    }
}
