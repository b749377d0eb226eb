//! What the keeper decides: a function of its state, an event and the time. Nothing here waits, asks or reads a clock.
//!
//! A try is wanted for one of two causes. The *schedule* wants one when the token in hand is due for renewal, or when
//! there is none. *Callers* want one when they need more validity than the token in hand has, or report that the upstream
//! refused it; theirs is a lane of its own, one try per 20 s, so that no caller can eat the budget that the schedule
//! lives on. A *replacement* of what is asked wants one to be proved by; what that brings is held back until it is adopted.
//! Whatever the cause, there is one try at a time, and every caller that waits gets its fruit.

mod calls;
mod locking;
mod replacing;
mod showing;
mod tries;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    attempt::{Attempt, AttemptEnd},
    replacing::{NotReplaced, Proposal, Replaced, ReplacementId},
    snapshot::{HeldToken, KeeperState, LastCall, TokenSnapshot},
    timing::TokenSettings,
    waiting::{Refusal, Waiter, WaiterId, Want},
};
use crate::{
    caller::CallerName,
    clock::{BootInstant, Now},
    issuer::IssueError,
    lockdown::Locks,
    security::SecurityEvent,
    token::{RefreshToken, TokenId},
};
use replacing::Replacing;

/// Callers provoke no more than one try per span.
const CALLERS_LANE: Duration = Duration::from_secs(20);

/// Something that happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A call came that the snapshot did not satisfy.
    Wanted(WaiterId, Want),
    /// A call no longer waits.
    Left(WaiterId),
    /// The try ended.
    Ended(AttemptEnd),
    /// Something is proposed to take the place of what is in force.
    Proposed(Proposal),
    /// Nobody waits for that replacement any more, or wants it, proved as it is.
    Withdrawn(ReplacementId),
    /// What was proved is to be in force.
    Adopted(ReplacementId),
    /// Other times and fractions.
    Adjusted(TokenSettings),
    /// These are the locks from now on.
    Locked(Arc<Locks>),
    /// The process stops.
    Stopping,
}

/// Something to do.
#[derive(Debug)]
pub(super) enum Action {
    /// Begin this try; there is none under way.
    Begin(Attempt),
    /// Answer a call.
    Answer(WaiterId, Result<Arc<HeldToken>, Refusal>),
    /// A replacement is proved, and its token held back; or it is not. Either way all is as it was.
    Conclude(ReplacementId, Result<TokenId, NotReplaced>),
    /// A replacement is in force. Comes before whatever is begun with it.
    Adopt(ReplacementId, Replaced),
    /// Show everybody what is known now.
    Publish(TokenSnapshot),
    /// Tell the security people.
    Alarm(SecurityEvent),
    /// Tell the operator.
    Tell(Note),
}

/// What an operator should read in the log.
#[derive(Debug)]
pub(super) enum Note {
    /// A new token came.
    Renewed { token: TokenId, lifetime: Duration, by: &'static str },
    /// The first failure of a row, or one of another kind.
    Failing { error: IssueError, again_in: Duration, by: &'static str },
    /// One more of the same.
    StillFailing { error: IssueError, failures: u32, again_in: Duration },
    /// The first success after failures.
    Recovered { after: Duration, failures: u32 },
    /// The upstream refused a refresh token; a login follows at once.
    RefreshTokenRefused { detail: String },
    /// A replacement was not proved.
    NotProved { error: IssueError },
    /// The token's lifetime is too short for promise 2.
    TooShortToKeep { lifetime: Duration },
    /// No token could be handed out any more.
    RanOut,
}

/// A row of failures.
#[derive(Clone, Debug)]
struct Failing {
    error: IssueError,
    since: BootInstant,
    failures: u32,
}

/// On whose account a try goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lane {
    Schedule,
    Callers,
    Replacement,
    /// Since it began everyone was locked out, or the credentials were replaced: what it brings is not kept.
    Nobody,
}

/// A token that callers say the upstream refuses.
#[derive(Clone, Debug)]
struct Rejection {
    token: TokenId,
    reporter: CallerName,
    /// Whether a second caller says so: then nobody gets it from the moment on that its replacement is asked for.
    seconded: bool,
}

/// The keeper's state.
pub(super) struct Core {
    settings: TokenSettings,
    rng: fastrand::Rng,

    hand: Option<Arc<HeldToken>>,
    refresh: Option<RefreshToken>,
    last_lifetime: Option<Duration>,
    rejection: Option<Rejection>,
    /// How many tokens were replaced because of a rejection.
    replacements: u64,
    /// The upstream refused the refresh token: what was begun with it goes on with a login.
    login_owed: bool,
    /// A login because of its rejection brought the same token again: another would, too.
    confirmed: Option<TokenId>,

    /// 1, and one more with each replacement of the credentials.
    generation: u64,
    replacing: Replacing,

    locks: Arc<Locks>,

    /// For whom a try is under way.
    trying: Option<Lane>,
    tries_begun: u64,
    /// No try before this instant: a pause after a failure, or the budget.
    not_before: BootInstant,
    /// When callers may provoke a try again.
    lane_opens: BootInstant,

    failing: Option<Failing>,
    budget_problem: Option<String>,
    last_call: Option<LastCall>,

    waiters: BTreeMap<WaiterId, Waiter>,
    stopping: bool,

    shown: (KeeperState, Now),
    changed: bool,
    actions: Vec<Action>,
}

impl Core {
    /// A keeper with nothing in hand. `seed` feeds the jitter.
    pub(super) fn new(settings: TokenSettings, locks: Arc<Locks>, seed: u64, now: Now) -> Self {
        let first =
            if locks.on_everyone().is_some() { KeeperState::LockedDown } else { KeeperState::Starting };
        Self {
            settings,
            rng: fastrand::Rng::with_seed(seed),
            hand: None,
            refresh: None,
            last_lifetime: None,
            rejection: None,
            replacements: 0,
            login_owed: false,
            confirmed: None,
            generation: 1,
            locks,
            replacing: Replacing::default(),
            trying: None,
            tries_begun: 0,
            not_before: now.boot,
            lane_opens: now.boot,
            failing: None,
            budget_problem: None,
            last_call: None,
            waiters: BTreeMap::new(),
            stopping: false,
            shown: (first, now),
            changed: false,
            actions: Vec::new(),
        }
    }

    /// Takes in what happened. What follows from it comes with [`Self::settle`].
    pub(super) fn take_in(&mut self, event: Event, now: Now) {
        match event {
            Event::Wanted(id, want) => self.wanted(id, want, now.boot),
            Event::Left(id) => {
                self.waiters.remove(&id);
            }
            Event::Ended(end) => self.ended(end, now),
            Event::Proposed(proposal) => self.replacing.waiting.push_back(proposal),
            Event::Withdrawn(id) => self.withdraw_replacement(id),
            Event::Adopted(id) => self.adopt(id, now),
            // What was decided about the token in hand, its floor and its renewal, stands until the next.
            Event::Adjusted(settings) => self.settings = settings,
            Event::Locked(locks) => self.lock(locks, now.boot),
            Event::Stopping => self.stopping = true,
        }
    }

    /// What to do about all that was taken in. Costs as much as there are calls waiting, so that a crowd is taken in first
    /// and settled once.
    pub(super) fn settle(&mut self, now: Now) -> Vec<Action> {
        self.answer_the_satisfied(now.boot);
        self.turn_away_late_replacements(now.boot);
        self.begin_if_due(now.boot);
        self.turn_away_the_hopeless(now.boot);
        self.show(now);
        std::mem::take(&mut self.actions)
    }

    /// When to call [`Self::settle`] at the latest, even if nothing happens.
    pub(super) fn wake_at(&self, now: BootInstant) -> Option<BootInstant> {
        let idle = self.trying.is_none();
        let next_try = self.next_try(now).map(|(at, _)| at).filter(|_| idle);
        let next_proof = self.next_proof(now).filter(|_| idle);
        let next_answer = self.waiters.values().map(|waiter| waiter.answer_by).min();
        let too_late = self.replacing.waiting.iter().map(|proposal| proposal.begin_by).min();
        let ends = self.hand.as_ref().map(|token| token.handed_out_until()).filter(|ends| *ends >= now);
        // A token is good *until* that instant, included: the change is a nanosecond later.
        let lapse = ends.map(|ends| ends + Duration::from_nanos(1));
        [next_try, next_proof, next_answer, too_late, lapse].into_iter().flatten().min()
    }

    fn good_token(&self, now: BootInstant) -> Option<&Arc<HeldToken>> {
        self.hand.as_ref().filter(|token| token.is_good(now))
    }
}

#[cfg(test)]
mod chaos;
#[cfg(test)]
mod days;
#[cfg(test)]
mod tests;
