//! `[upstream]`: whom the broker asks for tokens, and how often it may.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use http::Uri;

use super::section::{Section, Value};
use crate::credentials::ApiVersion;

/// Whom the broker asks for tokens. The defaults and ranges, and the reasons for them, are in [`super::KEYS`].
#[derive(Clone, PartialEq, Debug)]
pub struct Upstream {
    /// The generation of its API.
    pub api: ApiVersion,
    /// Where it is.
    pub server: Server,
    /// PEM certificates to check it against in place of the built-in authorities.
    pub ca_file: Option<PathBuf>,
    /// An HTTP proxy on the way, without a user and a password.
    pub proxy: Option<String>,
    /// The longest time for a connection, TLS included; at most `request_timeout`. 3 s unless configured: one lost packet
    /// and its repetition.
    pub connect_timeout: Duration,
    /// The longest time for a call as a whole. 10 s unless configured, and never more: that is what the budget's reserve
    /// covers.
    pub request_timeout: Duration,
    /// How often it may be called.
    pub budget: Budget,
}

/// Where the upstream is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Server {
    /// B2BINPAY's own, for real money.
    Production,
    /// B2BINPAY's own, for trying.
    Sandbox,
    /// Another, at this base URL: `https://`, or `http://` to a loopback address; no slash at the end, no user or password.
    At(String),
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
            server: server(section),
            ca_file: section.text("ca_file").map(|(name, _)| folder.join(name)),
            proxy: section.text("proxy").and_then(|(url, value)| proxy(url, &value)),
            connect_timeout,
            request_timeout,
            budget: Budget::read(&section.section("upstream.budget"), section.get("base_url").is_some()),
        }
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
fn server(section: &Section<'_>) -> Server {
    let environment = match section.choice("environment") {
        Some("sandbox") => Server::Sandbox,
        _ => Server::Production,
    };
    match (section.get("environment"), section.get("base_url")) {
        (Some(_), Some(value)) => {
            value.wrong("stands beside upstream.environment: one of them says where the upstream is, remove the other");
        }
        (None, Some(_)) => {
            if let Some((url, value)) = section.text("base_url") {
                match parse_base_url(url) {
                    Ok(url) => return Server::At(url),
                    Err(error) => value.wrong(error),
                }
            }
        }
        (None, None) if section.is_present() => section.wrong(
            "upstream.environment is missing; write environment = \"production\" or \"sandbox\", or base_url for another server",
        ),
        _ => {}
    }
    environment
}

/// Checks a base URL: the error follows the key's name.
fn parse_base_url(text: &str) -> Result<String, &'static str> {
    let url = plain_url(text)?;
    let host = url.host().unwrap_or_default();
    match url.scheme_str() {
        Some("https") => {}
        Some("http") if is_loopback(host) => {}
        Some("http") => {
            return Err(
                "must begin with https://, because the credentials travel to it; http:// is for loopback addresses (127.0.0.1, [::1], localhost)",
            );
        }
        _ => return Err("must begin with https://"),
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn proxy(text: &str, value: &Value<'_>) -> Option<String> {
    let checked = plain_url(text).and_then(|url| match url.scheme_str() {
        _ if url.path() != "/" => Err(SHAPE),
        Some("http" | "https") => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("must begin with http:// or https://"),
    });
    checked.map_err(|error| value.wrong(error)).ok()
}

const SHAPE: &str = "is a URL of a scheme, a host and perhaps a port, such as https://host.example:8443";

/// A URL of nothing but a scheme, a host and perhaps a port and a path.
fn plain_url(text: &str) -> Result<Uri, &'static str> {
    if text.contains('@') {
        return Err(
            "has a user or password in it, and no secret may stand here: remove what is before the @, and the @",
        );
    }
    if text.contains('#') {
        return Err(SHAPE);
    }
    let url: Uri = text.parse().map_err(|_| SHAPE)?;
    let bare = url.scheme().is_some() && url.host().is_some_and(|host| !host.is_empty());
    let port =
        url.authority().is_some_and(|all| Some(all.as_str()) == url.host() || url.port_u16().is_some());
    if bare && port && url.query().is_none() { Ok(url) } else { Err(SHAPE) }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_credentials_travel_encrypted_or_not_at_all() {
        for url in [
            "https://v3.api.coinsbuy.com",
            "https://v3.api.coinsbuy.com/",
            "https://host:8443",
            "https://host/path",
            "http://127.0.0.1:8080",
            "http://127.8.8.8",
            "http://[::1]:1",
            "http://localhost:8080",
        ] {
            assert_eq!(parse_base_url(url).as_deref(), Ok(url.trim_end_matches('/')));
        }
        for url in [
            "http://v3.api.coinsbuy.com",
            "http://127.0.0.1.example",
            "http://localhost.example",
            "http://10.0.0.1",
            "http://0.0.0.0",
            "ftp://host",
            "host",
            "host:443",
            "/path",
            "https://",
            "https://host:",
            "https://host:99999",
            "https://user:password@host",
            "https://token@host",
            "https://host?query",
            "https://host#fragment",
            "https://a b",
            "",
        ] {
            assert!(parse_base_url(url).is_err(), "{url}");
        }
    }

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
