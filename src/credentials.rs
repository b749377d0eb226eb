//! A B2BINPAY credential set.

use std::fmt;

use crate::secret::SecretString;

/// Which generation of B2BINPAY's API.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApiVersion {
    /// Short access tokens with single-use refresh tokens; signs under the credentials themselves.
    V2,
    /// Access tokens alone; callbacks signed under a secret of their own.
    V3,
}

impl ApiVersion {
    /// `v2` or `v3`, as in the configuration and in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V3 => "v3",
        }
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a company was given once by B2BINPAY, and must not lose or show.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The API that they are for.
    pub api: ApiVersion,
    /// The API key: v2's `login`, v3's `client_id`.
    pub key: SecretString,
    /// The API secret: v2's `password`, v3's `client_secret`.
    pub secret: SecretString,
    /// What v3 signs callbacks with. v2 has none; a v3 set without one can't verify callbacks.
    pub callback_secret: Option<SecretString>,
}
