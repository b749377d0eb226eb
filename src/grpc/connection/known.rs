//! Who the peer of a connection is, by what is believed now.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::SetOnce;

use crate::{
    caller::{NoName, Peer},
    grpc::tls::{Reason, Trust},
};

/// The peer of a connection: who it was when it came, until what vouched for it does so no longer.
///
/// Each call asks anew, and so does each token that is handed over: a certificate that a reload has just revoked is worth
/// nothing to whoever waits, or watches, when the reload's token is published.
#[derive(Clone)]
pub(in crate::grpc) struct Known(Arc<Inner>);

struct Inner {
    peer: ArcSwap<Peer>,
    /// Of a peer that showed a certificate. What the kernel said of a process holds for as long as its connection.
    trust: Option<Trust>,
    /// Why it is believed no more, from whoever found that first.
    distrusted: SetOnce<Reason>,
}

impl Known {
    pub(in crate::grpc) fn new(peer: Arc<Peer>, trust: Option<Trust>) -> Self {
        Self(Arc::new(Inner { peer: ArcSwap::new(peer), trust, distrusted: SetOnce::new() }))
    }

    /// Who it is now. Verifies a certificate only where what it is verified by has changed.
    pub(in crate::grpc) fn now(&self) -> Arc<Peer> {
        if let Some(trust) = &self.0.trust
            && !self.0.distrusted.initialized()
            && let Err(reason) = trust.holds()
        {
            self.distrust(reason);
        }
        self.0.peer.load_full()
    }

    /// Whether it still is who it was when `before` was asked for.
    pub(in crate::grpc) fn is(&self, before: &Arc<Peer>) -> bool {
        Arc::ptr_eq(&self.now(), before)
    }

    /// Comes when its certificate is no longer believed, and says why. From then on it is a nameless one.
    pub(super) async fn distrusted(&self) -> Reason {
        let Some(trust) = &self.0.trust else { return std::future::pending().await };
        tokio::select! {
            // A call may have found it, and what is believed may have changed back since: there is no way back for a peer.
            biased;
            reason = self.0.distrusted.wait() => reason.clone(),
            reason = trust.ends() => {
                self.distrust(reason.clone());
                reason
            }
        }
    }

    fn distrust(&self, reason: Reason) {
        if let Peer::Tls { address, name: Ok(_) } = **self.0.peer.load() {
            self.0.peer.store(Arc::new(Peer::Tls { address, name: Err(NoName::Distrusted) }));
        }
        // Who came first has said why.
        let _ = self.0.distrusted.set(reason);
    }
}
