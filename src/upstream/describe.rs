//! What went wrong on the wire, in a few words for a person.
//!
//! An HTTP client's errors are a chain of wrappers that say "error sending request for url (…)" and mean the last link.
//! Only that link is told. No URL is: whoever configures one may put into its path what nobody should read.

use std::{error::Error, io};

use rustls::CertificateError;

/// In a few words, what `error` comes of.
pub(super) fn in_words(error: &reqwest::Error) -> String {
    let mut by_proxy = false;
    let mut last: Option<&(dyn Error + 'static)> = None;
    let mut next = error.source();
    while let Some(link) = next {
        if let Some(tls) = link.downcast_ref::<rustls::Error>() {
            return through(by_proxy, tls_in_words(tls));
        }
        by_proxy |= link.to_string().starts_with("tunnel error");
        last = Some(link);
        next = source(link);
    }
    let words = last.map_or_else(|| "the request could not be made".to_owned(), ToString::to_string);
    if error.is_dns() {
        return through(by_proxy, format!("its name can't be resolved: {}", tidy(&words)));
    }
    through(by_proxy, tidy(&words))
}

/// `io::Error` does not count the error that it wraps as its source.
fn source<'e>(link: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match link.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => link.source(),
    }
}

fn through(by_proxy: bool, words: String) -> String {
    if by_proxy { format!("through the proxy: {words}") } else { words }
}

/// `Connection refused (os error 111)` → `connection refused`.
fn tidy(words: &str) -> String {
    let words = words.split(" (os error").next().unwrap_or(words);
    let words = words
        .trim_start_matches("tunnel error: ")
        .trim_start_matches("failed to lookup address information: ");
    let mut letters = words.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}

/// Comes of a handshake, or of setting TLS up.
fn tls_in_words(error: &rustls::Error) -> String {
    use CertificateError as Bad;
    let bad = match error {
        rustls::Error::InvalidCertificate(bad) => bad,
        rustls::Error::General(what) => return tidy(what),
        other => return format!("the TLS handshake failed: {}", tidy(&other.to_string())),
    };
    match bad {
        Bad::NotValidForNameContext { expected, .. } => {
            format!("its certificate is not valid for the name {}", expected.to_str())
        }
        // A bad signature is an authority that has a trusted one's name but not its key, such as the last one's successor.
        Bad::UnknownIssuer | Bad::BadSignature => {
            "its certificate is not from an authority that is trusted here: check upstream.ca_file".to_owned()
        }
        Bad::Expired | Bad::ExpiredContext { .. } => {
            "its certificate has expired, by this machine's clock".to_owned()
        }
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
            "its certificate is not valid yet, by this machine's clock".to_owned()
        }
        other => format!("its certificate is refused: {other}"),
    }
}
