//! The doors: sockets, and the loop that accepts.
//!
//! tonic's own loop waits for ever on one silent peer when it stops, spins when file descriptors run out, and bounds
//! neither connections nor first bytes; so this one is ours. It promises:
//!
//! - that no process which the policy doesn't know can keep a caller from being let in, since [`Places`] gives those a few
//!   places of their own, and for seconds. Callers share theirs, and one that takes them all does keep the others out;
//! - that the socket is closed, and its path free for a successor, as soon as [`Listener::serve`] is told to drain: from
//!   then on a client is refused at once, and never kept waiting for a process that ends;
//! - that `serve` returns as soon as it is told to, whoever is silent.

mod bind;

use std::{
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use bind::CannotListen;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::MissedTickBehavior,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Service,
    connection::{Stay, connection},
    peer::unix_peer,
};
use crate::{caller::Peer, config::Limits};

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

/// A Unix socket that accepts connections.
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode, so as to remove no other's socket.
    identity: (u64, u64),
}

impl Listener {
    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
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
        let tasks = TaskTracker::new();
        let mut door = Door { path: self.path.clone(), places, refusing: false, strangers_refused: 0 };
        let mut report = tokio::time::interval(REPORT_EVERY);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.cancelled() => break,
                _ = report.tick(), if door.strangers_refused > 0 => {
                    door.tell_of_strangers();
                    continue;
                }
                accepted = self.socket.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    door.refuse(|socket| tracing::error!(%error, socket, "can't accept connections"));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(guest) = door.let_in(&stream, &service, &limits) else { continue };
            let (service, limits, drain, abort) =
                (service.clone(), limits.clone(), drain.clone(), abort.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = abort.cancelled() => {}
                    () = connection(stream, guest.peer, guest.stay, service, limits, drain) => {}
                }
                drop(guest.place);
            });
        }
        // Who is in the queue is refused, and not left there until the last call has ended.
        drop(self);
        tasks.close();
        tasks.wait().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A successor may have put its own in place.
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Who comes in.
struct Guest {
    peer: Arc<Peer>,
    stay: Stay,
    place: OwnedSemaphorePermit,
}

/// Decides who comes in, and tells when nobody can.
struct Door {
    path: PathBuf,
    places: Places,
    refusing: bool,
    strangers_refused: u64,
}

impl Door {
    fn let_in(&mut self, stream: &UnixStream, service: &Service, limits: &Limits) -> Option<Guest> {
        let peer = match unix_peer(stream.as_fd()) {
            Ok(peer) => Arc::new(peer),
            Err(error) => {
                self.refuse(
                    |socket| tracing::error!(%error, socket, "the kernel doesn't tell who connects; closed"),
                );
                return None;
            }
        };
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
            tracing::info!(socket = %self.path.display(), "accepting connections again");
        }
        Some(Guest { peer, stay: Stay::of_caller(limits), place })
    }

    /// Tells that nobody comes in, unless that is known already.
    fn refuse(&mut self, tell: impl FnOnce(tracing::field::DisplayValue<std::path::Display<'_>>)) {
        if !std::mem::replace(&mut self.refusing, true) {
            tell(tracing::field::display(self.path.display()));
        }
    }

    fn tell_of_strangers(&mut self) {
        tracing::warn!(
            refused = std::mem::take(&mut self.strangers_refused),
            socket = %self.path.display(),
            "processes that are no callers have taken all connections that such processes get; new ones of theirs are \
             closed at once"
        );
    }
}
