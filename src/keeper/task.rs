//! The task around the core: it waits, asks and tells, and decides nothing.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    attempt::{self, AttemptEnd, AttemptKind},
    core::{Action, Core, Event, Note},
    replacing::{NotReplaced, Proposal, Proved, Replaced, Replacement, ReplacementId},
    snapshot::{HeldToken, SnapshotReader, SnapshotWriter, place},
    timing::TokenSettings,
    waiting::{Refusal, RefusalReason, WaiterId, Want},
};
use crate::{
    budget::CallBudget,
    clock::{BootInstant, Clock, sleep_until},
    issuer::TokenIssuer,
    lockdown::Locks,
    security::SecurityEvent,
    token::TokenId,
};

/// How many calls may stand before the keeper's door; the next one waits to knock.
const KNOCKING: usize = 1024;

/// How many alarms may be on their way before further ones are only logged.
const ALARMS: usize = 256;

/// The longest that the keeper rests. It has nothing to do that often: who looks whether it is alive does.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// What the keeper works with.
pub struct KeeperSetup {
    /// Times and fractions.
    pub settings: TokenSettings,
    /// Whom to ask for tokens.
    pub issuer: Arc<dyn TokenIssuer>,
    /// How often.
    pub budget: Arc<CallBudget>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Who is locked out from the start.
    pub locks: Arc<Locks>,
    /// Feeds the jitter.
    pub seed: u64,
}

/// The keeper, as everybody else sees it.
#[derive(Clone)]
pub struct TokenKeeper {
    snapshot: SnapshotReader,
    door: mpsc::Sender<Knock>,
    /// Who stopped waiting before an answer came. Never full: there are no more of them than calls.
    hang_ups: mpsc::UnboundedSender<WaiterId>,
    /// What operators want. Never full: there are few of them.
    orders: mpsc::UnboundedSender<Order>,
    next_id: Arc<AtomicU64>,
    stamp: Stamp,
}

/// When the keeper last took a turn, in nanoseconds after boot.
#[derive(Clone, Default)]
struct Stamp(Arc<AtomicU64>);

impl Stamp {
    fn put(&self, now: BootInstant) {
        // Five centuries fit.
        let nanos = u64::try_from(now.as_duration().as_nanos()).unwrap_or(u64::MAX);
        self.0.store(nanos, Ordering::Relaxed);
    }

    fn last(&self) -> BootInstant {
        BootInstant::since_boot(Duration::from_nanos(self.0.load(Ordering::Relaxed)))
    }
}

/// A call that comes in.
struct Knock {
    id: WaiterId,
    want: Want,
    answer: oneshot::Sender<Answer>,
}

type Answer = Result<Arc<HeldToken>, Refusal>;

/// What an operator wants of the keeper.
pub(super) enum Order {
    Replace(ReplacementId, Option<BootInstant>, Candidate),
    Withdraw(ReplacementId),
    Adopt(ReplacementId, oneshot::Sender<Replaced>),
    Adjust(TokenSettings),
    Lock(Arc<Locks>, oneshot::Sender<()>),
}

/// A replacement, and who waits for it.
pub(super) struct Candidate {
    replacement: Replacement,
    waits: Waits,
}

/// For what somebody waits.
enum Waits {
    ForProof(oneshot::Sender<Result<TokenId, NotReplaced>>),
    /// It is proved, and nobody has said what is to become of it.
    ForNothing,
    ToBeInForce(oneshot::Sender<Replaced>),
}

impl TokenKeeper {
    /// What is known now. Never waits.
    pub fn snapshot(&self) -> &SnapshotReader {
        &self.snapshot
    }

    /// When it last took a turn. It takes one each second at the least; a suspended machine's keeper is late by as much.
    pub fn last_turn(&self) -> BootInstant {
        self.stamp.last()
    }

    /// A token that satisfies `want`, which the snapshot does not. Waits for one as long as it is worth it.
    pub async fn obtain(&self, want: Want) -> Answer {
        let gone = Refusal::for_good(RefusalReason::ShuttingDown);
        let id = WaiterId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let (answer, answered) = oneshot::channel();
        if self.door.send(Knock { id, want, answer }).await.is_err() {
            return Err(gone);
        }
        let mut waiting = HangUp { id, to: Some(&self.hang_ups) };
        let answer = answered.await;
        waiting.to = None;
        answer.unwrap_or(Err(gone))
    }

    /// Proves `replacement` by one login, so that it can take the place of what is in force ([`Proved::adopt`]). That login is
    /// made within its own budget and after any call under way; it waits for its turn until `deadline`, or for ten seconds.
    /// Whatever this returns, everything is as it was, and goes on. Dropping the future takes the replacement back.
    pub async fn prove(
        &self,
        replacement: Replacement,
        deadline: Option<BootInstant>,
    ) -> Result<Proved, NotReplaced> {
        let id = ReplacementId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let (answer, answered) = oneshot::channel();
        let order = Order::Replace(id, deadline, Candidate { replacement, waits: Waits::ForProof(answer) });
        if self.orders.send(order).is_err() {
            return Err(NotReplaced::ShuttingDown);
        }
        let mut waiting = TakeBack { id, to: Some(&self.orders) };
        let answer = answered.await;
        waiting.to = None;
        let token = answer.unwrap_or(Err(NotReplaced::ShuttingDown))?;
        Ok(Proved { id, token, orders: Some(self.orders.clone()) })
    }

    /// Puts these locks in force. Where everyone is locked, the tokens have left the keeper and its snapshot when the future
    /// that this returns ends; orders are obeyed in the order in which they are given.
    pub fn lock(&self, locks: Arc<Locks>) -> impl Future<Output = ()> + use<> {
        let (obeyed, obeys) = oneshot::channel();
        // Without a keeper there is no token.
        let _ = self.orders.send(Order::Lock(locks, obeyed));
        async move {
            let _ = obeys.await;
        }
    }

    /// Puts other times and fractions in force, without asking the upstream. What was decided about the token in hand, its
    /// floor and its renewal, stands until the next.
    pub fn adjust(&self, settings: TokenSettings) {
        // Without a keeper there is nothing to adjust.
        let _ = self.orders.send(Order::Adjust(settings));
    }
}

/// Tells the keeper when a replacement is dropped while it waits.
struct TakeBack<'a> {
    id: ReplacementId,
    to: Option<&'a mpsc::UnboundedSender<Order>>,
}

impl Drop for TakeBack<'_> {
    fn drop(&mut self) {
        if let Some(to) = self.to {
            // Without a keeper there is nobody to tell.
            let _ = to.send(Order::Withdraw(self.id));
        }
    }
}

/// Tells the keeper when a call is dropped while it waits: its caller hung up.
struct HangUp<'a> {
    id: WaiterId,
    to: Option<&'a mpsc::UnboundedSender<WaiterId>>,
}

impl Drop for HangUp<'_> {
    fn drop(&mut self) {
        if let Some(to) = self.to {
            // Without a keeper there is nobody to tell.
            let _ = to.send(self.id);
        }
    }
}

/// Makes a keeper: its handle, the stream of its alarms, and the task, which runs until `stop` ends.
pub fn run(
    setup: KeeperSetup,
    stop: impl Future<Output = ()> + Send,
) -> (TokenKeeper, mpsc::Receiver<SecurityEvent>, impl Future<Output = ()> + Send) {
    let core = Core::new(setup.settings, Arc::clone(&setup.locks), setup.seed, setup.clock.now());
    let (writer, snapshot) = place(core.snapshot());
    let (door, knocks) = mpsc::channel(KNOCKING);
    let (hang_ups, hung_up) = mpsc::unbounded_channel();
    let (orders, ordered) = mpsc::unbounded_channel();
    let (alarms, alarmed) = mpsc::channel(ALARMS);
    let stamp = Stamp::default();
    stamp.put(setup.clock.now().boot);
    let task = Task {
        setup,
        core,
        writer,
        alarms,
        waiting: HashMap::new(),
        candidates: HashMap::new(),
        obeyed: Vec::new(),
        stamp: stamp.clone(),
    };
    (
        TokenKeeper { snapshot, door, hang_ups, orders, next_id: Arc::default(), stamp },
        alarmed,
        task.run(knocks, hung_up, ordered, stop),
    )
}

struct Task {
    setup: KeeperSetup,
    core: Core,
    writer: SnapshotWriter,
    alarms: mpsc::Sender<SecurityEvent>,
    waiting: HashMap<WaiterId, oneshot::Sender<Answer>>,
    candidates: HashMap<ReplacementId, Candidate>,
    /// Who waits for an order to be carried out.
    obeyed: Vec<oneshot::Sender<()>>,
    stamp: Stamp,
}

/// The try under way.
type Trying = Pin<Box<dyn Future<Output = AttemptEnd> + Send>>;

impl Task {
    async fn run(
        mut self,
        mut knocks: mpsc::Receiver<Knock>,
        mut hung_up: mpsc::UnboundedReceiver<WaiterId>,
        mut ordered: mpsc::UnboundedReceiver<Order>,
        stop: impl Future<Output = ()> + Send,
    ) {
        let mut stop = std::pin::pin!(stop);
        let mut trying: Option<Trying> = None;
        let (mut crowd, mut left) = (Vec::new(), Vec::new());
        loop {
            self.settle(&mut trying);
            let now = self.setup.clock.now().boot;
            self.stamp.put(now);
            let wake_at = self.core.wake_at(now);
            tokio::select! {
                biased;
                () = &mut stop => break,
                end = finished(&mut trying) => {
                    trying = None;
                    self.take_in(Event::Ended(end));
                }
                Some(order) = ordered.recv() => self.obey(order),
                _ = hung_up.recv_many(&mut left, KNOCKING) => {}
                Some(knock) = knocks.recv() => crowd.push(knock),
                () = wake(&*self.setup.clock, wake_at) => {}
                () = tokio::time::sleep(LONGEST_REST) => {}
            }
            // A crowd is taken in at once; and whoever left had knocked before.
            while crowd.len() <= KNOCKING
                && let Ok(knock) = knocks.try_recv()
            {
                crowd.push(knock);
            }
            for Knock { id, want, answer } in crowd.drain(..) {
                self.waiting.insert(id, answer);
                self.take_in(Event::Wanted(id, want));
            }
            for id in left.drain(..) {
                self.waiting.remove(&id);
                self.take_in(Event::Left(id));
            }
        }
        self.take_in(Event::Stopping);
        self.settle(&mut trying);
    }

    fn take_in(&mut self, event: Event) {
        self.core.take_in(event, self.setup.clock.now());
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Replace(id, deadline, candidate) => {
                let (settings, now) = (candidate.replacement.settings, self.setup.clock.now().boot);
                self.candidates.insert(id, candidate);
                self.take_in(Event::Proposed(Proposal::new(id, settings, deadline, now)));
            }
            Order::Withdraw(id) => {
                self.candidates.remove(&id);
                self.take_in(Event::Withdrawn(id));
            }
            Order::Adopt(id, adopted) => {
                if let Some(candidate) = self.candidates.get_mut(&id) {
                    candidate.waits = Waits::ToBeInForce(adopted);
                }
                self.take_in(Event::Adopted(id));
            }
            Order::Adjust(settings) => self.take_in(Event::Adjusted(settings)),
            Order::Lock(locks, obeyed) => {
                self.take_in(Event::Locked(locks));
                self.obeyed.push(obeyed);
            }
        }
    }

    /// Whom to ask, and how often.
    fn means_of(&self, kind: &AttemptKind) -> (Arc<dyn TokenIssuer>, Arc<CallBudget>) {
        let candidate = match kind {
            AttemptKind::Proof(id) => self.candidates.get(id),
            AttemptKind::Login | AttemptKind::Refresh(_) => None,
        };
        match candidate {
            Some(Candidate { replacement, .. }) => {
                (Arc::clone(&replacement.issuer), Arc::clone(&replacement.budget))
            }
            None => (Arc::clone(&self.setup.issuer), Arc::clone(&self.setup.budget)),
        }
    }

    fn conclude(&mut self, id: ReplacementId, outcome: Result<TokenId, NotReplaced>) {
        let proved = outcome.is_ok();
        let Some(candidate) = self.candidates.get_mut(&id) else { return };
        if let Waits::ForProof(answer) = std::mem::replace(&mut candidate.waits, Waits::ForNothing) {
            // Who has hung up takes the replacement back.
            let _ = answer.send(outcome);
        }
        if !proved {
            self.candidates.remove(&id);
        }
    }

    /// Asks with other means from now on. Who waits for that, and is to be told when all that follows from it is done.
    fn adopt(&mut self, id: ReplacementId) -> Option<oneshot::Sender<Replaced>> {
        let Candidate { replacement, waits } = self.candidates.remove(&id)?;
        self.setup.issuer = replacement.issuer;
        self.setup.budget = replacement.budget;
        match waits {
            Waits::ToBeInForce(adopted) => Some(adopted),
            Waits::ForProof(_) | Waits::ForNothing => None,
        }
    }

    fn settle(&mut self, trying: &mut Option<Trying>) {
        let mut in_force = Vec::new();
        for action in self.core.settle(self.setup.clock.now()) {
            match action {
                Action::Begin(attempt) => {
                    let (issuer, budget) = self.means_of(&attempt.kind);
                    let clock = Arc::clone(&self.setup.clock);
                    *trying =
                        Some(Box::pin(
                            async move { attempt::make(attempt, &*issuer, &budget, &*clock).await },
                        ));
                }
                Action::Answer(id, answer) => {
                    if let Some(waiting) = self.waiting.remove(&id) {
                        // Who has hung up needs no answer.
                        let _ = waiting.send(answer);
                    }
                }
                Action::Conclude(id, outcome) => self.conclude(id, outcome),
                Action::Adopt(id, replaced) => {
                    in_force.extend(self.adopt(id).map(|waiting| (waiting, replaced)));
                }
                Action::Publish(snapshot) => self.writer.publish(snapshot),
                Action::Alarm(event) => self.alarm(event),
                Action::Tell(note) => tell(&note),
            }
        }
        // They find it published.
        for (waiting, replaced) in in_force {
            // Who has hung up needs no answer.
            let _ = waiting.send(replaced);
        }
        for waiting in self.obeyed.drain(..) {
            // Who has hung up needs no answer.
            let _ = waiting.send(());
        }
    }

    fn alarm(&self, event: SecurityEvent) {
        tracing::warn!(event = event.word(), "security: {event}");
        // A reader that is behind loses events, not the keeper its time; the log has them.
        let _ = self.alarms.try_send(event);
    }
}

/// The end of the try under way; never, if there is none.
async fn finished(trying: &mut Option<Trying>) -> AttemptEnd {
    match trying {
        Some(trying) => trying.await,
        None => std::future::pending().await,
    }
}

async fn wake(clock: &dyn Clock, at: Option<BootInstant>) {
    match at {
        Some(at) => sleep_until(clock, at).await,
        None => std::future::pending().await,
    }
}

fn tell(note: &Note) {
    match note {
        Note::Renewed { token, lifetime, by } => {
            tracing::info!(token_id = %token, lifetime_s = lifetime.as_secs(), by, "new access token");
        }
        Note::Failing { error, again_in, by } => {
            tracing::warn!(error = %error, outcome = error.word(), by, again_in = ?again_in, "no new access token");
        }
        // The first failure was loud. The row is told again as it doubles, so that an outage of a day takes a dozen lines.
        Note::StillFailing { error, failures, again_in } if failures.is_power_of_two() => {
            tracing::warn!(error = %error, outcome = error.word(), failures, again_in = ?again_in, "still no new access token");
        }
        Note::StillFailing { error, failures, again_in } => {
            tracing::debug!(error = %error, outcome = error.word(), failures, again_in = ?again_in, "still no new access token");
        }
        Note::Recovered { after, failures } => {
            tracing::info!(after = ?after, failures, "the upstream gives tokens again");
        }
        Note::RefreshTokenRefused { detail } => {
            tracing::info!(detail, "the upstream refused the refresh token; logging in");
        }
        Note::NotProved { error } => {
            tracing::warn!(error = %error, outcome = error.word(), "a replacement of the credentials was not proved; all stays as it was");
        }
        Note::TooShortToKeep { lifetime } => {
            tracing::warn!(
                lifetime = ?lifetime,
                "the upstream grants tokens of less than 10 s: the call limit does not allow to keep one fresh all the time"
            );
        }
        Note::RanOut => tracing::error!("no access token can be handed out until the upstream gives one"),
    }
}

#[cfg(test)]
mod tests;
