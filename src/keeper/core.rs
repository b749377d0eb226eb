//! What the keeper decides: a function of its state, an event and the time. Nothing here waits, asks or reads a clock.
//!
//! A try is wanted for one of two causes. The *schedule* wants one when the token in hand is due for renewal, or when
//! there is none. *Callers* want one when they need more validity than the token in hand has, or report that the upstream
//! refused it; theirs is a lane of its own, one try per 20 s, so that no caller can eat the budget that the schedule
//! lives on. Whatever the cause, there is one try at a time, and every caller that waits gets its fruit.

use std::{sync::Arc, time::Duration};

use super::{
    attempt::{Attempt, AttemptEnd, AttemptKind, Outcome},
    snapshot::{Arrival, HeldToken, KeeperState, LastCall, TokenSnapshot},
    timing::{TokenSettings, TooLong, pause},
    waiting::{Refusal, RefusalReason, Waiter, WaiterId, Want},
};
use crate::{
    clock::{BootInstant, Now},
    issuer::IssueError,
    security::SecurityEvent,
    token::{Grant, RefreshToken, TokenId},
};

/// Callers provoke no more than one try per span.
const CALLERS_LANE: Duration = Duration::from_secs(20);

/// Something that happened.
#[derive(Debug)]
pub(super) enum Event {
    /// Time went by.
    Woken,
    /// A call came that the snapshot did not satisfy.
    Wanted(WaiterId, Want),
    /// A call no longer waits.
    Left(WaiterId),
    /// The try ended.
    Ended(AttemptEnd),
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

/// What the broker waits for before the next try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Obstacle {
    /// A pause after a failure.
    Pause,
    /// The budget.
    Budget,
}

/// On whose account a try goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lane {
    Schedule,
    Callers,
}

/// A token that callers say the upstream refuses.
#[derive(Clone, Debug)]
struct Rejection {
    token: TokenId,
    reporter: String,
}

/// The keeper's state.
pub(super) struct Core {
    settings: TokenSettings,
    rng: fastrand::Rng,

    hand: Option<Arc<HeldToken>>,
    refresh: Option<RefreshToken>,
    last_lifetime: Option<Duration>,
    rejection: Option<Rejection>,
    /// A login because of its rejection brought the same token again: another would, too.
    confirmed: Option<TokenId>,

    /// For whom a try is under way.
    trying: Option<Lane>,
    tries_begun: u64,
    /// No try before this instant …
    not_before: BootInstant,
    /// … because of this.
    obstacle: Obstacle,
    /// When callers may provoke a try again.
    lane_opens: BootInstant,

    failing: Option<Failing>,
    budget_problem: Option<String>,
    last_call: Option<LastCall>,

    waiters: Vec<Waiter>,
    stopping: bool,

    shown: (KeeperState, Now),
    changed: bool,
    actions: Vec<Action>,
}

impl Core {
    /// A keeper with nothing in hand. `seed` feeds the jitter.
    pub(super) fn new(settings: TokenSettings, seed: u64, now: Now) -> Self {
        Self {
            settings,
            rng: fastrand::Rng::with_seed(seed),
            hand: None,
            refresh: None,
            last_lifetime: None,
            rejection: None,
            confirmed: None,
            trying: None,
            tries_begun: 0,
            not_before: now.boot,
            obstacle: Obstacle::Budget,
            lane_opens: now.boot,
            failing: None,
            budget_problem: None,
            last_call: None,
            waiters: Vec::new(),
            stopping: false,
            shown: (KeeperState::Starting, now),
            changed: false,
            actions: Vec::new(),
        }
    }

    /// Takes in what happened, and says what to do about it.
    pub(super) fn step(&mut self, event: Event, now: Now) -> Vec<Action> {
        match event {
            Event::Woken => {}
            Event::Wanted(id, want) => self.wanted(id, want, now.boot),
            Event::Left(id) => self.waiters.retain(|waiter| waiter.id != id),
            Event::Ended(end) => self.ended(end, now),
            Event::Stopping => self.stopping = true,
        }
        self.answer_the_satisfied(now.boot);
        self.begin_if_due(now.boot);
        self.turn_away_the_hopeless(now.boot);
        self.show(now);
        std::mem::take(&mut self.actions)
    }

    /// When to call [`Self::step`] at the latest, even if nothing happens.
    pub(super) fn wake_at(&self, now: BootInstant) -> Option<BootInstant> {
        let next_try = if self.trying.is_some() { None } else { self.next_try(now).map(|(at, _)| at) };
        let next_answer = self.waiters.iter().map(|waiter| waiter.answer_by).min();
        let ends = self.hand.as_ref().map(|token| token.handed_out_until()).filter(|ends| *ends >= now);
        // A token is good *until* that instant, included: the change is a nanosecond later.
        let lapse = ends.map(|ends| ends + Duration::from_nanos(1));
        [next_try, next_answer, lapse].into_iter().flatten().min()
    }

    /// What to show before the first turn.
    pub(super) fn snapshot(&self) -> TokenSnapshot {
        let (state, since) = self.shown;
        TokenSnapshot {
            token: self.hand.clone(),
            state,
            since,
            reason: self.reason(state),
            last_lifetime: self.last_lifetime,
            last_call: self.last_call.clone(),
        }
    }

    fn good_token(&self, now: BootInstant) -> Option<&Arc<HeldToken>> {
        self.hand.as_ref().filter(|token| token.is_good(now))
    }

    // ---- calls

    fn wanted(&mut self, id: WaiterId, mut want: Want, now: BootInstant) {
        if let Some(rejected) = want.rejected {
            if self.hand.as_ref().is_none_or(|token| token.id() != rejected)
                || self.confirmed == Some(rejected)
            {
                want.rejected = None;
            } else {
                self.reported(rejected, &want.caller);
            }
        }
        self.waiters.push(Waiter::new(id, want, self.tries_begun, now));
    }

    fn reported(&mut self, token: TokenId, caller: &str) {
        match &self.rejection {
            None => {
                self.rejection = Some(Rejection { token, reporter: caller.to_owned() });
                let caller = caller.to_owned();
                self.actions.push(Action::Alarm(SecurityEvent::TokenReportedRejected { token, caller }));
            }
            Some(first) if first.reporter != caller => {
                self.hand = None;
                self.changed = true;
                let caller = caller.to_owned();
                self.actions.push(Action::Alarm(SecurityEvent::TokenWithdrawn { token, caller }));
            }
            Some(_) => {}
        }
    }

    fn answer(&mut self, mut outcome: impl FnMut(&Waiter) -> Option<Result<Arc<HeldToken>, Refusal>>) {
        let actions = &mut self.actions;
        self.waiters.retain(|waiter| match outcome(waiter) {
            Some(answer) => {
                actions.push(Action::Answer(waiter.id, answer));
                false
            }
            None => true,
        });
    }

    fn answer_the_satisfied(&mut self, now: BootInstant) {
        if self.stopping {
            self.answer(|_| Some(Err(Refusal::for_good(RefusalReason::ShuttingDown))));
        }
        let (hand, lifetime) = (self.hand.clone(), self.last_lifetime);
        self.answer(|waiter| {
            if let Err(too_long) = TooLong::check(waiter.want.min_validity, lifetime) {
                return Some(Err(Refusal::for_good(RefusalReason::ValidityTooLong(too_long))));
            }
            hand.as_ref()
                .filter(|token| waiter.want.rejected != Some(token.id()))
                .filter(|token| token.satisfies(waiter.want.min_validity, now))
                .map(|token| Ok(Arc::clone(token)))
        });
    }

    /// Answers those for whom no help can come in time.
    fn turn_away_the_hopeless(&mut self, now: BootInstant) {
        let next_try = if self.trying.is_some() { Some(now) } else { self.next_try(now).map(|(at, _)| at) };
        let why = self.why_not_now(now);
        self.answer(|waiter| {
            let hopeless = next_try.is_none_or(|at| at >= waiter.answer_by);
            if waiter.has_no_time_to_wait() {
                return Some(Err(Refusal::for_good(RefusalReason::DeadlineTooShort)));
            }
            (hopeless || waiter.answer_by <= now).then(|| {
                let again_in = next_try.map(|at| at.saturating_since(now));
                Err(Refusal::new(why.clone(), again_in))
            })
        });
    }

    fn why_not_now(&self, now: BootInstant) -> RefusalReason {
        let waits_for_budget =
            self.trying.is_none() && self.not_before > now && self.obstacle == Obstacle::Budget;
        match &self.failing {
            _ if waits_for_budget => RefusalReason::BudgetExhausted,
            Some(failing) => RefusalReason::Upstream(failing.error.clone()),
            // Nothing fails, a token is in hand and no try is under way: it is the callers' lane that is closed.
            None if self.trying.is_none() && self.good_token(now).is_some() => RefusalReason::BudgetExhausted,
            None if self.last_lifetime.is_none() => RefusalReason::Starting,
            None => RefusalReason::Slow,
        }
    }

    // ---- tries

    /// When the next try may begin, and for whom. `None`: not any more.
    fn next_try(&self, now: BootInstant) -> Option<(BootInstant, Lane)> {
        // What failed is tried again until it succeeds, whoever wanted it first.
        let scheduled = match self.good_token(now) {
            Some(token) if self.failing.is_none() => token.renew_at,
            _ => now,
        };
        let wanted = self.rejection.is_some() || !self.waiters.is_empty();
        let (at, lane) = match wanted.then_some(self.lane_opens) {
            Some(opens) if opens < scheduled => (opens, Lane::Callers),
            _ => (scheduled, Lane::Schedule),
        };
        (!self.stopping).then_some((at.max(self.not_before).max(now), lane))
    }

    fn begin_if_due(&mut self, now: BootInstant) {
        if self.trying.is_some() {
            return;
        }
        let Some((at, lane)) = self.next_try(now) else { return };
        if at > now {
            return;
        }
        if lane == Lane::Callers {
            self.lane_opens = now + CALLERS_LANE;
        }
        let left = self.good_token(now).map(|token| token.handed_out_until().saturating_since(now));
        let refresh = self.refresh.take().filter(|token| token.expires_at > now && self.rejection.is_none());
        let kind = refresh.map_or(AttemptKind::Login, AttemptKind::Refresh);
        self.trying = Some(lane);
        self.tries_begun += 1;
        self.actions.push(Action::Begin(Attempt { kind, patience: self.settings.patience(left) }));
    }

    fn ended(&mut self, end: AttemptEnd, now: Now) {
        let lane = self.trying.take();
        if self.budget_problem != end.budget_problem {
            self.budget_problem = end.budget_problem;
            self.changed = true;
        }
        let by = end.kind.word();
        match end.outcome {
            Outcome::NoTurn(until) => {
                self.not_before = until;
                self.obstacle = Obstacle::Budget;
                if lane == Some(Lane::Callers) {
                    self.lane_opens = until;
                }
                self.keep_refresh_token(end.kind);
            }
            Outcome::Called { result, took } => {
                let error = result.as_ref().err().cloned();
                self.last_call = Some(LastCall { error, at: now, took });
                self.changed = true;
                match result {
                    Ok(grant) => self.granted(grant, by, now),
                    Err(error) => self.failed(error, end.kind, now.boot),
                }
            }
        }
    }

    fn keep_refresh_token(&mut self, kind: AttemptKind) {
        if let AttemptKind::Refresh(token) = kind {
            self.refresh = Some(token);
        }
    }

    fn granted(&mut self, grant: Grant, by: &'static str, now: Now) {
        let (token, lifetime, floor) =
            (grant.access.id(), grant.lifetime, self.settings.floor(grant.lifetime));
        let arrival = match self.rejection.take() {
            Some(rejection) => {
                self.confirmed = (rejection.token == token).then_some(token);
                Arrival::ReplacedAfterRejection
            }
            None => Arrival::Rotated,
        };
        self.hand = Some(Arc::new(HeldToken {
            issued_at: grant.asked_at,
            expires_at: grant.expires_at(),
            floor,
            renew_at: self.settings.renewal(&grant, &mut self.rng),
            issued_at_wall: now.wall_at(grant.asked_at),
            expires_at_wall: now.wall_at(grant.expires_at()),
            arrival,
            access: grant.access,
        }));
        self.refresh = grant.refresh;
        self.not_before = now.boot;
        if lifetime < Duration::from_secs(10) && self.last_lifetime != Some(lifetime) {
            self.actions.push(Action::Tell(Note::TooShortToKeep { lifetime }));
        }
        self.last_lifetime = Some(lifetime);
        if let Some(Failing { since, failures, .. }) = self.failing.take() {
            let after = now.boot.saturating_since(since);
            self.actions.push(Action::Tell(Note::Recovered { after, failures }));
        }
        self.actions.push(Action::Tell(Note::Renewed { token, lifetime, by }));
    }

    fn failed(&mut self, error: IssueError, kind: AttemptKind, now: BootInstant) {
        let by = kind.word();
        let same = self.failing.as_ref().is_some_and(|row| row.error.word() == error.word());
        if !same {
            self.alarm_about(&error, &kind, now);
        }
        if error.spares_refresh_token() {
            self.keep_refresh_token(kind);
        }
        if let IssueError::RefreshTokenRejected { detail } = error {
            // Not a failure of the upstream: it wants the credentials, and gets them without a pause.
            self.actions.push(Action::Tell(Note::RefreshTokenRefused { detail }));
            self.not_before = now;
            return;
        }

        let (failures, since) = match &self.failing {
            Some(row) => (row.failures + 1, row.since),
            None => (1, now),
        };
        let again_in = pause(&error, failures, self.good_token(now).is_some(), &mut self.rng);
        self.not_before = now + again_in;
        self.obstacle = Obstacle::Pause;
        self.failing = Some(Failing { error: error.clone(), since, failures });
        self.actions.push(Action::Tell(if same {
            Note::StillFailing { error: error.clone(), failures, again_in }
        } else {
            Note::Failing { error: error.clone(), again_in, by }
        }));

        let begun = self.tries_begun;
        self.answer(|waiter| {
            let began_after_it = begun > waiter.tries_before;
            let reason = RefusalReason::Upstream(error.clone());
            began_after_it.then(|| Err(Refusal::new(reason, Some(again_in))))
        });
    }

    fn alarm_about(&mut self, error: &IssueError, kind: &AttemptKind, now: BootInstant) {
        let alarm = match (error, kind) {
            (IssueError::WrongSign, _) => SecurityEvent::UpstreamSignWrong,
            (IssueError::Throttled { .. }, _) => SecurityEvent::ForeignTraffic,
            // A refresh token is presented once and never again after a lost answer, so that nobody but us can have spent
            // it: unless it ended on the way.
            (IssueError::RefreshTokenRejected { .. }, AttemptKind::Refresh(token))
                if token.expires_at > now =>
            {
                SecurityEvent::RefreshTokenSuspicious
            }
            _ => return,
        };
        self.actions.push(Action::Alarm(alarm));
    }

    // ---- what is shown

    fn state(&self, now: BootInstant) -> KeeperState {
        let good = self.good_token(now).is_some();
        match self.failing.as_ref().map(|failing| &failing.error) {
            Some(IssueError::CredentialsRejected { .. }) => KeeperState::CredentialsRejected,
            Some(IssueError::Forbidden { .. }) => KeeperState::UpstreamForbidden,
            Some(_) if good => KeeperState::Degraded,
            None if good && self.budget_problem.is_some() => KeeperState::Degraded,
            None if good => KeeperState::Fresh,
            _ if self.last_lifetime.is_none() => KeeperState::Starting,
            _ => KeeperState::Expired,
        }
    }

    fn reason(&self, state: KeeperState) -> String {
        match (&self.failing, &self.budget_problem) {
            _ if state == KeeperState::Fresh => String::new(),
            (Some(failing), _) => failing.error.to_string(),
            (None, Some(problem)) => format!("the record of call times can't be kept: {problem}"),
            (None, None) if state == KeeperState::Starting => "the first token is being fetched".to_owned(),
            (None, None) => "the token in hand can't be used any more; another is being fetched".to_owned(),
        }
    }

    fn show(&mut self, now: Now) {
        let state = self.state(now.boot);
        if state != self.shown.0 {
            if state == KeeperState::Expired {
                self.actions.push(Action::Tell(Note::RanOut));
            }
            self.shown = (state, now);
            self.changed = true;
        }
        if std::mem::take(&mut self.changed) {
            self.actions.push(Action::Publish(self.snapshot()));
        }
    }
}

#[cfg(test)]
mod days;
#[cfg(test)]
mod tests;
