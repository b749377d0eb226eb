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

/// What tells whose list is whose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct AuthorityFacts {
    /// Its subject, for people.
    pub(super) name: String,
    subject: Vec<u8>,
    key: Option<Vec<u8>>,
}

/// `None` if it can't be read.
pub(super) fn authority(certificate: &[u8]) -> Option<AuthorityFacts> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let key = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(key) => Some(key.0.to_owned()),
        _ => None,
    });
    let subject = certificate.subject();
    Some(AuthorityFacts { name: subject.to_string(), subject: subject.as_raw().to_owned(), key })
}

/// What tells a list of revoked certificates from another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ListFacts {
    /// The issuer's name, as it is compared: byte by byte.
    pub(super) issuer: Vec<u8>,
    /// The key that signed it (RFC 5280, section 5.2.1), where it says so.
    pub(super) key: Option<Vec<u8>>,
    /// Which of the issuer's certificates it is about (section 5.2.5). `None`: all.
    scope: Option<Vec<u8>>,
    written: Timestamp,
    /// Its number (section 5.2.3), without leading zeros.
    number: Vec<u8>,
}

impl ListFacts {
    /// The greater, the newer.
    pub(super) fn age_order(&self) -> impl Ord {
        (self.written, self.number.len(), self.number.clone())
    }

    /// Whether it takes the place of `older`: the same key signed both, for the same certificates. Where a list doesn't say
    /// which key that was, nothing is taken for granted.
    pub(super) fn replaces(&self, older: &Self) -> bool {
        self.key.is_some()
            && (&self.issuer, &self.key, &self.scope) == (&older.issuer, &older.key, &older.scope)
    }

    /// Whether this authority may have signed it.
    pub(super) fn may_be_of(&self, authority: &AuthorityFacts) -> bool {
        let same_key = self.key.as_ref().zip(authority.key.as_ref()).is_none_or(|(a, b)| a == b);
        self.issuer == authority.subject && same_key
    }
}

/// `None` if it can't be read.
pub(super) fn list_facts(list: &[u8]) -> Option<ListFacts> {
    let (_, list) = CertificateRevocationList::from_der(list).ok()?;
    let (mut key, mut scope) = (None, None);
    for extension in list.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(authority) => {
                key = authority.key_identifier.as_ref().map(|key| key.0.to_owned());
            }
            ParsedExtension::IssuingDistributionPoint(_) => scope = Some(extension.value.to_owned()),
            _ => {}
        }
    }
    Some(ListFacts {
        issuer: list.issuer().as_raw().to_owned(),
        key,
        scope,
        written: instant(list.last_update())?,
        number: list.crl_number().map(x509_parser::num_bigint::BigUint::to_bytes_be).unwrap_or_default(),
    })
}

/// When this certificate ends, if ever.
pub(super) fn end(certificate: &[u8]) -> Option<Timestamp> {
    describe_certificate(certificate)?.until
}

/// `None` for a time beyond all calendars, as in certificates that never end.
fn instant(time: ASN1Time) -> Option<Timestamp> {
    Timestamp::from_second(time.timestamp()).ok()
}
