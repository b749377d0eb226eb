//! How a certificate is looked up in the lists, where an authority has several.
//!
//! rustls looks for a list by its issuer's name, takes the first, and refuses the certificate if that one isn't signed by
//! the issuer's key. So lists come newest first; and where a name has several keys, as when an authority was renewed under its
//! old name, or lists that nobody is known to have signed, these have their turn at the front ([`EachInTurn`]).

use std::{collections::BTreeMap, sync::Arc};

use rustls::{
    CertRevocationListError, CertificateError, DigitallySignedStruct, DistinguishedName, Error,
    RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{files::FileFault, lists::List, names::AuthorityFacts};
use crate::config::{NamedFile, Warning};

/// In so many orders are lists tried at most: two turns for each of four names.
const MOST_ORDERS: usize = 16;

/// Who shows no certificate is refused. With lists, each certificate below the authorities is looked up, and one that can't
/// be is refused: a list that was forgotten must not be the way in. One past its next update still holds: that its
/// successor is late must not turn every caller away. `lists` come newest first.
///
/// Where there are too many orders, some are left out: that refuses callers, and lets in none.
pub(super) fn client_verifier(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    lists: &[List],
) -> Result<Arc<dyn ClientCertVerifier>, FileFault> {
    let build = |lists: Vec<&List>| {
        let lists = lists.into_iter().map(|list| list.der.clone());
        WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider))
            .with_crls(lists)
            .build()
            .map_err(|error| match error {
                VerifierBuilderError::InvalidCrl(_) => FileFault::BadList,
                _ => FileFault::Nothing("certificate", "CERTIFICATE"),
            })
    };
    let mut each = orders(lists).into_iter().map(build).collect::<Result<Vec<_>, _>>()?;
    let first = each.remove(0);
    Ok(if each.is_empty() { first } else { Arc::new(EachInTurn { first, others: each }) })
}

/// Whether there are more orders of these than are tried.
pub(super) fn too_many(lists: &[List]) -> bool {
    let orders = turns(lists).values().try_fold(1_usize, |orders, turns| orders.checked_mul(turns.len()));
    orders.is_none_or(|orders| orders > MOST_ORDERS)
}

/// Lists that have their turn at the front together.
type Turn<'a> = Vec<&'a List>;

/// The turns of each name: the lists that one authority is known to have signed; and of those that may be anybody's, the
/// newest for each scope, then the second newest, and so on.
fn turns(lists: &[List]) -> BTreeMap<&[u8], Vec<Turn<'_>>> {
    let mut names: BTreeMap<&[u8], [Vec<Turn<'_>>; 2]> = BTreeMap::new();
    for list in lists {
        let [proved, others] = names.entry(&list.facts.issuer).or_default();
        let is_proved = list.signer.is_some();
        let turns = if is_proved { proved } else { others };
        let takes_it = |turn: &&mut Turn<'_>| {
            let same_scope = |other: &&List| other.facts.scope == list.facts.scope;
            if is_proved { turn[0].signer == list.signer } else { !turn.iter().any(same_scope) }
        };
        match turns.iter_mut().find(takes_it) {
            Some(turn) => turn.push(list),
            None => turns.push(vec![list]),
        }
    }
    names.into_iter().map(|(name, turns)| (name, turns.concat())).collect()
}

/// The orders in which lists are tried: in each, of each name another turn is in front.
fn orders(lists: &[List]) -> Vec<Vec<&List>> {
    let mut orders = vec![Vec::new()];
    for turns in turns(lists).values() {
        let with_each_in_front = |order: Vec<_>| {
            (0..turns.len()).map(move |front| {
                let others = turns.iter().enumerate().filter(move |(place, _)| *place != front);
                let lists = std::iter::once(&turns[front]).chain(others.map(|(_, lists)| lists));
                order.iter().copied().chain(lists.flatten().copied()).collect()
            })
        };
        orders = orders.into_iter().flat_map(with_each_in_front).take(MOST_ORDERS).collect();
    }
    orders
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
    let has_one = |authority: &&AuthorityFacts| {
        lists.iter().any(|list| {
            list.facts.issuer == authority.subject && list.signer.as_ref() == Some(&authority.key)
        })
    };
    let without = authorities.iter().filter(|one| !has_one(one));
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
