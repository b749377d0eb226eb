//! Replacements: proved by one login before they take the place of what was in force.
//!
//! A proof changes nothing, whether it fails or not: not the token, the refresh token, the schedule, nor the row of
//! failures. What it brings is held until it is adopted, which can't fail, or taken back; the set in force goes on
//! meanwhile, as if there were no other. There is one held at a time, and no other proof begins before. A proof goes
//! on the schedule's account, whatever the pause after the failures of the set in force: a person waits for it, and
//! perhaps it is what mends them. Where both want the upstream at the same time they take turns, so that neither a
//! failing set keeps its successor out, nor a loop of bad successors lets a good set run dry.

use std::{collections::VecDeque, time::Duration};

use super::{Action, Core, Lane, Note};
use crate::{
    budget::Purpose,
    clock::{BootInstant, Now},
    issuer::IssueError,
    keeper::{
        attempt::{Attempt, AttemptKind, Outcome},
        replacing::{NotReplaced, Proposal, Replaced, ReplacementId},
        snapshot::LastCall,
    },
    token::{Grant, TokenId},
};

/// Replacements on their way.
#[derive(Default)]
pub(super) struct Replacing {
    /// Those that wait for their proof, in the order in which they came.
    pub(super) waiting: VecDeque<Proposal>,
    /// The one whose proof is under way, as long as somebody waits for it.
    proving: Option<Proposal>,
    /// The one that is proved.
    held: Option<Held>,
    /// Everyone was locked out since the proof under way began: the token that it brings is not kept.
    fruitless: bool,
    /// The last call that was made was a proof: what else is due goes first.
    pub(super) proved_last: bool,
}

/// What a proof brought, until somebody says what becomes of it.
struct Held {
    proposal: Proposal,
    token: TokenId,
    lifetime: Duration,
    /// `None`: everyone was locked out since it was asked for.
    grant: Option<Grant>,
    /// The call that brought it, and what keeps the record of its budget from being kept.
    call: LastCall,
    budget_problem: Option<String>,
}

impl Replacing {
    /// Drops what a proof under way will bring, or has brought; that it succeeds counts all the same.
    pub(super) fn forget_tokens(&mut self) {
        if let Some(held) = &mut self.held {
            held.grant = None;
        }
        self.fruitless |= self.proving.is_some();
    }

    /// The token that is held back.
    #[cfg(test)]
    pub(super) fn held_token(&self) -> Option<TokenId> {
        self.held.as_ref().and_then(|held| held.grant.as_ref()).map(|grant| grant.access.id())
    }
}

impl Core {
    /// Takes back a replacement that nobody waits for any more, proved or not.
    pub(super) fn withdraw_replacement(&mut self, id: ReplacementId) {
        self.replacing.waiting.retain(|proposal| proposal.id != id);
        self.replacing.proving.take_if(|proposal| proposal.id == id);
        self.replacing.held.take_if(|held| held.proposal.id == id);
    }

    /// When the next proof may begin.
    pub(super) fn next_proof(&self, now: BootInstant) -> Option<BootInstant> {
        if self.replacing.held.is_some() {
            return None;
        }
        self.replacing.waiting.front().map(|proposal| proposal.not_before.max(now))
    }

    /// Begins a proof, if one is due and it is its turn. `scheduled`: something else is due as well.
    pub(super) fn begin_proof_if_due(&mut self, now: BootInstant, scheduled: bool) -> bool {
        let due = self.next_proof(now).is_some_and(|at| at <= now);
        if !due || (scheduled && self.replacing.proved_last) {
            return false;
        }
        let Some(proposal) = self.replacing.waiting.pop_front() else { return false };
        let left = self.good_token(now).map(|token| token.handed_out_until().saturating_since(now));
        let patience = proposal.settings.patience(left);
        let kind = AttemptKind::Proof(proposal.id);
        self.replacing.proving = Some(proposal);
        self.trying = Some(Lane::Replacement);
        self.actions.push(Action::Begin(Attempt { kind, purpose: Purpose::Schedule, patience }));
        true
    }

    pub(super) fn proof_ended(&mut self, outcome: Outcome, budget_problem: Option<String>, now: Now) {
        let proposal = self.replacing.proving.take();
        let fruitless = std::mem::take(&mut self.replacing.fruitless);
        match outcome {
            Outcome::NoTurn(until) => {
                if let Some(proposal) = proposal {
                    self.replacing.waiting.push_front(Proposal { not_before: until, ..proposal });
                }
            }
            Outcome::Called { result, took } => {
                self.replacing.proved_last = true;
                let Some(proposal) = proposal else { return };
                let id = proposal.id;
                let answer = match result {
                    Ok(grant) => {
                        let (token, lifetime) = (grant.access.id(), grant.lifetime);
                        let keeps = !fruitless && self.locks.on_everyone().is_none();
                        let grant = keeps.then_some(grant);
                        let call = LastCall { error: None, at: now, took };
                        self.replacing.held =
                            Some(Held { proposal, token, lifetime, grant, call, budget_problem });
                        Ok(token)
                    }
                    Err(error) => Err(self.refuse(error, now.boot)),
                };
                self.actions.push(Action::Conclude(id, answer));
            }
        }
    }

    /// Puts what was proved in force. A try under way goes on to its end, and for nothing: it is the old set's.
    pub(super) fn adopt(&mut self, id: ReplacementId, now: Now) {
        let Some(held) = self.replacing.held.take_if(|held| held.proposal.id == id) else { return };
        self.settings = held.proposal.settings;
        self.generation += 1;
        let replaced = Replaced { generation: self.generation, token: held.token };
        self.last_call = Some(held.call);
        self.budget_problem = held.budget_problem;
        // All of these were about the set that is gone. Its refresh token is dropped unused.
        self.refresh = None;
        self.rejection = None;
        self.login_owed = false;
        self.abandon_try();
        if let Some(grant) = held.grant {
            self.granted(grant, "replacement", now);
        } else {
            self.forget_tokens();
            self.last_lifetime = Some(held.lifetime);
            self.not_before = now.boot;
        }
        self.confirmed = None;
        self.changed = true;
        self.actions.push(Action::Adopt(id, replaced));
    }

    fn refuse(&mut self, error: IssueError, now: BootInstant) -> NotReplaced {
        self.alarm_about(&error, &AttemptKind::Login, now);
        self.actions.push(Action::Tell(Note::NotProved { error: error.clone() }));
        NotReplaced::NotProved(error)
    }

    /// Answers those whose proof can't begin in time.
    pub(super) fn turn_away_late_replacements(&mut self, now: BootInstant) {
        let stopping = self.stopping;
        let actions = &mut self.actions;
        self.replacing.waiting.retain(|proposal| {
            let why = if stopping {
                NotReplaced::ShuttingDown
            } else if proposal.not_before > now && proposal.not_before >= proposal.begin_by {
                NotReplaced::BudgetExhausted { retry_after: proposal.not_before.saturating_since(now) }
            } else if proposal.begin_by <= now {
                NotReplaced::Busy
            } else {
                return true;
            };
            actions.push(Action::Conclude(proposal.id, Err(why)));
            false
        });
    }
}
