//! What the daemon costs its host, measured on the release binary against the simulator:
//!
//! - from exec to the first token answered, with a record of earlier calls on disk, and without the upstream's own time
//! - resident memory at rest
//! - CPU at rest
//! - the size of the stripped binary
//!
//! `cargo bench --bench footprint` prints a table. It does not fail on a slow machine: a figure over its bound is marked.

#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a bench speaks on stdout, and may panic"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{fmt::Display, fs, path::Path, time::Duration};

use b2binpay_broker::clock::{Clock, SystemClock};
use b2binpay_simulator::{Api, Simulator};
use support::{Daemon, Setup, daemon::Home, generous};

const STARTS: usize = 15;

/// How long CPU time is counted at rest.
const REST: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() {
    // `cargo test` builds and runs benches too; then there is nothing to prove.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let simulator = Simulator::start(generous(Api::V3)).await.expect("the simulator starts");
    let (home, starts) = starts(Home::new(&simulator, &Setup::default())).await;
    for (which, took) in [("median", starts[starts.len() / 2]), ("worst", starts[starts.len() - 1])] {
        line(
            &format!("exec to first token, {which}"),
            ms(took),
            "150 ms",
            took <= Duration::from_millis(150),
        );
    }

    let daemon = Daemon::start_in(home).await;
    daemon.caller().token().await.expect("a token");
    let before = cpu_time(daemon.pid());
    // Nothing is awaited here: rest is what is measured.
    tokio::time::sleep(REST).await;
    let busy = cpu_time(daemon.pid()).saturating_sub(before).as_secs_f64() / REST.as_secs_f64() * 100.0;
    line("CPU at rest", format_args!("{busy:.3} % of a core"), "0.2 %", busy < 0.2);
    let resident = resident_kib(daemon.pid());
    line(
        "resident memory at rest",
        format_args!("{:.1} MB", resident * 1024.0 / 1e6),
        "15 MB",
        resident * 1024.0 < 15e6,
    );
    let size = bytes(fs::metadata(env!("CARGO_BIN_EXE_b2binpay-broker")).expect("the binary is there").len());
    line("stripped binary", format_args!("{:.1} MB", size / 1e6), "12 MB", size < 12e6);
}

/// Starts the daemon again and again in the same folder, killing it in between; the times from exec to its first token,
/// shortest first. The simulator answers in its own process and within microseconds, so that all of it is the daemon's.
async fn starts(mut home: Home) -> (Home, Vec<Duration>) {
    let clock = SystemClock;
    let mut took = Vec::new();
    for _ in 0..STARTS {
        let before = clock.now().boot;
        let daemon = Daemon::spawn(home);
        while !daemon.home.socket().exists() {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        daemon.caller().token().await.expect("a token");
        took.push(clock.now().boot.saturating_since(before));
        home = daemon.kill().await;
        let _ = fs::remove_file(home.socket());
    }
    took.sort_unstable();
    (home, took)
}

fn line(what: &str, figure: impl Display, bound: &str, kept: bool) {
    let figure = figure.to_string();
    println!("{what:<30} {figure:>18}   at most {bound:<8} {}", if kept { "kept" } else { "NOT KEPT" });
}

#[expect(clippy::cast_precision_loss, reason = "no file here has 2^53 bytes")]
fn bytes(count: u64) -> f64 {
    count as f64
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn cpu_time(pid: u32) -> Duration {
    // Nanoseconds on a core, all threads together.
    let tasks = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task")).expect("it runs");
    let nanoseconds = tasks.map(|task| {
        let stat = fs::read_to_string(task.expect("a thread").path().join("schedstat")).expect("its time");
        stat.split(' ').next().and_then(|time| time.parse::<u64>().ok()).expect("a number")
    });
    Duration::from_nanos(nanoseconds.sum())
}

fn resident_kib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}
