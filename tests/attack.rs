//! The listener under attack: whatever a peer does, a good caller is served all the while, and memory stays bounded.
//!
//! Each test lets attackers do one thing for as long as the broker lets them, while another caller asks for a token every few
//! milliseconds. Every one of its calls must succeed. How late the latest may be is bounded generously: the attackers and a
//! busy machine take the same processors as the broker.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::time::Duration;

use b2binpay_simulator::Api;
use support::{
    Caller, Setup, Stopwatch, World, closed,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, call, flood, flood_and_read, frame, greeting,
    },
    generous,
    raw::{GET_ACCESS_TOKEN, VERIFY_SIGN, WATCH_ACCESS_TOKEN},
    siege::besieged,
    users::{connect_as, may_be_others},
};
use tokio::{io::AsyncWriteExt, net::UnixStream, task::JoinSet};

/// The good caller's user, whom the policy knows as `good`.
const GOOD: u32 = 54321;
/// A user whom it doesn't know.
const STRANGER: u32 = 54322;

/// For how long attackers keep at it, at least.
const LASTS: Duration = Duration::from_secs(2);

/// By how much the broker may grow.
const MOST_GROWTH: u64 = 48 << 20;

fn setup(limits: &str) -> Setup {
    let all = "\"GetAccessToken\", \"WatchAccessToken\", \"VerifySign\", \"Health\"";
    let callers = format!(
        "[[caller]]\nname = \"attacker\"\nunix_user = \"{}\"\nallow = [{all}]\n\
         [[caller]]\nname = \"good\"\nunix_user = \"{GOOD}\"\nallow = [{all}]\n",
        nix::unistd::getuid()
    );
    Setup {
        callers: Some(callers),
        rest: format!("[limits]\n{limits}\n"),
        log_level: "info",
        ..Setup::default()
    }
}

/// Runs `attack` against a broker with these limits, and looks after a good caller meanwhile.
async fn under(limits: &str, attack: impl AsyncFn(&Attackers)) {
    if !may_be_others() {
        return;
    }
    let world = World::with(generous(Api::V3), setup(limits)).await;
    let attackers = Attackers { socket: world.daemon.home.socket() };
    let attacking = async {
        let since = Stopwatch::start();
        // Whom the broker has cut off comes again.
        while since.read() < LASTS {
            attack(&attackers).await;
        }
    };
    let good = || Caller::to_as(&world.daemon.home.socket(), GOOD);
    let seen = besieged(&world.daemon, good, attacking).await;
    assert!(seen.growth() < MOST_GROWTH, "the broker grew: {seen:?}");
}

/// Where attackers come from.
struct Attackers {
    socket: std::path::PathBuf,
}

impl Attackers {
    /// A connection of a caller that went bad.
    async fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.expect("the socket is open")
    }

    /// The same after its greeting.
    async fn greeted(&self) -> UnixStream {
        let mut stream = self.connect().await;
        // Where there is no place any more it is closed already.
        let _ = stream.write_all(&greeting()).await;
        stream
    }

    /// Does the same on several connections at once.
    async fn several<F>(&self, count: usize, attack: impl Fn(UnixStream) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut all = JoinSet::new();
        for _ in 0..count {
            all.spawn(attack(self.greeted().await));
        }
        while all.join_next().await.transpose().expect("no attacker panics").is_some() {}
    }
}

/// The number of a client's n-th stream.
const fn stream(n: u32) -> u32 {
    2 * n + 1
}

// ---- connections

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_opens_connections_without_end() {
    under("max_connections = 64\nmax_connections_per_caller = 48", async |attackers| {
        let mut open = Vec::new();
        for _ in 0..48 {
            open.push(attackers.greeted().await);
        }
        for _ in 0..500 {
            // Who finds a place after all is gone again at once.
            let mut one_more = attackers.connect().await;
            let _ = one_more.shutdown().await;
            closed(&mut one_more).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_open_connections_without_end() {
    under("max_connections = 64", async |attackers| {
        let mut open = Vec::new();
        for _ in 0..200 {
            open.push(connect_as(&attackers.socket, STRANGER).await.unwrap());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_say_nothing_or_half_of_their_preface() {
    under(
        "max_connections = 400\nmax_connections_per_caller = 300\nfirst_byte_timeout = \"1s\"",
        async |attackers| {
            let mut silent = Vec::new();
            for n in 0..250 {
                let mut peer = attackers.connect().await;
                let _ = peer.write_all(&PREFACE[..n % PREFACE.len()]).await;
                silent.push(peer);
            }
            for mut peer in silent {
                closed(&mut peer).await;
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_peers_that_answer_no_ping() {
    under("keepalive_interval = \"1s\"\nkeepalive_timeout = \"1s\"", async |attackers| {
        let mut deaf = Vec::new();
        for _ in 0..100 {
            deaf.push(attackers.greeted().await);
        }
        for mut peer in deaf {
            closed(&mut peer).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_before_and_after_the_preface_and_http_1_1() {
    under("", async |attackers| {
        let mut random = fastrand::Rng::with_seed(20_261_122);
        for n in 0..300 {
            let mut peer = match n % 3 {
                0 => attackers.greeted().await,
                _ => attackers.connect().await,
            };
            let garbage: Vec<u8> = if n % 3 == 2 {
                format!("POST {GET_ACCESS_TOKEN} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
            } else {
                (0..random.usize(1..20_000)).map(|_| random.u8(..)).collect()
            };
            // It may be closed before all of it is written.
            let _ = peer.write_all(&garbage).await;
            let _ = peer.shutdown().await;
            closed(&mut peer).await;
        }
    })
    .await;
}

// ---- frames

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_streams_than_a_connection_may_have() {
    under("", async |attackers| {
        attackers
            .several(8, |peer| async {
                // Requests that never end.
                let headers = call(GET_ACCESS_TOKEN);
                flood_and_read(peer, 5_000, move |n| frame(HEADERS, END_HEADERS, stream(n), &headers)).await;
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_without_end() {
    under("", async |attackers| {
        attackers
            .several(4, |peer| async {
                // A name and a value that the table doesn't know, again and again: 16 KiB of them in each frame.
                let header = [&[0, 5], b"x-any".as_slice(), &[100], &[b'y'; 100]].concat();
                let many = header.repeat(150);
                let first = call(GET_ACCESS_TOKEN);
                let written = flood_and_read(peer, 20_000, move |n| match n {
                    0 => frame(HEADERS, 0, 1, &first),
                    _ => frame(CONTINUATION, 0, 1, &many),
                })
                .await;
                assert!(written < 20_000, "300 MB of headers were taken");
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_continuations_without_end() {
    under("", async |attackers| {
        attackers
            .several(4, |peer| async {
                let first = call(GET_ACCESS_TOKEN);
                flood_and_read(peer, 200_000, move |n| match n {
                    0 => frame(HEADERS, 0, 1, &first),
                    _ => frame(CONTINUATION, 0, 1, b""),
                })
                .await;
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_too_large_or_never_end() {
    under("", async |attackers| {
        attackers
            .several(4, |peer| async {
                // Each says that it is 4 GB long, and 100 of them send what their windows allow.
                let (headers, data) =
                    (call(VERIFY_SIGN), [&[0, 255, 255, 255, 255], &[b'z'; 16_000][..]].concat());
                flood_and_read(peer, 10_000, move |n| {
                    if n < 100 {
                        frame(HEADERS, END_HEADERS, stream(n), &headers)
                    } else {
                        frame(DATA, 0, stream(n % 100), &data)
                    }
                })
                .await;
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_reset_as_soon_as_they_are_opened() {
    under("", async |attackers| {
        attackers
            .several(4, |peer| async {
                let headers = call(GET_ACCESS_TOKEN);
                flood_and_read(peer, 50_000, move |n| {
                    let open = frame(HEADERS, END_HEADERS, stream(n), &headers);
                    [open, frame(RST_STREAM, 0, stream(n), &8_u32.to_be_bytes())].concat()
                })
                .await;
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_and_pings_whose_answers_nobody_reads() {
    under("", async |attackers| {
        for kind in [SETTINGS, PING] {
            attackers
                .several(4, move |mut peer| async move {
                    let payload: &[u8] = if kind == PING { b"12345678" } else { &[0, 3, 0, 0, 0, 100] };
                    flood(&mut peer, 200_000, |_| frame(kind, 0, 0, payload)).await;
                })
                .await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_that_grow_by_one_and_data_that_is_empty() {
    under("", async |attackers| {
        for kind in [WINDOW_UPDATE, DATA] {
            attackers
                .several(4, move |peer| async move {
                    let headers = call(GET_ACCESS_TOKEN);
                    flood_and_read(peer, 200_000, move |n| match (n, kind) {
                        (0, _) => frame(HEADERS, END_HEADERS, 1, &headers),
                        (_, DATA) => frame(DATA, 0, 1, b""),
                        _ => frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
                    })
                    .await;
                })
                .await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_ask_and_never_read_the_answers() {
    under("max_calls_per_caller = 5000", async |attackers| {
        attackers
            .several(8, |mut peer| async move {
                // No byte of an answer fits into a window of nothing.
                let closed_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
                let _ = peer.write_all(&closed_window).await;
                let paths = [GET_ACCESS_TOKEN, WATCH_ACCESS_TOKEN].map(call);
                flood(&mut peer, 20_000, |n| {
                    let first = frame(HEADERS, END_HEADERS, stream(n), &paths[n as usize % 2]);
                    [first, frame(DATA, END_STREAM, stream(n), &[0; 5])].concat()
                })
                .await;
            })
            .await;
    })
    .await;
}
