//! Tries: when one may begin, and what its end means.

use std::{sync::Arc, time::Duration};

use super::{Action, CALLERS_LANE, Core, Failing, Lane, Note};
use crate::{
    budget::Purpose,
    clock::{BootInstant, Now},
    issuer::IssueError,
    keeper::{
        attempt::{Attempt, AttemptEnd, AttemptKind, Outcome},
        snapshot::{HeldToken, LastCall},
        timing::pause,
        waiting::{Refusal, RefusalReason},
    },
    security::SecurityEvent,
    token::Grant,
};

impl Core {
    /// When the next try may begin, and for whom. `None`: not any more.
    pub(super) fn next_try(&self, now: BootInstant) -> Option<(BootInstant, Lane)> {
        let scheduled = match self.good_token(now) {
            Some(token) if !self.login_owed => token.renew_at,
            _ => now,
        };
        // What failed before it was due is tried again until it succeeds, but not at the schedule's expense.
        let wanted = self.rejection.is_some() || self.failing.is_some() || !self.waiters.is_empty();
        let (at, lane) = match wanted.then_some(self.lane_opens.max(now)) {
            Some(opens) if opens < scheduled => (opens, Lane::Callers),
            _ => (scheduled, Lane::Schedule),
        };
        let barred = self.stopping || self.locks.on_everyone().is_some();
        (!barred).then_some((at.max(self.not_before).max(now), lane))
    }

    pub(super) fn begin_if_due(&mut self, now: BootInstant) {
        if self.trying.is_some() {
            return;
        }
        let due = self.next_try(now).filter(|(at, _)| *at <= now);
        if self.begin_proof_if_due(now, due.is_some()) {
            return;
        }
        let Some((_, lane)) = due else { return };
        if lane == Lane::Callers {
            self.lane_opens = now + CALLERS_LANE;
        }
        let left = self.good_token(now).map(|token| token.handed_out_until().saturating_since(now));
        let refresh = self.refresh.take().filter(|token| token.expires_at > now && self.rejection.is_none());
        let kind = refresh.map_or(AttemptKind::Login, AttemptKind::Refresh);
        self.withdraw_if_seconded();
        self.trying = Some(lane);
        self.tries_begun += 1;
        let purpose = match lane {
            Lane::Schedule | Lane::Replacement | Lane::Nobody => Purpose::Schedule,
            Lane::Callers => Purpose::Callers,
        };
        self.actions.push(Action::Begin(Attempt { kind, purpose, patience: self.settings.patience(left) }));
    }

    pub(super) fn ended(&mut self, end: AttemptEnd, now: Now) {
        let lane = self.trying.take();
        if lane == Some(Lane::Replacement) {
            return self.proof_ended(end.outcome, end.budget_problem, now);
        }
        if lane == Some(Lane::Nobody) {
            // Neither what it gave nor how it failed is about anything that is still there.
            return;
        }
        if self.budget_problem != end.budget_problem {
            self.budget_problem = end.budget_problem;
            self.changed = true;
        }
        let by = end.kind.word();
        match end.outcome {
            Outcome::NoTurn(until) => {
                // What callers may not have, the schedule still may.
                let closed =
                    if lane == Some(Lane::Callers) { &mut self.lane_opens } else { &mut self.not_before };
                *closed = until;
                self.keep_refresh_token(end.kind);
            }
            Outcome::Called { result, took } => {
                let error = result.as_ref().err().cloned();
                self.last_call = Some(LastCall { error, at: now, took });
                self.login_owed = false;
                self.replacing.proved_last = false;
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

    pub(super) fn granted(&mut self, grant: Grant, by: &'static str, now: Now) {
        let (token, lifetime, floor) =
            (grant.access.id(), grant.lifetime, self.settings.floor(grant.lifetime));
        if let Some(rejection) = self.rejection.take() {
            self.confirmed = (rejection.token == token).then_some(token);
            self.replacements += 1;
        }
        self.hand = Some(Arc::new(HeldToken {
            issued_at: grant.asked_at,
            expires_at: grant.expires_at(),
            floor,
            renew_at: self.settings.renewal(&grant, &mut self.rng),
            replacements: self.replacements,
            generation: self.generation,
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
            self.login_owed = true;
            return;
        }

        let (failures, since) = match &self.failing {
            Some(row) => (row.failures + 1, row.since),
            None => (1, now),
        };
        let again_in = pause(&error, failures, self.good_token(now).is_some(), &mut self.rng);
        self.not_before = now + again_in;
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

    pub(super) fn alarm_about(&mut self, error: &IssueError, kind: &AttemptKind, now: BootInstant) {
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
}
