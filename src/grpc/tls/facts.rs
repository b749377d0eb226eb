//! What an operator should know of each certificate, and when to be told that it ends.

use std::{fmt, path::PathBuf, time::Duration};

use jiff::Timestamp;

/// What a certificate is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CertificateRole {
    /// The broker shows it.
    Server,
    /// It vouches for callers.
    ClientAuthority,
    /// It is a list of certificates that such an authority revoked.
    RevocationList,
}

impl fmt::Display for CertificateRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Server => "server certificate",
            Self::ClientAuthority => "client CA",
            Self::RevocationList => "revocation list",
        })
    }
}

/// How a certificate stands in its time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CertificateState {
    /// It begins later.
    NotYet,
    /// All is well.
    Good,
    /// It ends so soon that its renewal must have been missed.
    EndsSoon,
    /// It has ended.
    Ended,
}

/// A certificate in use, or a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateFacts {
    /// What it is for.
    pub role: CertificateRole,
    /// The file.
    pub path: PathBuf,
    /// The names in it; for a list, who issued it.
    pub names: Vec<String>,
    /// When it begins.
    pub not_before: Timestamp,
    /// When it ends: for a list, when the next one was promised. `None`: never.
    pub not_after: Option<Timestamp>,
}

impl CertificateFacts {
    /// It ends soon in the last fifth of its life: programs that renew do it when a third is left, so by then they have
    /// failed. For a certificate of an hour, that is 12 minutes.
    const LAST_PART: u32 = 5;
    /// But for one that lives for years a person renews it, who wants to hear of it some weeks before.
    const LONGEST_SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    /// How it stands at this time.
    pub fn state(&self, now: Timestamp) -> CertificateState {
        if now < self.not_before {
            return CertificateState::NotYet;
        }
        let Some(until) = self.not_after else { return CertificateState::Good };
        let lifetime = Duration::try_from(until.duration_since(self.not_before)).unwrap_or_default();
        let soon = (lifetime / Self::LAST_PART).min(Self::LONGEST_SOON);
        match Duration::try_from(until.duration_since(now)) {
            Ok(left) if left > soon => CertificateState::Good,
            Ok(left) if !left.is_zero() => CertificateState::EndsSoon,
            _ => CertificateState::Ended,
        }
    }

    /// What follows from how it stands, where something should be done.
    pub fn complaint(&self, now: Timestamp) -> Option<String> {
        let Self { role, not_before, .. } = self;
        let until = self.not_after.map(|until| until.to_string()).unwrap_or_default();
        Some(match (self.state(now), role) {
            (CertificateState::Good, _) => return None,
            (CertificateState::NotYet, _) => {
                format!("the {role} begins at {not_before} only: look at this host's clock, or replace it")
            }
            (CertificateState::EndsSoon, CertificateRole::RevocationList) => {
                format!("the {role} should be followed by another by {until}: put that in its place")
            }
            (CertificateState::EndsSoon, _) => {
                format!("the {role} ends at {until}: put another in its place before that")
            }
            (CertificateState::Ended, CertificateRole::Server) => {
                format!("the {role} ended at {until}: clients refuse to connect; put another in its place")
            }
            (CertificateState::Ended, CertificateRole::ClientAuthority) => {
                format!(
                    "the {role} ended at {until}: put another in its place, and renew the callers' certificates"
                )
            }
            (CertificateState::Ended, CertificateRole::RevocationList) => {
                format!(
                    "the {role} should have been followed by another by {until}: what it lists stays revoked, and what \
                     was revoked since is let in; put the new one in its place"
                )
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(from: &str, until: &str) -> CertificateFacts {
        CertificateFacts {
            role: CertificateRole::Server,
            path: "server.pem".into(),
            names: vec!["broker.example.org".to_owned()],
            not_before: from.parse().unwrap(),
            not_after: Some(until.parse().unwrap()),
        }
    }

    fn states(facts: &CertificateFacts, at: &[&str]) -> Vec<CertificateState> {
        at.iter().map(|now| facts.state(now.parse().unwrap())).collect()
    }

    #[test]
    fn one_of_an_hour_ends_soon_when_twelve_minutes_are_left() {
        use CertificateState::{Ended, EndsSoon, Good, NotYet};
        let hour = facts("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        let times = [
            "2025-12-31T23:59:59Z",
            "2026-01-01T00:00:00Z",
            "2026-01-01T00:47:59Z",
            "2026-01-01T00:48:00Z",
            "2026-01-01T00:59:59Z",
            "2026-01-01T01:00:00Z",
        ];
        assert_eq!(states(&hour, &times), [NotYet, Good, Good, EndsSoon, EndsSoon, Ended]);
    }

    #[test]
    fn one_of_years_ends_soon_thirty_days_before() {
        let years = facts("2020-01-01T00:00:00Z", "2030-01-31T00:00:00Z");
        let times = ["2029-12-31T23:59:59Z", "2030-01-01T00:00:00Z"];
        assert_eq!(states(&years, &times), [CertificateState::Good, CertificateState::EndsSoon]);
        let never = CertificateFacts { not_after: None, ..years };
        assert_eq!(states(&never, &["2999-01-01T00:00:00Z"]), [CertificateState::Good]);
    }

    #[test]
    fn what_must_be_done_is_said_and_nothing_where_all_is_well() {
        let mut hour = facts("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z");
        let complaint = |facts: &CertificateFacts, at: &str| facts.complaint(at.parse().unwrap());
        assert_eq!(complaint(&hour, "2026-01-01T00:30:00Z"), None);
        assert!(complaint(&hour, "2026-01-01T00:50:00Z").unwrap().contains("ends at 2026-01-01T01:00:00Z"));
        assert!(complaint(&hour, "2026-01-01T02:00:00Z").unwrap().contains("clients refuse"));
        hour.role = CertificateRole::RevocationList;
        assert!(complaint(&hour, "2026-01-01T02:00:00Z").unwrap().contains("stays revoked"));
    }
}
