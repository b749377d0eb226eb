//! The client against a broker in the network: TLS with certificates on both sides.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status, service::Routes};

use super::{super::proto, *};
use crate::grpc::proto::token_broker_service_server::{TokenBrokerService, TokenBrokerServiceServer};

/// Enough for anything that should not take any time.
const AMPLE: Duration = Duration::from_secs(20);

/// A broker that says what it was asked.
struct Echo;

#[tonic::async_trait]
impl TokenBrokerService for Echo {
    async fn get_access_token(
        &self,
        request: Request<proto::GetAccessTokenRequest>,
    ) -> Result<Response<GetAccessTokenResponse>, Status> {
        let deadline = request.metadata().get("grpc-timeout").map(|value| value.to_str().unwrap().to_owned());
        Ok(Response::new(GetAccessTokenResponse {
            access_token: request.get_ref().rejected_token_id.clone(),
            token_type: deadline.unwrap_or_default(),
            valid_for: request.get_ref().min_validity,
            ..GetAccessTokenResponse::default()
        }))
    }

    type WatchAccessTokenStream =
        Pin<Box<dyn Stream<Item = Result<WatchAccessTokenResponse, Status>> + Send>>;

    async fn watch_access_token(
        &self,
        request: Request<WatchAccessTokenRequest>,
    ) -> Result<Response<Self::WatchAccessTokenStream>, Status> {
        assert!(request.metadata().get("grpc-timeout").is_none(), "a stream has no end");
        let last = Err(Status::unavailable("the broker is stopping; connect again"));
        Ok(Response::new(Box::pin(stream::iter([Ok(WatchAccessTokenResponse::default()), last]))))
    }

    async fn verify_sign(
        &self,
        _: Request<VerifySignRequest>,
    ) -> Result<Response<VerifySignResponse>, Status> {
        std::future::pending().await
    }
}

async fn serve(io: impl hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static) {
    let routes = Routes::new(TokenBrokerServiceServer::new(Echo)).prepare();
    let service = tower::util::MapRequest::new(routes, |request: http::Request<hyper::body::Incoming>| {
        request.map(tonic::body::Body::new)
    });
    let _ = http2::Builder::new(TokioExecutor::new())
        .serve_connection(io, TowerToHyperService::new(service))
        .await;
}

/// An authority, with the certificates of a server and a client.
struct Pki(CertifiedIssuer<'static, KeyPair>);

impl Pki {
    fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "the authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// The certificate in PEM and DER, and its key.
    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap(), key)
    }

    fn acceptor(&self) -> TlsAcceptor {
        let (certificate, key) = self.issue("localhost");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut clients = RootCertStore::empty();
        clients.add(self.0.der().clone()).unwrap();
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(clients)).build().unwrap())
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols.push(b"h2".to_vec());
        TlsAcceptor::from(Arc::new(config))
    }

    fn client(&self) -> Tls {
        let (certificate, key) = self.issue("client.test");
        Tls {
            authorities: self.0.pem().into_bytes(),
            certificate: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        }
    }

    /// A server for one connection.
    async fn server(&self) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = self.acceptor();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(TokioIo::new(stream)).await;
            }
        });
        format!("https://localhost:{port}").parse().unwrap()
    }
}

/// A client of a server on a Unix socket that does this with its connection.
async fn on_a_socket<F: Future<Output = ()> + Send + 'static>(
    timeout: Duration,
    script: impl FnOnce(tokio::net::UnixStream) -> F + Send + 'static,
) -> Client {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        script(stream).await;
    });
    Client::connect(&Endpoint::Unix(path), None, timeout).await.unwrap()
}

#[tokio::test]
async fn a_request_arrives_as_it_was_wished_with_a_deadline() {
    let client = on_a_socket(AMPLE, |stream| serve(TokioIo::new(stream))).await;
    let wish = TokenWish {
        min_validity: Some(Duration::from_millis(1500)),
        rejected: Some("ba7816bf8f01cfea".to_owned()),
    };
    let token = client.token(wish).await.unwrap();
    assert_eq!(token.access_token, "ba7816bf8f01cfea");
    assert_eq!(span(token.valid_for), Some(Duration::from_millis(1500)));
    assert_eq!(token.token_type, "20000000u", "the deadline is told");
}

#[tokio::test]
async fn a_stream_has_no_deadline_and_ends_with_its_reason() {
    let client = on_a_socket(AMPLE, |stream| serve(TokioIo::new(stream))).await;
    let mut tokens = client.watch().await.unwrap();
    assert!(tokens.next().await.unwrap().is_ok());
    let error = tokens.next().await.unwrap().err().unwrap();
    assert!(error.to_string().contains("is stopping"), "{error}");
    assert_eq!(error.meaning, Meaning::Unavailable);
}

#[tokio::test]
async fn a_call_that_is_never_answered_ends_in_time() {
    let client = on_a_socket(Duration::from_millis(100), |stream| serve(TokioIo::new(stream))).await;
    let error = client.verify(Signed::Callback(Vec::new()), None).await.err().unwrap();
    assert_eq!((error.code, error.meaning), ("DEADLINE_EXCEEDED", Meaning::Unavailable));
}

#[tokio::test]
async fn a_broker_that_never_says_a_word_is_given_up_in_time() {
    let client = on_a_socket(Duration::from_millis(100), |stream| async {
        let _held = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let error = client.token(TokenWish::default()).await.err().unwrap();
    assert_eq!(error.code, "DEADLINE_EXCEEDED", "{error}");
    let error = client.watch().await.err().unwrap();
    assert_eq!(error.code, "DEADLINE_EXCEEDED", "{error}");
}

#[tokio::test]
async fn a_connection_that_breaks_is_no_answer() {
    let client = on_a_socket(AMPLE, |stream| async { drop(stream) }).await;
    let error = client.token(TokenWish::default()).await.err().unwrap();
    assert_eq!(error.meaning, Meaning::Unavailable, "{error}");
    assert!(error.to_string().contains("the connection to the broker broke"), "{error}");
}

#[tokio::test]
async fn over_the_network_both_sides_show_certificates() {
    let pki = Pki::new();
    let endpoint = pki.server().await;
    let client = Client::connect(&endpoint, Some(&pki.client()), AMPLE).await.unwrap();
    let wish = TokenWish { rejected: Some("it arrives".to_owned()), ..TokenWish::default() };
    assert_eq!(client.token(wish).await.unwrap().access_token, "it arrives");
}

#[tokio::test]
async fn a_broker_of_another_authority_is_not_talked_to() {
    let pki = Pki::new();
    let endpoint = pki.server().await;
    let stranger = Pki::new();
    let tls = Tls { authorities: stranger.0.pem().into_bytes(), ..pki.client() };
    let error = Client::connect(&endpoint, Some(&tls), AMPLE).await.err().unwrap();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn what_is_no_certificate_is_told_before_anybody_is_called() {
    let endpoint: Endpoint = "https://localhost:1".parse().unwrap();
    let tls = Tls { key: b"no key".to_vec(), ..Pki::new().client() };
    let error = Client::connect(&endpoint, Some(&tls), AMPLE).await.err().unwrap();
    assert!(!error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_client_of_another_authority_gets_nothing() {
    let pki = Pki::new();
    let endpoint = pki.server().await;
    let tls = Tls { authorities: pki.0.pem().into_bytes(), ..Pki::new().client() };
    let error = match Client::connect(&endpoint, Some(&tls), AMPLE).await {
        Ok(client) => client.token(TokenWish::default()).await.err().unwrap().to_string(),
        Err(error) => error.to_string(),
    };
    // What it is told depends on whether the server's alert or the closing of its connection comes first.
    assert!(error.contains("--cert"), "{error}");
}
