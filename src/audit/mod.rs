//! The audit log: who asked for what, who was let in, who was given which token, and what went wrong that should not.
//!
//! This is where it is decided what a line says and when one is due; an [`AuditSink`] writes it. The promise: every
//! event of [`Event::ALL`] ends in a line or in the `count` of one, and nobody who is watched waits for it. Its bounds:
//!
//! - Denials and forged signs come as fast as somebody likes. Each origin (see `origin`) gets one line a second, whose
//!   `count` says how many it stands for; what is not told by the next such line is told by [`AuditLog::settle`].
//! - Reads of tokens are told when a caller gets a token for the first time, and counted from then on.
//! - What the sink can't write it counts, and says so when it can write again.
//!
//! A line holds no token, secret, sign or body: records are made of the words below and nothing else.

mod bounded;
mod record;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

pub use record::{Decision, Event, Record};

use self::bounded::{Bounded, Origin};
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
    denials: Bounded,
    connections: Bounded,
    forged: Bounded,
}

impl AuditLog {
    /// A log of a broker that begins with credentials of this generation.
    pub fn new(sink: Arc<dyn AuditSink>, clock: Arc<dyn Clock>, generation: u64) -> Self {
        Self {
            sink,
            clock,
            generation: AtomicU64::new(generation),
            denials: Bounded::default(),
            connections: Bounded::default(),
            forged: Bounded::default(),
        }
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
        let now = self.clock.now();
        let record = || {
            let record = self.at(Event::CallDenied, now).by(denial.caller(), Some(peer));
            let record = record.decided(Decision::Denied, denial.word()).detail(denial.to_string());
            record.method(permission)
        };
        self.bounded(&self.denials, Origin::of(denial.caller(), peer), now, record);
    }

    /// A call was denied because its caller is locked out; `why` is for a person.
    pub fn locked_out(&self, caller: &CallerName, peer: &Peer, permission: Permission, why: &str) {
        let now = self.clock.now();
        let record = || {
            let record = self.at(Event::CallDenied, now).by(Some(caller), Some(peer)).detail(why.to_owned());
            record.method(Some(permission)).decided(Decision::Denied, "LOCKED_DOWN")
        };
        self.bounded(&self.denials, Origin::Caller(caller.clone()), now, record);
    }

    /// A caller has as many connections as it may, and one more was closed.
    pub fn connection_denied(&self, caller: &CallerName, peer: &Peer, most: usize) {
        let now = self.clock.now();
        let record = || {
            let detail = format!(
                "caller {caller} has {most} connections open, which is all that one caller gets: share one in each \
                 process; or have [limits] max_connections_per_caller raised"
            );
            let record = self.at(Event::ConnectionDenied, now).by(Some(caller), Some(peer)).detail(detail);
            record.decided(Decision::Denied, "TOO_MANY_CONNECTIONS")
        };
        self.bounded(&self.connections, Origin::Caller(caller.clone()), now, record);
    }

    /// A caller got this token for the first time.
    pub fn token_read(&self, caller: &CallerName, peer: &Peer, permission: Permission, token: TokenId) {
        let record = self.about(Event::TokenRead).by(Some(caller), Some(peer)).token(token);
        self.sink.write(record.method(Some(permission)).allowed());
    }

    /// A caller got this token so many times more, from one process or several.
    pub fn token_reads(&self, caller: &CallerName, token: TokenId, count: u64) {
        let record = self.about(Event::TokenReads).by(Some(caller), None).token(token);
        self.sink.write(record.allowed().count(count));
    }

    /// A sign that a caller had verified is not B2BINPAY's.
    pub fn sign_forged(&self, caller: &CallerName, peer: &Peer, kind: ForgedKind) {
        let now = self.clock.now();
        let permission = match kind {
            ForgedKind::Callback | ForgedKind::TokenResponse => Permission::VerifySign,
            ForgedKind::Message => Permission::VerifySignMessage,
        };
        let record = || {
            let detail = format!("the sign of {} is under no key of this broker's", kind.words());
            let record = self.at(Event::SignForged, now).by(Some(caller), Some(peer)).detail(detail);
            record.method(Some(permission)).decided(Decision::Allowed, "INVALID")
        };
        self.bounded(&self.forged, Origin::Caller(caller.clone()), now, record);
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
            // They have lines of their own, with more in them.
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
        let now = self.clock.now().boot;
        for storms in [&self.denials, &self.connections, &self.forged] {
            storms.due(now, early).into_iter().for_each(|record| self.sink.write(record));
        }
    }

    fn bounded(&self, storms: &Bounded, origin: Origin, now: Now, record: impl FnOnce() -> Record) {
        if let Some(record) = storms.take(origin, now.boot, record) {
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
