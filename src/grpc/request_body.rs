//! The body of a request that is one message: there must be room for it, and it must arrive in time.
//!
//! tonic makes room for all of a message as soon as its first bytes say how long it is, up to `limits.max_message_bytes`. So
//! that is when it is counted; and who never ends his message would keep that room for ever.

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

/// What comes before a message: whether it is compressed, and how long it is.
/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests>
const PREFIX: usize = 5;

/// A body that fails when there is no room for its message, when that is followed by anything, or when it is not at its end
/// in time, counted from when it was first waited for.
///
/// `make_room` is asked once, with the message's length, and what it gives is kept for as long as the body.
pub(super) struct RequestBody<M, R> {
    inner: Body,
    within: Duration,
    late: Option<Pin<Box<Sleep>>>,
    make_room: Option<M>,
    room: Option<R>,
    prefix: [u8; PREFIX],
    /// How many bytes of the prefix and the message have come.
    come: usize,
}

impl<M: FnOnce(usize) -> Result<R, Status>, R> RequestBody<M, R> {
    pub(super) const fn new(inner: Body, within: Duration, make_room: M) -> Self {
        Self {
            inner,
            within,
            late: None,
            make_room: Some(make_room),
            room: None,
            prefix: [0; PREFIX],
            come: 0,
        }
    }

    /// Looks at what has come.
    fn follow(&mut self, data: &[u8]) -> Result<(), Status> {
        let missing = PREFIX.saturating_sub(self.come).min(data.len());
        let (of_prefix, of_message) = data.split_at(missing);
        self.prefix[self.come.min(PREFIX)..][..missing].copy_from_slice(of_prefix);
        self.come = self.come.saturating_add(data.len());
        if self.come < PREFIX {
            return Ok(());
        }
        let [_, length @ ..] = self.prefix;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if let Some(make_room) = self.make_room.take() {
            self.room = Some(make_room(length)?);
        }
        if self.come - PREFIX > length && !of_message.is_empty() {
            return Err(ErrorReason::BadRequest.status("the request is more than one message"));
        }
        Ok(())
    }
}

impl<M, R> http_body::Body for RequestBody<M, R>
where
    M: FnOnce(usize) -> Result<R, Status> + Unpin,
    R: Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
                && let Err(status) = this.follow(data)
            {
                // Nothing more of it is wanted.
                this.inner = Body::empty();
                return Poll::Ready(Some(Err(status)));
            }
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

    /// A message of these bytes, behind its prefix.
    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
    }

    #[tokio::test]
    async fn what_ends_in_time_is_left_alone_and_room_is_made_for_it_once_however_it_comes() {
        let all: &'static [u8] = framed(b"one two").leak();
        for pieces in [all.chunks(1), all.chunks(3), all.chunks(6), all.chunks(100)] {
            let mut asked = Vec::new();
            let body = RequestBody::new(body_of(stream::iter(pieces)), Duration::from_secs(60), |length| {
                asked.push(length);
                Ok(())
            });
            assert_eq!(body.collect().await.unwrap().to_bytes(), all);
            assert_eq!(asked, [7]);
        }
    }

    #[tokio::test]
    async fn a_message_without_room_is_refused_before_it_comes() {
        let no_room = |_| Err::<(), _>(ErrorReason::TooManyStreams.status("no room"));
        let mut body = RequestBody::new(
            body_of(stream::iter([[0, 0, 1].as_slice(), &[0, 0], b"and so on"])),
            Duration::from_secs(60),
            no_room,
        );
        assert!(body.frame().await.unwrap().is_ok(), "so far it is anybody's guess");
        assert_eq!(body.frame().await.unwrap().unwrap_err().message(), "no room");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn the_room_is_given_back_with_the_body() {
        let room = std::sync::Arc::new(());
        let taken = std::sync::Arc::clone(&room);
        let frames = stream::iter([framed(b"one").leak() as &[u8]]);
        let mut body = RequestBody::new(body_of(frames), Duration::from_secs(60), |_| Ok(taken));
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.frame().await.is_none());
        assert_eq!(std::sync::Arc::strong_count(&room), 2);
        drop(body);
        assert_eq!(std::sync::Arc::strong_count(&room), 1);
    }

    #[tokio::test]
    async fn a_second_message_is_refused() {
        for pieces in [vec![framed(b"one"), framed(b"")], vec![[framed(b""), framed(b"two")].concat()]] {
            let frames = stream::iter(pieces.into_iter().map(|piece| piece.leak() as &[u8]));
            let refused = RequestBody::new(body_of(frames), Duration::from_secs(60), |_| Ok(()))
                .collect()
                .await
                .err()
                .unwrap();
            assert!(refused.message().contains("more than one"), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn a_message_that_never_ends_is_refused_however_much_of_it_comes() {
        use stream::StreamExt;
        let trickle = stream::unfold((), async |()| {
            tokio::time::sleep(Duration::from_millis(1)).await;
            // Taken for the prefix of a very long message.
            Some(([1; 10].as_slice(), ()))
        });
        for frames in [stream::pending().boxed(), trickle.boxed()] {
            let body = RequestBody::new(body_of(frames), Duration::from_millis(50), |_| Ok(()));
            let status = body.collect().await.err().unwrap();
            assert_eq!(super::super::reason_of(&status).as_deref(), Some("BAD_REQUEST"));
            assert!(status.message().contains("within 50ms"), "{status:?}");
        }
    }
}
