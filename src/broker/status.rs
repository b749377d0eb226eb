//! How the broker is, for those who run it. Nothing in it is secret.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

use super::{Broker, CallerCounts, CredentialFacts, UpstreamFacts};
use crate::{
    audit::SinkState,
    budget::BudgetUsage,
    clock::Now,
    keeper::{HeldToken, KeeperState, LastCall},
    lockdown::{LockedOut, NotWritten},
    security::SecurityEvent,
};

/// How many security events are kept for showing.
const RECENT: usize = 50;

/// How the broker is.
#[derive(Clone, Debug)]
pub struct Status {
    /// Where it stands with the upstream.
    pub state: KeeperState,
    /// Since when.
    pub since: Timestamp,
    /// Why. Empty if all is well.
    pub reason: String,
    /// Whether a token can be handed out now.
    pub ready: bool,
    /// The token in hand, good or not.
    pub token: Option<Arc<HeldToken>>,
    /// The time that all of this is about, by both clocks.
    pub now: Now,
    /// Used and left of the upstream's limit.
    pub budget: BudgetUsage,
    /// How the last call to the upstream ended.
    pub last_call: Option<LastCall>,
    /// Where the credentials come from.
    pub credentials: CredentialFacts,
    /// Until when signs under the previous credentials are accepted.
    pub previous_until: Option<Timestamp>,
    /// How long the broker runs.
    pub uptime: Duration,
    /// Who did what.
    pub callers: Vec<CallerCounts>,
    /// Security events, the newest first.
    pub events: Vec<(Timestamp, SecurityEvent)>,
    /// Where tokens are good.
    pub upstream: Arc<UpstreamFacts>,
    /// The locks that are in force.
    pub locks: Vec<LockedOut>,
    /// Why the next process would not know of them as they are.
    pub locks_problem: Option<NotWritten>,
    /// How the audit log is written.
    pub audit: SinkState,
}

impl Status {
    pub(super) fn of(broker: &Broker) -> Self {
        let now = broker.clock.now();
        let snapshot = broker.keeper.snapshot().current();
        let standing = broker.standing();
        let (state, since, reason) = snapshot.state(now);
        Self {
            state,
            since,
            reason,
            ready: broker.readiness().0,
            token: snapshot.token.clone(),
            now,
            budget: standing.budget.usage(),
            last_call: snapshot.last_call.clone(),
            credentials: standing.credentials,
            previous_until: broker.keys.load().previous_until().filter(|until| *until > now.wall),
            uptime: now.boot.saturating_since(broker.started.boot),
            callers: broker.ledger.counts(now),
            events: broker.events.newest_first(),
            upstream: standing.upstream,
            locks: broker.locks().all(),
            locks_problem: broker.lockdown.problem(),
            audit: broker.audit.state(),
        }
    }
}

impl Status {
    /// The longest reason in a line: an upstream's words may be long.
    const LONGEST_REASON: usize = 300;

    /// All of it that fits into a line, for who looks at many services at once.
    pub fn line(&self) -> String {
        let Self { state, ready, reason, .. } = self;
        let good_until = self.token.as_ref().filter(|_| *ready).map(|token| {
            let until = self.now.wall_at(token.handed_out_until());
            format!("ready, with a token for callers until {}", until.strftime("%F %TZ"))
        });
        let mut line = format!("{state}, {}", good_until.unwrap_or_else(|| "not ready".to_owned()));
        if *state != KeeperState::Fresh {
            let _ = write!(line, ", since {}", self.since.strftime("%F %TZ"));
        }
        if !reason.is_empty() {
            line.push_str(": ");
            line.extend(reason.chars().take(Self::LONGEST_REASON));
        }
        line
    }
}

/// The last security events.
#[derive(Default)]
pub(super) struct RecentEvents(Mutex<VecDeque<(Timestamp, SecurityEvent)>>);

impl RecentEvents {
    pub(super) fn push(&self, at: Timestamp, event: SecurityEvent) {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        events.push_front((at, event));
        events.truncate(RECENT);
    }

    fn newest_first(&self) -> Vec<(Timestamp, SecurityEvent)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}
