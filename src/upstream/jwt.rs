//! What a token says of its own lifetime, if it is a JWT. A hint: nobody checked its signature, so it may shorten what
//! other sources say and never lengthen or prove it.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use zeroize::Zeroizing;

/// By how many seconds the token's `exp` may differ from the answer's time: it is in whole seconds.
const TOLERANCE: u64 = 2;

#[derive(Deserialize)]
struct Claims {
    exp: i64,
    iat: i64,
}

/// `exp - iat` of a JWT that claims to end at `ends_at`; `None` for anything else.
pub(super) fn claimed_lifetime(token: &str, ends_at: Timestamp) -> Option<Duration> {
    let (_header, rest) = token.split_once('.')?;
    let (claims, _signature) = rest.split_once('.')?;
    let Claims { exp, iat } = serde_json::from_slice(&from_base64url(claims)?).ok()?;
    if exp.abs_diff(ends_at.as_second()) > TOLERANCE {
        return None;
    }
    exp.checked_sub(iat)?.try_into().ok().map(Duration::from_secs)
}

/// Base64 in the alphabet for URLs, without padding, as in a JWT.
fn from_base64url(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 4 * 3 + 2));
    for group in text.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for &letter in group {
            bits = bits << 6 | u32::from(sextet(letter)?);
        }
        let [_, first, second, third] = (bits << (6 * (4 - group.len()))).to_be_bytes();
        // One letter alone carries no byte, and `get` refuses it.
        bytes
            .extend_from_slice([first, second, third].get(..group.len().checked_sub(1).filter(|n| *n > 0)?)?);
    }
    Some(bytes)
}

const fn sextet(letter: u8) -> Option<u8> {
    match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // {"alg":"HS256"} . {"token_type":"access","iat":1609219631,"exp":1609220531,"jti":"ÿ?>~"} . nothing
    const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJ0b2tlbl90eXBlIjoiYWNjZXNzIiwiaWF0IjoxNjA5MjE5NjMxLCJleHAiOjE2MDkyMjA1MzEsImp0aSI6IsO_Pz5-In0.c2ln";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_jwt_that_agrees_with_the_answer_tells_its_lifetime() {
        for ends_at in [1_609_220_529, 1_609_220_531, 1_609_220_533] {
            assert_eq!(claimed_lifetime(JWT, at(ends_at)), Some(Duration::from_secs(900)));
        }
    }

    #[test]
    fn a_jwt_that_speaks_of_another_end_tells_nothing() {
        for ends_at in [1_609_220_528, 1_609_220_534, 0] {
            assert_eq!(claimed_lifetime(JWT, at(ends_at)), None);
        }
    }

    #[test]
    fn what_is_no_jwt_tells_nothing() {
        for token in ["", "opaque", "a.b", "..", "a..c", "a.e.c", "a.e30.c", "a.@@@@.c", "a.bm90IGpzb24.c"] {
            assert_eq!(claimed_lifetime(token, at(0)), None, "{token:?}");
        }
    }

    #[test]
    fn a_token_that_ended_before_it_was_made_tells_nothing() {
        // {"iat":9223372036854775807,"exp":-5} and {"iat":10,"exp":5}
        for (claims, exp) in
            [("eyJpYXQiOjkyMjMzNzIwMzY4NTQ3NzU4MDcsImV4cCI6LTV9", -5), ("eyJpYXQiOjEwLCJleHAiOjV9", 5)]
        {
            assert_eq!(claimed_lifetime(&format!("a.{claims}.c"), at(exp)), None);
        }
    }

    #[test]
    fn base64_of_every_length_is_read() {
        for (text, bytes) in
            [("", &b""[..]), ("Zg", b"f"), ("Zm8", b"fo"), ("Zm9v", b"foo"), ("Zm9vYg", b"foob")]
        {
            assert_eq!(from_base64url(text).unwrap().as_slice(), bytes);
        }
        for text in ["Z", "Zm9vY", "Zg==", "Zm 8"] {
            assert!(from_base64url(text).is_none(), "{text:?}");
        }
    }
}
