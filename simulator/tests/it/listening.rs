//! The port: protocols, TLS, outages, the end.

use std::time::Duration;

use b2binpay_simulator::{Fault, FaultKind, Settings, Simulator, StartError, TlsFiles};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::net::TcpListener;

use crate::support::{builder, client, login_v3, start, try_post, v3};

/// A simulator behind TLS, and the certificate to trust.
async fn tls_simulator() -> (Simulator, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let files = TlsFiles { cert: directory.path().join("cert.pem"), key: directory.path().join("key.pem") };
    std::fs::write(&files.cert, cert.pem()).unwrap();
    std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
    (Simulator::builder().tls(files).start().await.unwrap(), cert.pem())
}

#[tokio::test]
async fn tls_is_served_with_http_2_and_http_1() {
    let (simulator, certificate) = tls_simulator().await;
    let url = format!("{}/ping", simulator.base_url());
    assert!(url.starts_with("https://"));
    let root = reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap();
    let trusting = || builder().tls_certs_only([root.clone()]);
    let h2 = trusting().build().unwrap().get(&url).send().await.unwrap();
    assert_eq!((h2.status().as_u16(), h2.version()), (200, reqwest::Version::HTTP_2));
    let h1 = trusting().http1_only().build().unwrap().get(&url).send().await.unwrap();
    assert_eq!((h1.status().as_u16(), h1.version()), (200, reqwest::Version::HTTP_11));
    assert!(client().get(&url).send().await.is_err(), "an unknown certificate is not trusted");
}

#[tokio::test]
async fn plain_http_2_is_served_with_prior_knowledge() {
    let simulator = start().await;
    let client = builder().http2_prior_knowledge().build().unwrap();
    let answer = client.get(format!("{}/ping", simulator.base_url())).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_2));
    simulator.inject(Fault::new(FaultKind::ResetBefore).on(b2binpay_simulator::Target::Ping));
    assert!(client.get(format!("{}/ping", simulator.base_url())).send().await.is_err());
}

#[tokio::test]
async fn certificates_that_can_not_be_used_are_refused_by_name() {
    let missing = TlsFiles { cert: "/nonexistent/cert.pem".into(), key: "/nonexistent/key.pem".into() };
    let Err(StartError::Tls(error)) = Simulator::builder().tls(missing).start().await else {
        panic!("it must not start")
    };
    assert!(error.to_string().contains("/nonexistent/cert.pem"), "{error}");
}

#[tokio::test]
async fn a_taken_address_is_refused_by_name() {
    let taken = start().await;
    let Err(error) = Simulator::builder().listen(taken.addr()).start().await else {
        panic!("it must not start")
    };
    assert!(error.to_string().contains(&taken.addr().to_string()), "{error}");
}

#[tokio::test]
async fn a_paused_port_refuses_and_comes_back_with_what_it_knew() {
    let simulator = start().await;
    let client = client();
    let ping = || client.get(format!("{}/ping", simulator.base_url())).send();
    ping().await.unwrap();
    let token = login_v3(&simulator).await.access().to_owned();
    simulator.pause_listening().await;
    assert!(ping().await.unwrap_err().is_connect(), "kept connections are closed too");
    simulator.resume_listening().await.unwrap();
    assert_eq!(ping().await.unwrap().status(), 200);
    assert!(simulator.is_live(&token));
}

#[tokio::test]
async fn a_port_that_was_taken_meanwhile_can_not_come_back() {
    let simulator = start().await;
    simulator.pause_listening().await;
    let thief = TcpListener::bind(simulator.addr()).await.unwrap();
    assert!(simulator.resume_listening().await.is_err());
    drop(thief);
    simulator.resume_listening().await.unwrap();
}

#[tokio::test]
async fn an_outage_ends_by_itself() {
    let simulator = start().await;
    simulator.outage(Duration::from_millis(50)).await;
    let attributes = v3(&simulator.credentials());
    simulator.set(|settings| settings.limit.calls = usize::MAX);
    // The outage begins in a moment: first calls are answered, then refused, then answered again.
    while try_post(&simulator, "/token/", attributes.clone()).await.is_ok() {}
    while try_post(&simulator, "/token/", attributes.clone()).await.is_err() {}
}

#[tokio::test]
async fn shut_down_or_dropped_it_is_gone() {
    let simulator = start().await;
    let url = format!("{}/ping", simulator.base_url());
    simulator.shutdown().await;
    assert!(client().get(&url).send().await.unwrap_err().is_connect());
    let again = Simulator::start(Settings::default()).await.unwrap();
    let addr = again.addr();
    drop(again);
    while TcpListener::bind(addr).await.is_err() {
        tokio::task::yield_now().await;
    }
}
