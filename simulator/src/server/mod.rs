//! The server: one port, HTTP/1.1 and HTTP/2, with or without TLS.

mod answer;
mod connection;
mod request;
mod spoil;
pub(crate) mod tls;

pub(crate) use answer::{Body, with_body};
pub(crate) use request::read_body;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::api::{self, State};
use crate::callback::CallbackSpec;
use crate::clock::Clock;
use crate::log::Call;
use crate::settings::UtcOffset;
use crate::wire;

/// How long the answer to the request for an outage has to leave before the outage begins.
const FAREWELL: Duration = Duration::from_millis(100);

/// What the server, the handle and the control API share.
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) clock: Clock,
    /// How many calls there have been, for those who wait for more.
    pub(crate) arrived: watch::Sender<u64>,
    pub(crate) commands: mpsc::Sender<Command>,
}

impl Shared {
    pub(crate) fn new(state: State, clock: Clock) -> (Self, mpsc::Receiver<Command>) {
        let (commands, received) = mpsc::channel(8);
        (Self { state: Mutex::new(state), clock, arrived: watch::Sender::new(0), commands }, received)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body of a callback, signed with the keys that are in force now.
    pub(crate) fn callback(&self, spec: &CallbackSpec) -> Vec<u8> {
        let state = self.lock();
        let now = api::server_time(&state.settings, &self.clock);
        spec.body(&state.settings, &wire::time(now, state.settings.forms.fraction, UtcOffset::Z))
    }

    /// Records a call and tells those who wait. The state is still locked, so that the order is that of processing.
    fn record(&self, state: &mut State, call: Call) {
        let total = state.log.add(call);
        self.arrived.send_replace(total);
    }
}

/// What the handle or the control API asks of the listener.
pub(crate) enum Command {
    /// Close every connection and the port.
    Pause(oneshot::Sender<()>),
    /// Open the port again.
    Resume(oneshot::Sender<io::Result<()>>),
    /// Do both, with this time between.
    Outage(Duration),
}

/// Accepts connections until it is aborted, or nobody can command it any more.
pub(crate) async fn run(
    listener: TcpListener,
    addr: SocketAddr,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    mut commands: mpsc::Receiver<Command>,
) {
    let mut listener = Some(listener);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = accept(listener.as_ref()) => match accepted {
                Ok((stream, client)) => {
                    connections.spawn(connection::serve(stream, client, tls.clone(), Arc::clone(&shared)));
                }
                // Out of file descriptors, most likely: without a pause this would take a whole core.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
            command = commands.recv() => match command {
                None => return,
                Some(Command::Pause(done)) => {
                    listener = None;
                    connections.shutdown().await;
                    let _ = done.send(());
                }
                Some(Command::Resume(done)) => {
                    let _ = done.send(reopen(&mut listener, addr).await);
                }
                Some(Command::Outage(length)) => {
                    tokio::time::sleep(FAREWELL).await;
                    listener = None;
                    connections.shutdown().await;
                    tokio::time::sleep(length).await;
                    while let Err(error) = reopen(&mut listener, addr).await {
                        tracing::warn!(%error, %addr, "the port can't be opened again yet");
                        tokio::time::sleep(FAREWELL).await;
                    }
                }
            },
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn reopen(listener: &mut Option<TcpListener>, addr: SocketAddr) -> io::Result<()> {
    if listener.is_none() {
        *listener = Some(TcpListener::bind(addr).await?);
    }
    Ok(())
}
