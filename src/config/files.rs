//! Reading secrets from the files that the configuration names.
//!
//! No error and no warning shows what a file holds, nor the name of a file that can't be opened: see [`super::errors`].

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

use jiff::Timestamp;
use nix::{
    fcntl::OFlag,
    unistd::{Gid, Group, User},
};
use zeroize::Zeroizing;

use super::{Config, CredentialFile, CredentialFiles, Environment, FileProblem, FileProblems, Warning};
use crate::{credentials::Credentials, secret::SecretString};

/// The longest secret, in bytes. What is longer is another file.
const LONGEST: usize = 8 * 1024;

/// The credentials, and all that may be told of where they come from.
#[derive(Clone, Debug)]
pub struct LoadedCredentials {
    /// What to log in with.
    pub credentials: Credentials,
    /// What signs that are still on their way were made with, and when it is to be forgotten.
    pub previous: Option<(Credentials, Timestamp)>,
    /// Where each part was read.
    pub sources: Vec<CredentialSource>,
    /// What the operator should know.
    pub warnings: Vec<Warning>,
}

/// Where a part of the credentials was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CredentialSource {
    /// The key under `[credentials]` that names the file, such as `secret_file` or `previous.secret_file`.
    pub name: &'static str,
    /// The file.
    pub path: PathBuf,
    /// When it was last written.
    pub modified: Option<Timestamp>,
}

/// Why a secret can't be read. The message follows the key, and the file's path if it could be opened.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableCredential {
    /// It is in none of the places.
    #[error(
        "there is no such file{}; write the name of the file that holds the secret, never the secret itself",
        looked_in(folders)
    )]
    Absent {
        /// The places where a relative name was looked for.
        folders: Vec<PathBuf>,
    },
    /// The system refuses to open it.
    #[error("the file can't be opened: {error}; the broker's user must be able to read it")]
    NotOpened {
        /// How it refuses.
        error: io::Error,
    },
    /// Reading fails.
    #[error("the file can't be read: {error}")]
    NotRead {
        /// How.
        error: io::Error,
    },
    /// A directory, a socket, a pipe, a device.
    #[error("this is not a regular file")]
    NotAFile,
    /// Longer than any secret.
    #[error("the file is longer than {LONGEST} bytes: it can't be the secret")]
    TooLong,
    /// Not text.
    #[error("the file is not UTF-8 text")]
    NotText,
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
    /// Spaces or line breaks around the secret.
    #[error(
        "the secret has white space before or after it; one final line break is stripped, remove the rest"
    )]
    WhiteSpaceAround,
    /// An invisible mark that some editors put first.
    #[error("the file begins with a byte order mark; save it as UTF-8 without one")]
    ByteOrderMark,
    /// More than one line, a tab, a NUL.
    #[error(
        "the secret has a line break or another control character inside; the file must hold it alone, on one line"
    )]
    ControlCharacter,
}

fn looked_in(folders: &[PathBuf]) -> String {
    let each: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
    if each.is_empty() { String::new() } else { format!(" in {}", each.join(" or ")) }
}

/// All secrets that can't be read.
pub type CredentialErrors = FileProblems<UnreadableCredential>;

impl Config {
    /// Reads the credentials from their files. `now` tells whether the previous ones have ended: then their files are not
    /// read, and may be gone.
    pub fn read_credentials(
        &self,
        environment: &Environment,
        now: Timestamp,
    ) -> Result<LoadedCredentials, CredentialErrors> {
        let mut reader = Reader {
            folder: self.folder(),
            environment,
            sources: Vec::new(),
            warnings: Vec::new(),
            problems: Vec::new(),
        };
        let current = reader.read_set(&self.credentials);
        let mut previous = None;
        if let Some(configured) = &self.previous {
            if configured.until > now {
                previous = reader.read_set(&configured.files).map(|set| (set, configured.until));
            } else {
                reader.warnings.push(Warning {
                    position: Some(configured.position),
                    message: format!(
                        "[credentials.previous] ended at {}: delete its files and take the section out",
                        configured.until
                    ),
                });
            }
        }
        let Reader { sources, warnings, problems, .. } = reader;
        match current.filter(|_| problems.is_empty()) {
            Some(credentials) => Ok(LoadedCredentials { credentials, previous, sources, warnings }),
            None => Err(CredentialErrors { config: self.file.clone(), problems }),
        }
    }
}

struct Reader<'a> {
    folder: &'a Path,
    environment: &'a Environment,
    sources: Vec<CredentialSource>,
    warnings: Vec<Warning>,
    problems: Vec<FileProblem<UnreadableCredential>>,
}

impl Reader<'_> {
    /// Reads all files of a set, so that every problem is told.
    fn read_set(&mut self, files: &CredentialFiles) -> Option<Credentials> {
        let key = self.read(&files.key);
        let secret = self.read(&files.secret);
        let callback_secret = files.callback_secret.as_ref().map(|file| self.read(file));
        Some(Credentials {
            api: files.api,
            key: key?,
            secret: secret?,
            callback_secret: match callback_secret {
                None => None,
                Some(read) => Some(read?),
            },
        })
    }

    fn read(&mut self, file: &CredentialFile) -> Option<SecretString> {
        match self.open(&file.name) {
            Err(fault) => self.fail(file, None, fault),
            Ok((opened, path, kept_by_supervisor)) => match read_secret(opened) {
                Err(fault) => self.fail(file, Some(path), fault),
                Ok((secret, metadata)) => {
                    if let Some(exposure) = exposure(&metadata).filter(|_| !kept_by_supervisor) {
                        self.warnings.push(Warning {
                            position: Some(file.position),
                            message: format!("{} ({}): {exposure}", file.key, path.display()),
                        });
                    }
                    self.sources.push(CredentialSource {
                        name: file.key.trim_start_matches("credentials."),
                        path,
                        modified: metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok()),
                    });
                    Some(secret)
                }
            },
        }
    }

    fn fail(
        &mut self,
        file: &CredentialFile,
        path: Option<PathBuf>,
        fault: UnreadableCredential,
    ) -> Option<SecretString> {
        self.problems.push(FileProblem { key: file.key, position: file.position, path, fault });
        None
    }

    /// Opens the first file of this name, and says where it is and whether the supervisor keeps it.
    fn open(&self, name: &Path) -> Result<(File, PathBuf, bool), UnreadableCredential> {
        // The supervisor's credentials lie side by side, so a name with folders in it is none of them; and `..` would
        // lead out of the directory that is trusted.
        let plain = matches!(name.components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
        let supervisor = self.environment.credentials_directory.as_deref().filter(|_| plain);
        let folders: Vec<_> = if name.is_absolute() {
            vec![(Path::new(""), false)]
        } else {
            supervisor.map(|folder| (folder, true)).into_iter().chain([(self.folder, false)]).collect()
        };
        for (folder, kept_by_supervisor) in &folders {
            let path = folder.join(name);
            // A pipe would otherwise be waited on for ever.
            match OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&path) {
                Ok(file) => return Ok((file, path, *kept_by_supervisor)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(UnreadableCredential::NotOpened { error }),
            }
        }
        let folders = folders.into_iter().map(|(folder, _)| folder.to_owned());
        Err(UnreadableCredential::Absent {
            folders: folders.filter(|folder| folder != Path::new("")).collect(),
        })
    }
}

/// Who can get at a file of a secret that should not, and what to do. Its owner may, and may let those of a private group
/// read: one that goes with a user of the same name, as packages make them for their services.
pub fn exposure(metadata: &Metadata) -> Option<String> {
    let gid = Gid::from_raw(metadata.gid());
    let group = Group::from_gid(gid).ok().flatten();
    let is_private = group.as_ref().is_some_and(|group| {
        let namesake = User::from_name(&group.name).ok().flatten();
        group.mem.iter().all(|member| *member == group.name) && namesake.is_some_and(|user| user.gid == gid)
    });
    let name = group.map_or_else(|| gid.to_string(), |group| group.name);
    exposed_by(metadata.mode() & 0o777, &name, is_private)
}

fn exposed_by(mode: u32, group: &str, is_private: bool) -> Option<String> {
    if mode & 0o037 != 0 {
        Some(format!(
            "others than the owner can get at the file, its mode is {mode:04o}; run chmod 600, or chmod 640 where its group is \
             the broker's alone"
        ))
    } else if mode & 0o040 != 0 && !is_private {
        Some(format!(
            "all of the group {group} can read the file; run chmod 600, or give it to a group that is the broker's alone"
        ))
    } else {
        None
    }
}

fn read_secret(mut file: File) -> Result<(SecretString, Metadata), UnreadableCredential> {
    let unread = |error| UnreadableCredential::NotRead { error };
    let metadata = file.metadata().map_err(unread)?;
    if !metadata.is_file() {
        return Err(UnreadableCredential::NotAFile);
    }
    // Room for all that is read, so that no part of it is left behind where the buffer was before.
    let mut content = Zeroizing::new(Vec::with_capacity(2 * LONGEST));
    let most = u64::try_from(LONGEST + 1).unwrap_or(u64::MAX);
    file.by_ref().take(most).read_to_end(&mut content).map_err(unread)?;
    Ok((check_secret(&content)?.to_owned().into(), metadata))
}

/// The secret in a file of this content.
fn check_secret(content: &[u8]) -> Result<&str, UnreadableCredential> {
    if content.len() > LONGEST {
        return Err(UnreadableCredential::TooLong);
    }
    let text = std::str::from_utf8(content).map_err(|_| UnreadableCredential::NotText)?;
    let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        Err(UnreadableCredential::Empty)
    } else if line.starts_with('\u{feff}') {
        Err(UnreadableCredential::ByteOrderMark)
    } else if line.trim() != line {
        Err(UnreadableCredential::WhiteSpaceAround)
    } else if line.chars().any(char::is_control) {
        Err(UnreadableCredential::ControlCharacter)
    } else {
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::exposed_by;

    #[test]
    fn a_private_group_may_read_and_nobody_else() {
        for mode in [0o400, 0o600, 0o700] {
            assert_eq!(exposed_by(mode, "users", false), None, "{mode:o}");
        }
        for mode in [0o440, 0o640] {
            assert_eq!(exposed_by(mode, "b2binpay-broker", true), None, "{mode:o}");
            let told = exposed_by(mode, "users", false).unwrap();
            assert!(told.starts_with("all of the group users can read the file"), "{told}");
        }
        for mode in [0o604, 0o644, 0o620, 0o660, 0o666, 0o602, 0o601] {
            assert!(exposed_by(mode, "b2binpay-broker", true).is_some(), "{mode:o}");
        }
    }
}
