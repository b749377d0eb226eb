//! The broker's status as a value: what the JSON shows is what the text is made of. The names are a contract:
//! docs/status-json.md.

#![expect(clippy::struct_field_names, reason = "the fields are named as the JSON's members")]

use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::{
    grpc::{
        client::{span, time},
        proto,
    },
    sign::printable,
};

/// How a broker is.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) state: &'static str,
    pub(super) ready: bool,
    pub(super) since: Option<Timestamp>,
    pub(super) reason: String,
    pub(super) token: Option<Token>,
    pub(super) budget: Option<Budget>,
    pub(super) last_upstream_outcome: Option<Outcome>,
    pub(super) credentials: Option<Credentials>,
    pub(super) base_url: String,
    pub(super) api_version: String,
    #[serde(rename = "uptime_seconds")]
    pub(super) uptime: Option<Seconds>,
    pub(super) version: String,
    pub(super) locks: Vec<Lock>,
    pub(super) locks_problem: String,
    pub(super) callers: Vec<Caller>,
    pub(super) recent_security_events: Vec<Event>,
    pub(super) certificates: Vec<Certificate>,
    pub(super) audit: Option<Audit>,
}

#[derive(Serialize)]
pub(super) struct Token {
    pub(super) token_id: String,
    pub(super) issued_at: Option<Timestamp>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) next_refresh_at: Option<Timestamp>,
    #[serde(rename = "lifetime_seconds")]
    pub(super) lifetime: Option<Seconds>,
    #[serde(rename = "floor_seconds")]
    pub(super) floor: Option<Seconds>,
}

#[derive(Serialize)]
pub(super) struct Budget {
    pub(super) limit: u32,
    #[serde(rename = "window_seconds")]
    pub(super) window: Option<Seconds>,
    pub(super) used: u32,
    pub(super) available: u32,
    pub(super) problem: String,
}

#[derive(Serialize)]
pub(super) struct Outcome {
    pub(super) outcome: String,
    pub(super) detail: String,
    pub(super) at: Option<Timestamp>,
    #[serde(rename = "duration_seconds")]
    pub(super) duration: Option<Seconds>,
}

#[derive(Serialize)]
pub(super) struct Credentials {
    pub(super) generation: u64,
    pub(super) sources: Vec<Source>,
    pub(super) previous_until: Option<Timestamp>,
}

#[derive(Serialize)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) path: String,
}

#[derive(Serialize)]
pub(super) struct Caller {
    pub(super) name: String,
    pub(super) calls: Vec<Calls>,
    pub(super) last_token_id: String,
    pub(super) last_token_at: Option<Timestamp>,
    pub(super) held_tokens: Vec<Held>,
}

/// A lock in force; without a caller, on everyone.
#[derive(Serialize)]
pub(super) struct Lock {
    pub(super) caller: Option<String>,
    pub(super) since: Option<Timestamp>,
    pub(super) reason: String,
    pub(super) locked_by: String,
}

#[derive(Serialize)]
pub(super) struct Held {
    pub(super) token_id: String,
    pub(super) given_at: Option<Timestamp>,
    pub(super) expires_at: Option<Timestamp>,
}

#[derive(Serialize)]
pub(super) struct Calls {
    pub(super) method: String,
    pub(super) ok: u64,
    pub(super) failed: u64,
}

#[derive(Serialize)]
pub(super) struct Event {
    pub(super) at: Option<Timestamp>,
    pub(super) event: String,
    pub(super) detail: String,
}

#[derive(Serialize)]
pub(super) struct Audit {
    pub(super) destination: String,
    pub(super) lost: u64,
    pub(super) problem: String,
}

#[derive(Serialize)]
pub(super) struct Certificate {
    pub(super) role: &'static str,
    pub(super) path: String,
    pub(super) names: Vec<String>,
    pub(super) not_before: Option<Timestamp>,
    pub(super) not_after: Option<Timestamp>,
    pub(super) state: &'static str,
    pub(super) problem: String,
}

/// A span, which JSON shows as a number of seconds.
#[derive(Clone, Copy)]
pub(super) struct Seconds(pub(super) Duration);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.as_secs_f64().serialize(to)
    }
}

impl From<proto::GetStatusResponse> for Report {
    fn from(status: proto::GetStatusResponse) -> Self {
        let state = status.state().as_str_name();
        Self {
            state: state.strip_prefix("BROKER_STATE_").unwrap_or(state),
            ready: status.ready,
            since: time(status.since),
            reason: printable(&status.reason),
            token: status.token.map(Token::from),
            budget: status.budget.map(Budget::from),
            last_upstream_outcome: status.last_upstream_outcome.map(Outcome::from),
            credentials: status.credentials.map(Credentials::from),
            base_url: printable(&status.base_url),
            api_version: printable(&status.api_version),
            uptime: span(status.uptime).map(Seconds),
            version: printable(&status.version),
            locks: status.locks.into_iter().map(Lock::from).collect(),
            locks_problem: printable(&status.locks_problem),
            callers: status.callers.into_iter().map(Caller::from).collect(),
            recent_security_events: status.recent_security_events.into_iter().map(Event::from).collect(),
            certificates: status.certificates.into_iter().map(Certificate::from).collect(),
            audit: status.audit.map(Audit::from),
        }
    }
}

impl From<proto::TokenStatus> for Token {
    fn from(token: proto::TokenStatus) -> Self {
        Self {
            token_id: printable(&token.token_id),
            issued_at: time(token.issued_at),
            expires_at: time(token.expires_at),
            next_refresh_at: time(token.next_refresh_at),
            lifetime: span(token.lifetime).map(Seconds),
            floor: span(token.floor).map(Seconds),
        }
    }
}

impl From<proto::BudgetStatus> for Budget {
    fn from(budget: proto::BudgetStatus) -> Self {
        Self {
            limit: budget.limit,
            window: span(budget.window).map(Seconds),
            used: budget.used,
            available: budget.available,
            problem: printable(&budget.problem),
        }
    }
}

impl From<proto::UpstreamOutcome> for Outcome {
    fn from(call: proto::UpstreamOutcome) -> Self {
        Self {
            outcome: printable(&call.outcome),
            detail: printable(&call.detail),
            at: time(call.at),
            duration: span(call.duration).map(Seconds),
        }
    }
}

impl From<proto::CredentialStatus> for Credentials {
    fn from(credentials: proto::CredentialStatus) -> Self {
        let source = |source: proto::CredentialSource| Source {
            name: printable(&source.name),
            path: printable(&source.path),
        };
        Self {
            generation: credentials.generation,
            sources: credentials.sources.into_iter().map(source).collect(),
            previous_until: time(credentials.previous_until),
        }
    }
}

impl From<proto::CallerStatus> for Caller {
    fn from(caller: proto::CallerStatus) -> Self {
        let calls = |count: proto::MethodCount| Calls {
            method: printable(&count.method),
            ok: count.ok,
            failed: count.failed,
        };
        Self {
            name: printable(&caller.name),
            calls: caller.calls.into_iter().map(calls).collect(),
            last_token_id: printable(&caller.last_token_id),
            last_token_at: time(caller.last_token_at),
            held_tokens: caller.held_tokens.into_iter().map(Held::from).collect(),
        }
    }
}

impl From<proto::LockStatus> for Lock {
    fn from(lock: proto::LockStatus) -> Self {
        Self {
            caller: lock.caller.map(|name| printable(&name)),
            since: time(lock.since),
            reason: printable(&lock.reason),
            locked_by: printable(&lock.locked_by),
        }
    }
}

impl From<proto::GivenToken> for Held {
    fn from(token: proto::GivenToken) -> Self {
        Self {
            token_id: printable(&token.token_id),
            given_at: time(token.given_at),
            expires_at: time(token.expires_at),
        }
    }
}

impl From<proto::SecurityEvent> for Event {
    fn from(event: proto::SecurityEvent) -> Self {
        Self { at: time(event.at), event: printable(&event.event), detail: printable(&event.detail) }
    }
}

impl From<proto::CertificateStatus> for Certificate {
    fn from(certificate: proto::CertificateStatus) -> Self {
        let (role, state) = (certificate.role().as_str_name(), certificate.state().as_str_name());
        Self {
            role: role.strip_prefix("CERTIFICATE_ROLE_").unwrap_or(role),
            path: printable(&certificate.path),
            names: certificate.names.iter().map(|name| printable(name)).collect(),
            not_before: time(certificate.not_before),
            not_after: time(certificate.not_after),
            state: state.strip_prefix("CERTIFICATE_STATE_").unwrap_or(state),
            problem: printable(&certificate.problem),
        }
    }
}

impl From<proto::AuditStatus> for Audit {
    fn from(audit: proto::AuditStatus) -> Self {
        Self {
            destination: printable(&audit.destination),
            lost: audit.lost,
            problem: printable(&audit.problem),
        }
    }
}
