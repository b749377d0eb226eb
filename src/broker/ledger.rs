//! Who did what, and who was given which token: counters without a lock.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
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
    last_token: ArcSwapOption<Given>,
    /// The last one, and those before it whose reads are not all told yet.
    given: Mutex<Vec<Arc<Given>>>,
}

/// A token that a caller was given.
struct Given {
    token: LastToken,
    /// How often it was given again, and nobody was told.
    again: AtomicU64,
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

    /// Notes that a caller was given a token. Whether it was for the first time.
    pub(super) fn given(&self, caller: &CallerName, id: TokenId, at: Timestamp) -> bool {
        self.0.load().get(caller).is_some_and(|row| row.given(LastToken { id, at }))
    }

    /// How often callers were given tokens again since this was last asked.
    pub(super) fn given_again(&self) -> Vec<(CallerName, TokenId, u64)> {
        let rows = self.0.load();
        let each = rows.iter().flat_map(|(name, row)| {
            row.given_again().into_iter().map(|(token, count)| (name.clone(), token, count))
        });
        each.collect()
    }

    /// Everybody's counts, by name.
    pub(super) fn counts(&self) -> Vec<CallerCounts> {
        let rows = self.0.load();
        let mut all: Vec<_> = rows
            .iter()
            .map(|(name, row)| CallerCounts {
                name: name.clone(),
                calls: row.calls(),
                last_token: row.last_token.load().as_deref().map(|last| last.token),
            })
            .collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

impl Row {
    fn given(&self, token: LastToken) -> bool {
        if let Some(last) = self.last_token.load().as_deref().filter(|last| last.token.id == token.id) {
            last.again.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have been faster, or may be late with a token that was the last before.
        if let Some(same) = given.iter().find(|given| given.token.id == token.id) {
            same.again.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let first = Arc::new(Given { token, again: AtomicU64::new(0) });
        given.push(Arc::clone(&first));
        self.last_token.store(Some(first));
        true
    }

    fn given_again(&self) -> Vec<(TokenId, u64)> {
        let last = self.last_token.load();
        let mut told = Vec::new();
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.retain(|given| {
            let again = given.again.swap(0, Ordering::Relaxed);
            if again > 0 {
                told.push((given.token.id, again));
            }
            // One that is given no more is forgotten when there is nothing to tell of it.
            again > 0 || last.as_ref().is_some_and(|last| last.token.id == given.token.id)
        });
        told
    }

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
        assert!(ledger.given(&name, id("a"), at(1)));
        assert!(!ledger.given(&name, id("a"), at(2)));
        assert_eq!(ledger.counts()[0].last_token, Some(LastToken { id: id("a"), at: at(1) }));
        assert!(ledger.given(&name, id("b"), at(3)));
        assert_eq!(ledger.counts()[0].last_token, Some(LastToken { id: id("b"), at: at(3) }));

        // One who is late with the token before changes nothing of that.
        assert!(!ledger.given(&name, id("a"), at(4)));
        assert!(!ledger.given(&name, id("b"), at(4)));
        assert_eq!(ledger.counts()[0].last_token, Some(LastToken { id: id("b"), at: at(3) }));
        let told = |tokens: &[(&str, u64)]| {
            tokens.iter().map(|(token, count)| (name.clone(), id(token), *count)).collect::<Vec<_>>()
        };
        assert_eq!(ledger.given_again(), told(&[("a", 2), ("b", 1)]));
        assert_eq!(ledger.given_again(), []);
        assert!(!ledger.given(&name, id("b"), at(5)));
        assert_eq!(ledger.given_again(), told(&[("b", 1)]));
    }
}
