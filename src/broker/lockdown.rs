//! Locking out and letting in again, and why no token slips through.
//!
//! Two promises: no call that begins after the answer to [`Broker::lockdown`] gets a token, and whoever got one before is
//! in that answer's list. Each side writes before it reads, with a fence between:
//!
//! ```text
//! handing out                          locking
//!   the token is in the ledger           the lock is set
//!   ---- fence ----                      ---- fence ----
//!   the lock is looked at                the ledger is read
//! ```
//!
//! The fences stand in one order (`SeqCst`). If that on the left comes first, the ledger's reader sees the token: it is
//! listed. If that on the right comes first, whoever hands out sees the lock, and the token stays here: it is listed and
//! was not given, which errs on the right side. There is no third way, and neither side waits for the other.
//!
//! What begins after the answer sees the lock all the more. What was let through before is on its way: the guard ends
//! streams, and the connection that carries it is closed within a second.
//!
//! The lock acts in memory first, and is written down beside: a dead disk delays the answer by [`PATIENCE_WITH_DISK`] and
//! no more. What could not be written is tried again until it is.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{Ordering, fence},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::watch;

use super::{Broker, Holder};
use crate::{
    audit::AdminAct,
    caller::{CallerName, Peer},
    keeper::{Refusal, RefusalReason},
    lockdown::{Lock, LockReason, LockRecord, LockedOut, Locks, NotWritten, Scope},
    security::SecurityEvent,
};

/// How long an answer waits for the keeper and the disk. Both usually take a few milliseconds; the answer is to come within
/// a tenth of a second whatever they do.
const PATIENCE_WITH_DISK: Duration = Duration::from_millis(60);

/// How long to pause before what could not be written is tried again.
const WRITE_AGAIN: Duration = Duration::from_secs(2);

/// A name that is no caller's.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the policy names no caller {0}; `b2binpay-broker status` lists them")]
pub struct NoSuchCaller(pub CallerName);

/// Why an unlock is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotUnlocked {
    /// There is no such lock, and no such caller.
    #[error(transparent)]
    NoSuchCaller(#[from] NoSuchCaller),
    /// A lock lies on whoever asks, by its name.
    #[error(
        "caller {by} may lift no lock while it is locked out itself: since {since:.0}, by {whose}: {reason}; another \
         administrator must run `b2binpay-broker unlock --caller {by}`",
        since = lock.since, whose = lock.by, reason = lock.reason
    )]
    LockedOut {
        /// Who asks.
        by: CallerName,
        /// The lock.
        lock: Lock,
    },
}

impl NotUnlocked {
    /// A word for it, for programs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NoSuchCaller(_) => "BAD_REQUEST",
            Self::LockedOut { .. } => "LOCKED_DOWN",
        }
    }
}

/// What a lockdown came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockedDown {
    /// The lock that is in force: an earlier one, if there was one.
    pub lock: LockedOut,
    /// Who of those that it is on holds tokens that have not ended, as far as this process gave them.
    pub holders: Vec<Holder>,
    /// Why it would not outlive the process, as of now.
    pub problem: Option<NotWritten>,
}

/// What an unlock came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unlocked {
    /// Whether there was such a lock.
    pub was_locked: bool,
    /// The locks that are still in force.
    pub locks: Vec<LockedOut>,
    /// Why the next process would not know of it, as of now.
    pub problem: Option<NotWritten>,
}

/// The locks in force, and what is known of them on the disk.
pub(super) struct LockState {
    locks: ArcSwap<Locks>,
    /// Changes are made one after the other; nobody waits here for longer than a change takes.
    changing: Mutex<()>,
    /// How many changes there were.
    changes: watch::Sender<u64>,
    record: Arc<dyn LockRecord>,
    written: watch::Sender<Written>,
}

/// What the disk knows.
#[derive(Clone, Default)]
struct Written {
    /// The last change that was written, or tried to be.
    change: u64,
    problem: Option<NotWritten>,
}

impl LockState {
    pub(super) fn new(locks: Arc<Locks>, record: Arc<dyn LockRecord>) -> Self {
        Self {
            locks: ArcSwap::new(locks),
            changing: Mutex::default(),
            changes: watch::Sender::new(0),
            record,
            written: watch::Sender::new(Written::default()),
        }
    }

    pub(super) fn current(&self) -> Arc<Locks> {
        self.locks.load_full()
    }

    /// Why the locks on the disk are not those in force. `None`: they are.
    pub(super) fn problem(&self) -> Option<NotWritten> {
        let change = *self.changes.borrow();
        Self::problem_of(&self.written.borrow(), change)
    }

    fn problem_of(written: &Written, change: u64) -> Option<NotWritten> {
        let slow = || NotWritten("the disk has not taken it yet; it is tried until it does".into());
        if written.change < change { Some(slow()) } else { written.problem.clone() }
    }

    /// Waits until this change is written, or could not be.
    async fn written(&self, change: u64) {
        let mut written = self.written.subscribe();
        // Its sender is `self`.
        let _ = written.wait_for(|written| written.change >= change).await;
    }
}

impl Broker {
    /// The locks that are in force.
    pub fn locks(&self) -> Arc<Locks> {
        self.lockdown.current()
    }

    /// The lock that keeps `caller` from tokens.
    pub fn locked_out(&self, caller: &CallerName) -> Option<LockedOut> {
        self.lockdown.locks.load().on(caller)
    }

    /// Whether `caller` may be handed what was just put into the ledger.
    pub(super) fn last_look(&self, caller: &CallerName) -> Result<(), Refusal> {
        // The ledger was written before, the lock is read after: see the module.
        fence(Ordering::SeqCst);
        self.not_locked(caller)
    }

    pub(super) fn not_locked(&self, caller: &CallerName) -> Result<(), Refusal> {
        match self.locked_out(caller) {
            None => Ok(()),
            Some(out) => Err(Refusal { reason: RefusalReason::LockedDown(out), retry_after: None }),
        }
    }

    /// Locks out everyone or one caller, in memory at once. Locking what is locked changes nothing and answers the same.
    pub async fn lockdown(
        &self,
        scope: Scope,
        reason: LockReason,
        (by, peer): (&CallerName, &Peer),
    ) -> Result<LockedDown, NoSuchCaller> {
        self.must_know(&scope).inspect_err(|refused| {
            let told = Err(("BAD_REQUEST", refused.to_string()));
            self.audit.admin(AdminAct::Lockdown, Some((by, peer)), told);
        })?;
        let lock = Lock { since: self.clock.now().wall, reason, by: by.to_string() };
        let change = self.change_locks(|locks| locks.with(&scope, lock.clone())).await;
        // The lock was set before, the ledger is read after: see the module.
        fence(Ordering::SeqCst);
        let now = self.clock.now();
        let holders = match &scope {
            Scope::Everyone => self.ledger.holders(None, now),
            Scope::Caller(name) => self.ledger.holders(Some(name), now),
        };
        let lock = self.lockdown.current().of_scope(&scope).cloned().unwrap_or(lock);
        let problem = LockState::problem_of(&self.lockdown.written.borrow(), change);
        tracing::warn!(
            scope = %scope, by = %by, reason = %lock.reason, holders = holders.len(),
            written = problem.is_none(), "lockdown"
        );
        let told = format!(
            "{scope}: {}; {} tokens are held{}",
            lock.reason,
            holders.len(),
            unwritten(problem.as_ref())
        );
        self.audit.admin(AdminAct::Lockdown, Some((by, peer)), Ok(told));
        let reason = lock.reason.clone();
        self.events
            .push(now.wall, SecurityEvent::LockedDown { scope: scope.clone(), by: by.clone(), reason });
        Ok(LockedDown { lock: LockedOut { scope, lock }, holders, problem })
    }

    /// Lets everyone or one caller in again. A lock on everyone and those on single callers are lifted each for itself. Who is
    /// locked out by name lifts none: whoever made that lock holds it for taken over.
    ///
    /// It acts even where the flag can't be taken from the disk: somebody who may has decided, and until the flag is gone
    /// the worst is that the next process begins locked.
    pub async fn unlock(
        &self,
        scope: Scope,
        (by, peer): (&CallerName, &Peer),
    ) -> Result<Unlocked, NotUnlocked> {
        let outcome = self.lift(scope, by, peer).await;
        outcome.inspect_err(|refused| {
            let told = Err((refused.word(), refused.to_string()));
            self.audit.admin(AdminAct::Unlock, Some((by, peer)), told);
        })
    }

    async fn lift(&self, scope: Scope, by: &CallerName, peer: &Peer) -> Result<Unlocked, NotUnlocked> {
        let was_locked = self.lockdown.locks.load().of_scope(&scope).is_some();
        if !was_locked {
            self.must_know(&scope)?;
        }
        let own = Scope::Caller(by.clone());
        let mut barred = None;
        // Looked at in the same moment as the change is made: no lock on who asks comes in between and is lifted unseen.
        let change = |locks: Locks| {
            barred = locks.of_scope(&own).cloned();
            if barred.is_some() { locks } else { locks.without(&scope) }
        };
        let change = self.change_locks(change).await;
        if let Some(lock) = barred {
            return Err(NotUnlocked::LockedOut { by: by.clone(), lock });
        }
        let problem = LockState::problem_of(&self.lockdown.written.borrow(), change);
        if was_locked {
            tracing::warn!(scope = %scope, by = %by, written = problem.is_none(), "unlocked");
            let told = format!("{scope}{}", unwritten(problem.as_ref()));
            self.audit.admin(AdminAct::Unlock, Some((by, peer)), Ok(told));
            self.events.push(self.clock.now().wall, SecurityEvent::Unlocked { scope, by: by.clone() });
        }
        Ok(Unlocked { was_locked, locks: self.lockdown.current().all(), problem })
    }

    /// Makes a change that acts when this returns, and gives the keeper and the disk a moment to follow. Which change it
    /// was.
    async fn change_locks(&self, change: impl FnOnce(Locks) -> Locks) -> u64 {
        let state = &self.lockdown;
        let (obeyed, count) = {
            let _mine = state.changing.lock().unwrap_or_else(PoisonError::into_inner);
            let before = state.locks.load_full();
            let after = Arc::new(change(Locks::clone(&before)));
            let pending = state.problem().is_some();
            if after == before && !pending {
                return *state.changes.borrow();
            }
            state.locks.store(Arc::clone(&after));
            let mut count = 0;
            state.changes.send_modify(|changes| {
                *changes += 1;
                count = *changes;
            });
            // In the order of the changes.
            (self.keeper.lock(after), count)
        };
        // Whatever lasts longer than a moment looks again.
        self.rulings.changed();
        let followed = async {
            obeyed.await;
            state.written(count).await;
        };
        let _ = tokio::time::timeout(PATIENCE_WITH_DISK, followed).await;
        count
    }

    fn must_know(&self, scope: &Scope) -> Result<(), NoSuchCaller> {
        match scope {
            // Whom the policy names no more may hold tokens all the same.
            Scope::Caller(name) if !self.ledger.knows(name) => Err(NoSuchCaller(name.clone())),
            _ => Ok(()),
        }
    }

    /// Since when this process knows who holds which token. What an earlier one gave is in no list.
    pub fn knows_holders_since(&self) -> Timestamp {
        self.started.wall
    }

    /// Writes down each change of the locks, and again what could not be. Runs for as long as the broker.
    pub async fn keep_lock_record(self: Arc<Self>) {
        let state = &self.lockdown;
        let mut changes = state.changes.subscribe();
        loop {
            // The number is read before the locks: what is written is that change or a later one.
            let change = *changes.borrow_and_update();
            let before = state.written.borrow().clone();
            if before.change < change || before.problem.is_some() {
                let (record, locks) = (Arc::clone(&state.record), state.current());
                let writing = tokio::task::spawn_blocking(move || record.write(&locks));
                let problem = match writing.await {
                    Ok(outcome) => outcome.err(),
                    Err(failed) => Some(NotWritten(format!("the writing broke off: {failed}"))),
                };
                self.tell_of_record(problem.as_ref());
                state.written.send_replace(Written { change, problem });
            }
            let failed = state.written.borrow().problem.is_some();
            tokio::select! {
                // Its sender is in `self`.
                _ = changes.changed() => {}
                () = tokio::time::sleep(WRITE_AGAIN), if failed => {}
            }
        }
    }

    fn tell_of_record(&self, problem: Option<&NotWritten>) {
        let before = self.lockdown.written.borrow().problem.is_some();
        match problem {
            Some(problem) if !before => {
                tracing::error!(%problem, "the lockdown flag can't be written; what was told acts, but the next process would not know");
            }
            None if before => tracing::info!("the lockdown flag is written"),
            _ => {}
        }
    }
}

fn unwritten(problem: Option<&NotWritten>) -> String {
    problem.map(|problem| format!("; not written down yet: {problem}")).unwrap_or_default()
}
