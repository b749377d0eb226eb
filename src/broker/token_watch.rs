//! The token as it changes, for one caller.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Broker, Ruling};
use crate::{
    caller::{CallerName, Peer},
    keeper::{HeldToken, Refusal},
    policy::{Decision, Permission},
    token::TokenId,
};

/// Why a token is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchReason {
    /// It was in hand when the watch began, or came as the first after that.
    Current,
    /// It follows the one that was told before, by schedule.
    Rotated,
    /// The one that was told before, or one since then, was rejected by the upstream.
    ReplacedAfterRejection,
    /// The credentials were replaced since the one that was told before.
    CredentialsChanged,
}

/// Tells the token in hand at once, and each new one when it comes. Of several that came while nobody asked, only the
/// last is told: the others are of no use any more.
pub struct TokenWatch {
    broker: Arc<Broker>,
    caller: CallerName,
    peer: Arc<Peer>,
    changes: watch::Receiver<u64>,
    /// When it was last judged whether the caller may have more.
    ruling: Ruling,
    told: Option<Told>,
}

/// What was told last.
#[derive(Clone, Copy)]
struct Told {
    id: TokenId,
    replacements: u64,
    generation: u64,
}

impl TokenWatch {
    pub(super) fn new(broker: Arc<Broker>, caller: CallerName, peer: Arc<Peer>) -> Self {
        let (changes, ruling) = (broker.changes(), broker.ruling());
        Self { broker, caller, peer, changes, ruling, told: None }
    }

    /// The broker that tells.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The next token, or why there are no more for this caller. `None`: there is no keeper any more.
    pub async fn next(&mut self) -> Option<Result<(Arc<HeldToken>, WatchReason), Refusal>> {
        loop {
            // Marked as seen before it is looked at: a change in between wakes us again.
            self.changes.mark_unchanged();
            let now = self.broker.now();
            let token = {
                let snapshot = self.broker.keeper.snapshot().current();
                snapshot.token.as_ref().filter(|token| token.is_good(now.boot)).map(Arc::clone)
            };
            if let Some(token) = token
                .filter(|_| self.may_go_on())
                .filter(|token| self.told.is_none_or(|told| told.id != token.id()))
            {
                let telling =
                    Told { id: token.id(), replacements: token.replacements, generation: token.generation };
                let reason = match self.told.replace(telling) {
                    None => WatchReason::Current,
                    Some(told) if told.generation != token.generation => WatchReason::CredentialsChanged,
                    Some(told) if told.replacements == token.replacements => WatchReason::Rotated,
                    Some(_) => WatchReason::ReplacedAfterRejection,
                };
                let allowed =
                    self.broker.hand_out(&self.caller, &self.peer, Permission::WatchAccessToken, &token);
                return Some(allowed.map(|()| (token, reason)));
            }
            self.changes.changed().await.ok()?;
        }
    }

    /// Whether the policy still lets the caller watch. Who loses that right by a reload loses it before the reload's token is
    /// published, so that whoever has seen the token sees that too. Who has lost it is told nothing more here: its stream is
    /// ended, with the reason, by those who guard it.
    fn may_go_on(&mut self) -> bool {
        let latest = self.broker.ruling();
        if latest == self.ruling {
            return true;
        }
        let decision = self.broker.policy.load().decide(&self.peer, Permission::WatchAccessToken);
        let allowed = matches!(decision, Decision::Allowed(_));
        if allowed {
            self.ruling = latest;
        }
        allowed
    }
}
