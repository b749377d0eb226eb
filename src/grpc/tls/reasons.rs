//! Why a handshake failed, in words for the one who can put it right.

use std::io;

use rustls::{CertRevocationListError, CertificateError, Error, PeerIncompatible};

/// Why a peer is not believed, or did not get that far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reason {
    /// For programs: `docs/audit.md` has them all.
    pub(crate) word: &'static str,
    /// For people. It follows the peer's address.
    pub(crate) why: String,
}

impl Reason {
    pub(crate) fn new(word: &'static str, why: impl Into<String>) -> Self {
        Self { word, why: why.into() }
    }
}

/// Why TLS gave up, from the error of a stream.
pub(crate) fn in_words(error: &io::Error) -> Reason {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => of_tls(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            Reason::new("CONNECTION_LOST", "it closed the connection half way")
        }
        None => Reason::new("CONNECTION_LOST", error.to_string()),
    }
}

pub(super) fn of_tls(error: &Error) -> Reason {
    match error {
        Error::NoCertificatesPresented => Reason::new("NO_CERTIFICATE", "it shows no certificate"),
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::InvalidCertRevocationList(
            CertRevocationListError::BadSignature
            | CertRevocationListError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. },
        ) => Reason::new(
            "REVOCATION_UNKNOWN",
            "its certificate needs a list that is signed by the key of its authority, and listen.client_crl has only others",
        ),
        Error::InvalidCertRevocationList(CertRevocationListError::IssuerInvalidForCrl) => Reason::new(
            "REVOCATION_UNKNOWN",
            "the authority of its certificate may not sign lists of revoked ones (its key usage has no cRLSign)",
        ),
        Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::Tls13RequiredForQuic,
        ) => Reason::new("TLS_INCOMPATIBLE", "it speaks an older TLS than listen.min_tls allows"),
        Error::NoApplicationProtocol => {
            Reason::new("TLS_INCOMPATIBLE", "it doesn't offer HTTP/2 (ALPN h2), which gRPC needs")
        }
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => {
            Reason::new("NOT_TLS", "it doesn't speak TLS")
        }
        Error::AlertReceived(alert) => Reason::new(
            "BROKER_REFUSED",
            format!(
                "it refuses the broker ({alert:?}): look at its authorities, and at the broker's certificate"
            ),
        ),
        _ => Reason::new("TLS_FAILED", error.to_string()),
    }
}

fn of_certificate(error: &CertificateError) -> Reason {
    use CertificateError as E;
    let (word, why) = match error {
        E::Expired | E::ExpiredContext { .. } => ("CERTIFICATE_EXPIRED", "its certificate has expired"),
        E::NotValidYet | E::NotValidYetContext { .. } => {
            ("CERTIFICATE_NOT_VALID_YET", "its certificate is not valid yet")
        }
        E::Revoked => ("CERTIFICATE_REVOKED", "its certificate is revoked"),
        E::UnknownIssuer => {
            ("CERTIFICATE_UNTRUSTED", "its certificate is of no authority in listen.client_ca")
        }
        E::UnknownRevocationStatus => {
            ("REVOCATION_UNKNOWN", "listen.client_crl has no list of an authority of its certificate")
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            ("CERTIFICATE_NOT_FOR_CLIENTS", "its certificate is not for clients")
        }
        E::BadSignature => (
            "CERTIFICATE_UNTRUSTED",
            // Of an authority that was renewed under its old name, webpki doesn't say which it was.
            "its certificate was not signed by the authority that it names, or it doesn't hold its key, or listen.client_crl \
             has no list signed with that key",
        ),
        _ => {
            let why = format!("its certificate can't be accepted: {error}");
            return Reason::new("CERTIFICATE_INVALID", why);
        }
    };
    Reason::new(word, why)
}
