//! What can be made to go wrong, on demand.
//!
//! A fault waits for the calls of its target and strikes a number of times. Some kinds stand in for the server: the
//! call is not processed, nothing is spent and nothing counts against the limit, unless the fault asks for the call
//! to be processed first (an answer that was lost behind a proxy looks like that). Others spoil the answer of a call
//! that was processed. [`FaultKind`] says which is which.

mod queue;
mod read;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::duration;
use crate::log::Endpoint;
use crate::settings::Generation;

pub(crate) use queue::FaultQueue;

/// Which calls a fault waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// `POST /token/`
    Login,
    /// `POST /token/refresh/`
    Refresh,
    /// Both token endpoints.
    #[default]
    Token,
    /// `GET /wallet/`
    Wallet,
    /// `GET /ping`
    Ping,
    /// Every call of the API.
    Any,
}

impl Target {
    fn covers(self, endpoint: Endpoint) -> bool {
        match self {
            Self::Login => endpoint == Endpoint::Login,
            Self::Refresh => endpoint == Endpoint::Refresh,
            Self::Token => endpoint.is_token(),
            Self::Wallet => endpoint == Endpoint::Wallet,
            Self::Ping => endpoint == Endpoint::Ping,
            Self::Any => true,
        }
    }
}

/// One error of a JSON:API error body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ErrorItem {
    /// The error's code; absent from the body when `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The error's text for a person.
    pub detail: String,
}

/// Characters that have no place in a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadCharacters {
    /// A line break, with which a careless client can be made to send a header of someone else's choice.
    #[default]
    Newline,
    /// A character outside ASCII.
    NonAscii,
}

/// Lifetimes that can't be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BadLifetime {
    /// Expired an hour before it was issued.
    #[default]
    Past,
    /// Expires the moment it is issued.
    Zero,
    /// Expired a second before it was issued.
    Negative,
    /// Expires in ten years.
    TenYears,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum FaultKind {
    /// An HTTP status with a JSON:API error body. Stands in for the server.
    Status {
        /// The status, 200 to 599.
        status: u16,
        /// The errors of the body; none leaves a body with an empty list.
        #[serde(default)]
        errors: Vec<ErrorItem>,
        /// Seconds for a `Retry-After` header.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// An HTTP status with an HTML page, as a proxy in front answers. Stands in for the server.
    Html {
        /// The status, 200 to 599. 502 unless told otherwise.
        #[serde(default = "bad_gateway")]
        status: u16,
    },
    /// 200 without a body. Stands in for the server.
    Empty,
    /// The call is taken and never answered; the connection stays open. Stands in for the server.
    Hang,
    /// The connection is reset (a real TCP RST) before the call is processed. Stands in for the server.
    ResetBefore,
    /// The call is processed (a token is issued, a refresh token is spent), then the connection is reset (a real TCP
    /// RST) instead of the answer.
    ResetAfter,
    /// A redirect to another place, 307 unless told otherwise. Stands in for the server.
    Redirect {
        /// Where to.
        location: String,
        /// The status. 307 and 308 ask for the body to be sent again.
        #[serde(default = "temporary_redirect")]
        status: u16,
    },
    /// 200 with a JSON body that goes on for many MiB. Stands in for the server.
    HugeBody {
        /// How many MiB. 64 unless told otherwise.
        #[serde(default = "many_mebibytes")]
        mebibytes: u32,
    },
    /// 200 with a body that breaks off as JSON, though all that was announced is sent. Stands in for the server.
    BadJson,
    /// The right answer, a few bytes at a time. The call is processed.
    SlowBody {
        /// The pause before each few bytes. 200 ms unless told otherwise.
        #[serde(default = "a_moment", with = "duration::plain")]
        pause: Duration,
    },
    /// Half of the right answer, then the connection closes. The call is processed.
    TruncatedBody,
    /// A v2 login whose sign is wrong. The call is processed. Other calls carry no sign and are not struck.
    WrongSign,
    /// A token answer without the access token. The call is processed.
    MissingToken,
    /// A token answer whose access token has characters that don't belong in a header. The call is processed.
    BadTokenChars {
        /// Which characters.
        #[serde(default)]
        characters: BadCharacters,
    },
    /// A token answer with an impossible expiry. The call is processed; the token itself lives as usual.
    ImpossibleLifetime {
        /// Which lifetime.
        #[serde(default)]
        lifetime: BadLifetime,
    },
    /// The right answer, late. The call is processed at once, so a client that gave up has spent its token.
    LateAnswer {
        /// How late.
        #[serde(with = "duration::plain")]
        by: Duration,
    },
    /// Nothing goes wrong; for a fault's delay alone.
    Pass,
    /// By chance, one of several kinds.
    Flaky {
        /// How likely each call is struck, from 0 to 1.
        probability: f64,
        /// Where the chance begins: the same seed strikes the same calls.
        #[serde(default)]
        seed: u64,
        /// What strikes, each equally likely.
        kinds: Vec<FaultKind>,
    },
}

fn bad_gateway() -> u16 {
    502
}

fn temporary_redirect() -> u16 {
    307
}

fn many_mebibytes() -> u32 {
    64
}

fn a_moment() -> Duration {
    Duration::from_millis(200)
}

impl FaultKind {
    /// An HTTP status with one error.
    pub fn status(status: u16, code: Option<&str>, detail: &str) -> Self {
        let error = ErrorItem { code: code.map(str::to_owned), detail: detail.to_owned() };
        Self::Status { status, errors: vec![error], retry_after: None }
    }

    /// The name by which the control API and the record of calls know it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Html { .. } => "html",
            Self::Empty => "empty",
            Self::Hang => "hang",
            Self::ResetBefore => "reset_before",
            Self::ResetAfter => "reset_after",
            Self::Redirect { .. } => "redirect",
            Self::HugeBody { .. } => "huge_body",
            Self::BadJson => "bad_json",
            Self::SlowBody { .. } => "slow_body",
            Self::TruncatedBody => "truncated_body",
            Self::WrongSign => "wrong_sign",
            Self::MissingToken => "missing_token",
            Self::BadTokenChars { .. } => "bad_token_chars",
            Self::ImpossibleLifetime { .. } => "impossible_lifetime",
            Self::LateAnswer { .. } => "late_answer",
            Self::Pass => "pass",
            Self::Flaky { .. } => "flaky",
        }
    }

    /// Whether it stands in for the server, so that the call is not processed unless the fault asks for it.
    fn stands_in(&self) -> bool {
        match self {
            Self::Status { .. }
            | Self::Html { .. }
            | Self::Empty
            | Self::Hang
            | Self::ResetBefore
            | Self::Redirect { .. }
            | Self::HugeBody { .. }
            | Self::BadJson => true,
            Self::ResetAfter
            | Self::SlowBody { .. }
            | Self::TruncatedBody
            | Self::WrongSign
            | Self::MissingToken
            | Self::BadTokenChars { .. }
            | Self::ImpossibleLifetime { .. }
            | Self::LateAnswer { .. }
            | Self::Pass
            | Self::Flaky { .. } => false,
        }
    }

    fn fits(&self, endpoint: Endpoint, generation: Option<Generation>) -> bool {
        match self {
            Self::WrongSign => endpoint == Endpoint::Login && generation == Some(Generation::V2),
            Self::MissingToken | Self::BadTokenChars { .. } | Self::ImpossibleLifetime { .. } => {
                endpoint.is_token()
            }
            _ => true,
        }
    }

    fn check(&self) -> Result<(), String> {
        match self {
            Self::Status { status, .. } | Self::Html { status } if !(200..600).contains(status) => {
                Err(format!("status {status} can't be sent; choose one from 200 to 599"))
            }
            Self::Redirect { status, .. } if !(300..400).contains(status) => {
                Err(format!("status {status} is no redirect; choose one from 300 to 399"))
            }
            Self::Redirect { location, .. } if http::HeaderValue::from_str(location).is_err() => {
                Err("location has characters that can't stand in a header".to_owned())
            }
            Self::Flaky { probability, .. } if !(0.0..=1.0).contains(probability) => {
                Err(format!("probability {probability} is not between 0 and 1"))
            }
            Self::Flaky { kinds, .. } if kinds.is_empty() => {
                Err("flaky needs at least one of kinds".to_owned())
            }
            Self::Flaky { kinds, .. } => kinds.iter().try_for_each(|kind| match kind {
                Self::Flaky { .. } => Err("flaky can't hold another flaky".to_owned()),
                kind => kind.check(),
            }),
            _ => Ok(()),
        }
    }
}

/// A fault to inject: what goes wrong, for which calls, how often.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fault {
    /// What goes wrong.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// Which calls it waits for.
    pub target: Target,
    /// How many calls it strikes. `None`: until it is cleared.
    pub times: Option<u32>,
    /// How long the call stays on its way before it arrives: it is recorded, judged and answered after that.
    #[serde(serialize_with = "duration::plain::serialize")]
    pub delay: Duration,
    /// For kinds that stand in for the server: the call is processed first all the same.
    pub processed: bool,
}

impl Fault {
    /// A fault that strikes the next call of either token endpoint, once and without a delay.
    pub fn new(kind: FaultKind) -> Self {
        Self { kind, target: Target::Token, times: Some(1), delay: Duration::ZERO, processed: false }
    }

    /// Strikes calls of `target` instead.
    #[must_use]
    pub fn on(self, target: Target) -> Self {
        Self { target, ..self }
    }

    /// Strikes `times` calls instead of one.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// Strikes every call until it is cleared.
    #[must_use]
    pub fn until_cleared(self) -> Self {
        Self { times: None, ..self }
    }

    /// Lets the call arrive only after `delay`.
    #[must_use]
    pub fn delayed(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Lets the call be processed first, also where the kind stands in for the server.
    #[must_use]
    pub fn processed(self) -> Self {
        Self { processed: true, ..self }
    }

    /// Says what about the fault can't be.
    pub fn check(&self) -> Result<(), String> {
        if self.times == Some(0) {
            return Err("times is 0, which would never strike; leave it out for once, or write null for until cleared"
                .to_owned());
        }
        self.kind.check()
    }
}
