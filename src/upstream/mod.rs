//! B2BINPAY's authentication API, v2 and v3, behind [`TokenIssuer`].
//!
//! **Promise.** One call of a method is at most one HTTP request to the configured origin, over TLS or to this very
//! machine, and ends within its timeout. What comes back is a token that was checked (signed by B2BINPAY under v2, fit
//! for a header, with a lifetime that can be believed and errs on the short side), or an error that never claims more
//! than is known: [`IssueError::NotSent`] means that nobody has seen the request's secrets. No error, log line or
//! `Debug` text holds a secret or more of a URL than its origin.
//!
//! **Limits.** Timeouts run on tokio's timer, which stands still while the machine is suspended; a token that was
//! answered across a suspend has aged meanwhile, which its [`Grant`](crate::token::Grant) shows, since it counts from
//! before the request on the clock that runs on.
//!
//! **Not here.** When to call, how often, and what to do about an error: the keeper and the budget.

mod base_url;
mod checks;
mod client;
mod describe;
mod errors;
mod jwt;
mod quote;
mod retry_after;
#[cfg(test)]
mod tests;
mod v2;
mod v3;
mod wire;

use std::{fmt, sync::Arc, time::Duration};

pub use base_url::{BadBaseUrl, BadProxyUrl, BaseUrl, Environment, ProxyUrl};
use client::Client;

#[cfg(doc)]
use crate::issuer::IssueError;
use crate::{
    clock::Clock,
    credentials::{ApiVersion, Credentials},
    issuer::TokenIssuer,
};

/// How to reach the upstream.
#[derive(Clone)]
pub struct Settings {
    /// Which API it speaks.
    pub api: ApiVersion,
    /// Where it is.
    pub base_url: BaseUrl,
    /// Certificates of the authorities that may vouch for the upstream (and for an `https://` proxy), in PEM. They
    /// *replace* the system's: who names an authority means that one, and not also two hundred others. `None`: the
    /// system's, as they are now; `SSL_CERT_FILE` and `SSL_CERT_DIR` say where those are if they are not in the usual
    /// place.
    pub ca_pem: Option<Vec<u8>>,
    /// The proxy to tunnel through. The environment's are never used.
    pub proxy: Option<ProxyUrl>,
    /// The longest that name lookup, connection, tunnel and TLS handshake may take together.
    pub connect_timeout: Duration,
    /// The longest that a whole call may take, whatever timeout it was given.
    pub request_timeout: Duration,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("api", &self.api)
            .field("base_url", &self.base_url)
            .field("ca_pem", &self.ca_pem.as_ref().map(Vec::len))
            .field("proxy", &self.proxy)
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .finish()
    }
}

/// Why there is no way to call the upstream.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SetupError {
    /// The credentials are another API's.
    #[error("upstream.api is {configured}, but the credentials are for {credentials}")]
    CredentialsOfAnotherApi {
        /// The API in the settings.
        configured: ApiVersion,
        /// The API of the credentials.
        credentials: ApiVersion,
    },
    /// A loopback address means the proxy's host once it is spoken from there, and the password would go to it in the
    /// clear.
    #[error("upstream.proxy can't be used for an http:// base URL: remove one of them")]
    PlaintextThroughProxy,
    /// Nothing to trust.
    #[error(
        "upstream.ca_file holds no certificate that can be read: it must be PEM, -----BEGIN CERTIFICATE-----"
    )]
    BadAuthorities,
    /// A mistake of the program's, not of its configuration.
    #[error("no TLS crypto provider is installed in this process")]
    NoCryptoProvider,
    /// Most likely a machine without certificates of authorities.
    #[error("the HTTPS client can't be set up: {detail}; install ca-certificates or check upstream.ca_file")]
    Client {
        /// What failed.
        detail: String,
    },
}

/// Whoever issues tokens for `credentials` at the upstream that `settings` describe. Calls nobody yet.
pub fn issuer(
    settings: Settings,
    credentials: Credentials,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn TokenIssuer>, SetupError> {
    if settings.api != credentials.api {
        return Err(SetupError::CredentialsOfAnotherApi {
            configured: settings.api,
            credentials: credentials.api,
        });
    }
    let client = Client::new(settings, clock)?;
    Ok(match credentials.api {
        ApiVersion::V2 => Arc::new(v2::V2::new(client, credentials)),
        ApiVersion::V3 => Arc::new(v3::V3::new(client, credentials)),
    })
}
