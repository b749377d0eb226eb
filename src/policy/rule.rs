//! One caller, and what makes a peer that caller.

use std::{fmt, net::IpAddr, num::NonZeroU32, str::FromStr, time::Duration};

use ipnet::IpNet;

use super::Permissions;
use crate::caller::{CallerName, CertifiedName, SystemdUnit};

/// What makes a peer a caller.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Selector {
    /// A process of this user.
    UnixUser(u32),
    /// A process that is in this group, be it its primary group or another.
    UnixGroup(u32),
    /// A process of this system service.
    SystemdUnit(SystemdUnit),
    /// Whoever has a certificate with this name.
    Certificate(CertifiedName),
}

impl Selector {
    /// Whether its peers come from other hosts, so that networks mean something.
    pub const fn is_remote(&self) -> bool {
        matches!(self, Self::Certificate(_))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnixUser(uid) => write!(f, "uid {uid}"),
            Self::UnixGroup(gid) => write!(f, "gid {gid}"),
            Self::SystemdUnit(unit) => write!(f, "unit {unit}"),
            Self::Certificate(CertifiedName::Spiffe(id)) => write!(f, "SPIFFE ID {id}"),
            Self::Certificate(CertifiedName::Dns(name)) => write!(f, "DNS name {name}"),
        }
    }
}

/// One caller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Its name.
    pub name: CallerName,
    /// Who it is.
    pub selector: Selector,
    /// What it may do.
    pub allow: Permissions,
    /// Where it may connect from. Empty: from anywhere. Without meaning for processes of this host.
    pub networks: Vec<IpNet>,
    /// How often it may call. `None`: as often as it likes.
    pub rate: Option<Rate>,
}

impl Rule {
    /// A caller without bounds on where it calls from, and how often.
    pub const fn new(name: CallerName, selector: Selector, allow: Permissions) -> Self {
        Self { name, selector, allow, networks: Vec::new(), rate: None }
    }

    /// Whether it may connect from `address`.
    pub(super) fn lets_in_from(&self, address: IpAddr) -> bool {
        // A listener on all addresses of both families shows IPv4 ones in the clothes of IPv6.
        let address = address.to_canonical();
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&address))
    }
}

/// How often a caller may call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// So many calls, at once or one by one …
    pub calls: NonZeroU32,
    /// … for each span of this length: a second, a minute or an hour.
    pub per: Duration,
}

impl Rate {
    const SPANS: [(&'static str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];
    /// More calls for each span than this is no bound.
    const MOST: u32 = 1_000_000;
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = Self::SPANS.iter().find(|(_, seconds)| self.per.as_secs() == *seconds);
        write!(f, "{}/{}", self.calls, unit.map_or("?", |(unit, _)| unit))
    }
}

/// Text that is no rate. It isn't repeated: it may be a secret in the wrong place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a rate is a whole number from 1 to {}, a slash, and s, m or h, such as \"50/s\" or \"600/m\"",
    Rate::MOST
)]
pub struct NotARate;

impl FromStr for Rate {
    type Err = NotARate;

    fn from_str(text: &str) -> Result<Self, NotARate> {
        let (calls, unit) = text.split_once('/').ok_or(NotARate)?;
        let (_, seconds) = Self::SPANS.into_iter().find(|(word, _)| *word == unit).ok_or(NotARate)?;
        let plain = calls.bytes().all(|b| b.is_ascii_digit());
        let calls = calls.parse().ok().filter(|calls| plain && *calls <= Self::MOST);
        Ok(Self {
            calls: calls.and_then(NonZeroU32::new).ok_or(NotARate)?,
            per: Duration::from_secs(seconds),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_as_it_is_shown() {
        for text in ["1/s", "50/s", "600/m", "1000000/h"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for text in ["", "50", "0/s", "+5/s", "5/d", "5 /s", "1000001/s", "5/", "/s", "1.5/s"] {
            assert_eq!(text.parse::<Rate>(), Err(NotARate), "{text}");
        }
    }
}
