//! What of the upstream's own words may stand in our errors, and so in logs.
//!
//! An error body can repeat what it was sent, and what it was sent is secret. So its words are repeated only if they are
//! short, printable, and have nothing in common with any secret of the call, nor anything that looks like a token.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use crate::secret::{ExposeSecret, SecretString};

/// In characters.
const LONGEST_TEXT: usize = 200;

/// In characters. Tokens, hashes and keys are words longer than this; those of languages are not.
const LONGEST_WORD: usize = 40;

/// So many characters in common with a secret are no chance.
const IN_COMMON: usize = 8;

/// The text, if it can be shown.
pub(super) fn quotable<'t>(text: &'t str, secrets: &[&SecretString]) -> Option<&'t str> {
    let text = text.trim();
    let is_printable = |c: char| c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric();
    let shown = !text.is_empty()
        && text.chars().count() <= LONGEST_TEXT
        && text.chars().all(is_printable)
        && text.split(' ').all(|word| word.chars().count() <= LONGEST_WORD)
        && !secrets.iter().any(|secret| gives_away(text, secret.expose_secret()));
    shown.then_some(text)
}

/// Whether a piece of the secret stands in the text, as it is or as JSON or a URL would write it, in any case.
fn gives_away(text: &str, secret: &str) -> bool {
    let text = Zeroizing::new(text.to_ascii_lowercase());
    [Zeroizing::new(secret.to_ascii_lowercase()), as_in_json(secret), as_in_a_url(secret)].iter().any(
        |form| {
            let piece = form.len().min(IN_COMMON);
            // An empty secret has no pieces and gives nothing away.
            piece > 0
                && form
                    .as_bytes()
                    .windows(piece)
                    .any(|piece| text.as_bytes().windows(piece.len()).any(|part| part == piece))
        },
    )
}

fn as_in_json(secret: &str) -> Zeroizing<String> {
    let quoted = Zeroizing::new(serde_json::to_string(secret).unwrap_or_default());
    Zeroizing::new(quoted.trim_matches('"').to_ascii_lowercase())
}

fn as_in_a_url(secret: &str) -> Zeroizing<String> {
    let mut escaped = Zeroizing::new(String::with_capacity(3 * secret.len()));
    for byte in secret.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte.to_ascii_lowercase()));
        } else {
            // Writing to a String can't fail.
            let _ = write!(escaped, "%{byte:02x}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, secret: &str) -> bool {
        quotable(text, &[&SecretString::from("another"), &SecretString::from(secret)]).is_some()
    }

    #[test]
    fn a_plain_sentence_is_repeated() {
        for text in [
            "No active account found with the given credentials",
            "Request was throttled. Expected available in 37 seconds.",
            "Учётная запись не найдена",
        ] {
            assert_eq!(quotable(&format!(" {text} "), &[]), Some(text));
        }
    }

    #[test]
    fn what_is_long_or_unprintable_or_looks_like_a_token_is_not() {
        assert!(!shown("", "x"));
        assert!(!shown(&"long ".repeat(41), "x"));
        assert!(!shown("two\nlines", "x"));
        assert!(!shown("\x1b[31mred", "x"));
        assert!(!shown("right\u{202e}to left", "x"));
        assert!(!shown("token eyJhbGciOiJIUzI1NiJ9.eyJpYXQiOjEwLCJleHAiOjV9.c2ln is wrong", "x"));
    }

    #[test]
    fn a_secret_is_recognised_however_it_is_written() {
        let secret = r#"pä "ss/w\ord"#;
        for text in [
            r#"wrong: pä "ss/w\ord"#,
            r#"wrong: PÄ "SS/W\ORD"#.to_lowercase().as_str(),
            r#"wrong: pä \"ss/w\\ord"#,
            "wrong: p%C3%A4%20%22ss%2Fw%5Cord",
            "wrong: p%c3%a4%20%22ss%2fw%5cord",
        ] {
            assert!(!shown(text, secret), "{text}");
        }
        assert!(shown("wrong: password", secret));
    }

    #[test]
    fn a_piece_of_a_secret_is_recognised() {
        assert!(!shown("the key that begins with abcdefgh", "abcdefghijklmnop"));
        assert!(!shown("the key ...IJKLMNOP", "abcdefghijklmnop"));
        assert!(shown("the key that begins with abcdefg", "abcdefghijklmnop"));
    }

    #[test]
    fn a_short_secret_is_recognised_whole_and_an_empty_one_hides_nothing() {
        assert!(!shown("no such user: bob", "bob"));
        assert!(shown("no such user: alice", "bob"));
        assert!(shown("no such user: alice", ""));
    }
}
