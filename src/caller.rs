//! Who calls: the peer at the other end of a connection, as the kernel or a certificate vouches for it, and the name under
//! which the policy knows it.
//!
//! Nothing here is what a caller says of itself.

mod identity;

use std::{fmt, net::SocketAddr, str::FromStr, sync::Arc};

pub use identity::{
    CertifiedName, DnsName, NoName, NotADnsName, NotASpiffeId, NotAUnit, SpiffeId, SystemdUnit,
};

/// What a caller is called in the configuration, in answers, logs and metrics. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerName(Arc<str>);

impl CallerName {
    /// The longest name, in characters: it becomes a metric's label, for each method and code.
    pub const LONGEST: usize = 64;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CallerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for CallerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Text that can't be a caller's name. It doesn't repeat the text, which may be a secret in the wrong place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a caller's name is 1 to {} letters, digits, dots, dashes or underscores, all of them ASCII",
    CallerName::LONGEST
)]
pub struct NotACallerName;

impl FromStr for CallerName {
    type Err = NotACallerName;

    fn from_str(text: &str) -> Result<Self, NotACallerName> {
        let fits = (1..=Self::LONGEST).contains(&text.len());
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if fits && plain { Ok(Self(text.into())) } else { Err(NotACallerName) }
    }
}

/// The process or host at the other end of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    /// A process of this machine, by the kernel's word. All of it is as it was when the process connected.
    Unix {
        /// Its effective user.
        uid: u32,
        /// Its effective primary group.
        gid: u32,
        /// All its supplementary groups, which may or may not repeat `gid`.
        groups: Vec<u32>,
        /// Its number, for logs alone: it may be another process's by the time one looks.
        pid: Option<i32>,
        /// The system's service that it runs in, if it runs in one.
        unit: Option<SystemdUnit>,
    },
    /// Whoever holds the key of a certificate that one of the configured authorities signed.
    Tls {
        /// Where it connects from.
        address: SocketAddr,
        /// The one name that the certificate gives it, or why it gives none.
        name: Result<CertifiedName, NoName>,
    },
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid, gid, pid, unit, groups: _ } => {
                write!(f, "uid {uid}, gid {gid}")?;
                unit.as_ref().map_or(Ok(()), |unit| write!(f, ", unit {unit}"))?;
                pid.map_or(Ok(()), |pid| write!(f, ", pid {pid}"))
            }
            Self::Tls { address, name: Ok(name) } => write!(f, "{name} at {address}"),
            Self::Tls { address, name: Err(why) } => write!(f, "nameless at {address}: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_can_stand_in_a_log_and_a_label() {
        for text in ["payouts", "a", "A.b-c_9", &"x".repeat(64)] {
            assert_eq!(text.parse::<CallerName>().unwrap().to_string(), text);
        }
        for text in ["", "pay outs", "päy", "a/b", "a\nb", "a\"", &"x".repeat(65)] {
            assert_eq!(text.parse::<CallerName>(), Err(NotACallerName), "{text:?}");
        }
    }

    #[test]
    fn a_peer_shows_what_finds_it() {
        let peer = |pid, unit| Peer::Unix { uid: 1000, gid: 100, groups: vec![4, 24], pid, unit };
        assert_eq!(peer(Some(4711), None).to_string(), "uid 1000, gid 100, pid 4711");
        assert_eq!(peer(None, None).to_string(), "uid 1000, gid 100");
        let unit = "payouts.service".parse().ok();
        assert_eq!(peer(Some(1), unit).to_string(), "uid 1000, gid 100, unit payouts.service, pid 1");
        let remote = |name| Peer::Tls { address: "10.1.2.3:4711".parse().unwrap(), name };
        let named = CertifiedName::Spiffe("spiffe://example.org/payouts".parse().unwrap());
        assert_eq!(remote(Ok(named)).to_string(), "spiffe://example.org/payouts at 10.1.2.3:4711");
        assert!(remote(Err(NoName::Nothing)).to_string().starts_with("nameless at 10.1.2.3:4711: "));
    }
}
