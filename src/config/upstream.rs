//! `[upstream]`: whom the broker asks for tokens, and how often it may.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Config, ConfigErrors, section::Section};
use crate::{
    credentials::ApiVersion,
    upstream::{BaseUrl, Environment, ProxyUrl},
};

/// Whom the broker asks for tokens. The defaults and ranges, and the reasons for them, are in [`super::KEYS`].
#[derive(Clone, PartialEq, Debug)]
pub struct Upstream {
    /// The generation of its API.
    pub api: ApiVersion,
    /// Where it is.
    pub base_url: BaseUrl,
    /// PEM certificates to check it against in place of the built-in authorities.
    pub ca_file: Option<PathBuf>,
    /// An HTTP proxy on the way, without a user and a password.
    pub proxy: Option<ProxyUrl>,
    /// The longest time for a connection, TLS included; at most `request_timeout`. 3 s unless configured: one lost packet
    /// and its repetition.
    pub connect_timeout: Duration,
    /// The longest time for a call as a whole. 10 s unless configured, and never more: that is what the budget's reserve
    /// covers.
    pub request_timeout: Duration,
    /// How often it may be called.
    pub budget: Budget,
}

/// No more than `requests` calls in any `window`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// How many calls. 15 unless configured: B2BINPAY's limit.
    pub requests: u32,
    /// In what time. 60 s unless configured: B2BINPAY's.
    pub window: Duration,
}

impl Upstream {
    pub(super) fn read(section: &Section<'_>, folder: &Path) -> Self {
        let api = api(section);
        let request_timeout = section.duration("request_timeout");
        let connect_timeout = match section.get("connect_timeout") {
            None => section.duration("connect_timeout").min(request_timeout),
            Some(value) => {
                let connect_timeout = section.duration("connect_timeout");
                if connect_timeout > request_timeout {
                    value.wrong("must not be longer than upstream.request_timeout, of which it is a part");
                }
                connect_timeout
            }
        };
        Self {
            api,
            base_url: base_url(section, api),
            ca_file: section.text("ca_file").map(|(name, _)| folder.join(name)),
            proxy: section.text("proxy").and_then(|(url, value)| {
                let refused = |error| value.wrong(format!("is no proxy that can be used: {error}"));
                ProxyUrl::parse(url).map_err(refused).ok()
            }),
            connect_timeout,
            request_timeout,
            budget: Budget::read(&section.section("upstream.budget"), section.get("base_url").is_some()),
        }
    }
}

impl Config {
    /// Reads the certificates of the authorities that may vouch for the upstream, where a file of them is named.
    pub fn read_authorities(&self) -> Result<Option<Vec<u8>>, ConfigErrors> {
        let Some(path) = &self.upstream.ca_file else { return Ok(None) };
        let unreadable = |error| {
            let message = format!("upstream.ca_file ({}) can't be read: {error}", path.display());
            ConfigErrors::whole(&self.file, message)
        };
        fs::read(path).map(Some).map_err(unreadable)
    }
}

impl Budget {
    /// What B2BINPAY allows.
    const OFFICIAL: Self = Self { requests: 15, window: Duration::from_secs(60) };

    fn read(section: &Section<'_>, own_server: bool) -> Self {
        let requests = u32::try_from(section.number("requests")).unwrap_or(u32::MAX);
        let budget = Self { requests, window: section.duration("window") };
        let told = section.get("requests").or_else(|| section.get("window"));
        if let Some(value) = told.filter(|_| !own_server && budget.allows_more_than(Self::OFFICIAL)) {
            value.odd("allows more calls than B2BINPAY does, which is 15 in 60s for each address: expect to be throttled");
        }
        budget
    }

    fn allows_more_than(self, other: Self) -> bool {
        self.requests > other.requests
            || self.window.as_millis() * u128::from(other.requests)
                < other.window.as_millis() * u128::from(self.requests)
    }
}

/// `api` of this section. Where it is wrong, which is reported, it passes for v3.
pub(super) fn api(section: &Section<'_>) -> ApiVersion {
    match section.choice("api") {
        Some("v2") => ApiVersion::V2,
        _ => ApiVersion::V3,
    }
}

/// Where the upstream is, from whichever of `environment` and `base_url` is written.
fn base_url(section: &Section<'_>, api: ApiVersion) -> BaseUrl {
    let environment = match section.choice("environment") {
        Some("sandbox") => Environment::Sandbox,
        _ => Environment::Production,
    };
    match (section.get("environment"), section.get("base_url")) {
        (Some(_), Some(value)) => {
            value.wrong("stands beside upstream.environment: one of them says where the upstream is, remove the other");
        }
        (None, Some(_)) => {
            if let Some((url, value)) = section.text("base_url") {
                match BaseUrl::parse(url) {
                    Ok(url) => return url,
                    Err(error) => value.wrong(format!("is no base URL that can be used: {error}")),
                }
            }
        }
        (None, None) if section.is_present() => section.wrong(
            "upstream.environment is missing; write environment = \"production\" or \"sandbox\", or base_url for another server",
        ),
        _ => {}
    }
    BaseUrl::well_known(api, environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_compared_by_its_burst_and_by_its_rate() {
        let budget = |requests, seconds| Budget { requests, window: Duration::from_secs(seconds) };
        for within in [budget(15, 60), budget(3, 60), budget(15, 90), budget(3, 12)] {
            assert!(!within.allows_more_than(Budget::OFFICIAL), "{within:?}");
        }
        for beyond in [budget(16, 60), budget(15, 59), budget(30, 120), budget(3, 11)] {
            assert!(beyond.allows_more_than(Budget::OFFICIAL), "{beyond:?}");
        }
    }
}
