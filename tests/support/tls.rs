//! A daemon on a TCP port, and clients with certificates.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::Endpoint;
use tower::service_fn;

use b2binpay_simulator::{Api, Simulator};

use super::{
    Caller, Daemon, Home, Setup, generous,
    pki::{Authority, Identity, Says, replace},
    soon,
};

/// The name in the broker's certificate.
pub const BROKER: &str = "broker.example.org";
/// A caller that may do everything.
pub const PAYOUTS: &str = "spiffe://example.org/payouts";
/// One by its host's name, from 127.0.0.2 alone.
pub const BILLING: &str = "billing.example.org";

const CALLERS: &str = r#"
[[caller]]
name = "payouts"
spiffe_id = "spiffe://example.org/payouts"
allow = ["GetAccessToken", "WatchAccessToken", "Admin"]
[[caller]]
name = "billing"
dns_name = "billing.example.org"
networks = ["127.0.0.2/32"]
allow = ["GetAccessToken"]
"#;

/// A daemon on a TCP port, in a folder with its certificates, and the authorities.
pub struct Port {
    pub daemon: Daemon,
    pub simulator: Simulator,
    /// Vouches for callers.
    pub clients: Authority,
    /// Vouches for the broker.
    pub servers: Authority,
    pub address: SocketAddr,
}

impl Port {
    pub async fn open() -> Self {
        Self::with("", "").await
    }

    /// With more keys for `[[listen]]`, and `[limits]`.
    pub async fn with(listen: &str, limits: &str) -> Self {
        let (simulator, home, clients, servers) = Self::prepare(listen, limits).await;
        Self::serve(simulator, home, clients, servers).await
    }

    /// The same but for starting it.
    pub async fn prepare(listen: &str, limits: &str) -> (Simulator, Home, Authority, Authority) {
        let simulator = Simulator::start(generous(Api::V3)).await.expect("the simulator starts");
        let (clients, servers) = (Authority::new("clients"), Authority::new("servers"));
        let setup = Setup {
            rest: format!(
                "[[listen]]\ntcp = \"127.0.0.1:0\"\ncert = \"server.pem\"\nkey = \"server.key\"\n\
                 client_ca = \"clients.pem\"\n{listen}\n[limits]\n{limits}\n"
            ),
            callers: Some(CALLERS.to_owned()),
            ..Setup::default()
        };
        let home = Home::new(&simulator, &setup);
        show(&home, &servers.issue(&Says::dns(BROKER)));
        replace(&home.path().join("clients.pem"), &clients.pem());
        (simulator, home, clients, servers)
    }

    pub async fn serve(simulator: Simulator, home: Home, clients: Authority, servers: Authority) -> Self {
        let daemon = Daemon::start_in(home).await;
        // Its sockets are told one after the other, this one last.
        daemon.logged("\"socket\":\"127.0.0.1:").await;
        let log = daemon.log();
        let (_, address) = log.split_once("\"socket\":\"127.0.0.1:").expect("it was just seen");
        let (port, _) = address.split_once('"').expect("a port");
        let address = SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")));
        Self { daemon, simulator, clients, servers, address }
    }

    /// Whoever has this certificate, as a proper client.
    pub fn client(&self, identity: &Identity) -> Client {
        Client {
            address: self.address,
            from: None,
            identity: Some(identity.clone()),
            authority: self.servers.pem(),
            versions: vec![&TLS13],
            room: None,
            alpn: b"h2",
        }
    }

    /// The caller that may do everything.
    pub fn payouts(&self) -> Client {
        self.client(&self.clients.issue(&Says::uri(PAYOUTS)))
    }

    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.daemon.home.path().join(name)
    }
}

/// Puts a server's certificate and key in their files.
pub fn show(home: &Home, identity: &Identity) {
    replace(&home.path().join("server.pem"), &identity.cert);
    replace(&home.path().join("server.key"), &identity.key);
}

/// How one connects.
#[derive(Clone)]
pub struct Client {
    pub address: SocketAddr,
    pub from: Option<IpAddr>,
    pub identity: Option<Identity>,
    /// Whom it believes.
    pub authority: String,
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// How much its host takes before it reads, in bytes; `None`: as usual.
    pub room: Option<u32>,
    pub alpn: &'static [u8],
}

impl Client {
    pub fn from(self, ip: &str) -> Self {
        Self { from: Some(ip.parse().expect("an address")), ..self }
    }

    pub fn with_tls12_alone(self) -> Self {
        Self { versions: vec![&TLS12], ..self }
    }

    /// So that what it doesn't read stays with the broker.
    pub fn with_little_room(self) -> Self {
        Self { room: Some(4096), ..self }
    }

    /// A connection over which nothing was said at all.
    pub async fn tcp(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(room) = self.room {
            socket.set_recv_buffer_size(room)?;
        }
        if let Some(from) = self.from {
            socket.bind((from, 0).into())?;
        }
        socket.connect(self.address).await
    }

    fn config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(Identity { cert, key, .. }) => {
                let chain = CertificateDer::pem_slice_iter(cert.as_bytes()).map(Result::unwrap).collect();
                builder
                    .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                    .unwrap()
            }
        };
        config.alpn_protocols = vec![self.alpn.to_vec()];
        config
    }

    /// What remembers sessions from one connection to the next.
    pub fn connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::new(self.config()))
    }

    /// A connection over which nothing was said but TLS.
    pub async fn connect(&self) -> io::Result<TlsStream<TcpStream>> {
        self.connect_by(&self.connector()).await
    }

    /// The same, by a connector that may have been used before.
    pub async fn connect_by(&self, connector: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
        Self::handshake(connector, self.tcp().await?).await
    }

    /// The same, over a connection that is open.
    pub async fn handshake(connector: &TlsConnector, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        connector.connect(ServerName::try_from(BROKER).unwrap(), tcp).await
    }

    /// Whether HTTP/2 is answered. With TLS 1.3 a client learns only then that its certificate was refused.
    pub async fn greet(&self) -> io::Result<()> {
        let mut stream = self.connect().await?;
        // The preface and empty settings.
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        soon("an answer or an end", stream.read_exact(&mut [0; 9])).await.map(drop)
    }

    /// A gRPC client.
    pub fn caller(&self) -> Caller {
        let client = self.clone();
        let connector = service_fn(move |_| {
            let client = client.clone();
            async move { client.connect().await.map(TokioIo::new) }
        });
        Caller {
            channel: Endpoint::from_static("http://broker.example.org")
                .connect_with_connector_lazy(connector),
        }
    }
}
