//! The use cases: what a caller can ask of the broker, in the words of the domain.
//!
//! Each is: authorize ([`Broker::authorize`], once per call and before anything else), act, record. A promise is kept
//! below (the keeper's, the policy's, the signs'); this is where they meet. No call that the snapshot satisfies waits or
//! takes a lock.

mod bounds;
mod ledger;
mod lockdown;
mod reload;
mod rulings;
mod standing;
mod status;
mod token_watch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;

pub use bounds::{NoPlace, Open, OpenLimits, Place, Room, SMALL_MESSAGE};
pub use ledger::{CallerCounts, GivenToken, Holder, LastToken, Outcome};
pub use lockdown::{LockedDown, NoSuchCaller, NotUnlocked, Unlocked};
pub use reload::{Reload, ReloadRefused, Reloaded, Reloading, Requester};
pub use rulings::Ruling;
pub use standing::{CredentialFacts, SourceFact, Standing, UpstreamFacts};
pub use status::Status;
pub use token_watch::{TokenWatch, WatchReason};

use crate::{
    audit::{AdminAct, AuditLog, AuditSink, ForgedKind},
    caller::{CallerName, Peer},
    clock::{BootInstant, Clock, Now},
    keeper::{HeldToken, Refusal, RefusalReason, TokenKeeper, TooLong, Want},
    lockdown::{LockRecord, Locks},
    policy::{Decision, Denial, Permission, Policy},
    security::SecurityEvent,
    sign::{self, Finding, SignKeys, Subject, Verdict, VerifyError},
    token::TokenId,
};
use bounds::Bounds;
use ledger::Ledger;
use lockdown::LockState;
use rulings::Rulings;
use standing::Standings;
use status::RecentEvents;

/// What a broker is made of.
pub struct BrokerParts {
    /// Keeps the token.
    pub keeper: TokenKeeper,
    /// Who may do what.
    pub policy: Policy,
    /// What signs are verified with.
    pub keys: SignKeys,
    /// Who is locked out from the start; the keeper was told the same.
    pub locks: Arc<Locks>,
    /// Where locks outlive the process.
    pub lock_record: Arc<dyn LockRecord>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The upstream and the credentials.
    pub standing: Standing,
    /// Where the audit log is written.
    pub audit: Arc<dyn AuditSink>,
    /// How much may be open.
    pub limits: OpenLimits,
}

/// What is said of a reload that found everything as it was.
const NOTHING_NEW: &str = "nothing is other than before";

/// How long a call without a deadline waits. With the keeper's margin before a deadline added, so that it is ten seconds
/// for the caller.
const PATIENCE_WITHOUT_DEADLINE: Duration = Duration::from_millis(10_050);

/// How often the audit log is told of tokens that were read again.
const READS_EVERY: Duration = Duration::from_secs(60);

/// A request for a token.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TokenRequest {
    /// The validity that is needed; the floor is a given.
    pub min_validity: Duration,
    /// A token that the upstream answered 401 to.
    pub rejected: Option<TokenId>,
    /// When the call ends.
    pub deadline: Option<BootInstant>,
}

/// The broker.
pub struct Broker {
    keeper: TokenKeeper,
    policy: ArcSwap<Policy>,
    rulings: Rulings,
    lockdown: LockState,
    bounds: Bounds,
    keys: ArcSwap<SignKeys>,
    clock: Arc<dyn Clock>,
    standing: Standings,
    ledger: Ledger,
    events: RecentEvents,
    audit: AuditLog,
    reads_told: AtomicU64,
    started: Now,
}

impl Broker {
    /// Puts a broker together.
    pub fn new(parts: BrokerParts) -> Arc<Self> {
        let started = parts.clock.now();
        let bounds = Bounds::of(parts.policy.rules(), parts.limits, Arc::clone(&parts.clock));
        let audit =
            AuditLog::new(parts.audit, Arc::clone(&parts.clock), parts.standing.credentials.generation);
        Arc::new(Self {
            ledger: Ledger::of(parts.policy.rules().iter().map(|rule| &rule.name)),
            keeper: parts.keeper,
            policy: ArcSwap::from_pointee(parts.policy),
            rulings: Rulings::default(),
            lockdown: LockState::new(parts.locks, parts.lock_record),
            bounds,
            keys: ArcSwap::from_pointee(parts.keys),
            clock: parts.clock,
            standing: Standings::new(parts.standing),
            events: RecentEvents::default(),
            audit,
            reads_told: AtomicU64::new(started.boot.as_duration().as_secs()),
            started,
        })
    }

    /// What time it is, for this broker.
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// Where this token is good.
    pub fn upstream_of(&self, token: &HeldToken) -> Arc<UpstreamFacts> {
        self.standing.upstream_of(token)
    }

    /// What is known of the upstream and of the credentials in force.
    pub fn standing(&self) -> Standing {
        Standing::clone(&self.standing.current())
    }

    /// Says where tokens are good once a replacement of the credentials, which is about to be tried, has succeeded.
    pub fn announce(&self, upstream: Arc<UpstreamFacts>) {
        self.standing.announce(upstream);
    }

    /// Puts other keys in force, which signs are verified with from now on.
    pub fn replace_keys(&self, keys: SignKeys) {
        self.keys.store(Arc::new(keys));
    }

    /// Takes over what is known of the credentials in force. To be done when the keeper has them: a token says of itself which
    /// it is good for ([`Self::announce`]).
    pub fn stand(&self, standing: Standing) {
        let generation = standing.credentials.generation;
        let replaced = generation != self.standing.current().credentials.generation;
        let sources: Vec<_> = standing.credentials.sources.iter().map(SourceFact::to_string).collect();
        self.standing.replace(standing);
        if replaced {
            self.audit.credentials_changed(generation, sources.join(", "));
            self.events.push(self.clock.now().wall, SecurityEvent::CredentialsReplaced { generation });
        }
    }

    /// Puts another policy in force: for each call that comes, and for what is under way ([`Self::rulings`]).
    pub fn replace_policy(&self, policy: Policy) {
        self.ledger.follow(policy.rules().iter().map(|rule| &rule.name));
        self.bounds.follow(policy.rules());
        self.policy.store(Arc::new(policy));
        self.rulings.changed();
    }

    /// Lets so much be open from now on. What is open stays.
    pub fn replace_limits(&self, limits: OpenLimits) {
        self.bounds.limit(limits);
    }

    /// What was last decided about who may do what. Whatever lasts longer than a moment asks again when it is another.
    pub fn ruling(&self) -> Ruling {
        self.rulings.latest()
    }

    /// Says that something else than the policy and the locks has changed by which it is decided who may do what: what vouches
    /// for a peer.
    pub fn judge_again(&self) {
        self.rulings.changed();
    }

    /// Wakes at each change of [`Self::ruling`].
    pub fn rulings(&self) -> tokio::sync::watch::Receiver<()> {
        self.rulings.subscribe()
    }

    /// The name under which the policy knows `peer`, whatever it may do. Puts nothing on record.
    pub fn identify(&self, peer: &Peer) -> Result<CallerName, Denial> {
        self.policy.load().admit(peer).map(|rule| rule.name.clone())
    }

    /// The name under which `peer` may do something that any one of `permissions` allows. A denial is on record when this
    /// returns.
    pub fn authorize(&self, peer: &Peer, permissions: &[Permission]) -> Result<CallerName, Denial> {
        let policy = self.policy.load();
        // The first is what the method is for; the others let in by exception.
        let mut first = None;
        for permission in permissions {
            match policy.decide(peer, *permission) {
                Decision::Allowed(caller) => return Ok(caller),
                Decision::Denied(why) => first = first.or(Some(why)),
            }
        }
        let denial = first.unwrap_or_else(|| Denial::CallerUnknown { peer: peer.clone() });
        self.audit.call_denied(peer, permissions.first().copied(), &denial);
        Err(denial)
    }

    /// A call of an authorized caller, if it may make one more now; open until what is returned is dropped. A denial is on
    /// record when this returns.
    pub fn begin_call(
        &self,
        caller: &CallerName,
        peer: &Peer,
        permission: Permission,
    ) -> Result<Open, Denial> {
        let begun = self.bounds.call(caller);
        begun.inspect_err(|denial| self.audit.call_denied(peer, Some(permission), denial))
    }

    /// Room for the message of a call that has begun, `bytes` long; taken until what is returned is dropped. A denial is on
    /// record when this returns.
    pub fn room_for_message(
        &self,
        caller: &CallerName,
        peer: &Peer,
        permission: Permission,
        bytes: usize,
    ) -> Result<Room, Denial> {
        let room = self.bounds.message(caller, bytes);
        room.inspect_err(|denial| self.audit.call_denied(peer, Some(permission), denial))
    }

    /// A place for a connection of this peer. That there is none is on record when this returns.
    pub fn place_for(&self, peer: &Peer) -> Result<Place, NoPlace> {
        let policy = self.policy.load();
        let caller = policy.admit(peer).ok();
        let place = self.bounds.connection(caller);
        place.inspect_err(|why| self.audit.connection_denied(caller.map(|rule| &rule.name), peer, why))
    }

    /// Puts on record that a connection of this peer was ended: it is no longer who it was taken for, in a word and in full.
    pub fn note_connection_end(&self, peer: &Peer, reason: &'static str, why: &str) {
        self.audit.connection_ended(self.identify(peer).ok().as_ref(), peer, reason, why);
    }

    /// The log of what matters to security.
    pub fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// Tells the audit log what was counted for it and is due. To be called about once a second.
    pub fn settle_audit(&self) {
        self.audit.settle();
        let second = self.clock.now().boot.as_duration().as_secs();
        if second.saturating_sub(self.reads_told.load(Ordering::Relaxed)) >= READS_EVERY.as_secs() {
            self.reads_told.store(second, Ordering::Relaxed);
            self.tell_reads();
        }
    }

    /// Ends the audit log: nobody is served any more.
    pub fn end_audit(&self) {
        self.tell_reads();
        self.audit.settle_all();
        self.audit.stopped();
    }

    fn tell_reads(&self) {
        for (caller, token, count) in self.ledger.given_again() {
            self.audit.token_reads(&caller, token, count);
        }
    }

    /// Puts the token on record as `caller`'s, who may have it then, unless it is locked out.
    fn hand_out(
        &self,
        caller: &CallerName,
        peer: &Peer,
        permission: Permission,
        token: &HeldToken,
    ) -> Result<(), Refusal> {
        // On record before the lock is looked at: of several calls at once the first may be refused for a lock that those
        // after it came before, and the token may be given again when the lock is lifted. None of them would tell.
        if self.ledger.given(caller, token, self.clock.now()) {
            self.audit.token_read(caller, peer, permission, (token.id(), token.generation));
        }
        self.last_look(caller)
    }

    /// Notes how a call ended. To be done once for each, by who knows how it ended.
    pub fn record(&self, caller: &CallerName, permission: Permission, outcome: Outcome) {
        self.ledger.count(caller, permission, outcome);
    }

    /// A token that is still valid for as long as was asked, and at least for the floor.
    pub async fn access_token(
        &self,
        caller: &CallerName,
        peer: &Peer,
        request: TokenRequest,
    ) -> Result<Arc<HeldToken>, Refusal> {
        let answer = self.token_or_refusal(caller, peer, request).await;
        answer.inspect_err(|refusal| self.note_lock(caller, peer, Permission::GetAccessToken, refusal))
    }

    /// Puts a refusal on record, if it is for a lock.
    fn note_lock(&self, caller: &CallerName, peer: &Peer, permission: Permission, refusal: &Refusal) {
        if let RefusalReason::LockedDown(out) = &refusal.reason {
            self.audit.locked_out(caller, peer, permission, out);
        }
    }

    async fn token_or_refusal(
        &self,
        caller: &CallerName,
        peer: &Peer,
        request: TokenRequest,
    ) -> Result<Arc<HeldToken>, Refusal> {
        self.not_locked(caller)?;
        let token = match self.token_in_hand(&request) {
            Some(answer) => answer?,
            None => self.token_to_come(caller, request).await?,
        };
        self.hand_out(caller, peer, Permission::GetAccessToken, &token)?;
        Ok(token)
    }

    /// The answer of a call that the token in hand does not satisfy.
    async fn token_to_come(
        &self,
        caller: &CallerName,
        mut request: TokenRequest,
    ) -> Result<Arc<HeldToken>, Refusal> {
        // The wait as a whole has one end, however often it is begun again.
        let end = request.deadline.unwrap_or_else(|| self.clock.now().boot + PATIENCE_WITHOUT_DEADLINE);
        request.deadline = Some(end);
        loop {
            let TokenRequest { min_validity, rejected, deadline } = request;
            let want = Want { caller: caller.clone(), min_validity, rejected, deadline };
            let token = self.keeper.obtain(want).await?;
            // A busy or suspended machine may have let time pass since the keeper judged it.
            if token.satisfies(min_validity, self.clock.now().boot) {
                return Ok(token);
            }
        }
    }

    /// The answer, if it needs no waiting.
    fn token_in_hand(&self, request: &TokenRequest) -> Option<Result<Arc<HeldToken>, Refusal>> {
        let snapshot = self.keeper.snapshot().current();
        if let Err(too_long) = TooLong::check(request.min_validity, snapshot.last_lifetime) {
            let reason = RefusalReason::ValidityTooLong(too_long);
            return Some(Err(Refusal { reason, retry_after: None }));
        }
        snapshot
            .token_for(request.min_validity, self.clock.now().boot)
            .filter(|token| request.rejected != Some(token.id()))
            .map(|token| Ok(Arc::clone(token)))
    }

    /// The token in hand, and then each new one.
    pub fn watch(self: &Arc<Self>, caller: &CallerName, peer: Arc<Peer>) -> Result<TokenWatch, Refusal> {
        let locked = self.not_locked(caller);
        locked.inspect_err(|refusal| self.note_lock(caller, &peer, Permission::WatchAccessToken, refusal))?;
        Ok(TokenWatch::new(Arc::clone(self), caller.clone(), peer))
    }

    /// Whether B2BINPAY signed `subject`.
    pub fn verify(
        &self,
        caller: &CallerName,
        peer: &Peer,
        subject: Subject<'_>,
        max_age: Option<Duration>,
    ) -> Result<Finding, VerifyError> {
        let kind = match subject {
            Subject::Message { .. } => ForgedKind::Message,
            Subject::Callback(_) => ForgedKind::Callback,
            Subject::TokenResponse { .. } => ForgedKind::TokenResponse,
        };
        let found = sign::verify(&self.keys.load(), subject, max_age, self.clock.now().wall);
        if found.as_ref().is_ok_and(|found| found.verdict == Verdict::Invalid) {
            self.audit.sign_forged(caller, peer, kind);
        }
        found
    }

    /// Puts a security event on record, and keeps it for the status.
    pub fn note(&self, event: SecurityEvent) {
        self.audit.security(&event);
        self.events.push(self.clock.now().wall, event);
    }

    /// Puts the end of a reload on record.
    pub fn note_reload(&self, requester: &Requester, outcome: &Result<Reloaded, ReloadRefused>) {
        let by = requester.to_string();
        let (event, told) = match outcome {
            Ok(Reloaded { changes, .. }) => {
                let changes = if changes.is_empty() { NOTHING_NEW.to_owned() } else { changes.join("; ") };
                (SecurityEvent::Reloaded { by, changes: changes.clone() }, Ok(changes))
            }
            Err(refused) => {
                let why = refused.to_string();
                (SecurityEvent::ReloadRefused { by, why: why.clone() }, Err((refused.word(), why)))
            }
        };
        self.audit.admin(AdminAct::Reload, requester.caller(), told);
        self.events.push(self.clock.now().wall, event);
    }

    /// Opens the audit log's file again.
    pub fn reopen_audit(&self) {
        self.audit.reopen();
    }

    /// Forgets verification keys whose time is over. Called now and then: a key that is past its time is never used, but
    /// it should not lie in memory either.
    pub fn forget_expired_keys(&self) {
        let now = self.clock.now().wall;
        if self.keys.load().previous_until().is_some_and(|until| until <= now) {
            self.keys.rcu(|keys| SignKeys::clone(keys).without_expired(now));
            tracing::info!(
                "the previous credentials' time is over: signs under them are not accepted any more"
            );
        }
    }

    /// Whether a token can be handed out now, and until when, if it is not renewed.
    pub fn readiness(&self) -> (bool, Option<BootInstant>) {
        let snapshot = self.keeper.snapshot().current();
        // The keeper may not have heard of a lock yet.
        let locked = self.lockdown.current().on_everyone().is_some();
        let ready = !locked && snapshot.is_ready(self.clock.now().boot);
        (ready, snapshot.token.as_ref().filter(|_| ready).map(|token| token.handed_out_until()))
    }

    /// Wakes at each change of the token or the state.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.keeper.snapshot().changes()
    }

    /// How everything is.
    pub fn status(&self) -> Status {
        Status::of(self)
    }
}
