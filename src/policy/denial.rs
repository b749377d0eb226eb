//! Why a call may not go on.

use std::{net::IpAddr, time::Duration};

use super::{Permission, Rate, Selector};
use crate::caller::{CallerName, Peer};

/// Why a call may not go on. The message is for the caller's developer, and says what to ask the operator for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Denial {
    /// No rule names the peer.
    #[error("this {} is no caller that the broker knows: {}", sort_and(peer), wants(peer))]
    CallerUnknown {
        /// The peer.
        peer: Peer,
    },
    /// The peer's rule doesn't let it in from where it is.
    #[error(
        "caller {caller} may not call from {address}: that address is in none of the networks of its [[caller]] in the broker's configuration"
    )]
    NetworkNotAllowed {
        /// Who called.
        caller: CallerName,
        /// From where.
        address: IpAddr,
    },
    /// The peer's rule doesn't allow this.
    #[error(
        "caller {caller} may not use {permission}: its [[caller]] in the broker's configuration doesn't list that word under allow"
    )]
    MethodNotAllowed {
        /// Who called.
        caller: CallerName,
        /// What it lacks.
        permission: Permission,
    },
    /// The peer matches several rules.
    #[error(
        "this process ({peer}) matches more than one [[caller]] of the broker's configuration: {}. Which one it is must be decided there: take the user out of all but one of the groups, or remove all but one of these callers",
        list(callers)
    )]
    Ambiguous {
        /// The peer.
        peer: Peer,
        /// Whom it could be, and why.
        callers: Vec<(CallerName, Selector)>,
    },
    /// The caller calls more often than its rule allows.
    #[error(
        "caller {caller} has made its {rate} calls: keep the token until shortly before it expires, or watch it, instead of asking for it again and again; or have its rate raised in the broker's configuration"
    )]
    RateLimited {
        /// Who called.
        caller: CallerName,
        /// How often it may.
        rate: Rate,
        /// When it may again, from now.
        retry_after: Duration,
    },
    /// The caller has too many calls open at once.
    #[error(
        "caller {caller} has {most} calls open at once, watch streams included, which is all that one caller gets: share one stream and one connection in each process; or have [limits] max_calls_per_caller raised"
    )]
    TooManyCalls {
        /// Who called.
        caller: CallerName,
        /// How many it may have.
        most: usize,
    },
    /// There is no room for the message of the caller's request.
    #[error("there is no room for the message of caller {caller} now: {}; send large messages one after the other", taken_by(*most))]
    TooManyMessages {
        /// Who called.
        caller: CallerName,
        /// How many bytes of them it may have on their way, and has. `None`: it may have this one, and others have taken all
        /// the room there is.
        most: Option<usize>,
    },
}

fn taken_by(most: Option<usize>) -> String {
    match most {
        Some(most) => {
            format!(
                "{most} bytes of large messages on their way at once is all that one caller gets, and it has them"
            )
        }
        None => "all callers together have as many large messages on their way as the broker takes at once"
            .to_owned(),
    }
}

impl Denial {
    /// The word for it in errors and in the audit log.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::CallerUnknown { .. } | Self::Ambiguous { .. } => "CALLER_UNKNOWN",
            Self::NetworkNotAllowed { .. } => "NETWORK_NOT_ALLOWED",
            Self::MethodNotAllowed { .. } => "METHOD_NOT_ALLOWED",
            Self::RateLimited { .. } => "CALLER_RATE_LIMITED",
            Self::TooManyCalls { .. } | Self::TooManyMessages { .. } => "TOO_MANY_STREAMS",
        }
    }

    /// Who was denied, if the policy names them.
    pub const fn caller(&self) -> Option<&CallerName> {
        match self {
            Self::CallerUnknown { .. } | Self::Ambiguous { .. } => None,
            Self::NetworkNotAllowed { caller, .. }
            | Self::MethodNotAllowed { caller, .. }
            | Self::RateLimited { caller, .. }
            | Self::TooManyCalls { caller, .. }
            | Self::TooManyMessages { caller, .. } => Some(caller),
        }
    }
}

fn sort_and(peer: &Peer) -> String {
    match peer {
        Peer::Unix { .. } => format!("process ({peer})"),
        Peer::Tls { .. } => format!("peer ({peer})"),
    }
}

/// What the configuration would need, for this peer to be a caller.
const fn wants(peer: &Peer) -> &'static str {
    match peer {
        Peer::Unix { unit: None, .. } => {
            "its configuration needs a [[caller]] with this user as unix_user, or one of the process's groups as unix_group"
        }
        Peer::Unix { .. } => {
            "its configuration needs a [[caller]] with this user as unix_user, one of the process's groups as unix_group, or its unit as systemd_unit"
        }
        Peer::Tls { name: Ok(_), .. } => {
            "its configuration needs a [[caller]] with this name as spiffe_id or dns_name"
        }
        Peer::Tls { .. } => {
            "it needs a certificate with one SPIFFE ID or else one DNS name among its subject alternative names"
        }
    }
}

fn list(callers: &[(CallerName, Selector)]) -> String {
    let each: Vec<_> = callers.iter().map(|(name, selector)| format!("{name} (by {selector})")).collect();
    each.join(" and ")
}
