//! The audit log: who asked for what, who was let in, who was given which token, and what went wrong that should not.
//!
//! This is where it is decided what a line says and when one is due; an [`AuditSink`] writes it. The promise: every
//! event of [`Event::ALL`] ends in a line or in the `count` of one, and nobody who is watched waits for it. Its bounds:
//!
//! - Denials, failed handshakes and forged signs come as fast as somebody likes. Each origin gets one line a second for each
//!   method and reason, whose `count` says how many it stands for; what is not told by the next such line is told by
//!   [`AuditLog::settle`]. Nothing is formatted for what is only counted.
//! - Reads of tokens are told when a caller gets a token for the first time, and counted from then on.
//! - What the sink can't write it counts, and says so when it can write again.
//!
//! A line holds no token, secret, sign or body: records are made of the words below and nothing else.

mod bounded;
mod record;
#[cfg(test)]
mod tests;

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

pub use record::{Decision, Event, Record};

use self::bounded::{Bounded, Origin, Sort};
use crate::{
    caller::{CallerName, Peer},
    clock::{Clock, Now},
    policy::{Denial, Permission},
    security::SecurityEvent,
    token::TokenId,
};

/// Writes audit records somewhere. Nothing here waits, and nothing fails: what can't be written is counted.
pub trait AuditSink: Send + Sync + 'static {
    /// Takes a record.
    fn write(&self, record: Record);
    /// Opens its file again, if it has one. It does so when it can, and says in its state if it couldn't.
    fn reopen(&self);
    /// Waits until what was taken is written, though not for long.
    fn flush(&self);
    /// How it does.
    fn state(&self) -> SinkState;
}

/// How a sink does.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SinkState {
    /// Where it writes: a file's path, or `journal`.
    pub destination: String,
    /// How many lines were lost since the start.
    pub lost: u64,
    /// What keeps it from writing now. Empty: nothing.
    pub problem: String,
}

/// Something that an operator had the broker do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdminAct {
    /// Read configuration and credentials again.
    Reload,
    /// Stop the handing out of tokens.
    Lockdown,
    /// Let tokens be handed out again.
    Unlock,
}

impl AdminAct {
    const fn event(self) -> Event {
        match self {
            Self::Reload => Event::Reload,
            Self::Lockdown => Event::Lockdown,
            Self::Unlock => Event::Unlock,
        }
    }

    const fn permission(self) -> Permission {
        match self {
            Self::Reload => Permission::AdminReload,
            Self::Lockdown => Permission::AdminLockdown,
            Self::Unlock => Permission::AdminUnlock,
        }
    }
}

/// What a sign was to be under. The body itself is told to nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForgedKind {
    /// A callback.
    Callback,
    /// B2BINPAY's answer to a request for a token.
    TokenResponse,
    /// Any other message.
    Message,
}

impl ForgedKind {
    const fn words(self) -> &'static str {
        match self {
            Self::Callback => "a callback",
            Self::TokenResponse => "a token response",
            Self::Message => "a message",
        }
    }
}

/// Decides which lines are due.
pub struct AuditLog {
    sink: Arc<dyn AuditSink>,
    clock: Arc<dyn Clock>,
    generation: AtomicU64,
    bounded: Bounded,
}

impl AuditLog {
    /// A log of a broker that begins with credentials of this generation.
    pub fn new(sink: Arc<dyn AuditSink>, clock: Arc<dyn Clock>, generation: u64) -> Self {
        Self { sink, clock, generation: AtomicU64::new(generation), bounded: Bounded::default() }
    }

    /// Opens the file again: it was moved away, or its time has come.
    pub fn reopen(&self) {
        self.sink.reopen();
    }

    /// How the writing goes.
    pub fn state(&self) -> SinkState {
        self.sink.state()
    }

    /// The broker serves.
    pub fn started(&self, version: &str) {
        let record = self.about(Event::Started).detail(format!("version {version}"));
        self.sink.write(record);
    }

    /// The broker has stopped. Who calls this has called [`Self::settle`] with all that was counted.
    pub fn stopped(&self) {
        self.sink.write(self.about(Event::Stopped));
        self.sink.flush();
    }

    /// A call was denied. `permission` is what it needed; `None` where there is no such method.
    pub fn call_denied(&self, peer: &Peer, permission: Option<Permission>, denial: &Denial) {
        let who = (denial.caller(), peer);
        self.denied(Event::CallDenied, who, permission, denial.word(), || denial.to_string());
    }

    /// A call was denied because its caller is locked out; `why` is for a person.
    pub fn locked_out(&self, caller: &CallerName, peer: &Peer, permission: Permission, why: &dyn Display) {
        let who = (Some(caller), peer);
        self.denied(Event::CallDenied, who, Some(permission), "LOCKED_DOWN", || why.to_string());
    }

    /// There was no place for one more connection, and it was closed; `why` is for a person.
    pub fn connection_denied(&self, caller: Option<&CallerName>, peer: &Peer, why: &dyn Display) {
        let who = (caller, peer);
        self.denied(Event::ConnectionDenied, who, None, "TOO_MANY_CONNECTIONS", || why.to_string());
    }

    /// A peer of a port did not come through its TLS handshake. It has proved no name; all that is known of it is from where
    /// it came.
    pub fn handshake_failed(&self, peer: &Peer, reason: &'static str, why: &str) {
        self.denied(Event::HandshakeFailed, (None, peer), None, reason, || why.to_owned());
    }

    /// A connection was ended, because its peer's certificate is no longer believed or the policy names it no more.
    pub fn connection_ended(
        &self,
        caller: Option<&CallerName>,
        peer: &Peer,
        reason: &'static str,
        why: &str,
    ) {
        self.denied(Event::ConnectionEnded, (caller, peer), None, reason, || why.to_owned());
    }

    fn denied(
        &self,
        event: Event,
        (caller, peer): (Option<&CallerName>, &Peer),
        method: Option<Permission>,
        reason: &'static str,
        why: impl FnOnce() -> String,
    ) {
        let sort = Sort { event, origin: Origin::of(caller, peer), method, reason };
        self.bounded(sort, |record| {
            record.by(caller, Some(peer)).decided(Decision::Denied, reason).detail(why()).method(method)
        });
    }

    /// A caller got this token for the first time. It says of itself which credentials it was made with: those of a reload
    /// come in hand a moment before the reload is told here.
    pub fn token_read(
        &self,
        caller: &CallerName,
        peer: &Peer,
        permission: Permission,
        (token, generation): (TokenId, u64),
    ) {
        let record = self.about(Event::TokenRead).by(Some(caller), Some(peer)).token(token);
        self.sink.write(record.generation(generation).method(Some(permission)).allowed());
    }

    /// A caller got this token so many times more, from one process or several.
    pub fn token_reads(&self, caller: &CallerName, token: TokenId, count: u64) {
        let record = self.about(Event::TokenReads).by(Some(caller), None).token(token);
        self.sink.write(record.allowed().count(count));
    }

    /// A sign that a caller had verified is not B2BINPAY's.
    pub fn sign_forged(&self, caller: &CallerName, peer: &Peer, kind: ForgedKind) {
        let permission = match kind {
            ForgedKind::Callback | ForgedKind::TokenResponse => Permission::VerifySign,
            ForgedKind::Message => Permission::VerifySignMessage,
        };
        let origin = Origin::Caller(caller.clone());
        let sort = Sort { event: Event::SignForged, origin, method: Some(permission), reason: "INVALID" };
        self.bounded(sort, |record| {
            let detail = format!("the sign of {} is under no key of this broker's", kind.words());
            let record = record.by(Some(caller), Some(peer)).method(Some(permission));
            record.decided(Decision::Allowed, "INVALID").detail(detail)
        });
    }

    /// An operator had the broker do something. `by`: `None` for a signal. `outcome`: what was done, or a word for why not
    /// and the reason for a person.
    pub fn admin(
        &self,
        act: AdminAct,
        by: Option<(&CallerName, &Peer)>,
        outcome: Result<String, (&'static str, String)>,
    ) {
        let (caller, peer) = by.unzip();
        let record = self.about(act.event()).by(caller, peer).method(Some(act.permission()));
        self.sink.write(match outcome {
            Ok(done) => record.allowed().detail(done),
            Err((word, why)) => record.decided(Decision::Denied, word).detail(why),
        });
    }

    /// Other credentials are in force from now on.
    pub fn credentials_changed(&self, generation: u64, detail: String) {
        self.generation.store(generation, Ordering::Relaxed);
        self.sink.write(self.about(Event::CredentialsChanged).detail(detail));
    }

    /// Something happened that should not when everybody behaves.
    pub fn security(&self, event: &SecurityEvent) {
        let record = self.about(Event::Security(event.word())).detail(event.to_string());
        self.sink.write(match event {
            // Who brings these about writes their lines (`admin`, `credentials_changed`), with more in them than is here: who
            // wanted it, through which method, and with what outcome.
            SecurityEvent::Reloaded { .. }
            | SecurityEvent::ReloadRefused { .. }
            | SecurityEvent::CredentialsReplaced { .. }
            | SecurityEvent::LockedDown { .. }
            | SecurityEvent::Unlocked { .. } => return,
            SecurityEvent::TokenReportedRejected { token, caller } => {
                record.by(Some(caller), None).token(*token)
            }
            SecurityEvent::TokenWithdrawn { token } => record.token(*token),
            SecurityEvent::RefreshTokenSuspicious
            | SecurityEvent::UpstreamSignWrong
            | SecurityEvent::ForeignTraffic => record,
        });
    }

    /// Tells what was kept back for a second and not told since. To be called now and then: a storm that has stopped is
    /// accounted for by the next call.
    pub fn settle(&self) {
        self.tell_kept(false);
    }

    /// Tells all that was kept back, however recent.
    pub fn settle_all(&self) {
        self.tell_kept(true);
    }

    fn tell_kept(&self, early: bool) {
        let due = self.bounded.due(self.clock.now().boot, early);
        for record in due {
            self.sink.write(record);
        }
    }

    /// Writes a record of this sort, if one is due. `fill` is asked only then.
    fn bounded(&self, sort: Sort, fill: impl FnOnce(Record) -> Record) {
        let (now, event) = (self.clock.now(), sort.event);
        if let Some(record) = self.bounded.take(sort, now.boot, || fill(self.at(event, now))) {
            self.sink.write(record);
        }
    }

    fn about(&self, event: Event) -> Record {
        self.at(event, self.clock.now())
    }

    fn at(&self, event: Event, now: Now) -> Record {
        Record::new(event, now.wall).generation(self.generation.load(Ordering::Relaxed))
    }
}
