//! The names that are given to peers by those who can vouch for them: systemd, and certificate authorities.

use std::{fmt, str::FromStr, sync::Arc};

/// The name of a system service, such as `payouts.service` or `worker@7.service`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemdUnit(Arc<str>);

/// Text that names no system service that could be a caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a unit is the full name of a system service, such as payouts.service or worker@7.service; user@….service is none: what \
     runs there is its user's"
)]
pub struct NotAUnit;

impl FromStr for SystemdUnit {
    type Err = NotAUnit;

    /// Characters and length are those of systemd.unit(5).
    fn from_str(text: &str) -> Result<Self, NotAUnit> {
        let stem = text.strip_suffix(".service").ok_or(NotAUnit)?;
        let plain = stem.bytes().all(|b| b.is_ascii_alphanumeric() || b":_.\\-@".contains(&b));
        // An instance of `user@.service` is a manager whose services their user names as it likes; a template without an
        // instance never runs.
        let mans_own = stem.starts_with("user@");
        if stem.is_empty() || text.len() > 255 || !plain || mans_own || stem.ends_with('@') {
            return Err(NotAUnit);
        }
        Ok(Self(text.into()))
    }
}

/// A SPIFFE ID: the URI that names a workload, such as `spiffe://example.org/payouts`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId(Arc<str>);

/// Text that is no SPIFFE ID of a workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a SPIFFE ID is spiffe://, a trust domain in lower case, and a path, such as spiffe://example.org/payouts"
)]
pub struct NotASpiffeId;

impl FromStr for SpiffeId {
    type Err = NotASpiffeId;

    /// By <https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md>, section 2. One without a path names a trust
    /// domain and no workload.
    fn from_str(text: &str) -> Result<Self, NotASpiffeId> {
        let (domain, path) =
            text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')).ok_or(NotASpiffeId)?;
        let domain_fits = (1..=255).contains(&domain.len())
            && domain.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
        let segment = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        if text.len() <= 2048 && domain_fits && path.split('/').all(segment) {
            Ok(Self(text.into()))
        } else {
            Err(NotASpiffeId)
        }
    }
}

/// The DNS name of a host, in lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(Arc<str>);

/// Text that names no host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a DNS name is labels of letters, digits, dashes and underscores with dots between, such as payouts.example.org; a wildcard is none"
)]
pub struct NotADnsName;

impl FromStr for DnsName {
    type Err = NotADnsName;

    fn from_str(text: &str) -> Result<Self, NotADnsName> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        if text.len() <= 253 && text.split('.').all(label) {
            Ok(Self(text.to_ascii_lowercase().into()))
        } else {
            Err(NotADnsName)
        }
    }
}

/// What a certificate calls its holder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CertifiedName {
    /// By its one URI.
    Spiffe(SpiffeId),
    /// By its one DNS name, where it has no URI.
    Dns(DnsName),
}

impl CertifiedName {
    /// The one name of a certificate with these subject alternative names. Any URI makes it a SPIFFE certificate, whose DNS
    /// names say nothing of the workload.
    pub fn of(uris: &[&str], dns_names: &[&str]) -> Result<Self, NoName> {
        match (uris, dns_names) {
            ([uri], _) => uri.parse().map(Self::Spiffe).map_err(|_| NoName::NotSpiffe),
            ([_, ..], _) => Err(NoName::SeveralUris),
            ([], [name]) => name.parse().map(Self::Dns).map_err(|_| NoName::NotDns),
            ([], [_, ..]) => Err(NoName::SeveralDnsNames),
            ([], []) => Err(NoName::Nothing),
        }
    }
}

/// Why a certificate gives its holder no name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum NoName {
    /// Neither a URI nor a DNS name.
    #[error(
        "its certificate has no URI and no DNS name among its subject alternative names; common names and addresses don't count"
    )]
    Nothing,
    /// More than one URI.
    #[error("its certificate has several URIs, and must have one")]
    SeveralUris,
    /// No URI and more than one DNS name.
    #[error("its certificate has several DNS names, and must have one")]
    SeveralDnsNames,
    /// A URI that is no SPIFFE ID.
    #[error("the URI of its certificate is no SPIFFE ID")]
    NotSpiffe,
    /// A wildcard, above all.
    #[error("the DNS name of its certificate is a wildcard or not the name of a host")]
    NotDns,
    /// It gave one, and is revoked by now, has ended, or is of an authority that is no longer believed.
    #[error("its certificate is no longer accepted")]
    Distrusted,
}

/// Each is shown as it is written in the configuration.
macro_rules! shown_as_text {
    ($($word:ident),*) => {$(
        impl $word {
            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $word {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $word {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    )*};
}

shown_as_text!(SystemdUnit, SpiffeId, DnsName);

impl fmt::Display for CertifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spiffe(id) => id.fmt(f),
            Self::Dns(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_a_system_service_by_its_full_name() {
        for text in ["payouts.service", "worker@7.service", "a-b_c:d.e\\x2d.service", "user.service"] {
            assert_eq!(text.parse::<SystemdUnit>().unwrap().as_str(), text);
        }
        for text in
            ["payouts", ".service", "a b.service", "payouts.scope", "user@1000.service", "worker@.service"]
        {
            assert_eq!(text.parse::<SystemdUnit>(), Err(NotAUnit), "{text}");
        }
    }

    #[test]
    fn a_spiffe_id_names_a_workload_in_one_spelling() {
        for text in ["spiffe://example.org/payouts", "spiffe://a/b/C.d-e_f", "spiffe://10.0.0.1/x"] {
            assert_eq!(text.parse::<SpiffeId>().unwrap().as_str(), text);
        }
        for text in [
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe://Example.org/a",
            "SPIFFE://example.org/a",
            "spiffe://example.org/a/",
            "spiffe://example.org//a",
            "spiffe://example.org/../a",
            "spiffe://example.org/%61",
            "spiffe://user@example.org/a",
            "spiffe://example.org:1/a",
            "spiffe://example.org/a?b",
            "spiffe:///a",
            "https://example.org/a",
        ] {
            assert_eq!(text.parse::<SpiffeId>(), Err(NotASpiffeId), "{text}");
        }
    }

    #[test]
    fn a_dns_name_is_that_of_one_host_whatever_its_case() {
        assert_eq!("Payouts.Example.org".parse::<DnsName>().unwrap().as_str(), "payouts.example.org");
        for text in ["", "*.example.org", "a..b", "-a.b", "a-.b", "a b", "a.b.", "ä.b", &"x".repeat(64)] {
            assert_eq!(text.parse::<DnsName>(), Err(NotADnsName), "{text}");
        }
    }

    #[test]
    fn a_certificate_gives_one_name_or_none() {
        let spiffe = "spiffe://example.org/a";
        let named =
            |uris: &[&str], names: &[&str]| CertifiedName::of(uris, names).map(|name| name.to_string());
        assert_eq!(named(&[spiffe], &["a.example.org", "b.example.org"]), Ok(spiffe.to_owned()));
        assert_eq!(named(&[], &["A.example.org"]), Ok("a.example.org".to_owned()));
        assert_eq!(named(&[], &[]), Err(NoName::Nothing));
        assert_eq!(named(&[spiffe, spiffe], &["a.example.org"]), Err(NoName::SeveralUris));
        assert_eq!(named(&["https://example.org/a"], &["a.example.org"]), Err(NoName::NotSpiffe));
        assert_eq!(named(&[], &["a.example.org", "b.example.org"]), Err(NoName::SeveralDnsNames));
        assert_eq!(named(&[], &["*.example.org"]), Err(NoName::NotDns));
    }
}
