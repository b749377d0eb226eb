//! What a storm of denied calls costs a good caller: one caller makes 10,000 calls a second that are denied, another asks for
//! a token again and again, and its 99th percentile may at most double.
//!
//! What makes a storm takes processors, too, and here it shares them with the broker. So the comparison is with the same storm
//! against a second broker that nobody else uses: the machine is equally busy then, and what is left is what the good
//! caller's own broker does about it. Phases with the storm here and there follow each other in turns, and a quiet one stands
//! beside them for information.
//!
//! `cargo bench --bench denied` prints a table, and fails if the figure is missed. It takes root, to be two users.

#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a bench speaks on stdout, and may panic"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use b2binpay_broker::clock::{Clock, SystemClock};
use b2binpay_simulator::{Api, Simulator};
use support::{
    Daemon, RawCaller, Setup,
    frames::{self, frame},
    generous,
    raw::VERIFY_SIGN,
    users::{connect_as, may_be_others},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::JoinSet,
    time::MissedTickBehavior,
};

/// The user of the storm, who may ask for health and nothing else.
const BAD: u32 = 54321;

/// Denied calls in a second.
const RATE: u32 = 10_000;

/// How long a phase takes, and how often each kind has its turn.
const PHASE: Duration = Duration::from_secs(3);
const TURNS: usize = 6;

/// The storm's connections, how many calls each makes at once, and how many it leaves open at most.
const CONNECTIONS: usize = 8;
const AT_ONCE: u32 = 4;
const MOST_OPEN: u64 = 64;

/// How often the good caller asks.
const PAUSE: Duration = Duration::from_millis(1);

/// By how much its 99th percentile may grow.
const MOST: f64 = 2.0;

fn main() -> ExitCode {
    // Built by `cargo test --all-targets` too, and run; then there is nothing to prove.
    if !std::env::args().any(|argument| argument == "--bench") || !may_be_others() {
        return ExitCode::SUCCESS;
    }
    // The storm has a thread and a runtime of its own, so that the good caller's times are not those of its own queue.
    let storm =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let good =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let kept = good.block_on(measured(storm.handle().clone()));
    storm.shutdown_background();
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn setup() -> Setup {
    let callers = format!(
        "[[caller]]\nname = \"good\"\nunix_user = \"{}\"\nallow = [\"GetAccessToken\"]\n\
         [[caller]]\nname = \"bad\"\nunix_user = \"{BAD}\"\nallow = [\"Health\"]\n",
        nix::unistd::getuid()
    );
    Setup { callers: Some(callers), log_level: "info", ..Setup::default() }
}

/// What one kind of phase gave.
#[derive(Default)]
struct Found {
    latencies: Vec<Duration>,
    denied: u64,
    lasted: Duration,
}

async fn measured(storm: tokio::runtime::Handle) -> bool {
    let simulator = Simulator::start(generous(Api::V3)).await.expect("the simulator starts");
    let ours = Daemon::start(&simulator, setup()).await;
    let other = Daemon::start(&simulator, setup()).await;
    ours.caller().token().await.expect("a token");
    let good = ours.raw_caller().await;
    let [mut quiet, mut elsewhere, mut here]: [Found; 3] = Default::default();
    for _ in 0..TURNS {
        phase(&good, None, &storm, &mut quiet).await;
        phase(&good, Some(&other), &storm, &mut elsewhere).await;
        phase(&good, Some(&ours), &storm, &mut here).await;
    }
    println!("{:<34}{:>10}{:>10}{:>12}", "a good caller's calls, with", "p50 ms", "p99 ms", "denied/s");
    let [_, elsewhere, here]: [(f64, f64); 3] =
        [("no storm", quiet), ("a storm at another broker", elsewhere), ("a storm at its own", here)].map(
            |(name, mut found)| {
                found.latencies.sort_unstable();
                let at =
                    |part: usize| found.latencies[found.latencies.len() * part / 100].as_secs_f64() * 1e3;
                #[expect(clippy::cast_precision_loss, reason = "no count here reaches 2^53")]
                let rate = found.denied as f64 / found.lasted.as_secs_f64();
                println!("{name:<34}{:>10.3}{:>10.3}{rate:>12.0}", at(50), at(99));
                (at(99), rate)
            },
        );
    let ratio = here.0 / elsewhere.0;
    // Both: the comparison is with the same storm.
    let enough = here.1.min(elsewhere.1) >= f64::from(RATE) * 0.95;
    println!(
        "the 99th percentile is {ratio:.2} times what it is with the same storm elsewhere; at most {MOST}"
    );
    if !enough {
        println!("NOT KEPT: the storm was weaker than {RATE} denied calls a second");
    }
    if ratio > MOST {
        println!("NOT KEPT: the 99th percentile grew by more than {MOST}");
    }
    enough && ratio <= MOST
}

/// One turn: the good caller's calls, while a storm goes on or none.
async fn phase(good: &RawCaller, at: Option<&Daemon>, storm: &tokio::runtime::Handle, found: &mut Found) {
    let denied = Arc::new(AtomicU64::new(0));
    let mut storming = JoinSet::new();
    if let Some(daemon) = at {
        for _ in 0..CONNECTIONS {
            let stream = connect_as(&daemon.home.socket(), BAD).await.expect("the socket is open");
            storming.spawn_on(blow(stream, Arc::clone(&denied)), storm);
        }
        // It is measured in full swing.
        while denied.load(Ordering::Relaxed) < 1000 {
            tokio::time::sleep(PAUSE).await;
        }
    }
    let clock = SystemClock;
    let (since, before) = (clock.now().boot, denied.load(Ordering::Relaxed));
    while clock.now().boot.saturating_since(since) < PHASE {
        let asked = clock.now().boot;
        good.token_in_hand().await.expect("a token");
        found.latencies.push(clock.now().boot.saturating_since(asked));
        tokio::time::sleep(PAUSE).await;
    }
    found.lasted += clock.now().boot.saturating_since(since);
    found.denied += denied.load(Ordering::Relaxed) - before;
    storming.shutdown().await;
}

/// Its share of the storm, on one connection: calls at an even pace, in frames of HTTP/2 that cost next to nothing to make
/// and to read, so that what is measured is the broker and not who storms it.
async fn blow(stream: UnixStream, denied: Arc<AtomicU64>) {
    let (mut read, mut write) = stream.into_split();
    let answered = Arc::new(AtomicU64::new(0));
    let counting = async {
        let (answered, mut head) = (Arc::clone(&answered), [0; 9]);
        let mut payload = Vec::new();
        loop {
            read.read_exact(&mut head).await.expect("the broker keeps the connection");
            let [high, middle, low, kind, flags, ..] = head;
            payload.resize(usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low), 0);
            read.read_exact(&mut payload).await.expect("a whole frame");
            // An answer that is nothing but its end is an error. A stream that was refused is reset without one.
            if kind == frames::HEADERS && flags & frames::END_STREAM != 0 {
                answered.fetch_add(1, Ordering::Relaxed);
                denied.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let calling = async {
        write.write_all(&frames::greeting()).await.expect("it is open");
        let (headers, message) = (frames::call(VERIFY_SIGN), [0; 5]);
        let connections = u32::try_from(CONNECTIONS).expect("few");
        let mut pace = tokio::time::interval(Duration::from_secs(1) * AT_ONCE * connections / RATE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut asked = 0;
        loop {
            pace.tick().await;
            if u64::from(asked) > answered.load(Ordering::Relaxed) + MOST_OPEN {
                // A broker that is slower than that is found out by the rate.
                continue;
            }
            let calls: Vec<u8> = (asked..asked + AT_ONCE)
                .flat_map(|number| {
                    let stream = 2 * number + 1;
                    let head = frame(frames::HEADERS, frames::END_HEADERS, stream, &headers);
                    [head, frame(frames::DATA, frames::END_STREAM, stream, &message)].concat()
                })
                .collect();
            write.write_all(&calls).await.expect("the broker keeps the connection");
            asked += AT_ONCE;
        }
    };
    tokio::join!(counting, calling);
}
