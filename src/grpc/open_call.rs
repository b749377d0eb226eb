//! A call that is counted as open for as long as its answer is not gone.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http_body::{Frame, SizeHint};
use tonic::Status;

use crate::broker::Open;

/// An answer's body, and the place that its call takes.
pub(super) struct OpenCall<B> {
    inner: B,
    _place: Open,
}

impl<B> OpenCall<B> {
    pub(super) const fn new(inner: B, place: Open) -> Self {
        Self { inner, _place: place }
    }
}

impl<B: http_body::Body<Data = bytes::Bytes, Error = Status> + Unpin> http_body::Body for OpenCall<B> {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
