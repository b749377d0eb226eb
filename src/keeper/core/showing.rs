//! What everybody is shown of the core.

use super::{Action, Core, Note};
use crate::{
    clock::{BootInstant, Now},
    issuer::IssueError,
    keeper::snapshot::{KeeperState, TokenSnapshot},
};

impl Core {
    /// What to show now.
    pub(in crate::keeper) fn snapshot(&self) -> TokenSnapshot {
        let (state, mut since) = self.shown;
        if let Some(lock) = self.locks.on_everyone() {
            // The process may be younger than the lock.
            since.wall = lock.since;
        }
        TokenSnapshot {
            token: self.hand.clone(),
            state,
            since,
            reason: self.reason(state),
            last_lifetime: self.last_lifetime,
            generation: self.generation,
            last_call: self.last_call.clone(),
        }
    }

    fn state(&self, now: BootInstant) -> KeeperState {
        if self.locks.on_everyone().is_some() {
            return KeeperState::LockedDown;
        }
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
        if let Some(lock) = self.locks.on_everyone() {
            return format!("locked by {}: {}", lock.by, lock.reason);
        }
        match (&self.failing, &self.budget_problem) {
            _ if state == KeeperState::Fresh => String::new(),
            (Some(failing), _) => failing.error.to_string(),
            (None, Some(problem)) => format!("the record of call times can't be kept: {problem}"),
            (None, None) if state == KeeperState::Starting => "the first token is being fetched".to_owned(),
            (None, None) => "the token in hand can't be used any more; another is being fetched".to_owned(),
        }
    }

    pub(super) fn show(&mut self, now: Now) {
        let state = self.state(now.boot);
        if state != self.shown.0 {
            if state == KeeperState::Expired && self.shown.0 != KeeperState::LockedDown {
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
