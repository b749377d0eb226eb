//! One line: its fields and their order. `docs/audit.md` says the same to those who read the log, and a test compares.

use jiff::{Timestamp, tz::Offset};
use serde::{Serialize, Serializer};

use crate::{
    caller::{CallerName, CertifiedName, Peer},
    policy::Permission,
    token::TokenId,
};

/// What a line is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// The broker serves.
    Started,
    /// The broker has stopped.
    Stopped,
    /// A call was denied.
    CallDenied,
    /// There was no place for a connection, and it was closed.
    ConnectionDenied,
    /// A peer of a port did not come through its TLS handshake.
    HandshakeFailed,
    /// A connection was ended, since its peer is no longer who it was taken for.
    ConnectionEnded,
    /// A caller got a token for the first time.
    TokenRead,
    /// A caller got that token again, so many times.
    TokenReads,
    /// A sign is not B2BINPAY's.
    SignForged,
    /// Everybody, or one caller, gets no tokens any more.
    Lockdown,
    /// That is over.
    Unlock,
    /// Configuration and credentials were read again.
    Reload,
    /// Other credentials are in force.
    CredentialsChanged,
    /// One of [`crate::security::SecurityEvent`], by its word.
    Security(&'static str),
    /// Lines were lost.
    AuditLost,
}

impl Event {
    /// All but those of [`crate::security::SecurityEvent`].
    pub const ALL: [Self; 14] = [
        Self::Started,
        Self::Stopped,
        Self::CallDenied,
        Self::ConnectionDenied,
        Self::HandshakeFailed,
        Self::ConnectionEnded,
        Self::TokenRead,
        Self::TokenReads,
        Self::SignForged,
        Self::Lockdown,
        Self::Unlock,
        Self::Reload,
        Self::CredentialsChanged,
        Self::AuditLost,
    ];

    /// The word for it in the log.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::CallDenied => "call_denied",
            Self::ConnectionDenied => "connection_denied",
            Self::HandshakeFailed => "handshake_failed",
            Self::ConnectionEnded => "connection_ended",
            Self::TokenRead => "token_read",
            Self::TokenReads => "token_reads",
            Self::SignForged => "sign_forged",
            Self::Lockdown => "lockdown",
            Self::Unlock => "unlock",
            Self::Reload => "reload",
            Self::CredentialsChanged => "credentials_changed",
            Self::Security(word) => word,
            Self::AuditLost => "audit_lost",
        }
    }
}

/// Whether what was asked for was allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It was.
    Allowed,
    /// It was not.
    Denied,
}

/// Whom a line is about, as far as that is known.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
struct Who {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
}

impl Who {
    fn of(caller: Option<&CallerName>, peer: Option<&Peer>) -> Self {
        let mut who = Self { name: caller.map(ToString::to_string), ..Self::default() };
        match peer {
            None => {}
            Some(Peer::Unix { uid, gid, pid, unit, groups: _ }) => {
                (who.uid, who.gid, who.pid) = (Some(*uid), Some(*gid), *pid);
                who.unit = unit.as_ref().map(ToString::to_string);
            }
            Some(Peer::Tls { address, name }) => {
                who.address = Some(address.to_string());
                match name {
                    Ok(CertifiedName::Spiffe(id)) => who.spiffe_id = Some(id.to_string()),
                    Ok(CertifiedName::Dns(name)) => who.dns_name = Some(name.to_string()),
                    Err(_) => {}
                }
            }
        }
        who
    }

    fn is_nobody(&self) -> bool {
        *self == Self::default()
    }
}

/// One line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Record {
    log: &'static str,
    #[serde(serialize_with = "with_offset")]
    time: Timestamp,
    #[serde(serialize_with = "word")]
    event: Event,
    #[serde(skip_serializing_if = "Who::is_nobody")]
    caller: Who,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<Decision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential_generation: Option<u64>,
    #[serde(skip_serializing_if = "is_one")]
    count: u64,
}

impl Record {
    /// A record of this event, which happened then, and nothing more.
    pub fn new(event: Event, time: Timestamp) -> Self {
        Self {
            log: "audit",
            time,
            event,
            caller: Who::default(),
            method: None,
            decision: None,
            reason: None,
            detail: String::new(),
            token_id: None,
            credential_generation: None,
            count: 1,
        }
    }

    /// So many lines were lost until then.
    pub fn lost(count: u64, time: Timestamp) -> Self {
        let detail = "audit lines could not be written; GetStatus and the broker's log say why".to_owned();
        Self::new(Event::AuditLost, time).detail(detail).count(count)
    }

    /// The record as a line of JSON, its end included.
    pub fn line(&self) -> Vec<u8> {
        // Fails for maps whose keys are no texts and for writers that fail; there is neither.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }

    /// What it is about.
    pub fn event(&self) -> Event {
        self.event
    }

    /// How many of its kind it stands for.
    pub fn stands_for(&self) -> u64 {
        self.count
    }

    pub(super) fn by(self, caller: Option<&CallerName>, peer: Option<&Peer>) -> Self {
        Self { caller: Who::of(caller, peer), ..self }
    }

    pub(super) fn method(self, permission: Option<Permission>) -> Self {
        Self { method: permission.map(Permission::as_str), ..self }
    }

    pub(super) fn decided(self, decision: Decision, reason: &'static str) -> Self {
        Self { decision: Some(decision), reason: Some(reason), ..self }
    }

    pub(super) fn allowed(self) -> Self {
        Self { decision: Some(Decision::Allowed), ..self }
    }

    pub(super) fn detail(self, detail: String) -> Self {
        Self { detail, ..self }
    }

    pub(super) fn token(self, token: TokenId) -> Self {
        Self { token_id: Some(token.to_string()), ..self }
    }

    pub(super) fn generation(self, generation: u64) -> Self {
        Self { credential_generation: Some(generation), ..self }
    }

    pub(super) fn count(self, count: u64) -> Self {
        Self { count, ..self }
    }
}

fn with_offset<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{:.3}", time.display_with_offset(Offset::UTC)))
}

fn word<S: Serializer>(event: &Event, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(event.word())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
const fn is_one(count: &u64) -> bool {
    *count == 1
}
