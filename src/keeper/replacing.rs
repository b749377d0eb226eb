//! Replacing what the keeper asks: another credential set, another upstream, another budget.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};

use super::{task::Order, timing::TokenSettings};
use crate::{
    budget::CallBudget,
    clock::BootInstant,
    issuer::{IssueError, TokenIssuer},
    token::TokenId,
};

/// How long a replacement without a deadline waits for its turn.
pub(super) const PATIENCE_OF_A_REPLACEMENT: Duration = Duration::from_secs(10);

/// What may take the place of what the keeper works with, once a login has proved it and whoever proposed it says so.
pub struct Replacement {
    /// Whom to ask for tokens.
    pub issuer: Arc<dyn TokenIssuer>,
    /// How often. It belongs to the upstream's origin, so that another upstream has another.
    pub budget: Arc<CallBudget>,
    /// Times and fractions.
    pub settings: TokenSettings,
}

/// A replacement that is in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replaced {
    /// The generation of the credentials: 1 from the start, one more with each replacement.
    pub generation: u64,
    /// The token that the proof gave. Where a lockdown came since it was asked for, nobody gets it, the keeper included.
    pub token: TokenId,
}

/// A replacement whose credentials a login has proved.
///
/// The keeper holds the token of that login back, and goes on with what is in force, until it hears which of the two it is
/// to be: [`Self::adopt`], which can't fail, or a drop, which forgets it. So whoever changes something else along with the
/// credentials can do so before anybody is handed the new token.
#[must_use = "it is taken back when this is dropped"]
pub struct Proved {
    pub(super) id: ReplacementId,
    pub(super) token: TokenId,
    /// Nobody has to be told any more once this is `None`.
    pub(super) orders: Option<mpsc::UnboundedSender<Order>>,
}

impl Proved {
    /// The token that the proof gave.
    pub const fn token(&self) -> TokenId {
        self.token
    }

    /// Puts it in force. What this returns ends when the new token has been published, with `None` where the keeper has
    /// stopped; dropping it undoes nothing.
    pub fn adopt(mut self) -> impl Future<Output = Option<Replaced>> + use<> {
        let (adopted, adopts) = oneshot::channel();
        if let Some(orders) = self.orders.take() {
            // Without a keeper there is nothing to be replaced.
            let _ = orders.send(Order::Adopt(self.id, adopted));
        }
        async move { adopts.await.ok() }
    }
}

impl Drop for Proved {
    fn drop(&mut self) {
        if let Some(orders) = &self.orders {
            // Without a keeper there is nobody to tell.
            let _ = orders.send(Order::Withdraw(self.id));
        }
    }
}

impl fmt::Debug for Proved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proved").field("id", &self.id).field("token", &self.token).finish_non_exhaustive()
    }
}

/// Why all stays as it was.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotReplaced {
    /// The login that was to prove the replacement failed.
    #[error("the login that was to prove the new credentials failed: {0}")]
    NotProved(IssueError),
    /// The upstream's call limit left no call for the proof before the deadline.
    #[error(
        "the upstream's call limit leaves no call to prove the new credentials with; try again in {:.1}s",
        retry_after.as_secs_f64()
    )]
    BudgetExhausted {
        /// When there will be one, from now.
        retry_after: Duration,
    },
    /// A try with the credentials in force had not ended at the deadline, or another replacement was still on its way.
    #[error("a call to the upstream was still under way, and calls are made one after the other; try again")]
    Busy,
    /// The keeper stops, or has stopped.
    #[error("the broker is stopping")]
    ShuttingDown,
}

/// Names one replacement.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct ReplacementId(pub(super) u64);

/// A replacement that waits for its turn, as the core sees it.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) id: ReplacementId,
    pub(super) settings: TokenSettings,
    /// No proof before this instant: the budget.
    pub(super) not_before: BootInstant,
    /// A proof that has not begun then never does.
    pub(super) begin_by: BootInstant,
}

impl Proposal {
    pub(super) fn new(
        id: ReplacementId,
        settings: TokenSettings,
        deadline: Option<BootInstant>,
        now: BootInstant,
    ) -> Self {
        let begin_by = deadline.unwrap_or_else(|| now + PATIENCE_OF_A_REPLACEMENT);
        Self { id, settings, not_before: now, begin_by }
    }
}

impl fmt::Debug for Replacement {
    /// An issuer holds secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replacement").field("settings", &self.settings).finish_non_exhaustive()
    }
}
