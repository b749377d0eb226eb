//! Which list of revoked certificates counts, where an authority has several: the newest that its key signed.
//!
//! rustls looks for a list by its issuer's name, takes the first, and refuses the certificate if that one isn't signed by
//! the issuer's key. So lists come newest first; those that a newer one of the same key replaces are left out; and where a
//! name has several keys, as when an authority was renewed under its old name, each key's lists have their turn at the front
//! ([`EachInTurn`]).

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use rustls::{
    CertRevocationListError, CertificateError, DigitallySignedStruct, DistinguishedName, Error,
    RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime},
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{
    files::FileFault,
    names::{AuthorityFacts, Described, ListFacts},
};
use crate::config::{NamedFile, Warning};

/// In so many orders are lists tried at most: two keys for each of four names.
const MOST_ORDERS: usize = 16;

/// A list, and where it was found.
#[derive(Clone)]
pub(super) struct List {
    pub(super) der: CertificateRevocationListDer<'static>,
    pub(super) path: PathBuf,
    pub(super) described: Described,
    pub(super) facts: ListFacts,
}

/// Puts the newest first and takes out those that are replaced by a newer one of the same key for the same certificates;
/// these are warned of.
pub(super) fn newest(mut lists: Vec<List>, file: Option<&NamedFile>) -> (Vec<List>, Vec<Warning>) {
    lists.sort_by(|a, b| b.facts.age_order().cmp(&a.facts.age_order()));
    let mut kept: Vec<List> = Vec::new();
    let mut warnings = Vec::new();
    for list in lists {
        match kept.iter().find(|newer| newer.facts.replaces(&list.facts)) {
            None => kept.push(list),
            Some(newer) => warnings.push(Warning {
                position: file.map(|file| file.position),
                message: format!(
                    "listen.client_crl ({}): the list of {} from {} does not count: {} has one of the same authority from {}; \
                     remove the older",
                    list.path.display(),
                    list.described.names.join(", "),
                    list.described.from,
                    newer.path.display(),
                    newer.described.from,
                ),
            }),
        }
    }
    (kept, warnings)
}

/// Who shows no certificate is refused. With lists, each certificate below the authorities is looked up, and one that can't
/// be is refused: a list that was forgotten must not be the way in. One past its next update still holds: that its
/// successor is late must not turn every caller away. `lists` come newest first.
pub(super) fn client_verifier(
    provider: &Arc<CryptoProvider>,
    roots: RootCertStore,
    lists: &[List],
) -> Result<Arc<dyn ClientCertVerifier>, FileFault> {
    let roots = Arc::new(roots);
    let build = |lists: Vec<&List>| {
        let lists = lists.into_iter().map(|list| list.der.clone());
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider))
            .with_crls(lists)
            .build()
            .map_err(|error| match error {
                VerifierBuilderError::InvalidCrl(_) => FileFault::BadList,
                _ => FileFault::Nothing("certificate", "CERTIFICATE"),
            })
    };
    let mut each = orders(lists)?.into_iter().map(build).collect::<Result<Vec<_>, _>>()?;
    let first = each.remove(0);
    Ok(if each.is_empty() { first } else { Arc::new(EachInTurn { first, others: each }) })
}

/// The orders in which lists are tried: in the first the newest of each name is in front, and so on.
fn orders(lists: &[List]) -> Result<Vec<Vec<&List>>, FileFault> {
    // A list that doesn't say whose key signed it may be anybody's of its name.
    let mut names: BTreeMap<&[u8], Vec<Vec<&List>>> = BTreeMap::new();
    for list in lists {
        let keys = names.entry(&list.facts.issuer).or_default();
        let same_key =
            |others: &&mut Vec<&List>| list.facts.key.is_some() && others[0].facts.key == list.facts.key;
        match keys.iter_mut().find(same_key) {
            Some(others) => others.push(list),
            None => keys.push(vec![list]),
        }
    }
    let mut orders = vec![Vec::new()];
    for keys in names.values() {
        if orders.len() * keys.len() > MOST_ORDERS {
            return Err(FileFault::TooManyLists);
        }
        let with_each_in_front = |order: Vec<_>| {
            (0..keys.len()).map(move |front| {
                let others = keys.iter().enumerate().filter(move |(place, _)| *place != front);
                let lists = std::iter::once(&keys[front]).chain(others.map(|(_, lists)| lists));
                order.iter().copied().chain(lists.flatten().copied()).collect()
            })
        };
        orders = orders.into_iter().flat_map(with_each_in_front).collect();
    }
    Ok(orders)
}

/// Tries the lists in one order after the other, as long as the one in front turns out to be another key's. What is found
/// once the keys fit is final: then the newest lists of those very keys were looked at.
#[derive(Debug)]
struct EachInTurn {
    first: Arc<dyn ClientCertVerifier>,
    others: Vec<Arc<dyn ClientCertVerifier>>,
}

/// Whether a signature is not of the key that it was looked at with. A revoked certificate is never told so: where one path
/// finds it revoked and another finds a wrong key, webpki tells of the former.
const fn of_another_key(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertRevocationList(
            CertRevocationListError::BadSignature
                | CertRevocationListError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
        ) | Error::InvalidCertificate(
            CertificateError::BadSignature
                | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
        )
    )
}

impl ClientCertVerifier for EachInTurn {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.first.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let mut verified = self.first.verify_client_cert(end_entity, intermediates, now);
        for other in &self.others {
            if !verified.as_ref().is_err_and(of_another_key) {
                break;
            }
            verified = other.verify_client_cert(end_entity, intermediates, now);
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.first.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.first.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.first.supported_verify_schemes()
    }
}

/// Warns of authorities whose clients are all refused, because there is no list of theirs.
pub(super) fn without_list(
    file: &NamedFile,
    authorities: &[AuthorityFacts],
    lists: &[List],
) -> Option<Warning> {
    let without = authorities.iter().filter(|one| !lists.iter().any(|list| list.facts.may_be_of(one)));
    let without: Vec<_> = without.map(|one| one.name.as_str()).collect();
    (!lists.is_empty() && !without.is_empty()).then(|| Warning {
        position: Some(file.position),
        message: format!(
            "{} ({}): listen.client_crl has no list of {} of the authorities, {}: callers whose certificates those signed \
             are refused; one that was renewed under its old name with another key needs a list signed by that",
            file.key,
            file.path.display(),
            without.len(),
            without.join(" and "),
        ),
    })
}
