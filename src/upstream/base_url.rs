//! Where the upstream is, checked once so that nothing after has to ask again.
//!
//! A [`BaseUrl`] is `https://`, or `http://` to this very machine; a password never crosses a wire in the clear. Neither
//! it nor a [`ProxyUrl`] carries a user or a password: both are shown in logs and on the status page.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use reqwest::Url;
use rustls::pki_types::ServerName;

use crate::credentials::ApiVersion;

/// Which of B2BINPAY's own installations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Environment {
    /// Real money.
    Production,
    /// Play money.
    Sandbox,
}

impl Environment {
    /// `production` or `sandbox`, as in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Sandbox => "sandbox",
        }
    }
}

/// An origin and, where the API does not stand at its root, a path. Never ends in a slash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BaseUrl {
    text: String,
    origin: String,
    is_plaintext: bool,
}

/// Why a text is no base URL. Does not repeat the text, which may hold a password.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadBaseUrl {
    /// Something that no URL holds unescaped, and that parsers silently drop or turn into something else.
    #[error("it has white space, a backslash or characters outside ASCII")]
    OddCharacters,
    /// Not `scheme://host…`.
    #[error("it is not an absolute URL such as https://api.example.com")]
    NotAUrl,
    /// `user:password@`.
    #[error("it has an '@': a user or a password does not belong here, since the URL is shown in logs")]
    UserInfo,
    /// `?…` or `#…`.
    #[error("it has a query or a fragment: give the origin and, if the API stands below one, the path")]
    QueryOrFragment,
    /// A scheme that is not HTTP's.
    #[error("it must begin with https://")]
    OtherScheme,
    /// `http://` to another machine.
    #[error("http:// is for a loopback address (127.0.0.0/8, [::1] or localhost): use https://")]
    PlaintextToAnotherHost,
    /// A label of more than 63 characters, say.
    #[error("its host is neither a DNS name nor an address")]
    BadHost,
    /// `example.com.`: the same host under another name, and so a second call budget.
    #[error("the host ends in a dot: leave it out")]
    TrailingDot,
}

impl BaseUrl {
    /// The base URL of B2BINPAY's own installation.
    pub fn well_known(api: ApiVersion, environment: Environment) -> Self {
        let host = match (api, environment) {
            (ApiVersion::V2, Environment::Production) => "api.b2binpay.com",
            (ApiVersion::V2, Environment::Sandbox) => "api-sandbox.b2binpay.com",
            (ApiVersion::V3, Environment::Production) => "v3.api.b2binpay.com",
            (ApiVersion::V3, Environment::Sandbox) => "v3.api-sandbox.b2binpay.com",
        };
        Self { text: format!("https://{host}"), origin: format!("https://{host}:443"), is_plaintext: false }
    }

    /// Takes the text of a base URL, with or without a slash at its end.
    pub fn parse(text: &str) -> Result<Self, BadBaseUrl> {
        let url = plain_url(text)?;
        let host = url.host_str().ok_or(BadBaseUrl::NotAUrl)?;
        let is_plaintext = url.scheme() == "http";
        if is_plaintext && !is_loopback(host) {
            return Err(BadBaseUrl::PlaintextToAnotherHost);
        }
        let port = url.port_or_known_default().ok_or(BadBaseUrl::NotAUrl)?;
        Ok(Self {
            text: url.as_str().trim_end_matches('/').to_owned(),
            origin: format!("{}://{host}:{port}", url.scheme()),
            is_plaintext,
        })
    }

    /// `scheme://host:port`, equal for equal servers however the URL was written: what the call budget is recorded
    /// under.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The whole URL, without a slash at its end: what callers are told.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is `http://`, and so this very machine.
    pub(super) const fn is_plaintext(&self) -> bool {
        self.is_plaintext
    }

    /// The URL of `path` below it.
    pub(super) fn join(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// An HTTP proxy that asks no password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProxyUrl(Url);

/// Why a text is no proxy's URL. Does not repeat the text, which may hold a password.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadProxyUrl {
    /// What is wrong with any URL of ours.
    #[error(transparent)]
    Url(BadBaseUrl),
    /// Neither of the proxies that are understood.
    #[error("it must begin with http:// or https://")]
    OtherScheme,
    /// A proxy is a host and a port.
    #[error("it has a path: a proxy is a host and a port")]
    Path,
}

impl ProxyUrl {
    /// Takes the text of a proxy's URL, `http://host:port` or `https://host:port`.
    pub fn parse(text: &str) -> Result<Self, BadProxyUrl> {
        let url = plain_url(text).map_err(|bad| match bad {
            BadBaseUrl::OtherScheme => BadProxyUrl::OtherScheme,
            bad => BadProxyUrl::Url(bad),
        })?;
        if url.path() == "/" { Ok(Self(url)) } else { Err(BadProxyUrl::Path) }
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// An `http://` or `https://` URL without anything that hides: the parser forgives much (`https:\\host`, tabs, a third
/// slash) that a person who reads the configuration would take for another host.
fn plain_url(text: &str) -> Result<Url, BadBaseUrl> {
    if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
        return Err(BadBaseUrl::OddCharacters);
    }
    let (_, rest) = text.split_once("://").ok_or(BadBaseUrl::NotAUrl)?;
    if rest.starts_with('/') {
        return Err(BadBaseUrl::NotAUrl);
    }
    if rest.contains('@') {
        return Err(BadBaseUrl::UserInfo);
    }
    let url = Url::parse(text).map_err(|_| BadBaseUrl::NotAUrl)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(BadBaseUrl::OtherScheme);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(BadBaseUrl::QueryOrFragment);
    }
    let host = url.host_str().ok_or(BadBaseUrl::NotAUrl)?;
    if host.ends_with('.') {
        return Err(BadBaseUrl::TrailingDot);
    }
    // What no certificate can name, no handshake gets past.
    ServerName::try_from(without_brackets(host)).map_err(|_| BadBaseUrl::BadHost)?;
    Ok(url)
}

/// Whether a host as the URL parser writes it means this machine, whatever a name server says.
fn is_loopback(host: &str) -> bool {
    let bare = without_brackets(host);
    host == "localhost"
        || bare.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback())
        || bare.parse().is_ok_and(|ip: Ipv6Addr| ip.is_loopback())
}

/// An IPv6 address stands in brackets in a URL, and nowhere else.
fn without_brackets(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, String) {
        let url = BaseUrl::parse(text).unwrap();
        (url.as_str().to_owned(), url.origin().to_owned())
    }

    #[test]
    fn a_slash_at_the_end_makes_no_difference() {
        for text in ["https://api.example.com", "https://api.example.com/", "https://api.example.com//"] {
            assert_eq!(
                parsed(text),
                ("https://api.example.com".into(), "https://api.example.com:443".into())
            );
        }
        assert_eq!(
            BaseUrl::parse("https://a.example/v/").unwrap().join("/token/"),
            "https://a.example/v/token/"
        );
    }

    #[test]
    fn one_server_has_one_origin_however_it_is_written() {
        for text in
            ["https://API.Example.com", "HTTPS://api.example.com:443/x", "https://api.example.com:0443/"]
        {
            assert_eq!(BaseUrl::parse(text).unwrap().origin(), "https://api.example.com:443", "{text}");
        }
        assert_eq!(BaseUrl::parse("https://[2001:DB8:0::1]").unwrap().origin(), "https://[2001:db8::1]:443");
    }

    #[test]
    fn plaintext_goes_to_this_machine_alone() {
        for text in [
            "http://127.0.0.1:8080",
            "http://127.9.9.9",
            "http://[::1]:8080",
            "http://localhost",
            "http://LOCALHOST",
        ] {
            assert!(BaseUrl::parse(text).unwrap().is_plaintext(), "{text}");
        }
        for text in [
            "http://api.b2binpay.com",
            "http://10.0.0.1",
            "http://0.0.0.0",
            "http://128.0.0.1",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "http://[::2]",
            "http://[::]",
        ] {
            assert_eq!(BaseUrl::parse(text), Err(BadBaseUrl::PlaintextToAnotherHost), "{text}");
        }
    }

    #[test]
    fn what_hides_something_is_refused() {
        for (text, why) in [
            ("", BadBaseUrl::NotAUrl),
            ("api.example.com", BadBaseUrl::NotAUrl),
            ("https:api.example.com", BadBaseUrl::NotAUrl),
            ("https:///api.example.com", BadBaseUrl::NotAUrl),
            ("https://", BadBaseUrl::NotAUrl),
            ("https://a.example:99999", BadBaseUrl::NotAUrl),
            ("https:\\\\a.example", BadBaseUrl::OddCharacters),
            (" https://a.example", BadBaseUrl::OddCharacters),
            ("https://a.exa\tmple", BadBaseUrl::OddCharacters),
            ("https://b2bіnpay.com", BadBaseUrl::OddCharacters),
            ("https://user:password@a.example", BadBaseUrl::UserInfo),
            ("https://@a.example", BadBaseUrl::UserInfo),
            ("https://a.example?x", BadBaseUrl::QueryOrFragment),
            ("https://a.example/?", BadBaseUrl::QueryOrFragment),
            ("https://a.example/#x", BadBaseUrl::QueryOrFragment),
            ("ftp://a.example", BadBaseUrl::OtherScheme),
            ("file:///etc/passwd", BadBaseUrl::NotAUrl),
            ("https://a.example.", BadBaseUrl::TrailingDot),
            ("http://localhost.", BadBaseUrl::TrailingDot),
            (&format!("https://{}.example", "x".repeat(64)), BadBaseUrl::BadHost),
            ("https://-.example", BadBaseUrl::BadHost),
        ] {
            assert_eq!(BaseUrl::parse(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn the_well_known_ones_are_what_parsing_them_gives() {
        for (api, environment, text) in [
            (ApiVersion::V2, Environment::Production, "https://api.b2binpay.com"),
            (ApiVersion::V2, Environment::Sandbox, "https://api-sandbox.b2binpay.com"),
            (ApiVersion::V3, Environment::Production, "https://v3.api.b2binpay.com"),
            (ApiVersion::V3, Environment::Sandbox, "https://v3.api-sandbox.b2binpay.com"),
        ] {
            assert_eq!(Ok(BaseUrl::well_known(api, environment)), BaseUrl::parse(text));
        }
    }

    #[test]
    fn a_proxy_is_a_host_and_a_port_without_a_password() {
        assert_eq!(
            ProxyUrl::parse("http://proxy.example:3128").unwrap().to_string(),
            "http://proxy.example:3128"
        );
        assert!(ProxyUrl::parse("https://10.0.0.1/").is_ok());
        for (text, why) in [
            ("socks5://proxy.example", BadProxyUrl::OtherScheme),
            ("http://u:p@proxy.example", BadProxyUrl::Url(BadBaseUrl::UserInfo)),
            ("http://proxy.example/x", BadProxyUrl::Path),
            ("proxy.example:3128", BadProxyUrl::Url(BadBaseUrl::NotAUrl)),
        ] {
            assert_eq!(ProxyUrl::parse(text), Err(why), "{text:?}");
        }
    }
}
