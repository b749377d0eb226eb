//! What a policy of a thousand callers costs a call, against one of a single caller: instructions of the whole daemon for each
//! `GetAccessToken`, from the socket and back to it, counted by valgrind's callgrind. Counts, unlike times, are the same on a
//! busy machine.
//!
//! `cargo bench --bench policy` prints both, and fails if the thousand cost more than 5 % over the one. Needs valgrind.

#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a bench speaks on stdout, and may panic"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{fmt::Write as _, fs, process::ExitCode};

use b2binpay_simulator::{Api, Simulator};
use nix::sys::signal::Signal;
use support::{Daemon, Setup, daemon::Home, generous};

/// So many calls more are made by the second run of a pair, which else does the same: what they cost is the difference.
const CALLS: u32 = 2000;

/// Calls of either run before those. The first ones fill caches and connect.
const WARM_UP: u32 = 200;

/// At most this much of what a call costs under a policy of one caller.
const MOST: f64 = 1.05;

#[tokio::main]
async fn main() -> ExitCode {
    // Built by `cargo test --all-targets` too, and run; then there is nothing to prove.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let one = instructions_per_call(1).await;
    let thousand = instructions_per_call(1000).await;
    let ratio = thousand / one;
    println!("instructions for each GetAccessToken, the whole daemon");
    println!("  policy of    1 caller  {one:>10.0}");
    println!("  policy of 1000 callers {thousand:>10.0}");
    println!("  ratio {ratio:.4}, at most {MOST}{}", if ratio <= MOST { "" } else { ": NOT KEPT" });
    if ratio <= MOST { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn instructions_per_call(callers: u32) -> f64 {
    let few = instructions(callers, WARM_UP).await;
    let many = instructions(callers, WARM_UP + CALLS).await;
    f64::from(u32::try_from((many - few) / u64::from(CALLS)).expect("a call is no more than that"))
}

/// How many instructions a daemon takes from its start to its end, with so many calls in between.
async fn instructions(callers: u32, calls: u32) -> u64 {
    let simulator = Simulator::start(generous(Api::V3)).await.expect("the simulator starts");
    // Ours is the last: a policy that looks at one after the other would be found out.
    let others = (1..callers).map(|number| (format!("other-{number}"), 100_000 + number));
    let ours = [("ours".to_owned(), nix::unistd::getuid().as_raw())];
    let callers = others.chain(ours).fold(String::new(), |mut text, (name, uid)| {
        let _ = write!(
            text,
            "[[caller]]\nname = \"{name}\"\nunix_user = \"{uid}\"\nallow = [\"GetAccessToken\"]\n"
        );
        text
    });
    let setup = Setup { callers: Some(callers), log_level: "info", ..Setup::default() };
    let home = Home::new(&simulator, &setup);
    let counts = home.path().join("callgrind.out");
    let counting = format!("--callgrind-out-file={}", counts.display());
    let mut daemon = Daemon::spawn_under(home, "valgrind", &["--tool=callgrind", &counting]);
    daemon.logged("\"serving\"").await;
    let caller = daemon.caller();
    for _ in 0..calls {
        caller.token().await.expect("a token");
    }
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", daemon.log());
    let counted = fs::read_to_string(counts).expect("callgrind wrote its counts");
    let total = counted.lines().find_map(|line| line.strip_prefix("totals: "));
    total.and_then(|total| total.parse().ok()).expect("a total")
}
