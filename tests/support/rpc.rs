//! A caller of the broker, on plain tonic: what a service would use, and nothing of the product's own client.

use std::{io, path::Path, time::Duration};

use b2binpay_broker::grpc::proto::{
    BrokerState, GetAccessTokenRequest, GetAccessTokenResponse, GetStatusRequest, GetStatusResponse,
    LockdownRequest, LockdownResponse, ReloadRequest, ReloadResponse, TokenReason, UnlockRequest,
    UnlockResponse, VerifySignRequest, VerifySignResponse, WatchAccessTokenRequest, WatchAccessTokenResponse,
    broker_admin_service_client::BrokerAdminServiceClient,
    token_broker_service_client::TokenBrokerServiceClient, verify_sign_request::Subject,
};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Code, Request, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;
use tower::service_fn;

use super::{PATIENCE, soon, users::connect_as};

/// A connection to the broker.
#[derive(Clone)]
pub struct Caller {
    pub channel: Channel,
}

/// What a caller can tell of an error.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    pub code: Code,
    pub reason: String,
    pub message: String,
    pub retry_after: Option<Duration>,
    pub fields: Vec<String>,
}

/// For answers, which have no `Debug` where they hold a token.
pub trait Answered {
    /// The error, which must be there.
    fn refused(self) -> Refused;
}

impl<T> Answered for Result<T, Refused> {
    fn refused(self) -> Refused {
        self.err().expect("an error")
    }
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().unwrap_or_else(|| panic!("an error without ErrorInfo: {status:?}"));
        assert_eq!(info.domain, "b2binpay-broker");
        Self {
            code: status.code(),
            reason: info.reason.clone(),
            message: status.message().to_owned(),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            fields: details
                .bad_request()
                .map(|bad| bad.field_violations.iter().map(|violation| violation.field.clone()).collect())
                .unwrap_or_default(),
        }
    }
}

impl Caller {
    /// A connection, made with the first call.
    pub fn to(socket: &Path) -> Self {
        let socket = socket.to_owned();
        Self::by(move || {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await }
        })
    }

    /// The same of another user. Takes root.
    pub fn to_as(socket: &Path, uid: u32) -> Self {
        let socket = socket.to_owned();
        Self::by(move || {
            let socket = socket.clone();
            async move { connect_as(&socket, uid).await }
        })
    }

    fn by<F>(connect: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<UnixStream>> + Send + 'static,
    {
        let connector = service_fn(move |_| {
            let connecting = connect();
            async move { connecting.await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        Self { channel: endpoint.connect_with_connector_lazy(connector) }
    }

    fn tokens(&self) -> TokenBrokerServiceClient<Channel> {
        TokenBrokerServiceClient::new(self.channel.clone())
    }

    /// Any token.
    pub async fn token(&self) -> Result<GetAccessTokenResponse, Refused> {
        self.token_for(Duration::ZERO, "", None).await
    }

    /// Whether it gets a token now. For one whose connection may be closed before it could ask, which is no
    /// answer that could be read.
    pub async fn is_served(&self) -> bool {
        let request = GetAccessTokenRequest { min_validity: None, rejected_token_id: String::new() };
        soon("an end of the call", self.tokens().get_access_token(request)).await.is_ok()
    }

    /// A token of at least this validity, other than the rejected one, within this time.
    pub async fn token_for(
        &self,
        min_validity: Duration,
        rejected: &str,
        timeout: Option<Duration>,
    ) -> Result<GetAccessTokenResponse, Refused> {
        let mut request = Request::new(GetAccessTokenRequest {
            min_validity: Some(min_validity.try_into().expect("a duration")),
            rejected_token_id: rejected.to_owned(),
        });
        if let Some(timeout) = timeout {
            request.set_timeout(timeout);
        }
        let mut tokens = self.tokens();
        let answer = soon("an answer to GetAccessToken", tokens.get_access_token(request)).await;
        answer.map(tonic::Response::into_inner).map_err(Refused::from)
    }

    /// A stream of tokens.
    pub async fn watch(&self) -> Result<Streaming<WatchAccessTokenResponse>, Refused> {
        let mut tokens = self.tokens();
        let answer = soon("a stream", tokens.watch_access_token(WatchAccessTokenRequest {})).await;
        answer.map(tonic::Response::into_inner).map_err(Refused::from)
    }

    /// A verdict.
    pub async fn verify(
        &self,
        subject: Subject,
        max_age: Option<Duration>,
    ) -> Result<VerifySignResponse, Refused> {
        let request = VerifySignRequest {
            subject: Some(subject),
            max_age: max_age.map(|age| age.try_into().expect("a duration")),
        };
        let mut tokens = self.tokens();
        let answer = soon("an answer to VerifySign", tokens.verify_sign(request)).await;
        answer.map(tonic::Response::into_inner).map_err(Refused::from)
    }

    /// How the broker is.
    pub async fn status(&self) -> Result<GetStatusResponse, Refused> {
        let mut admin = BrokerAdminServiceClient::new(self.channel.clone());
        let answer = soon("an answer to GetStatus", admin.get_status(GetStatusRequest {})).await;
        answer.map(tonic::Response::into_inner).map_err(Refused::from)
    }

    /// Has everything read again.
    pub async fn reload(&self) -> Result<ReloadResponse, Refused> {
        let mut admin = BrokerAdminServiceClient::new(self.channel.clone());
        let answer = soon("an answer to Reload", admin.reload(ReloadRequest {})).await;
        answer.map(tonic::Response::into_inner).map_err(Refused::from)
    }

    /// Locks out one caller, or everyone.
    pub async fn lockdown(&self, caller: Option<&str>, reason: &str) -> Result<LockdownResponse, Refused> {
        let mut admin = BrokerAdminServiceClient::new(self.channel.clone());
        let request = LockdownRequest { caller: caller.map(str::to_owned), reason: reason.to_owned() };
        let answer = soon("an answer to Lockdown", admin.lockdown(request)).await;
        answer.map(tonic::Response::into_inner).map_err(Refused::from)
    }

    /// Lets one caller, or everyone, in again.
    pub async fn unlock(&self, caller: Option<&str>) -> Result<UnlockResponse, Refused> {
        let mut admin = BrokerAdminServiceClient::new(self.channel.clone());
        let request = UnlockRequest { caller: caller.map(str::to_owned) };
        let answer = soon("an answer to Unlock", admin.unlock(request)).await;
        answer.map(tonic::Response::into_inner).map_err(Refused::from)
    }

    /// The state in the status.
    pub async fn state(&self) -> BrokerState {
        self.status().await.expect("the status may be read").state()
    }

    /// Asks how the broker is until it is so.
    pub async fn status_where(
        &self,
        what: &str,
        holds: impl Fn(&GetStatusResponse) -> bool,
    ) -> GetStatusResponse {
        let mut last = self.status().await.expect("the status may be read");
        let asking = async {
            while !holds(&last) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                last = self.status().await.expect("the status may be read");
            }
        };
        let came = tokio::time::timeout(PATIENCE, asking).await;
        assert!(came.is_ok(), "{what}: not within {PATIENCE:?}; the last was {last:#?}");
        last
    }

    /// Waits until it is in this state.
    pub async fn in_state(&self, state: BrokerState) -> GetStatusResponse {
        self.status_where(state.as_str_name(), |status| status.state() == state).await
    }
}

/// The next token of a stream, and why it is told.
pub async fn told(watch: &mut Streaming<WatchAccessTokenResponse>) -> (TokenReason, String) {
    let told = soon("a token on the stream", watch.message()).await.expect("it goes on").expect("it goes on");
    (told.reason(), told.token.expect("a token").token_id)
}

/// The error that ends a stream, whatever it says before.
pub async fn end_of<T>(stream: &mut Streaming<T>) -> Refused {
    loop {
        match soon("the end of the stream", stream.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended without a word"),
            Err(status) => return status.into(),
        }
    }
}
