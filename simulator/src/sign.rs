//! The signs that B2BINPAY puts on token responses (v2) and on callbacks (v2 and v3).

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::fingerprint::hex;

/// The v2 key: the raw 32 bytes of SHA-256 over login and password, put together without a separator.
pub(crate) fn v2_key(login: &str, password: &str) -> [u8; 32] {
    Sha256::new().chain_update(login).chain_update(password).finalize().into()
}

/// HMAC-SHA256 of the parts put together without a separator, in lower-case hexadecimal digits.
pub(crate) fn sign(key: &[u8], parts: &[&str]) -> String {
    hex(&parts.iter().fold(mac(key), Mac::chain_update).finalize().into_bytes())
}

/// HMAC-SHA256 of one message, raw: what a JWT's third part is made of.
pub(crate) fn sign_raw(key: &[u8], message: &str) -> [u8; 32] {
    mac(key).chain_update(message).finalize().into_bytes().into()
}

/// A sign of the right form that is not the right one.
pub(crate) fn wrong(sign: &str) -> String {
    let first = if sign.starts_with('0') { '1' } else { '0' };
    std::iter::once(first).chain(sign.chars().skip(1)).collect()
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../tests/vectors/sign.json")).unwrap()
    }

    fn text<'v>(value: &'v Value, name: &str) -> &'v str {
        value[name].as_str().unwrap_or_else(|| panic!("{name} is missing in a vector"))
    }

    #[test]
    fn signs_agree_with_the_vectors() {
        let vectors = vectors();
        let v2 = v2_key(text(&vectors, "login"), text(&vectors, "password"));
        let v3 = text(&vectors, "callback_secret").as_bytes();
        let cases = vectors["cases"].as_array().unwrap();
        assert!(cases.len() > 5, "the vectors are all there");
        for case in cases {
            let key = if text(case, "key") == "v2" { &v2[..] } else { v3 };
            let computed = sign(key, &[text(case, "message")]);
            let valid = text(case, "verdict") == "VALID";
            assert_eq!(computed == text(case, "sign"), valid, "{}", text(case, "name"));
        }
    }
}
