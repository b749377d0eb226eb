//! Keys and signs.

use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize as _;

use crate::{
    credentials::{ApiVersion, Credentials},
    secret::ExposeSecret as _,
};

/// An HMAC-SHA256 key, as the state that a computation under it begins with: the key itself is not kept.
///
/// The state is overwritten when it is freed; it sits in a box so that moving the key leaves no copy behind.
pub struct SignKey {
    start: Box<Hmac<Sha256>>,
}

impl SignKey {
    /// The key that B2BINPAY signs with for these credentials. `None` for v3 without a callback secret; an empty one is
    /// none, since everybody knows it.
    pub fn of(credentials: &Credentials) -> Option<Self> {
        match credentials.api {
            ApiVersion::V2 => Some(Self::in_the_manner_of_v2(credentials)),
            ApiVersion::V3 => {
                let secret = credentials.callback_secret.as_ref()?.expose_secret();
                (!secret.is_empty()).then(|| Self::new(secret.as_bytes()))
            }
        }
    }

    /// SHA-256 of the API key and the API secret, the raw digest: what v2 would sign with.
    fn in_the_manner_of_v2(credentials: &Credentials) -> Self {
        let mut digest: [u8; 32] = Sha256::new()
            .chain_update(credentials.key.expose_secret())
            .chain_update(credentials.secret.expose_secret())
            .finalize()
            .into();
        let key = Self::new(&digest);
        digest.zeroize();
        key
    }

    #[expect(
        clippy::expect_used,
        reason = "HMAC takes keys of any length, and says so in its own documentation"
    )]
    fn new(key: &[u8]) -> Self {
        Self { start: Box::new(Hmac::new_from_slice(key).expect("HMAC takes keys of any length")) }
    }

    /// Whether `sign` is that of the message that the parts make when put together. In constant time.
    pub fn verifies(&self, parts: &[&[u8]], sign: &Sign) -> bool {
        let mut mac = Hmac::clone(&self.start);
        for part in parts {
            mac.update(part);
        }
        mac.verify_slice(&sign.0).is_ok()
    }

    /// Whether an answer of v2's `/token/` is signed under this key: `time` is its `meta.time`, `refresh` its refresh
    /// token, `sign` its `meta.sign`, each as written. Says nothing about whether `time` is one.
    pub fn signs_token_response(&self, time: &str, refresh: &str, sign: &str) -> bool {
        Sign::parse(sign).is_ok_and(|sign| self.verifies(&[time.as_bytes(), refresh.as_bytes()], &sign))
    }
}

/// A sign that somebody claims to be right.
#[derive(Clone, Copy)]
pub struct Sign([u8; 32]);

impl Sign {
    /// Reads 64 hex digits of either case.
    pub fn parse(text: &str) -> Result<Self, NotASign> {
        if text.is_empty() {
            return Err(NotASign::Empty);
        }
        let mut bytes = [0; 32];
        if !text.is_ascii() {
            return Err(NotASign::NotHex);
        }
        if text.len() != 2 * bytes.len() {
            return Err(NotASign::WrongLength(text.len()));
        }
        let (pairs, _) = text.as_bytes().as_chunks::<2>();
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Self(bytes))
    }
}

fn digit(byte: u8) -> Result<u8, NotASign> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err(NotASign::NotHex),
    }
}

/// Why a text can't be the sign of anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotASign {
    /// Nothing there.
    #[error("the sign is empty")]
    Empty,
    /// Cut short, or more than a sign.
    #[error("the sign has {0} characters where 64 hex digits belong")]
    WrongLength(usize),
    /// As long as a sign, but not one.
    #[error("the sign has characters that are not hex digits")]
    NotHex,
}

/// The keys that signs are accepted under.
///
/// Clones share the keys, and a key leaves memory with the last of them: who holds one for long asks for
/// [`SignKeys::without_expired`] when [`SignKeys::previous_until`] has come. Until then an expired key is in memory but
/// no longer in force.
#[derive(Clone)]
pub struct SignKeys {
    api: ApiVersion,
    current: Option<Arc<SignKey>>,
    /// The key that v2 would use with v3's credentials: to tell one mistake from a forgery, never to accept a sign.
    near_miss: Option<Arc<SignKey>>,
    previous: Option<Previous>,
}

#[derive(Clone)]
struct Previous {
    api: ApiVersion,
    until: Timestamp,
    key: Arc<SignKey>,
}

impl SignKeys {
    /// The keys of the credentials in force and of those before them, which count until the time that stands with
    /// them.
    pub fn new(current: &Credentials, previous: Option<(&Credentials, Timestamp)>) -> Self {
        let near_miss = match current.api {
            ApiVersion::V2 => None,
            ApiVersion::V3 => Some(Arc::new(SignKey::in_the_manner_of_v2(current))),
        };
        let previous = previous.and_then(|(credentials, until)| {
            let key = Arc::new(SignKey::of(credentials)?);
            Some(Previous { api: credentials.api, until, key })
        });
        Self { api: current.api, current: SignKey::of(current).map(Arc::new), near_miss, previous }
    }

    /// The API of the credentials in force.
    pub const fn api(&self) -> ApiVersion {
        self.api
    }

    /// When the previous key stops counting, if there is one.
    pub fn previous_until(&self) -> Option<Timestamp> {
        self.previous.as_ref().map(|previous| previous.until)
    }

    /// The same without the previous key, if its time is over.
    #[must_use]
    pub fn without_expired(mut self, now: Timestamp) -> Self {
        self.previous.take_if(|previous| previous.until <= now);
        self
    }

    pub(super) fn current(&self) -> Option<&SignKey> {
        self.current.as_deref()
    }

    /// The previous key, its API and its end, if it counts at `now`.
    pub(super) fn previous(&self, now: Timestamp) -> Option<(&SignKey, ApiVersion, Timestamp)> {
        self.previous
            .as_ref()
            .filter(|previous| now < previous.until)
            .map(|previous| (&*previous.key, previous.api, previous.until))
    }

    pub(super) fn near_miss(&self) -> Option<&SignKey> {
        self.near_miss.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::tests::support::{hex_sign, v2, v3};

    #[test]
    fn a_v2_key_is_the_raw_digest_of_login_and_password() {
        let key = SignKey::of(&v2()).unwrap();
        let sign = "62ca91697d5d6832576abb38810ab0c9e072b6de56e5a73b043412c87545ef44";
        assert!(key.signs_token_response(
            "2020-08-24T10:33:33.192479Z",
            "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUz",
            sign
        ));
        assert!(!key.signs_token_response(
            "2020-08-24T10:33:33.192479Z",
            "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUy",
            sign
        ));
        assert!(!key.signs_token_response(
            "2020-08-24T10:33:33.192478Z",
            "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUz",
            sign
        ));
    }

    #[test]
    fn a_v3_key_is_the_callback_secret_and_nothing_else() {
        let key = SignKey::of(&v3()).unwrap();
        assert!(key.verifies(&[b"a", b"", b"bc"], &Sign::parse(&hex_sign(b"cbs_4f1d2c9e", b"abc")).unwrap()));
        for secret in [None, Some(String::new().into())] {
            assert!(SignKey::of(&Credentials { callback_secret: secret, ..v3() }).is_none());
        }
    }

    #[test]
    fn a_sign_is_64_hex_digits_of_either_case() {
        let sign = "8AB24426e0aebad7d11d34d843cc6942f800d943877273f08066edbc5b269d2b";
        assert!(Sign::parse(sign).is_ok());
        let cases = [
            (String::new(), NotASign::Empty),
            (sign[..63].to_owned(), NotASign::WrongLength(63)),
            (format!("{sign}0"), NotASign::WrongLength(65)),
            (format!("0x{}", &sign[..62]), NotASign::NotHex),
            (format!(" {}", &sign[..63]), NotASign::NotHex),
            (format!("+{}", &sign[..63]), NotASign::NotHex),
            ("g".repeat(64), NotASign::NotHex),
            ("é".repeat(32), NotASign::NotHex),
            ("é".repeat(64), NotASign::NotHex),
        ];
        for (text, expected) in cases {
            assert_eq!(Sign::parse(&text).err(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn a_previous_key_counts_until_its_end_and_can_be_dropped_then() {
        let until: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
        let just_before = "2026-11-30T23:59:59.999999999Z".parse().unwrap();
        let keys = SignKeys::new(&v3(), Some((&v2(), until)));
        assert!(keys.previous(just_before).is_some());
        assert!(keys.previous(until).is_none());

        let keys = keys.without_expired(just_before);
        assert_eq!(keys.previous_until(), Some(until));
        let key = Arc::downgrade(&keys.previous.as_ref().unwrap().key);
        let keys = keys.without_expired(until);
        assert_eq!(keys.previous_until(), None);
        assert!(key.upgrade().is_none(), "the key is gone from memory");
    }

    #[test]
    fn the_state_of_a_key_is_overwritten_when_it_is_freed() {
        fn is_overwritten<T: zeroize::ZeroizeOnDrop>() {}
        // An HMAC state is two of these. Compiles only with the `zeroize` features.
        is_overwritten::<Sha256>();
    }
}
