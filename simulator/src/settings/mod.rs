//! How the simulated server behaves when nothing is made to go wrong. All of it can change while it runs.

mod patch;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use jiff::tz::Offset;
use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;

pub(crate) use patch::SettingsPatch;

/// The API key that the simulator accepts unless told otherwise. Fake by construction.
pub const DEMO_KEY: &str = "demo-api-key";
/// The API secret that belongs to [`DEMO_KEY`].
pub const DEMO_SECRET: &str = "demo-api-secret";
/// The callback secret with which v3 callbacks are signed unless told otherwise.
pub const DEMO_CALLBACK_SECRET: &str = "demo-callback-secret";

/// Which generations of the API are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Api {
    /// `login` and `password`, with refresh tokens.
    V2,
    /// `client_id` and `client_secret`, without refresh tokens.
    V3,
    /// Both on one port, told apart by the names in the request.
    #[default]
    Both,
}

impl Api {
    /// Whether calls of this generation are answered.
    pub fn serves(self, generation: Generation) -> bool {
        match self {
            Self::V2 => generation == Generation::V2,
            Self::V3 => generation == Generation::V3,
            Self::Both => true,
        }
    }
}

impl FromStr for Api {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "v2" => Ok(Self::V2),
            "v3" => Ok(Self::V3),
            "both" => Ok(Self::Both),
            other => Err(format!("'{other}' is no API; write v2, v3 or both")),
        }
    }
}

/// One generation of the API: that of a call, or the one whose key signs a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generation {
    /// Version 2.
    V2,
    /// Version 3.
    V3,
}

/// The API credentials that are accepted.
///
/// Its `Debug` shows fingerprints: nothing keeps a person from putting real ones here.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The API key: v2 calls it `login`, v3 `client_id`.
    pub key: String,
    /// The API secret: v2 calls it `password`, v3 `client_secret`.
    pub secret: String,
}

impl Credentials {
    /// Credentials of these two parts.
    pub fn new(key: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { key: key.into(), secret: secret.into() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("key", &Fingerprint::of(&self.key))
            .field("secret", &Fingerprint::of(&self.secret))
            .finish()
    }
}

/// The limit of calls that are made without an access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many calls are let in, in any window. The real server lets in 15.
    pub calls: usize,
    /// How long the window is. The real server's is 60 s.
    pub window: Duration,
}

/// What a throttled answer says in `Retry-After`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfter {
    /// A whole number of seconds, as the real server does.
    #[default]
    Seconds,
    /// A date, as a proxy in front may make of it.
    HttpDate,
    /// Nothing.
    Absent,
}

/// The offset in which a time is written: `Z`, or `±hh:mm`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UtcOffset(pub(crate) Option<Offset>);

impl UtcOffset {
    /// Written as `Z`.
    pub const Z: Self = Self(None);
}

impl FromStr for UtcOffset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "Z" {
            return Ok(Self::Z);
        }
        let refused = || format!("'{text}' is no offset; write Z or something like +03:00");
        let (sign, rest) = match text.as_bytes() {
            [b'+', ..] => (1, &text[1..]),
            [b'-', ..] => (-1, &text[1..]),
            _ => return Err(refused()),
        };
        let (hours, minutes) = rest.split_once(':').ok_or_else(refused)?;
        let part = |digits: &str, below: i32| {
            let two_digits = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.parse::<i32>().ok().filter(|number| two_digits && *number < below);
            number.ok_or_else(refused)
        };
        let seconds = sign * (part(hours, 24)? * 3600 + part(minutes, 60)? * 60);
        Offset::from_seconds(seconds).map(|offset| Self(Some(offset))).map_err(|_| refused())
    }
}

impl fmt::Display for UtcOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(offset) = self.0 else { return f.write_str("Z") };
        let (sign, seconds) =
            if offset.seconds() < 0 { ('-', -offset.seconds()) } else { ('+', offset.seconds()) };
        write!(f, "{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60)
    }
}

/// The forms in which the published samples differ from each other: a client has to read them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forms {
    /// The offset of `access_expired_at`; every other time is written with `Z`.
    pub expiry_offset: UtcOffset,
    /// `id` is `null` instead of `"0"`.
    pub null_id: bool,
    /// The answer to a refresh has `type`, `id` and `attributes` at the top level instead of inside `data`.
    pub refresh_at_top_level: bool,
    /// Times have microseconds. Without them they are cut down to the second.
    pub fraction: bool,
}

impl Default for Forms {
    fn default() -> Self {
        Self { expiry_offset: UtcOffset::Z, null_id: false, refresh_at_top_level: false, fraction: true }
    }
}

/// Everything about the simulated server that can be chosen. Change it while it runs with `Simulator::set`.
#[derive(Clone)]
pub struct Settings {
    /// The generations that are served; a call of the other one is answered 400.
    pub api: Api,
    /// The credentials that are accepted. When they change, the old ones stop working at that moment.
    pub credentials: Credentials,
    /// The secret that signs v3 callbacks.
    pub callback_secret: String,
    /// How long an access token lives. `None`: 900 s in v2, 3599 s in v3, as the published samples show.
    /// v3 publishes it in whole seconds, rounded down.
    pub access_lifetime: Option<Duration>,
    /// How long a refresh token lives.
    pub refresh_lifetime: Duration,
    /// What the server's clock shows more (or, negative, less) than the clock the simulator runs on.
    pub clock_offset: SignedDuration,
    /// The limit of calls to the token endpoints, per client address.
    pub limit: Limit,
    /// How a throttled answer says when to come again.
    pub retry_after: RetryAfter,
    /// The account's list of addresses; others get 403. `None`: no list, everyone may call.
    pub allowed_addresses: Option<Vec<IpAddr>>,
    /// Refresh tokens given under other credentials than the present ones are refused.
    pub rotation_ends_refresh: bool,
    /// The forms of the answers.
    pub forms: Forms,
    /// Callbacks may be sent to any host, not only to a loopback address.
    pub callbacks_anywhere: bool,
}

impl Settings {
    /// How long an access token of this generation lives.
    pub fn access_lifetime_of(&self, generation: Generation) -> Duration {
        self.access_lifetime.unwrap_or(match generation {
            Generation::V2 => Duration::from_secs(900),
            Generation::V3 => Duration::from_secs(3599),
        })
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            api: Api::Both,
            credentials: Credentials::new(DEMO_KEY, DEMO_SECRET),
            callback_secret: DEMO_CALLBACK_SECRET.to_owned(),
            access_lifetime: None,
            refresh_lifetime: Duration::from_secs(6 * 3600),
            clock_offset: SignedDuration::ZERO,
            limit: Limit { calls: 15, window: Duration::from_secs(60) },
            retry_after: RetryAfter::Seconds,
            allowed_addresses: None,
            rotation_ends_refresh: true,
            forms: Forms::default(),
            callbacks_anywhere: false,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_json(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_secret() {
        let shown = format!("{:?} {:?}", Settings::default(), Settings::default().credentials);
        assert!(!shown.contains(DEMO_SECRET) && !shown.contains(DEMO_CALLBACK_SECRET), "{shown}");
    }

    #[test]
    fn offsets_are_read_and_written_alike() {
        for text in ["Z", "+03:00", "-09:30", "+00:00"] {
            assert_eq!(text.parse::<UtcOffset>().unwrap().to_string(), text);
        }
        for text in ["", "3", "+3:00", "+03", "+99:00", "+03:60", "++3:00"] {
            assert!(text.parse::<UtcOffset>().is_err(), "{text}");
        }
    }
}
