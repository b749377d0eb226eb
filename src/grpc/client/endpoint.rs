//! Where a broker is, and the way there.

use std::{fmt, io, path::PathBuf, str::FromStr, sync::Mutex, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tower::service_fn;

/// How often a broker that is silent is asked whether it is there, and how long it may take to answer that. Only while a
/// call is open: it is for streams, whose silence says nothing.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a broker is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// A Unix socket of this host.
    Unix(PathBuf),
    /// Another host, by TLS with certificates on both sides.
    Https(Uri),
}

/// Text that names no broker.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotAnEndpoint {
    /// Another scheme, or none.
    #[error("a broker is at unix:/path/of/its/socket or at https://host:port")]
    OtherScheme,
    /// A path alone.
    #[error("write unix: before the path of a socket")]
    BarePath,
    /// Nothing behind `unix:`.
    #[error("the path of the socket is missing, as in unix:/run/b2binpay-broker/broker.sock")]
    NoPath,
    /// `unix://host/path`
    #[error("unix:// is followed by an absolute path, as in unix:///run/b2binpay-broker/broker.sock")]
    HostOfASocket,
    /// TLS is not optional.
    #[error("a broker speaks nothing but TLS over the network: write https://")]
    Plaintext,
    /// `https://` and something that is not just a host and a port.
    #[error("write https://host:port and nothing behind it")]
    NotHostAndPort,
}

impl FromStr for Endpoint {
    type Err = NotAnEndpoint;

    fn from_str(text: &str) -> Result<Self, NotAnEndpoint> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.strip_prefix("//") {
                _ if path.is_empty() || path == "//" => Err(NotAnEndpoint::NoPath),
                Some(absolute) if absolute.starts_with('/') => Ok(Self::Unix(absolute.into())),
                Some(_) => Err(NotAnEndpoint::HostOfASocket),
                None => Ok(Self::Unix(path.into())),
            };
        }
        if text.starts_with("http://") {
            return Err(NotAnEndpoint::Plaintext);
        }
        if text.starts_with('/') || text.starts_with("./") {
            return Err(NotAnEndpoint::BarePath);
        }
        if !text.starts_with("https://") {
            return Err(NotAnEndpoint::OtherScheme);
        }
        let uri: Uri = text.parse().map_err(|_| NotAnEndpoint::NotHostAndPort)?;
        let only_authority = uri.path() == "/" && uri.query().is_none() && !text.contains(['@', '#']);
        if only_authority && uri.port_u16().is_some() && uri.host().is_some_and(|host| !host.is_empty()) {
            Ok(Self::Https(uri))
        } else {
            Err(NotAnEndpoint::NotHostAndPort)
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Https(uri) => {
                write!(f, "https://{}", uri.authority().map_or("", |authority| authority.as_str()))
            }
        }
    }
}

/// The certificates of a call over the network, all in PEM. No `Debug`: a private key is a secret.
#[derive(Clone)]
pub struct Tls {
    /// The authorities that may vouch for the broker; the system's don't.
    pub authorities: Vec<u8>,
    /// Who calls.
    pub certificate: Vec<u8>,
    /// The certificate's private key.
    pub key: Vec<u8>,
}

/// No connection. Says why and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no socket.
    #[error(
        "there is no socket at {}: start the broker (b2binpay-broker serve), or name another socket with --endpoint",
        .0.display()
    )]
    NoSocket(PathBuf),
    /// A socket that nobody listens on.
    #[error(
        "nobody listens at {}: the broker that made this socket is gone, or it is no socket; start the broker, or name \
         another socket with --endpoint",
        .0.display()
    )]
    NobodyListens(PathBuf),
    /// The file system keeps the caller out.
    #[error(
        "{} is closed to this user (uid {uid}): ask the operator for the socket's mode in [[listen]], and for a way \
         into its directory",
        path.display()
    )]
    Closed {
        /// The socket.
        path: PathBuf,
        /// Who is kept out.
        uid: u32,
    },
    /// Anything else about a socket.
    #[error("can't connect to {}: {error}", path.display())]
    Failed {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// An endpoint in the network needs certificates.
    #[error(
        "{0} needs --ca, --cert and --key: a broker knows its callers over the network by their certificates"
    )]
    CertificatesMissing(Endpoint),
    /// The network, or TLS.
    #[error(
        "can't connect to {endpoint}: {detail}; check the address, --ca, and that the broker trusts --cert"
    )]
    Network {
        /// Whereto.
        endpoint: Endpoint,
        /// What failed.
        detail: String,
    },
    /// No connection in time.
    #[error(
        "no connection to {endpoint} within {timeout:?}: the broker may be stopped or overloaded, or a firewall between"
    )]
    Slow {
        /// Whereto.
        endpoint: String,
        /// How long it was tried.
        timeout: Duration,
    },
}

impl ConnectError {
    /// Whether it is the caller's permissions that are missing.
    pub const fn is_not_allowed(&self) -> bool {
        matches!(self, Self::Closed { .. })
    }
}

impl Endpoint {
    pub(super) async fn connect(&self, tls: Option<&Tls>) -> Result<Channel, ConnectError> {
        match self {
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| refused(path.clone(), error))?;
                over(stream).await.map_err(|error| ConnectError::Failed {
                    path: path.clone(),
                    error: io::Error::other(error),
                })
            }
            Self::Https(uri) => {
                let tls = tls.ok_or_else(|| ConnectError::CertificatesMissing(self.clone()))?;
                let failed = |error: tonic::transport::Error| ConnectError::Network {
                    endpoint: self.clone(),
                    detail: innermost(&error),
                };
                let config = ClientTlsConfig::new()
                    .ca_certificate(Certificate::from_pem(&tls.authorities))
                    .identity(Identity::from_pem(&tls.certificate, &tls.key));
                let endpoint = patient(Channel::builder(uri.clone())).tls_config(config).map_err(failed)?;
                endpoint.connect().await.map_err(failed)
            }
        }
    }
}

fn refused(path: PathBuf, error: io::Error) -> ConnectError {
    match error.kind() {
        io::ErrorKind::NotFound => ConnectError::NoSocket(path),
        io::ErrorKind::ConnectionRefused => ConnectError::NobodyListens(path),
        io::ErrorKind::PermissionDenied => {
            ConnectError::Closed { path, uid: nix::unistd::geteuid().as_raw() }
        }
        _ => ConnectError::Failed { path, error },
    }
}

/// A channel over a connection that stands already. It can't be made again: the connector has only this one.
async fn over(stream: UnixStream) -> Result<Channel, tonic::transport::Error> {
    let only = Mutex::new(Some(stream));
    let connector = service_fn(move |_: Uri| {
        let stream = only.lock().ok().and_then(|mut stream| stream.take());
        std::future::ready(
            stream.map(TokioIo::new).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)),
        )
    });
    // The name is never looked up; some servers want an authority that is a host's.
    patient(Channel::builder(Uri::from_static("http://localhost"))).connect_with_connector(connector).await
}

fn patient(endpoint: tonic::transport::Endpoint) -> tonic::transport::Endpoint {
    endpoint.http2_keep_alive_interval(KEEPALIVE_INTERVAL).keep_alive_timeout(KEEPALIVE_TIMEOUT)
}

fn innermost(error: &tonic::transport::Error) -> String {
    let chain = std::iter::successors(Some(error as &dyn std::error::Error), |&error| error.source());
    chain.last().map(|cause| cause.to_string().trim_end_matches('.').to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_named_in_the_ways_of_grpc() {
        let unix = |path: &str| Ok(Endpoint::Unix(path.into()));
        assert_eq!("unix:/run/b.sock".parse(), unix("/run/b.sock"));
        assert_eq!("unix:///run/b.sock".parse(), unix("/run/b.sock"));
        assert_eq!("unix:b.sock".parse(), unix("b.sock"));
        assert_eq!("unix:/run/a b.sock".parse(), unix("/run/a b.sock"));
    }

    #[test]
    fn a_host_is_named_with_its_port_and_nothing_else() {
        let endpoint: Endpoint = "https://broker.internal:7443".parse().unwrap();
        assert_eq!(endpoint.to_string(), "https://broker.internal:7443");
        assert!("https://[::1]:7443/".parse::<Endpoint>().is_ok());
        for text in [
            "https://",
            "https://:1",
            "https://broker",
            "https://broker:7443/path",
            "https://broker:7443?q",
            "https://broker:7443#f",
            "https://user@broker:7443",
            "https://broker:99999",
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(NotAnEndpoint::NotHostAndPort), "{text:?}");
        }
    }

    #[test]
    fn what_names_no_broker_is_told_how_one_is_named() {
        for (text, error) in [
            ("", NotAnEndpoint::OtherScheme),
            ("broker.sock", NotAnEndpoint::OtherScheme),
            ("dns:broker:7443", NotAnEndpoint::OtherScheme),
            ("/run/broker.sock", NotAnEndpoint::BarePath),
            ("./broker.sock", NotAnEndpoint::BarePath),
            ("unix:", NotAnEndpoint::NoPath),
            ("unix://", NotAnEndpoint::NoPath),
            ("unix://run/broker.sock", NotAnEndpoint::HostOfASocket),
            ("http://127.0.0.1:7443", NotAnEndpoint::Plaintext),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn an_endpoint_shows_itself_as_it_is_written() {
        for text in ["unix:/run/b.sock", "https://broker:7443"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[tokio::test]
    async fn each_way_not_to_connect_has_its_sentence() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing.sock");
        let error = Endpoint::Unix(missing).connect(None).await.unwrap_err();
        assert!(error.to_string().contains("start the broker"), "{error}");

        let left_behind = directory.path().join("left.sock");
        drop(std::os::unix::net::UnixListener::bind(&left_behind).unwrap());
        let error = Endpoint::Unix(left_behind).connect(None).await.unwrap_err();
        assert!(error.to_string().contains("nobody listens"), "{error}");

        let error = refused("/s".into(), io::Error::from(io::ErrorKind::PermissionDenied));
        assert!(error.is_not_allowed() && error.to_string().contains("closed to this user"), "{error}");

        let elsewhere: Endpoint = "https://localhost:1".parse().unwrap();
        let error = elsewhere.connect(None).await.unwrap_err();
        assert!(error.to_string().contains("--ca, --cert and --key"), "{error}");
    }
}
