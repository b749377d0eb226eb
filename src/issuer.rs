//! What an upstream can do: give tokens.

use std::{future::Future, pin::Pin, time::Duration};

use crate::token::{Grant, RefreshToken};

/// The answer of an issuer, when it comes.
pub type Answer<'a> = Pin<Box<dyn Future<Output = Result<Grant, IssueError>> + Send + 'a>>;

/// Somebody who makes access tokens of a credential set that it holds.
///
/// Each method makes exactly one call to the upstream, never more: whoever calls it has taken one from the budget. It
/// is answered within `timeout`, counted from its start.
pub trait TokenIssuer: Send + Sync + 'static {
    /// Logs in with the credentials.
    fn fetch_token(&self, timeout: Duration) -> Answer<'_>;

    /// Trades a refresh token for the next access token. Whatever the answer, unless its error says
    /// [`IssueError::spares_refresh_token`], the refresh token may be spent.
    fn refresh_token<'a>(&'a self, token: &'a RefreshToken, timeout: Duration) -> Answer<'a>;
}

/// Why there is no token. Each variant tells the keeper what it may do next; none holds anything secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IssueError {
    /// The request surely never left: no connection.
    #[error("the upstream can't be reached: {detail}")]
    NotSent {
        /// What failed, such as "connection refused".
        detail: String,
    },
    /// The request left, or may have; no whole answer came.
    #[error("no answer from the upstream: {detail}")]
    AnswerLost {
        /// What happened, such as "timed out after 4s".
        detail: String,
    },
    /// 429: somebody on this address or account spends the limit.
    #[error("the upstream throttles this address{}", retry_in(*retry_after))]
    Throttled {
        /// The `Retry-After` of the answer, as a span from now. Not clamped.
        retry_after: Option<Duration>,
    },
    /// The key or the secret is wrong.
    #[error("the upstream rejects the credentials ({detail})")]
    CredentialsRejected {
        /// Status and code of the answer.
        detail: String,
    },
    /// 401 to a refresh: the refresh token is spent, revoked or expired.
    #[error("the upstream rejects the refresh token ({detail})")]
    RefreshTokenRejected {
        /// Status and code of the answer.
        detail: String,
    },
    /// 403: this host's address is not on the account's allow-list.
    #[error("the upstream forbids this host's address ({detail})")]
    Forbidden {
        /// Status and code of the answer.
        detail: String,
    },
    /// Any other status that is not a success.
    #[error("the upstream answered {status}{}", in_parentheses(detail))]
    Failed {
        /// The HTTP status.
        status: u16,
        /// What else the answer said, if anything.
        detail: String,
    },
    /// A success that nothing can be made of.
    #[error("the upstream's answer can't be used: {detail}")]
    Unusable {
        /// What is wrong with it.
        detail: String,
    },
    /// The answer is not signed by who knows the secret: it is not from B2BINPAY.
    #[error("the upstream's answer has a wrong sign: it does not come from B2BINPAY, or the secret is wrong")]
    WrongSign,
}

impl IssueError {
    /// Whether a refresh token presented in the failed call is surely still good. Otherwise it must never be
    /// presented again: its second use would look like a theft, and log everybody out.
    pub const fn spares_refresh_token(&self) -> bool {
        matches!(self, Self::NotSent { .. } | Self::Throttled { .. })
    }

    /// A word for metrics and logs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NotSent { .. } => "not_sent",
            Self::AnswerLost { .. } => "answer_lost",
            Self::Throttled { .. } => "throttled",
            Self::CredentialsRejected { .. } => "credentials_rejected",
            Self::RefreshTokenRejected { .. } => "refresh_token_rejected",
            Self::Forbidden { .. } => "forbidden",
            Self::Failed { .. } => "failed",
            Self::Unusable { .. } => "unusable",
            Self::WrongSign => "wrong_sign",
        }
    }
}

fn retry_in(after: Option<Duration>) -> String {
    after.map(|after| format!(", for {}s more", after.as_secs())).unwrap_or_default()
}

fn in_parentheses(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(" ({detail})") }
}
