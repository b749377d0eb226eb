//! What a listener shows and believes: made of its files as a whole, and swapped as a whole.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use rustls::{
    Error, InconsistentKeys, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer},
    server::{NoServerSessionStorage, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use tokio::sync::watch;

use super::{
    facts::{CertificateFacts, CertificateRole},
    files::{self, FileFault, TlsProblem},
    lists::{self, List},
    names::{self, AuthorityFacts},
    revocation,
};
use crate::config::{FileProblem, NamedFile, TlsFiles, Warning};

/// All that one listener needs to speak TLS, read and checked, and in force nowhere yet.
pub struct Prepared {
    files: TlsFiles,
    pub(super) stamps: Stamps,
    server: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
    parts: Parts,
    facts: Vec<CertificateFacts>,
    warnings: Vec<Warning>,
}

/// What it was made of, to be made again with other lists.
struct Parts {
    certified: Arc<SingleCertAndKey>,
    roots: Arc<RootCertStore>,
    authorities: Vec<AuthorityFacts>,
    /// The newest first.
    lists: Vec<List>,
}

/// What came into force, in words.
pub struct Replaced {
    /// What was replaced.
    pub said: String,
    /// What of that before goes on counting, and should not have to.
    pub warnings: Vec<Warning>,
}

/// What a listener shows and believes now. Whoever holds it can put something else in force.
pub struct TlsMaterial {
    current: ArcSwap<Prepared>,
    /// Tells those whose trust depends on it that there is another.
    changed: watch::Sender<()>,
    /// Held while another is put in force.
    one_at_a_time: Mutex<()>,
}

impl Prepared {
    /// Reads the files and checks that they fit each other. Changes nothing.
    pub fn read(files: &TlsFiles) -> Result<Self, TlsProblem> {
        // Before reading: a file that is replaced meanwhile is looked at again.
        let stamps = Stamps::of(files);
        let mut reading = Reading { problems: Vec::new(), facts: Vec::new() };
        let chain = reading.certificates(&files.cert);
        let key = reading.note(&files.key, files::key(&files.key));
        let authorities = reading.authorities(&files.client_ca);
        let lists: Vec<_> = files.client_crls.iter().map(|file| reading.lists(file)).collect();

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut warnings = Vec::new();
        let mut certified = None;
        if let (Some(chain), Some((key, exposure))) = (chain, key) {
            warnings.extend(exposure.map(|exposure| Warning {
                position: Some(files.key.position),
                message: format!("{} ({}): {exposure}", files.key.key, files.key.path.display()),
            }));
            let made = certified_key(&provider, chain, key);
            certified = reading.note(&files.key, made);
        }
        let mut believed = None;
        if let (Some((roots, known)), Some(lists)) =
            (authorities, lists.into_iter().collect::<Option<Vec<_>>>())
        {
            let mut lists = lists.concat();
            for list in &mut lists {
                list.prove(&known, &provider.signature_verification_algorithms);
            }
            let (lists, replaced) = lists::newest(lists, files, &known);
            warnings.extend(replaced);
            warnings.extend(revocation::without_list(&files.client_ca, &known, &lists));
            reading.facts.extend(lists.iter().map(List::certificate_facts));
            let roots = Arc::new(roots);
            let made = if revocation::too_many(&lists) {
                Err(FileFault::TooManyLists)
            } else {
                revocation::client_verifier(&provider, &roots, &lists)
            };
            let verifier = reading.note(files.client_crls.first().unwrap_or(&files.client_ca), made);
            believed = verifier.map(|verifier| (verifier, roots, known, lists));
        }
        let Reading { problems, facts } = reading;
        let (Some(certified), Some(believed), true) = (certified, believed, problems.is_empty()) else {
            return Err(TlsProblem { config: files.config.clone(), problems });
        };
        let refused = |error| TlsProblem {
            config: files.config.clone(),
            problems: vec![files::problem(&files.cert, FileFault::Refused(error))],
        };
        let (verifier, roots, authorities, lists) = believed;
        let certified = Arc::new(SingleCertAndKey::from(certified));
        let server = server(provider, Arc::clone(&verifier), Arc::clone(&certified), files.tls12);
        let server = Arc::new(server.map_err(refused)?);
        let parts = Parts { certified, roots, authorities, lists };
        Ok(Self { files: files.clone(), stamps, server, verifier, parts, facts, warnings })
    }

    /// With those lists of `before` that still count beside or instead of its own; each is warned of.
    fn over(mut self, before: &Self) -> Result<(Self, Vec<Warning>), FileFault> {
        let provider = Arc::clone(self.server.crypto_provider());
        let algorithms = &provider.signature_verification_algorithms;
        let Parts { certified, roots, authorities, lists } = &self.parts;
        let (lists, warnings) =
            lists::keep_newer(&before.parts.lists, lists, &self.files, authorities, algorithms);
        if warnings.is_empty() {
            return Ok((self, warnings));
        }
        self.verifier = revocation::client_verifier(&provider, roots, &lists)?;
        let server = server(provider, Arc::clone(&self.verifier), Arc::clone(certified), self.files.tls12);
        self.server = Arc::new(server.map_err(FileFault::Refused)?);
        self.facts.retain(|one| one.role != CertificateRole::RevocationList);
        self.facts.extend(lists.iter().map(List::certificate_facts));
        self.parts.lists = lists;
        Ok((self, warnings))
    }

    /// The dates of all certificates in it.
    pub fn facts(&self) -> &[CertificateFacts] {
        &self.facts
    }

    /// What works and should be otherwise.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    pub(super) fn files(&self) -> &TlsFiles {
        &self.files
    }

    pub(super) fn verifier(&self) -> &dyn ClientCertVerifier {
        &*self.verifier
    }

    pub(in crate::grpc) fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }
}

impl TlsMaterial {
    /// Puts this in force from the start.
    pub fn new(prepared: Prepared) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(prepared),
            changed: watch::Sender::new(()),
            one_at_a_time: Mutex::new(()),
        })
    }

    /// Puts this in force, for new connections at once. Those that stand go on, unless their certificates are no longer
    /// believed: these end. Lists in force that are newer go on counting. `None`: it is what was in force, or was read
    /// before what came into force since `seen` was; then whoever follows the files looks again.
    pub fn replace(&self, seen: &Arc<Prepared>, prepared: Prepared) -> Option<Replaced> {
        let _turn = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current.load_full();
        let overtaken = !Arc::ptr_eq(&current, seen);
        if current.files == prepared.files && (overtaken || current.stamps == prepared.stamps) {
            return None;
        }
        self.put(&current, prepared)
    }

    /// Puts this in force if nobody has put another in force since `seen` was.
    pub(super) fn commit_over(&self, seen: &Arc<Prepared>, prepared: Prepared) -> Option<Replaced> {
        let _turn = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current.load_full();
        Arc::ptr_eq(&current, seen).then(|| self.put(&current, prepared)).flatten()
    }

    fn put(&self, current: &Prepared, prepared: Prepared) -> Option<Replaced> {
        let path = prepared.files.cert.path.display().to_string();
        match prepared.over(current) {
            Ok((prepared, warnings)) => {
                self.current.store(Arc::new(prepared));
                self.changed.send_replace(());
                let said = format!("{path} and the files beside it in [[listen]] were replaced");
                Some(Replaced { said, warnings })
            }
            // Its lists were all taken before, and so were its keys.
            Err(fault) => {
                tracing::error!("{path} and the files beside it in [[listen]] stay what they were: {fault}");
                None
            }
        }
    }

    /// What is in force.
    pub fn current(&self) -> Arc<Prepared> {
        self.current.load_full()
    }

    /// Tells of each change from now on.
    pub(in crate::grpc) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

/// Collects what is wrong and what is found.
struct Reading {
    problems: Vec<FileProblem<FileFault>>,
    facts: Vec<CertificateFacts>,
}

impl Reading {
    fn note<T>(&mut self, file: &NamedFile, outcome: Result<T, FileFault>) -> Option<T> {
        outcome.map_err(|fault| self.problems.push(files::problem(file, fault))).ok()
    }

    /// The broker's own. Only the first is told of: those after it are their authorities' affair.
    fn certificates(&mut self, file: &NamedFile) -> Option<Vec<CertificateDer<'static>>> {
        let found = files::certificates(file).and_then(|chain| {
            let first = chain.first().and_then(|first| names::describe_certificate(first));
            Ok((first.ok_or(FileFault::BadCertificate(1))?, chain))
        });
        let (described, chain) = self.note(file, found)?;
        self.describe(CertificateRole::Server, &file.path, described);
        Some(chain)
    }

    fn authorities(&mut self, file: &NamedFile) -> Option<(RootCertStore, Vec<AuthorityFacts>)> {
        let found = files::certificates(file);
        let found = self.note(file, found)?;
        let mut store = RootCertStore::empty();
        let mut known = Vec::new();
        for (place, certificate) in found.into_iter().enumerate() {
            let described = names::describe_certificate(&certificate).zip(names::authority(&certificate));
            match described.filter(|_| store.add(certificate).is_ok()) {
                Some((described, authority)) => {
                    self.describe(CertificateRole::ClientAuthority, &file.path, described);
                    known.push(authority);
                }
                None => {
                    self.note::<()>(file, Err(FileFault::BadCertificate(place + 1)))?;
                }
            }
        }
        Some((store, known))
    }

    fn lists(&mut self, file: &NamedFile) -> Option<Vec<List>> {
        let list = |der: CertificateRevocationListDer<'static>| {
            let (described, facts) = names::describe_list(&der).zip(names::list_facts(&der))?;
            Some(List { der, path: file.path.clone(), described, facts, signer: None })
        };
        let found = files::lists(file).and_then(|lists| {
            lists.into_iter().map(list).collect::<Option<Vec<_>>>().ok_or(FileFault::BadList)
        });
        self.note(file, found)
    }

    fn describe(&mut self, role: CertificateRole, path: &Path, described: names::Described) {
        self.facts.push(CertificateFacts {
            role,
            path: path.to_owned(),
            names: described.names,
            not_before: described.from,
            not_after: described.until,
        });
    }
}

fn certified_key(
    provider: &CryptoProvider,
    chain: Vec<CertificateDer<'static>>,
    key: rustls::pki_types::PrivateKeyDer<'static>,
) -> Result<CertifiedKey, FileFault> {
    let key = provider.key_provider.load_private_key(key).map_err(|_| FileFault::BadKey)?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(Error::InconsistentKeys(_)) => Err(FileFault::OtherKey),
        Err(error) => Err(FileFault::Refused(error)),
    }
}

fn server(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    certified: Arc<SingleCertAndKey>,
    tls12: bool,
) -> Result<ServerConfig, Error> {
    let versions: &[_] = if tls12 { &[&TLS13, &TLS12] } else { &[&TLS13] };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certified);
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would not show its certificate again, and early data could be replayed.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    // In TLS 1.2, what ties the certificate to this very connection.
    config.require_ems = true;
    Ok(config)
}

/// What tells that a file was replaced or written, through links too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stamps(Vec<Result<Stamp, io::ErrorKind>>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Stamp {
    /// Device and inode.
    identity: (u64, u64),
    size: u64,
    /// Seconds and nanoseconds of the last change of what is in it.
    written: (i64, i64),
    /// And of anything about it.
    changed: (i64, i64),
}

impl Stamps {
    pub(super) fn of(files: &TlsFiles) -> Self {
        let all = [&files.cert, &files.key, &files.client_ca].into_iter().chain(&files.client_crls);
        let stamp = |file: &NamedFile| {
            let found = fs::metadata(&file.path).map_err(|error| error.kind())?;
            Ok(Stamp {
                identity: (found.dev(), found.ino()),
                size: found.size(),
                written: (found.mtime(), found.mtime_nsec()),
                changed: (found.ctime(), found.ctime_nsec()),
            })
        };
        Self(all.map(stamp).collect())
    }
}
