//! Why a handshake failed, in words for the one who can put it right.

use std::io;

use rustls::{CertRevocationListError, CertificateError, Error, PeerIncompatible};

/// Why TLS gave up, from the error of a stream. It follows the peer's address.
pub(crate) fn in_words(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => of_tls(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it closed the connection half way".to_owned()
        }
        None => error.to_string(),
    }
}

pub(super) fn of_tls(error: &Error) -> String {
    let known = match error {
        Error::NoCertificatesPresented => "it shows no certificate",
        Error::InvalidCertificate(error) => return of_certificate(error),
        Error::InvalidCertRevocationList(
            CertRevocationListError::BadSignature
            | CertRevocationListError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. },
        ) => {
            "its certificate needs a list that is signed by the key of its authority, and listen.client_crl has only others"
        }
        Error::InvalidCertRevocationList(CertRevocationListError::IssuerInvalidForCrl) => {
            "the authority of its certificate may not sign lists of revoked ones (its key usage has no cRLSign)"
        }
        Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::Tls13RequiredForQuic,
        ) => "it speaks an older TLS than listen.min_tls allows",
        Error::NoApplicationProtocol => "it doesn't offer HTTP/2 (ALPN h2), which gRPC needs",
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => "it doesn't speak TLS",
        Error::AlertReceived(alert) => {
            return format!(
                "it refuses the broker ({alert:?}): look at its authorities, and at the broker's certificate"
            );
        }
        _ => return error.to_string(),
    };
    known.to_owned()
}

fn of_certificate(error: &CertificateError) -> String {
    use CertificateError as E;
    let known = match error {
        E::Expired | E::ExpiredContext { .. } => "its certificate has expired",
        E::NotValidYet | E::NotValidYetContext { .. } => "its certificate is not valid yet",
        E::Revoked => "its certificate is revoked",
        E::UnknownIssuer => "its certificate is of no authority in listen.client_ca",
        E::UnknownRevocationStatus => "listen.client_crl has no list of an authority of its certificate",
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => "its certificate is not for clients",
        E::BadSignature => {
            // Of an authority that was renewed under its old name, webpki doesn't say which it was.
            "its certificate was not signed by the authority that it names, or it doesn't hold its key, or listen.client_crl \
             has no list signed with that key"
        }
        _ => return format!("its certificate can't be accepted: {error}"),
    };
    known.to_owned()
}
