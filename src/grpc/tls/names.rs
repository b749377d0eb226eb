//! What a certificate or a list says: names and dates; and whether an authority signed it.

use std::cmp::Ordering;

use jiff::Timestamp;
use rustls::crypto::WebPkiSupportedAlgorithms;
use x509_parser::{
    asn1_rs::Any,
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    num_bigint::BigUint,
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
    /// And as it is compared: byte by byte.
    pub(super) subject: Vec<u8>,
    /// Its key, with what it is for, in DER.
    pub(super) key: Vec<u8>,
}

/// `None` if it can't be read.
pub(super) fn authority(certificate: &[u8]) -> Option<AuthorityFacts> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    Some(AuthorityFacts {
        name: subject.to_string(),
        subject: subject.as_raw().to_owned(),
        key: certificate.public_key().raw.to_owned(),
    })
}

/// What tells a list of revoked certificates from another. All of it is what the list says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ListFacts {
    /// The issuer's name, as it is compared: byte by byte.
    pub(super) issuer: Vec<u8>,
    /// The key that signed it (RFC 5280, section 5.2.1), where it says so.
    pub(super) key: Option<Vec<u8>>,
    /// Which of the issuer's certificates it is about (section 5.2.5). `None`: all.
    pub(super) scope: Option<Vec<u8>>,
    written: Timestamp,
    /// Its number (section 5.2.3), which grows with each list of an authority's key.
    pub(super) number: Option<BigUint>,
}

impl ListFacts {
    /// Whether it is the newer of two that the same key signed. Its number says so; the date is that of some clock.
    pub(super) fn is_newer_than(&self, other: &Self) -> bool {
        let by_number =
            self.number.as_ref().zip(other.number.as_ref()).map(|(ours, theirs)| ours.cmp(theirs));
        by_number.unwrap_or(Ordering::Equal).then(self.written.cmp(&other.written)).is_gt()
    }

    pub(super) fn same_issuer_and_scope(&self, other: &Self) -> bool {
        (&self.issuer, &self.scope) == (&other.issuer, &other.scope)
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
        number: list.crl_number().cloned(),
    })
}

/// What was signed, with what, and the signature.
pub(super) struct SignedBytes<'a> {
    message: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> SignedBytes<'a> {
    /// The three parts of a certificate or a list (RFC 5280, sections 4.1 and 5.1). `None` if they can't be read.
    pub(super) fn of(signed: &'a [u8]) -> Option<Self> {
        let (_, signed) = Any::from_der(signed).ok()?;
        let (rest, _) = Any::from_der(signed.data).ok()?;
        let message = signed.data.get(..signed.data.len() - rest.len())?;
        let (rest, algorithm) = Any::from_der(rest).ok()?;
        let (_, signature) = Any::from_der(rest).ok()?;
        Some(Self { message, algorithm: algorithm.data, signature: bits(signature.data)? })
    }

    /// Whether this authority's key signed it, by an algorithm that TLS takes too.
    pub(super) fn are_of(&self, authority: &AuthorityFacts, algorithms: &WebPkiSupportedAlgorithms) -> bool {
        let key = || {
            let (_, info) = Any::from_der(&authority.key).ok()?;
            let (rest, algorithm) = Any::from_der(info.data).ok()?;
            let (_, key) = Any::from_der(rest).ok()?;
            Some((algorithm.data, bits(key.data)?))
        };
        key().is_some_and(|(kind, key)| {
            algorithms.all.iter().any(|one| {
                one.signature_alg_id().as_ref() == self.algorithm
                    && one.public_key_alg_id().as_ref() == kind
                    && one.verify_signature(key, self.message, self.signature).is_ok()
            })
        })
    }
}

/// Those of a BIT STRING of whole bytes: the first tells how many bits of the last are none.
fn bits(content: &[u8]) -> Option<&[u8]> {
    content.split_first().filter(|(unused, _)| **unused == 0).map(|(_, bits)| bits)
}

/// When this certificate ends, if ever.
pub(super) fn end(certificate: &[u8]) -> Option<Timestamp> {
    describe_certificate(certificate)?.until
}

/// `None` for a time beyond all calendars, as in certificates that never end.
fn instant(time: ASN1Time) -> Option<Timestamp> {
    Timestamp::from_second(time.timestamp()).ok()
}
