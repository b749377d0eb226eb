//! From the domain's words to the protocol's.

use std::time::Duration;

use jiff::Timestamp;
use prost_types::Duration as ProtoDuration;
use tonic::Status as RpcError;

use super::{
    errors::bad_field,
    proto,
    tls::{CertificateFacts, CertificateRole, CertificateState},
};
use crate::{
    broker::{CallerCounts, GivenToken, LockedDown, Status, Unlocked, UpstreamFacts, WatchReason},
    budget::BudgetUsage,
    clock::Now,
    keeper::{HeldToken, KeeperState, LastCall},
    lockdown::{LockedOut, Scope},
    secret::ExposeSecret,
    sign::{CallbackFacts, Finding, Generation, Verdict},
};

pub(super) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    // jiff keeps the nanoseconds of a time before 1970 negative; the protocol wants them counted upwards.
    let nanoseconds = at.as_nanosecond();
    prost_types::Timestamp {
        seconds: i64::try_from(nanoseconds.div_euclid(1_000_000_000)).unwrap_or(i64::MAX),
        nanos: i32::try_from(nanoseconds.rem_euclid(1_000_000_000)).unwrap_or_default(),
    }
}

pub(super) fn duration(span: Duration) -> ProtoDuration {
    ProtoDuration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.subsec_nanos()).unwrap_or_default(),
    }
}

/// A span of a request that must not be negative.
pub(super) fn span(field: &str, value: Option<ProtoDuration>) -> Result<Option<Duration>, RpcError> {
    value
        .map(|value| {
            Duration::try_from(value).map_err(|_| bad_field(field, "must be a duration of zero or more"))
        })
        .transpose()
}

pub(super) fn token(held: &HeldToken, upstream: &UpstreamFacts, now: Now) -> proto::GetAccessTokenResponse {
    proto::GetAccessTokenResponse {
        access_token: held.access.secret().expose_secret().to_owned(),
        token_type: "Bearer".to_owned(),
        token_id: held.id().to_string(),
        expires_at: Some(timestamp(now.wall_at(held.expires_at))),
        valid_for: Some(duration(held.valid_for(now.boot))),
        base_url: upstream.base_url.clone(),
        api_version: upstream.api.as_str().to_owned(),
    }
}

pub(super) fn watch_reason(reason: WatchReason) -> proto::TokenReason {
    match reason {
        WatchReason::Current => proto::TokenReason::Current,
        WatchReason::Rotated => proto::TokenReason::Rotated,
        WatchReason::ReplacedAfterRejection => proto::TokenReason::ReplacedAfterRejection,
        WatchReason::CredentialsChanged => proto::TokenReason::CredentialsChanged,
    }
}

pub(super) fn finding(found: Finding) -> proto::VerifySignResponse {
    let verdict = match found.verdict {
        Verdict::Valid => proto::Verdict::Valid,
        Verdict::Invalid => proto::Verdict::Invalid,
        Verdict::Unsigned => proto::Verdict::Unsigned,
        Verdict::Stale => proto::Verdict::Stale,
    };
    let generation = match found.generation {
        None => proto::KeyGeneration::Unspecified,
        Some(Generation::Current) => proto::KeyGeneration::Current,
        Some(Generation::Previous) => proto::KeyGeneration::Previous,
    };
    proto::VerifySignResponse {
        verdict: verdict.into(),
        reason: found.reason,
        key_generation: generation.into(),
        callback: found.callback.map(callback),
    }
}

fn callback(facts: CallbackFacts) -> proto::Callback {
    proto::Callback {
        kind: facts.kind.as_str().to_owned(),
        id: facts.id,
        status: facts.status,
        amount: facts.amount,
        tracking_id: facts.tracking_id,
        time: facts.time,
        authenticated_fields: facts.authenticated_fields.iter().map(|&name| name.to_owned()).collect(),
    }
}

fn state(state: KeeperState) -> proto::BrokerState {
    match state {
        KeeperState::Starting => proto::BrokerState::Starting,
        KeeperState::Fresh => proto::BrokerState::Fresh,
        KeeperState::Degraded => proto::BrokerState::Degraded,
        KeeperState::Expired => proto::BrokerState::Expired,
        KeeperState::CredentialsRejected => proto::BrokerState::CredentialsRejected,
        KeeperState::UpstreamForbidden => proto::BrokerState::UpstreamForbidden,
        KeeperState::LockedDown => proto::BrokerState::LockedDown,
    }
}

pub(super) fn status(status: Status) -> proto::GetStatusResponse {
    let token = status.token.as_ref().map(|token| proto::TokenStatus {
        token_id: token.id().to_string(),
        issued_at: Some(timestamp(status.now.wall_at(token.issued_at))),
        expires_at: Some(timestamp(status.now.wall_at(token.expires_at))),
        next_refresh_at: Some(timestamp(status.now.wall_at(token.renew_at))),
        lifetime: Some(duration(token.lifetime())),
        floor: Some(duration(token.floor)),
    });
    let sources = status
        .credentials
        .sources
        .into_iter()
        .map(|source| proto::CredentialSource { name: source.name, path: source.path.display().to_string() });
    let events = status.events.into_iter().map(|(at, event)| proto::SecurityEvent {
        at: Some(timestamp(at)),
        event: event.word().to_owned(),
        detail: event.to_string(),
    });
    proto::GetStatusResponse {
        state: state(status.state).into(),
        ready: status.ready,
        since: Some(timestamp(status.since)),
        reason: status.reason,
        token,
        budget: Some(budget(status.budget)),
        last_upstream_outcome: status.last_call.map(outcome),
        credentials: Some(proto::CredentialStatus {
            generation: status.credentials.generation,
            sources: sources.collect(),
            previous_until: status.previous_until.map(timestamp),
        }),
        uptime: Some(duration(status.uptime)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        callers: status.callers.into_iter().map(caller).collect(),
        recent_security_events: events.collect(),
        // The services know them, and put them in.
        certificates: Vec::new(),
        audit: Some(proto::AuditStatus {
            destination: status.audit.destination,
            lost: status.audit.lost,
            problem: status.audit.problem,
        }),
        base_url: status.upstream.base_url.clone(),
        api_version: status.upstream.api.as_str().to_owned(),
        locks: status.locks.into_iter().map(lock).collect(),
        locks_problem: status.locks_problem.map(|problem| problem.to_string()).unwrap_or_default(),
    }
}

/// Whom a request is about.
pub(super) fn scope(caller: Option<&str>) -> Result<Scope, RpcError> {
    match caller {
        None => Ok(Scope::Everyone),
        Some(name) => match name.parse() {
            Ok(name) => Ok(Scope::Caller(name)),
            Err(error) => Err(bad_field("caller", format!("{error}"))),
        },
    }
}

pub(super) fn locked_down(done: LockedDown, known_since: Timestamp) -> proto::LockdownResponse {
    let holders = done.holders.into_iter().map(|holder| proto::TokenHolder {
        caller: holder.caller.to_string(),
        token: Some(given_token(holder.token)),
    });
    proto::LockdownResponse {
        lock: Some(lock(done.lock)),
        holders: holders.collect(),
        holders_known_since: Some(timestamp(known_since)),
        persisted: done.problem.is_none(),
        problem: done.problem.map(|problem| problem.to_string()).unwrap_or_default(),
    }
}

pub(super) fn unlocked(done: Unlocked) -> proto::UnlockResponse {
    proto::UnlockResponse {
        was_locked: done.was_locked,
        locks: done.locks.into_iter().map(lock).collect(),
        persisted: done.problem.is_none(),
        problem: done.problem.map(|problem| problem.to_string()).unwrap_or_default(),
    }
}

fn lock(out: LockedOut) -> proto::LockStatus {
    proto::LockStatus {
        caller: match out.scope {
            Scope::Everyone => None,
            Scope::Caller(name) => Some(name.to_string()),
        },
        since: Some(timestamp(out.lock.since)),
        reason: out.lock.reason.as_str().to_owned(),
        locked_by: out.lock.by,
    }
}

fn given_token(token: GivenToken) -> proto::GivenToken {
    proto::GivenToken {
        token_id: token.id.to_string(),
        given_at: Some(timestamp(token.at)),
        expires_at: Some(timestamp(token.expires_at)),
    }
}

pub(super) fn certificate(facts: &CertificateFacts, now: Timestamp) -> proto::CertificateStatus {
    let role = match facts.role {
        CertificateRole::Server => proto::CertificateRole::Server,
        CertificateRole::ClientAuthority => proto::CertificateRole::ClientAuthority,
        CertificateRole::RevocationList => proto::CertificateRole::RevocationList,
    };
    let state = match facts.state(now) {
        CertificateState::NotYet => proto::CertificateState::NotYet,
        CertificateState::Good => proto::CertificateState::Good,
        CertificateState::EndsSoon => proto::CertificateState::EndsSoon,
        CertificateState::Ended => proto::CertificateState::Ended,
    };
    proto::CertificateStatus {
        role: role.into(),
        path: facts.path.display().to_string(),
        names: facts.names.clone(),
        not_before: Some(timestamp(facts.not_before)),
        not_after: facts.not_after.map(timestamp),
        state: state.into(),
        problem: facts.complaint(now).unwrap_or_default(),
    }
}

fn budget(usage: BudgetUsage) -> proto::BudgetStatus {
    proto::BudgetStatus {
        limit: usage.limit.requests(),
        window: Some(duration(usage.limit.window())),
        used: usage.used,
        available: usage.available,
        problem: usage.problem.unwrap_or_default(),
    }
}

fn outcome(call: LastCall) -> proto::UpstreamOutcome {
    proto::UpstreamOutcome {
        outcome: call.error.as_ref().map_or("ok", |error| error.word()).to_owned(),
        detail: call.error.map(|error| error.to_string()).unwrap_or_default(),
        at: Some(timestamp(call.at.wall)),
        duration: Some(duration(call.took)),
    }
}

fn caller(counts: CallerCounts) -> proto::CallerStatus {
    let calls = counts.calls.into_iter().map(|(permission, ok, failed)| proto::MethodCount {
        method: permission.as_str().to_owned(),
        ok,
        failed,
    });
    proto::CallerStatus {
        name: counts.name.to_string(),
        calls: calls.collect(),
        last_token_id: counts.last_token.map(|last| last.id.to_string()).unwrap_or_default(),
        last_token_at: counts.last_token.map(|last| timestamp(last.at)),
        held_tokens: counts.held.into_iter().map(given_token).collect(),
    }
}
