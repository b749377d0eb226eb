//! Settings: TOML and files of secrets in, checked values out. Nothing else reads either, nor the environment.
//!
//! Whoever holds a [`Config`] need not check anything again: every value is in its range, every name of a user is a
//! number, and the values fit each other. What is wrong with a file is told in one go, with line and column and with
//! what to write instead, and without showing what stands there ([`ConfigErrors`]).
//!
//! The table of all keys, with defaults, ranges and reasons, is [`KEYS`]; the reader is driven by it, and
//! `docs/configuration.md` is made from it.
//!
//! The file is read value by value and not through serde, whose errors end at the first mistake, repeat values, and know
//! no positions once a value is out of the parser's hands.

mod callers;
mod changes;
mod credentials;
mod errors;
mod files;
mod keys;
mod listen;
mod reference;
mod section;
mod serving;
mod syntax;
#[cfg(test)]
mod tests;
mod upstream;
mod values;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tracing::Level;

pub use self::{
    callers::{Accounts, SystemAccounts},
    credentials::{CredentialFile, CredentialFiles, PreviousFiles},
    errors::{ConfigErrors, FileProblem, FileProblems, Position, Problem, Warning},
    files::{CredentialErrors, CredentialSource, LoadedCredentials, UnreadableCredential, exposure},
    keys::{KEYS, Key, Kind, Range, Unset},
    listen::{Listen, NamedFile, TlsFiles},
    reference::reference,
    serving::Limits,
    upstream::{Budget, Upstream},
    values::{NotADuration, parse_duration, show_duration},
};
use self::{errors::Findings, section::Section};
use crate::policy::Policy;

/// Where the configuration is unless another place is named.
pub const DEFAULT_FILE: &str = "/etc/b2binpay-broker/config.toml";

/// The largest file that is read: a thousand callers take an eighth of it.
const LARGEST_FILE: u64 = 1 << 20;

/// What the environment says. It is an argument so that a test can say otherwise.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Environment {
    /// Where the supervisor keeps this service's credentials (`$CREDENTIALS_DIRECTORY`).
    pub credentials_directory: Option<PathBuf>,
}

impl Environment {
    /// The environment of this process.
    pub fn from_process() -> Self {
        let directory = env::var_os("CREDENTIALS_DIRECTORY").filter(|directory| !directory.is_empty());
        Self { credentials_directory: directory.map(PathBuf::from) }
    }
}

/// A whole configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The file it was read from. Relative names of files are looked up beside it.
    pub file: PathBuf,
    /// Whom to ask for tokens.
    pub upstream: Upstream,
    /// Where the credentials are.
    pub credentials: CredentialFiles,
    /// Where those before are, while signs made with them may still arrive.
    pub previous: Option<PreviousFiles>,
    /// When to renew, and what to hand out.
    pub token: TokenRules,
    /// Where call times are kept; absolute. `/var/lib/b2binpay-broker` unless configured.
    pub state_directory: PathBuf,
    /// Where to serve; at least one.
    pub listen: Vec<Listen>,
    /// Where the audit log goes; absolute. `None`: with the log.
    pub audit_file: Option<PathBuf>,
    /// What to write of what happens.
    pub log: Log,
    /// What to take from connections.
    pub limits: Limits,
    /// What is allowed but may surprise.
    pub warnings: Vec<Warning>,
    policy: Policy,
}

/// When to renew tokens, and what to hand out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TokenRules {
    /// The part of its granted lifetime after which a token is renewed. 0.67 unless configured, which leaves a third for
    /// failures.
    pub refresh_at: f64,
    /// How long a token that is handed out is good for at least. 10 s unless configured: a call to the API and a slow
    /// network.
    pub min_validity: Duration,
}

/// What to write of what happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// The least important lines that are written. `INFO` unless configured.
    pub level: Level,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// Text where stderr is a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// Always JSON.
    Json,
    /// Always text.
    Text,
}

impl Config {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let whole = |message: String| ConfigErrors::whole(path, message);
        let unreadable = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => whole("there is no such file; name another with --config".to_owned()),
            _ => whole(format!("the file can't be read: {error}")),
        };
        let metadata = fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(whole("this is not a regular file".to_owned()));
        }
        if metadata.len() > LARGEST_FILE {
            return Err(whole(format!(
                "the file is larger than {LARGEST_FILE} bytes: it can't be the configuration"
            )));
        }
        let content = fs::read(path).map_err(unreadable)?;
        match str::from_utf8(&content) {
            Ok(text) => Self::parse(text, path),
            Err(error) => {
                let readable = str::from_utf8(&content[..error.valid_up_to()]).unwrap_or_default();
                let findings = Findings::about(readable);
                findings.wrong(readable.len(), "the file must be UTF-8 text, and this character isn't");
                Err(findings.fail(path))
            }
        }
    }

    /// Checks the text of a file. Users and groups are those of this host.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigErrors> {
        Self::parse_for(text, file, &SystemAccounts)
    }

    /// Checks the text of a file for a host with these users and groups.
    pub fn parse_for(text: &str, file: &Path, accounts: &dyn Accounts) -> Result<Self, ConfigErrors> {
        let table = syntax::parse(text, file)?;
        let findings = Findings::about(text);
        let root = Section::root(&table, &findings);
        let folder = folder_of(file);
        let upstream = Upstream::read(&root.required_section("upstream"), folder);
        let credentials = root.required_section("credentials");
        let log = root.section("log");
        let token = root.section("token");
        let state = root.section("state");
        let audit = root.section("audit");
        let config = Self {
            file: file.to_owned(),
            credentials: CredentialFiles::current(&credentials, upstream.api, &findings),
            previous: PreviousFiles::read(&credentials.section("credentials.previous"), &findings),
            upstream,
            token: TokenRules {
                refresh_at: token.fraction("refresh_at"),
                min_validity: token.duration("min_validity"),
            },
            state_directory: state
                .text("directory")
                .and_then(|(text, value)| serving::absolute(text, &value))
                .unwrap_or_else(|| serving::default_path("state", "directory")),
            listen: Listen::read(&root.list("listen"), file, &findings),
            audit_file: audit.text("file").and_then(|(text, value)| serving::absolute(text, &value)),
            log: Log::read(&log),
            limits: Limits::read(&root.section("limits")),
            warnings: Vec::new(),
            policy: callers::read(&root.list("caller"), accounts, &findings),
        };
        let warnings = findings.conclude(file)?;
        Ok(Self { warnings, ..config })
    }

    /// Who may do what.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Where relative names are looked up.
    fn folder(&self) -> &Path {
        folder_of(&self.file)
    }
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Log {
    fn read(section: &Section<'_>) -> Self {
        let format = match section.choice("format") {
            Some("json") => LogFormat::Json,
            Some("text") => LogFormat::Text,
            _ => LogFormat::Auto,
        };
        let level = match section.choice("level") {
            Some("error") => Level::ERROR,
            Some("warn") => Level::WARN,
            Some("debug") => Level::DEBUG,
            Some("trace") => Level::TRACE,
            _ => Level::INFO,
        };
        Self { format, level }
    }
}
