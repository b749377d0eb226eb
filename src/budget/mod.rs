//! Promise 1: never over the upstream's call limit, whatever happens.
//!
//! B2BINPAY counts calls per client address, so every process on this host that talks to the same upstream shares
//! one limit. The truth is therefore a record on disk, one per upstream: each call is written down, and the writing
//! synced, *before* it is made. A process that is killed between the two has spent a call it did not make, never the
//! reverse. What the record allows is worked out by replaying it through governor (in `pace`).
//!
//! Where the past is not known, it is assumed:
//!
//! - No record (a first start, or a directory that does not last): one call at once, then one each interval.
//! - A record that is corrupt, or whose times make no sense: the worst, an empty bucket.
//! - A record that can't be written, or not in time: an empty bucket when that is noticed, and then no burst, so that even
//!   a process that is killed and started in a loop keeps the limit. The budget says so and goes on.
//!
//! The promise ends
//!
//! - where other hosts behind the same address, or other programs on this one, call the upstream too: only the upstream
//!   sees those, and answers 429, which the keeper obeys;
//! - where the record does not last: each start then makes one call;
//! - where a process can't write the record while others of the host go on calling: each then keeps a pace of its own;
//! - where a process that could not write the record is killed, and the record can be written again before the next one
//!   looks at it: what was called meanwhile is not known to anybody, and a burst may be spent a second time;
//! - where the wall clock is set forward between the last look at the record before a reboot and the first one after it
//!   (or at any time, where the kernel hides the id of the boot): calls then seem older than they are.

mod pace;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub use pace::CallLimit;
use pace::Pace;

use crate::clock::{BootInstant, Clock, Now};

/// The most requests that a limit may have: what the record is made for.
pub const MOST_REQUESTS: u32 = 1000;

/// How long the record may take to be locked, written and synced before the call is judged from memory instead. What
/// took longer since the time of the call was read is not granted any more.
const PATIENCE_WITH_DISK: Duration = Duration::from_millis(1500);

/// The longest that a call may take until it is answered or given up. What arrives at the upstream even later is what
/// the call in reserve is for.
pub const LONGEST_CALL: Duration = Duration::from_secs(10);

/// How long after it was written down a call can arrive at the upstream.
const LATEST_ARRIVAL: Duration = PATIENCE_WITH_DISK.saturating_add(LONGEST_CALL);

/// Why a limit can't be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadLimit {
    /// One call is held in reserve, so two would leave nothing to pace with.
    #[error("at least 3 requests are needed: one of them is held in reserve")]
    TooFewRequests,
    /// More than the record has room for.
    #[error("at most {MOST_REQUESTS} requests are possible: the record of call times is not made for more")]
    TooManyRequests,
    /// Outside what records and timers are made for.
    #[error("the window must be between 1 second and 1 day")]
    WindowOutOfRange,
}

/// A call that was made, or must be assumed to have been.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct PastCall {
    /// When. Calls from before a boot stand at the instant on this boot's clock that is as long ago, or at zero.
    pub at: BootInstant,
    /// Whether it was assumed for want of knowledge.
    pub assumed: bool,
}

impl PastCall {
    /// A call that is known.
    pub const fn made(at: BootInstant) -> Self {
        Self { at, assumed: false }
    }

    /// A call that is assumed.
    pub const fn assumed(at: BootInstant) -> Self {
        Self { at, assumed: true }
    }
}

/// What a record says of the past.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum History {
    /// These calls, oldest first.
    Kept(Vec<PastCall>),
    /// There is no record yet.
    Missing,
    /// There is one, and it can't be believed.
    Senseless(String),
}

/// The record can't be read or written. Says what failed and on which file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct RecordUnusable(pub String);

/// A record of call times that all processes of the host share.
pub trait CallRecord: Send + Sync + 'static {
    /// With the record locked against all other processes: reads `clock`, shows `decide` the history and the time and, if
    /// that returns calls (oldest first), makes them the new history and syncs it before this returns.
    ///
    /// The clock is read under the lock, so that nobody can have written down a later call, however long the lock took.
    ///
    /// Blocks, for as long as the disk does.
    fn update(
        &self,
        clock: &dyn Clock,
        decide: &mut dyn FnMut(History, Now) -> Option<Vec<PastCall>>,
    ) -> Result<(), RecordUnusable>;
}

/// What a call is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// A token must be had, or renewed in time. Takes what there is.
    Schedule,
    /// Callers want more than the token in hand gives. Leaves one for the schedule: is granted only where another could be
    /// right after it (where there is no burst, an interval later than the schedule would get it), so that callers can't
    /// keep the schedule waiting.
    Callers,
}

/// Whether a call may be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// It was written down and must be made now, or never.
    Granted,
    /// Not before this instant.
    NotBefore(BootInstant),
}

/// What the budget looks like from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BudgetUsage {
    /// The upstream's limit.
    pub limit: CallLimit,
    /// Calls in the window that ends now, as far as this process knows.
    pub used: u32,
    /// Calls that could be made at once.
    pub available: u32,
    /// What keeps the record from being kept.
    pub problem: Option<String>,
}

/// The right to call the upstream, in portions.
pub struct CallBudget {
    limit: CallLimit,
    record: Arc<dyn CallRecord>,
    clock: Arc<dyn Clock>,
    /// [`PATIENCE_WITH_DISK`], except in tests.
    patience: Duration,
    /// How old a granted call may be when it is handed out: [`PATIENCE_WITH_DISK`], except in tests.
    oldest_turn: Duration,
    memory: Mutex<Memory>,
    one_at_a_time: tokio::sync::Mutex<()>,
    /// Set while a thread is held up by the disk: it is not sent another.
    record_busy: Arc<AtomicBool>,
}

/// What this process knows by itself.
#[derive(Clone, Default)]
struct Memory {
    /// The history at the last look at the record, oldest first.
    seen: Vec<PastCall>,
    /// What was granted and assumed without the record since then, oldest first.
    unwritten: Vec<PastCall>,
    problem: Option<String>,
}

impl Memory {
    fn known(&self) -> Vec<PastCall> {
        self.added_to(self.seen.clone())
    }

    /// `calls` and what they lack of the unwritten, oldest first.
    fn added_to(&self, mut calls: Vec<PastCall>) -> Vec<PastCall> {
        // What is unwritten begins with the assumption that all was spent, which stands for everything before it.
        if let Some(assumed) = self.unwritten.iter().rev().find(|call| call.assumed) {
            calls.retain(|call| call.at > assumed.at);
        }
        let mut known = calls.iter().peekable();
        let mut new = Vec::new();
        for call in &self.unwritten {
            while known.next_if(|known| *known < call).is_some() {}
            if known.next_if_eq(&call).is_none() {
                new.push(*call);
            }
        }
        calls.extend(new);
        calls.sort_unstable();
        calls
    }
}

/// What a look at the record came to.
struct Look {
    turn: Turn,
    /// The time by which it was judged, and which was written down for a call.
    at: BootInstant,
    seen: Vec<PastCall>,
}

impl CallBudget {
    /// A budget within `limit` on `record`.
    pub fn new(limit: CallLimit, record: Arc<dyn CallRecord>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            limit,
            record,
            clock,
            patience: PATIENCE_WITH_DISK,
            oldest_turn: PATIENCE_WITH_DISK,
            memory: Mutex::default(),
            one_at_a_time: tokio::sync::Mutex::default(),
            record_busy: Arc::default(),
        })
    }

    #[cfg(test)]
    pub(crate) const fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Whether the disk has a thread that has not come back.
    #[cfg(test)]
    pub(crate) fn is_held_up(&self) -> bool {
        self.record_busy.load(Ordering::Acquire)
    }

    /// Asks for one call for `purpose`. Takes no longer than 1.5 seconds, however the disk behaves, unless several ask at once: they are
    /// served one after the other. What is granted must be made at once.
    pub async fn take(&self, purpose: Purpose) -> Turn {
        let _mine = self.one_at_a_time.lock().await;
        let (turn, at) = match self.take_from_record(purpose).await {
            Ok(look) => self.note(look),
            Err(problem) => self.take_from_memory(purpose, problem),
        };
        // A process that was stopped or a machine that was suspended since `at` wakes up here: the call would arrive long
        // after the time that was written down for it.
        let now = self.clock.now().boot;
        if turn == Turn::Granted && now.saturating_since(at) > self.oldest_turn {
            return Turn::NotBefore(now);
        }
        turn
    }

    async fn take_from_record(&self, purpose: Purpose) -> Result<Look, RecordUnusable> {
        if self.record_busy.swap(true, Ordering::AcqRel) {
            return Err(RecordUnusable("the disk has not finished an earlier write of the record".into()));
        }
        let (record, busy, limit) = (Arc::clone(&self.record), Arc::clone(&self.record_busy), self.limit);
        let clock = Arc::clone(&self.clock);
        let memory = self.memory().clone();
        let work = tokio::task::spawn_blocking(move || {
            let look = look_at(&*record, limit, &memory, &*clock, purpose);
            busy.store(false, Ordering::Release);
            look
        });
        match tokio::time::timeout(self.patience, work).await {
            Ok(Ok(look)) => look,
            Ok(Err(failed)) => Err(RecordUnusable(format!("the writing of the record broke off: {failed}"))),
            Err(_) => Err(RecordUnusable(format!("the disk took longer than {:?}", self.patience))),
        }
    }

    fn note(&self, look: Look) -> (Turn, BootInstant) {
        let mut memory = self.memory();
        if memory.problem.take().is_some() {
            tracing::info!("the record of call times is kept again");
        }
        memory.seen = look.seen;
        memory.unwritten.clear();
        (look.turn, look.at)
    }

    /// Judges by what this process knows, without a burst. The clock is read anew: the disk may have taken its time.
    fn take_from_memory(&self, purpose: Purpose, problem: RecordUnusable) -> (Turn, BootInstant) {
        let now = self.clock.now().boot;
        let pace = Pace::within(self.limit);
        let mut memory = self.memory();
        if memory.problem.is_none() {
            tracing::warn!(
                problem = %problem,
                "the record of call times can't be kept: calls are made one by one, without a burst"
            );
            // What was called since the last look, by others or before this process began, is not known.
            memory.unwritten = pace.all_spent(now);
        }
        memory.problem = Some(problem.0);
        let wait = pace.wait_without_burst(&memory.known(), now, purpose);
        if !wait.is_zero() {
            return (not_before(self.limit, now, wait), now);
        }
        memory.unwritten.push(PastCall::made(now));
        self.limit.forget_old(&mut memory.unwritten, now);
        (Turn::Granted, now)
    }

    /// How much is used and left, as far as this process knows.
    pub fn usage(&self) -> BudgetUsage {
        let now = self.clock.now().boot;
        let memory = self.memory();
        let known = memory.known();
        let pace = Pace::within(self.limit);
        let available = if memory.problem.is_some() {
            u32::from(pace.wait_without_burst(&known, now, Purpose::Schedule).is_zero())
        } else {
            pace.available(&known, now)
        };
        let since = now - self.limit.window();
        let used = memory
            .seen
            .iter()
            .chain(&memory.unwritten)
            .filter(|call| !call.assumed && call.at > since)
            .count();
        BudgetUsage {
            limit: self.limit,
            used: u32::try_from(used).unwrap_or(u32::MAX),
            available,
            problem: memory.problem.clone(),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One transaction on the record: what is the past, may there be a call, write it down.
fn look_at(
    record: &dyn CallRecord,
    limit: CallLimit,
    memory: &Memory,
    clock: &dyn Clock,
    purpose: Purpose,
) -> Result<Look, RecordUnusable> {
    let pace = Pace::within(limit);
    let mut look = None;
    record.update(clock, &mut |history, Now { boot: now, .. }| {
        let mut past = known_or_assumed(history, memory, pace, now);
        limit.forget_old(&mut past, now);
        let wait = pace.wait(&past, now, purpose);
        let turn = if wait.is_zero() {
            past.push(PastCall::made(now));
            Turn::Granted
        } else {
            not_before(limit, now, wait)
        };
        look = Some(Look { turn, at: now, seen: past.clone() });
        Some(past)
    })?;
    look.ok_or_else(|| RecordUnusable("the record of call times was not shown".into()))
}

/// A history that another limit made may mean a very long wait. It is looked at again when it is of the past.
fn not_before(limit: CallLimit, now: BootInstant, wait: Duration) -> Turn {
    Turn::NotBefore(now + wait.min(limit.span()))
}

/// The past by the record and by what could not be written into it.
fn known_or_assumed(history: History, memory: &Memory, pace: Pace, now: BootInstant) -> Vec<PastCall> {
    match history {
        History::Kept(calls) => memory.added_to(calls),
        History::Missing if memory.known().is_empty() => {
            tracing::info!(
                "no record of earlier calls to the upstream: starting with one call instead of a burst"
            );
            let mut past = pace.all_spent(now);
            past.pop();
            past
        }
        History::Missing => {
            tracing::warn!(
                "the record of earlier calls to the upstream is gone: assuming that all were just spent"
            );
            pace.all_spent(now)
        }
        History::Senseless(why) => {
            tracing::warn!(
                why,
                "the record of earlier calls to the upstream can't be believed: assuming that all were just spent"
            );
            pace.all_spent(now)
        }
    }
}

#[cfg(test)]
mod tests;
