//! Tokens: what the upstream gives, and how it is named without being shown.

use std::{fmt, str::FromStr, time::Duration};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::{
    clock::BootInstant,
    secret::{ExposeSecret, SecretString},
};

/// Lifetimes that are believed. What lies outside is a mistake of the upstream's, and the answer that carries it is
/// not used.
pub const BELIEVABLE_LIFETIME: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(5)..=Duration::from_secs(7 * 24 * 3600);

/// The first 8 bytes of the SHA-256 of an access token, shown as 16 hex digits: safe in logs, equal for equal
/// tokens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; 8]);

impl TokenId {
    fn of(token: &str) -> Self {
        let mut id = [0; 8];
        id.copy_from_slice(&Sha256::digest(token.as_bytes())[..8]);
        Self(id)
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is no token id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a token id is 16 lower-case hex digits")]
pub struct NotATokenId;

impl FromStr for TokenId {
    type Err = NotATokenId;

    fn from_str(text: &str) -> Result<Self, NotATokenId> {
        let plain = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = u64::from_str_radix(text, 16).map_err(|_| NotATokenId)?;
        if plain { Ok(Self(number.to_be_bytes())) } else { Err(NotATokenId) }
    }
}

/// Why a text can't be used as a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnusableToken {
    /// Nothing there.
    #[error("the token is empty")]
    Empty,
    /// Longer than any header may be expected to carry.
    #[error("the token is longer than {} bytes", AccessToken::LONGEST)]
    TooLong,
    /// A line break in a header value would let the upstream write the callers' headers.
    #[error("the token has characters that don't belong in an HTTP header")]
    NotAHeaderValue,
}

/// A token that is fit for an `Authorization` header.
#[derive(Clone, Debug)]
pub struct AccessToken {
    secret: SecretString,
    id: TokenId,
}

impl AccessToken {
    /// The longest token that is accepted, in bytes. Servers refuse headers of 8 KiB and more.
    pub const LONGEST: usize = 7 * 1024;

    /// Takes a token that the upstream gave, if its characters are those of RFC 6750's `b68token`.
    pub fn parse(secret: SecretString) -> Result<Self, UnusableToken> {
        let text = secret.expose_secret();
        if text.is_empty() {
            return Err(UnusableToken::Empty);
        }
        if text.len() > Self::LONGEST {
            return Err(UnusableToken::TooLong);
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b)) {
            return Err(UnusableToken::NotAHeaderValue);
        }
        let id = TokenId::of(text);
        Ok(Self { secret, id })
    }

    /// What it is called in public.
    pub const fn id(&self) -> TokenId {
        self.id
    }

    /// The token itself.
    pub fn secret(&self) -> &SecretString {
        &self.secret
    }
}

/// Two readings of the same moment: on our clock and on the upstream's. The upstream read its own clock *after* ours
/// was read, so a time of the upstream's that is converted with it comes out too early, never too late.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServerClock {
    /// Our clock, before the request was sent.
    pub boot: BootInstant,
    /// The upstream's clock, when it received the request.
    pub server: Timestamp,
}

impl ServerClock {
    /// When the upstream's clock will show `time`, on ours; early rather than late. `None` for a time before the
    /// reading.
    pub fn boot_at(&self, time: Timestamp) -> Option<BootInstant> {
        let ahead = Duration::try_from(time.duration_since(self.server)).ok()?;
        Some(self.boot + ahead)
    }
}

/// v2's means of getting the next access token without the credentials. It works once.
#[derive(Clone, Debug)]
pub struct RefreshToken {
    /// The token itself.
    pub secret: SecretString,
    /// When the upstream stops accepting it.
    pub expires_at: BootInstant,
    /// The upstream's clock, as read at the login that began this chain of refreshes: the answer to a refresh says
    /// when its token ends but not what time it is.
    pub server_clock: ServerClock,
}

/// What a successful call to the upstream gave.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The access token.
    pub access: AccessToken,
    /// The instant before the request was sent. The token's lifetime is counted from here, so that the error is on the
    /// safe side.
    pub asked_at: BootInstant,
    /// How long the token lives from `asked_at` on. Within [`BELIEVABLE_LIFETIME`].
    pub lifetime: Duration,
    /// What it takes to get the next one. v3 gives none.
    pub refresh: Option<RefreshToken>,
}

impl Grant {
    /// When the access token ends.
    pub fn expires_at(&self) -> BootInstant {
        self.asked_at + self.lifetime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_id_is_the_first_sixteen_digits_of_sha_256() {
        let token = AccessToken::parse("abc".to_owned().into()).unwrap();
        assert_eq!(token.id().to_string(), "ba7816bf8f01cfea");
        assert_eq!("ba7816bf8f01cfea".parse(), Ok(token.id()));
    }

    #[test]
    fn what_is_no_token_id_is_refused() {
        for text in [
            "",
            "ba7816bf8f01cfe",
            "ba7816bf8f01cfea0",
            "BA7816BF8F01CFEA",
            "+a7816bf8f01cfea",
            "zz7816bf8f01cfea",
        ] {
            assert_eq!(text.parse::<TokenId>(), Err(NotATokenId), "{text:?}");
        }
    }

    #[test]
    fn a_token_that_would_break_a_header_is_refused() {
        let parse = |text: &str| AccessToken::parse(text.to_owned().into()).map(|_| ());
        assert_eq!(parse("eyJ0.a-b_c~d+e/f=="), Ok(()));
        assert_eq!(parse(""), Err(UnusableToken::Empty));
        for text in ["a b", "a\r\nX: y", "a\0", "tök", "a\"", "a,b"] {
            assert_eq!(parse(text), Err(UnusableToken::NotAHeaderValue), "{text:?}");
        }
        assert_eq!(parse(&"x".repeat(AccessToken::LONGEST + 1)), Err(UnusableToken::TooLong));
    }

    #[test]
    fn no_token_shows_in_debug() {
        let token = AccessToken::parse("very-secret".to_owned().into()).unwrap();
        assert!(!format!("{token:?}").contains("very-secret"));
    }
}
