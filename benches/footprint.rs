//! What the daemon costs its host, measured on the release binary against the simulator:
//!
//! - from exec to the first token answered, with a record of earlier calls on disk, and without the upstream's own time
//! - resident memory at rest
//! - CPU at rest
//! - the size of the stripped binary
//!
//! `cargo bench --bench footprint` prints a table, and fails if a figure is over its bound. The worst start is for looking
//! at: a machine with other work may be slow once.

#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a bench speaks on stdout, and may panic"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{fs, path::Path, process::ExitCode, time::Duration};

use b2binpay_broker::clock::{Clock, SystemClock};
use b2binpay_simulator::{Api, Simulator};
use support::{Daemon, Setup, daemon::Home, generous};

const PROGRAM: &str = env!("CARGO_BIN_EXE_b2binpay-broker");

const STARTS: usize = 15;

/// How long CPU time is counted at rest.
const REST: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> ExitCode {
    // Built by `cargo test --all-targets` too, and run; then there is nothing to prove.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let simulator = Simulator::start(generous(Api::V3)).await.expect("the simulator starts");
    let setup = Setup { log_level: "info", ..Setup::default() };
    let (home, starts) = starts(Home::new(&simulator, &setup)).await;
    let median = starts[starts.len() / 2].as_secs_f64() * 1e3;
    let worst = starts[starts.len() - 1].as_secs_f64() * 1e3;
    println!("{:<30} {worst:>9.3} ms", "exec to first token, worst");
    let kept = [
        figure("exec to first token, median", median, "ms", 150.0),
        at_rest(Daemon::start_in(home).await).await,
        figure("stripped binary", megabytes(fs::metadata(PROGRAM).expect("it is there").len()), "MB", 12.0),
    ];
    if kept == [true; 3] { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn at_rest(daemon: Daemon) -> bool {
    daemon.caller().token().await.expect("a token");
    let before = cpu_time(daemon.pid());
    // Nothing is awaited here: rest is what is measured.
    tokio::time::sleep(REST).await;
    let busy = cpu_time(daemon.pid()).saturating_sub(before).as_secs_f64() / REST.as_secs_f64();
    let idle = figure("CPU at rest", busy * 100.0, "%", 0.2);
    figure("resident memory at rest", megabytes(resident_bytes(daemon.pid())), "MB", 15.0) && idle
}

/// Shows a figure, and whether it keeps its bound.
fn figure(what: &str, found: f64, unit: &str, most: f64) -> bool {
    let kept = found <= most;
    println!(
        "{what:<30} {found:>9.3} {unit:<3} at most {most} {unit}{}",
        if kept { "" } else { ": NOT KEPT" }
    );
    kept
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

#[expect(clippy::cast_precision_loss, reason = "no file and no process here has 2^53 bytes")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
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

fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    kib * 1024
}
