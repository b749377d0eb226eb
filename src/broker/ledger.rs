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

use crate::{
    caller::CallerName,
    clock::{BootInstant, Now},
    keeper::HeldToken,
    policy::Permission,
    token::TokenId,
};

/// How many unexpired tokens of one caller are remembered. The schedule gives it two or three; only who reports one after
/// the other as rejected gets more.
const MOST_HELD: usize = 64;

/// How a call ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// With an answer.
    Ok,
    /// With an error, a denial included.
    Failed,
}

/// The token that a caller was last given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LastToken {
    /// Which.
    pub id: TokenId,
    /// When it was given that token for the first time.
    pub at: Timestamp,
}

/// A token that a caller was given and that has not ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GivenToken {
    /// Which.
    pub id: TokenId,
    /// When it was given that token for the first time.
    pub at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// Who holds a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Who.
    pub caller: CallerName,
    /// Which.
    pub token: GivenToken,
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
    /// What it was given and has not ended, the latest first.
    pub held: Vec<GivenToken>,
}

#[derive(Default)]
struct Row {
    ok: [AtomicU64; Permission::ALL.len()],
    failed: [AtomicU64; Permission::ALL.len()],
    last_token: ArcSwapOption<Given>,
    /// The last one, and those before it whose reads are not all told yet.
    given: Mutex<Vec<Arc<Given>>>,
    held: ArcSwap<Vec<Held>>,
}

/// A token that a caller was given.
struct Given {
    token: LastToken,
    /// How often it was given again, and nobody was told.
    again: AtomicU64,
}

/// A token that was given and has perhaps not ended.
#[derive(Clone, Copy)]
struct Held {
    id: TokenId,
    at: Timestamp,
    ends: BootInstant,
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

    /// Notes that `caller` is about to be given `token`. Whether it is for the first time.
    pub(super) fn given(&self, caller: &CallerName, token: &HeldToken, now: Now) -> bool {
        self.0.load().get(caller).is_some_and(|row| row.given(token, now))
    }

    /// How often callers were given tokens again since this was last asked.
    pub(super) fn given_again(&self) -> Vec<(CallerName, TokenId, u64)> {
        let rows = self.0.load();
        let each = rows.iter().flat_map(|(name, row)| {
            row.given_again().into_iter().map(|(token, count)| (name.clone(), token, count))
        });
        each.collect()
    }

    /// Whether there is a row for this caller: the policy names it, or did.
    pub(super) fn knows(&self, caller: &CallerName) -> bool {
        self.0.load().contains_key(caller)
    }

    /// Who holds what has not ended: one caller, or all by name.
    pub(super) fn holders(&self, one: Option<&CallerName>, now: Now) -> Vec<Holder> {
        let rows = self.0.load();
        let mut names: Vec<_> = rows.iter().filter(|(name, _)| one.is_none_or(|one| one == *name)).collect();
        names.sort_unstable_by_key(|(name, _)| *name);
        let held = |(name, row): (&CallerName, &Arc<Row>)| {
            let caller = name.clone();
            row.held(now).into_iter().map(move |token| Holder { caller: caller.clone(), token })
        };
        names.into_iter().flat_map(held).collect()
    }

    /// Everybody's counts, by name.
    pub(super) fn counts(&self, now: Now) -> Vec<CallerCounts> {
        let rows = self.0.load();
        let mut all: Vec<_> = rows
            .iter()
            .map(|(name, row)| CallerCounts {
                name: name.clone(),
                calls: row.calls(),
                last_token: row.last_token.load().as_deref().map(|last| last.token),
                held: row.held(now),
            })
            .collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

impl Row {
    fn given(&self, token: &HeldToken, now: Now) -> bool {
        let token = Held { id: token.id(), at: now.wall, ends: token.expires_at };
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
        // Before anybody can take one of the short ways above.
        self.hold(token, now.boot);
        let token = LastToken { id: token.id, at: token.at };
        let first = Arc::new(Given { token, again: AtomicU64::new(0) });
        given.push(Arc::clone(&first));
        self.last_token.store(Some(first));
        true
    }

    fn given_again(&self) -> Vec<(TokenId, u64)> {
        let mut told = Vec::new();
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at under the lock, which it is changed under: one that has just become the last is not forgotten.
        let last = self.last_token.load();
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

    /// Adds a token, unless it is there, and leaves out those that have ended. Where there are too many, that which ends
    /// first of the others goes.
    fn hold(&self, new: Held, now: BootInstant) {
        self.held.rcu(|held| {
            let first_given = held.iter().find(|old| old.id == new.id).map_or(new.at, |old| old.at);
            let new = Held { at: first_given, ..new };
            let mut held: Vec<_> =
                held.iter().filter(|old| old.ends > now && old.id != new.id).copied().collect();
            if held.len() >= MOST_HELD
                && let Some(first) = (0..held.len()).min_by_key(|at| held[*at].ends)
            {
                held.remove(first);
            }
            held.push(new);
            held
        });
    }

    fn held(&self, now: Now) -> Vec<GivenToken> {
        let held = self.held.load();
        let unexpired = held.iter().rev().filter(|token| token.ends > now.boot);
        unexpired
            .map(|held| GivenToken { id: held.id, at: held.at, expires_at: now.wall_at(held.ends) })
            .collect()
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
    use std::time::Duration;

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
        let counts = ledger.counts(now(0));
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
        let counts = ledger.counts(now(0));
        assert_eq!(counts[0].calls, [(Permission::GetAccessToken, 2, 0)]);
        assert_eq!(counts[1].calls, [(Permission::Health, 1, 0)]);
    }

    fn now(second: u64) -> Now {
        let since_boot = Duration::from_secs(second);
        Now { boot: BootInstant::since_boot(since_boot), wall: Timestamp::UNIX_EPOCH + since_boot }
    }

    /// A token that ends at this second.
    fn token(text: &str, ends: u64) -> HeldToken {
        HeldToken {
            access: AccessToken::parse(text.to_owned().into()).unwrap(),
            issued_at: now(0).boot,
            expires_at: now(ends).boot,
            floor: Duration::ZERO,
            renew_at: now(ends).boot,
            replacements: 0,
            generation: 1,
        }
    }

    fn ledger() -> (CallerName, Ledger) {
        let name: CallerName = "payouts".parse().unwrap();
        let ledger = Ledger::of([&name].into_iter());
        (name, ledger)
    }

    #[test]
    fn the_last_token_is_remembered_with_the_time_of_its_first_handing_out() {
        let (name, ledger) = ledger();
        let (a, b) = (token("a", 10), token("b", 20));
        let last = |id, second| Some(LastToken { id, at: now(second).wall });
        assert!(ledger.given(&name, &a, now(1)));
        assert!(!ledger.given(&name, &a, now(2)));
        assert_eq!(ledger.counts(now(2))[0].last_token, last(a.id(), 1));
        assert!(ledger.given(&name, &b, now(3)));
        assert_eq!(ledger.counts(now(99))[0].last_token, last(b.id(), 3));

        // One who is late with the token before changes nothing of that.
        assert!(!ledger.given(&name, &a, now(4)));
        assert!(!ledger.given(&name, &b, now(4)));
        assert_eq!(ledger.counts(now(4))[0].last_token, last(b.id(), 3));
        let told = |tokens: &[(&HeldToken, u64)]| {
            tokens.iter().map(|(token, count)| (name.clone(), token.id(), *count)).collect::<Vec<_>>()
        };
        assert_eq!(ledger.given_again(), told(&[(&a, 2), (&b, 1)]));
        assert_eq!(ledger.given_again(), []);
        assert!(!ledger.given(&name, &b, now(5)));
        assert_eq!(ledger.given_again(), told(&[(&b, 1)]));
    }

    #[test]
    fn who_holds_what_is_known_until_it_ends() {
        let (name, ledger) = ledger();
        let (a, b) = (token("a", 10), token("b", 20));
        for (token, second) in [(&a, 1), (&b, 2), (&a, 3), (&b, 4)] {
            ledger.given(&name, token, now(second));
        }
        let held = |token: &HeldToken, since, ends| Holder {
            caller: name.clone(),
            token: GivenToken { id: token.id(), at: now(since).wall, expires_at: now(ends).wall },
        };
        assert_eq!(ledger.holders(None, now(5)), [held(&b, 2, 20), held(&a, 1, 10)]);
        assert_eq!(ledger.holders(Some(&name), now(10)), [held(&b, 2, 20)]);
        assert_eq!(ledger.counts(now(10))[0].held, [held(&b, 2, 20).token]);
        assert_eq!(ledger.holders(Some(&"other".parse().unwrap()), now(5)), []);
        assert_eq!(ledger.holders(None, now(20)), []);
    }

    #[test]
    fn of_too_many_tokens_those_that_end_first_are_forgotten() {
        let (name, ledger) = ledger();
        for number in 0..MOST_HELD as u64 + 3 {
            ledger.given(&name, &token(&format!("t{number}"), 1000 + number), now(1));
        }
        let held = ledger.holders(None, now(2));
        let first = held.iter().map(|holder| holder.token.expires_at).min();
        assert_eq!((held.len(), first), (MOST_HELD, Some(now(1003).wall)));
        // Those that have ended make room.
        ledger.given(&name, &token("late", 9000), now(8000));
        assert_eq!(ledger.holders(None, now(8000)).len(), 1);
    }
}
