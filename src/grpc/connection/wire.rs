//! What HTTP/2 is spoken over, and how it is closed.
//!
//! A socket that is closed in the ordinary way leaves what was written to the kernel, which offers it to the peer for
//! minutes. A peer that doesn't read would have a token kept for it there, after the broker has forgotten it. So a
//! connection is closed when its peer's host has all, and reset if that doesn't come to pass.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

/// How often it is looked whether the peer's host has all.
const LOOK: Duration = Duration::from_millis(20);

/// How often it is looked at most: for five seconds.
const LOOKS: u32 = 250;

/// A connection of a socket.
pub(in crate::grpc) trait Wire: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Whether the kernel holds bytes that were written and that the peer's host hasn't got.
    fn holds_bytes(&self) -> bool;

    /// Has the kernel forget them when this is dropped, and tell the peer that the connection is reset.
    fn forget_bytes(&self);
}

/// A connection whose preface was read and is to be read again.
pub(super) struct Greeted<S: Wire> {
    /// What is left of it.
    preface: &'static [u8],
    stream: S,
    closing: Option<Closing>,
}

/// Nothing more is written, and the rest is on its way.
struct Closing {
    looks: u32,
    next: Pin<Box<Sleep>>,
}

impl<S: Wire> Greeted<S> {
    pub(super) const fn new(preface: &'static [u8], stream: S) -> Self {
        Self { preface, stream, closing: None }
    }
}

impl<S: Wire> Drop for Greeted<S> {
    fn drop(&mut self) {
        if self.stream.holds_bytes() {
            self.stream.forget_bytes();
        }
    }
}

impl<S: Wire> AsyncRead for Greeted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.preface.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let (now, later) = self.preface.split_at(self.preface.len().min(into.remaining()));
        into.put_slice(now);
        self.preface = later;
        Poll::Ready(Ok(()))
    }
}

impl<S: Wire> AsyncWrite for Greeted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closing.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        while this.stream.holds_bytes() {
            let begin = || Closing { looks: 0, next: Box::pin(tokio::time::sleep(LOOK)) };
            let closing = this.closing.get_or_insert_with(begin);
            ready!(closing.next.as_mut().poll(context));
            closing.looks += 1;
            if closing.looks == LOOKS {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            closing.next = Box::pin(tokio::time::sleep(LOOK));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
