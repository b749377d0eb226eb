//! Calls that the snapshot did not satisfy: taken in, answered, turned away.

use std::sync::Arc;

use super::{Action, Core, Obstacle, Rejection};
use crate::{
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
        self.waiters.push(Waiter::new(id, want, self.tries_begun, now));
    }

    pub(super) fn reported(&mut self, token: TokenId, caller: &str) {
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

    pub(super) fn answer(
        &mut self,
        mut outcome: impl FnMut(&Waiter) -> Option<Result<Arc<HeldToken>, Refusal>>,
    ) {
        let actions = &mut self.actions;
        self.waiters.retain(|waiter| match outcome(waiter) {
            Some(answer) => {
                actions.push(Action::Answer(waiter.id, answer));
                false
            }
            None => true,
        });
    }

    pub(super) fn answer_the_satisfied(&mut self, now: BootInstant) {
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

    pub(super) fn why_not_now(&self, now: BootInstant) -> RefusalReason {
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
}
