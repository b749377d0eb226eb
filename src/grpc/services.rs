//! The handlers: parse, ask the broker, convert. The guard has let the caller in.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status};

use super::{
    convert,
    deadline::deadline,
    errors::{ErrorReason, bad_field, not_reloaded, not_unlocked, refused, unverifiable},
    guard::Admitted,
    proto::{
        GetAccessTokenRequest, GetAccessTokenResponse, GetStatusRequest, GetStatusResponse, LockdownRequest,
        LockdownResponse, ReloadRequest, ReloadResponse, UnlockRequest, UnlockResponse, VerifySignRequest,
        VerifySignResponse, WatchAccessTokenRequest, WatchAccessTokenResponse,
        broker_admin_service_server::BrokerAdminService, token_broker_service_server::TokenBrokerService,
        verify_sign_request,
    },
    tls::TlsMaterial,
};
use crate::{
    audit::AdminAct,
    broker::{Broker, Reload, Reloaded, Requester, TokenRequest},
    caller::{CallerName, Peer},
    lockdown::NotAReason,
    policy::Permission,
    sign::Subject,
};

/// `TokenBrokerService`.
pub(super) struct Tokens {
    broker: Arc<Broker>,
}

impl Tokens {
    pub(super) const fn new(broker: Arc<Broker>) -> Self {
        Self { broker }
    }
}

/// Who sent it, and may still: the guard let it in when its headers came, and now its message is here. Every handler begins
/// with this.
fn sent_by<T>(request: &Request<T>) -> Result<(CallerName, Arc<Admitted>), Status> {
    // The guard puts it there for every request that it lets through.
    let missing = || ErrorReason::Internal.status("the request did not pass the guard");
    let admitted = request.extensions().get::<Arc<Admitted>>().cloned().ok_or_else(missing)?;
    Ok((admitted.judged()?, admitted))
}

/// The same, for what outlasts the request.
fn requester<T>(request: &Request<T>) -> Result<(CallerName, Arc<Peer>), Status> {
    sent_by(request).map(|(caller, admitted)| (caller, Arc::clone(&admitted.peer)))
}

fn token_request(request: &Request<GetAccessTokenRequest>, broker: &Broker) -> Result<TokenRequest, Status> {
    let asked = request.get_ref();
    let rejected = match asked.rejected_token_id.as_str() {
        "" => None,
        id => Some(id.parse().map_err(|error| bad_field("rejected_token_id", format!("{error}")))?),
    };
    Ok(TokenRequest {
        min_validity: convert::span("min_validity", asked.min_validity)?.unwrap_or_default(),
        rejected,
        deadline: deadline(request.metadata(), broker.now().boot)?,
    })
}

#[tonic::async_trait]
impl TokenBrokerService for Tokens {
    async fn get_access_token(
        &self,
        request: Request<GetAccessTokenRequest>,
    ) -> Result<Response<GetAccessTokenResponse>, Status> {
        let (caller, admitted) = sent_by(&request)?;
        let Admitted { peer, carried, .. } = &*admitted;
        let asked = token_request(&request, &self.broker)?;
        let token =
            self.broker.access_token(&caller, peer, asked).await.map_err(|refusal| refused(&refusal))?;
        carried.a_token();
        let now = self.broker.now();
        Ok(Response::new(convert::token(&token, &self.broker.upstream_of(&token), now)))
    }

    type WatchAccessTokenStream =
        Pin<Box<dyn Stream<Item = Result<WatchAccessTokenResponse, Status>> + Send>>;

    async fn watch_access_token(
        &self,
        request: Request<WatchAccessTokenRequest>,
    ) -> Result<Response<Self::WatchAccessTokenStream>, Status> {
        let (caller, admitted) = sent_by(&request)?;
        let peer = Arc::clone(&admitted.peer);
        let watch = self.broker.watch(&caller, peer).map_err(|refusal| refused(&refusal))?;
        let watching = (watch, admitted);
        let stream = stream::unfold(watching, async |(mut watch, admitted)| {
            let (token, reason) = match watch.next().await? {
                Ok(told) => told,
                Err(refusal) => return Some((Err(refused(&refusal)), (watch, admitted))),
            };
            if !admitted.is_who_it_was() {
                // It goes to nobody. The guard ends the stream, with the reason.
                return std::future::pending().await;
            }
            admitted.carried.a_token();
            let now = watch.broker().now();
            let message = WatchAccessTokenResponse {
                token: Some(convert::token(&token, &watch.broker().upstream_of(&token), now)),
                reason: convert::watch_reason(reason).into(),
            };
            Some((Ok(message), (watch, admitted)))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn verify_sign(
        &self,
        request: Request<VerifySignRequest>,
    ) -> Result<Response<VerifySignResponse>, Status> {
        let (_, admitted) = sent_by(&request)?;
        let asked = request.get_ref();
        let (permission, subject) = match &asked.subject {
            Some(verify_sign_request::Subject::Callback(body)) => {
                (Permission::VerifySign, Subject::Callback(body))
            }
            Some(verify_sign_request::Subject::TokenResponse(answer)) => {
                let subject = Subject::TokenResponse {
                    time: &answer.time,
                    refresh_token: &answer.refresh_token,
                    sign: &answer.sign,
                };
                (Permission::VerifySign, subject)
            }
            Some(verify_sign_request::Subject::SignedMessage(signed)) => {
                let subject = Subject::Message { message: &signed.message, sign: &signed.sign };
                (Permission::VerifySignMessage, subject)
            }
            None => {
                return Err(bad_field("subject", "set one of callback, token_response and signed_message"));
            }
        };
        admitted.count_as(permission);
        let caller = admitted.authorized(&[permission])?;
        let max_age = convert::span("max_age", asked.max_age)?;
        let found = self.broker.verify(&caller, &admitted.peer, subject, max_age);
        let found = found.map_err(|error| unverifiable(&error))?;
        Ok(Response::new(convert::finding(found)))
    }
}

/// `BrokerAdminService`.
pub(super) struct Admin {
    broker: Arc<Broker>,
    reload: Arc<dyn Reload>,
    ports: Vec<Arc<TlsMaterial>>,
}

impl Admin {
    pub(super) const fn new(
        broker: Arc<Broker>,
        reload: Arc<dyn Reload>,
        ports: Vec<Arc<TlsMaterial>>,
    ) -> Self {
        Self { broker, reload, ports }
    }

    /// Puts on record who asked for what makes no sense. What does, the broker puts on record.
    fn noted<T>(
        &self,
        asked: Result<T, Status>,
        act: AdminAct,
        by: (&CallerName, &Peer),
    ) -> Result<T, Status> {
        asked.inspect_err(|status| {
            let told = Err((ErrorReason::BadRequest.as_str(), status.message().to_owned()));
            self.broker.audit().admin(act, Some(by), told);
        })
    }

    /// Each of these two is a task of its own: a client that hangs up in between must not keep it from the record.
    async fn locked_down(
        &self,
        asked: &LockdownRequest,
        (caller, peer): (CallerName, Arc<Peer>),
    ) -> Result<LockdownResponse, Status> {
        let scope = convert::scope(asked.caller.as_deref());
        let understood = scope.and_then(|scope| {
            let not_one = |error: NotAReason| bad_field("reason", error.to_string());
            Ok((scope, asked.reason.parse().map_err(not_one)?))
        });
        let (scope, reason) = self.noted(understood, AdminAct::Lockdown, (&caller, &peer))?;
        let broker = Arc::clone(&self.broker);
        let locking = tokio::spawn(async move { broker.lockdown(scope, reason, (&caller, &peer)).await });
        let done = locking.await.map_err(|_| ErrorReason::Internal.status("the lockdown was broken off"))?;
        let done = done.map_err(|error| bad_field("caller", error.to_string()))?;
        Ok(convert::locked_down(done, self.broker.knows_holders_since()))
    }

    async fn unlocked(
        &self,
        asked: &UnlockRequest,
        (caller, peer): (CallerName, Arc<Peer>),
    ) -> Result<UnlockResponse, Status> {
        let scope =
            self.noted(convert::scope(asked.caller.as_deref()), AdminAct::Unlock, (&caller, &peer))?;
        let broker = Arc::clone(&self.broker);
        let unlocking = tokio::spawn(async move { broker.unlock(scope, (&caller, &peer)).await });
        let done =
            unlocking.await.map_err(|_| ErrorReason::Internal.status("the unlocking was broken off"))?;
        done.map(convert::unlocked).map_err(|refused| not_unlocked(&refused))
    }
}

#[tonic::async_trait]
impl BrokerAdminService for Admin {
    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        sent_by(&request)?;
        let now = self.broker.now().wall;
        let in_force: Vec<_> = self.ports.iter().map(|port| port.current()).collect();
        let certificates = in_force.iter().flat_map(|port| port.facts());
        let certificates = certificates.map(|facts| convert::certificate(facts, now)).collect();
        Ok(Response::new(GetStatusResponse { certificates, ..convert::status(self.broker.status()) }))
    }

    async fn reload(&self, request: Request<ReloadRequest>) -> Result<Response<ReloadResponse>, Status> {
        let (caller, peer) = requester(&request)?;
        let deadline = deadline(request.metadata(), self.broker.now().boot)?;
        let outcome = self.reload.reload(Requester::Caller(caller, peer), deadline).await;
        let Reloaded { changes, notes, generation } = outcome.map_err(|refused| not_reloaded(&refused))?;
        Ok(Response::new(ReloadResponse { changes, notes, credential_generation: generation }))
    }

    async fn lockdown(
        &self,
        request: Request<LockdownRequest>,
    ) -> Result<Response<LockdownResponse>, Status> {
        let (caller, peer) = requester(&request)?;
        let asked = request.get_ref();
        self.locked_down(asked, (caller, peer)).await.map(Response::new)
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Result<Response<UnlockResponse>, Status> {
        let (caller, peer) = requester(&request)?;
        self.unlocked(request.get_ref(), (caller, peer)).await.map(Response::new)
    }
}
