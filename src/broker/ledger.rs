//! Who did what, and who was given which token: counters without a lock.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;

use crate::{caller::CallerName, policy::Permission, token::TokenId};

/// How a call ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// With an answer.
    Ok,
    /// With an error, a denial included.
    Failed,
}

impl Outcome {
    /// The outcome of a call with this result.
    pub const fn of<T, E>(result: &Result<T, E>) -> Self {
        if result.is_ok() { Self::Ok } else { Self::Failed }
    }
}

/// The token that a caller was last given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastToken {
    /// Which.
    pub id: TokenId,
    /// When it was given that token for the first time.
    pub at: Timestamp,
}

/// What one caller did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallerCounts {
    /// Who.
    pub name: CallerName,
    /// By permission: calls with an answer, and with an error. Those that were never made are left out.
    pub calls: Vec<(Permission, u64, u64)>,
    /// What it was last given.
    pub last_token: Option<LastToken>,
}

#[derive(Default)]
struct Row {
    ok: [AtomicU64; Permission::ALL.len()],
    failed: [AtomicU64; Permission::ALL.len()],
    last_token: ArcSwapOption<LastToken>,
}

/// A row for each caller that the policy names, or named since the start.
pub(super) struct Ledger(ArcSwap<HashMap<CallerName, Arc<Row>>>);

impl Ledger {
    pub(super) fn of<'a>(callers: impl Iterator<Item = &'a CallerName>) -> Self {
        let ledger = Self(ArcSwap::default());
        ledger.follow(callers);
        ledger
    }

    /// Opens rows for those callers that have none. The others keep theirs, those included that the policy names no more:
    /// what they did is not undone by it.
    pub(super) fn follow<'a>(&self, callers: impl Iterator<Item = &'a CallerName>) {
        let mut rows = HashMap::clone(&self.0.load());
        for name in callers {
            rows.entry(name.clone()).or_default();
        }
        self.0.store(Arc::new(rows));
    }

    pub(super) fn count(&self, caller: &CallerName, permission: Permission, outcome: Outcome) {
        if let Some(row) = self.0.load().get(caller) {
            let counters = if outcome == Outcome::Ok { &row.ok } else { &row.failed };
            counters[permission as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn given(&self, caller: &CallerName, id: TokenId, at: Timestamp) {
        if let Some(row) = self.0.load().get(caller)
            && row.last_token.load().as_ref().is_none_or(|last| last.id != id)
        {
            row.last_token.store(Some(Arc::new(LastToken { id, at })));
        }
    }

    /// Everybody's counts, by name.
    pub(super) fn counts(&self) -> Vec<CallerCounts> {
        let rows = self.0.load();
        let mut all: Vec<_> = rows
            .iter()
            .map(|(name, row)| CallerCounts {
                name: name.clone(),
                calls: row.calls(),
                last_token: row.last_token.load().as_deref().copied(),
            })
            .collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

impl Row {
    fn calls(&self) -> Vec<(Permission, u64, u64)> {
        let read = |counters: &[AtomicU64], permission| counters[permission as usize].load(Ordering::Relaxed);
        Permission::ALL
            .into_iter()
            .map(|permission| (permission, read(&self.ok, permission), read(&self.failed, permission)))
            .filter(|(_, ok, failed)| ok + failed > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::AccessToken;

    #[test]
    fn calls_are_counted_by_caller_and_permission() {
        let name: CallerName = "payouts".parse().unwrap();
        let ledger = Ledger::of([&name].into_iter());
        ledger.count(&name, Permission::GetAccessToken, Outcome::Ok);
        ledger.count(&name, Permission::GetAccessToken, Outcome::Ok);
        ledger.count(&name, Permission::VerifySign, Outcome::Failed);
        ledger.count(&"stranger".parse().unwrap(), Permission::VerifySign, Outcome::Failed);
        let counts = ledger.counts();
        assert_eq!(counts.len(), 1);
        assert_eq!(counts[0].calls, [(Permission::GetAccessToken, 2, 0), (Permission::VerifySign, 0, 1)]);
    }

    #[test]
    fn a_policy_adds_callers_and_forgets_nobody() {
        let names: Vec<CallerName> = ["a", "b"].iter().map(|name| name.parse().unwrap()).collect();
        let ledger = Ledger::of(names[..1].iter());
        ledger.count(&names[0], Permission::GetAccessToken, Outcome::Ok);
        ledger.follow(names[1..].iter());
        ledger.count(&names[1], Permission::Health, Outcome::Ok);
        ledger.count(&names[0], Permission::GetAccessToken, Outcome::Ok);
        let counts = ledger.counts();
        assert_eq!(counts[0].calls, [(Permission::GetAccessToken, 2, 0)]);
        assert_eq!(counts[1].calls, [(Permission::Health, 1, 0)]);
    }

    #[test]
    fn the_last_token_is_remembered_with_the_time_of_its_first_handing_out() {
        let name: CallerName = "payouts".parse().unwrap();
        let ledger = Ledger::of([&name].into_iter());
        let id = |text: &str| AccessToken::parse(text.to_owned().into()).unwrap().id();
        let at = |second| Timestamp::from_second(second).unwrap();
        ledger.given(&name, id("a"), at(1));
        ledger.given(&name, id("a"), at(2));
        assert_eq!(ledger.counts()[0].last_token, Some(LastToken { id: id("a"), at: at(1) }));
        ledger.given(&name, id("b"), at(3));
        assert_eq!(ledger.counts()[0].last_token, Some(LastToken { id: id("b"), at: at(3) }));
    }
}
