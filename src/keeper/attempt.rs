//! One try to get a token: a turn from the budget, then the call.

use std::time::Duration;

use super::replacing::ReplacementId;
use crate::{
    budget::{CallBudget, Purpose, Turn},
    clock::{BootInstant, Clock},
    issuer::{IssueError, TokenIssuer},
    token::{Grant, RefreshToken},
};

/// What to try.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) kind: AttemptKind,
    /// Whose turn of the budget it takes.
    pub(super) purpose: Purpose,
    /// How long the call may take.
    pub(super) patience: Duration,
}

/// By which means.
#[derive(Debug)]
pub(super) enum AttemptKind {
    Login,
    Refresh(RefreshToken),
    /// A login with what is proposed to take the place of what is in force.
    Proof(ReplacementId),
}

impl AttemptKind {
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Refresh(_) => "refresh",
            Self::Proof(_) => "proof",
        }
    }
}

/// How it ended. The means are handed back, since what becomes of a refresh token depends on the end.
#[derive(Debug)]
pub(super) struct AttemptEnd {
    pub(super) kind: AttemptKind,
    pub(super) outcome: Outcome,
    /// What keeps the budget's record from being kept.
    pub(super) budget_problem: Option<String>,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// No call was made; none may be before this instant.
    NoTurn(BootInstant),
    /// A call was made.
    Called { result: Result<Grant, IssueError>, took: Duration },
}

/// Makes the attempt. Exactly one call to the upstream, or none.
pub(super) async fn make(
    attempt: Attempt,
    issuer: &dyn TokenIssuer,
    budget: &CallBudget,
    clock: &dyn Clock,
) -> AttemptEnd {
    let Attempt { kind, purpose, patience } = attempt;
    let outcome = match budget.take(purpose).await {
        Turn::NotBefore(until) => Outcome::NoTurn(until),
        Turn::Granted => {
            let began = clock.now().boot;
            let result = match &kind {
                AttemptKind::Login | AttemptKind::Proof(_) => issuer.fetch_token(patience).await,
                AttemptKind::Refresh(token) => issuer.refresh_token(token, patience).await,
            };
            Outcome::Called { result, took: clock.now().boot.saturating_since(began) }
        }
    };
    AttemptEnd { kind, outcome, budget_problem: budget.usage().problem }
}
