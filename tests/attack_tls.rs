//! The TCP listener under attack: before TLS, in its handshake, inside it. A good caller is served all the while.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "for tests alone: a panic is their way to fail, and what is skipped is said"
)]

mod support;

use std::{process::Stdio, time::Duration};

use support::{
    Stopwatch,
    frames::{
        END_HEADERS, HEADERS, PING, RST_STREAM, SETTINGS, call, flood, flood_and_read, frame, greeting,
    },
    pki::Says,
    raw::GET_ACCESS_TOKEN,
    siege::besieged,
    soon,
    tls::{BILLING, Client, Port},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    task::JoinSet,
};

/// For how long attackers keep at it, at least.
const LASTS: Duration = Duration::from_secs(2);

/// By how much the broker may grow.
const MOST_GROWTH: u64 = 48 << 20;

/// Runs `attack` again and again from 127.0.0.2, as a caller that went bad where it shows a certificate.
async fn under(limits: &str, attack: impl AsyncFn(&Client)) {
    let port = Port::with("", limits).await;
    let bad = port.client(&port.clients.issue(&Says::dns(BILLING))).from("127.0.0.2");
    let attacking = async {
        let since = Stopwatch::start();
        while since.read() < LASTS {
            Box::pin(attack(&bad)).await;
        }
    };
    let good = port.payouts();
    let seen = besieged(&port.daemon, || good.caller(), attacking).await;
    assert!(seen.growth() < MOST_GROWTH, "the broker grew: {seen:?}");
}

/// Waits for the end, whatever is said before.
async fn ended(mut stream: impl tokio::io::AsyncRead + Unpin) {
    let _ = soon("the end of a connection", stream.read_to_end(&mut Vec::new())).await;
}

fn garbage(random: &mut fastrand::Rng) -> Vec<u8> {
    (0..random.usize(1..20_000)).map(|_| random.u8(..)).collect()
}

/// The beginning of a handshake: a record of 512 bytes, with a `ClientHello` in it.
const HELLO: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_before_and_inside_tls() {
    under("", async |bad| {
        let mut random = fastrand::Rng::with_seed(20_261_122);
        for n in 0..60 {
            if n % 3 == 0 {
                let mut inside = bad.connect().await.unwrap();
                if n % 2 == 0 {
                    let _ = inside.write_all(&greeting()).await;
                }
                let _ = inside.write_all(&garbage(&mut random)).await;
                let _ = inside.shutdown().await;
                ended(inside).await;
            } else {
                let mut before = bad.tcp().await.unwrap();
                if n % 3 == 1 {
                    let _ = before.write_all(HELLO).await;
                }
                let _ = before.write_all(&garbage(&mut random)).await;
                let _ = before.shutdown().await;
                ended(before).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_trickle() {
    under("max_handshakes = 32\nhandshake_timeout = \"1s\"", async |bad| {
        let mut all = JoinSet::new();
        for _ in 0..100 {
            let mut slow = bad.tcp().await.unwrap();
            all.spawn(async move {
                for byte in HELLO.iter().chain(&[0; 500]) {
                    if slow.write_all(&[*byte]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                panic!("it had ten seconds");
            });
        }
        while all.join_next().await.transpose().expect("it is closed in time").is_some() {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_inside_tls() {
    under("", async |bad| {
        let mut all = JoinSet::new();
        for n in 0..4 {
            let mut peer = bad.connect().await.unwrap();
            let _ = peer.write_all(&greeting()).await;
            all.spawn(async move {
                if n == 0 {
                    flood(&mut peer, 100_000, |_| frame(PING, 0, 0, b"12345678")).await;
                } else if n == 1 {
                    flood(&mut peer, 100_000, |_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])).await;
                } else {
                    let headers = call(GET_ACCESS_TOKEN);
                    flood_and_read(peer, 20_000, move |n| {
                        let open = frame(HEADERS, END_HEADERS, 2 * n + 1, &headers);
                        [open, frame(RST_STREAM, 0, 2 * n + 1, &8_u32.to_be_bytes())].concat()
                    })
                    .await;
                }
            });
        }
        while all.join_next().await.transpose().expect("no attacker panics").is_some() {}
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_handshakes_from_one_address_pushes_out_none_of_another() {
    let port = Port::with("", "max_handshakes = 8\nhandshake_timeout = \"1m\"\n").await;
    // The worst that an honest one can be: it has not said a word when the flood comes.
    let slow = port.payouts().from("127.0.0.3");
    let waiting = slow.tcp().await.unwrap();
    let bad = port.payouts().from("127.0.0.2");
    let mut flood: Vec<TcpStream> = Vec::new();
    for n in 0..200 {
        let mut one = bad.tcp().await.unwrap();
        if n % 2 == 0 {
            let _ = one.write_all(HELLO).await;
        }
        flood.push(one);
    }
    // Most of the flood is gone: each of those that came later has made room for itself.
    port.daemon.logged("there were too many (limits.max_handshakes), and most from its address").await;
    let mut closed = 0;
    while closed < 190 {
        let mut one = flood.remove(0);
        let end = tokio::time::timeout(Duration::from_millis(100), one.read_to_end(&mut Vec::new())).await;
        match end {
            Ok(_) => closed += 1,
            Err(_) => flood.push(one),
        }
    }
    let mut met = soon("a handshake", Client::handshake(&slow.connector(), waiting)).await.unwrap();
    met.write_all(&greeting()).await.unwrap();
    soon("the server's settings", met.read_exact(&mut [0; 9])).await.unwrap();
}

#[tokio::test]
async fn who_wants_to_negotiate_again_is_turned_away() {
    let openssl = Command::new("openssl").arg("version").stdout(Stdio::null()).status().await;
    if !openssl.is_ok_and(|status| status.success()) {
        println!("skipped: there is no openssl here");
        return;
    }
    let port = Port::with("min_tls = \"1.2\"\n", "").await;
    let me = port.clients.issue(&Says::dns(BILLING));
    for (name, content) in [("me.pem", &me.cert), ("me.key", &me.key), ("ca.pem", &port.servers.pem())] {
        support::pki::replace(&port.file(name), content);
    }
    let mut client = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-alpn", "h2", "-connect", &port.address.to_string()])
        .arg("-cert")
        .arg(port.file("me.pem"))
        .arg("-key")
        .arg(port.file("me.key"))
        .arg("-CAfile")
        .arg(port.file("ca.pem"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // Its word for a new handshake, and it stays connected after that.
    let mut stdin = client.stdin.take().unwrap();
    stdin.write_all(b"R\n").await.unwrap();
    let ended = soon("its end", client.wait_with_output()).await.unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("Verification: OK") || said.contains("Verify return code: 0"), "{said}");
    assert!(said.contains("RENEGOTIATING"), "{said}");
    assert_eq!(said.matches("depth=0").count(), 1, "one handshake, and no other: {said}");
    drop(stdin);
    assert!(port.payouts().caller().token().await.is_ok());
}
