//! What the integration tests stand on: a simulator, a real daemon against it, and a caller's connection.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each test file uses its part of it")]
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "for tests alone: a panic is their way to fail"
)]

pub mod daemon;
pub mod frames;
pub mod manager;
pub mod pki;
pub mod raw;
pub mod rpc;
pub mod search;
pub mod siege;
pub mod table;
pub mod tls;
pub mod users;

use std::{fmt::Write as _, time::Duration};

use b2binpay_simulator::{Api, Settings, Simulator, settings::Limit};
pub use daemon::{Daemon, Home, Setup};
pub use raw::RawCaller;
pub use rpc::{Answered, Caller, Refused, end_of, told};
pub use search::Search;
use tokio::{io::AsyncReadExt, net::UnixStream};

/// How long anything may take before a test says that it never came. Long: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A simulator that lets everybody call as often as they like, so that a test is not about the limit unless it says so.
pub fn generous(api: Api) -> Settings {
    Settings {
        api,
        limit: Limit { calls: 1000, window: Duration::from_secs(1) },
        access_lifetime: Some(Duration::from_secs(900)),
        ..Settings::default()
    }
}

/// A simulator, and a daemon that serves with its tokens.
pub struct World {
    pub simulator: Simulator,
    pub daemon: Daemon,
}

impl World {
    /// A daemon in its usual state, on this API.
    pub async fn of(api: Api) -> Self {
        Self::with(generous(api), Setup::default()).await
    }

    /// A simulator with these settings and a daemon with this setup.
    pub async fn with(settings: Settings, setup: Setup) -> Self {
        let simulator = Simulator::start(settings).await.expect("the simulator starts");
        let daemon = Daemon::start(&simulator, setup).await;
        Self { simulator, daemon }
    }

    /// A connection of a caller that may do everything.
    pub fn caller(&self) -> Caller {
        self.daemon.caller()
    }
}

/// The time since something. For bounds that the contract gives; a busy machine needs slack on the long side.
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    #[expect(
        clippy::disallowed_methods,
        reason = "what a caller's clock says is what is tested; nothing suspends"
    )]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub fn read(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Awaits something that must come.
pub async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, event)
        .await
        .unwrap_or_else(|_| panic!("{what}: nothing within {PATIENCE:?}"))
}

/// Waits until the other end has closed the connection; what it said before.
pub async fn closed(peer: &mut UnixStream) -> Vec<u8> {
    let mut said = Vec::new();
    // A reset is as good an end as any.
    let _ = soon("the end of the connection", peer.read_to_end(&mut said)).await;
    said
}
