//! A good caller while others do their worst.

use std::{fmt, fs, pin::pin, time::Duration};

use super::{Caller, Daemon, Stopwatch, soon};

/// How long a good caller may wait at the worst.
const WORST: Duration = Duration::from_secs(10);

/// How a siege went.
pub struct Siege {
    /// Resident bytes before it began, and the most while it lasted.
    pub before: u64,
    pub most: u64,
    calls: u32,
    worst: Duration,
}

impl Siege {
    /// By how many bytes the broker grew.
    pub fn growth(&self) -> u64 {
        self.most.saturating_sub(self.before)
    }
}

impl fmt::Debug for Siege {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { before, most, calls, worst } = self;
        let (before, most) = (before >> 10, most >> 10);
        write!(f, "{calls} calls, the worst took {worst:?}; from {before} KiB to {most} KiB")
    }
}

/// What the process has in memory, in bytes.
pub fn resident(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    kib << 10
}

/// Has a good caller ask for a token every few milliseconds, and again on a new connection afterwards, while `attack` goes on.
/// Each of its calls must succeed, and in time.
pub async fn besieged(daemon: &Daemon, good: impl Fn() -> Caller, attack: impl Future<Output = ()>) -> Siege {
    let caller = good();
    caller.token().await.expect("a token before the attack");
    let before = resident(daemon);
    let mut siege = Siege { before, most: before, calls: 0, worst: Duration::ZERO };
    let mut attack = pin!(soon("the end of the attack", attack));
    loop {
        let since = Stopwatch::start();
        let outcome = tokio::select! {
            biased;
            token = caller.token() => token.map(|_| ()),
            () = &mut attack => break,
        };
        outcome.unwrap_or_else(|refused| panic!("the good caller was refused: {refused:?}"));
        siege.worst = siege.worst.max(since.read());
        siege.calls += 1;
        siege.most = siege.most.max(resident(daemon));
        tokio::select! {
            () = &mut attack => break,
            () = tokio::time::sleep(Duration::from_millis(3)) => {}
        }
    }
    good().token().await.expect("a token after the attack");
    siege.most = siege.most.max(resident(daemon));
    println!("{siege:?}");
    assert!(siege.calls > 1, "too few calls to tell: {siege:?}");
    assert!(siege.worst < WORST, "a good caller waited for too long: {siege:?}");
    siege
}
