//! Calls that the token in hand can't satisfy, and how they are turned away.

use std::{fmt, time::Duration};

use crate::{
    caller::CallerName, clock::BootInstant, issuer::IssueError, lockdown::LockedOut, token::TokenId,
};

/// How long a call without a deadline waits.
pub(super) const PATIENCE_OF_A_CALL: Duration = Duration::from_secs(10);

/// How long before its deadline a call is answered, so that the answer arrives within it.
pub(super) const MARGIN_OF_A_CALL: Duration = Duration::from_millis(50);

/// Nobody is told to try again sooner: a try may be under way, and whoever asks without a pause asks in a loop.
const SOONEST_RETRY: Duration = Duration::from_millis(250);

/// What a call needs of the token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Want {
    /// Who calls; two callers' words weigh more than one's.
    pub caller: CallerName,
    /// The validity that is needed. The floor is added by the keeper.
    pub min_validity: Duration,
    /// A token that will not do.
    pub rejected: Option<TokenId>,
    /// When the call ends.
    pub deadline: Option<BootInstant>,
}

/// A wanted token that could not be had in time.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{reason}{}", try_again(*retry_after))]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// When trying again can help, from now. `None`: when somebody has mended something.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// Trying again can help after `again_in`, if it can without a person's doing.
    pub(super) fn new(reason: RefusalReason, again_in: Option<Duration>) -> Self {
        let needs_a_person = matches!(
            reason,
            RefusalReason::Upstream(IssueError::CredentialsRejected { .. } | IssueError::Forbidden { .. })
        );
        let retry_after = again_in.filter(|_| !needs_a_person).map(|again_in| again_in.max(SOONEST_RETRY));
        Self { reason, retry_after }
    }

    /// The same call would be refused again.
    pub(super) const fn for_good(reason: RefusalReason) -> Self {
        Self { reason, retry_after: None }
    }
}

/// Why a token could not be had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RefusalReason {
    /// The broker has only just started.
    Starting,
    /// The upstream failed, as told.
    Upstream(IssueError),
    /// The upstream takes its time.
    Slow,
    /// No call to the upstream may be made before the call's deadline.
    BudgetExhausted,
    /// More validity is asked for than tokens have.
    ValidityTooLong(super::TooLong),
    /// The call's deadline leaves no time to wait at all.
    DeadlineTooShort,
    /// An operator locked everyone or this caller out.
    LockedDown(LockedOut),
    /// The broker is stopping.
    ShuttingDown,
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => f.write_str("the broker has just started and has no token yet"),
            Self::Upstream(error @ IssueError::CredentialsRejected { .. }) => {
                write!(f, "{error}; an operator must put the right ones into the files that [credentials] names")
            }
            Self::Upstream(error @ IssueError::Forbidden { .. }) => {
                write!(f, "{error}; an operator must add it to the account's list of allowed addresses")
            }
            Self::Upstream(error) => error.fmt(f),
            Self::Slow => f.write_str("the upstream has not answered in time"),
            Self::BudgetExhausted => f.write_str(
                "no token in hand satisfies the call, and the upstream's call limit allows no request for another \
                 before its deadline",
            ),
            Self::ValidityTooLong(error) => error.fmt(f),
            Self::DeadlineTooShort => write!(
                f,
                "no token in hand satisfies the call, and its deadline is too short to wait for one; \
                 allow more than {MARGIN_OF_A_CALL:?}"
            ),
            Self::LockedDown(out) => out.fmt(f),
            Self::ShuttingDown => f.write_str("the broker is stopping; ask another, or this one when it is back"),
        }
    }
}

fn try_again(after: Option<Duration>) -> String {
    match after {
        Some(after) => format!("; try again in {:.1}s", after.as_secs_f64()),
        None => String::new(),
    }
}

/// Names one waiting call; later ones have greater numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) struct WaiterId(pub(super) u64);

/// A call that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) want: Want,
    /// How many tries had begun when it came: only one that began later answers it by failing.
    pub(super) tries_before: u64,
    pub(super) came_at: BootInstant,
    /// When it must be answered at the latest.
    pub(super) answer_by: BootInstant,
}

impl Waiter {
    pub(super) fn new(want: Want, tries_before: u64, now: BootInstant) -> Self {
        let answer_by = match want.deadline {
            Some(deadline) => deadline - MARGIN_OF_A_CALL,
            None => now + PATIENCE_OF_A_CALL,
        };
        Self { want, tries_before, came_at: now, answer_by }
    }

    /// Whether its deadline had all but passed when it came.
    pub(super) fn has_no_time_to_wait(&self) -> bool {
        self.answer_by <= self.came_at
    }
}
