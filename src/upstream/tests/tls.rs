//! TLS: who is trusted, and that nothing secret leaves without.

use std::{
    convert::Infallible,
    env, fs, io,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    AMPLE, LOGIN, PASSWORD, REFRESH, a_refresh_token, credentials, is_alone, issuer_with,
    server::{Server, TOKEN, answer, hang, request, serve},
    settings,
};
use crate::{
    clock::SystemClock,
    credentials::ApiVersion::{self, V2, V3},
    issuer::{IssueError, TokenIssuer},
    token::Grant,
    upstream::{ProxyUrl, SetupError, issuer},
};

/// An authority of our own.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        Self::named("the authority")
    }

    fn named(name: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// What a server with a certificate for `name` answers TLS handshakes with.
    fn acceptor(&self, name: &str, alpn: &[u8]) -> TlsAcceptor {
        self.acceptor_with(&CertificateParams::new([name.to_owned()]).unwrap(), alpn)
    }

    fn acceptor_with(&self, params: &CertificateParams, alpn: &[u8]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols.push(alpn.to_vec());
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Answers a login over TLS, or gives the error of the handshake.
async fn answering(acceptor: TlsAcceptor) -> Server<io::Result<()>> {
    serve(async move |stream| {
        let mut stream = acceptor.accept(stream).await?;
        answer_login(&mut stream).await;
        Ok(())
    })
    .await
}

async fn answer_login(stream: &mut TlsStream<TcpStream>) {
    request(stream).await;
    stream.write_all(answer("200 OK", TOKEN).as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

fn trusting(ca_pem: Vec<u8>, api: ApiVersion, base_url: &str) -> Arc<dyn TokenIssuer> {
    let mut settings = settings(api, &base_url.replace("http:", "https:"));
    settings.ca_pem = Some(ca_pem);
    issuer_with(settings)
}

/// What a login trusting `ca_pem` at `server` gives.
async fn log_in<T>(ca_pem: Vec<u8>, server: &Server<T>) -> Result<Grant, IssueError> {
    trusting(ca_pem, V3, &server.base_url).fetch_token(AMPLE).await
}

fn not_sent(detail: &str) -> IssueError {
    IssueError::NotSent { detail: detail.to_owned() }
}

#[tokio::test]
async fn the_named_authority_is_trusted() {
    let authority = Authority::new();
    let server = answering(authority.acceptor("127.0.0.1", b"http/1.1")).await;
    log_in(authority.pem(), &server).await.unwrap();
    server.script.await.unwrap().unwrap();
}

#[tokio::test]
async fn any_of_several_named_authorities_is_trusted() {
    let (one, other) = (Authority::new(), Authority::new());
    let server = answering(other.acceptor("127.0.0.1", b"http/1.1")).await;
    log_in([one.pem(), other.pem()].concat(), &server).await.unwrap();
}

#[tokio::test]
async fn no_other_authority_is_trusted_and_the_request_is_not_sent() {
    for name in ["the authority", "another authority"] {
        let server = answering(Authority::named(name).acceptor("127.0.0.1", b"http/1.1")).await;
        assert_eq!(
            log_in(Authority::new().pem(), &server).await.unwrap_err(),
            not_sent("its certificate is not from an authority that is trusted here: check upstream.ca_file"),
            "{name}"
        );
        assert!(server.script.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new();
    let server = answering(authority.acceptor("upstream.example", b"http/1.1")).await;
    assert_eq!(
        log_in(authority.pem(), &server).await.unwrap_err(),
        not_sent("its certificate is not valid for the name 127.0.0.1")
    );
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_refused() {
    let authority = Authority::new();
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let server = answering(authority.acceptor_with(&params, b"http/1.1")).await;
    assert_eq!(
        log_in(authority.pem(), &server).await.unwrap_err(),
        not_sent("its certificate has expired, by this machine's clock")
    );
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_not_sent_anything() {
    let server = serve(async |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 This is plain HTTP\r\n\r\n").await;
        hang(stream).await;
    })
    .await;
    let error = log_in(Authority::new().pem(), &server).await.unwrap_err();
    let IssueError::NotSent { detail } = error else { panic!("{error:?}") };
    assert!(detail.starts_with("the TLS handshake failed: "), "{detail}");
}

#[tokio::test]
async fn a_proxy_sees_only_the_tunnel() {
    let authority = Authority::new();
    let acceptor = authority.acceptor("upstream.example", b"http/1.1");
    let proxy = serve(async move |mut stream| {
        let connect = request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 Go ahead\r\n\r\n").await.unwrap();
        answer_login(&mut acceptor.accept(stream).await.unwrap()).await;
        connect
    })
    .await;
    let mut settings = settings(V3, "https://upstream.example");
    settings.ca_pem = Some(authority.pem());
    settings.proxy = Some(ProxyUrl::parse(&proxy.base_url).unwrap());
    issuer_with(settings).fetch_token(AMPLE).await.unwrap();
    assert!(proxy.script.await.unwrap().starts_with("CONNECT upstream.example:443 "));
}

/// The machine's own authorities are looked for where the variable says, and there is one.
#[tokio::test]
async fn the_machines_authorities_are_trusted_unless_one_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("authorities.pem");
    let environment = [("SSL_CERT_FILE", file.to_str().unwrap())];
    if !is_alone("tls::the_machines_authorities_are_trusted_unless_one_is_named", &environment) {
        return;
    }
    let the_machines = Authority::new();
    fs::write(env::var_os("SSL_CERT_FILE").unwrap(), the_machines.pem()).unwrap();

    let server = answering(the_machines.acceptor("127.0.0.1", b"http/1.1")).await;
    let https = server.base_url.replace("http:", "https:");
    issuer_with(settings(V3, &https)).fetch_token(AMPLE).await.unwrap();

    let server = answering(the_machines.acceptor("127.0.0.1", b"http/1.1")).await;
    let named = Authority::named("named");
    assert_eq!(log_in(named.pem(), &server).await.unwrap_err().word(), "not_sent");
}

/// The machine's own authorities are looked for where these variables say.
#[tokio::test]
async fn a_machine_without_authorities_can_talk_to_itself_and_is_told_what_it_lacks_for_others() {
    let nowhere = [("SSL_CERT_FILE", "/nonexistent"), ("SSL_CERT_DIR", "/nonexistent")];
    let test = "tls::a_machine_without_authorities_can_talk_to_itself_and_is_told_what_it_lacks_for_others";
    if !is_alone(test, &nowhere) {
        return;
    }
    let server = serve(async |mut stream| {
        request(&mut stream).await;
        stream.write_all(answer("200 OK", TOKEN).as_bytes()).await.unwrap();
    })
    .await;
    issuer_with(settings(V3, &server.base_url)).fetch_token(AMPLE).await.unwrap();

    let authority = Authority::new();
    let server = answering(authority.acceptor("127.0.0.1", b"http/1.1")).await;
    log_in(authority.pem(), &server).await.unwrap();

    let made = issuer(settings(V3, "https://upstream.example"), credentials(V3), Arc::new(SystemClock));
    let error = made.err().unwrap().to_string();
    assert!(
        error.contains("no CA certificates were loaded from the system; install ca-certificates"),
        "{error}"
    );
}

#[test]
fn a_ca_file_without_a_certificate_is_refused() {
    for pem in [&b""[..], b"not PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let mut settings = settings(V3, "https://upstream.example");
        settings.ca_pem = Some(pem.to_vec());
        let made = issuer(settings, credentials(V3), Arc::new(SystemClock));
        assert_eq!(made.err(), Some(SetupError::BadAuthorities), "{}", String::from_utf8_lossy(pem));
    }
}

/// Plays v2 over HTTP/2 for one connection: refuses every refresh, and repeats what it was sent.
async fn serve_http2(acceptor: TlsAcceptor) -> Server<()> {
    async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        assert_eq!(request.version(), http::Version::HTTP_2);
        let length = request.headers()["content-length"].to_str().unwrap().parse();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(length, Ok(body.len()));
        let sent = String::from_utf8_lossy(&body).into_owned();
        let said = serde_json::json!({"errors": [{"code": "2007", "detail": sent}]}).to_string();
        Ok(Response::builder().status(401).body(Full::from(said)).unwrap())
    }
    serve(async move |stream| {
        let stream = TokioIo::new(acceptor.accept(stream).await.unwrap());
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        // The client closes as it likes; what it got is what the test looks at.
        let _ = connection.serve_connection(stream, service_fn(echo)).await;
    })
    .await
}

#[tokio::test]
async fn http_2_is_spoken_where_it_is_offered_and_no_log_shows_what_was_said() {
    if !is_alone("tls::http_2_is_spoken_where_it_is_offered_and_no_log_shows_what_was_said", &[]) {
        return;
    }
    let log = Log::default();
    let _capture = tracing::subscriber::set_default(
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(log.clone())
            .finish(),
    );

    let authority = Authority::new();
    let server = serve_http2(authority.acceptor("127.0.0.1", b"h2")).await;
    let issuer = trusting(authority.pem(), V2, &server.base_url);
    let error = issuer.refresh_token(&a_refresh_token(), AMPLE).await.unwrap_err();
    assert_eq!(error, IssueError::RefreshTokenRejected { detail: "401, code 2007".to_owned() });
    server.script.await.unwrap();

    let log = log.text();
    assert!(log.contains("called the upstream"), "{log}");
    assert!(log.contains(r#"call="refresh" outcome="refresh_token_rejected" status=401"#), "{log}");
    for secret in [LOGIN, PASSWORD, REFRESH] {
        assert!(!log.contains(secret), "{log}");
    }
}

/// A log that stays in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
