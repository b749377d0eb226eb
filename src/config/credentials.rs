//! `[credentials]`: the names of the files that hold secrets, which are read in [`super::files`].

use std::{fmt, path::PathBuf};

use jiff::Timestamp;

use super::{
    errors::{Findings, Position},
    section::Section,
    upstream,
};
use crate::credentials::ApiVersion;

/// The name of a file that holds a secret.
///
/// Its `Debug` doesn't show the name: a secret that was pasted where its file's name belongs is one of the mistakes that
/// must not end in a journal.
#[derive(Clone, PartialEq, Eq)]
pub struct CredentialFile {
    /// The key that names it, such as `credentials.key_file`.
    pub(super) key: &'static str,
    /// Its name as configured.
    pub(super) name: PathBuf,
    /// Where in the configuration it is named.
    pub(super) position: Position,
}

impl fmt::Debug for CredentialFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of line {}", self.key, self.position)
    }
}

/// The files of one credential set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CredentialFiles {
    /// The API that they are for.
    pub api: ApiVersion,
    /// Holds the API key.
    pub key: CredentialFile,
    /// Holds the API secret.
    pub secret: CredentialFile,
    /// Holds the callback secret, which only v3 has.
    pub callback_secret: Option<CredentialFile>,
}

/// The files of the set before, with which signs that are still on their way are verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PreviousFiles {
    /// The files.
    pub files: CredentialFiles,
    /// When the set is forgotten. There is no default: keys that nobody ends stay for ever.
    pub until: Timestamp,
    /// Where the section begins.
    pub(super) position: Position,
}

impl CredentialFiles {
    pub(super) fn current(section: &Section<'_>, api: ApiVersion, findings: &Findings<'_>) -> Self {
        let files = Self::read(section, api, findings);
        if section.is_present() && api == ApiVersion::V3 && section.get("callback_secret_file").is_none() {
            findings.odd(
                section.offset(),
                "[credentials] has no callback_secret_file: VerifySign will answer NO_CALLBACK_SECRET",
            );
        }
        files
    }

    fn read(section: &Section<'_>, api: ApiVersion, findings: &Findings<'_>) -> Self {
        let file = |name| {
            let (text, value) = section.text(name)?;
            if text.contains('\0') {
                value.wrong("is no name that a file can have");
            }
            Some(CredentialFile {
                key: value.key.path,
                name: text.into(),
                position: findings.position(value.offset),
            })
        };
        // What is missing was reported, and nobody will see what stands in for it.
        let nothing = || CredentialFile {
            key: "",
            name: PathBuf::new(),
            position: findings.position(section.offset()),
        };
        let files = Self {
            api,
            key: file("key_file").unwrap_or_else(nothing),
            secret: file("secret_file").unwrap_or_else(nothing),
            callback_secret: file("callback_secret_file"),
        };
        if let Some(value) = section.get("callback_secret_file").filter(|_| api == ApiVersion::V2) {
            value.wrong("must go: v2 has no callback secret, it signs with the API key and secret");
        }
        files.report_same(section);
        files
    }

    /// The three are three different things; the same file twice is a slip in copying a line.
    fn report_same(&self, section: &Section<'_>) {
        let all = [Some(&self.key), Some(&self.secret), self.callback_secret.as_ref()];
        let names = ["key_file", "secret_file", "callback_secret_file"];
        for (later, file) in all.iter().enumerate() {
            let Some(file) = file.filter(|file| !file.key.is_empty()) else { continue };
            let same = |earlier: &usize| all[*earlier].is_some_and(|other| other.name == file.name);
            if let (Some(earlier), Some(value)) = ((0..later).find(same), section.get(names[later])) {
                value.wrong(format!("names the same file as {}", names[earlier]));
            }
        }
    }
}

impl PreviousFiles {
    pub(super) fn read(section: &Section<'_>, findings: &Findings<'_>) -> Option<Self> {
        if !section.is_present() {
            return None;
        }
        let api = upstream::api(section);
        let files = CredentialFiles::read(section, api, findings);
        if api == ApiVersion::V3 && section.get("callback_secret_file").is_none() {
            section.wrong("credentials.previous.callback_secret_file is missing: it is all that v3 signs are verified with");
        }
        let until = section.instant("until").unwrap_or_default();
        Some(Self { files, until, position: findings.position(section.offset()) })
    }
}
