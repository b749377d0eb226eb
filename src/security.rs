//! What a security person wants to know of at once.

use std::fmt;

use crate::{
    caller::CallerName,
    lockdown::{LockReason, Scope},
    token::TokenId,
};

/// Something that should not happen when everybody behaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SecurityEvent {
    /// The upstream refused a refresh token that was neither expired nor presented before by us: somebody else may have
    /// used it.
    RefreshTokenSuspicious,
    /// An answer that claims to be B2BINPAY's is not signed with the secret.
    UpstreamSignWrong,
    /// A caller says that the upstream answered 401 to a token that should be good.
    TokenReportedRejected {
        /// Which token.
        token: TokenId,
        /// Who says so.
        caller: CallerName,
    },
    /// A second caller said so: the token is handed out no more.
    TokenWithdrawn {
        /// Which token.
        token: TokenId,
    },
    /// The upstream throttled a call that the budget allowed: somebody else on this address or account calls it too.
    ForeignTraffic,
    /// Configuration, policy, certificates and credentials were read again and are in force.
    Reloaded {
        /// Who wanted it.
        by: String,
        /// What is other than before.
        changes: String,
    },
    /// They were read again, and what was found was not put in force.
    ReloadRefused {
        /// Who wanted it.
        by: String,
        /// Why.
        why: String,
    },
    /// The credentials were replaced, and those before them are used no more.
    CredentialsReplaced {
        /// Which set it is that is in force now, counted from the start.
        generation: u64,
    },
    /// Somebody locked out everyone or one caller.
    LockedDown {
        /// Whom.
        scope: Scope,
        /// Who did it.
        by: CallerName,
        /// Why.
        reason: LockReason,
    },
    /// Somebody let them in again.
    Unlocked {
        /// Whom.
        scope: Scope,
        /// Who did it.
        by: CallerName,
    },
}

impl SecurityEvent {
    /// A word for metrics and logs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::RefreshTokenSuspicious => "refresh_token_suspicious",
            Self::UpstreamSignWrong => "upstream_sign_wrong",
            Self::TokenReportedRejected { .. } => "token_reported_rejected",
            Self::TokenWithdrawn { .. } => "token_withdrawn",
            Self::ForeignTraffic => "foreign_traffic",
            Self::Reloaded { .. } => "reloaded",
            Self::ReloadRefused { .. } => "reload_refused",
            Self::CredentialsReplaced { .. } => "credentials_replaced",
            Self::LockedDown { .. } => "locked_down",
            Self::Unlocked { .. } => "unlocked",
        }
    }
}

impl fmt::Display for SecurityEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RefreshTokenSuspicious => f.write_str(
                "the upstream refused an unexpired refresh token that this broker had not used: \
                 somebody else may have it; if so, lock down and regenerate the credentials",
            ),
            Self::UpstreamSignWrong => f.write_str(
                "an answer of the upstream has a wrong sign and was not used: somebody may stand between; \
                 check base_url, proxy and DNS",
            ),
            Self::TokenReportedRejected { token, caller } => {
                write!(
                    f,
                    "caller {caller} says that the upstream answered 401 to token {token}; asking for another"
                )
            }
            Self::TokenWithdrawn { token } => {
                write!(
                    f,
                    "two callers say that the upstream answered 401 to token {token}: it is handed out no more"
                )
            }
            Self::LockedDown { scope, by, reason } => write!(f, "{by} locked out {scope}: {reason}"),
            Self::Unlocked { scope, by } => write!(f, "{by} let {scope} in again"),
            Self::ForeignTraffic => f.write_str(
                "the upstream throttled a call that the budget allowed: something else uses the same address \
                 or account; find it and let it ask this broker",
            ),
            Self::Reloaded { by, changes } => write!(f, "everything was read again for {by}: {changes}"),
            Self::ReloadRefused { by, why } => write!(f, "a reload for {by} was refused: {why}"),
            Self::CredentialsReplaced { generation } => {
                write!(f, "the credentials were replaced; generation {generation} is in force")
            }
        }
    }
}
