//! The body of a request that is one message: it must arrive in time.
//!
//! What has arrived of it takes memory, up to `limits.max_message_bytes` for each call, and who never ends it would keep
//! that for ever.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;
use tonic::{Status, body::Body};

use super::errors::ErrorReason;

/// How long a request's message may take to arrive, its end included. Clients send it at once; this is generous for one
/// that is stopped or short of processor time, and shorter than what the keep-alive needs to find a dead one.
pub(super) const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// A body that fails when it is not at its end in time, counted from when it was first waited for.
pub(super) struct RequestBody {
    inner: Body,
    within: Duration,
    late: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    pub(super) const fn new(inner: Body, within: Duration) -> Self {
        Self { inner, within, late: None }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        // Most messages are there when they are first looked for, and need no timer.
        let late = this.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(this.within)));
        late.as_mut().poll(cx).map(|()| {
            let message = format!("the request's message did not arrive whole within {:?}", this.within);
            Some(Err(ErrorReason::BadRequest.status(message)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn body_of(frames: impl stream::Stream<Item = &'static [u8]> + Send + 'static) -> Body {
        use stream::StreamExt;
        Body::new(StreamBody::new(frames.map(|data| Ok::<_, Status>(Frame::data(Bytes::from_static(data))))))
    }

    #[tokio::test]
    async fn what_ends_in_time_is_left_alone() {
        let body = body_of(stream::iter([b"one ".as_slice(), b"two"]));
        let read = RequestBody::new(body, Duration::from_secs(60)).collect().await.unwrap();
        assert_eq!(read.to_bytes(), "one two");
    }

    #[tokio::test]
    async fn a_message_that_never_ends_is_refused_however_much_of_it_comes() {
        use stream::StreamExt;
        let trickle = stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Some((b"drop".as_slice(), ()))
        });
        for frames in [stream::pending().boxed(), trickle.boxed()] {
            let late = RequestBody::new(body_of(frames), Duration::from_millis(50)).collect().await;
            let status = late.err().unwrap();
            assert_eq!(super::super::reason_of(&status).as_deref(), Some("BAD_REQUEST"));
            assert!(status.message().contains("within 50ms"), "{status:?}");
        }
    }
}
