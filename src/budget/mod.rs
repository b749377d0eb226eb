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
//! - A record that can't be written: no burst, counted from the moment that was noticed, so that even a process that
//!   is killed and started in a loop keeps the limit. The budget says so and goes on.
//!
//! The promise ends where several processes of the host can't write the record at the same time: each then keeps a
//! pace of its own. It ends where other hosts behind the same address, or other programs on this one, call the upstream too:
//! only the upstream sees those, and answers 429, which the keeper obeys.

mod pace;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub use pace::CallLimit;
use pace::Pace;

use crate::clock::{BootInstant, Clock, Now};

/// How many past calls are looked at. The limit's window never holds more than the pace lets through; the rest is
/// room for what was assumed.
pub const LONGEST_HISTORY: usize = 32;

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
    /// With the record locked against all other processes: shows `decide` the history and, if that returns calls,
    /// makes them the new history and syncs it before this returns.
    ///
    /// Blocks, for as long as the disk does.
    fn update(
        &self,
        now: Now,
        decide: &mut dyn FnMut(History) -> Option<Vec<PastCall>>,
    ) -> Result<(), RecordUnusable>;
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
    memory: Mutex<Memory>,
    /// Set while a thread is held up by the disk: it is not sent another.
    record_busy: Arc<AtomicBool>,
}

/// What this process knows by itself.
#[derive(Default)]
struct Memory {
    /// The last calls that were granted here, oldest first, whether or not the record has them.
    own: VecDeque<PastCall>,
    /// The history at the last look at the record.
    seen: Vec<PastCall>,
    problem: Option<String>,
}

impl Memory {
    fn remember(&mut self, call: PastCall) {
        self.own.push_back(call);
        if self.own.len() > LONGEST_HISTORY {
            self.own.pop_front();
        }
    }

    /// `calls` and those of this process that are not among them, oldest first.
    fn with_own(&self, mut calls: Vec<PastCall>) -> Vec<PastCall> {
        calls.extend(self.own.iter().filter(|own| !calls.contains(own)).copied().collect::<Vec<_>>());
        calls.sort_unstable();
        calls
    }
}

/// What a look at the record came to.
struct Look {
    turn: Turn,
    seen: Vec<PastCall>,
}

impl CallBudget {
    /// A budget within `limit` on `record`.
    pub fn new(limit: CallLimit, record: Arc<dyn CallRecord>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { limit, record, clock, memory: Mutex::default(), record_busy: Arc::default() })
    }

    /// Asks for one call. Takes no longer than 1.5 seconds, however the disk behaves. What is granted must be made at
    /// once.
    pub async fn take(&self) -> Turn {
        let now = self.clock.now();
        let turn = self.take_at(now).await;
        // A process that was stopped or a machine that was suspended since `now` was read wakes up here: the call would
        // arrive long after the time that was written down for it.
        if self.clock.now().boot.saturating_since(now.boot) > PATIENCE_WITH_DISK && turn == Turn::Granted {
            return Turn::NotBefore(self.clock.now().boot);
        }
        turn
    }

    async fn take_at(&self, now: Now) -> Turn {
        let outcome = self.take_from_record(now).await;
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(look) => {
                if memory.problem.take().is_some() {
                    tracing::info!("the record of call times is kept again");
                }
                memory.seen = look.seen;
                if look.turn == Turn::Granted {
                    memory.remember(PastCall::made(now.boot));
                }
                look.turn
            }
            Err(problem) => self.take_from_memory(&mut memory, now.boot, problem),
        }
    }

    async fn take_from_record(&self, now: Now) -> Result<Look, RecordUnusable> {
        if self.record_busy.swap(true, Ordering::AcqRel) {
            return Err(RecordUnusable("the disk has not finished an earlier write of the record".into()));
        }
        let (record, busy, limit) = (Arc::clone(&self.record), Arc::clone(&self.record_busy), self.limit);
        let memory = Memory {
            own: self.memory.lock().unwrap_or_else(PoisonError::into_inner).own.clone(),
            ..Memory::default()
        };
        let work = tokio::task::spawn_blocking(move || {
            let look = look_at(&*record, limit, &memory, now);
            busy.store(false, Ordering::Release);
            look
        });
        match tokio::time::timeout(PATIENCE_WITH_DISK, work).await {
            Ok(Ok(look)) => look,
            Ok(Err(failed)) => Err(RecordUnusable(format!("the writing of the record broke off: {failed}"))),
            Err(_) => Err(RecordUnusable(format!("the disk took longer than {PATIENCE_WITH_DISK:?}"))),
        }
    }

    /// Judges by what this process did itself, without a burst.
    fn take_from_memory(&self, memory: &mut Memory, now: BootInstant, problem: RecordUnusable) -> Turn {
        if memory.problem.is_none() {
            tracing::warn!(
                problem = %problem,
                "the record of call times can't be kept: calls are made one by one, without a burst"
            );
            // What others did since the last look is not known: count from here.
            memory.remember(PastCall::assumed(now));
        }
        memory.problem = Some(problem.0);
        let wait = Pace::within(self.limit).without_burst().wait(memory.own.make_contiguous(), now);
        if wait.is_zero() {
            memory.remember(PastCall::made(now));
            Turn::Granted
        } else {
            Turn::NotBefore(now + wait)
        }
    }

    /// How much is used and left, as far as this process knows.
    pub fn usage(&self) -> BudgetUsage {
        let now = self.clock.now().boot;
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let past = memory.with_own(memory.seen.clone());
        let pace = Pace::within(self.limit);
        let pace = if memory.problem.is_some() { pace.without_burst() } else { pace };
        let since = now - self.limit.window();
        let used = past.iter().filter(|call| !call.assumed && call.at > since).count();
        BudgetUsage {
            limit: self.limit,
            used: u32::try_from(used).unwrap_or(u32::MAX),
            available: pace.available(&past, now),
            problem: memory.problem.clone(),
        }
    }
}

/// One transaction on the record: what is the past, may there be a call, write it down.
fn look_at(
    record: &dyn CallRecord,
    limit: CallLimit,
    memory: &Memory,
    now: Now,
) -> Result<Look, RecordUnusable> {
    let pace = Pace::within(limit);
    let mut look = Look { turn: Turn::NotBefore(now.boot + limit.window()), seen: Vec::new() };
    record.update(now, &mut |history| {
        let mut past = memory.with_own(known_or_assumed(history, pace, now.boot));
        let wait = pace.wait(&past, now.boot);
        if wait.is_zero() {
            look.turn = Turn::Granted;
            past.push(PastCall::made(now.boot));
        } else {
            look.turn = Turn::NotBefore(now.boot + wait);
        }
        past.drain(..past.len().saturating_sub(LONGEST_HISTORY));
        look.seen.clone_from(&past);
        Some(past)
    })?;
    Ok(look)
}

fn known_or_assumed(history: History, pace: Pace, now: BootInstant) -> Vec<PastCall> {
    let assume = |count: u32| vec![PastCall::assumed(now); count as usize];
    match history {
        History::Kept(calls) => calls,
        History::Missing => {
            tracing::info!(
                "no record of earlier calls to the upstream: starting with one call instead of a burst"
            );
            assume(pace.burst() - 1)
        }
        History::Senseless(why) => {
            tracing::warn!(
                why,
                "the record of earlier calls to the upstream can't be believed: assuming that all were just spent"
            );
            assume(pace.burst())
        }
    }
}

#[cfg(test)]
mod tests;
