//! Files that can't be used: each is named with its place, and what is in it is never shown.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;
use crate::config::{NamedFile, Position, TlsFiles};

/// A folder with a server's certificate and key, and an authority for clients.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(["broker.example.org".to_owned()]).unwrap();
        let server = server.signed_by(&key, &authority).unwrap();
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("clients.pem", &authority.pem());
        folder.write("server.pem", &server.pem());
        folder.write("server.key", &key.serialize_pem());
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path().join(name), content).unwrap();
        fs::set_permissions(self.path().join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn content(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }

    fn files(&self, lists: &[&str], tls12: bool) -> TlsFiles {
        let named = |key, name: &str, line| NamedFile {
            key,
            path: self.path().join(name),
            position: Position { line, column: 1 },
        };
        TlsFiles {
            config: self.path().join("config.toml"),
            cert: named("listen.cert", "server.pem", 9),
            key: named("listen.key", "server.key", 10),
            client_ca: named("listen.client_ca", "clients.pem", 11),
            client_crls: lists.iter().map(|name| named("listen.client_crl", name, 12)).collect(),
            tls12,
        }
    }

    /// What is said of the files, without the folder's name.
    fn refused(&self, lists: &[&str]) -> Vec<String> {
        let problem =
            Prepared::read(&self.files(lists, false)).err().expect("something is wrong").to_string();
        let folder = format!("{}/", self.path().display());
        problem.lines().map(|line| line.replace(&folder, "")).collect()
    }
}

#[test]
fn what_fits_is_taken_with_its_dates() {
    let folder = Folder::new();
    let prepared = Prepared::read(&folder.files(&[], false)).unwrap();
    assert_eq!(prepared.warnings(), []);
    let roles: Vec<_> = prepared.facts().iter().map(|certificate| certificate.role).collect();
    assert_eq!(roles, [CertificateRole::Server, CertificateRole::ClientAuthority]);
    assert_eq!(prepared.facts()[0].names, ["broker.example.org"]);
}

#[test]
fn every_file_that_is_wrong_is_told_of_at_once_and_where_it_is_named() {
    let folder = Folder::new();
    fs::remove_file(folder.path().join("server.pem")).unwrap();
    folder.write("server.key", "nothing of the kind");
    folder.write("clients.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    folder.write("list.crl", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    assert_eq!(
        folder.refused(&["list.crl", "other.crl"]),
        [
            "config.toml:9:1: listen.cert: there is no such file; a relative name is looked up beside the configuration file",
            "config.toml:10:1: listen.key (server.key): the file has no private key in PEM (-----BEGIN PRIVATE KEY-----)",
            "config.toml:11:1: listen.client_ca (clients.pem): certificate number 1 in the file can't be read: it is damaged, or no X.509 version 3",
            "config.toml:12:1: listen.client_crl (list.crl): a list of revoked certificates in the file can't be read: it is damaged, or of a kind that isn't known",
            "config.toml:12:1: listen.client_crl: there is no such file; a relative name is looked up beside the configuration file",
        ]
    );
}

#[test]
fn each_way_for_a_key_to_be_wrong_has_its_words_and_shows_nothing_of_it() {
    let planted = "UGxhbnRlZC1TM2NyZXQtS2V5";
    for (content, says) in [
        (KeyPair::generate().unwrap().serialize_pem(), "not that of the first certificate"),
        (format!("-----BEGIN PRIVATE KEY-----\n{planted}\n-----END PRIVATE KEY-----\n"), "can't be used"),
        (format!("-----BEGIN PRIVATE KEY-----\n{planted}\n"), "no proper PEM"),
        (format!("-----BEGIN PRIVATE KEY-----\n{planted}*\n-----END PRIVATE KEY-----\n"), "no proper PEM"),
        (
            format!(
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\n{planted}\n-----END ENCRYPTED PRIVATE KEY-----\n"
            ),
            "encrypted with a passphrase",
        ),
        (
            format!(
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n{planted}\n-----END RSA PRIVATE KEY-----\n"
            ),
            "encrypted with a passphrase",
        ),
        (String::new(), "has no private key"),
    ] {
        let folder = Folder::new();
        folder.write("server.key", &content);
        let said = folder.refused(&[]);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].starts_with("config.toml:10:1: listen.key (server.key): ") && said[0].contains(says),
            "{said:?}"
        );
        assert!(!said[0].contains(planted), "{said:?}");
    }
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let folder = Folder::new();
    for make in [(|path: &Path| fs::create_dir(path).unwrap()) as fn(&Path), |path| {
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRUSR).unwrap();
    }] {
        let path = folder.path().join("clients.pem");
        fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
        make(&path);
        assert!(folder.refused(&[])[0].ends_with("(clients.pem): this is not a regular file"));
    }
}

#[test]
fn a_key_that_others_may_read_is_warned_of() {
    let folder = Folder::new();
    let key = folder.path().join("server.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let prepared = Prepared::read(&folder.files(&[], false)).unwrap();
    assert!(
        prepared.warnings()[0].message.contains("its mode is 0644; run chmod 600"),
        "{:?}",
        prepared.warnings()
    );
}

#[test]
fn what_is_put_in_force_twice_is_no_change() {
    let folder = Folder::new();
    let material = TlsMaterial::new(Prepared::read(&folder.files(&[], false)).unwrap());
    let mut changes = material.changes();
    let seen = material.current();
    assert!(material.replace(&seen, Prepared::read(&folder.files(&[], false)).unwrap()).is_none());
    assert!(!changes.has_changed().unwrap());
    // Whoever looked at the disk while a reload put something in force gives way to it.
    assert!(material.replace(&seen, Prepared::read(&folder.files(&[], true)).unwrap()).is_some());
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert!(material.commit_over(&seen, Prepared::read(&folder.files(&[], false)).unwrap()).is_none());
    assert!(!changes.has_changed().unwrap());
}

#[test]
fn what_was_read_before_something_newer_came_into_force_does_not_take_its_place() {
    let folder = Folder::new();
    let read = || Prepared::read(&folder.files(&[], false)).unwrap();
    let material = TlsMaterial::new(read());
    let seen = material.current();
    let slow = read();
    folder.write("clients.pem", &Folder::new().content("clients.pem"));
    let slow_and_other = Prepared::read(&folder.files(&[], true)).unwrap();
    assert!(material.commit_over(&seen, read()).is_some());
    let newer = material.current();
    assert!(material.replace(&seen, slow).is_none());
    assert!(std::sync::Arc::ptr_eq(&material.current(), &newer));
    // What the configuration says otherwise is not lost.
    assert!(material.replace(&seen, slow_and_other).is_some());
}

/// The words between backticks that begin the rows under this heading of the audit log's documentation.
fn documented_reasons() -> std::collections::BTreeSet<&'static str> {
    let text = include_str!("../../../docs/audit.md");
    let (_, section) = text.split_once("## Reasons of handshakes\n").expect("the heading is there");
    let section = section.split("\n## ").next().unwrap_or_default();
    section.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0)).collect()
}

#[test]
fn every_reason_of_a_handshake_that_failed_is_documented() {
    let sources = [include_str!("reasons.rs"), include_str!("trust.rs"), include_str!("../listener/tls.rs")];
    let is_word =
        |text: &&str| text.len() > 5 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let said = sources.iter().flat_map(|source| source.split('"')).filter(is_word).collect();
    assert_eq!(documented_reasons(), said);
}
