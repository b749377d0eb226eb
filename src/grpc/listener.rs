//! The doors: sockets, and the loop that accepts.
//!
//! tonic's own loop waits for ever on one silent peer when it stops, spins when file descriptors run out, and bounds
//! neither connections nor first bytes; so this one is ours. It is one loop for every kind of door: a [`Socket`] is what
//! differs between them, which is how they learn who comes. It promises:
//!
//! - that no process which the policy doesn't know can keep a caller from being let in, since [`Places`] gives those a few
//!   places of their own, and for seconds. Callers share theirs, and one that takes them all does keep the others out;
//! - that the socket is closed, and its path free for a successor, as soon as [`Listener::serve`] is told to drain: from
//!   then on a client is refused at once, and never kept waiting for a process that ends;
//! - that `serve` returns as soon as it is told to, whoever is silent.

mod bind;
mod tls;
mod unix;

use std::{io, net::SocketAddr, path::Path, pin::Pin, sync::Arc, time::Duration};

pub use bind::CannotListen;
use tls::TlsDoor;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::MissedTickBehavior,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use unix::UnixDoor;

use super::{
    Service,
    connection::{Stay, connection},
    tls::TlsMaterial,
};
use crate::{caller::Peer, clock::Clock, config::Limits};

/// How long to pause when no connection can be accepted, for want of file descriptors above all.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often strangers that find no place are told of: anybody can knock ten thousand times a second.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// The connections that may be open at once, through all listeners together.
#[derive(Clone, Debug)]
pub struct Places {
    callers: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

impl Places {
    /// So many for callers; a sixteenth of that for all others, but at least 4, beside them.
    pub fn new(callers: usize) -> Self {
        Self {
            callers: Arc::new(Semaphore::new(callers)),
            strangers: Arc::new(Semaphore::new((callers / 16).max(4))),
        }
    }
}

/// A socket that accepts connections, and knows who is at their other ends.
trait Socket: Send {
    /// What a connection is read from and written to.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection whose peer is known. Loses none when it is dropped half way.
    fn arrival(&mut self) -> impl Future<Output = Result<Arrival<Self::Stream>, NoArrival>> + Send;

    /// Where it is, for logs.
    fn place(&self) -> &str;
}

/// A connection, and who is at its other end.
struct Arrival<S> {
    stream: S,
    peer: Peer,
    /// Comes when what vouched for the peer does so no longer, and says why.
    distrust: Distrust,
}

/// See [`Arrival::distrust`].
pub(super) type Distrust = Pin<Box<dyn Future<Output = String> + Send>>;

/// Why nobody arrives.
#[derive(Debug, thiserror::Error)]
enum NoArrival {
    /// The system gives no connection: it has no file descriptors left, above all.
    #[error("can't accept connections: {0}")]
    NotAccepted(io::Error),
    /// The system doesn't say whose a connection is. It is closed.
    #[error("the kernel doesn't tell who connects; closed: {0}")]
    Nobody(io::Error),
}

/// A door that is open.
pub struct Listener(Kind);

enum Kind {
    Unix(UnixDoor),
    Tls(TlsDoor),
}

impl Listener {
    /// Opens a Unix socket, with this file mode. A socket that a killed process left behind is replaced.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, CannotListen> {
        UnixDoor::bind(path, mode).map(Kind::Unix).map(Self)
    }

    /// Opens a TCP port, behind mutual TLS.
    pub fn bind_tls(
        address: SocketAddr,
        material: Arc<TlsMaterial>,
        limits: &Limits,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, CannotListen> {
        TlsDoor::bind(address, material, limits, clock).map(Kind::Tls).map(Self)
    }

    /// Where it listens, as one would tell a person.
    pub fn place(&self) -> &str {
        match &self.0 {
            Kind::Unix(door) => door.place(),
            Kind::Tls(door) => door.place(),
        }
    }

    /// Serves until `drain` is cancelled; then lets the calls under way finish, until `abort` is cancelled. Returns when the
    /// last connection is closed.
    pub async fn serve(
        self,
        service: Service,
        limits: Limits,
        places: Places,
        drain: CancellationToken,
        abort: CancellationToken,
    ) {
        match self.0 {
            Kind::Unix(door) => serve(door, service, limits, places, drain, abort).await,
            Kind::Tls(door) => serve(door, service, limits, places, drain, abort).await,
        }
    }
}

/// The loop that accepts: see [`Listener::serve`].
async fn serve<S: Socket>(
    mut socket: S,
    service: Service,
    limits: Limits,
    places: Places,
    drain: CancellationToken,
    abort: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let mut door = Door { place: socket.place().into(), places, refusing: false, strangers_refused: 0 };
    let mut report = tokio::time::interval(REPORT_EVERY);
    report.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let arrival = tokio::select! {
            biased;
            () = drain.cancelled() => break,
            _ = report.tick(), if door.strangers_refused > 0 => {
                door.tell_of_strangers();
                continue;
            }
            arrival = socket.arrival() => arrival,
        };
        let Arrival { stream, peer, distrust } = match arrival {
            Ok(arrival) => arrival,
            Err(error) => {
                door.refuse(|socket| tracing::error!(socket, "{error}"));
                if matches!(error, NoArrival::NotAccepted(_)) {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let Some(guest) = door.let_in(peer, &service, &limits) else { continue };
        let (service, limits, drain, abort) = (service.clone(), limits.clone(), drain.clone(), abort.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = abort.cancelled() => {}
                () = connection(stream, guest.peer, distrust, guest.stay, service, limits, drain) => {}
            }
            drop(guest.place);
        });
    }
    // Who is in the queue is refused, and not left there until the last call has ended.
    drop(socket);
    tasks.close();
    tasks.wait().await;
}

/// Who comes in.
struct Guest {
    peer: Arc<Peer>,
    stay: Stay,
    place: OwnedSemaphorePermit,
}

/// Decides who comes in, and tells when nobody can.
struct Door {
    /// Where it is, for logs.
    place: Box<str>,
    places: Places,
    refusing: bool,
    strangers_refused: u64,
}

impl Door {
    fn let_in(&mut self, peer: Peer, service: &Service, limits: &Limits) -> Option<Guest> {
        let peer = Arc::new(peer);
        if !service.knows(&peer) {
            let place = Arc::clone(&self.places.strangers).try_acquire_owned().ok();
            self.strangers_refused += u64::from(place.is_none());
            return place.map(|place| Guest { peer, stay: Stay::of_stranger(limits), place });
        }
        let Ok(place) = Arc::clone(&self.places.callers).try_acquire_owned() else {
            self.refuse(|socket| {
                tracing::warn!(
                    most = limits.max_connections,
                    socket,
                    "all connections are taken: new ones are closed at once; raise [limits] max_connections, or look \
                     for a caller that opens one for each call"
                );
            });
            return None;
        };
        if std::mem::take(&mut self.refusing) {
            tracing::info!(socket = %self.place, "accepting connections again");
        }
        Some(Guest { peer, stay: Stay::of_caller(limits), place })
    }

    /// Tells that nobody comes in, unless that is known already.
    fn refuse(&mut self, tell: impl FnOnce(&str)) {
        if !std::mem::replace(&mut self.refusing, true) {
            tell(&self.place);
        }
    }

    fn tell_of_strangers(&mut self) {
        tracing::warn!(
            refused = std::mem::take(&mut self.strangers_refused),
            socket = %self.place,
            "peers that are no callers have taken all connections that such peers get; new ones of theirs are \
             closed at once"
        );
    }
}
