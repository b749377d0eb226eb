//! Lockdown, as the keeper obeys it: while everyone is locked it has no token and asks for none.

use std::sync::Arc;

use super::{Core, Lane};
use crate::{
    clock::BootInstant,
    keeper::waiting::{Refusal, RefusalReason},
    lockdown::Locks,
};

impl Core {
    /// Takes over the locks as they are now.
    pub(super) fn lock(&mut self, locks: Arc<Locks>, now: BootInstant) {
        let (was, is) = (self.locks.on_everyone().is_some(), locks.on_everyone().is_some());
        // Even where the state stays, its reason may be another.
        self.changed |= was || is;
        self.locks = locks;
        if is {
            self.forget_tokens();
        } else if was {
            // At once: everybody waits for it.
            self.not_before = now;
        }
    }

    /// Drops the tokens, those that a proof brought included, and all that is about them. What is known of the upstream stays.
    pub(super) fn forget_tokens(&mut self) {
        self.hand = None;
        self.refresh = None;
        self.rejection = None;
        self.confirmed = None;
        self.login_owed = false;
        self.failing = None;
        self.replacing.forget_tokens();
        self.abandon_try();
    }

    /// Has what the try under way brings dropped. It is not cut off: a call that was given up may still arrive.
    pub(super) fn abandon_try(&mut self) {
        if let Some(lane @ (Lane::Schedule | Lane::Callers)) = &mut self.trying {
            *lane = Lane::Nobody;
        }
    }

    /// Refuses those who wait and are locked out.
    pub(super) fn answer_the_locked_out(&mut self) {
        if self.locks.is_empty() {
            return;
        }
        let locks = Arc::clone(&self.locks);
        self.answer(|waiter| {
            let out = locks.on(&waiter.want.caller)?;
            Some(Err(Refusal::for_good(RefusalReason::LockedDown(out))))
        });
    }
}
