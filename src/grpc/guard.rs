//! The one gate: nothing reaches a service unless policy allows the peer the method, and nothing leaves without the
//! details that our errors promise.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status, body::Body};
use tower::Service;

use super::{
    errors::{ErrorReason, completed, denied},
    methods::{Method, Shape},
};
use crate::{
    broker::{Broker, Outcome},
    caller::{CallerName, Peer},
};

/// Who sent a request that the guard let through.
#[derive(Clone, Debug)]
pub(super) struct Admitted {
    pub(super) caller: CallerName,
    pub(super) peer: Arc<Peer>,
}

/// Guards an inner service. The listener tells it, in each request's extensions, who the peer is (an `Arc<Peer>`).
#[derive(Clone)]
pub struct Guard<S> {
    inner: S,
    broker: Arc<Broker>,
    drain: CancellationToken,
}

impl<S> Guard<S> {
    pub(super) const fn new(inner: S, broker: Arc<Broker>, drain: CancellationToken) -> Self {
        Self { inner, broker, drain }
    }

    /// Who may call what, or the answer to who may not.
    fn admit(&self, request: &Request<Body>) -> Result<(Admitted, Method), Status> {
        let Some(peer) = request.extensions().get::<Arc<Peer>>().map(Arc::clone) else {
            return Err(ErrorReason::Internal.status("the listener did not say who the peer is"));
        };
        let Some(method) = Method::at(request.uri().path()) else {
            // A stranger is not told which methods there are.
            let message = "the broker has no such method; reflection tells which it has";
            return Err(match self.broker.identify(&peer) {
                Ok(_) => ErrorReason::MethodUnknown.status(message),
                Err(denial) => {
                    self.broker.note_denial(&denial);
                    denied(&denial)
                }
            });
        };
        let caller = self.broker.authorize(&peer, method.permissions).map_err(|denial| denied(&denial))?;
        Ok((Admitted { caller, peer }, method))
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
        let (admitted, method) = match self.admit(&request) {
            Ok(admitted) => admitted,
            Err(status) => return Box::pin(async move { Ok(status.into_http()) }),
        };
        let counted = method.counted_by_guard.then(|| (Arc::clone(&self.broker), admitted.caller.clone()));
        request.extensions_mut().insert(admitted);
        let answer = self.inner.call(request);
        let drain = (method.shape == Shape::Watched).then(|| self.drain.clone());
        Box::pin(async move {
            let mut response = answer.await?;
            let failed = failure_in(response.headers());
            if let Some((broker, caller)) = counted {
                let outcome = if failed.is_some() { Outcome::Failed } else { Outcome::Ok };
                broker.record(&caller, method.permissions[0], outcome);
            }
            if let Some(status) = failed.as_ref().and_then(completed) {
                response = status.into_http();
            }
            Ok(match drain {
                Some(drain) => response.map(|body| Body::new(WatchedBody::new(body, drain))),
                None => response,
            })
        })
    }
}

/// A stream that ends politely when the broker stops, and whose error carries details whoever made it.
struct WatchedBody {
    inner: Body,
    drained: Pin<Box<WaitForCancellationFutureOwned>>,
    ended: bool,
}

impl WatchedBody {
    fn new(inner: Body, drain: CancellationToken) -> Self {
        Self { inner, drained: Box::pin(drain.cancelled_owned()), ended: false }
    }
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
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let completed = frame.trailers_ref().and_then(failure_in).as_ref().and_then(completed);
                return Poll::Ready(Some(Ok(match completed {
                    Some(status) => Frame::trailers(trailers_of(&status)),
                    None => frame,
                })));
            }
            Poll::Ready(end) => return Poll::Ready(end),
            Poll::Pending => {}
        }
        if self.drained.as_mut().poll(cx).is_ready() {
            self.ended = true;
            let status = ErrorReason::ShuttingDown.status("the broker is stopping; connect again");
            return Poll::Ready(Some(Ok(Frame::trailers(trailers_of(&status)))));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
