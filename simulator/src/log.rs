//! What was asked of the simulator, in order, for a test or a person to look at afterwards.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use crate::fingerprint::Fingerprint;
use crate::settings::Generation;

/// How many calls are kept; the oldest go first, so that a simulator left alone for weeks stays small.
const KEPT: usize = 100_000;

/// What was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `POST /token/`
    Login,
    /// `POST /token/refresh/`
    Refresh,
    /// `GET /ping`
    Ping,
    /// `GET /wallet/`, the resource that asks for an access token.
    Wallet,
    /// Anything else, answered 404, 405, 413 or 415.
    Other,
}

impl Endpoint {
    /// Whether it is one of the two endpoints that are called without an access token and share the limit.
    pub fn is_token(self) -> bool {
        matches!(self, Self::Login | Self::Refresh)
    }
}

/// What the server made of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done as asked.
    Accepted,
    /// Over the limit: 429.
    Throttled,
    /// Unknown credentials: 400 with code 2006.
    WrongCredentials,
    /// A refresh token that is spent, expired or unknown: 401 with code 2007.
    InvalidRefresh,
    /// An address that is not on the account's list: 403 with code 2016.
    Forbidden,
    /// `/wallet/` without a live access token: 401.
    Unauthorized,
    /// Nothing that the API understands: 400, 404, 405, 413 or 415.
    BadRequest,
    /// A fault stood in for the server: the call was not processed.
    NotProcessed,
}

/// One call, as the server saw it. Tokens and keys are there by fingerprint only.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Call {
    /// Its place in the order of arrival, from 1.
    pub number: u64,
    /// When it arrived, since the simulator started, on a clock that never steps. In JSON: seconds.
    #[serde(serialize_with = "seconds")]
    pub at: Duration,
    /// When it arrived, by the wall clock, without the server's own offset.
    pub time: Timestamp,
    /// Who called.
    pub client: SocketAddr,
    /// What was called.
    pub endpoint: Endpoint,
    /// The generation, where the request tells it.
    pub api: Option<Generation>,
    /// What the server made of it, whatever a fault then did to the answer.
    pub outcome: Outcome,
    /// The kind of the fault that struck.
    pub fault: Option<&'static str>,
    /// The HTTP status that was sent, if one was.
    pub status: Option<u16>,
    /// The API key that was presented.
    pub credential: Option<Fingerprint>,
    /// The token that was presented: a refresh token at `/token/refresh/`, an access token at `/wallet/`.
    pub presented: Option<Fingerprint>,
    /// The access token that was issued.
    pub issued_access: Option<Fingerprint>,
    /// The refresh token that was issued.
    pub issued_refresh: Option<Fingerprint>,
    /// Whether it takes one of the calls that the limit allows.
    pub counted: bool,
}

fn seconds<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(duration.as_secs_f64())
}

/// Recorded calls in order of arrival, and the questions that tests ask of them.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Calls(Vec<Call>);

impl Calls {
    /// The calls of both token endpoints, whatever became of them: what the real limit is about.
    pub fn to_token_endpoints(&self) -> impl Iterator<Item = &Call> {
        self.0.iter().filter(|call| call.endpoint.is_token())
    }

    /// How many calls went to one endpoint.
    pub fn count(&self, endpoint: Endpoint) -> usize {
        self.0.iter().filter(|call| call.endpoint == endpoint).count()
    }

    /// How many calls had this outcome.
    pub fn count_of(&self, outcome: Outcome) -> usize {
        self.0.iter().filter(|call| call.outcome == outcome).count()
    }

    /// The most token calls from one client address that arrived in any half-open window of this length, throttled
    /// and failed ones included. A client that keeps the limit never makes this exceed 15 in 60 s.
    pub fn max_in_any_window(&self, window: Duration) -> usize {
        let mut inside: HashMap<_, VecDeque<Duration>> = HashMap::new();
        let mut most = 0;
        for call in self.to_token_endpoints() {
            let times = inside.entry(call.client.ip()).or_default();
            while times.front().is_some_and(|&first| call.at.saturating_sub(first) >= window) {
                times.pop_front();
            }
            times.push_back(call.at);
            most = most.max(times.len());
        }
        most
    }

    /// The shortest time between two token calls that followed each other, if there were two.
    pub fn shortest_gap(&self) -> Option<Duration> {
        let times: Vec<_> = self.to_token_endpoints().map(|call| call.at).collect();
        times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).min()
    }

    /// The refresh tokens that were presented more than once. Throttled calls are left aside, because a client knows
    /// that they spent nothing; a call that a fault answered or broke is counted, because it can't know.
    pub fn refreshed_twice(&self) -> Vec<Fingerprint> {
        let mut times: HashMap<&Fingerprint, usize> = HashMap::new();
        let refreshes = self.0.iter().filter(|call| call.endpoint == Endpoint::Refresh);
        for token in refreshes
            .filter(|call| call.outcome != Outcome::Throttled)
            .filter_map(|call| call.presented.as_ref())
        {
            *times.entry(token).or_default() += 1;
        }
        let mut twice: Vec<_> =
            times.into_iter().filter(|&(_, n)| n > 1).map(|(token, _)| token.clone()).collect();
        twice.sort();
        twice
    }

    /// The calls of `/wallet/` that came with a dead access token, or with none.
    pub fn with_dead_token(&self) -> impl Iterator<Item = &Call> {
        self.0.iter().filter(|call| call.outcome == Outcome::Unauthorized)
    }
}

impl Deref for Calls {
    type Target = [Call];

    fn deref(&self) -> &[Call] {
        &self.0
    }
}

impl IntoIterator for Calls {
    type Item = Call;
    type IntoIter = std::vec::IntoIter<Call>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// The record itself.
#[derive(Default)]
pub(crate) struct CallLog {
    kept: VecDeque<Call>,
    total: u64,
}

impl CallLog {
    /// Adds a call, gives it its number, and says how many there have been.
    pub(crate) fn add(&mut self, mut call: Call) -> u64 {
        self.total += 1;
        call.number = self.total;
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(call);
        self.total
    }

    /// The calls with numbers above `after`, as far as they are kept.
    pub(crate) fn after(&self, after: u64) -> Calls {
        let skipped = self.kept.partition_point(|call| call.number <= after);
        Calls(self.kept.iter().skip(skipped).cloned().collect())
    }

    /// The first kept call with a number above `after`.
    pub(crate) fn first_after(&self, after: u64) -> Option<Call> {
        self.kept.get(self.kept.partition_point(|call| call.number <= after)).cloned()
    }

    /// How many calls there have been.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Forgets the calls. Numbers go on where they were.
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(endpoint: Endpoint, second: u64) -> Call {
        Call {
            number: 0,
            at: Duration::from_secs(second),
            time: Timestamp::UNIX_EPOCH,
            client: ([127, 0, 0, 1], 1000).into(),
            endpoint,
            api: None,
            outcome: Outcome::Accepted,
            fault: None,
            status: Some(200),
            credential: None,
            presented: None,
            issued_access: None,
            issued_refresh: None,
            counted: true,
        }
    }

    fn recorded(calls: impl IntoIterator<Item = Call>) -> Calls {
        let mut log = CallLog::default();
        calls.into_iter().for_each(|call| {
            log.add(call);
        });
        log.after(0)
    }

    #[test]
    fn the_fullest_window_is_half_open_and_counts_token_calls_alone() {
        let calls = recorded([
            call(Endpoint::Login, 0),
            call(Endpoint::Refresh, 30),
            call(Endpoint::Wallet, 31),
            call(Endpoint::Login, 60),
            call(Endpoint::Login, 89),
        ]);
        assert_eq!(calls.max_in_any_window(Duration::from_secs(60)), 3);
        assert_eq!(calls.shortest_gap(), Some(Duration::from_secs(29)));
    }

    #[test]
    fn a_refresh_token_presented_twice_is_found() {
        let with =
            |token: &str| Call { presented: Some(Fingerprint::of(token)), ..call(Endpoint::Refresh, 1) };
        let calls = recorded([with("a"), with("b"), with("a")]);
        assert_eq!(calls.refreshed_twice(), [Fingerprint::of("a")]);
    }

    #[test]
    fn calls_after_a_number_leave_out_those_before() {
        let mut log = CallLog::default();
        (0..3).for_each(|second| {
            log.add(call(Endpoint::Ping, second));
        });
        assert_eq!(log.after(2).iter().map(|call| call.number).collect::<Vec<_>>(), [3]);
        assert_eq!(log.first_after(1).map(|call| call.number), Some(2));
        assert!(log.first_after(3).is_none());
    }
}
