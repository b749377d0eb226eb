//! What a certificate says: names and dates.

use jiff::Timestamp;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer,
    revocation_list::CertificateRevocationList,
    time::ASN1Time,
};

use crate::caller::{CertifiedName, NoName};

/// A URI by its tag in RFC 5280, section 4.2.1.6.
const URI: u32 = 6;
/// A DNS name by its tag.
const DNS: u32 = 2;

/// The one name that this certificate gives its holder. It must have been verified: nothing is asked here but what it says.
pub(crate) fn certified_name(certificate: &[u8]) -> Result<CertifiedName, NoName> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| NoName::Nothing)?;
    let (uris, dns_names) = alternative_names(&certificate);
    CertifiedName::of(&uris, &dns_names)
}

/// URIs and DNS names. One that can't be read counts, as a text that is no name: what is there twice is not there once.
fn alternative_names<'a>(certificate: &'a X509Certificate<'_>) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
    for extension in certificate.extensions() {
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::URI(uri) => uris.push(*uri),
                GeneralName::DNSName(name) => dns_names.push(*name),
                GeneralName::Invalid(tag, _) if tag.0 == URI => uris.push(""),
                GeneralName::Invalid(tag, _) if tag.0 == DNS => dns_names.push(""),
                _ => {}
            }
        }
    }
    (uris, dns_names)
}

/// What can be told of a certificate or a list of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Described {
    /// Alternative names, or else the subject; for a list, who issued it.
    pub(super) names: Vec<String>,
    pub(super) from: Timestamp,
    pub(super) until: Option<Timestamp>,
}

/// `None` if it can't be read.
pub(super) fn describe_certificate(certificate: &[u8]) -> Option<Described> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let (uris, dns_names) = alternative_names(&certificate);
    let mut names: Vec<_> = uris.into_iter().chain(dns_names).map(ToOwned::to_owned).collect();
    if names.is_empty() {
        names.push(certificate.subject().to_string());
    }
    let validity = certificate.validity();
    Some(Described { names, from: instant(validity.not_before)?, until: instant(validity.not_after) })
}

/// `None` if it can't be read.
pub(super) fn describe_list(list: &[u8]) -> Option<Described> {
    let (_, list) = CertificateRevocationList::from_der(list).ok()?;
    Some(Described {
        names: vec![list.issuer().to_string()],
        from: instant(list.last_update())?,
        until: list.next_update().and_then(instant),
    })
}

/// The names of an authority and of a list's issuer, as they are compared: byte by byte.
pub(super) fn subject(certificate: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.subject().as_raw().to_owned())
}

/// See [`subject`].
pub(super) fn issuer_of_list(list: &[u8]) -> Option<Vec<u8>> {
    let (_, list) = CertificateRevocationList::from_der(list).ok()?;
    Some(list.issuer().as_raw().to_owned())
}

/// When this certificate ends, if ever.
pub(super) fn end(certificate: &[u8]) -> Option<Timestamp> {
    describe_certificate(certificate)?.until
}

/// `None` for a time beyond all calendars, as in certificates that never end.
fn instant(time: ASN1Time) -> Option<Timestamp> {
    Timestamp::from_second(time.timestamp()).ok()
}
