//! The handle on a running simulator: what a test, or a program that hosts one, holds.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::api::{self, State};
use crate::callback::{self, CallbackSpec, Delivery, DeliveryError, DeliveryPlan};
use crate::clock::Clock;
use crate::fault::Fault;
use crate::log::{Call, Calls};
use crate::server::tls::{self, TlsError, TlsFiles};
use crate::server::{self, Command, Shared};
use crate::settings::{Credentials, Settings};

/// Why a simulator did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address can't be listened on.
    #[error("can't listen on {addr}; choose another address, or port 0 for any free one")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The certificate or its key can't be used.
    #[error("can't serve TLS")]
    Tls(#[from] TlsError),
}

/// What a simulator starts with. Everything has a default: plain HTTP on a free loopback port, by the machine's clock.
#[derive(Debug)]
pub struct Builder {
    settings: Settings,
    listen: SocketAddr,
    tls: Option<TlsFiles>,
    clock: Clock,
}

impl Builder {
    /// Begins with these settings.
    #[must_use]
    pub fn settings(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// Listens on this address. Whoever reaches it controls the simulator, so keep to loopback unless you must not.
    #[must_use]
    pub fn listen(self, listen: SocketAddr) -> Self {
        Self { listen, ..self }
    }

    /// Serves TLS, HTTP/1.1 and HTTP/2 by ALPN, with this certificate.
    #[must_use]
    pub fn tls(self, files: TlsFiles) -> Self {
        Self { tls: Some(files), ..self }
    }

    /// Lives by this clock, for tests that move time.
    #[must_use]
    pub fn clock(self, clock: impl Into<Clock>) -> Self {
        Self { clock: clock.into(), ..self }
    }

    /// Starts it. Needs a tokio runtime, whose tasks it runs on.
    pub async fn start(self) -> Result<Simulator, StartError> {
        let tls = self.tls.as_ref().map(tls::acceptor).transpose()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let failed = |source| StartError::Listen { addr: self.listen, source };
        let listener = TcpListener::bind(self.listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let (shared, commands) = Shared::new(State::new(self.settings), self.clock);
        let shared = Arc::new(shared);
        let accepting = tokio::spawn(server::run(listener, addr, tls, Arc::clone(&shared), commands));
        Ok(Simulator { shared, addr, scheme, accepting })
    }
}

/// A running simulator. It stops when this is dropped.
pub struct Simulator {
    shared: Arc<Shared>,
    addr: SocketAddr,
    scheme: &'static str,
    accepting: JoinHandle<()>,
}

impl Simulator {
    /// Starts one with these settings on a free loopback port. Needs a tokio runtime.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        Self::builder().settings(settings).start().await
    }

    /// Starts one with more than settings: an address, TLS, a clock.
    pub fn builder() -> Builder {
        Builder {
            settings: Settings::default(),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            tls: None,
            clock: Clock::system(),
        }
    }

    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URL that stands for `https://api.b2binpay.com`, without a slash at the end.
    pub fn base_url(&self) -> String {
        format!("{}://{}", self.scheme, self.addr)
    }

    /// The settings as they are now.
    pub fn settings(&self) -> Settings {
        self.shared.lock().settings.clone()
    }

    /// Changes the settings, at once and for every later call.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.shared.lock().settings);
    }

    /// The credentials that are accepted now.
    pub fn credentials(&self) -> Credentials {
        self.shared.lock().settings.credentials.clone()
    }

    /// The simulated server's clock: the simulator's own, moved by `clock_offset`.
    pub fn server_time(&self) -> Timestamp {
        api::server_time(&self.shared.lock().settings, &self.shared.clock)
    }

    /// Makes something go wrong. Faults wait behind each other; the oldest that fits a call strikes it.
    pub fn inject(&self, fault: Fault) {
        self.shared.lock().faults.add(fault);
    }

    /// Takes back every waiting fault. Calls that one has struck already stay struck.
    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    /// The faults that still wait, with the times they have left.
    pub fn waiting_faults(&self) -> Vec<Fault> {
        self.shared.lock().faults.waiting()
    }

    /// Whether `/wallet/` would accept this access token now.
    pub fn is_live(&self, access_token: &str) -> bool {
        let state = self.shared.lock();
        state.tokens.is_live(access_token, api::server_time(&state.settings, &self.shared.clock))
    }

    /// When this access token expires by the server's clock; `None` if it was not issued here.
    pub fn expires_at(&self, access_token: &str) -> Option<Timestamp> {
        self.shared.lock().tokens.expires_at(access_token)
    }

    /// Spends every refresh token, as a thief would who got hold of them. Returns how many were still good.
    pub fn spend_refresh_tokens(&self) -> usize {
        let mut state = self.shared.lock();
        let now = api::server_time(&state.settings, &self.shared.clock);
        state.tokens.spend_all(now)
    }

    /// Makes every access token dead before its time: `/wallet/` answers 401. Returns how many were live.
    pub fn revoke_access_tokens(&self) -> usize {
        let mut state = self.shared.lock();
        let now = api::server_time(&state.settings, &self.shared.clock);
        state.tokens.revoke_all(now)
    }

    /// Forgets the calls that count against the limit, as if a window had passed.
    pub fn reset_limit(&self) {
        self.shared.lock().admitted.clear();
    }

    /// The calls so far, in order of arrival.
    pub fn calls(&self) -> Calls {
        self.shared.lock().log.after(0)
    }

    /// Forgets the calls so far. Numbers go on where they were.
    pub fn forget_calls(&self) {
        self.shared.lock().log.clear();
    }

    /// Follows the calls from now on, one by one.
    pub fn watch_calls(&self) -> CallWatch {
        let seen = self.shared.lock().log.total();
        CallWatch { shared: Arc::clone(&self.shared), arrived: self.shared.arrived.subscribe(), seen }
    }

    /// The next call after this moment: the moment at which this is called, not the one at which it is awaited.
    pub fn next_call(&self) -> impl Future<Output = Call> + Send + use<> {
        let mut watch = self.watch_calls();
        async move { watch.next().await }
    }

    /// Waits until the calls so far satisfy `condition`, and returns them. Put a timeout around it.
    pub async fn wait_until(&self, condition: impl Fn(&Calls) -> bool) -> Calls {
        let mut arrived = self.shared.arrived.subscribe();
        loop {
            arrived.borrow_and_update();
            let calls = self.calls();
            if condition(&calls) {
                return calls;
            }
            // The sender lives in what this handle holds, so that it can't have gone.
            let _ = arrived.changed().await;
        }
    }

    /// Waits until there have been `n` calls in all. Put a timeout around it.
    pub async fn wait_for_calls(&self, n: usize) -> Calls {
        self.wait_until(|calls| calls.len() >= n).await
    }

    /// Waits until there have been `n` calls of the two token endpoints. Put a timeout around it.
    pub async fn wait_for_token_calls(&self, n: usize) -> Calls {
        self.wait_until(|calls| calls.to_token_endpoints().count() >= n).await
    }

    /// The body of a callback, signed with the keys that are in force now.
    pub fn callback(&self, spec: &CallbackSpec) -> Vec<u8> {
        self.shared.callback(spec)
    }

    /// Makes a callback and posts it to `url`, up to five times until the answer is 200.
    pub async fn send_callback(&self, url: &str, spec: &CallbackSpec) -> Result<Delivery, DeliveryError> {
        self.send_callback_by(url, spec, &DeliveryPlan::default()).await
    }

    /// Makes a callback and posts it to `url` by a plan: how often, how fast, how many times too many.
    pub async fn send_callback_by(
        &self,
        url: &str,
        spec: &CallbackSpec,
        plan: &DeliveryPlan,
    ) -> Result<Delivery, DeliveryError> {
        callback::deliver(url, self.callback(spec), plan, self.settings().callbacks_anywhere).await
    }

    /// Closes the port and every connection: from now on connections are refused.
    pub async fn pause_listening(&self) {
        let (done, finished) = oneshot::channel();
        if self.shared.commands.send(Command::Pause(done)).await.is_ok() {
            let _ = finished.await;
        }
    }

    /// Opens the same port again. Fails if another process took it meanwhile.
    pub async fn resume_listening(&self) -> io::Result<()> {
        let gone = || io::Error::other("the simulator has stopped");
        let (done, finished) = oneshot::channel();
        self.shared.commands.send(Command::Resume(done)).await.map_err(|_| gone())?;
        finished.await.map_err(|_| gone())?
    }

    /// Closes the port and every connection for a while, then opens the port again. Returns at once.
    pub async fn outage(&self, length: Duration) {
        let _ = self.shared.commands.send(Command::Outage(length)).await;
    }

    /// Stops it, and returns when the port is closed.
    pub async fn shutdown(mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator").field("base_url", &self.base_url()).finish_non_exhaustive()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Calls as they come. A call is recorded before its answer goes out.
pub struct CallWatch {
    shared: Arc<Shared>,
    arrived: watch::Receiver<u64>,
    seen: u64,
}

impl CallWatch {
    /// The next call that was not returned yet. Waits for it; put a timeout around it.
    pub async fn next(&mut self) -> Call {
        loop {
            self.arrived.borrow_and_update();
            if let Some(call) = self.shared.lock().log.first_after(self.seen) {
                self.seen = call.number;
                return call;
            }
            // The sender lives in what this watch holds, so that it can't have gone.
            let _ = self.arrived.changed().await;
        }
    }
}
