//! The task does what the core says: to whom it goes, and who hears of it.

use std::time::Duration;

use super::*;
use crate::{
    budget::{CallLimit, CallRecord, History, RecordUnusable},
    clock::{Now, SystemClock},
    issuer::{self, IssueError},
    lockdown::{Lock, Scope},
    token::{AccessToken, Grant, RefreshToken},
};

const SETTINGS: TokenSettings = TokenSettings {
    refresh_at: 0.67,
    min_validity: Duration::from_secs(10),
    request_timeout: Duration::from_secs(10),
};

/// Numbers tokens of this name, or gives none.
struct Always(Result<&'static str, IssueError>, AtomicU64);

impl TokenIssuer for Always {
    fn fetch_token(&self, _: Duration) -> issuer::Answer<'_> {
        let number = self.1.fetch_add(1, Ordering::Relaxed) + 1;
        Box::pin(async move {
            self.0.clone().map(|name| Grant {
                access: AccessToken::parse(format!("{name}-{number}").into()).unwrap(),
                asked_at: SystemClock.now().boot,
                lifetime: Duration::from_secs(900),
                refresh: None,
            })
        })
    }

    fn refresh_token<'a>(&'a self, _: &'a RefreshToken, timeout: Duration) -> issuer::Answer<'a> {
        self.fetch_token(timeout)
    }
}

/// Tells this of the past, whatever was called since.
struct Forgetful(History);

impl CallRecord for Forgetful {
    fn update(
        &self,
        clock: &dyn Clock,
        decide: &mut dyn FnMut(History, Now) -> Option<Vec<crate::budget::PastCall>>,
    ) -> Result<(), RecordUnusable> {
        decide(self.0.clone(), clock.now());
        Ok(())
    }
}

fn budget(past: History) -> Arc<CallBudget> {
    CallBudget::new(CallLimit::B2BINPAY, Arc::new(Forgetful(past)), Arc::new(SystemClock))
}

/// As if the process had just started for the first time.
fn one_call() -> Arc<CallBudget> {
    budget(History::Missing)
}

fn replacement(answer: Result<&'static str, IssueError>, budget: &Arc<CallBudget>) -> Replacement {
    Replacement {
        issuer: Arc::new(Always(answer, AtomicU64::new(0))),
        budget: Arc::clone(budget),
        settings: SETTINGS,
    }
}

/// A keeper that runs, with the token "old-1" in hand.
async fn keeper() -> TokenKeeper {
    let setup = KeeperSetup {
        settings: SETTINGS,
        issuer: Arc::new(Always(Ok("old"), AtomicU64::new(0))),
        budget: one_call(),
        clock: Arc::new(SystemClock),
        locks: Arc::default(),
        seed: 1,
    };
    let (keeper, _alarms, task) = run(setup, std::future::pending());
    tokio::spawn(task);
    let mut changes = keeper.snapshot().changes();
    while in_hand(&keeper).is_none() {
        changes.changed().await.unwrap();
    }
    keeper
}

fn in_hand(keeper: &TokenKeeper) -> Option<String> {
    use crate::secret::ExposeSecret;
    let snapshot = keeper.snapshot().current();
    snapshot.token.as_ref().map(|token| token.access.secret().expose_secret().to_owned())
}

#[tokio::test]
async fn a_proved_replacement_is_asked_from_then_on_within_its_own_budget() {
    let keeper = keeper().await;
    let many_calls = budget(History::Kept(Vec::new()));
    let proved = keeper.prove(replacement(Ok("new"), &many_calls), None).await.unwrap();
    assert_eq!(in_hand(&keeper).as_deref(), Some("old-1"), "it is held back");
    let replaced = proved.adopt().await.unwrap();
    assert_eq!((replaced.generation, in_hand(&keeper).as_deref()), (2, Some("new-1")));
    // The old set has neither this token nor a call left.
    let (caller, rejected) = ("a".parse().unwrap(), Some(replaced.token));
    let want = Want { caller, min_validity: Duration::ZERO, rejected, deadline: None };
    keeper.obtain(want).await.unwrap();
    assert_eq!(in_hand(&keeper).as_deref(), Some("new-2"));
}

#[tokio::test]
async fn a_replacement_without_a_call_left_is_refused() {
    let keeper = keeper().await;
    let budget = one_call();
    keeper.prove(replacement(Ok("new"), &budget), None).await.unwrap().adopt().await.unwrap();
    let soon = Some(SystemClock.now().boot + Duration::from_secs(1));
    let refused = keeper.prove(replacement(Ok("newer"), &budget), soon).await.unwrap_err();
    assert!(matches!(refused, NotReplaced::BudgetExhausted { .. }), "{refused:?}");
    assert_eq!(in_hand(&keeper).as_deref(), Some("new-1"));
}

#[tokio::test]
async fn a_replacement_that_is_refused_is_told_why_and_leaves_the_token_in_hand() {
    let keeper = keeper().await;
    let wrong = IssueError::CredentialsRejected { detail: "400".into() };
    let refused = keeper.prove(replacement(Err(wrong.clone()), &one_call()), None).await.unwrap_err();
    assert_eq!(refused, NotReplaced::NotProved(wrong));
    assert_eq!(in_hand(&keeper).as_deref(), Some("old-1"));
}

#[tokio::test]
async fn what_was_proved_and_is_dropped_is_never_handed_out_and_the_next_can_be_proved() {
    let keeper = keeper().await;
    let many_calls = budget(History::Kept(Vec::new()));
    drop(keeper.prove(replacement(Ok("dropped"), &many_calls), None).await.unwrap());
    let proved = keeper.prove(replacement(Ok("new"), &many_calls), None).await.unwrap();
    assert_eq!(in_hand(&keeper).as_deref(), Some("old-1"));
    let replaced = proved.adopt().await.unwrap();
    assert_eq!((replaced.generation, in_hand(&keeper).as_deref()), (2, Some("new-1")));
}

#[tokio::test]
async fn what_is_adopted_without_its_token_logs_in_with_the_new_means() {
    let keeper = keeper().await;
    let many_calls = budget(History::Kept(Vec::new()));
    let proved = keeper.prove(replacement(Ok("new"), &many_calls), None).await.unwrap();
    let lock = Lock { since: SystemClock.now().wall, reason: "stolen".parse().unwrap(), by: "ops".into() };
    keeper.lock(Arc::new(Locks::default().with(&Scope::Everyone, lock))).await;
    keeper.lock(Arc::default()).await;
    proved.adopt().await.unwrap();
    let want =
        Want { caller: "a".parse().unwrap(), min_validity: Duration::ZERO, rejected: None, deadline: None };
    keeper.obtain(want).await.unwrap();
    assert_eq!(in_hand(&keeper).as_deref(), Some("new-2"));
}
