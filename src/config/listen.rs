//! `[[listen]]`: where the broker serves.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    errors::{Findings, Position},
    section::{Section, Value},
    serving::{absolute, default_path},
    values::parse_mode,
};

/// Somewhere to serve.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// A Unix socket.
    Unix {
        /// Where; absolute, and short enough for the kernel.
        path: PathBuf,
        /// The file mode of the socket. 0666 unless configured: the policy decides who may call.
        mode: u32,
    },
    /// A TCP port, behind mutual TLS.
    Tcp {
        /// Where. Port 0 is any that is free.
        address: SocketAddr,
        /// What both sides show, and what is believed.
        tls: Box<TlsFiles>,
    },
    /// Sockets that the service manager opened and hands over.
    Systemd {
        /// Their `FileDescriptorName=`.
        name: String,
        /// For TCP sockets, as above. Unix sockets go without.
        tls: Option<Box<TlsFiles>>,
    },
}

/// What only sockets over TCP have.
const TLS_KEYS: [&str; 5] = ["cert", "key", "client_ca", "client_crl", "min_tls"];

/// The files of a listener's TLS, all of them PEM, and what is spoken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The configuration that names them.
    pub config: PathBuf,
    /// The server's certificate, and those between it and an authority that clients know.
    pub cert: NamedFile,
    /// Its private key.
    pub key: NamedFile,
    /// The authorities that may vouch for callers.
    pub client_ca: NamedFile,
    /// Lists of certificates that those have revoked.
    pub client_crls: Vec<NamedFile>,
    /// Whether TLS 1.2 is spoken beside 1.3.
    pub tls12: bool,
}

/// A file that the configuration names.
///
/// Its `Debug` doesn't show the name: a key that was pasted where its file's name belongs must not end in a journal.
#[derive(Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// The key that names it, such as `listen.cert`.
    pub key: &'static str,
    /// Where it is.
    pub path: PathBuf,
    /// Where in the configuration it is named.
    pub position: Position,
}

impl fmt::Debug for NamedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of line {}", self.key, self.position)
    }
}

impl Listen {
    /// The files of its TLS, where it has any.
    pub fn tls(&self) -> Option<&TlsFiles> {
        match self {
            Self::Unix { .. } => None,
            Self::Tcp { tls, .. } => Some(tls),
            Self::Systemd { tls, .. } => tls.as_deref(),
        }
    }

    /// Where it is, as the configuration says it.
    pub fn place(&self) -> String {
        match self {
            Self::Unix { path, .. } => path.display().to_string(),
            Self::Tcp { address, .. } => address.to_string(),
            Self::Systemd { name, .. } => format!("systemd socket {name}"),
        }
    }

    /// The longest path that a Unix socket can have: the kernel's field has 108 bytes, the last of which is NUL.
    const LONGEST_PATH: usize = 107;
    const DEFAULT_MODE: u32 = 0o666;

    /// `file` is the configuration's.
    pub(super) fn read(sections: &[Section<'_>], file: &Path, findings: &Findings<'_>) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for section in sections {
            let Some(listen) = Self::read_one(section, file, findings) else { continue };
            if all.iter().any(|other| other.collides(&listen)) {
                section.wrong("another [[listen]] is at the same place");
            }
            all.push(listen);
        }
        if sections.is_empty() {
            all.push(Self::Unix { path: default_path("listen", "unix"), mode: Self::DEFAULT_MODE });
        }
        all
    }

    fn collides(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix { path, .. }, Self::Unix { path: other, .. }) => path == other,
            (Self::Tcp { address, .. }, Self::Tcp { address: other, .. }) => {
                let everywhere = |one: &SocketAddr| one.ip().is_unspecified();
                address.port() == other.port()
                    && address.port() != 0
                    && address.is_ipv4() == other.is_ipv4()
                    && (address == other || everywhere(address) || everywhere(other))
            }
            (Self::Systemd { name, .. }, Self::Systemd { name: other, .. }) => name == other,
            _ => false,
        }
    }

    fn read_one(section: &Section<'_>, file: &Path, findings: &Findings<'_>) -> Option<Self> {
        match (section.get("unix"), section.get("tcp"), section.get("systemd")) {
            (None, None, None) => {
                section.wrong(
                    "this [[listen]] doesn't say where; write unix = and the socket's path, tcp = and an address with \
                     its port, or systemd = and the FileDescriptorName= of a .socket unit",
                );
                None
            }
            (Some(_), None, None) => Self::read_unix(section),
            (None, Some(_), None) => Self::read_tcp(section, file, findings),
            (None, None, Some(_)) => Self::read_systemd(section, file, findings),
            (unix, tcp, systemd) => {
                let beside = if unix.is_some() { "listen.unix" } else { "listen.tcp" };
                if let Some(second) = tcp.filter(|_| unix.is_some()).or(systemd) {
                    second.wrong(format!("stands beside {beside}: write a [[listen]] for each of them"));
                }
                None
            }
        }
    }

    fn read_unix(section: &Section<'_>) -> Option<Self> {
        for key in TLS_KEYS {
            if let Some(value) = section.get(key) {
                value.wrong("is for tcp: the kernel vouches for who connects to a Unix socket");
            }
        }
        let mode = section.text("mode").map_or(Some(Self::DEFAULT_MODE), |(text, value)| {
            let mode = parse_mode(text);
            if mode.is_none() {
                value.wrong("is three or four octal digits in quotes, at most \"0777\", such as \"0666\"");
            }
            mode
        });
        let (text, value) = section.text("unix")?;
        let path = absolute(text, &value)?;
        if text.len() > Self::LONGEST_PATH {
            value.wrong(format!(
                "is longer than the {} bytes that a socket's path can have",
                Self::LONGEST_PATH
            ));
            return None;
        }
        Some(Self::Unix { path, mode: mode? })
    }

    fn read_tcp(section: &Section<'_>, file: &Path, findings: &Findings<'_>) -> Option<Self> {
        if let Some(value) = section.get("mode") {
            value.wrong("is for a Unix socket: over TCP, certificates decide who connects");
        }
        let address = section.text("tcp").and_then(|(text, value)| address(text, &value));
        let tls = Self::read_tls(section, file, findings);
        Some(Self::Tcp { address: address?, tls: Box::new(tls?) })
    }

    fn read_systemd(section: &Section<'_>, file: &Path, findings: &Findings<'_>) -> Option<Self> {
        if let Some(value) = section.get("mode") {
            value.wrong("is for a Unix socket of the broker's own; that of the service manager has the SocketMode= of its unit");
        }
        let (name, value) = section.text("systemd")?;
        // As systemd.socket(5) has it; the colon stands between names in the environment.
        let sound = (1..=255).contains(&name.len())
            && name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b':');
        if !sound {
            value.wrong("is the FileDescriptorName= of a .socket unit: 1 to 255 ASCII characters without a colon, such as \"broker\"");
        }
        let has_tls = TLS_KEYS.iter().any(|key| section.get(key).is_some());
        let tls = if has_tls { Some(Box::new(Self::read_tls(section, file, findings)?)) } else { None };
        sound.then(|| Self::Systemd { name: name.to_owned(), tls })
    }

    fn read_tls(section: &Section<'_>, file: &Path, findings: &Findings<'_>) -> Option<TlsFiles> {
        let folder = super::folder_of(file);
        let named = |name: &str, value: &Value<'_>, offset| NamedFile {
            key: value.key.path,
            path: folder.join(name),
            position: findings.position(offset),
        };
        let required = |name: &'static str| {
            if section.get(name).is_none() {
                section.wrong(format!(
                    "listen.{name} is missing: over TCP both sides show certificates; write cert, key and client_ca"
                ));
            }
            let (text, value) = section.text(name)?;
            Some(named(text, &value, value.offset))
        };
        let (cert, key, client_ca) = (required("cert"), required("key"), required("client_ca"));
        let lists = section.get("client_crl");
        let client_crls = lists.iter().flat_map(|value| {
            value.words().into_iter().map(move |(name, offset)| named(name, value, offset))
        });
        Some(TlsFiles {
            config: file.to_owned(),
            client_crls: client_crls.collect(),
            tls12: section.choice("min_tls") == Some("1.2"),
            cert: cert?,
            key: key?,
            client_ca: client_ca?,
        })
    }
}

/// An address and a port. A host's name would have to be looked up, and who answers that would decide where we listen.
fn address(text: &str, value: &Value<'_>) -> Option<SocketAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        value.wrong(
            "must be an IP address and a port, such as \"0.0.0.0:7443\" for all of IPv4, or \"[::]:7443\" for all of IPv6",
        );
    }
    address
}
