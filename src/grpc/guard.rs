//! The one gate: nothing reaches a service unless policy allows the peer the method, and nothing leaves without the
//! details that our errors promise.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, body::Body};
use tower::Service;

use super::{
    connection::{Carried, Known},
    errors::{ErrorReason, completed, denied, locked_out},
    methods::{Method, Shape},
    open_call::OpenCall,
    request_body::{MESSAGE_TIMEOUT, RequestBody},
};
use crate::{
    audit::AuditLog,
    broker::{Broker, NoPlace, Open, Outcome, Place, Room, Ruling},
    caller::{CallerName, Peer},
    policy::Permission,
};

/// Who sent a request that the guard let through.
pub(super) struct Admitted {
    pub(super) caller: CallerName,
    /// Who it was when the request came.
    pub(super) peer: Arc<Peer>,
    known: Known,
    /// What its connection is told when it carries a token.
    pub(super) carried: Carried,
    counts_as: AtomicUsize,
    broker: Arc<Broker>,
    /// What any one of lets in.
    permissions: &'static [Permission],
    /// The latest when it was let in.
    ruling: Ruling,
}

impl Admitted {
    /// Who sends it, judged now that its message is whole. That may have taken half a minute, and who was removed meanwhile,
    /// or whose certificate was revoked, has nothing done for it any more.
    pub(super) fn judged(&self) -> Result<CallerName, Status> {
        if self.broker.ruling() == self.ruling && self.is_who_it_was() {
            return Ok(self.caller.clone());
        }
        self.authorized(self.permissions)
    }

    /// Who sends it, if it may now do something that any one of `permissions` allows.
    pub(super) fn authorized(&self, permissions: &[Permission]) -> Result<CallerName, Status> {
        self.broker.authorize(&self.known.now(), permissions).map_err(|denial| denied(&denial))
    }

    /// Whether its peer is still believed to be who it was when the request came.
    pub(super) fn is_who_it_was(&self) -> bool {
        self.known.is(&self.peer)
    }

    /// Has the call counted as one that needs this permission, where only its message tells which.
    pub(super) fn count_as(&self, permission: Permission) {
        self.counts_as.store(permission as usize, Ordering::Relaxed);
    }

    fn permission(&self) -> Permission {
        Permission::ALL[self.counts_as.load(Ordering::Relaxed)]
    }
}

/// Guards an inner service. The listener tells it, in each request's extensions, who the peer is (a `Known`).
#[derive(Clone)]
pub struct Guard<S> {
    inner: S,
    broker: Arc<Broker>,
    drain: CancellationToken,
    /// Of a request, in bytes.
    largest_message: usize,
}

impl<S> Guard<S> {
    pub(super) const fn new(
        inner: S,
        broker: Arc<Broker>,
        drain: CancellationToken,
        largest_message: usize,
    ) -> Self {
        Self { inner, broker, drain, largest_message }
    }

    /// Whether the policy names `peer` now. Each call is judged for itself.
    pub(super) fn knows(&self, peer: &Peer) -> bool {
        self.broker.identify(peer).is_ok()
    }

    /// Where it is put on record who does not get in.
    pub(super) fn audit(&self) -> &AuditLog {
        self.broker.audit()
    }

    /// Puts on record that a connection of `peer` ends, which is no longer who it was taken for.
    pub(super) fn note_connection_end(&self, peer: &Peer, reason: &'static str, why: &str) {
        self.broker.note_connection_end(peer, reason, why);
    }

    /// A place for a connection of `peer`.
    pub(super) fn place_for(&self, peer: &Peer) -> Result<Place, NoPlace> {
        self.broker.place_for(peer)
    }

    /// Has calls that wait and streams judged again, since somebody is believed no more.
    pub(super) fn judge_again(&self) {
        self.broker.judge_again();
    }

    /// Wakes when it may know others.
    pub(super) fn rulings(&self) -> tokio::sync::watch::Receiver<()> {
        self.broker.rulings()
    }

    /// Whether `peer` is to have no token now.
    pub(super) fn locks_out(&self, peer: &Peer) -> bool {
        let locks = self.broker.locks();
        let caller = || self.broker.identify(peer).is_ok_and(|caller| locks.bar(&caller));
        locks.on_everyone().is_some() || (!locks.is_empty() && caller())
    }

    /// Makes room for a request's message when its length is known. One that is too large is told so by who reads it, and takes
    /// none.
    fn room_for(
        &self,
        admitted: &Arc<Admitted>,
    ) -> impl FnOnce(usize) -> Result<Option<Room>, Status> + Send + use<S> {
        let (broker, largest) = (Arc::clone(&self.broker), self.largest_message);
        let admitted = Arc::clone(admitted);
        move |bytes| {
            if bytes > largest {
                return Ok(None);
            }
            let Admitted { caller, peer, .. } = &*admitted;
            let room = broker.room_for_message(caller, peer, admitted.permission(), bytes);
            room.map(Some).map_err(|denial| denied(&denial))
        }
    }

    /// Who may call what, and the place that the call takes; or the answer to who may not.
    fn admit(&self, request: &Request<Body>) -> Result<(Admitted, Method, Open), Status> {
        // Read before it is judged: what changes from here on is seen.
        let ruling = self.broker.ruling();
        let Some(known) = request.extensions().get::<Known>() else {
            return Err(ErrorReason::Internal.status("the listener did not say who the peer is"));
        };
        let (peer, known) = (known.now(), known.clone());
        let Some(method) = Method::at(request.uri().path()) else {
            // A stranger is not told which methods there are.
            let message = "the broker has no such method; reflection tells which it has";
            return Err(match self.broker.identify(&peer) {
                Ok(_) => ErrorReason::MethodUnknown.status(message),
                Err(denial) => {
                    self.broker.audit().call_denied(&peer, None, &denial);
                    denied(&denial)
                }
            });
        };
        let permission = method.permissions[0];
        let begun = self.broker.authorize(&peer, method.permissions).and_then(|caller| {
            let open = self.broker.begin_call(&caller, &peer, permission)?;
            Ok((caller, open))
        });
        match begun {
            Ok((caller, open)) => {
                // A request that came without a connection, in a test, tells nobody.
                let carried = request.extensions().get().cloned().unwrap_or_default();
                let admitted = Admitted {
                    caller,
                    peer,
                    known,
                    carried,
                    counts_as: AtomicUsize::new(permission as usize),
                    broker: Arc::clone(&self.broker),
                    permissions: method.permissions,
                    ruling,
                };
                Ok((admitted, method, open))
            }
            Err(denial) => {
                if let Some(caller) = denial.caller() {
                    self.broker.record(caller, permission, Outcome::Failed);
                }
                Err(denied(&denial))
            }
        }
    }
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let (admitted, method, open) = match self.admit(&request) {
            Ok(admitted) => admitted,
            Err(status) => return Box::pin(async move { Ok(status.into_http()) }),
        };
        let party = Party { broker: Arc::clone(&self.broker), known: admitted.known.clone(), method };
        let ruling = admitted.ruling;
        let counted = Arc::clone(&self.broker);
        let admitted = Arc::new(admitted);
        request.extensions_mut().insert(Arc::clone(&admitted));
        if method.one_message {
            let room = self.room_for(&admitted);
            request = request.map(|body| Body::new(RequestBody::new(body, MESSAGE_TIMEOUT, room)));
        }
        let answer = self.inner.call(request);
        let drain = self.drain.clone();
        Box::pin(async move {
            let mut response = answer.await?;
            let failed = failure_in(response.headers());
            let mut outcome = if failed.is_some() { Outcome::Failed } else { Outcome::Ok };
            if let Some(status) = failed.as_ref().and_then(completed) {
                response = status.into_http();
            }
            match method.shape {
                Shape::Watched => {
                    let party = Arc::new(party);
                    admitted.carried.a_stream(&party);
                    let cut = cut(party, drain, ruling);
                    counted.record(&admitted.caller, admitted.permission(), outcome);
                    return Ok(
                        response.map(|body| Body::new(OpenCall::new(WatchedBody::new(body, cut), open)))
                    );
                }
                // It may have waited for its token, and its caller may have lost the right to it meanwhile. What failed gives
                // none, and is on record where it failed for a lock.
                Shape::Unary
                    if method.gives_tokens
                        && outcome == Outcome::Ok
                        && (party.broker.ruling() != ruling || !admitted.is_who_it_was()) =>
                {
                    if let Err(status) = party.judged_again() {
                        response = status.into_http();
                        outcome = Outcome::Failed;
                    }
                }
                Shape::Unary => {}
            }
            counted.record(&admitted.caller, admitted.permission(), outcome);
            Ok(response.map(|body| Body::new(OpenCall::new(body, open))))
        })
    }
}

/// Who calls what.
pub(super) struct Party {
    broker: Arc<Broker>,
    known: Known,
    method: Method,
}

impl Party {
    /// Whether it may still have the answer that it was let in for. That it may not is on record when this returns.
    pub(super) fn judged_again(&self) -> Result<(), Status> {
        let Self { broker, known, method } = self;
        let peer = known.now();
        let caller = broker.authorize(&peer, method.permissions).map_err(|denial| denied(&denial))?;
        match broker.locked_out(&caller).filter(|_| method.gives_tokens) {
            Some(out) => {
                broker.audit().locked_out(&caller, &peer, method.permissions[0], &out);
                Err(locked_out(&out))
            }
            None => Ok(()),
        }
    }
}

/// A stream that ends politely when the broker stops or its caller may have no more of it, and whose error carries details
/// whoever made it.
struct WatchedBody {
    inner: Body,
    /// What was said last: see `codec`.
    said: Option<bytes::Bytes>,
    cut: Cut,
    ended: bool,
}

/// Comes when a stream must end, whatever else it has to say.
type Cut = Pin<Box<dyn Future<Output = Status> + Send>>;

impl WatchedBody {
    fn new(inner: Body, cut: Cut) -> Self {
        Self { inner, said: None, cut, ended: false }
    }
}

/// The end of a stream that `party` was let into when `ruling` was the latest.
fn cut(party: Arc<Party>, drain: CancellationToken, mut ruling: Ruling) -> Cut {
    let mut rulings = party.broker.rulings();
    Box::pin(async move {
        loop {
            // Subscribed before it is looked at: a change in between wakes us.
            let latest = party.broker.ruling();
            if latest != std::mem::replace(&mut ruling, latest)
                && let Err(status) = party.judged_again()
            {
                return status;
            }
            tokio::select! {
                () = drain.cancelled() => {
                    return ErrorReason::ShuttingDown.status("the broker is stopping; connect again");
                }
                // The broker outlives its streams, and so does its end of the channel.
                _ = rulings.changed() => {}
            }
        }
    })
}

/// The error that headers or trailers tell. What ended well has a status, too.
fn failure_in(headers: &http::HeaderMap) -> Option<Status> {
    Status::from_header_map(headers).filter(|status| status.code() != Code::Ok)
}

fn trailers_of(status: &Status) -> http::HeaderMap {
    let mut trailers = http::HeaderMap::new();
    // Fails only for details that are no header value; ours are base64.
    let _ = status.add_header(&mut trailers);
    trailers
}

impl http_body::Body for WatchedBody {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // Before anything else: what was forbidden a moment ago is not said now.
        if let Poll::Ready(status) = self.cut.as_mut().poll(cx) {
            self.ended = true;
            // What the inner stream holds, a token above all, goes with it.
            (self.inner, self.said) = (Body::empty(), None);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers_of(&status)))));
        }
        let this = &mut *self;
        Pin::new(&mut this.inner).poll_frame(cx).map_ok(|frame| {
            if let Some(said) = frame.data_ref() {
                this.said = Some(said.clone());
            }
            let completed = frame.trailers_ref().and_then(failure_in).as_ref().and_then(completed);
            completed.map_or(frame, |status| Frame::trailers(trailers_of(&status)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
    use http_body_util::BodyExt;
    use prost::Message;
    use tonic::service::Routes;

    use super::*;
    use crate::{
        grpc::{
            health,
            proto::GetAccessTokenRequest,
            reason_of, service,
            test_broker::{KNOWN, NoReload, broker, peer},
        },
        policy::{Permission, Policy, Rule, Selector},
    };

    const GET_ACCESS_TOKEN: &str = "/b2binpay.broker.v1.TokenBrokerService/GetAccessToken";
    const GET_STATUS: &str = "/b2binpay.broker.v1.BrokerAdminService/GetStatus";
    const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
    const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

    fn guarded() -> Guard<Routes> {
        service(broker(), Arc::new(NoReload), Vec::new(), 4096, health(), CancellationToken::new()).unwrap()
    }

    /// A gRPC message: a flag, a length, the bytes.
    fn framed(flag: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        [&[flag], length.as_slice(), bytes].concat()
    }

    /// The error that this request is answered with.
    async fn refused(
        uid: u32,
        path: &str,
        headers: &[(&'static str, &'static str)],
        body: Vec<u8>,
    ) -> Status {
        let body =
            Body::new(http_body_util::Full::new(bytes::Bytes::from(body)).map_err(|never| match never {}));
        let mut request = Request::post(path).header(CONTENT_TYPE, "application/grpc");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body).unwrap();
        request.extensions_mut().insert(Known::new(peer(uid), None));
        let response = guarded().call(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let head = response.headers().clone();
        let trailers = response.into_body().collect().await.unwrap().trailers().cloned();
        let all: HeaderMap =
            head.into_iter().chain(trailers.unwrap_or_default()).filter_map(|(k, v)| Some((k?, v))).collect();
        failure_in(&all).expect("an error")
    }

    fn is(status: &Status, code: Code, reason: &str) {
        assert_eq!((status.code(), reason_of(status).as_deref()), (code, Some(reason)), "{status:?}");
    }

    #[tokio::test]
    async fn a_request_that_can_t_be_decoded_is_the_callers_fault_whoever_serves_it() {
        // Reflection ends a stream that it can't decode, without an error.
        for path in [GET_ACCESS_TOKEN, GET_STATUS, HEALTH_CHECK] {
            for body in
                [framed(0, &[0xff]), framed(1, b""), framed(7, b""), vec![0, 0, 0, 0, 9, 1], vec![0, 0]]
            {
                let status = refused(KNOWN, path, &[], body.clone()).await;
                is(&status, Code::InvalidArgument, "BAD_REQUEST");
                assert!(status.message().contains("can't be decoded"), "{path} {body:?}: {status:?}");
            }
            let status = refused(KNOWN, path, &[], framed(0, &[0; 5000])).await;
            is(&status, Code::OutOfRange, "MESSAGE_TOO_LARGE");
        }
        is(&refused(KNOWN, GET_STATUS, &[], Vec::new()).await, Code::InvalidArgument, "BAD_REQUEST");
    }

    #[tokio::test]
    async fn a_compressed_request_is_answered_as_grpc_wants_it() {
        for path in [GET_ACCESS_TOKEN, HEALTH_CHECK, REFLECTION] {
            let status = refused(KNOWN, path, &[("grpc-encoding", "gzip")], framed(1, b"?")).await;
            is(&status, Code::Unimplemented, "BAD_REQUEST");
            assert!(status.message().contains("gzip"), "{status:?}");
            assert_eq!(status.metadata().get("grpc-accept-encoding").unwrap(), "identity");
        }
    }

    #[test]
    fn a_fault_of_a_library_is_not_the_callers() {
        is(&completed(&Status::internal("the disk is on fire")).unwrap(), Code::Internal, "INTERNAL");
    }

    #[tokio::test]
    async fn a_stream_ends_when_its_caller_loses_the_right_to_it_and_not_before() {
        let broker = broker();
        let mut guarded = service(
            Arc::clone(&broker),
            Arc::new(NoReload),
            Vec::new(),
            4096,
            health(),
            CancellationToken::new(),
        )
        .unwrap();
        let mut request = Request::post("/grpc.health.v1.Health/Watch")
            .header(CONTENT_TYPE, "application/grpc")
            .body(Body::new(
                http_body_util::Full::new(bytes::Bytes::from(framed(0, b""))).map_err(|never| match never {}),
            ))
            .unwrap();
        request.extensions_mut().insert(Known::new(peer(KNOWN), None));
        let mut stream = guarded.call(request).await.unwrap().into_body();
        assert!(stream.frame().await.unwrap().unwrap().is_data(), "it begins with how things are");

        let allowing = |permission| {
            let name = "renamed".parse().unwrap();
            let rule = Rule::new(name, Selector::UnixUser(KNOWN), [permission].into_iter().collect());
            Policy::new(vec![rule]).unwrap()
        };
        broker.replace_policy(allowing(Permission::Health));
        let silence = futures_util::future::poll_immediate(stream.frame()).await;
        assert!(silence.is_none(), "another policy that allows it changes nothing");
        broker.replace_policy(allowing(Permission::GetAccessToken));
        let end = stream.frame().await.unwrap().unwrap();
        is(&failure_in(end.trailers_ref().unwrap()).unwrap(), Code::PermissionDenied, "METHOD_NOT_ALLOWED");
        assert!(stream.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_stranger_hears_the_same_whatever_it_asks_for() {
        for path in [GET_ACCESS_TOKEN, HEALTH_CHECK, REFLECTION, "/no.Such/Method", "/"] {
            let body = framed(0, &GetAccessTokenRequest::default().encode_to_vec());
            is(&refused(KNOWN + 1, path, &[], body).await, Code::Unauthenticated, "CALLER_UNKNOWN");
        }
        is(&refused(KNOWN, "/no.Such/Method", &[], Vec::new()).await, Code::Unimplemented, "METHOD_UNKNOWN");
    }
}
