//! Calls that the snapshot did not satisfy: taken in, answered, turned away.

use std::sync::Arc;

use super::{Action, Core, Lane, Rejection};
use crate::{
    caller::CallerName,
    clock::BootInstant,
    keeper::{
        snapshot::HeldToken,
        timing::TooLong,
        waiting::{Refusal, RefusalReason, Waiter, WaiterId, Want},
    },
    security::SecurityEvent,
    token::TokenId,
};

impl Core {
    pub(super) fn wanted(&mut self, id: WaiterId, mut want: Want, now: BootInstant) {
        if let Some(rejected) = want.rejected {
            if self.hand.as_ref().is_none_or(|token| token.id() != rejected)
                || self.confirmed == Some(rejected)
            {
                want.rejected = None;
            } else {
                self.reported(rejected, &want.caller);
            }
        }
        self.waiters.insert(id, Waiter::new(want, self.tries_begun, now));
    }

    fn reported(&mut self, token: TokenId, caller: &CallerName) {
        let news = match &mut self.rejection {
            None => {
                self.rejection = Some(Rejection { token, reporter: caller.clone(), seconded: false });
                true
            }
            Some(first) if first.reporter != *caller => !std::mem::replace(&mut first.seconded, true),
            Some(_) => false,
        };
        if news {
            let caller = caller.clone();
            self.actions.push(Action::Alarm(SecurityEvent::TokenReportedRejected { token, caller }));
        }
        // With a try under way, the token has a successor in a moment; a proof may fail.
        if matches!(self.trying, Some(Lane::Schedule | Lane::Callers)) {
            self.withdraw_if_seconded();
        }
    }

    /// Takes a token that two callers rejected out of everybody's reach. Only ever when its replacement is being asked for:
    /// otherwise two callers could keep all the others without one.
    pub(super) fn withdraw_if_seconded(&mut self) {
        if let Some(Rejection { token, seconded: true, .. }) = self.rejection
            && self.hand.take_if(|held| held.id() == token).is_some()
        {
            self.changed = true;
            self.actions.push(Action::Alarm(SecurityEvent::TokenWithdrawn { token }));
        }
    }

    pub(super) fn answer(
        &mut self,
        mut outcome: impl FnMut(&Waiter) -> Option<Result<Arc<HeldToken>, Refusal>>,
    ) {
        let actions = &mut self.actions;
        self.waiters.retain(|id, waiter| match outcome(waiter) {
            Some(answer) => {
                actions.push(Action::Answer(*id, answer));
                false
            }
            None => true,
        });
    }

    pub(super) fn answer_the_satisfied(&mut self, now: BootInstant) {
        if self.stopping {
            self.answer(|_| Some(Err(Refusal::for_good(RefusalReason::ShuttingDown))));
        }
        self.answer_the_locked_out();
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
    pub(super) fn turn_away_the_hopeless(&mut self, now: BootInstant) {
        let next_try = if self.trying.is_some() { Some(now) } else { self.next_try(now).map(|(at, _)| at) };
        let why = self.why_not_now(now);
        self.answer(|waiter| {
            // True as well once `answer_by` has come: no try begins in the past.
            let hopeless = next_try.is_none_or(|at| at >= waiter.answer_by);
            if waiter.has_no_time_to_wait() {
                return Some(Err(Refusal::for_good(RefusalReason::DeadlineTooShort)));
            }
            hopeless.then(|| {
                let again_in = next_try.map(|at| at.saturating_since(now));
                Err(Refusal::new(why.clone(), again_in))
            })
        });
    }

    fn why_not_now(&self, now: BootInstant) -> RefusalReason {
        let idle = self.trying.is_none();
        match &self.failing {
            // The cause, even while the next try has to wait for the budget.
            Some(failing) => RefusalReason::Upstream(failing.error.clone()),
            // A token is in hand: it is the callers' lane that is closed. Or there is none, and no call left to get one.
            None if idle && (self.good_token(now).is_some() || self.not_before > now) => {
                RefusalReason::BudgetExhausted
            }
            None if self.last_lifetime.is_none() => RefusalReason::Starting,
            None => RefusalReason::Slow,
        }
    }
}
