//! The tokens that were issued, and what became of them.
//!
//! They look like the real ones (JWTs signed with HS256), but their truth is in this store: a token lives until the
//! server's clock passes its expiry, or until it is revoked or spent.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::fingerprint::{Fingerprint, hex};
use crate::settings::Credentials;
use crate::sign;

/// Past this many tokens the expired ones are forgotten.
const MANY: usize = 10_000;

/// A token just made.
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) expires: Timestamp,
}

struct Access {
    expires: Timestamp,
    revoked: bool,
}

struct Refresh {
    expires: Timestamp,
    spent: bool,
    /// The credentials it was given under.
    owner: Fingerprint,
}

pub(crate) struct TokenStore {
    key: [u8; 32],
    access: HashMap<String, Access>,
    refresh: HashMap<String, Refresh>,
}

impl Default for TokenStore {
    fn default() -> Self {
        Self {
            key: std::array::from_fn(|_| fastrand::u8(..)),
            access: HashMap::new(),
            refresh: HashMap::new(),
        }
    }
}

impl TokenStore {
    pub(crate) fn issue_access(&mut self, now: Timestamp, lifetime: Duration) -> Issued {
        let issued = self.make("access", now, lifetime);
        if self.access.len() >= MANY {
            self.access.retain(|_, access| now < access.expires);
        }
        self.access.insert(issued.token.clone(), Access { expires: issued.expires, revoked: false });
        issued
    }

    pub(crate) fn issue_refresh(
        &mut self,
        now: Timestamp,
        lifetime: Duration,
        owner: &Credentials,
    ) -> Issued {
        let issued = self.make("refresh", now, lifetime);
        if self.refresh.len() >= MANY {
            self.refresh.retain(|_, refresh| now < refresh.expires);
        }
        let record = Refresh { expires: issued.expires, spent: false, owner: owner_of(owner) };
        self.refresh.insert(issued.token.clone(), record);
        issued
    }

    fn make(&self, token_type: &str, now: Timestamp, lifetime: Duration) -> Issued {
        let expires = now.checked_add(lifetime).unwrap_or(Timestamp::MAX);
        // Whole seconds, as JWTs have them; rounded up, so that a short lifetime doesn't become none.
        let whole = lifetime.as_secs() + u64::from(lifetime.subsec_nanos() > 0);
        let id: [u8; 16] = std::array::from_fn(|_| fastrand::u8(..));
        let claims = json!({
            "token_type": token_type,
            "iat": now.as_second(),
            "exp": now.as_second().saturating_add_unsigned(whole),
            "jti": hex(&id),
        });
        let unsigned = format!(
            "{}.{}",
            base64url(br#"{"typ":"JWT","alg":"HS256"}"#),
            base64url(claims.to_string().as_bytes())
        );
        let signature = base64url(&sign::sign_raw(&self.key, &unsigned));
        Issued { token: format!("{unsigned}.{signature}"), expires }
    }

    /// Whether an access token would be accepted now.
    pub(crate) fn is_live(&self, token: &str, now: Timestamp) -> bool {
        self.access.get(token).is_some_and(|access| !access.revoked && now < access.expires)
    }

    /// When an access token expires by the server's clock, if it was issued here.
    pub(crate) fn expires_at(&self, token: &str) -> Option<Timestamp> {
        self.access.get(token).map(|access| access.expires)
    }

    /// Whether a refresh token would be accepted now. `owner`: only if it was given under these credentials.
    pub(crate) fn can_refresh(&self, token: &str, now: Timestamp, owner: Option<&Credentials>) -> bool {
        self.refresh.get(token).is_some_and(|refresh| {
            !refresh.spent
                && now < refresh.expires
                && owner.is_none_or(|owner| owner_of(owner) == refresh.owner)
        })
    }

    pub(crate) fn spend(&mut self, token: &str) {
        if let Some(refresh) = self.refresh.get_mut(token) {
            refresh.spent = true;
        }
    }

    /// Spends every refresh token, as a thief would who used each of them. Says how many were still good.
    pub(crate) fn spend_all(&mut self, now: Timestamp) -> usize {
        let good = self.refresh.values_mut().filter(|refresh| !refresh.spent && now < refresh.expires);
        good.map(|refresh| refresh.spent = true).count()
    }

    /// Revokes every access token. Says how many were live.
    pub(crate) fn revoke_all(&mut self, now: Timestamp) -> usize {
        let live = self.access.values_mut().filter(|access| !access.revoked && now < access.expires);
        live.map(|access| access.revoked = true).count()
    }
}

/// One fingerprint for both parts, kept apart so that moving characters between them makes another.
fn owner_of(credentials: &Credentials) -> Fingerprint {
    Fingerprint::of(&format!("{}\0{}", credentials.key, credentials.secret))
}

/// Base64 for URLs, without padding (RFC 4648, section 5).
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn base64url_agrees_with_the_rfc() {
        for (plain, encoded) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64url(plain.as_bytes()), encoded);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn an_access_token_lives_until_its_expiry_and_not_at_it() {
        let mut store = TokenStore::default();
        let issued = store.issue_access(at(0), MINUTE);
        assert!(store.is_live(&issued.token, at(59)));
        assert!(!store.is_live(&issued.token, at(60)));
        assert!(!store.is_live("another", at(0)));
        assert_eq!(store.revoke_all(at(1)), 1);
        assert!(!store.is_live(&issued.token, at(1)));
    }

    #[test]
    fn a_refresh_token_is_good_until_spent_expired_or_under_other_credentials() {
        let mut store = TokenStore::default();
        let (ours, theirs) = (Credentials::new("ab", "c"), Credentials::new("a", "bc"));
        let issued = store.issue_refresh(at(0), MINUTE, &ours);
        assert!(store.can_refresh(&issued.token, at(1), Some(&ours)));
        assert!(!store.can_refresh(&issued.token, at(1), Some(&theirs)));
        assert!(store.can_refresh(&issued.token, at(1), None));
        assert!(!store.can_refresh(&issued.token, at(60), None));
        store.spend(&issued.token);
        assert!(!store.can_refresh(&issued.token, at(1), None));
        assert_eq!(store.spend_all(at(1)), 0, "none was left");
    }
}
