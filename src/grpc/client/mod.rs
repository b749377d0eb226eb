//! The other end: calls to a broker, as the commands make them.
//!
//! A [`Client`] is one connection for as long as it lasts; it does not connect again by itself, since whoever sits
//! before a terminal wants to be told. Every call ends within the timeout that the client was made with, whether the
//! broker is slow, stopped or gone; a stream must begin within it.
//!
//! Messages are those of [`proto`], and nobody outside needs to know the libraries that make them: [`time`] and [`span`]
//! turn their times into ours, and what goes wrong is a [`ConnectError`] or a [`CallError`].

mod endpoint;
mod errors;
#[cfg(test)]
mod tests;
mod times;

use std::time::Duration;

pub use endpoint::{ConnectError, Endpoint, NotAnEndpoint, Tls};
pub use errors::{CallError, Meaning};
pub use times::{span, time};
use tonic::{Request, Response, Status, Streaming, transport::Channel};

use super::proto::{
    self, GetAccessTokenResponse, GetStatusRequest, GetStatusResponse, LockdownRequest, LockdownResponse,
    ReloadRequest, ReloadResponse, TokenResponse, UnlockRequest, UnlockResponse, VerifySignRequest,
    VerifySignResponse, WatchAccessTokenRequest, WatchAccessTokenResponse,
    broker_admin_service_client::BrokerAdminServiceClient,
    token_broker_service_client::TokenBrokerServiceClient, verify_sign_request,
};

/// The largest answer that is taken: a status of a thousand callers is a tenth of it.
const LARGEST_ANSWER: usize = 4 << 20;

/// How long a reload is waited for at least: ten seconds for a turn, ten for the login, and room.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// What a caller needs of a token.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TokenWish {
    /// How long it must still be valid. `None`: the broker's floor.
    pub min_validity: Option<Duration>,
    /// The token that the upstream answered 401 to.
    pub rejected: Option<String>,
}

/// What to verify. No `Debug`: a refresh token is a secret.
pub enum Signed {
    /// The body of a callback.
    Callback(Vec<u8>),
    /// The signed part of a v2 answer of `/token/`.
    TokenResponse {
        /// `meta.time`
        time: String,
        /// `data.attributes.refresh`
        refresh_token: String,
        /// `meta.sign`
        sign: String,
    },
    /// Any message.
    Message {
        /// What was signed.
        message: Vec<u8>,
        /// Its sign in hex digits.
        sign: String,
    },
}

/// A connection to a broker.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    timeout: Duration,
}

impl Client {
    /// Connects. `timeout` is for this, and for each call from then on.
    pub async fn connect(
        endpoint: &Endpoint,
        tls: Option<&Tls>,
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let connecting = endpoint.connect(tls);
        let slow = || ConnectError::Slow { endpoint: endpoint.to_string(), timeout };
        let channel = tokio::time::timeout(timeout, connecting).await.map_err(|_| slow())??;
        Ok(Self { channel, timeout })
    }

    /// An access token.
    pub async fn token(&self, wish: TokenWish) -> Result<GetAccessTokenResponse, CallError> {
        let request = proto::GetAccessTokenRequest {
            min_validity: wish.min_validity.map(times::duration),
            rejected_token_id: wish.rejected.unwrap_or_default(),
        };
        let mut client = self.tokens();
        self.within_timeout(request, async |request| client.get_access_token(request).await).await
    }

    /// The current token, then each new one.
    pub async fn watch(&self) -> Result<TokenStream, CallError> {
        let mut client = self.tokens();
        // A deadline would end the stream: this call has none, only its beginning is waited for no longer.
        let opening = client.watch_access_token(WatchAccessTokenRequest {});
        let stream = ended(tokio::time::timeout(self.timeout, opening).await, self.timeout)?;
        Ok(TokenStream { stream, timeout: self.timeout })
    }

    /// Whether B2BINPAY signed it.
    pub async fn verify(
        &self,
        signed: Signed,
        max_age: Option<Duration>,
    ) -> Result<VerifySignResponse, CallError> {
        let subject = match signed {
            Signed::Callback(body) => verify_sign_request::Subject::Callback(body),
            Signed::TokenResponse { time, refresh_token, sign } => {
                verify_sign_request::Subject::TokenResponse(TokenResponse { time, refresh_token, sign })
            }
            Signed::Message { message, sign } => {
                verify_sign_request::Subject::SignedMessage(proto::SignedMessage { message, sign })
            }
        };
        let request = VerifySignRequest { subject: Some(subject), max_age: max_age.map(times::duration) };
        let mut client = self.tokens();
        self.within_timeout(request, async |request| client.verify_sign(request).await).await
    }

    /// How the broker is.
    pub async fn status(&self) -> Result<GetStatusResponse, CallError> {
        let mut client = self.admin();
        self.within_timeout(GetStatusRequest {}, async |request| client.get_status(request).await).await
    }

    /// Has the broker read everything again. Takes as long as a turn within the upstream's limit and a login may take, and so
    /// is waited for longer than other calls are.
    pub async fn reload(&self) -> Result<ReloadResponse, CallError> {
        let mut client = self.admin();
        let patient = Self { timeout: self.timeout.max(RELOAD_TIMEOUT), ..self.clone() };
        patient.within_timeout(ReloadRequest {}, async |request| client.reload(request).await).await
    }

    /// Locks out one caller, or everyone.
    pub async fn lockdown(
        &self,
        caller: Option<String>,
        reason: String,
    ) -> Result<LockdownResponse, CallError> {
        let mut client = self.admin();
        let request = LockdownRequest { caller, reason };
        self.within_timeout(request, async |request| client.lockdown(request).await).await
    }

    /// Lets one caller, or everyone, in again.
    pub async fn unlock(&self, caller: Option<String>) -> Result<UnlockResponse, CallError> {
        let mut client = self.admin();
        self.within_timeout(UnlockRequest { caller }, async |request| client.unlock(request).await).await
    }

    fn admin(&self) -> BrokerAdminServiceClient<Channel> {
        BrokerAdminServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER)
    }

    fn tokens(&self) -> TokenBrokerServiceClient<Channel> {
        TokenBrokerServiceClient::new(self.channel.clone()).max_decoding_message_size(LARGEST_ANSWER)
    }

    /// Makes a call that ends in time, and that the broker knows the end of: then it can say why there is no answer.
    async fn within_timeout<Q, A>(
        &self,
        message: Q,
        call: impl AsyncFnOnce(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, CallError> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        ended(tokio::time::timeout(self.timeout, call(request)).await, self.timeout)
    }
}

fn ended<A>(
    answer: Result<Result<Response<A>, Status>, tokio::time::error::Elapsed>,
    timeout: Duration,
) -> Result<A, CallError> {
    match answer {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(CallError::of(&status, timeout)),
        Err(_) => Err(CallError::slow(timeout)),
    }
}

/// Tokens as the broker gets them.
pub struct TokenStream {
    stream: Streaming<WatchAccessTokenResponse>,
    timeout: Duration,
}

impl TokenStream {
    /// The next token, or why there are no more. `None`: the broker ended the stream without a reason.
    pub async fn next(&mut self) -> Option<Result<WatchAccessTokenResponse, CallError>> {
        match self.stream.message().await {
            Ok(message) => message.map(Ok),
            Err(status) => Some(Err(CallError::of(&status, self.timeout))),
        }
    }
}
