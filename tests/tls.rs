//! Mutual TLS: who gets in over TCP, as whom, and for how long.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::fs;

use b2binpay_broker::grpc::proto::CertificateState;
use nix::sys::signal::Signal;
use rcgen::ExtendedKeyUsagePurpose;
use rustls::version::{TLS12, TLS13};
use support::{
    Answered, Caller, Daemon,
    pki::{Authority, HOUR, NOTICED, Says, replace},
    soon,
    tls::{BILLING, BROKER, Client, PAYOUTS, Port, show},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn reason(caller: Caller) -> String {
    caller.token().await.refused().reason
}

#[tokio::test]
async fn a_caller_is_who_its_certificate_says_and_where_the_policy_says() {
    let port = Port::open().await;
    let issue = |says| port.client(&port.clients.issue(&says));

    assert!(port.payouts().caller().token().await.is_ok());
    let several = Says { dns_names: vec![BILLING, "other.example.org"], ..Says::uri(PAYOUTS) };
    let caller = issue(several).caller();
    assert!(caller.status().await.is_ok(), "what has a URI is known by that alone");

    let billing = issue(Says::dns(BILLING));
    assert!(billing.clone().from("127.0.0.2").caller().token().await.is_ok());
    assert_eq!(reason(billing.from("127.0.0.1").caller()).await, "NETWORK_NOT_ALLOWED");

    for nameless in [
        Says { uris: vec![PAYOUTS, PAYOUTS], ..Says::default() },
        Says { uris: vec![PAYOUTS, "https://example.org"], ..Says::default() },
        Says { dns_names: vec![BILLING, "other.example.org"], ..Says::default() },
        Says { dns_names: vec![BILLING], ..Says::uri("https://example.org/payouts") },
        Says::dns("*.example.org"),
        Says::uri("spiffe://example.org/somebody"),
        Says::dns("somebody.example.org"),
    ] {
        let (uris, names) = (nameless.uris.clone(), nameless.dns_names.clone());
        let client = issue(nameless).from("127.0.0.2");
        assert_eq!(reason(client.caller()).await, "CALLER_UNKNOWN", "{uris:?} {names:?}");
    }
}

#[tokio::test]
async fn a_common_name_and_an_address_are_no_names_and_the_answer_says_what_is() {
    let port = Port::open().await;
    let address = Says { addresses: vec!["127.0.0.1".parse().unwrap()], ..Says::default() };
    for says in [Says::default(), address] {
        let refused = port.client(&port.clients.issue(&says)).caller().token().await.refused();
        assert_eq!(refused.reason, "CALLER_UNKNOWN");
        for told in ["no URI and no DNS name", "don't count", "one SPIFFE ID or else one DNS name"] {
            assert!(refused.message.contains(told), "{}", refused.message);
        }
    }
}

#[tokio::test]
async fn a_certificate_for_servers_alone_is_no_client_s() {
    let port = Port::open().await;
    let purposes = |purposes| port.client(&port.clients.issue(&Says { purposes, ..Says::uri(PAYOUTS) }));
    assert!(purposes(vec![ExtendedKeyUsagePurpose::ServerAuth]).greet().await.is_err());
    port.daemon.logged("TLS handshake failed: its certificate is not for clients").await;
    assert!(purposes(vec![ExtendedKeyUsagePurpose::ClientAuth]).greet().await.is_ok());
    // One that doesn't say what it is for is for everything, as everywhere: docs/security.md says what follows from that.
    assert!(purposes(Vec::new()).greet().await.is_ok());
}

#[tokio::test]
async fn who_has_no_right_certificate_does_not_get_in_and_the_log_says_why() {
    let (simulator, home, clients, servers) = Port::prepare("client_crl = [\"clients.crl\"]\n", "").await;
    let revoked = clients.issue(&Says::uri(PAYOUTS));
    replace(&home.path().join("clients.crl"), &clients.revoke(&[&revoked]));
    let port = Port::serve(simulator, home, clients, servers).await;
    assert!(port.payouts().greet().await.is_ok());

    let issued = |from, until| port.client(&port.clients.issue(&Says { from, until, ..Says::uri(PAYOUTS) }));
    let of = |name| port.client(&Authority::new(name).issue(&Says::uri(PAYOUTS)));
    for (client, why) in [
        (of("strangers"), "its certificate is of no authority in listen.client_ca"),
        (of("clients"), "its certificate was not signed by the authority that it names"),
        (issued(-100, -10), "its certificate has expired"),
        (issued(100, 1000), "its certificate is not valid yet"),
        (port.client(&revoked), "its certificate is revoked"),
        (Client { identity: None, ..port.payouts() }, "it shows no certificate"),
        (Client { alpn: b"http/1.1", ..port.payouts() }, "it doesn't offer HTTP/2"),
        (port.payouts().with_tls12_alone(), "it speaks an older TLS"),
        (Client { authority: port.clients.pem(), ..port.payouts() }, "it refuses the broker"),
    ] {
        assert!(client.greet().await.is_err(), "{why}");
        port.daemon.logged(&format!("TLS handshake failed: {why}")).await;
    }
    port.daemon.logged("TLS handshakes failed, the last because: ").await;
    // The audit log stands between the lines of the log, where it has no file.
    let told = |reason: &str| format!("\"decision\":\"denied\",\"reason\":\"{reason}\"");
    for reason in ["CERTIFICATE_REVOKED", "CERTIFICATE_EXPIRED", "NO_CERTIFICATE", "TLS_INCOMPATIBLE"] {
        port.daemon.logged(&told(reason)).await;
    }
    port.daemon.logged("\"event\":\"handshake_failed\",\"caller\":{\"address\":\"127.0.0.1:").await;
}

#[tokio::test]
async fn what_is_no_tls_is_refused_at_once() {
    let port = Port::open().await;
    for said in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut stream = TcpStream::connect(port.address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = soon("the end", stream.read_to_end(&mut answer)).await;
        // An alert of TLS at the most.
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    }
    port.daemon.logged("TLS handshake failed: it doesn't speak TLS").await;
    assert!(port.payouts().caller().token().await.is_ok());
}

#[tokio::test]
async fn tls_1_2_is_spoken_where_the_operator_says_so() {
    let port = Port::with("min_tls = \"1.2\"\n", "").await;
    let old = port.payouts().with_tls12_alone();
    assert!(old.caller().token().await.is_ok());
    let both = Client { versions: vec![&TLS12, &TLS13], ..port.payouts() };
    let stream = both.connect().await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let nobody = Client { identity: None, ..old };
    assert!(nobody.greet().await.is_err());
}

#[tokio::test]
async fn no_session_is_resumed_since_that_would_show_no_certificate() {
    let port = Port::with("min_tls = \"1.2\"\n", "").await;
    for client in [port.payouts(), port.payouts().with_tls12_alone()] {
        let connector = client.connector();
        for _ in 0..3 {
            let mut stream = client.connect_by(&connector).await.unwrap();
            // Tickets would come behind the handshake, before the settings.
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
            stream.read_exact(&mut [0; 9]).await.unwrap();
            let session = stream.get_ref().1;
            assert_eq!(session.handshake_kind(), Some(rustls::HandshakeKind::Full));
            assert_eq!(session.tls13_tickets_received(), 0);
        }
    }
}

#[tokio::test]
async fn certificates_are_replaced_under_a_stream_that_goes_on() {
    let port = Port::open().await;
    let payouts = port.payouts();
    let mut stream = payouts.caller().watch().await.unwrap();
    let first = soon("a token", stream.message()).await.unwrap().unwrap();

    let others = Authority::new("other servers");
    show(&port.daemon.home, &others.issue(&Says::dns(BROKER)));
    port.daemon.logged("server certificate: in force from now on").await;
    assert!(payouts.greet().await.is_err(), "the old authority vouches for it no more");
    let renewed = Client { authority: others.pem(), ..payouts };
    assert!(renewed.caller().token().await.is_ok());

    let rejected = first.token.unwrap().token_id;
    renewed.caller().token_for(std::time::Duration::ZERO, &rejected, None).await.unwrap();
    let second = soon("another token", stream.message()).await.unwrap().unwrap();
    assert_ne!(second.token.unwrap().token_id, rejected);
}

#[tokio::test]
async fn garbage_in_a_file_keeps_what_was_and_is_told_once() {
    let port = Port::open().await;
    replace(&port.file("clients.pem"), "garbage");
    port.daemon.logged("can't be used; the old ones stay in force").await;
    port.daemon.logged("listen.client_ca").await;
    assert!(port.payouts().caller().token().await.is_ok());

    // A key without its certificate is told of as well, and then the certificate comes.
    replace(&port.file("clients.pem"), &port.clients.pem());
    let renewed = port.servers.issue(&Says::dns(BROKER));
    replace(&port.file("server.key"), &renewed.key);
    port.daemon.logged("the private key is not that of the first certificate").await;
    assert!(port.payouts().caller().token().await.is_ok());
    let in_force = |log: &str| log.matches("in force from now on").count();
    let before = in_force(&port.daemon.log());
    replace(&port.file("server.pem"), &renewed.cert);
    port.daemon.logged_so_that("the new certificate is in force", |log| in_force(log) > before).await;
    let stream = port.payouts().connect().await.unwrap();
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let expected = rustls::pki_types::pem::PemObject::from_pem_slice(renewed.cert.as_bytes());
    let expected: rustls::pki_types::CertificateDer<'_> = expected.unwrap();
    assert_eq!(shown, expected.to_vec());
    assert_eq!(port.daemon.log().matches("stay in force").count(), 2, "each once");
}

/// Waits for the end of a stream whose peer is no longer believed.
async fn ended(stream: &mut tonic::Streaming<b2binpay_broker::grpc::proto::WatchAccessTokenResponse>) {
    let end =
        tokio::time::timeout(NOTICED, async { while let Ok(Some(_)) = stream.message().await {} }).await;
    assert!(end.is_ok(), "the stream goes on");
}

#[tokio::test]
async fn who_is_revoked_while_connected_is_ended_and_others_are_not() {
    let (simulator, home, clients, servers) = Port::prepare("client_crl = [\"clients.crl\"]\n", "").await;
    replace(&home.path().join("clients.crl"), &clients.revoke(&[]));
    let port = Port::serve(simulator, home, clients, servers).await;
    let identity = port.clients.issue(&Says::uri(PAYOUTS));
    let bad = port.client(&identity);
    let mut stream = bad.caller().watch().await.unwrap();
    let mut other = port.payouts().caller().watch().await.unwrap();
    soon("a token", stream.message()).await.unwrap();
    soon("a token", other.message()).await.unwrap();

    replace(&port.file("clients.crl"), &port.clients.revoke(&[&identity]));
    ended(&mut stream).await;
    port.daemon.logged("its connection ends: its certificate is revoked").await;
    port.daemon.logged("\"event\":\"connection_ended\",\"caller\":{\"name\":\"payouts\",").await;
    assert!(bad.greet().await.is_err());
    let silent = tokio::time::timeout(std::time::Duration::from_secs(2), other.message()).await;
    assert!(silent.is_err(), "the other's stream goes on, and has nothing to say");
}

#[tokio::test]
async fn who_has_an_authority_that_is_believed_no_more_is_ended() {
    let port = Port::open().await;
    let caller = port.payouts().caller();
    let mut stream = caller.watch().await.unwrap();
    soon("a token", stream.message()).await.unwrap();
    let successor = Authority::new("clients");
    replace(&port.file("clients.pem"), &successor.pem());
    ended(&mut stream).await;
    let new = port.client(&successor.issue(&Says::uri(PAYOUTS)));
    assert!(new.caller().token().await.is_ok());
}

#[tokio::test]
async fn who_has_a_certificate_that_ends_is_ended_with_it() {
    let port = Port::open().await;
    let short = port.clients.issue(&Says { until: 15, ..Says::uri(PAYOUTS) });
    let mut stream = port.client(&short).caller().watch().await.unwrap();
    soon("a token", stream.message()).await.unwrap();
    ended(&mut stream).await;
    port.daemon.logged("its connection ends: its certificate has expired").await;
}

#[tokio::test]
async fn silent_connections_do_not_keep_a_good_caller_out() {
    let port = Port::with("", "max_handshakes = 8\nhandshake_timeout = \"1m\"\n").await;
    let payouts = port.payouts();
    let mut silent = Vec::new();
    for round in 0..40 {
        for _ in 0..10 {
            silent.push(TcpStream::connect(port.address).await.unwrap());
        }
        if round % 10 == 9 {
            assert!(payouts.caller().token().await.is_ok(), "after {} silent ones", silent.len());
        }
    }
    port.daemon.logged("there were too many (limits.max_handshakes)").await;
    // All but the youngest were closed.
    let mut first = silent.swap_remove(0);
    assert_eq!(soon("its end", first.read(&mut [0])).await.unwrap_or_default(), 0);
}

#[tokio::test]
async fn a_handshake_that_is_never_ended_is_over_in_time() {
    let port = Port::with("", "handshake_timeout = \"200ms\"\n").await;
    let mut stream = TcpStream::connect(port.address).await.unwrap();
    stream.write_all(&[22, 3, 1, 2]).await.unwrap();
    assert_eq!(soon("its end", stream.read(&mut [0])).await.unwrap_or_default(), 0);
    port.daemon.logged("it took longer than limits.handshake_timeout").await;
}

#[tokio::test]
async fn the_commands_work_over_the_network() {
    let port = Port::open().await;
    let payouts = port.clients.issue(&Says::uri(PAYOUTS));
    for (name, content) in [
        ("ca.pem", &port.servers.issue(&Says::dns("localhost")).cert),
        ("me.pem", &payouts.cert),
        ("me.key", &payouts.key),
    ] {
        replace(&port.file(name), content);
    }
    replace(&port.file("ca.pem"), &port.servers.pem());
    // The commands look for the name that they connect to.
    show(&port.daemon.home, &port.servers.issue(&Says::dns("localhost")));
    port.daemon.logged("in force from now on").await;
    let run = async |command: &str| {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_b2binpay-broker"))
            .args([command, "--json", "--endpoint", &format!("https://localhost:{}", port.address.port())])
            .arg("--ca")
            .arg(port.file("ca.pem"))
            .arg("--cert")
            .arg(port.file("me.pem"))
            .arg("--key")
            .arg(port.file("me.key"))
            .env_clear()
            .output();
        let output = soon(command, output).await.unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    assert_eq!(run("token").await["token_type"], "Bearer");
    let status = run("status").await;
    assert_eq!(status["state"], "FRESH");
    let certificates = status["certificates"].as_array().unwrap();
    assert_eq!(certificates.len(), 2);
    assert_eq!(certificates[0]["role"], "SERVER");
    assert_eq!(certificates[0]["names"], serde_json::json!(["localhost"]));
    assert_eq!(certificates[0]["state"], "GOOD");
    assert_eq!(certificates[1]["role"], "CLIENT_AUTHORITY");
}

#[tokio::test]
async fn a_configuration_whose_certificates_do_not_fit_does_not_start() {
    let (_simulator, home, _clients, servers) = Port::prepare("", "").await;
    replace(&home.path().join("server.key"), &servers.issue(&Says::dns(BROKER)).key);
    fs::remove_file(home.path().join("clients.pem")).unwrap();
    let config = home.config().display().to_string();
    let mut daemon = Daemon::spawn(home);
    assert_eq!(daemon.ended().await.code(), Some(78));
    daemon.logged("listen.client_ca: there is no such file").await;
    daemon.logged("the private key is not that of the first certificate").await;
    daemon.logged(&format!("{config}:")).await;
}

#[tokio::test]
async fn a_reload_takes_certificates_over_at_once_or_not_at_all() {
    let port = Port::open().await;
    let successor = Authority::new("clients");
    replace(&port.file("clients.pem"), "garbage");
    port.daemon.signal(Signal::SIGHUP);
    port.daemon.logged("reload refused: ").await;
    assert!(port.payouts().caller().token().await.is_ok());
    replace(&port.file("clients.pem"), &successor.pem());
    port.daemon.signal(Signal::SIGHUP);
    port.daemon.logged("and the files beside it in [[listen]] were replaced").await;
    assert!(port.payouts().greet().await.is_err());
    assert!(port.client(&successor.issue(&Says::uri(PAYOUTS))).caller().token().await.is_ok());
}

#[tokio::test]
async fn a_certificate_that_ends_soon_is_told_in_the_log_in_the_status_and_by_check() {
    let (simulator, home, clients, servers) = Port::prepare("", "").await;
    show(&home, &servers.issue(&Says { until: HOUR / 10, ..Says::dns(BROKER) }));
    let check = tokio::process::Command::new(env!("CARGO_BIN_EXE_b2binpay-broker"))
        .arg("check")
        .arg("--config")
        .arg(home.config())
        .env_clear()
        .output();
    let told = String::from_utf8(soon("check", check).await.unwrap().stdout).unwrap();
    assert!(told.contains("Certificates\n"), "{told}");
    assert!(told.contains("server.pem: the server certificate ends at"), "{told}");
    assert!(told.contains(BROKER), "{told}");

    let port = Port::serve(simulator, home, clients, servers).await;
    port.daemon.logged("the server certificate ends at").await;
    let status = port.payouts().caller().status().await.unwrap();
    assert_eq!(status.certificates[0].state(), CertificateState::EndsSoon);
    assert!(status.certificates[0].problem.contains("put another in its place"));
}
