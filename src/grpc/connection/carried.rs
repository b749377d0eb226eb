//! What goes over a connection, for those who decide when it has to end.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::watch;

use crate::grpc::guard::Party;

/// What a connection carries: whether there ever was a token in it, and which streams there are.
#[derive(Clone, Default)]
pub(in crate::grpc) struct Carried(Arc<Load>);

#[derive(Default)]
struct Load {
    token: watch::Sender<bool>,
    streams: Mutex<Vec<Weak<Party>>>,
}

impl Carried {
    /// A token is about to be handed over. Whoever does it says so before.
    pub(in crate::grpc) fn a_token(&self) {
        self.0.token.send_if_modified(|carried| !std::mem::replace(carried, true));
    }

    /// Tells when a token is carried.
    pub(super) fn tokens(&self) -> watch::Receiver<bool> {
        self.0.token.subscribe()
    }

    /// A stream begins, and goes on for as long as somebody holds its party.
    pub(in crate::grpc) fn a_stream(&self, party: &Arc<Party>) {
        let mut streams = self.0.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.len() == streams.capacity() {
            // Before it grows: most of a long life's streams are over.
            streams.retain(|stream| stream.strong_count() > 0);
        }
        streams.push(Arc::downgrade(party));
    }

    /// Whether there is a stream to which its caller has no right now.
    pub(super) fn a_forbidden_stream(&self) -> bool {
        let streams = self.0.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let going_on: Vec<_> = streams.iter().filter_map(Weak::upgrade).collect();
        drop(streams);
        going_on.iter().any(|party| party.judged_again().is_err())
    }
}
