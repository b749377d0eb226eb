//! The rules of the API: what the server makes of a call that reaches it.

use std::net::SocketAddr;

use http::StatusCode;
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use serde_json::Value;

use crate::clock::Clock;
use crate::fault::FaultQueue;
use crate::fingerprint::Fingerprint;
use crate::limit::SlidingLog;
use crate::log::{Call, CallLog, Endpoint, Outcome};
use crate::settings::{Generation, RetryAfter, Settings};
use crate::sign;
use crate::token::TokenStore;
use crate::wire::{self, NotUnderstood, Presented, V2Tokens};

/// Everything that changes while the simulator runs.
pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) tokens: TokenStore,
    pub(crate) admitted: SlidingLog,
    pub(crate) faults: FaultQueue,
    pub(crate) log: CallLog,
}

impl State {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            tokens: TokenStore::default(),
            admitted: SlidingLog::default(),
            faults: FaultQueue::default(),
            log: CallLog::default(),
        }
    }
}

/// A call as it was read from the wire.
pub(crate) struct Request {
    pub(crate) client: SocketAddr,
    pub(crate) endpoint: Endpoint,
    pub(crate) presented: Result<Presented, NotUnderstood>,
}

impl Request {
    /// The generation the request belongs to, where it tells.
    pub(crate) fn generation(&self) -> Option<Generation> {
        match (&self.presented, self.endpoint) {
            (Ok(Presented::Login { generation, .. }), _) => Some(*generation),
            (_, Endpoint::Refresh) => Some(Generation::V2),
            _ => None,
        }
    }

    /// The record of this call, as far as it is known on arrival.
    pub(crate) fn record(&self, clock: &Clock) -> Call {
        let (credential, presented) = match &self.presented {
            Ok(Presented::Login { key, .. }) => (Some(key), None),
            Ok(Presented::Refresh(token) | Presented::Bearer(Some(token))) => (None, Some(token)),
            _ => (None, None),
        };
        Call {
            number: 0,
            at: clock.elapsed(),
            time: clock.wall(),
            client: self.client,
            endpoint: self.endpoint,
            api: self.generation(),
            outcome: Outcome::NotProcessed,
            fault: None,
            status: None,
            credential: credential.map(|key| Fingerprint::of(key)),
            presented: presented.map(|token| Fingerprint::of(token)),
            issued_access: None,
            issued_refresh: None,
            counted: false,
        }
    }
}

/// What the server answers, before a fault spoils it.
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
    pub(crate) retry_after: Option<String>,
    /// Whether the call takes one of those that the limit allows.
    pub(crate) counted: bool,
    pub(crate) issued_access: Option<Fingerprint>,
    pub(crate) issued_refresh: Option<Fingerprint>,
}

impl Answer {
    fn new(outcome: Outcome, status: StatusCode, body: Value) -> Self {
        Self {
            outcome,
            status,
            body,
            retry_after: None,
            counted: false,
            issued_access: None,
            issued_refresh: None,
        }
    }

    fn refusal(outcome: Outcome, status: StatusCode, code: Option<&str>, detail: &str) -> Self {
        Self::new(outcome, status, wire::error(status, code, detail))
    }
}

/// The server's clock: the simulator's, moved by the offset, in the microseconds that the API writes.
pub(crate) fn server_time(settings: &Settings, clock: &Clock) -> Timestamp {
    let wall = clock.wall();
    let moved = wall.checked_add(settings.clock_offset).unwrap_or(wall);
    moved.round(TimestampRound::new().smallest(Unit::Microsecond).mode(RoundMode::Trunc)).unwrap_or(moved)
}

impl State {
    /// Lets the server process a call: tokens are issued and spent, and the limit is kept.
    pub(crate) fn process(&mut self, request: &Request, clock: &Clock) -> Answer {
        let now = server_time(&self.settings, clock);
        if request.endpoint == Endpoint::Refresh && !self.settings.api.serves(Generation::V2) {
            return Answer::refusal(Outcome::BadRequest, StatusCode::NOT_FOUND, None, "Not found.");
        }
        if !request.endpoint.is_token() {
            return self.decide(request, now);
        }
        match self.admitted.admit(request.client.ip(), clock.elapsed(), self.settings.limit) {
            Err(wait) => self.throttled(wait, now),
            Ok(()) => Answer { counted: true, ..self.decide(request, now) },
        }
    }

    fn decide(&mut self, request: &Request, now: Timestamp) -> Answer {
        match &request.presented {
            Err(NotUnderstood { status, detail }) => {
                Answer::refusal(Outcome::BadRequest, *status, None, detail)
            }
            Ok(Presented::Nothing) => Answer::new(
                Outcome::Accepted,
                StatusCode::OK,
                serde_json::json!({ "data": { "type": "ping", "id": "0" } }),
            ),
            Ok(Presented::Bearer(token)) => self.wallet(token.as_deref(), request, now),
            Ok(Presented::Login { generation, key, secret }) => {
                self.login(*generation, key, secret, request, now)
            }
            Ok(Presented::Refresh(token)) => self.refresh(token, request, now),
        }
    }

    fn throttled(&self, wait: std::time::Duration, now: Timestamp) -> Answer {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let detail = format!("Request was throttled. Expected available in {seconds} seconds.");
        let mut answer =
            Answer::refusal(Outcome::Throttled, StatusCode::TOO_MANY_REQUESTS, Some("throttled"), &detail);
        answer.retry_after = match self.settings.retry_after {
            RetryAfter::Seconds => Some(seconds.to_string()),
            RetryAfter::HttpDate => now.checked_add(wait).ok().map(|free| http_date(round_up(free))),
            RetryAfter::Absent => None,
        };
        answer
    }

    fn forbidden(&self, request: &Request) -> Option<Answer> {
        let allowed = self.settings.allowed_addresses.as_ref()?;
        (!allowed.contains(&request.client.ip())).then(|| {
            let detail = "Access from this IP address is not allowed.";
            Answer::refusal(Outcome::Forbidden, StatusCode::FORBIDDEN, Some("2016"), detail)
        })
    }

    fn wallet(&self, token: Option<&str>, request: &Request, now: Timestamp) -> Answer {
        let detail = match token {
            None => "Authentication credentials were not provided.",
            Some(token) if self.tokens.is_live(token, now) => {
                return self
                    .forbidden(request)
                    .unwrap_or_else(|| Answer::new(Outcome::Accepted, StatusCode::OK, wire::wallets()));
            }
            Some(_) => "Given token not valid for any token type",
        };
        Answer::refusal(Outcome::Unauthorized, StatusCode::UNAUTHORIZED, None, detail)
    }

    fn login(
        &mut self,
        generation: Generation,
        key: &str,
        secret: &str,
        request: &Request,
        now: Timestamp,
    ) -> Answer {
        if !self.settings.api.serves(generation) {
            let detail = match generation {
                Generation::V2 => "This API takes client_id and client_secret, not login and password.",
                Generation::V3 => "This API takes login and password, not client_id and client_secret.",
            };
            return Answer::refusal(Outcome::BadRequest, StatusCode::BAD_REQUEST, None, detail);
        }
        let credentials = &self.settings.credentials;
        if credentials.key != key || credentials.secret != secret {
            let detail = "No active account found with the given credentials";
            return Answer::refusal(Outcome::WrongCredentials, StatusCode::BAD_REQUEST, Some("2006"), detail);
        }
        if let Some(forbidden) = self.forbidden(request) {
            return forbidden;
        }
        match generation {
            Generation::V2 => self.issue_v2(now, Some((key, secret))),
            Generation::V3 => self.issue_v3(now),
        }
    }

    fn refresh(&mut self, token: &str, request: &Request, now: Timestamp) -> Answer {
        let owner = self.settings.rotation_ends_refresh.then_some(&self.settings.credentials);
        if !self.tokens.can_refresh(token, now, owner) {
            let detail = "Token is invalid or expired";
            return Answer::refusal(Outcome::InvalidRefresh, StatusCode::UNAUTHORIZED, Some("2007"), detail);
        }
        if let Some(forbidden) = self.forbidden(request) {
            return forbidden;
        }
        self.tokens.spend(token);
        self.issue_v2(now, None)
    }

    /// Issues both tokens. `signed_for`: a login's own key and secret, with which its answer is signed.
    fn issue_v2(&mut self, now: Timestamp, signed_for: Option<(&str, &str)>) -> Answer {
        let Self { settings, tokens, .. } = self;
        let access = tokens.issue_access(now, settings.access_lifetime_of(Generation::V2));
        let refresh = tokens.issue_refresh(now, settings.refresh_lifetime, &settings.credentials);
        let said = V2Tokens {
            access: &access.token,
            access_expires: access.expires,
            refresh: &refresh.token,
            refresh_expires: refresh.expires,
        };
        let body = match signed_for {
            None => said.refresh(settings.forms),
            Some((login, password)) => {
                let time = wire::time(now, settings.forms.fraction, crate::settings::UtcOffset::Z);
                let sign = sign::sign(&sign::v2_key(login, password), &[&time, &refresh.token]);
                said.login(settings.forms, &time, &sign)
            }
        };
        Answer {
            issued_access: Some(Fingerprint::of(&access.token)),
            issued_refresh: Some(Fingerprint::of(&refresh.token)),
            ..Answer::new(Outcome::Accepted, StatusCode::OK, body)
        }
    }

    fn issue_v3(&mut self, now: Timestamp) -> Answer {
        let lifetime = self.settings.access_lifetime_of(Generation::V3);
        let access = self.tokens.issue_access(now, lifetime);
        let body = wire::v3_tokens(&access.token, lifetime.as_secs(), self.settings.forms);
        Answer {
            issued_access: Some(Fingerprint::of(&access.token)),
            ..Answer::new(Outcome::Accepted, StatusCode::OK, body)
        }
    }
}

fn round_up(instant: Timestamp) -> Timestamp {
    instant.round(TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Ceil)).unwrap_or(instant)
}

/// A time as HTTP headers write it.
pub(crate) fn http_date(instant: Timestamp) -> String {
    instant.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_dates_have_the_form_of_the_standard() {
        let instant: Timestamp = "1994-11-06T08:49:37Z".parse().unwrap();
        assert_eq!(http_date(instant), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
