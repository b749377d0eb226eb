//! Reading the files of TLS: what is wrong with one, and where it is named.
//!
//! No message shows what a file holds, nor the name of a file that can't be opened: people paste keys into the wrong place.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
};

use nix::fcntl::OFlag;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer,
    pem::{self, PemObject},
};
use zeroize::Zeroizing;

use crate::config::{FileProblem, FileProblems, NamedFile, exposure};

/// The largest file that is read. Lists of revoked certificates are the largest there are.
const LARGEST: u64 = 16 << 20;

/// Why a file can't be used. The message follows the key that names it.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// It isn't there.
    #[error("there is no such file; a relative name is looked up beside the configuration file")]
    Absent,
    /// The system refuses to open it.
    #[error("the file can't be opened: {0}; the broker's user must be able to read it")]
    NotOpened(io::Error),
    /// Reading fails.
    #[error("the file can't be read: {0}")]
    NotRead(io::Error),
    /// A directory, a socket, a pipe, a device.
    #[error("this is not a regular file")]
    NotAFile,
    /// Longer than anything of its kind.
    #[error("the file is larger than {LARGEST} bytes")]
    TooLarge,
    /// Begins like PEM, and isn't.
    #[error("the file is no proper PEM: a line is damaged, or its end is missing")]
    NotPem,
    /// Not what it should be.
    #[error("the file has no {0} in PEM (-----BEGIN {1}-----)")]
    Nothing(&'static str, &'static str),
    /// A key with a passphrase.
    #[error("the private key is encrypted with a passphrase, which nobody could type: store it without one")]
    EncryptedKey,
    /// A key of a kind that isn't known, or damaged.
    #[error(
        "the private key can't be used: it must be RSA of at least 2048 bits, ECDSA P-256 or P-384, or Ed25519"
    )]
    BadKey,
    /// The key of another certificate.
    #[error(
        "the private key is not that of the first certificate in listen.cert: one of them is the wrong file"
    )]
    OtherKey,
    /// A certificate that can't be parsed.
    #[error("certificate number {0} in the file can't be read: it is damaged, or no X.509 version 3")]
    BadCertificate(usize),
    /// A list that can't be parsed.
    #[error(
        "a list of revoked certificates in the file can't be read: it is damaged, or of a kind that isn't known"
    )]
    BadList,
    /// Too many that may each be the one that counts.
    #[error(
        "there are too many lists of authorities with the same names, signed with different keys or by no authority in \
         listen.client_ca: remove older ones, and those of authorities that are no longer in use"
    )]
    TooManyLists,
    /// What TLS itself refuses.
    #[error("TLS can't be set up with it: {0}")]
    Refused(rustls::Error),
}

/// All that keeps a listener from speaking TLS.
pub type TlsProblem = FileProblems<FileFault>;

/// This file can't be used.
pub(super) fn problem(file: &NamedFile, fault: FileFault) -> FileProblem<FileFault> {
    let hidden = matches!(fault, FileFault::Absent | FileFault::NotOpened(_));
    let path = (!hidden).then(|| file.path.clone());
    FileProblem { key: file.key, position: file.position, path, fault }
}

/// What a file held, and whether others than its owner may read it.
pub(super) struct Content {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    /// Who can get at it that should not get at a secret.
    pub(super) exposure: Option<String>,
}

pub(super) fn read(file: &NamedFile) -> Result<Content, FileFault> {
    // A pipe would otherwise be waited on for ever.
    let mut options = fs::OpenOptions::new();
    let opened = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&file.path);
    let opened = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => FileFault::Absent,
        _ => FileFault::NotOpened(error),
    })?;
    let metadata = opened.metadata().map_err(FileFault::NotRead)?;
    if !metadata.is_file() {
        return Err(FileFault::NotAFile);
    }
    let mut bytes = Zeroizing::new(Vec::new());
    opened.take(LARGEST + 1).read_to_end(&mut bytes).map_err(FileFault::NotRead)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LARGEST) {
        return Err(FileFault::TooLarge);
    }
    Ok(Content { bytes, exposure: exposure(&metadata) })
}

/// The certificates in a file; at least one.
pub(super) fn certificates(file: &NamedFile) -> Result<Vec<CertificateDer<'static>>, FileFault> {
    all(file, "certificate", "CERTIFICATE")
}

/// The lists in a file; at least one.
pub(super) fn lists(file: &NamedFile) -> Result<Vec<CertificateRevocationListDer<'static>>, FileFault> {
    all(file, "list of revoked certificates", "X509 CRL")
}

fn all<T: PemObject>(file: &NamedFile, what: &'static str, label: &'static str) -> Result<Vec<T>, FileFault> {
    let content = read(file)?;
    let found: Vec<T> =
        T::pem_slice_iter(&content.bytes).collect::<Result<_, _>>().map_err(|_| FileFault::NotPem)?;
    if found.is_empty() { Err(FileFault::Nothing(what, label)) } else { Ok(found) }
}

/// The private key in a file, and who can get at that who should not.
pub(super) fn key(file: &NamedFile) -> Result<(PrivateKeyDer<'static>, Option<String>), FileFault> {
    let content = read(file)?;
    if is_encrypted(&content.bytes) {
        return Err(FileFault::EncryptedKey);
    }
    let key = PrivateKeyDer::from_pem_slice(&content.bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => FileFault::Nothing("private key", "PRIVATE KEY"),
        _ => FileFault::NotPem,
    })?;
    Ok((key, content.exposure))
}

/// Both ways in which PEM says that a key has a passphrase.
fn is_encrypted(pem: &[u8]) -> bool {
    [&b"-----BEGIN ENCRYPTED PRIVATE KEY-----"[..], b"Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|mark| pem.windows(mark.len()).any(|window| window == *mark))
}
