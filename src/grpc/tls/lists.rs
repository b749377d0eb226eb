//! Lists of revoked certificates: whose each is, and which takes the place of which.
//!
//! A list's file may be anybody's work: it is fetched over plain HTTP, from a mirror that may lag behind. So a list takes the
//! place of another only where the same authority in `client_ca` signed both and it is the newer, on the disk as well as of what
//! is in force. Those of authorities further down can't be proved here, since their certificates come with their callers: all
//! of them are kept, and looked at in turn.

use std::path::PathBuf;

use rustls::{crypto::WebPkiSupportedAlgorithms, pki_types::CertificateRevocationListDer};

use super::{
    CertificateFacts, CertificateRole,
    names::{AuthorityFacts, Described, ListFacts, SignedBytes},
};
use crate::config::{TlsFiles, Warning};

/// A list, and where it was found.
#[derive(Clone)]
pub(super) struct List {
    pub(super) der: CertificateRevocationListDer<'static>,
    pub(super) path: PathBuf,
    pub(super) described: Described,
    pub(super) facts: ListFacts,
    /// The key of the authority that is known to have signed it, as its certificate has it.
    pub(super) signer: Option<Vec<u8>>,
}

impl List {
    /// Looks for the authority that signed it.
    pub(super) fn prove(&mut self, authorities: &[AuthorityFacts], algorithms: &WebPkiSupportedAlgorithms) {
        let mut of_that_name = authorities.iter().filter(|one| one.subject == self.facts.issuer);
        let signer = SignedBytes::of(&self.der)
            .and_then(|signed| of_that_name.find(|one| signed.are_of(one, algorithms)));
        self.signer = signer.map(|authority| authority.key.clone());
    }

    /// What is told of it like of certificates.
    pub(super) fn certificate_facts(&self) -> CertificateFacts {
        CertificateFacts {
            role: CertificateRole::RevocationList,
            path: self.path.clone(),
            names: self.described.names.clone(),
            not_before: self.described.from,
            not_after: self.described.until,
        }
    }

    /// Whether the same key signed both, for the same certificates: by proof, or else as far as they say.
    fn stands_for_the_same(&self, other: &Self) -> bool {
        self.facts.same_issuer_and_scope(&other.facts)
            && self.signer == other.signer
            && (self.signer.is_some() || self.facts.key == other.facts.key)
    }

    /// What tells its age.
    fn age(&self) -> String {
        match &self.facts.number {
            Some(number) => format!("{} (number {number})", self.described.from),
            None => self.described.from.to_string(),
        }
    }

    fn warning(&self, files: &TlsFiles, what: &str) -> Warning {
        Warning {
            position: files.client_crls.first().map(|file| file.position),
            message: format!(
                "listen.client_crl ({}): the list of {} from {} {what}",
                self.path.display(),
                self.described.names.join(", "),
                self.age(),
            ),
        }
    }
}

/// Puts the newest first and takes out those that a newer one replaces; these are warned of, and so are those that bear an
/// authority's name and not its signature.
pub(super) fn newest(
    lists: Vec<List>,
    files: &TlsFiles,
    authorities: &[AuthorityFacts],
) -> (Vec<List>, Vec<Warning>) {
    let mut kept: Vec<List> = Vec::new();
    let mut warnings = Vec::new();
    for mut list in lists {
        if list.signer.is_none() {
            if authorities.iter().any(|authority| list.facts.issuer == authority.subject) {
                warnings.push(list.warning(
                    files,
                    "was signed by no authority of that name in listen.client_ca: it is forged, or of a key that is no longer in \
                     use, and replaces no other list; remove it, and find out where it came from",
                ));
            }
            kept.push(list);
            continue;
        }
        let Some(rival) = kept.iter_mut().find(|other| other.stands_for_the_same(&list)) else {
            kept.push(list);
            continue;
        };
        if list.facts.is_newer_than(&rival.facts) {
            std::mem::swap(rival, &mut list);
        }
        let what = format!(
            "does not count: {} has one of the same authority from {}; remove the older",
            rival.path.display(),
            rival.age()
        );
        warnings.push(list.warning(files, &what));
    }
    newest_first(&mut kept);
    (kept, warnings)
}

/// Adds those lists in force that go on counting, since what was read is older, or has them no more though their file is still
/// named. Each is warned of.
///
/// A list whose authority is gone, or whose file the configuration names no more, is the operator's decision.
pub(super) fn keep_newer(
    in_force: &[List],
    read: &[List],
    files: &TlsFiles,
    authorities: &[AuthorityFacts],
    algorithms: &WebPkiSupportedAlgorithms,
) -> (Vec<List>, Vec<Warning>) {
    let mut lists = read.to_vec();
    let mut warnings = Vec::new();
    for before in in_force {
        let mut list = before.clone();
        list.prove(authorities, algorithms);
        if before.signer.is_some() && list.signer.is_none() {
            continue;
        }
        let same = || read.iter().filter(|one| one.stands_for_the_same(&list));
        if same().any(|one| !list.facts.is_newer_than(&one.facts)) {
            continue;
        }
        if let Some(older) = same().next() {
            let what = format!(
                "is older than the one in force, from {}, which goes on counting: put that or a newer one in its place, and find \
                 out why the older was put there; a restart would take it",
                list.age()
            );
            warnings.push(older.warning(files, &what));
        } else if list.signer.is_some() && files.client_crls.iter().any(|file| file.path == list.path) {
            warnings.push(list.warning(
                files,
                "goes on counting, though its file no longer has it: put it or a newer one back; a restart would forget it",
            ));
        } else {
            continue;
        }
        if list.signer.is_some() {
            lists.retain(|one| !one.stands_for_the_same(&list));
        }
        lists.push(list);
    }
    newest_first(&mut lists);
    (lists, warnings)
}

fn newest_first(lists: &mut [List]) {
    lists.sort_by(|a, b| {
        let order = (b.described.from).cmp(&a.described.from);
        order.then_with(|| b.facts.number.cmp(&a.facts.number))
    });
}
