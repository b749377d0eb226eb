//! Replacements: proved by one login before they take the place of what was in force.
//!
//! A failed proof changes nothing: not the token, the refresh token, the schedule, nor the row of failures. A proof goes
//! on the schedule's account, whatever the pause after the failures of the set in force: a person waits for it, and
//! perhaps it is what mends them. Where both want the upstream at the same time they take turns, so that neither a
//! failing set keeps its successor out, nor a loop of bad successors lets a good set run dry.

use std::collections::VecDeque;

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
    token::Grant,
};

/// Replacements on their way.
#[derive(Default)]
pub(super) struct Replacing {
    /// Those that wait for their proof, in the order in which they came.
    pub(super) waiting: VecDeque<Proposal>,
    /// The one whose proof is under way, as long as somebody waits for it.
    proving: Option<Proposal>,
    /// The last call that was made was a proof: what else is due goes first.
    pub(super) proved_last: bool,
}

impl Core {
    /// Takes back a replacement that nobody waits for any more. One that is being proved is not adopted: nobody would
    /// change with the keeper what has to change with it.
    pub(super) fn withdraw_replacement(&mut self, id: ReplacementId) {
        self.replacing.waiting.retain(|proposal| proposal.id != id);
        self.replacing.proving.take_if(|proposal| proposal.id == id);
    }

    /// When the next proof may begin.
    pub(super) fn next_proof(&self, now: BootInstant) -> Option<BootInstant> {
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
        match outcome {
            Outcome::NoTurn(until) => {
                if let Some(proposal) = proposal {
                    self.replacing.waiting.push_front(Proposal { not_before: until, ..proposal });
                }
            }
            Outcome::Called { result, took } => {
                self.replacing.proved_last = true;
                let Some(proposal) = proposal else { return };
                let answer = match result {
                    Ok(grant) => {
                        self.last_call = Some(LastCall { error: None, at: now, took });
                        self.budget_problem = budget_problem;
                        Ok(self.adopt(&proposal, grant, now))
                    }
                    Err(error) => Err(self.refuse(error, now.boot)),
                };
                self.actions.push(Action::Conclude(proposal.id, answer));
            }
        }
    }

    fn adopt(&mut self, proposal: &Proposal, grant: Grant, now: Now) -> Replaced {
        self.settings = proposal.settings;
        self.generation += 1;
        let replaced =
            Replaced { generation: self.generation, token: grant.access.id(), lifetime: grant.lifetime };
        // All of these were about the set that is gone. Its refresh token is dropped unused.
        self.refresh = None;
        self.rejection = None;
        self.login_owed = false;
        self.granted(grant, "replacement", now);
        self.confirmed = None;
        if self.locks.on_everyone().is_some() {
            self.forget_tokens();
        }
        self.changed = true;
        replaced
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
